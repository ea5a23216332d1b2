"""The queue's surface for tasks: the names and the semantics are those for threads."""

import inspect
import threading
from datetime import timedelta

import pytest

import duraq
from duraq import (
    Counts,
    DuplicateEntry,
    EntryStatus,
    FixedDelay,
    InvalidOption,
    LeaseLost,
    NoRetry,
    StorageClosed,
    aio,
)
from duraq.testing import FakeClock

pytestmark = pytest.mark.anyio
SECOND = timedelta(seconds=1)


def public(kind):
    """The public names of a class."""
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize("kind", ["Queue", "DeadLetterQueue", "QueueManager"])
def test_the_same_names(kind):
    """Whatever a class for threads has, its namesake for tasks has, with its parameters, to be awaited."""
    threads, tasks = getattr(duraq, kind), getattr(aio, kind)
    # An act's steps yield what becomes of each entry; those are for whoever shows it.
    steps = {"undoing"}
    assert public(threads) - public(tasks) <= {"settle_lapsed", "lease_length"} | steps
    for name in public(threads) & public(tasks):
        ours, theirs = getattr(tasks, name), getattr(threads, name)
        if inspect.isfunction(ours) and inspect.isfunction(theirs):
            parameters = [inspect.signature(each).parameters for each in (ours, theirs)]
            assert [str(each).partition(":")[0] for each in parameters[0].values()] == [
                str(each).partition(":")[0] for each in parameters[1].values()
            ], name
            assert inspect.iscoroutinefunction(ours) or name in {"queue", "dead_letters"}, name


@pytest.mark.parametrize("kind", ["Queue", "DeadLetterQueue", "QueueManager"])
def test_the_same_words(kind):
    """What a method does, raises and makes durable is said in the same words, except where it differs."""
    threads, tasks = getattr(duraq, kind), getattr(aio, kind)
    other = {"dequeue", "mark_completed", "process_next"}
    for name in public(threads) & public(tasks) - other:
        assert inspect.getdoc(getattr(tasks, name)) == inspect.getdoc(getattr(threads, name)), name


@pytest.mark.parametrize("kind", ["FileStorage", "MemoryStorage"])
def test_the_same_options(kind):
    """A storage for tasks is opened with the options of the one for threads."""
    threads, tasks = (inspect.signature(getattr(module, kind)).parameters for module in (duraq, aio))
    assert dict(tasks) == {name: each for name, each in threads.items() if name != "file_system"}


def test_what_is_public():
    """``duraq.aio`` names what it has, sorted."""
    assert aio.__all__ == sorted(aio.__all__)
    assert all(isinstance(getattr(aio, name), type) for name in aio.__all__)


async def test_a_life(queue):
    """An entry is enqueued, leased and completed, and its options are those that were given."""
    first = await queue.enqueue({"a": 1})
    assert await queue.enqueue("b", priority=5, id="b") == "b"
    assert [entry.data for entry in await queue.peek(5)] == ["b", {"a": 1}]
    entry = await queue.dequeue()
    assert (entry.data, entry.priority, entry.attempts, entry.status) == ("b", 5, 1, EntryStatus.LEASED)
    assert await queue.counts() == Counts(ready=1, leased=1)
    assert await queue.length() == 2
    await queue.mark_completed(entry)
    entries = await queue.dequeue(limit=5)
    assert [entry.id for entry in entries] == [first]
    await queue.mark_completed_many(entries)
    assert await queue.dequeue() is None
    assert await queue.dequeue(limit=5) == []
    assert await queue.counts() == Counts()


async def test_ends_of_a_lease(queue):
    """A lease is extended, given back, failed, and refused once it has ended."""
    await queue.enqueue_many(["a"], ids=["x"])
    entry = await queue.dequeue()
    assert await queue.extend(entry, timedelta(hours=1)) > entry.lease_deadline
    await queue.release(entry)
    assert (await queue.get("x")).status is EntryStatus.READY
    with pytest.raises(LeaseLost):
        await queue.mark_completed(entry)
    entry = await queue.dequeue()
    assert entry.attempts == 1
    assert await queue.mark_failed("x", ValueError("no"), retry_in=timedelta(0)) is EntryStatus.READY
    entry = await queue.dequeue()
    assert (entry.attempts, entry.error_message) == (2, "no")
    assert await queue.mark_failed(entry, dead=True) is EntryStatus.DEAD


async def test_errors_go_through(queue):
    """What a call for threads raises, the call for tasks raises."""
    await queue.enqueue("a", id="x")
    with pytest.raises(DuplicateEntry):
        await queue.enqueue("a", id="x")
    with pytest.raises(InvalidOption):
        await queue.dequeue(limit=0)
    with pytest.raises(InvalidOption):
        await queue.dequeue(wait=-SECOND)
    with pytest.raises(InvalidOption):
        queue.consume(wait=-SECOND)


async def test_dead_letters(queue, storage):
    """Dead letters are listed, counted, put back and removed."""
    dead_letters = aio.DeadLetterQueue("jobs", None, storage)
    await queue.enqueue_many(range(5), ids="abcde")
    for entry in await queue.dequeue(limit=5):
        await queue.mark_failed(entry, "no", dead=True)
    assert await dead_letters.count() == 5
    assert [entry.id for entry in await dead_letters.list(limit=2, offset=1)] == ["b", "c"]
    assert (await dead_letters.retrieve()).id == "a"
    await dead_letters.retry("a")
    assert await dead_letters.retry_many(["b"]) == 1
    await dead_letters.remove("c")
    assert await dead_letters.remove_many(iter(["d"])) == 1
    assert await dead_letters.purge_older_than(timedelta(days=1)) == 0
    assert await dead_letters.retry_all() == 1
    assert await queue.counts() == Counts(ready=3)


