"""Deciding and writing, over the fold that a storage keeps: ``commit`` and ``claim``.

Each decision is made in a turn, from a queue's state that is caught up, and written in it; whoever asked is
answered once it is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from duraq.checks import check
from duraq.entry import DEAD, Entry
from duraq.errors import (
    DuplicateEntry,
    DuraqError,
    LeaseLost,
    NotEnqueued,
    NotWritten,
    OutcomeUnknown,
    QueueError,
    QueueFull,
    QueueNotFound,
)
from duraq.laid_over import check_in_turn
from duraq.model import Cause
from duraq.operations import (
    Adopt,
    Bury,
    Enqueue,
    Expire,
    Extend,
    Fail,
    Lease,
    Operation,
    PauseQueue,
    Release,
    Requeue,
    Restore,
    ResumeQueue,
)
from duraq.shelf import Mislaid
from duraq.state import QueueState
from duraq.storage.base import Limits, StoredEntry
from duraq.storage.calls import Call, together
from duraq.storage.fold import FoldStorage, NoRoom, TryAgain, leased

T = TypeVar("T")

# Operations after which somebody who waits finds something, as a rule.
_FEEDING = (Enqueue, Fail, Release, Requeue, ResumeQueue)
# How many expired entries one claim ends: the rest is for the next ones, so that no group grows too large.
EXPIRE_AT_ONCE, EXPIRE_FEW = 1000, 20


class CommittingStorage(FoldStorage):
    """The verbs of ``Storage`` that change something."""

    def commit(self, changes: Mapping[str, Sequence[Operation]], limits: Limits | None = None) -> None:
        """Apply all operations, or none; see Storage."""
        if not all(changes.values()):
            changes = {queue: operations for queue, operations in changes.items() if operations}
            if not changes:
                self._check_usable()
                return
        commit = self._commit if self._calls is None else self._calls.run
        try:
            position = commit(changes, limits)
        except NotWritten as error:
            # Said where nobody knew what was to be written.
            if isinstance(error, NotEnqueued) or not enqueues(changes):
                raise
            raise NotEnqueued(error.reason, path=error.path, hint=error.hint) from error
        if only_extend_leases(changes):
            # As of a lease: after a power cut there is nobody left to hold it. And whoever extends one must
            # not wait for a slow disk, while the next one ends.
            self._settle_to_read(0)
        else:
            self._settle(position)
        # Whoever begins to wait from now on looks first, and finds it.
        if self._someone_waits:
            for queue, operations in changes.items():
                fed = sum(map(feeds, operations))
                if fed:
                    self._notify(queue, fed)

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
        return self._write(changes if limits is None else self._final(changes, limits), soon=True)

    def _final(
        self,
        changes: Mapping[str, Sequence[Operation]],
        limits: Limits,  # noqa: ARG002 - those of a transaction say something here
    ) -> Mapping[str, Sequence[Operation]]:
        """The operations as they are written, now that they are checked; in a turn."""
        return changes

    def _make_room_for(self, changes: Mapping[str, Sequence[Operation]]) -> None:
        self._make_room(enqueuing=enqueues(changes))

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
            if len(operations) == 1 and max_size is None:
                check(state, operations[0])
            else:
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
        more = len(over) == EXPIRE_AT_ONCE
        if over:
            operations = [Expire(entry.id) for entry in over]
            try:
                self._write({state.name: operations})
            except NotWritten:
                # On a full disk there may be room for a few, and with them some of it comes free.
                if len(operations) <= EXPIRE_FEW:
                    raise
                self._write({state.name: operations[:EXPIRE_FEW]})
                more = True
            if self._state(state.name) is not state:
                raise TryAgain
        return more

    def _state_for(self, queue: str, operations: Sequence[Operation], max_size: int | None) -> QueueState:
        state = self._state(queue)
        if state is None:
            # What is refused makes no queue.
            self._check_beginning(queue, operations, max_size)
            state = self._state(queue, create=True)
        assert state is not None
        return state

    def _check_beginning(self, queue: str, operations: Sequence[Operation], max_size: int | None) -> None:
        """Whether a queue that is not there can begin with these."""
        # Only feeding, pausing or moving brings one into being; anything else speaks of entries it must hold.
        first = operations[0]
        arrives = isinstance(first, Restore) and first.source
        if not arrives and not isinstance(first, (Enqueue, PauseQueue, Adopt)):
            raise QueueNotFound(f"there is no queue {queue!r}")
        check_in_turn(QueueState(queue), operations, max_size, self.clock.now())

    def _in_turn(self, ask: Callable[[], T]) -> T:
        """What it gives, asked in a turn, and again in another one if it says so."""
        while True:
            try:
                with self._turn:
                    return ask()
            except NoRoom:
                self._make_room(enqueuing=False)
            except (TryAgain, Mislaid):
                continue

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
            except NoRoom:
                pass
            except (TryAgain, Mislaid):
                continue
            else:
                given = self._given(queue, claimed, position, length)
                # If all of them have ended meanwhile, there may be others.
                if given or not claimed:
                    return given
                continue
            self._make_room(enqueuing=False)

    def _given(self, queue: str, claimed: list[StoredEntry], position: int, length: int) -> list[StoredEntry]:
        """What was leased, once it may be handed out: never what a power cut could still take back.

        (The leases need no sync: after a power cut there is nobody left to hold them.)
        """
        if claimed and self._settle_to_read(position) > length / 10:
            # A slow disk: it is not to be taken off their leases.
            return self._in_turn(lambda: self._renewed(queue, claimed, length))
        return claimed

    def _renewed(self, queue: str, claimed: Sequence[StoredEntry], length: int) -> list[StoredEntry]:
        """These with leases that begin now, without those that have ended meanwhile; in a turn."""
        state = self._state(queue)
        assert state is not None
        deadline, deadline_at = self.clock.uptime() + length, self.clock.now() + length
        held: list[StoredEntry] = []
        operations: list[Operation] = []
        for each in claimed:
            operation = Extend(each.id, each.token, deadline, self.clock.boot_id, deadline_at)
            # Of an entry that its transaction has made nobody else knows yet.
            if each.token > 0:
                try:
                    check(state, operation)
                except LeaseLost:
                    continue
                operations.append(operation)
                each.deadline_at = deadline_at
            held.append(each)
        if operations:
            self._write({queue: operations})
        return held

    def _claim(
        self, state: QueueState, limit: int, worker: str, length: int
    ) -> tuple[list[StoredEntry], int]:
        """Lease what is ready; also returns up to where the journal must be durable for that."""
        uptime, now = self.clock.uptime(), self.clock.now()
        if state.may_be_late(uptime) and self._any_late(state):
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
        boot, at = self.clock.boot_id, self.clock.now()
        operations: list[Lease] = []
        claimed: list[StoredEntry] = []
        for token, entry in enumerate(taken, start=state.tokens + 1):
            # Read before the lease is written: damage then costs no attempt.
            payload = self._payload(state.name, entry)
            lease = Lease(entry.id, token, entry.attempts + 1, worker, deadline, boot, deadline_at)
            operations.append(lease)
            claimed.append(leased(entry, payload, lease, at))
        position = max(entry.position for entry in taken)
        # Nothing is read behind this: should that fail, they would be leased and nobody know it.
        self._write({state.name: operations})
        return claimed, position


def feeds(operation: Operation) -> bool:
    """Whether somebody who waits may find something because of it."""
    if isinstance(operation, Restore):
        return operation.entry.status is not DEAD
    if isinstance(operation, Adopt):
        return operation.pause is None
    return isinstance(operation, _FEEDING)


def enqueues(changes: Mapping[str, Sequence[Operation]]) -> bool:
    """Whether there is a new entry among them."""
    return any(isinstance(each, Enqueue) for operations in changes.values() for each in operations)


def only_extend_leases(changes: Mapping[str, Sequence[Operation]]) -> bool:
    """Whether that is all they do."""
    for operations in changes.values():
        for operation in operations:
            if type(operation) is not Extend:
                return False
    return True


def are_new(operations: Sequence[Operation]) -> bool:
    """Whether nothing in a queue's state could forbid them."""
    for operation in operations:
        # One with a TTL looks, so that where nobody works they do not pile up.
        if type(operation) is not Enqueue or not operation.fresh or operation.expires_at is not None:
            return False
    return True
