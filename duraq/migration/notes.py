"""What the two storages of a migration remember of it, in a queue of their own that nobody works.

The source has ``out``, the migration that it is in, and for each queue that is under way ``out/QUEUE``: how
it was paused before. The target has ``in/ID`` for each migration that it took in, and for each queue of it
``begun/ID/QUEUE``, so that there is one first mark, and ``in/ID/QUEUE/NUMBER``, the mark. It is written in
one change with the entries of a page, and takes the place of the one before. So it tells for certain which
entries have arrived, however a run has ended, and of two runs at once only one can write a page.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple, Self

import orjson

from duraq import snapshot
from duraq.entry import DEAD
from duraq.model import MIGRATIONS, Pause
from duraq.operations import Enqueue, Expire, Operation
from duraq.storage.base import StoredEntry
from duraq.storage.transacting import TransactingStorage

OUT = "out"
_REASON = re.compile(r"migration ([0-9a-f]{8}): ")
_FILLING = "it is being filled from"
_WORTH_IT = 100  # notes that are read at once
_SUMS = 1 << 128


def out_of(notes: Mapping[str, bytes]) -> str | None:
    """Which migration a storage with these notes is moved away in, if in any."""
    return orjson.loads(notes[OUT])["id"] if OUT in notes else None


def new_id() -> str:
    """The name of a migration, which nobody has given before."""
    return secrets.token_hex(4)


def reason_in_source(migration: str, target: str) -> str:
    """Why a queue of the source is paused: while it is moved, and from then on."""
    return f"migration {migration}: its entries are in {target}, or on their way"


def reason_in_target(migration: str, source: str) -> str:
    """Why a queue of the target is paused, until all of it is there."""
    return f"migration {migration}: {_FILLING} {source}"


def migration_of(pause: Pause | None) -> str | None:
    """Which migration has paused a queue, if one has."""
    found = None if pause is None else _REASON.match(pause.reason)
    return None if found is None else found[1]


def is_being_filled(pause: Pause | None) -> bool:
    """Whether a queue is the target's, of a migration that is not over."""
    return pause is not None and _FILLING in pause.reason


class Sent(NamedTuple):
    """An entry as it was sent: what tells whether it has changed since, and a checksum of all of it."""

    id: str
    created_at: int
    token: int
    redriven: int
    updated_at: int
    expires_at: int | None
    dead: bool
    checksum: str

    @classmethod
    def of(cls, stored: StoredEntry) -> Self:
        """The entry in whichever storage: but for its place it must be the same in both."""
        entry = stored.unheld()
        about = snapshot.of(entry)
        del about["order"]
        text = orjson.dumps([stored.id, about], option=orjson.OPT_SORT_KEYS)
        checksum = blake2b(text + b"\0" + stored.payload, digest_size=16).hexdigest()
        dead = stored.status is DEAD
        return cls(stored.id, *entry.version, stored.updated_at, stored.expires_at, dead, checksum)

    @property
    def version(self) -> tuple[int, int, int]:
        """That of Entry."""
        return self.created_at, self.token, self.redriven

    def is_of(self, other: Sent) -> bool:
        """Whether nothing should have become of it between the two."""
        return (self.version, self.updated_at, self.dead) == (other.version, other.updated_at, other.dead)


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a queue has come.

    ``then``: how it is to be paused in the target once it is ``over``. ``count`` and ``total``: entries that
    have arrived so far, and the sum of their checksums. ``page``: those that came last; they may still be in
    the source.
    """

    migration: str
    queue: str
    number: int = 0
    then: Pause | None = None
    over: bool = False
    count: int = 0
    total: int = 0
    page: tuple[Sent, ...] = ()

    @property
    def id(self) -> str:
        """Its name in the target."""
        return f"in/{self.migration}/{self.queue}/{self.number}"

    def turned(self, page: Sequence[Sent] = (), **changed: Any) -> Mark:
        """The next one: these have arrived."""
        total = sum(int(sent.checksum, 16) for sent in page)
        return replace(
            self,
            number=self.number + 1,
            page=tuple(page),
            count=self.count + len(page),
            total=(self.total + total) % _SUMS,
            **changed,
        )

    def without(self, sent: Sent) -> Mark:
        """It again, when one of them was taken back."""
        return replace(self, count=self.count - 1, total=(self.total - int(sent.checksum, 16)) % _SUMS)

    @property
    def checksum(self) -> str:
        """Of all that has arrived, in whatever order."""
        return f"{self.total:032x}"

    def written(self, before: Mark | None = None) -> list[Operation]:
        """The operations that write it, in the place of the one before; they fail if that is not there.

        Or, if it is the first one, if there was one already.
        """
        content = {
            "then": pause_image(self.then),
            "over": self.over,
            "count": self.count,
            "total": self.checksum,
            "page": [list(each) for each in self.page],
        }
        begun = Enqueue(f"begun/{self.migration}/{self.queue}", b"null")
        turned = begun if before is None else Expire(before.id)
        return [turned, Enqueue(self.id, orjson.dumps(content))]

    @classmethod
    def read(cls, name: str, content: dict[str, Any]) -> Self:
        """It again."""
        _, migration, queue, number = name.split("/")
        return cls(
            migration,
            queue,
            int(number),
            pause_of(content["then"]),
            content["over"],
            content["count"],
            int(content["total"], 16),
            tuple(Sent(*each) for each in content["page"]),
        )


def pause_image(pause: Pause | None) -> list[str] | None:
    """A pause as JSON values."""
    return None if pause is None else [pause.at.isoformat(), pause.who, pause.reason]


def pause_of(image: list[str] | None) -> Pause | None:
    """It again."""
    return None if image is None else Pause(datetime.fromisoformat(image[0]), image[1], image[2])


class Notes:
    """The notes in one storage."""

    def __init__(self, storage: TransactingStorage) -> None:
        self._storage = storage

    def find(self, name: str) -> Any:
        """The content of the note of that name; None if there is none."""
        found = self._storage.some(MIGRATIONS, [name])
        return orjson.loads(found[0].payload) if found else None

    def all(self) -> Iterator[StoredEntry]:
        """All of them."""
        behind = 0
        while page := self._storage.page(MIGRATIONS, behind, _WORTH_IT, 1 << 22):
            yield from page
            behind = page[-1].seq

    def mark(self, migration: str, queue: str) -> Mark | None:
        """How far the queue has come; None if it has not begun."""
        prefix = f"in/{migration}/{queue}/"
        for note in self.all():
            if note.id.startswith(prefix):
                return Mark.read(note.id, orjson.loads(note.payload))
        return None

    def marks(self, migration: str) -> dict[str, Mark]:
        """The same of all queues of a migration that have begun."""
        names = [note for note in self.all() if note.id.startswith(f"in/{migration}/")]
        found = [Mark.read(note.id, orjson.loads(note.payload)) for note in names]
        return {mark.queue: mark for mark in found}

    def put(self, name: str, content: Any) -> list[Operation]:
        """The operations that write a note, in the place of one of that name."""
        is_there = self.find(name) is not None
        return [*self.drop(name, there=is_there), Enqueue(name, orjson.dumps(content))]

    @staticmethod
    def drop(name: str, *, there: bool = True) -> list[Operation]:
        """The operations that remove it."""
        return [Expire(name)] if there else []
