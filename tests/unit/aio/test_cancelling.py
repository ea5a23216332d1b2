"""A task that is cancelled, at every moment of what it does, leaves nothing behind.

A moment is each time the task gives the event loop its turn, and the beginning and the end of each call that
a thread makes. A script is run over and over, cancelled at the first of them, then at the second, and so on.
"""

import asyncio
import threading
import types
from datetime import timedelta

import anyio
import pytest

from duraq import FileStorage, FixedDelay, MemoryStorage, Queue, aio, transaction
from duraq.aio import calls

pytestmark = pytest.mark.anyio
AT_ONCE, PATIENCE = timedelta(0), timedelta(seconds=60)
# More moments than any of the scripts has.
MANY = 300


class Moments:
    """Counts the moments of a run, and cancels at one of them."""

    def __init__(self, at):
        self.at = at
        self.passed = 0
        self.cancel = None

    def come(self):
        """One has come; in the event loop's thread."""
        self.passed += 1
        if self.passed == self.at:
            self.cancel()

    @types.coroutine
    def through(self, coroutine):
        """Await a coroutine, and notice each time it waits for something."""
        resume, value = coroutine.send, None
        while True:
            try:
                awaited = resume(value)
            except StopIteration as end:
                return end.value
            self.come()
            try:
                resume, value = coroutine.send, (yield awaited)
            except BaseException as error:  # noqa: BLE001 - it is the coroutine's to deal with
                resume, value = coroutine.throw, error


@pytest.fixture
def watch(monkeypatch, loop_caller):
    """Notice from now on when threads begin and end their calls."""
    do = calls._Deed.do

    def watch(moments):
        in_loop = loop_caller()

        def done(deed):
            in_loop(moments.come)
            do(deed)
            in_loop(moments.come)

        monkeypatch.setattr(calls._Deed, "do", done)

    return watch


class World:
    """A storage with three entries, and what the script has in hand."""

    def __init__(self, sync):
        self.sync = sync
        self.storage = aio.Storage(sync)
        policy = FixedDelay(delay=AT_ONCE)
        self.queue = aio.Queue("jobs", self.storage, retry_policy=policy)
        self.others = aio.Queue("others", self.storage, retry_policy=policy)
        self.hand = set()
        self.queue.sync.enqueue_many(range(3), ids="abc")

    async def take(self, **options):
        """Lease an entry; it is in hand as soon as it is the script's."""
        entry = await self.queue.dequeue(**options)
        if entry is not None:
            self.hand.add(entry.id)
        return entry


async def take_and_complete(world):
    for _ in range(2):
        entry = await world.take()
        await world.queue.extend(entry)
        await world.queue.mark_completed(entry)


async def take_and_fail(world):
    await world.queue.mark_failed(await world.take(), "no")
    await world.queue.release(await world.take())


async def enqueue_and_look(world):
    await world.queue.enqueue("x")
    await world.others.enqueue_many([*"xyz"])
    await world.queue.pause()
    await world.queue.resume()
    assert (await world.others.counts()).ready == 3
    assert await world.storage.queues() == ["jobs", "others"]


async def wait_for_an_entry(world):
    async def feed():
        await world.others.enqueue("x")

    async with anyio.create_task_group() as group:
        group.start_soon(feed)
        entry = await world.others.dequeue(wait=PATIENCE)
        world.hand.add(entry.id)


async def wait_in_vain(world):
    assert await world.others.dequeue(wait=timedelta(milliseconds=20)) is None


async def consume(world):
    async for entry in world.queue.consume(wait=AT_ONCE):
        world.hand.add(entry.id)


async def in_a_transaction(world):
    async with world.storage.transaction():
        for _ in range(2):
            # Whatever the transaction comes to, it keeps what it has leased only if it has committed.
            entry = await world.queue.dequeue()
            await world.others.enqueue(entry.data)
            await world.queue.mark_completed(entry)


async def in_savepoints(world):
    async with world.storage.transaction():
        async with world.storage.transaction():
            await world.queue.mark_completed(await world.queue.dequeue())
            await world.others.enqueue("x")
        with pytest.raises(ValueError):
            async with world.storage.transaction():
                await world.queue.dequeue()
                raise ValueError


