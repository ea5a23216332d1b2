"""What the two storages of a migration remember of it, in a queue of their own that nobody works.

The source has ``away/ID`` for each migration that it was ever moved in, and the target ``in/ID``; neither
ever goes. The source has for each queue the note ``out/QUEUE/NUMBER`` (see Leaving), and the target
``in/ID/QUEUE/NUMBER`` (see Mark). These two are written anew with the next number, in the place of the one
before, which must be there; and ``begun/...`` sees to it that there is one first. So of two who have read the
same one, only one can write the next; and it is written in one change with that which it tells of.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple, Self

import orjson

from duraq import snapshot
from duraq.entry import DEAD
from duraq.errors import CannotMigrate
from duraq.model import MIGRATIONS, Pause
from duraq.operations import Enqueue, Expire, Operation
from duraq.storage.base import StoredEntry
from duraq.storage.transacting import TransactingStorage

# How far a queue is on its way out: its leases are waited for; entries may be in the target; nothing is
# between the two; and the same, as it was given up.
STOPPING, MOVING, OVER, GIVEN_UP = "stopping", "moving", "over", "given up"
_WORTH_IT = 100  # notes that are read at once
_SUMS = 1 << 128


def new_id() -> str:
    """The name of a migration, which nobody has given before."""
    return secrets.token_hex(4)


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

    def is_same(self, other: Sent) -> bool:
        """Whether nothing has become of it between the two."""
        return (self.version, self.updated_at, self.dead) == (other.version, other.updated_at, other.dead)


@dataclass(frozen=True, slots=True)
class Mark:
    """What the target remembers of a queue: what has arrived.

    ``then``: how it is to be paused in the target once it is ``over``. ``count`` and ``total``: entries that
    have arrived so far, and the sum of their checksums. ``page``: those that came last, by the name ``last``,
    when the source's note had the number ``under`` (or when it was over); ``left``: the name of the page
    before. As long as that is the last one that the source has ``settled``, these are in the source as well.
    """

    migration: str
    queue: str
    number: int = 0
    then: Pause | None = None
    over: bool = False
    count: int = 0
    total: int = 0
    page: tuple[Sent, ...] = ()
    last: str = ""
    left: str = ""
    under: int = 0

    def turned(self, **changed: Any) -> Mark:
        """The next one."""
        return replace(self, number=self.number + 1, **changed)

    def taking(self, page: Sequence[Sent], under: int) -> Mark:
        """The next one: these have arrived, and those of the page before have left."""
        return self.turned(
            page=tuple(page),
            last=new_id(),
            left=self.last,
            under=under,
            count=self.count + len(page),
            total=(self.total + _sum(page)) % _SUMS,
        )

    def without(self, back: Sequence[Sent]) -> Mark:
        """The next one: the page that came last has not, and these of it are taken back."""
        return self.turned(
            page=(),
            last=self.left,
            count=self.count - len(back),
            total=(self.total - _sum(back)) % _SUMS,
        )

    @property
    def checksum(self) -> str:
        """Of all that has arrived, in whatever order."""
        return f"{self.total:032x}"

    def written(self) -> list[Operation]:
        """The operations that write it; they fail if the one before is not there."""
        content = {
            "then": _pause_image(self.then),
            "over": self.over,
            "count": self.count,
            "total": self.checksum,
            "page": [list(each) for each in self.page],
            "last": self.last,
            "left": self.left,
            "under": self.under,
        }
        return _next_of(f"in/{self.migration}/{self.queue}", self.number, content)

    @classmethod
    def read(cls, migration: str, queue: str, number: str, content: dict[str, Any]) -> Self:
        """It again."""
        return cls(
            migration,
            queue,
            int(number),
            _pause_of(content["then"]),
            content["over"],
            content["count"],
            int(content["total"], 16),
            tuple(Sent(*each) for each in content["page"]),
            content["last"],
            content["left"],
            content["under"],
        )


@dataclass(frozen=True, slots=True)
class Leaving:
    """What the source remembers of a queue: that it is on its way to ``to``, and which page has left.

    ``before``: how it was paused. ``since``: the number of the note from which on it is *moving*, if it is.
    ``settled``: the name of the page that was removed last; ``earlier``: the same of the other migrations
    that it was ever in, for their marks are still there.
    """

    queue: str
    number: int
    migration: str
    to: str
    before: Pause | None
    stage: str
    since: int = 0
    settled: str = ""
    earlier: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_under_way(self) -> bool:
        """Whether entries may be between the two storages, or will be at once."""
        return self.stage in {STOPPING, MOVING}

    def has_kept(self, mark: Mark) -> bool:
        """Whether nothing was done to the entries of its page since they were read here."""
        return self.stage == MOVING and mark.under >= self.since

    def turned(self, stage: str, **changed: Any) -> Leaving:
        """The next one."""
        number = self.number + 1
        since = self.since if self.stage == stage == MOVING else number
        return replace(self, number=number, stage=stage, since=since, **changed)

    def changed(self) -> Leaving:
        """The next one: something was done to entries that another run may be about to send."""
        return replace(self.turned(self.stage), since=self.number + 1)

    def seen_by(self, migration: str) -> Leaving:
        """It as it is for that migration: of another one's it is not moving, and has settled what it had."""
        if migration == self.migration:
            return self
        settled = {**self.earlier, self.migration: self.settled}
        own = settled.pop(migration, "")
        return replace(self, migration=migration, stage="", settled=own, earlier=settled)

    def of_migration(self, migration: str, stage: str, **changed: Any) -> Leaving:
        """The next one, of that migration."""
        return self.seen_by(migration).turned(stage, **changed)

    def put_together(self, mark: Mark) -> Leaving:
        """The next one: of that migration the page that came last is settled, whatever it was."""
        if mark.migration == self.migration:
            return self.turned(self.stage, settled=mark.last)
        return self.turned(self.stage, earlier={**self.earlier, mark.migration: mark.last})

    def is_apart(self, mark: Mark) -> bool:
        """Whether they do not go together: one of the two is not what it was."""
        settled = self.seen_by(mark.migration).settled
        return settled != mark.last and not (mark.page and settled == mark.left)

    def written(self) -> list[Operation]:
        """The operations that write it; they fail if the one before is not there."""
        content = {
            "migration": self.migration,
            "to": self.to,
            "before": _pause_image(self.before),
            "stage": self.stage,
            "since": self.since,
            "settled": self.settled,
            "earlier": self.earlier,
        }
        return _next_of(f"out/{self.queue}", self.number, content)

    @classmethod
    def read(cls, queue: str, number: str, content: dict[str, Any]) -> Self:
        """It again."""
        return cls(
            queue,
            int(number),
            content["migration"],
            content["to"],
            _pause_of(content["before"]),
            content["stage"],
            content["since"],
            content["settled"],
            content["earlier"],
        )


