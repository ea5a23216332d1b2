"""Calls that block: a few threads make them for the tasks, and none is abandoned once it has begun."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from anyio import CancelScope, CapacityLimiter, create_task_group, to_thread
from anyio.lowlevel import RunVar, checkpoint_if_cancelled

from duraq import transaction

T = TypeVar("T")

# For all storages of an event loop. Those that commit at once share a sync, and wait for nothing else.
THREADS = 12
_limiter: RunVar[CapacityLimiter] = RunVar("duraq_threads")


async def call(
    function: Callable[[], T], *, undo: Callable[[T], object] | None = None, surely: bool = False
) -> T:
    """What the function returns or raises, called in a thread, as a call of this task.

    If the task is cancelled before it has begun, it is not called, unless it is to be ``surely``. If later,
    it is waited for, then ``undo`` is called with what it has returned, and the cancellation goes on.
    """
    deed = _Deed(function, transaction.owner())
    try:
        # A task of its own, for asyncio's own cancellation passes through every shield: it hits this task,
        # which then waits for the other.
        async with create_task_group() as group:
            group.start_soon(_do, deed, surely)
        # A nursery of trio is left without a word of a cancellation that came while it waited.
        await checkpoint_if_cancelled()
    except BaseException:
        if undo is not None and deed.results:
            with CancelScope(shield=True):
                await call(lambda: undo(deed.results[0]), surely=True)
        raise
    return deed.outcome()


async def _do(deed: _Deed[T], surely: bool) -> None:
    with CancelScope(shield=surely):
        await to_thread.run_sync(deed.do, limiter=_threads())


def _threads() -> CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(THREADS)
        _limiter.set(limiter)
        return limiter


class _Deed(Generic[T]):
    """A call that a thread makes for a task, and what has come of it."""

    def __init__(self, function: Callable[[], T], owner: transaction.Owner) -> None:
        self.results: list[T] = []  # one, once it has returned
        self._function = function
        self._owner = owner
        self._error: BaseException | None = None

    def do(self) -> None:
        transaction.lend_thread(self._owner)
        try:
            self.results.append(self._function())
        except BaseException as error:  # noqa: BLE001 - raised again in the task
            self._error = error

    def outcome(self) -> T:
        if self._error is None:
            return self.results[0]
        # It refers to this frame by its traceback: without the circle it goes when it is dealt with.
        error, self._error = self._error, None
        try:
            raise error
        finally:
            del error
