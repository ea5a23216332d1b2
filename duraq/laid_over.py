"""Operations that are not committed yet, laid over the state they would change.

A transaction reads what it has written, and its operations may concern the same entry one after the other.
Both take a state of its own: a fold like any other, on whose shelf lies whatever the real one holds.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from duraq.checks import check, check_group, check_size
from duraq.entry import DEAD, LEASED, READY, SCHEDULED, Entry, delivery_order, enqueue_order
from duraq.model import PROVISIONAL, Counts, EntryStatus
from duraq.operations import Enqueue, Operation, WithoutEntry
from duraq.state import QueueState


def laid_over(below: QueueState, operations: Iterable[Operation], at: int) -> QueueState:
    """The state as it would be with these operations, decided at that time; ``below`` is not changed.

    It is good for as long as nobody changes ``below``. The payload of an entry that is new stands in its
    ``where``. Raises what keeps them from being committed, for others may have been quicker.
    """
    state = _over(below)
    for number, operation in enumerate(operations):
        state.advance(at)
        check(state, operation)
        _apply(state, operation, number, at)
    return state


def check_in_turn(below: QueueState, operations: Sequence[Operation], max_size: int | None, at: int) -> None:
    """Check operations that are to be applied one after the other, and together."""
    if len(operations) == 1 or _are_independent(operations, max_size):
        check_group(below, operations, max_size)
        return
    state = laid_over(below, operations, at)
    if max_size is not None and state.size > below.size:
        check_size(below, max_size, state.size - below.size)


def _are_independent(operations: Sequence[Operation], max_size: int | None) -> bool:
    """Whether each is about another entry, and none makes room for another."""
    ids = [each.id for each in operations if not isinstance(each, WithoutEntry)]
    if len(set(ids)) < len(ids):
        return False
    return max_size is None or all(isinstance(operation, Enqueue) for operation in operations)


def _over(below: QueueState) -> QueueState:
    state = QueueState(below.name)
    held = [_copy(entry) for entries in below.leased.values() for entry in entries.values()]
    state.resume(below.tokens, below.pause, held)
    state.shelve(_Below(below))
    return state


def _apply(state: QueueState, operation: Operation, number: int, at: int) -> None:
    payload = getattr(operation, "payload", None)
    state.apply(operation, PROVISIONAL + number, at, payload)


def _copy(entry: Entry) -> Entry:
    found = copy.copy(entry)
    found.queued = False
    return found


class _Below:
    """What nobody holds in another state, as a shelf. What is taken off stays where it is, and is copied."""

    def __init__(self, below: QueueState) -> None:
        self._below = below
        self._taken: dict[str, EntryStatus] = {}

    @property
    def tally(self) -> Counts:
        tally, taken = self._below.tally, list(self._taken.values())
        return Counts(
            tally.scheduled - taken.count(SCHEDULED),
            tally.ready - taken.count(READY),
            0,
            tally.dead - taken.count(DEAD),
        )

    @property
    def any_ready(self) -> bool:
        return self.tally.ready > 0

    @property
    def may_expire(self) -> bool:
        return self._below.may_have_expired

    def advance(self, now: int) -> None:
        self._below.advance(now)
        for entry_id, status in self._taken.items():
            # Its time has come there as well, so that it is counted as ready.
            if status is SCHEDULED and (entry := self._below.find(entry_id)) is not None:
                self._taken[entry_id] = entry.status

    def next_event(self) -> int | None:
        return self._below.next_event()

    def first(self) -> tuple[int, int] | None:
        return next((delivery_order(entry) for entry in self.peek(1)), None)

    def peek(self, limit: int) -> list[Entry]:
        return list(islice(self.walk(READY), limit))

    def find(self, entry_id: str) -> Entry | None:
        found = None if entry_id in self._taken else self._below.find(entry_id)
        return None if found is None or found.status is LEASED else found

    def take(self, entry_id: str) -> Entry:
        found = self.find(entry_id)
        if found is None:
            raise KeyError(entry_id)
        self._taken[entry_id] = found.status
        return _copy(found)

    def replace(self, entry_id: str, seq: int) -> None:  # noqa: ARG002 - there is one entry of that id
        if self.find(entry_id) is not None:
            self.take(entry_id)

    def expired(self, now: int, limit: int) -> list[Entry]:
        found = self._below.expired(now, limit + len(self._taken))
        return [entry for entry in found if entry.id not in self._taken][:limit]

    def count_expired(self, now: int) -> Counts:
        over = self._below.count_expired(now)
        taken = [self._below.find(entry_id) for entry_id in self._taken]
        late = [entry.status for entry in taken if entry is not None and self._below.is_over(entry, now)]
        return Counts(over.scheduled - late.count(SCHEDULED), over.ready - late.count(READY))

    def walk(self, status: EntryStatus | None) -> Iterator[Entry]:
        for entry in self._below.all_of(status):
            if entry.id not in self._taken and entry.status is not LEASED:
                yield entry

    def by_age(self) -> Iterator[Entry]:
        return iter(sorted(self.walk(READY), key=enqueue_order))

    def behind(self, seq: int, status: EntryStatus | None = None) -> Iterator[Entry]:
        return (each for each in self.walk(None) if each.seq > seq and status in {None, each.status})

    def lived(self, before: int) -> Iterator[Entry]:
        return (entry for entry in self.walk(None) if entry.token and entry.seq < before)
