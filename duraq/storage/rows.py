"""What a storage in a database keeps, as rows: the shelf of the fold, and what stands at a queue's head.

A database keeps every entry in a row of its own. The fold takes those that change off the shelf, and the
storage lays them down again as they have become, in the same database transaction. So what is in memory
between two turns is only the head of each queue and its leased entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from typing import Protocol

import orjson

from duraq import snapshot
from duraq.entry import DEAD, LEASED, READY, SCHEDULED, Entry, delivery_order, enqueue_order
from duraq.model import Counts, EntryStatus


@dataclass(slots=True)
class Head:
    """A queue without its entries.

    ``version``: another one after each turn that changed the queue. ``seq``: the number of the last change.
    ``pause`` and ``ledger``: as JSON. ``scheduled``, ``ready``, ``dead``: rows in these states; ``expiring``:
    those of them that have a TTL; ``payload_bytes``: of all rows, leased ones among them.
    """

    version: int = 0
    seq: int = 0
    tokens: int = 0
    pause: str | None = None
    ledger: str = ""
    scheduled: int = 0
    ready: int = 0
    dead: int = 0
    expiring: int = 0
    payload_bytes: int = 0


@dataclass(slots=True)
class Row:
    """One entry: what is searched for, and ``about``, the rest of it as JSON (``duraq.snapshot``)."""

    id: str
    seq: int
    status: str
    priority: int
    ready_at: int | None
    expires_at: int | None
    about: str
    payload: bytes | None  # None: as it was


class Rows(Protocol):
    """The rows of all queues, in the database transaction that a turn is.

    What a method raises for the database's sake is the storage's to translate.
    """

    def names(self) -> list[str]:
        """The queues that there are."""

    def head(self, queue: str) -> Head | None:
        """The queue's head, or None if there is no such queue. Nobody else changes it until the turn ends."""

    def save_head(self, queue: str, head: Head) -> None:
        """Write the head, of a new queue perhaps."""

    def put(self, queue: str, row: Row) -> None:
        """Write the row, in the place of the one of that id."""

    def delete(self, queue: str, entry_id: str) -> int:
        """The row is gone, and its payload; returns how long that was, 0 if there was no such row."""

    def find(self, queue: str, entry_id: str) -> Row | None:
        """The row of that id, without its payload."""

    def some(self, queue: str, entry_ids: list[str]) -> list[Row]:
        """Those of these ids that are there, in no order, with their payloads."""

    def payload(self, queue: str, entry_id: str) -> bytes:
        """The payload of a row that is there."""

    def leased(self, queue: str) -> list[Row]:
        """Those that are leased, without their payloads."""

    def ready(self, queue: str, limit: int) -> list[Row]:
        """The first ready ones in the order of delivery, with their payloads."""

    def walk(self, queue: str, status: str, *, by_seq: bool, behind: int = 0) -> Iterator[Row]:
        """Those in that state, with their payloads: by number, or in the order of delivery.

        ``behind``: only those of a higher number.
        """

    def make_due(self, queue: str, now: int) -> int:
        """Scheduled ones whose time has come are ready; returns how many."""

    def next_due(self, queue: str) -> int | None:
        """When the next scheduled one is ready."""

    def expired(self, queue: str, now: int, limit: int) -> list[Row]:
        """Scheduled and ready ones whose TTL has passed, without their payloads."""

    def count_expired(self, queue: str, now: int) -> tuple[int, int]:
        """How many of these are scheduled, and how many ready."""


def row_of(entry: Entry, payload: bytes | None) -> Row:
    return Row(
        entry.id,
        entry.seq,
        entry.status.value,
        entry.priority,
        entry.ready_at,
        entry.expires_at,
        orjson.dumps(snapshot.of(entry)).decode(),
        payload,
    )


def entry_of(row: Row) -> Entry:
    entry = snapshot.restore(row.id, orjson.loads(row.about), row.payload)
    entry.status = EntryStatus(row.status)
    return entry


# What is not leased, and not over.
_HERE = (SCHEDULED, READY, DEAD)


