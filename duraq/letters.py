"""Dead letters as lines of JSON: taken out of a storage, kept elsewhere, brought into this one or another.

    {"dead_letter":1,"queue":"mail","id":"order-17","entry":{...},"data":{"to":"a@example.org"}}

``entry`` is what a ``keep`` record has (docs/FORMAT.md): priority, times, headers, attempts, every error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import orjson

from duraq import snapshot
from duraq.acts import BATCH, Outcome, commit_each
from duraq.clock import from_datetime
from duraq.entry import DEAD, Entry
from duraq.model import PROVISIONAL, check_queue_name
from duraq.operations import Enqueue, Restore
from duraq.options import entry_id
from duraq.options import headers as check_headers
from duraq.options import key as check_key
from duraq.payload import PayloadCodec
from duraq.storage.base import Storage
from duraq.values import number
from duraq.views import EntryView

VERSION = 1
_BYTES = 1 << 20  # of payloads in one group
# Far from where the numbers end that a queue counts its leases with.
_LARGEST_TOKEN = PROVISIONAL >> 10


def exported(view: EntryView) -> dict[str, Any]:
    """A dead letter with all that it takes to bring it back, as JSON values."""
    new = Enqueue(
        view.id,
        b"",
        view.priority,
        None,
        None if view.expires_at is None else from_datetime(view.expires_at),
        key=view.key,
        headers=dict(view.headers) or None,
    )
    entry = Entry(new, 0, from_datetime(view.created_at), None, 0)
    entry.updated_at = from_datetime(view.updated_at)
    entry.status, entry.token, entry.attempts = DEAD, view.token, view.attempts
    entry.redriven, entry.history = view.redriven, view.history
    about = snapshot.of(entry)
    # Its place is another one wherever it is brought to.
    del about["order"]
    return {
        "dead_letter": VERSION,
        "queue": view.queue,
        "id": view.id,
        "entry": about,
        "data": orjson.Fragment(view.payload),
    }


@dataclass(frozen=True, slots=True)
class Imported:
    """A dead letter that is to be brought in."""

    queue: str
    payload: bytes
    entry: Entry

    @property
    def id(self) -> str:
        """The entry's id."""
        return self.entry.id

    @classmethod
    def of(cls, line: Any, max_payload_bytes: int) -> Self:
        """What such a line, as a JSON value, says. Raises InvalidInput, and ValueError if it is no such."""
        if not isinstance(line, dict) or "dead_letter" not in line:
            raise ValueError("not a dead letter as `duraq dlq export` writes it")
        if line["dead_letter"] != VERSION:
            raise ValueError(f"of version {line['dead_letter']!r:.20}; this one knows {VERSION}")
        try:
            queue, name, about = check_queue_name(line["queue"]), entry_id(line["id"]), line["entry"]
            entry = snapshot.restore(name, {**about, "order": 0, "dead": True, "lease": None})
            if not 0 < entry.token < _LARGEST_TOKEN:
                raise ValueError(f"no token of a dead letter: {entry.token}")
            if entry.headers is not None:
                entry.headers = check_headers(entry.headers)
            if entry.key is not None:
                entry.key = check_key(entry.key)
            number(entry.updated_at)
            payload = PayloadCodec[Any](None, max_payload_bytes).encode(line["data"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a whole dead letter: {error!r:.200}") from None
        # It comes from elsewhere, and waits for nothing.
        entry.ready_at = None
        return cls(queue, payload, entry)

    def moved_to(self, queue: str) -> Self:
        """The same, for another queue."""
        return replace(self, queue=queue)

    @property
    def change(self) -> dict[str, list[Any]]:
        """The operation that brings it in."""
        return {self.queue: [Restore(self.id, self.payload, self.entry, changed=True)]}


class Brought(NamedTuple):
    """What became of one: ``outcome.error`` says why it was passed over, if it was."""

    queue: str
    outcome: Outcome


def bring_in(storage: Storage, letters: Iterable[Imported]) -> Iterator[Brought]:
    """Bring them in, group by group; one whose id is in use is passed over. Their queues must be there."""
    for group in _groups(letters):
        changes = {name: each.change for name, each in group.items()}
        for outcome in commit_each(storage, changes).values():
            queue, _, name = outcome.id.partition("/")
            yield Brought(queue, Outcome(name, outcome.error))


def _groups(letters: Iterable[Imported]) -> Iterator[dict[str, Imported]]:
    """Such as are committed together, by queue and id; one that comes again is of the next group."""
    group: dict[str, Imported] = {}
    size = 0
    for each in letters:
        name = f"{each.queue}/{each.id}"
        if name in group or len(group) == BATCH or size > _BYTES:
            yield group
            group, size = {}, 0
        group[name] = each
        size += len(each.payload)
    if group:
        yield group
