"""What a thread or a task has decided as one and not committed yet, and how it is found again.

A transaction is ambient: whatever the same thread, and in asyncio and trio the same task, does to the storage
belongs to it, also through a thread that it was lent. Nothing of it is shared, so nobody waits for it; what
others did meanwhile is noticed when it commits.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from threading import get_ident
from typing import Any, NamedTuple, Protocol

from duraq.operations import Operation, Release, WithoutEntry


class _Step(NamedTuple):
    queue: str
    operation: Operation
    max_size: int | None


class _Point(NamedTuple):
    """Where a savepoint stands: so many steps and leases come before it."""

    steps: int
    leased: int


class OfTransactions(Protocol):
    """A storage, as far as it is asked here."""

    def rollback_transaction(self) -> None: ...


class Transaction:
    """Operations in the order in which they were decided, over any number of queues of one storage."""

    def __init__(self, storage: OfTransactions) -> None:
        self.storage = storage
        self.owner = owner()
        self.ended = False
        self._steps: list[_Step] = []
        self._leased: list[tuple[str, Release]] = []
        self._points: list[_Point] = []
        self._touched: dict[str, set[str]] = {}

    @property
    def is_nested(self) -> bool:
        """Whether a savepoint stands."""
        return bool(self._points)

    @property
    def is_a_tasks(self) -> bool:
        """Whether a task has begun it, and not a thread that runs none."""
        return self.owner[1] is not None

    @property
    def depth(self) -> int:
        """How many savepoints stand."""
        return len(self._points)

    def cut(self, depth: int) -> None:
        """Forget savepoints beyond so many, and what was done since the first of them.

        Leases that were taken since are given back with the others, at the end.
        """
        if len(self._points) > depth:
            del self._points[depth + 1 :]
            self._leased += self.roll_back()

    def save(self) -> None:
        """Set a savepoint."""
        self._points.append(_Point(len(self._steps), len(self._leased)))

    def release_savepoint(self) -> None:
        """Forget the last savepoint: what was done since belongs to what was done before."""
        self._points.pop()

    def roll_back(self) -> list[tuple[str, Release]]:
        """Forget what was done since the last savepoint, or all; returns the leases to give back for that."""
        point = self._points.pop() if self._points else _Point(0, 0)
        given, self._leased = self._leased[point.leased :], self._leased[: point.leased]
        touched: dict[str, set[str]] = {}
        for step in self._steps[: point.steps]:
            _touch(touched, step.queue, step.operation)
        # At once: this may be interrupted, and what stays must be whole.
        self._steps, self._touched = self._steps[: point.steps], touched
        return given

    def add(self, queue: str, operations: Sequence[Operation], max_size: int | None = None) -> None:
        """These were decided."""
        for operation in operations:
            _touch(self._touched, queue, operation)
        # All or none of them, should this be interrupted.
        self._steps += [_Step(queue, operation, max_size) for operation in operations]

    def add_lease(self, queue: str, entry_id: str, token: int) -> None:
        """An entry was leased, at once and for good; it is given back if this is rolled back."""
        self._leased.append((queue, Release(entry_id, token)))

    def concerns(self, queue: str) -> bool:
        """Whether anything was decided about that queue."""
        return queue in self._touched

    def touches(self, queue: str, operations: Sequence[Operation]) -> bool:
        """Whether any of these is about an entry that something was decided about already."""
        touched = self._touched.get(queue, set())
        return any(getattr(operation, "id", None) in touched for operation in operations)

    def operations(self, queue: str) -> list[Operation]:
        """What was decided about that queue."""
        return [step.operation for step in self._steps if step.queue == queue]

    @property
    def changes(self) -> dict[str, list[Operation]]:
        """What was decided, by queue."""
        found: dict[str, list[Operation]] = {}
        for step in self._steps:
            found.setdefault(step.queue, []).append(step.operation)
        return found

    @property
    def max_size(self) -> dict[str, int]:
        """The least size that any of the calls wanted a queue to keep to."""
        found: dict[str, int] = {}
        for step in self._steps:
            if step.max_size is not None:
                found[step.queue] = min(step.max_size, found.get(step.queue, step.max_size))
        return found


def _touch(touched: dict[str, set[str]], queue: str, operation: Operation) -> None:
    entries = touched.setdefault(queue, set())
    if not isinstance(operation, WithoutEntry):
        entries.add(operation.id)


# Of all storages, the outermost first; a thread has a context of its own, and so has a task.
_begun: ContextVar[tuple[Transaction, ...]] = ContextVar("duraq_transactions", default=())


# Whether anything is begun at all: nearly always nothing is, and then nobody need ask for more.
any_begun = _begun.get


def current(storage: object) -> Transaction | None:
    """The transaction on that storage that this thread or task is in."""
    begun = _begun.get()
    if not begun:
        return None
    whose = owner()
    for transaction in begun:
        # A task, or a thread that is given its maker's context, inherits it, and is no part of it.
        if transaction.storage is storage and transaction.owner == whose:
            return transaction
    return None


def begin(storage: OfTransactions) -> None:
    """From here on this thread or task is in a transaction."""
    _begun.set((*_begun.get(), Transaction(storage)))


def end(transaction: Transaction) -> None:
    """It no longer is."""
    transaction.ended = True
    _begun.set(tuple(each for each in _begun.get() if each is not transaction))


# Whose transactions are whose: a thread's, or those of one of its tasks.
Owner = tuple[int, Any]

# The thread that works for somebody else, and for whom.
_lent: ContextVar[tuple[int, Owner] | None] = ContextVar("duraq_lent", default=None)


def lend_thread(to: Owner) -> None:
    """From here on, in this context, what this thread does is done by that owner, who waits for it."""
    _lent.set((get_ident(), to))


def owner() -> Owner:
    """Whoever makes this call."""
    lent = _lent.get()
    # A thread that is started meanwhile may be given a copy of the context, and works for nobody.
    if lent is not None and lent[0] == get_ident():
        return lent[1]
    return get_ident(), _task()


def _task() -> Any:
    """The task that runs in this thread, if one does."""
    trio, asyncio = sys.modules.get("trio"), sys.modules.get("asyncio")
    if trio is not None:
        with suppress(RuntimeError):  # none of its tasks runs in this thread
            return trio.lowlevel.current_task()
    if asyncio is not None:
        with suppress(RuntimeError):  # no loop runs in this thread
            return asyncio.current_task()
    return None


Mark = tuple[tuple[Transaction, int], ...]


def mark() -> Mark:
    """What this thread or task is in, and how many savepoints stand in each."""
    return tuple((each, each.depth) for each in _begun.get())


def reset(before: Mark) -> None:
    """Be in that again, and in nothing that was begun since."""
    for each, depth in before:
        each.cut(depth)
    _begun.set(tuple(each for each, _ in before))


def begun_since(before: Mark) -> list[Transaction]:
    """What was begun since and is not ended, the innermost first: each once, and once for each savepoint.

    One that took the place of another, which was ended since, was begun before in this sense.
    """
    begun = _begun.get()
    if not begun:
        return []  # as nearly always
    whose, levels = owner(), _levels(before)
    mine = (each for each in reversed(begun) if each.owner == whose)
    return [each for each in mine for _ in range(1 + each.depth - levels.get(id(each.storage), 0))]


def has_ended(before: Mark) -> bool:
    """Whether any of it was ended since, and nothing begun in its place."""
    now = _levels(mark())
    return any(now.get(storage, 0) < level for storage, level in _levels(before).items())


def undo_since(before: Mark) -> bool:
    """Undo what was begun since and is not ended; whether there was any."""
    left = begun_since(before)
    try:
        for each in left:
            each.storage.rollback_transaction()
    finally:
        drop_since(before)
    return bool(left)


def drop_since(before: Mark) -> None:
    """Be no longer in what was begun since: it was undone, in another context perhaps, or could not be."""
    for each in begun_since(before):
        if each.is_nested:
            each.cut(each.depth - 1)
        else:
            end(each)


def _levels(of: Mark) -> dict[int, int]:
    """How deep one was in a transaction on each storage; a task is in none that it has inherited."""
    if not of:
        return {}
    whose = owner()
    return {id(each.storage): 1 + depth for each, depth in of if each.owner == whose}


def without_last(before: Mark, storage: object) -> Mark:
    """The same without what was begun last on that storage: a savepoint, or the transaction itself."""
    last = current(storage) or next((each for each, _ in before if each.storage is storage), None)
    return tuple(
        (each, depth - 1 if each is last else depth)
        for each, depth in before
        if each is not last or depth > 0
    )