async def by_hand(world):
    await world.storage.begin_transaction()
    try:
        await world.others.enqueue("x")
        await world.queue.mark_completed(await world.queue.dequeue())
    except BaseException:
        await world.storage.rollback_transaction()
        raise
    await world.storage.commit_transaction()


async def handler(world, entry):
    await world.others.enqueue(entry.data)
    if entry.data == 1:
        raise ValueError


async def process_next(world):
    for _ in range(2):
        try:
            await world.queue.process_next(lambda entry: handler(world, entry))
        except ValueError:
            return


async def process_next_in_transactions(world):
    try:
        for _ in range(2):
            await world.queue.process_next(lambda entry: handler(world, entry), transactional=True)
    except ValueError:
        pass


async def work(world, **options):
    async def work(entry):
        await handler(world, entry)

    policy = FixedDelay(delay=AT_ONCE)
    await aio.Worker(world.queue, work, concurrency=2, backoff=policy, **options).run(limit=4)


async def work_in_transactions(world):
    await work(world, transactional=True)


SCRIPTS = [
    take_and_complete,
    take_and_fail,
    enqueue_and_look,
    wait_for_an_entry,
    wait_in_vain,
    consume,
    in_a_transaction,
    in_savepoints,
    by_hand,
    process_next,
    process_next_in_transactions,
    work,
    work_in_transactions,
]
# In these, each entry that was completed is in the other queue, and no other is.
WHOLE = {in_a_transaction, in_savepoints, by_hand, process_next_in_transactions, work_in_transactions}


async def run_in_a_scope(script, world, moments):
    """Cancelled as anyio and trio do it."""
    with anyio.CancelScope() as scope:
        moments.cancel = scope.cancel
        await moments.through(script(world))
    assert transaction.current(world.sync) is None


async def run_as_a_task(script, world, moments):
    """Cancelled as asyncio does it."""
    task = asyncio.create_task(_run(script, world, moments))
    moments.cancel = task.cancel
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def _run(script, world, moments):
    try:
        await moments.through(script(world))
    finally:
        assert transaction.current(world.sync) is None


def check(script, world, path):
    """Nothing is left but what the script has in hand."""
    leased = {entry.id for entry in Queue("jobs", world.sync).entries("leased")}
    leased |= {entry.id for entry in Queue("others", world.sync).entries("leased")}
    assert leased <= world.hand
    others = Queue("others", world.sync).counts()
    if script in WHOLE:
        assert others.length + Queue("jobs", world.sync).counts().length == 3
    if path is None:
        assert world.sync._places == set()
        other = threading.Thread(target=lambda: Queue("jobs", world.sync).enqueue("more"))
        other.start()
        other.join(PATIENCE.total_seconds())
        assert not other.is_alive()
        return
    assert list(path.glob("*/waiters/*")) == []
    with FileStorage(path) as other:
        Queue("jobs", other).enqueue("more")


KINDS = [("scope", "asyncio"), ("scope", "trio"), ("task", "asyncio")]


@pytest.mark.parametrize(
    ("kind", "anyio_backend"),
    KINDS,
    ids=["scope-asyncio", "scope-trio", "task-asyncio"],
    indirect=["anyio_backend"],
)
@pytest.mark.parametrize("files", [False, True], ids=["memory", "files"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
async def test_at_every_moment(script, files, kind, watch, tmp_path):
    """No lease is left that nobody has in hand, no lock, no place in a line and no half transaction."""
    run = run_in_a_scope if kind == "scope" else run_as_a_task
    for at in range(1, MANY):
        path = tmp_path / str(at) if files else None
        sync = FileStorage(path, durability="process") if files else MemoryStorage()
        with sync:
            world, moments = World(sync), Moments(at)
            watch(moments)
            await run(script, world, moments)
            moments.at = 0
            check(script, world, path)
        if moments.passed < at:
            break
    assert 2 < at < MANY - 1
