"""Transactions of tasks: ambient to the task, whole or not at all, whichever thread makes its calls."""

import contextvars
import threading

import anyio
import pytest

from duraq import Counts, DuplicateEntry, NoTransaction, Queue, QueueFull, aio, transaction
from duraq.aio.calls import call
from duraq.operations import Enqueue

pytestmark = pytest.mark.anyio


@pytest.fixture
def others(storage):
    """A second queue of the storage."""
    return aio.Queue("others", storage)


async def contents(*queues):
    """What lies in each of them."""
    return [[entry.data for entry in await queue.entries()] for queue in queues]


async def test_whole(queue, others, storage):
    """What is done in a transaction is seen in it, and by others when it has committed."""
    await queue.enqueue("a")
    seen = []

    async def look():
        seen.append(await contents(queue, others))

    async def look_elsewhere():
        async with anyio.create_task_group() as group:
            group.start_soon(look)

    async with storage.transaction():
        await queue.mark_completed(await queue.dequeue())
        await others.enqueue("b")
        await look()
        await look_elsewhere()
    await look_elsewhere()
    assert seen == [[[], ["b"]], [["a"], []], [[], ["b"]]]


async def test_not_at_all(queue, others, storage):
    """What was done in a block that an exception leaves was never done, and what it leased is given back."""
    await queue.enqueue("a")
    with pytest.raises(ValueError, match="no"):
        async with storage.transaction():
            await queue.mark_completed(await queue.dequeue())
            await others.enqueue("b")
            raise ValueError("no")
    assert await contents(queue, others) == [["a"], []]
    assert await queue.counts() == Counts(ready=1)
    assert (await queue.dequeue()).attempts == 1


async def test_savepoints(queue, storage):
    """A block within a block undoes only what was done in it."""
    async with storage.transaction():
        await queue.enqueue(1)
        with pytest.raises(ValueError):
            async with storage.transaction():
                await queue.enqueue(2)
                raise ValueError
        async with storage.transaction():
            await queue.enqueue(3)
    assert await contents(queue) == [[1, 3]]


async def test_by_hand(queue, storage):
    """A transaction is begun, committed and undone by calls as well as by a block."""
    await storage.begin_transaction()
    await queue.enqueue(1)
    await storage.begin_transaction()
    await queue.enqueue(2)
    await storage.rollback_transaction()
    await storage.commit_transaction()
    await storage.begin_transaction()
    await queue.enqueue(3)
    await storage.rollback_transaction()
    assert await contents(queue) == [[1]]
    with pytest.raises(NoTransaction):
        await storage.commit_transaction()
    with pytest.raises(NoTransaction):
        await storage.rollback_transaction()


async def test_a_decorator(queue, storage):
    """A coroutine function may be a transaction, each time it is called."""

    @storage.transaction()
    async def work(number):
        await queue.enqueue(number)
        if number == 2:
            raise ValueError

    for number in (1, 2, 3):
        try:
            await work(number)
        except ValueError:
            assert transaction.current(storage.sync) is None
    assert await contents(queue) == [[1, 3]]


async def test_tasks_at_once(storage):
    """Tasks in transactions at the same time have each their own, whichever threads make their calls."""
    queue = aio.Queue("jobs", storage)

    async def work(number):
        with pytest.raises(ValueError) if number % 2 else anyio.CancelScope():
            async with storage.transaction():
                for step in range(5):
                    await queue.enqueue([number, step])
                assert len(await queue.entries()) % 5 == 0
                if number % 2:
                    raise ValueError

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(work, number)
    found = [entry.data for entry in await queue.entries()]
    assert sorted(found) == [[number, step] for number in range(0, 20, 2) for step in range(5)]


async def test_a_task_of_a_task(queue, storage):
    """A task that is started in a transaction has no part in it, and may have its own."""

    async def work():
        async with storage.transaction():
            await queue.enqueue("own")

    with pytest.raises(ValueError):
        async with storage.transaction():
            await queue.enqueue("undone")
            async with anyio.create_task_group() as group:
                group.start_soon(work)
            raise ValueError
    assert await contents(queue) == [["own"]]


async def test_calls_without_await(queue, storage, sync):
    """A call for threads that a task makes belongs to the task's transaction too, and the reverse."""
    with sync.transaction():
        await queue.enqueue(1)
        Queue("jobs", sync).enqueue(2)
        assert len(await queue.entries()) == 2
        assert transaction.current(sync) is not None
    async with storage.transaction():
        Queue("jobs", sync).enqueue(3)
    assert await contents(queue) == [[1, 2, 3]]


async def test_a_thread_with_the_context(queue, storage, sync):
    """A thread that is given a copy of the context of a lent one has no part in what that works for."""
    seen = []

    def start_another():
        context = contextvars.copy_context()
        look = threading.Thread(target=context.run, args=(lambda: seen.append(transaction.current(sync)),))
        look.start()
        look.join()
        seen.append(transaction.current(sync) is not None)

    async with storage.transaction():
        await call(start_another)
    assert seen == [None, True]


async def test_what_the_end_raises(storage, sync):
    """A transaction that others have made impossible raises why, and nothing of it was done."""
    queue = aio.Queue("jobs", storage, max_size=2)
    with pytest.raises(DuplicateEntry):
        async with storage.transaction():
            await queue.enqueue("mine", id="x")
            sync._commit_now({"jobs": [Enqueue("x", b'"other"')]})
    with pytest.raises(QueueFull):
        async with storage.transaction():
            await queue.enqueue("second")
            sync._commit_now({"jobs": [Enqueue("y", b'"other"')]})
    assert transaction.current(sync) is None
    assert [entry.id for entry in await queue.entries()] == ["x", "y"]


async def test_cancelled(queue, storage):
    """A task that is cancelled in a transaction has done nothing, and is in none."""
    await queue.enqueue("a")
    with anyio.CancelScope() as scope:
        async with storage.transaction():
            await queue.dequeue()
            await queue.enqueue("b")
            scope.cancel()
    assert scope.cancelled_caught
    assert transaction.current(storage.sync) is None
    assert await contents(queue) == [["a"]]
    assert await queue.counts() == Counts(ready=1)