@dataclass(slots=True)
class Remembered:
    """All that a storage remembers.

    ``away``: where it went, by migration, the first one first; ``taken``: where each came from that it took
    in. ``marks`` by migration and queue, ``leaving`` by queue.
    """

    away: dict[str, str] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    marks: dict[tuple[str, str], Mark] = field(default_factory=dict)
    leaving: dict[str, Leaving] = field(default_factory=dict)

    @classmethod
    def of(cls, storage: str, notes: Iterable[tuple[str, bytes]]) -> Self:
        """What these say, by their names. Raises CannotMigrate if one is not understood."""
        found = cls()
        for name, payload in notes:
            try:
                found._read(name.split("/"), orjson.loads(payload))
            except (ValueError, KeyError, TypeError) as error:
                raise CannotMigrate(
                    f"{storage}: what it remembers of a migration is not understood: {name!r:.100}; another"
                    " version of duraq has written that: end it with that one"
                ) from error
        return found

    def _read(self, name: list[str], content: Any) -> None:
        match name:
            case ["begun", _, *_]:
                pass
            case ["away", migration]:
                self.away[migration] = content["to"]
            case ["in", migration]:
                self.taken[migration] = content["from"]
            case ["in", migration, queue, number]:
                self.marks[migration, queue] = Mark.read(migration, queue, number, content)
            case ["out", queue, number]:
                self.leaving[queue] = Leaving.read(queue, number, content)
            case _:
                raise ValueError(name)

    def is_under_way(self, to: str) -> bool:
        """Whether something is on its way from here to that storage."""
        return any(each.is_under_way and each.to == to for each in self.leaving.values())

    def apart(self, target: Remembered) -> set[str]:
        """Queues of which this, or that storage, is not what it was: they do not go together."""
        migration, found = self.shared(target), set()
        for (of, queue), mark in target.marks.items():
            leaving = self.leaving.get(queue)
            if of == migration and (leaving.is_apart(mark) if leaving else mark.last or not mark.over):
                found.add(queue)
        for queue, leaving in self.leaving.items():
            if migration and leaving.seen_by(migration).settled and (migration, queue) not in target.marks:
                found.add(queue)
        return found

    def shared(self, target: Remembered) -> str | None:
        """The migration from the storage that remembers this to that one, if there was ever one.

        It is the same for whoever asks, also if two have begun one at once: the first of them.
        """
        return next((each for each in self.away if each in target.taken), None)


class Notes:
    """The notes in one storage; ``name`` is for people."""

    def __init__(self, storage: TransactingStorage, name: str) -> None:
        self._storage, self._name = storage, name

    def read(self) -> Remembered:
        """All of them. Raises CannotMigrate if one is not understood."""
        return Remembered.of(self._name, ((note.id, note.payload) for note in self._all()))

    def mark(self, migration: str, queue: str) -> Mark | None:
        """How far the queue has come; None if it has not begun."""
        return self._only(f"in/{migration}/{queue}/").marks.get((migration, queue))

    def leaving(self, queue: str) -> Leaving | None:
        """What is remembered of the queue that goes from here; None if it never did."""
        return self._only(f"out/{queue}/").leaving.get(queue)

    def has(self, name: str) -> bool:
        """Whether there is a note of that name."""
        return bool(self._storage.some(MIGRATIONS, [name]))

    def _only(self, prefix: str) -> Remembered:
        found = ((note.id, note.payload) for note in self._all() if note.id.startswith(prefix))
        return Remembered.of(self._name, found)

    def _all(self) -> Iterator[StoredEntry]:
        behind = 0
        while page := self._storage.page(MIGRATIONS, behind, _WORTH_IT, 1 << 22):
            yield from page
            behind = page[-1].seq


def once(name: str, content: Mapping[str, str]) -> list[Operation]:
    """The operations that write a note which stays."""
    return [Enqueue(name, orjson.dumps(content))]


def _next_of(chain: str, number: int, content: Mapping[str, Any]) -> list[Operation]:
    begun = Expire(f"{chain}/{number - 1}") if number else Enqueue(f"begun/{chain}", b"null")
    return [begun, Enqueue(f"{chain}/{number}", orjson.dumps(content))]


def _sum(page: Sequence[Sent]) -> int:
    return sum(int(sent.checksum, 16) for sent in page)


def _pause_image(pause: Pause | None) -> list[str] | None:
    return None if pause is None else [pause.at.isoformat(), pause.who, pause.reason]


def _pause_of(image: list[str] | None) -> Pause | None:
    return None if image is None else Pause(datetime.fromisoformat(image[0]), image[1], image[2])
