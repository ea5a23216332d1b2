"""What a storage is to the rest of DuraQ: a few atomic verbs over named queues."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, Self

from duraq.clock import Clock
from duraq.entry import DEAD, READY, Entry
from duraq.metrics import QueueMetrics
from duraq.model import Attempt, Cause, Counts, EntryStatus, Pause
from duraq.operations import Operation


@dataclass(slots=True)
class StoredEntry:
    """An entry as a storage hands it out: its payload still bytes, its times microseconds."""

    id: str
    seq: int
    payload: bytes
    status: EntryStatus
    priority: int
    created_at: int
    updated_at: int
    ready_at: int | None
    expires_at: int | None
    attempts: int
    token: int
    worker: str | None = None
    deadline_at: int | None = None
    history: tuple[Attempt, ...] = ()
    key: str | None = None
    headers: dict[str, str] | None = None
    redriven: int = 0
    last_token: int = 0  # also of one that is not leased now

    def unheld(self) -> Entry:
        """The entry as the fold knows one that nobody holds, with all that it has been through."""
        entry = Entry(self, self.seq, self.created_at, None, 0)
        entry.updated_at = self.updated_at
        entry.status = DEAD if self.status is DEAD else READY  # whether its time has come depends on who asks
        entry.token, entry.attempts = self.last_token, self.attempts
        entry.redriven, entry.history = self.redriven, self.history
        return entry


@dataclass(slots=True)
class Lapsed:
    """A lease whose holder is gone or whose deadline has passed, and which nobody has ended yet."""

    id: str
    token: int
    attempts: int
    cause: Cause
    worker: str


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease this open storage holds: its token, and the attempts counted so far."""

    token: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What a commit must respect, checked at the moment of writing."""

    max_size: Mapping[str, int] = field(default_factory=dict)
    # Leases that are ended as timed out must still be late: their holders may have extended them meanwhile.
    still_late: bool = False


class PlaceInLine(AbstractContextManager["PlaceInLine"], Protocol):
    """A place in the line of those who wait for a queue, as a with-block; for one thread at a time.

    Whoever has one looks, sleeps, and looks again: what is committed after a look ends the sleep. One who
    leaves by an error passes a wake-up on to the next in line.
    """

    def __enter__(self) -> Self: ...

    def look(self, timeout: float = math.inf) -> float | None:
        """None if there may be something to claim or to settle; else how long to sleep, in seconds."""

    def sleep(self, seconds: float) -> bool:
        """Sleep for so long; True, and at once, if something happened. Raises StorageClosed."""

    def fileno(self) -> int:
        """What becomes readable when ``sleep`` would end, good until the next look; the place closes it."""


def pass_on(place: PlaceInLine) -> None:
    """Leave it without having looked: whoever woke it shall wake the next."""
    place.__exit__(InterruptedError, InterruptedError(), None)


class Storage(Protocol):
    """The contract of a backend; ``tests/contract`` proves it for each.

    Every method may be called from any thread. A method that changes something returns when the change is
    as durable as the storage's ``durability`` says; if it raises NotWritten (NotEnqueued) nothing was
    changed, and OutcomeUnknown means wholly or not at all. Queues come into being by the first commit.
    """

    clock: Clock
    max_payload_bytes: int
    lock_duration: int  # default lease length, microseconds

    def commit(self, changes: Mapping[str, Sequence[Operation]], limits: Limits | None = None) -> None:
        """Apply all operations, over any number of queues, or none.

        Raises DuplicateEntry, EntryNotFound, LeaseLost or QueueFull, before anything is written.
        """

    def transaction(self) -> AbstractContextManager[None]:
        """A with-block, or a decorator: what is done in it is one change, wholly there or not at all.

        It belongs to the thread, and in asyncio to the task, that is in it; calls of this storage that it
        makes are part of it, over any number of queues, and see what it has written. At its end they are
        committed together, with one sync; if an exception leaves it, they never were. Within another one it
        is a savepoint: only what was done in it is undone. What was dequeued in it is leased at once, and
        given back uncounted if it is undone. Raises, from its end, what ``commit`` raises.
        """

    def begin_transaction(self) -> None:
        """The same without a block, until one of the next two; within another one, a savepoint."""

    def commit_transaction(self) -> None:
        """Commit what was begun last, or, at a savepoint, keep it for the whole. Raises NoTransaction."""

    def rollback_transaction(self) -> None:
        """Undo what was done since the last beginning. Raises NoTransaction."""

    def claim(
        self, queue: str, limit: int = 1, *, lease_for: int | None = None, detached: bool = False
    ) -> list[StoredEntry]:
        """Lease up to ``limit`` ready entries, highest priority first, then in enqueue order.

        Returns only entries that are already durable. Expired entries met on the way are ended. A paused
        or unknown queue gives []. ``detached`` leases belong to no process: only their deadline ends them.
        """

    def lapsed(self, queue: str) -> list[Lapsed]:
        """Leases that ended without their holder saying so; the caller decides retry or dead letter."""

    def held(self, queue: str, entry_id: str) -> HeldLease:
        """The lease under which this open storage holds the entry. Raises NotLeased if it does not."""

    def wait(self, queue: str, timeout: float | None) -> bool:
        """Block until an entry may be claimable or a holder died, at most ``timeout`` seconds.

        Returns False when the time passed. A True is a hint: claim may still find nothing. Never misses
        what was committed before the call.
        """

    def place(self, queue: str) -> PlaceInLine:
        """What ``wait`` waits with, for those who wait for other things as well."""

    def get(self, queue: str, entry_id: str) -> StoredEntry:
        """One live or dead entry. Raises QueueNotFound or EntryNotFound."""

    def entries(
        self, queue: str, status: EntryStatus | None = None, limit: int | None = None, offset: int = 0
    ) -> list[StoredEntry]:
        """Live and dead entries: ready ones in the order of delivery, others in enqueue order."""

    def page(
        self, queue: str, behind: int, limit: int, most_bytes: int, status: EntryStatus | None = None
    ) -> list[StoredEntry]:
        """The first entries (in that state) of a later number than ``behind``, in enqueue order.

        Not more than ``limit``; as soon as their payloads and errors are ``most_bytes``, no more. So whoever
        goes through a deep queue, by the last one's ``seq``, holds nobody up for long.
        """

    def counts(self, queue: str) -> Counts:
        """Entries by state, as of now. An unknown queue counts zero."""

    def metrics(self, queue: str) -> QueueMetrics:
        """The queue in numbers, as of now; in a transaction without what is not committed yet.

        An unknown queue has had nothing.
        """

    def paused(self, queue: str) -> Pause | None:
        """Who paused the queue, or None."""

    def queues(self) -> list[str]:
        """Names of the queues that exist, sorted."""

    def close(self) -> None:
        """Give back what is leased (uncounted), release locks and descriptors. Idempotent."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None:
        """Close it."""
