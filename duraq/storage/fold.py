"""Everything that storages built on the fold share: deciding. How a decision is written is the subclass's.

A turn is the exclusive right to decide: ``with self._turn:``. In it ``_state`` gives a queue's state, caught
up. What is decided in a turn is written with ``_write``, which also folds it; ``_settle`` then waits, outside
the turn, until it is durable.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, Self, TypeVar

from duraq import options
from duraq.clock import Clock
from duraq.entry import Entry
from duraq.errors import (
    DuplicateEntry,
    DuraqError,
    EntryNotFound,
    LeaseLost,
    NotEnqueued,
    NotLeased,
    NotWritten,
    OutcomeUnknown,
    QueueError,
    QueueFull,
    QueueNotFound,
)
from duraq.laid_over import check_in_turn
from duraq.model import Cause, Counts, EntryStatus, Pause
from duraq.operations import (
    Bury,
    Enqueue,
    Expire,
    Fail,
    Lease,
    Operation,
    PauseQueue,
    Release,
    Requeue,
    ResumeQueue,
)
from duraq.shelf import Mislaid
from duraq.state import QueueState
from duraq.storage.base import Held, Lapsed, Limits, StoredEntry
from duraq.storage.calls import Call, Calls, together

P = ParamSpec("P")
T = TypeVar("T")

# Operations after which somebody who waits may find something.
_FEEDING = (Enqueue, Fail, Release, Requeue, ResumeQueue)
# How often a busy consumer asks whether the holders of other leases live, in seconds. One that waits is told.
LIVENESS_INTERVAL = 0.02
# How many expired entries one claim ends: the rest is for the next ones, so that no group grows too large.
EXPIRE_AT_ONCE = 1000


class TryAgain(Exception):
    """Raised in a turn that has to end before its call was decided: decide again in another one."""


class NoRoom(TryAgain):
    """Raised by ``_write``: nothing was written; call ``_make_room`` outside the turn first."""


def found_again(method: Callable[P, T]) -> Callable[P, T]:
    """If something turned out to be mislaid in a turn, ask again: the next turn makes the state anew."""

    @wraps(method)
    def asking(*args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            with suppress(Mislaid):
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

    @abstractmethod
    def _state(self, queue: str, *, create: bool = False) -> QueueState | None:
        """The queue's state, caught up; only in a turn."""

    def _is_at_its_end(self, queue: str) -> bool:  # noqa: ARG002 - whatever queue it is
        """Whether new entries can be written to the queue as it is, without knowing its state; in a turn."""
        return False

    @abstractmethod
    def _known_state(self, queue: str) -> QueueState | None:
        """The queue's state as last seen; without a turn, so only good for hints."""

    def _is_behind(self, queue: str) -> bool:  # noqa: ARG002 - whatever queue it is
        """Whether this process has come by the queue since and not looked at what others have written."""
        return False

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
    def _settle_to_read(self, position: int) -> None:
        """The same, for an entry that is about to be handed out."""

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
    def queues(self) -> list[str]: ...

    @abstractmethod
    def close(self) -> None: ...

    # -- changing --------------------------------------------------------------------------------------

    def commit(self, changes: Mapping[str, Sequence[Operation]], limits: Limits | None = None) -> None:
        """Apply all operations, or none; see Storage."""
        if not any(changes.values()):
            self._check_usable()
            return
        commit = self._commit if self._calls is None else self._calls.run
        try:
            position = commit(changes, limits)
        except NotWritten as error:
            # Said where nobody knew what was to be written.
            if isinstance(error, NotEnqueued) or not _enqueues(changes):
                raise
            raise NotEnqueued(error.reason, path=error.path, hint=error.hint) from error
        self._settle(position)
        # Whoever begins to wait from now on looks first, and finds it.
        if self._someone_waits:
            for queue, operations in changes.items():
                if isinstance(operations[0], _FEEDING):
                    self._notify(queue, len(operations))

    def _commit(self, changes: Mapping[str, Sequence[Operation]], limits: Limits | None) -> int:
        """Decide and write; returns the position to settle."""
        while True:
            try:
                with self._turn:
                    return self._decide(changes, limits)
            except NoRoom:
                pass
            except (TryAgain, Mislaid):
                continue
            self._make_room_for(changes)

    def _decide(self, changes: Mapping[str, Sequence[Operation]], limits: Limits | None) -> int:
        for queue, operations in changes.items():
            self._check(queue, operations, limits)
        return self._write(self._final(changes, limits), soon=True)

    def _final(
        self,
        changes: Mapping[str, Sequence[Operation]],
        limits: Limits | None,  # noqa: ARG002 - those of a transaction say something here
    ) -> Mapping[str, Sequence[Operation]]:
        """The operations as they are written, now that they are checked; in a turn."""
        return changes

    def _make_room_for(self, changes: Mapping[str, Sequence[Operation]]) -> None:
        self._make_room(enqueuing=_enqueues(changes))

    def _commit_all(self, calls: Sequence[Call]) -> None:
        """The same for many, as few groups as possible; each gets its position or its error."""
        todo, alone = list(calls), False
        while todo:
            group = todo[:1] if alone else together(todo)
            if len(group) == 1:
                self._commit_one(group[0])
            else:
                # What several could not do, for want of space perhaps, each does or is told by itself.
                alone = not self._commit_group(group)
            todo = [call for call in todo if not call.decided]

    def _commit_one(self, call: Call) -> None:
        try:
            call.position = self._commit(call.changes, call.limits)
        except Exception as error:  # noqa: BLE001 - it is raised where the call was made
            call.error = error

    def _commit_group(self, calls: Sequence[Call]) -> bool:
        """Decide and write calls that go together; False if nothing was written that could be."""
        checked: list[Call] = []
        try:
            with self._turn:
                written: dict[str, list[Operation]] = {}
                for call in calls:
                    ((queue, operations),) = call.changes.items()
                    try:
                        self._check(queue, operations, None)
                    except QueueError as error:
                        call.error = error
                    else:
                        checked.append(call)
                        written.setdefault(queue, []).extend(operations)
                position = self._write(written, soon=True) if written else 0
        except OutcomeUnknown as error:
            for call in checked:
                call.error = OutcomeUnknown(error.reason, path=error.path, hint=error.hint)
        except (TryAgain, Mislaid, DuraqError):
            return False
        for call in checked:
            if not call.decided:
                call.position = position
        return True

    def _check(self, queue: str, operations: Sequence[Operation], limits: Limits | None) -> None:
        if limits is None and are_new(operations) and self._is_at_its_end(queue):
            return
        max_size = None if limits is None else limits.max_size.get(queue)
        state = self._state_for(queue, operations, max_size)
        more = self._end_expired(state)
        try:
            check_in_turn(state, operations, max_size, self.clock.now())
        except (DuplicateEntry, QueueFull):
            # What is in the way may be over.
            if more:
                raise TryAgain from None
            raise
        if limits is not None and limits.still_late:
            self._check_late(state, operations)

    def _check_late(self, state: QueueState, operations: Sequence[Operation]) -> None:
        uptime = self.clock.uptime()
        for operation in operations:
            if isinstance(operation, (Fail, Bury)) and operation.cause is Cause.TIMED_OUT:
                entry = state.entries[operation.id]
                if entry.boot == self.clock.boot_id and entry.deadline > uptime:
                    raise LeaseLost(f"queue {state.name}: the lease of entry {entry.id} was extended in time")

    def _end_expired(self, state: QueueState) -> bool:
        """Entries past their TTL are over: their ids are free, and they take no room.

        Returns whether there may be more of them: a turn does not end all, for others wait for it.
        """
        over = state.expired(self.clock.now(), EXPIRE_AT_ONCE) if state.may_have_expired else []
        if over:
            self._write({state.name: [Expire(entry.id) for entry in over]})
            if self._state(state.name) is not state:
                raise TryAgain
        return len(over) == EXPIRE_AT_ONCE

    def _state_for(self, queue: str, operations: Sequence[Operation], max_size: int | None) -> QueueState:
        state = self._state(queue)
        if state is None:
            # Only feeding or pausing brings a queue into being; anything else speaks of entries it must hold.
            if not isinstance(operations[0], (Enqueue, PauseQueue)):
                raise QueueNotFound(f"there is no queue {queue!r}")
            # What is refused makes no queue either.
            check_in_turn(QueueState(queue), operations, max_size, self.clock.now())
            state = self._state(queue, create=True)
        assert state is not None
        return state

    def claim(
        self, queue: str, limit: int = 1, *, lease_for: int | None = None, detached: bool = False
    ) -> list[StoredEntry]:
        """Lease ready entries; see Storage."""
        length = lease_for or self.lock_duration
        while True:
            try:
                with self._turn:
                    worker = "" if detached else self._worker()
                    state = self._state(queue)
                    if state is None or state.pause is not None:
                        return []
                    claimed, position = self._claim(state, limit, worker, length)
                break
            except NoRoom:
                pass
            except (TryAgain, Mislaid):
                continue
            self._make_room(enqueuing=False)
        if claimed:
            # Never hand out what a power cut could still take back. (Their leases need no sync: after a
            # power cut there is nobody left to hold them.)
            self._settle_to_read(position)
        return claimed

    def _claim(
        self, state: QueueState, limit: int, worker: str, length: int
    ) -> tuple[list[StoredEntry], int]:
        """Lease what is ready; also returns up to where the journal must be durable for that."""
        uptime, now = self.clock.uptime(), self.clock.now()
        if state.may_be_late(uptime) and state.past_deadline(uptime):
            # They come first, and this is the first that we hear of them: the caller settles them.
            return [], 0
        more = self._end_expired(state)
        state.advance(now)
        taken = state.take(limit)
        if more and any(state.is_over(entry, now) for entry in taken):
            state.put_back(taken)
            raise TryAgain
        if not taken:
            return [], 0
        try:
            return self._hand_out(state, taken, worker, uptime + length, now + length)
        except BaseException:
            state.put_back(taken)
            raise

    def _hand_out(
        self, state: QueueState, taken: Sequence[Entry], worker: str, deadline: int, deadline_at: int
    ) -> tuple[list[StoredEntry], int]:
        """Lease these to that worker; also returns up to where the journal must be durable for that."""
        boot = self.clock.boot_id
        payloads: list[bytes] = []
        operations: list[Operation] = []
        for token, entry in enumerate(taken, start=state.tokens + 1):
            # Read before the lease is written: damage then costs no attempt.
            payloads.append(self._payload(state.name, entry))
            operations.append(Lease(entry.id, token, entry.attempts + 1, worker, deadline, boot, deadline_at))
        self._write({state.name: operations})
        # Looked up anew: writing may have put what was in memory on the shelf, and have taken it off again.
        written = self._state(state.name)
        assert written is not None
        leased = [written.entries[entry.id] for entry in taken]
        claimed = [stored(entry, payload) for entry, payload in zip(leased, payloads, strict=True)]
        return claimed, max(entry.position for entry in leased)

    # -- asking ----------------------------------------------------------------------------------------

    @found_again
    def lapsed(self, queue: str) -> list[Lapsed]:
        """Leases whose holder died or whose deadline passed; see Storage."""
        state = self._known_state(queue)
        if state is None or self._is_behind(queue):
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
        dead = {worker for worker in others if worker and not self._is_alive(worker)} if look else set()
        if not dead and not late and "" not in others:
            return []
        with self._turn:
            fresh = self._state(queue)
            return [] if fresh is None else self._lapsed(fresh, dead)

    def _lapsed(self, state: QueueState, dead: set[str]) -> list[Lapsed]:
        found = {}
        for worker in dead:
            for entry in state.leased.get(worker, {}).values():
                found[entry.id] = Lapsed(entry.id, entry.token, entry.attempts, Cause.WORKER_DIED, worker)
        boot = self.clock.boot_id
        late = state.past_deadline(self.clock.uptime())
        late += [entry for entry in state.leased.get("", {}).values() if entry.boot != boot]
        for entry in late:
            if entry.boot == boot or not entry.worker:
                lapse = Lapsed(entry.id, entry.token, entry.attempts, Cause.TIMED_OUT, entry.worker)
                found.setdefault(entry.id, lapse)
        return list(found.values())

    def held(self, queue: str, entry_id: str) -> Held:
        """The lease this open storage holds on the entry; see Storage."""
        self._check_usable()
        state = self._known_state(queue)
        entry = None if state is None else state.entries.get(entry_id)
        if entry is None or entry.status is not EntryStatus.LEASED or entry.worker != self._worker():
            raise NotLeased(
                f"queue {queue}: entry {entry_id} is not leased through this storage:"
                " it was never dequeued here, or its lease has ended"
            )
        return Held(entry.token, entry.attempts)

    @found_again
    def get(self, queue: str, entry_id: str) -> StoredEntry:
        """One live or dead entry; see Storage."""
        with self._turn:
            state = self._state(queue)
            if state is None:
                raise QueueNotFound(f"there is no queue {queue!r}")
            now = self.clock.now()
            state.advance(now)
            entry = state.find(entry_id)
            if entry is None or state.is_over(entry, now):
                raise EntryNotFound(f"queue {queue}: there is no entry {entry_id}")
            return stored(entry, self._payload(queue, entry))

    @found_again
    def entries(
        self, queue: str, status: EntryStatus | None = None, limit: int | None = None, offset: int = 0
    ) -> list[StoredEntry]:
        """Live and dead entries; see Storage."""
        with self._turn:
            state = self._state(queue)
            if state is None:
                return []
            chosen = state.listing(status, self.clock.now(), limit, offset)
            return [stored(entry, self._payload(queue, entry)) for entry in chosen]

    @found_again
    def counts(self, queue: str) -> Counts:
        """Entries by state; see Storage."""
        with self._turn:
            state = self._state(queue)
            return Counts() if state is None else state.counts(self.clock.now())

    def paused(self, queue: str) -> Pause | None:
        """Who paused the queue, or None; see Storage."""
        with self._turn:
            state = self._state(queue)
            return None if state is None else state.pause

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _seconds_to_next_event(self, state: QueueState, timeout: float | None) -> float | None:
        """How long a consumer may sleep before something becomes due by time alone."""
        bounds: list[float] = [] if timeout is None else [timeout]
        due = state.next_event()
        if due is not None:
            bounds.append((due - self.clock.now()) / 1e6)
        late: Any = state.next_deadline()
        if late is not None and late.boot == self.clock.boot_id:
            bounds.append((late.deadline - self.clock.uptime()) / 1e6)
        return max(0.0, min(bounds)) if bounds else None


def _enqueues(changes: Mapping[str, Sequence[Operation]]) -> bool:
    return any(isinstance(operations[0], Enqueue) for operations in changes.values())


def are_new(operations: Sequence[Operation]) -> bool:
    """Whether nothing in a queue's state could forbid them."""
    for operation in operations:
        # One with a TTL looks, so that where nobody works they do not pile up.
        if type(operation) is not Enqueue or not operation.fresh or operation.expires_at is not None:
            return False
    return True


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
    )
