"""Everything that storages built on the fold share: what a subclass supplies, and asking.

A turn is the exclusive right to decide: ``with self._turn:``. In it ``_state`` gives a queue's state, caught
up. What is decided in a turn is written with ``_write``, which also folds it; ``_settle`` then waits, outside
the turn, until it is durable. ``duraq.storage.committing`` decides.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import wraps
from itertools import islice
from typing import Any, ParamSpec, Self, TypeVar

from duraq import options
from duraq.clock import Clock, to_datetime
from duraq.entry import Entry
from duraq.errors import EntryNotFound, NotLeased, QueueNotFound
from duraq.ledger import Ledger
from duraq.metrics import QueueMetrics, measure
from duraq.model import Attempt, Cause, Counts, EntryStatus, Pause
from duraq.operations import Adopt, Lease, Operation
from duraq.shelf import Mislaid
from duraq.state import QueueState
from duraq.storage.base import HeldLease, Lapsed, PlaceInLine, StoredEntry
from duraq.storage.calls import Calls

P = ParamSpec("P")
T = TypeVar("T")

# How often a busy consumer asks whether the holders of other leases live, in seconds. One that waits is told.
LIVENESS_INTERVAL = 0.02


class TryAgain(Exception):
    """Raised in a turn that has to end before its call was decided: decide again in another one."""


class NoRoom(TryAgain):
    """Raised by ``_write``: nothing was written; call ``_make_room`` outside the turn first."""


def found_again(method: Callable[P, T]) -> Callable[P, T]:
    """If a turn has failed for what another one can make good, ask again."""

    @wraps(method)
    def asking(*args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            with suppress(Mislaid, TryAgain):
                return method(*args, **kwargs)

    return asking


class FoldStorage(ABC):
    """The verbs of ``Storage``, over a fold that the subclass keeps."""

    def __init__(self, clock: Clock, lock_duration: timedelta, max_payload_bytes: int) -> None:
        self.clock = clock
        self.lock_duration = options.duration("lock_duration", lock_duration)
        self.max_payload_bytes = options.payload_limit(max_payload_bytes)
        self._next_liveness_check: dict[str, float] = {}  # by queue, monotonic
        # How threads share a turn and a sync; worth it where a commit waits for one.
        self._calls: Calls | None = None

    # -- what a subclass supplies ----------------------------------------------------------------------

    _turn: AbstractContextManager[object]  # raises StorageClosed or StorageForked if it is not usable

    @abstractmethod
    def _check_usable(self) -> None:
        """Raise StorageClosed or StorageForked if it is not."""

    def _check_leasing(self) -> None:
        """Raise StorageClosed or StorageForked if nothing can be leased any more."""
        self._check_usable()

    @abstractmethod
    def _state(self, queue: str, *, create: bool = False) -> QueueState | None:
        """The queue's state, caught up; only in a turn."""

    def _is_at_its_end(self, queue: str) -> bool:  # noqa: ARG002 - whatever queue it is
        """Whether new entries can be written to the queue as it is, without knowing its state; in a turn."""
        return False

    @abstractmethod
    def _known_state(self, queue: str, *, whole: bool = False) -> QueueState | None:
        """The queue's state as last seen; without a turn, so only good for hints.

        With ``whole``: None if this process has come by since without looking at what others have written.
        """

    @abstractmethod
    def _write(self, changes: Mapping[str, Sequence[Operation]], *, soon: bool = False) -> int:
        """Write and fold operations that were checked; returns the position to settle. Or TryAgain.

        ``soon``: it will be settled at once.
        """

    @abstractmethod
    def _make_room(self, *, enqueuing: bool) -> None: ...

    @abstractmethod
    def _settle(self, position: int) -> None:
        """Return when everything up to the position is as durable as the storage's mode says."""

    @abstractmethod
    def _settle_to_read(self, position: int) -> int:
        """The same, for an entry that is about to be handed out; returns the microseconds that took."""

    @abstractmethod
    def _payload(self, queue: str, entry: Entry) -> bytes: ...

    @abstractmethod
    def _worker(self) -> str:
        """The name under which this open storage holds leases."""

    @abstractmethod
    def _is_alive(self, worker: str) -> bool: ...

    @property
    @abstractmethod
    def _someone_waits(self) -> bool:
        """Whether a consumer may be waiting, for any queue."""

    @abstractmethod
    def _notify(self, queue: str, count: int) -> None:
        """Wake up to that many consumers that wait for this queue."""

    @abstractmethod
    def _line(self, queue: str) -> PlaceInLine:
        """A place in the line of those who wait for it, whatever transaction the caller is in."""

    def place(self, queue: str) -> PlaceInLine:
        """What ``wait`` waits with; see Storage."""
        return self._line(queue)

    @abstractmethod
    def _live_bytes(self, state: QueueState) -> int:
        """How much of what is kept of the queue its entries need; in a turn."""

    @abstractmethod
    def _bytes_on_disk(self, queue: str) -> int: ...

    @abstractmethod
    def _count_waiting(self, queue: str) -> int:
        """How many consumers wait for this queue."""

    @abstractmethod
    def queues(self) -> list[str]: ...

    @abstractmethod
    def close(self) -> None: ...

    # -- asking ----------------------------------------------------------------------------------------

    @found_again
    def lapsed(self, queue: str) -> list[Lapsed]:
        """Leases whose holder died or whose deadline passed; see Storage."""
        state = self._known_state(queue, whole=True)
        if state is None:
            with self._turn:
                state = self._state(queue)
        if state is None or not state.leased:
            return []
        now = time.monotonic()
        look = now >= self._next_liveness_check.get(queue, 0.0)
        late = state.may_be_late(self.clock.uptime())
        if not look and not late:
            return []
        self._next_liveness_check[queue] = now + LIVENESS_INTERVAL
        mine = self._worker()
        others = [worker for worker in list(state.leased) if worker != mine]
        dead = [worker for worker in others if worker and not self._is_alive(worker)] if look else []
        if not dead and not late and "" not in others:
            return []
        with self._turn:
            fresh = self._state(queue)
            return [] if fresh is None else self._lapsed(fresh, dead)

    def _lapsed(self, state: QueueState, dead: Sequence[str]) -> list[Lapsed]:
        found = {}
        for worker in dead:
            for entry in state.leased.get(worker, {}).values():
                found[entry.id] = Lapsed(entry.id, entry.token, entry.attempts, Cause.WORKER_DIED, worker)
        boot = self.clock.boot_id
        late = state.past_deadline(self.clock.uptime(), boot)
        # Those of nobody end with the machine.
        late += [entry for entry in state.leased.get("", {}).values() if entry.boot != boot]
        for entry in late:
            lapse = Lapsed(entry.id, entry.token, entry.attempts, Cause.TIMED_OUT, entry.worker)
            found.setdefault(entry.id, lapse)
        return list(found.values())

    def _any_late(self, state: QueueState) -> bool:
        """Whether a lease has passed its deadline that nobody has ended yet."""
        return bool(state.past_deadline(self.clock.uptime(), self.clock.boot_id))

    def held(self, queue: str, entry_id: str) -> HeldLease:
        """The lease this open storage holds on the entry; see Storage."""
        self._check_usable()
        return self._held(queue, entry_id, self._known_state(queue))

    def _held(self, queue: str, entry_id: str, state: QueueState | None) -> HeldLease:
        entry = None if state is None else state.entries.get(entry_id)
        if entry is None or entry.status is not EntryStatus.LEASED or entry.worker != self._worker():
            raise NotLeased(
                f"queue {queue}: entry {entry_id} is not leased through this storage:"
                " it was never dequeued here, or its lease has ended"
            )
        return HeldLease(entry.token, entry.attempts)

    def _seen_state(self, queue: str) -> QueueState | None:
        """The queue's state as the caller is to see it; in a turn."""
        return self._state(queue)

    def _seen_payload(self, queue: str, entry: Entry) -> bytes:
        """The payload of an entry of that."""
        return self._payload(queue, entry)

    @found_again
    def get(self, queue: str, entry_id: str) -> StoredEntry:
        """One live or dead entry; see Storage."""
        with self._turn:
            state = self._seen_state(queue)
            if state is None:
                raise QueueNotFound(f"there is no queue {queue!r}")
            now = self.clock.now()
            state.advance(now)
            entry = state.find(entry_id)
            if entry is None or state.is_over(entry, now):
                raise EntryNotFound(f"queue {queue}: there is no entry {entry_id}")
            return stored(entry, self._seen_payload(queue, entry))

    @found_again
    def entries(
        self, queue: str, status: EntryStatus | None = None, limit: int | None = None, offset: int = 0
    ) -> list[StoredEntry]:
        """Live and dead entries; see Storage."""
        with self._turn:
            state = self._seen_state(queue)
            if state is None:
                return []
            chosen = state.listing(status, self.clock.now(), limit, offset)
            return [stored(entry, self._seen_payload(queue, entry)) for entry in chosen]

    @found_again
    def page(
        self, queue: str, behind: int, limit: int, most_bytes: int, status: EntryStatus | None = None
    ) -> list[StoredEntry]:
        """The first entries of a later number than that; see Storage."""
        with self._turn:
            state = self._seen_state(queue)
            if state is None:
                return []
            found: list[StoredEntry] = []
            length = 0
            for entry in islice(state.behind(behind, self.clock.now(), status), limit):
                found.append(stored(entry, self._seen_payload(queue, entry)))
                length += len(found[-1].payload) + sum(map(_length, entry.history))
                if length >= most_bytes:
                    break
            return found

    @found_again
    def some(self, queue: str, entry_ids: Iterable[str]) -> list[StoredEntry]:
        """Those of these ids that are there, in no order. Only of what is committed."""
        with self._turn:
            state = self._state(queue)
            if state is None:
                return []
            now = self.clock.now()
            state.advance(now)
            found = self._find_some(state, entry_ids)
            return [stored(entry, payload) for entry, payload in found if not state.is_over(entry, now)]

    def _find_some(self, state: QueueState, entry_ids: Iterable[str]) -> Iterator[tuple[Entry, bytes]]:
        """Those that are there, each with its payload."""
        for entry in map(state.find, entry_ids):
            if entry is not None:
                yield entry, self._payload(state.name, entry)

    @found_again
    def head(self, queue: str) -> Adopt | None:
        """What a queue is besides its entries, as that what makes another one so; None if it is not there."""
        with self._turn:
            state = self._state(queue)
            if state is None:
                return None
            return Adopt(state.tokens, state.pause, Ledger.of(state.ledger.image()))

    @found_again
    def counts(self, queue: str) -> Counts:
        """Entries by state; see Storage."""
        with self._turn:
            state = self._seen_state(queue)
            return Counts() if state is None else state.counts(self.clock.now())

    @found_again
    def paused(self, queue: str) -> Pause | None:
        """Who paused the queue, or None; see Storage."""
        with self._turn:
            state = self._seen_state(queue)
            return None if state is None else state.pause

    def wait(self, queue: str, timeout: float | None) -> bool:
        """Block until an entry may be claimable or a holder died; see Storage."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        with self.place(queue) as place:
            while True:
                remaining = until - time.monotonic()
                if remaining <= 0:
                    return False
                seconds = place.look(remaining)
                if seconds is None or place.sleep(seconds):
                    return True

    @found_again
    def metrics(self, queue: str) -> QueueMetrics:
        """The queue in numbers; see Storage."""
        now = self.clock.now()
        with self._turn:
            state = self._state(queue)
            if state is None:
                return QueueMetrics(queue, to_datetime(now))
            found = measure(state, now, self._live_bytes(state))
            holders = [worker for worker in state.leased if worker]
        # The rest takes longer, and needs no turn.
        return replace(
            found,
            bytes_on_disk=self._bytes_on_disk(queue),
            workers=sum(map(self._is_alive, holders)),
            waiting=self._count_waiting(queue),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _seconds_to_next_event(self, state: QueueState, timeout: float) -> float:
        """How long a consumer may sleep before something becomes due by time alone."""
        bounds = [timeout]
        due = state.next_event()
        if due is not None:
            bounds.append((due - self.clock.now()) / 1e6)
        late: Any = state.next_deadline()
        if late is not None and late.boot == self.clock.boot_id:
            bounds.append((late.deadline - self.clock.uptime()) / 1e6)
        return max(0.0, min(bounds))


def _length(attempt: Attempt) -> int:
    """About how much memory its error takes."""
    error = attempt.error
    return len(error.message) + len(error.traceback)


def stored(entry: Entry, payload: bytes) -> StoredEntry:
    leased = entry.status is EntryStatus.LEASED
    return StoredEntry(
        entry.id,
        entry.seq,
        payload,
        entry.status,
        entry.priority,
        entry.created_at,
        entry.updated_at,
        entry.ready_at,
        entry.expires_at,
        entry.attempts,
        entry.token if leased else 0,
        entry.worker if leased else None,
        entry.deadline_at if leased else None,
        entry.history,
        entry.key,
        entry.headers,
        entry.redriven,
        entry.token,
    )


def leased(entry: Entry, payload: bytes, lease: Lease, at: int) -> StoredEntry:
    """The entry as that lease makes it."""
    return StoredEntry(
        entry.id,
        entry.seq,
        payload,
        EntryStatus.LEASED,
        entry.priority,
        entry.created_at,
        at,
        entry.ready_at,
        entry.expires_at,
        lease.attempt,
        lease.token,
        lease.worker,
        lease.deadline_at,
        entry.history,
        entry.key,
        entry.headers,
        entry.redriven,
        lease.token,
    )
