"""Whether an operation can be applied to a queue as it is now; if not, the error that says why."""

from __future__ import annotations

from collections.abc import Sequence

from duraq.entry import DEAD, LEASED, READY, SCHEDULED, Entry
from duraq.errors import CannotMigrate, DuplicateEntry, EntryNotFound, LeaseLost, QueueFull
from duraq.model import ACTS, KEYS, EntryStatus
from duraq.operations import (
    Adopt,
    Bury,
    Complete,
    Enqueue,
    Expire,
    Extend,
    Fail,
    Lease,
    Operation,
    PauseQueue,
    Release,
    Remove,
    Requeue,
    Restore,
    ResumeQueue,
)
from duraq.pauses import check_stays
from duraq.state import QueueState


def check(state: QueueState, operation: Operation) -> None:
    """Raise what a storage's ``commit`` raises of it if it cannot be applied now."""
    if isinstance(operation, Enqueue):
        _check_new(state, operation)
    elif isinstance(operation, (Extend, Complete, Fail, Bury, Release)):
        _check_lease(state, operation.id, operation.token)
    elif isinstance(operation, (Requeue, Remove, Expire)):
        _check_going(state, operation)
    elif isinstance(operation, Lease):
        _entry(state, operation.id, READY)
    elif isinstance(operation, Restore):
        if state.find(operation.id) is not None:
            raise DuplicateEntry(f"queue {state.name}: there is another entry {operation.id} by now")
    elif isinstance(operation, (PauseQueue, ResumeQueue, Adopt)):
        _check_pause(state, operation)


def _check_going(state: QueueState, operation: Requeue | Remove | Expire) -> None:
    """Whether an entry that nobody holds can go."""
    if isinstance(operation, Remove) and operation.to:
        entry = _entry(state, operation.id, READY, SCHEDULED, DEAD)
        if entry.version != operation.version:
            raise EntryNotFound(f"queue {state.name}: entry {operation.id} is not as it was")
    elif isinstance(operation, Expire):
        if state.name == ACTS:
            check_stays(state.name, state.pause)
        _entry(state, operation.id, READY, SCHEDULED)
    else:
        check_stays(state.name, state.pause)
        entry = _entry(state, operation.id, DEAD)
        if operation.token not in {0, entry.token}:
            raise EntryNotFound(f"queue {state.name}: entry {operation.id} was put back, and died again")


def _check_pause(state: QueueState, operation: PauseQueue | ResumeQueue | Adopt) -> None:
    """Whether how it is paused may be changed."""
    if not isinstance(operation, Adopt):
        check_stays(state.name, state.pause)
    elif operation.instead_of and state.pause not in operation.instead_of:
        raise CannotMigrate(f"queue {state.name}: it was paused or resumed by others meanwhile")


def _check_new(state: QueueState, operation: Enqueue) -> None:
    # An id of our own making is nowhere yet; the shelf need not be searched for it.
    if operation.id in state.entries or (not operation.fresh and state.shelf.find(operation.id)):
        if state.name == KEYS:
            # Nobody knows this queue; it is said at the end of a transaction only.
            raise DuplicateEntry("an entry was enqueued under the same key meanwhile")
        raise DuplicateEntry(f"queue {state.name}: there is an entry {operation.id} already")


def _check_lease(state: QueueState, entry_id: str, token: int) -> None:
    entry = state.find(entry_id)
    if entry is None:
        raise LeaseLost(f"queue {state.name}: entry {entry_id} is over (completed, expired or removed)")
    if entry.status is not LEASED:
        raise LeaseLost(f"queue {state.name}: entry {entry_id} is not leased, it is {entry.status}")
    if entry.token != token:
        raise LeaseLost(
            f"queue {state.name}: the lease {token} of entry {entry_id} has ended; "
            f"it is leased again, as {entry.token}, to {entry.worker or 'no process'}"
        )


def _entry(state: QueueState, entry_id: str, *allowed: EntryStatus) -> Entry:
    entry = state.find(entry_id)
    if entry is None:
        raise EntryNotFound(f"queue {state.name}: there is no entry {entry_id}")
    if entry.status not in allowed:
        raise EntryNotFound(
            f"queue {state.name}: entry {entry_id} is {entry.status}, not {' or '.join(allowed)}"
        )
    return entry


def check_size(state: QueueState, max_size: int, more: int) -> None:
    """Raise QueueFull if, with so many ``more``, more than ``max_size`` entries were to be worked."""
    if state.size + more > max_size:
        raise QueueFull(
            f"queue {state.name} is full: {state.size} of {max_size} entries, {more} more refused"
        )


def check_group(state: QueueState, operations: Sequence[Operation], max_size: int | None) -> None:
    """Check operations that are to be applied together, each of them about an entry of its own."""
    # A batch of new entries is checked at once.
    new = [each.id for each in operations if type(each) is Enqueue and each.fresh]
    if len(new) < len(operations) or not state.entries.keys().isdisjoint(new):
        for operation in operations:
            check(state, operation)
    if max_size is not None:
        added = sum(1 for operation in operations if isinstance(operation, Enqueue))
        if added:
            check_size(state, max_size, added)