class RowShelf:
    """The rows of one queue that are not leased, as the fold's shelf; in a turn."""

    def __init__(self, rows: Rows, queue: str, head: Head) -> None:
        self._rows = rows
        self._queue = queue
        self._head = head
        self._due: int | None = None
        self._due_is_known = False
        self.changed = False  # whether time has changed rows since the head was read

    # -- changing --------------------------------------------------------------------------------------

    def advance(self, now: int) -> None:
        """Scheduled entries whose time has come are ready; see Shelf."""
        due = self.next_event()
        if due is None or due > now:
            return
        count = self._rows.make_due(self._queue, now)
        self._head.scheduled -= count
        self._head.ready += count
        self._due_is_known, self.changed = False, True

    def take(self, entry_id: str) -> Entry:
        """Take the entry off the shelf. Its row stays until it is laid down again, or deleted."""
        entry = self.find(entry_id)
        if entry is None or entry.status is LEASED:
            raise KeyError(entry_id)
        self._count(entry, -1)
        return entry

    def replace(self, entry_id: str, seq: int) -> None:  # noqa: ARG002 - the id is enough
        """Take it off unread, if it is there."""
        entry = self.find(entry_id)
        if entry is not None:
            self._count(entry, -1)

    def lay_down(self, entry: Entry) -> None:
        """Its row is here from now on."""
        self._count(entry, 1)

    def _count(self, entry: Entry, by: int) -> None:
        head = self._head
        if entry.status is READY:
            head.ready += by
        elif entry.status is SCHEDULED:
            head.scheduled += by
            self._due_is_known = False
        else:
            head.dead += by
        head.expiring += by * (entry.expires_at is not None)

    # -- asking ----------------------------------------------------------------------------------------

    @property
    def tally(self) -> Counts:
        head = self._head
        return Counts(head.scheduled, head.ready, 0, head.dead)

    @property
    def any_ready(self) -> bool:
        return self._head.ready > 0

    @property
    def may_expire(self) -> bool:
        return self._head.expiring > 0

    def next_event(self) -> int | None:
        if not self._due_is_known:
            self._due = self._rows.next_due(self._queue) if self._head.scheduled else None
            self._due_is_known = True
        return self._due

    def first(self) -> tuple[int, int] | None:
        found = self.peek(1)
        return delivery_order(found[0]) if found else None

    def peek(self, limit: int) -> list[Entry]:
        return [entry_of(row) for row in self._rows.ready(self._queue, limit)] if self._head.ready else []

    def find(self, entry_id: str) -> Entry | None:
        row = self._rows.find(self._queue, entry_id)
        return None if row is None else entry_of(row)

    def expired(self, now: int, limit: int) -> list[Entry]:
        return [entry_of(row) for row in self._rows.expired(self._queue, now, limit)] if limit > 0 else []

    def count_expired(self, now: int) -> Counts:
        return Counts(*self._rows.count_expired(self._queue, now)) if self.may_expire else Counts()

    def walk(self, status: EntryStatus | None) -> Iterator[Entry]:
        if status is None:
            kinds = (self._walk(each, by_seq=True) for each in _HERE)
            return merge(*kinds, key=enqueue_order)
        return self._walk(status, by_seq=status is not READY) if status in _HERE else iter(())

    def by_age(self) -> Iterator[Entry]:
        return self._walk(READY, by_seq=True)

    def behind(self, seq: int, status: EntryStatus | None = None) -> Iterator[Entry]:
        kinds = (
            self._walk(each, by_seq=True, behind=seq) for each in _HERE if status is None or each is status
        )
        return merge(*kinds, key=enqueue_order)

    def lived(self, before: int) -> Iterator[Entry]:
        return (entry for entry in self.walk(None) if entry.token and entry.seq < before)

    def _walk(self, status: EntryStatus, *, by_seq: bool, behind: int = 0) -> Iterator[Entry]:
        return map(entry_of, self._rows.walk(self._queue, status.value, by_seq=by_seq, behind=behind))
