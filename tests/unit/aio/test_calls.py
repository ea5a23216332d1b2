"""Calls that threads make for tasks: ended if begun, and undone if nobody wants them any more."""

import asyncio
import threading

import anyio
import pytest

from duraq import transaction
from duraq.aio import calls
from duraq.aio.calls import call

pytestmark = pytest.mark.anyio
SOON = 60  # seconds; only so that a failing test ends


@pytest.fixture
def one_thread(monkeypatch):
    """There is one thread for all calls."""
    monkeypatch.setattr(calls, "THREADS", 1)


class Held:
    """A call that lasts until it may end."""

    def __init__(self, in_loop):
        self.in_loop = in_loop
        self.began, self.may_end = anyio.Event(), threading.Event()

    def __call__(self):
        self.in_loop(self.began.set)
        assert self.may_end.wait(SOON)
        return "result"


async def test_results_and_errors():
    """A call returns what the function returns, raises what it raises, and is made by another thread."""
    assert await call(threading.get_ident) != threading.get_ident()
    error = KeyError("no")

    def fail():
        raise error

    with pytest.raises(KeyError) as caught:
        await call(fail)
    assert caught.value is error


async def test_whose_call_it_is():
    """A call is the calling task's, and the next one by the same thread is another's."""
    mine = transaction.owner()
    assert await call(transaction.owner) == mine
    assert await anyio.to_thread.run_sync(transaction.owner) != mine
    found = []

    async def other():
        found.append((await call(transaction.owner), transaction.owner()))

    async with anyio.create_task_group() as group:
        group.start_soon(other)
    ((theirs, expected),) = found
    assert theirs == expected != mine


async def test_cancelled_before_it_begins():
    """What a cancelled task calls is not called, unless it is to be in any case."""
    called = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        await call(lambda: called.append("not"))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await call(lambda: called.append("surely"), surely=True)
    assert called == ["surely"]


async def test_cancelled_while_it_waits_for_a_thread(one_thread, loop_caller):
    """A call that waits for a thread is not made if its task is cancelled, unless it is to be in any case."""
    held, called = Held(loop_caller()), []
    async with anyio.create_task_group() as group:
        group.start_soon(call, held)
        await held.began.wait()
        async with anyio.create_task_group() as others:
            others.start_soon(call, lambda: called.append("not"))
            others.start_soon(lambda: call(lambda: called.append("surely"), surely=True))
            await anyio.wait_all_tasks_blocked()
            others.cancel_scope.cancel()
            held.may_end.set()
    assert called == ["surely"]


async def test_cancelled_in_the_middle(loop_caller):
    """A call that has begun is waited for and undone before its task is cancelled."""
    held, order = Held(loop_caller()), []

    async def make():
        try:
            await call(held, undo=order.append)
        finally:
            order.append("cancelled")

    async with anyio.create_task_group() as group:
        group.start_soon(make)
        await held.began.wait()
        group.cancel_scope.cancel()
        held.may_end.set()
    assert order == ["result", "cancelled"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelled_many_times(loop_caller):
    """However often asyncio cancels a task, its call is waited for and undone."""
    held, undone = Held(loop_caller()), []
    task = asyncio.ensure_future(call(held, undo=undone.append))
    await held.began.wait()
    for _ in range(5):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    held.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert undone == ["result"]