async def test_pausing(queue):
    """A paused queue delivers nothing, and says who paused it."""
    await queue.enqueue("a")
    await queue.pause("lunch", who="ann")
    pause = await queue.paused()
    assert (pause.who, pause.reason) == ("ann", "lunch")
    assert await queue.dequeue() is None
    await queue.resume()
    assert await queue.paused() is None
    assert (await queue.dequeue()).data == "a"


async def test_the_manager(storage):
    """A manager hands out queues and dead letters of its storage, and names those that exist."""
    manager = aio.QueueManager(storage)
    queue = manager.queue("jobs", int, retry_policy=NoRetry(), max_size=3)
    await queue.enqueue(1)
    assert await manager.queues() == ["jobs"]
    await queue.mark_failed(await queue.dequeue(), "no")
    assert (await manager.dead_letters("jobs", int).retrieve()).data == 1
    with pytest.raises(InvalidOption):
        aio.QueueManager(storage.sync)


async def test_handlers(queue):
    """``process_next`` completes what its handler returns from, and fails what it raises from."""
    seen = []

    async def handler(entry):
        seen.append(entry.data)
        if entry.data == "bad":
            raise ValueError(entry.data)

    assert await queue.process_next(handler) is None
    await queue.enqueue_many(["good", "bad"])
    assert (await queue.process_next(handler)).data == "good"
    with pytest.raises(ValueError, match="bad"):
        await queue.process_next(handler)
    assert seen == ["good", "bad"]
    assert await queue.counts() == Counts(scheduled=1)


async def test_a_handler_in_a_transaction(storage):
    """With ``transactional``, what a handler has done is there with the completion, or not at all."""
    queue = aio.Queue("jobs", storage, retry_policy=FixedDelay(delay=timedelta(0)))
    await queue.enqueue_many(["good", "bad"])
    others = aio.Queue("others", storage)

    async def handler(entry):
        await others.enqueue(entry.data)
        if entry.data == "bad":
            raise ValueError

    await queue.process_next(handler, transactional=True)
    with pytest.raises(ValueError):
        await queue.process_next(handler, transactional=True)
    assert [entry.data for entry in await others.entries()] == ["good"]
    assert (await queue.counts()).length == 1


async def test_consuming(queue):
    """An async for loop is handed entries as they come, and ends when none has come for so long."""
    await queue.enqueue_many(range(3))
    seen = []
    async for entry in queue.consume(wait=timedelta(0)):
        seen.append(entry.data)
        await queue.mark_completed(entry)
        if entry.data == 1:
            await queue.enqueue(9)
    assert seen == [0, 1, 2, 9]
    assert await queue.counts() == Counts()


async def test_a_loop_takes_nothing_ahead(queue):
    """A loop that is left holds what its body was handed and has not ended, and nothing else."""
    await queue.enqueue_many(range(3))
    async for entry in queue.consume():
        assert entry.data == 0
        break
    assert await queue.counts() == Counts(ready=2, leased=1)


@pytest.mark.needs("survives")
async def test_opening_files(tmp_path):
    """``async with`` opens a storage, and at its end what was leased has been given back."""
    storage = aio.FileStorage(tmp_path / "queues", durability="process")
    with pytest.raises(StorageClosed):
        aio.Queue("jobs", storage)
    await storage.close()
    async with storage as entered:
        assert entered is storage
        queue = aio.Queue("jobs", storage)
        await queue.enqueue("a")
        await queue.dequeue()
        assert (await storage.compact("jobs")) is not None
    with pytest.raises(StorageClosed):
        await queue.counts()
    async with aio.FileStorage(tmp_path / "queues") as storage:
        assert await aio.Queue("jobs", storage).counts() == Counts(ready=1)


async def test_opening_memory():
    """A storage in memory is opened in the same way."""
    async with aio.MemoryStorage(clock=FakeClock()) as storage:
        queue = aio.Queue("jobs", storage)
        await queue.enqueue("a")
        assert (await queue.dequeue()).data == "a"
    with pytest.raises(StorageClosed):
        await queue.counts()


async def test_what_is_no_storage(tmp_path):
    """Whoever gives a path for a storage is told so."""
    with pytest.raises(InvalidOption):
        aio.Storage(tmp_path)


async def test_the_event_loop_is_never_blocked(queue, sync):
    """Nothing takes the storage's lock in the thread of the event loop."""
    turn, here, threads = sync._turn, threading.get_ident(), set()

    class Watched:
        def __enter__(self):
            threads.add(threading.get_ident())
            return turn.__enter__()

        def __exit__(self, *error):
            return turn.__exit__(*error)

    sync._turn = Watched()
    await queue.enqueue_many(range(3))
    async with queue.storage.transaction():
        await queue.mark_completed(await queue.dequeue())
    with pytest.raises(ValueError):
        async with queue.storage.transaction():
            await queue.dequeue()
            raise ValueError
    async for entry in queue.consume(wait=timedelta(milliseconds=1)):
        await queue.release(entry, delay=timedelta(hours=1))
    sync._turn = turn
    assert threads
    assert here not in threads
