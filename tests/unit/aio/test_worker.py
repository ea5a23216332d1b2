"""A worker of tasks does with entries what a worker of threads does, and many at a time."""

import asyncio
import errno
import signal
import threading
from datetime import timedelta

import anyio
import pytest
from anyio.lowlevel import checkpoint

from duraq import (
    Cause,
    Counts,
    FixedDelay,
    InvalidInput,
    InvalidOption,
    NoRetry,
    StorageClosed,
    StorageError,
    WorkerStats,
    aio,
)
from duraq.journal.log import Sizes
from duraq.operations import Complete, Extend
from duraq.testing import FakeClock

pytestmark = pytest.mark.anyio
SOON = 60  # seconds; only so that a failing test ends
AT_ONCE, HOUR = timedelta(0), timedelta(hours=1)
NO_PAUSE = FixedDelay(delay=AT_ONCE)
LENGTH = timedelta(milliseconds=60)


class Slow:
    """A handler that waits until it may go on, then returns or raises."""

    def __init__(self, error=None):
        self.error = error
        self.entries, self.cancelled = [], []
        self.began, self.may_go_on = anyio.Event(), anyio.Event()

    async def __call__(self, entry):
        self.entries.append(entry)
        self.began.set()
        try:
            await self.may_go_on.wait()
        except BaseException:
            self.cancelled.append(entry)
            raise
        if self.error is not None:
            raise self.error


@pytest.fixture
def queue(storage):
    """A queue whose entries are tried once."""
    return aio.Queue("jobs", storage, retry_policy=NoRetry())


async def nothing(entry):
    """A handler that succeeds."""


async def run(worker, found, **options):
    """Run it; its statistics lie in the list in the end."""
    found.append(await worker.run(**options))


# -- working -----------------------------------------------------------------------------------------------


async def test_outcomes(storage):
    """What returns is completed, what raises is tried again or dead, and each is counted once."""
    queue = aio.Queue("jobs", storage, retry_policy=FixedDelay(delay=AT_ONCE, max_attempts=2))
    await queue.enqueue_many(["good", "bad", "good"])

    async def handler(entry):
        if entry.data == "bad":
            raise ValueError("no")

    worker = aio.Worker(queue, handler, concurrency=2, backoff=NO_PAUSE)
    assert await worker.run(drain=True) == WorkerStats(completed=2, failed=1, dead=1)
    (dead,) = await aio.DeadLetterQueue("jobs", None, storage).list()
    assert [attempt.error.message for attempt in dead.errors] == ["no", "no"]
    assert await worker.run(drain=True) == WorkerStats()


async def test_a_thousand_at_once(queue, count_threads):
    """A thousand entries are handled at the same time, with no more than thirty threads."""
    await queue.enqueue_many(range(1000))
    together, threads, seen = anyio.Event(), [], set()

    async def handler(entry):
        seen.add(entry.data)
        if len(seen) == 1000:
            threads.append(count_threads())
            together.set()
        await together.wait()

    stats = await aio.Worker(queue, handler, concurrency=1000).run(drain=True)
    assert stats == WorkerStats(completed=1000)
    threads.append(count_threads())
    assert max(threads) <= 30
    assert await queue.counts() == Counts()


async def test_no_more_than_allowed(queue):
    """No more handlers run at a time than allowed, and as many as allowed do."""
    await queue.enqueue_many(range(20))
    busy, most = set(), []

    async def handler(entry):
        busy.add(entry.id)
        most.append(len(busy))
        # Until all that are taken at once have begun.
        await checkpoint()
        busy.remove(entry.id)

    assert await aio.Worker(queue, handler, concurrency=3).run(drain=True) == WorkerStats(completed=20)
    assert max(most) == 3
    assert await queue.counts() == Counts()


async def test_nothing_is_taken_ahead(queue):
    """A worker leases no more than it handles."""
    await queue.enqueue_many(range(5))
    slow = Slow()
    async with anyio.create_task_group() as group:
        group.start_soon(run, aio.Worker(queue, slow, concurrency=2), [])
        while len(slow.entries) < 2:
            await checkpoint()
        assert await queue.counts() == Counts(ready=3, leased=2)
        group.cancel_scope.cancel()


async def test_a_limit(queue):
    """A worker with a limit takes that many entries and no more."""
    await queue.enqueue_many(range(5))
    assert await aio.Worker(queue, nothing, concurrency=9).run(limit=3) == WorkerStats(completed=3)
    assert await queue.counts() == Counts(ready=2)


async def test_draining_waits_for_what_runs(storage):
    """A worker that drains a queue also works what its handlers enqueue, and what comes back."""
    queue = aio.Queue("jobs", storage, retry_policy=FixedDelay(delay=AT_ONCE, max_attempts=3))
    await queue.enqueue(3)

    async def handler(entry):
        if entry.data:
            await queue.enqueue(entry.data - 1)
        elif entry.attempts < 3:
            raise ValueError

    worker = aio.Worker(queue, handler, concurrency=5, backoff=NO_PAUSE)
    assert await worker.run(drain=True) == WorkerStats(completed=4, failed=2)


async def test_several_queues(storage):
    """A worker of several queues works all of them."""
    queues = [aio.Queue(name, storage) for name in ("a", "b", "c")]
    for queue in queues:
        await queue.enqueue_many([queue.name] * 3)
    seen = []

    async def handler(entry):
        seen.append(entry.data)

    assert await aio.Worker(queues, handler).run(drain=True) == WorkerStats(completed=9)
    assert sorted(seen) == list("aaabbbccc")


async def test_it_waits_for_entries(queue):
    """An idle worker is woken by an entry."""
    found, seen = [], []

    async def handler(entry):
        seen.append(entry.data)

    worker = aio.Worker(queue, handler)
    async with anyio.create_task_group() as group:
        group.start_soon(run, worker, found)
        for number in range(3):
            await queue.enqueue(number)
        while len(seen) < 3:
            await checkpoint()
        worker.stop()
    assert found == [WorkerStats(completed=3)]


async def test_in_transactions(queue, storage):
    """With ``transactional``, what a handler does is there with its completion, or not at all."""
    others = aio.Queue("others", storage)
    await queue.enqueue_many(range(10))

    async def handler(entry):
        await others.enqueue(entry.data)
        if entry.data % 2:
            raise ValueError

    worker = aio.Worker(queue, handler, concurrency=4, transactional=True, backoff=NO_PAUSE)
    assert await worker.run(drain=True) == WorkerStats(completed=5, dead=5)
    assert sorted(entry.data for entry in await others.entries()) == [0, 2, 4, 6, 8]


async def test_a_handler_that_writes_too_much(tmp_path):
    """What a handler has done and the journal can never take counts as the attempt's failure."""
    sizes = Sizes(journal=64 << 10, segment=8 << 10, group=16 << 10)
    async with aio.FileStorage(tmp_path / "queues", sizes=sizes) as storage:
        queue, others = aio.Queue("jobs", storage, retry_policy=NoRetry()), aio.Queue("others", storage)
        await queue.enqueue(0)

        async def handler(entry):
            await others.enqueue_many(["x" * 100] * 200)

        worker = aio.Worker(queue, handler, transactional=True)
        assert await worker.run(limit=3, drain=True) == WorkerStats(dead=1)
        assert await others.counts() == Counts()


@pytest.mark.parametrize("handler", [print, lambda entry: [entry], "nothing", iter])
async def test_what_is_no_handler(queue, handler):
    """A handler that is no coroutine function is refused, before it could lose entries."""
    with pytest.raises(InvalidOption):
        aio.Worker(queue, handler)


async def test_options(queue):
    """A worker without a queue, or with no concurrency, or that runs already, is refused."""
    with pytest.raises(InvalidOption):
        aio.Worker([], nothing)
    with pytest.raises(InvalidOption):
        aio.Worker(queue, nothing, concurrency=0)
    await queue.enqueue("a")
    worker = aio.Worker(queue, slow := Slow())
    with pytest.raises(InvalidOption):
        await worker.run(limit=0)
    async with anyio.create_task_group() as group:
        group.start_soon(run, worker, [])
        await slow.began.wait()
        with pytest.raises(InvalidInput):
            await worker.run()
        group.cancel_scope.cancel()


# -- stopping ----------------------------------------------------------------------------------------------


async def test_stopped_before_it_runs(queue):
    """A worker that was told to stop before it runs takes nothing; the run after that is not concerned."""
    await queue.enqueue("a")
    worker = aio.Worker(queue, nothing)
    worker.stop()
    assert await worker.run() == WorkerStats()
    assert await worker.run(drain=True) == WorkerStats(completed=1)


@pytest.mark.parametrize("how", ["call", "thread", "signal"])
async def test_a_graceful_stop(queue, how):
    """A worker that is told to stop takes no more entries, and lets its handlers end."""
    await queue.enqueue_many(range(3))
    slow, found = Slow(), []
    worker = aio.Worker(queue, slow)
    async with anyio.create_task_group() as group:
        group.start_soon(run, worker, found)
        await slow.began.wait()
        if how == "call":
            worker.stop()
        elif how == "thread":
            thread = threading.Thread(target=worker.stop)
            thread.start()
            thread.join()
        else:
            signal.raise_signal(signal.SIGTERM)
        await stopping(worker)
        slow.may_go_on.set()
    assert found == [WorkerStats(completed=1)]
    assert await queue.counts() == Counts(ready=2)


async def stopping(worker):
    """Return when the worker has heard that it is to stop."""
    while not worker._inbox.empty():
        await checkpoint()


@pytest.mark.parametrize("how", ["now", "no grace", "signals"])
async def test_a_stop_without_grace(queue, how):
    """What runs when the grace is over is cancelled, and its entry given back, uncounted."""
    await queue.enqueue_many(range(3))
    slow, found = Slow(), []
    worker = aio.Worker(queue, slow, concurrency=2, grace=AT_ONCE if how == "no grace" else HOUR)
    async with anyio.create_task_group() as group:
        group.start_soon(run, worker, found)
        await slow.began.wait()
        if how == "signals":
            signal.raise_signal(signal.SIGTERM)
            await stopping(worker)
            signal.raise_signal(signal.SIGINT)
        else:
            worker.stop(now=how == "now")
    assert found == [WorkerStats(released=2)]
    assert len(slow.cancelled) == 2
    assert all(entry.lease_lost for entry in slow.entries)
    assert await queue.counts() == Counts(ready=3)
    assert (await queue.dequeue()).attempts == 1


async def test_signals_are_as_before(queue):
    """A worker that has ended leaves the handling of signals as it was."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    await aio.Worker(queue, nothing).run(drain=True)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_cancelled(queue):
    """A worker whose task is cancelled cancels its handlers and gives back what they held, uncounted."""
    await queue.enqueue_many(range(3))
    slow = Slow()
    async with anyio.create_task_group() as group:
        group.start_soon(run, aio.Worker(queue, slow, concurrency=2), [])
        await slow.began.wait()
        group.cancel_scope.cancel()
    assert len(slow.cancelled) == 2
    assert await queue.counts() == Counts(ready=3)


class StopNowError(BaseException):
    """As a framework might define one to end its tasks with."""


async def test_a_handler_that_ends_everything(queue):
    """What is no Exception gives the entry back, stops the worker, and is raised again by its run."""
    await queue.enqueue_many(range(3))
    error = StopNowError()

    async def handler(entry):
        raise error

    with pytest.raises(StopNowError) as caught:
        await aio.Worker(queue, handler, backoff=NO_PAUSE).run()
    assert caught.value is error
    assert await queue.counts() == Counts(ready=3)


@pytest.mark.parametrize("transactional", [False, True])
async def test_a_handler_that_exits(queue, transactional):
    """SystemExit stops the worker, and is a failed attempt: else its entry would come back for ever."""
    await queue.enqueue_many(range(3))

    async def handler(entry):
        raise SystemExit(3)

    async def within(entry):
        async with anyio.create_task_group():
            await handler(entry)

    with pytest.raises(SystemExit):
        await aio.Worker(queue, handler, transactional=transactional).run()
    assert await queue.counts() == Counts(ready=2, dead=1)
    with pytest.raises(BaseExceptionGroup):
        await aio.Worker(queue, within, transactional=transactional).run()
    assert await queue.counts() == Counts(ready=1, dead=2)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_handler_that_was_cancelled_by_its_own(queue):
    """That something within the handler was cancelled, while nobody cancelled the worker, is its failure."""
    await queue.enqueue("a")

    async def handler(entry):
        inner = asyncio.ensure_future(asyncio.sleep(SOON))
        inner.cancel()
        await inner

    assert await aio.Worker(queue, handler).run(drain=True) == WorkerStats(dead=1)
    await queue.enqueue("a")
    with pytest.raises(asyncio.CancelledError):
        await queue.process_next(handler)
    assert await queue.counts() == Counts(dead=2)


async def test_a_handler_that_leaves_a_transaction(queue, storage):
    """What a handler has begun and not ended is undone, and its failure: nothing is done in it afterwards."""
    others = aio.Queue("others", storage)
    await queue.enqueue_many(range(2))

    async def handler(entry):
        if entry.data == 0:
            await storage.begin_transaction()
        await others.enqueue(entry.data)

    assert await aio.Worker(queue, handler, backoff=NO_PAUSE).run(drain=True) == WorkerStats(
        completed=1, dead=1
    )
    assert [entry.data for entry in await others.entries()] == [1]
    await queue.enqueue(0)
    with pytest.raises(InvalidInput):
        await queue.process_next(handler, transactional=True)
    assert await queue.counts() == Counts(dead=2)
    assert [entry.data for entry in await others.entries()] == [1]


# -- leases and trouble ------------------------------------------------------------------------------------


@pytest.fixture
def clock(request):
    """The machine's own, but for tests of leases, in which it stands still."""
    return FakeClock() if "lease" in request.function.__name__ else None


@pytest.fixture
def renewals(sync, monkeypatch):
    """Released at each renewal of a lease."""
    renewals, commit = threading.Semaphore(0), sync.commit

    def watched(changes, limits=None):
        commit(changes, limits)
        if any(isinstance(operation, Extend) for each in changes.values() for operation in each):
            renewals.release()

    monkeypatch.setattr(sync, "commit", watched)
    return renewals


async def test_a_lease_is_renewed(storage, clock, renewals):
    """A handler may run for many times the length of a lease, and nobody else is given its entry."""
    queue = aio.Queue("jobs", storage, lock_duration=LENGTH)
    await queue.enqueue("a")
    others = []

    async def handler(entry):
        for _ in range(5):
            clock.advance(LENGTH * 2 / 3)
            assert await anyio.to_thread.run_sync(lambda: renewals.acquire(timeout=SOON))
            others.append(await queue.dequeue())
        assert not entry.lease_lost

    assert await aio.Worker(queue, handler).run(drain=True) == WorkerStats(completed=1)
    assert others == [None] * 5


@pytest.mark.parametrize("transactional", [False, True])
async def test_a_lost_lease(storage, clock, transactional):
    """Once its lease is lost a handler is told, and its outcome is not committed."""
    queue = aio.Queue("jobs", storage, lock_duration=LENGTH)
    others = aio.Queue("others", storage)
    await queue.enqueue("a")
    taken = []

    async def take_over():
        while not taken:
            clock.advance(2 * LENGTH)
            taken.extend(await queue.dequeue(limit=1))

    async def handler(entry):
        await others.enqueue("b")
        async with anyio.create_task_group() as group:
            group.start_soon(take_over)
        while not entry.lease_lost:
            clock.advance(LENGTH)
            await checkpoint()

    worker = aio.Worker(queue, handler, transactional=transactional)
    assert await worker.run(limit=1) == WorkerStats(lost=1)
    assert taken[0].errors[0].cause is Cause.TIMED_OUT
    assert await queue.counts() == Counts(leased=1)
    assert await others.length() == (not transactional)


@pytest.mark.parametrize("transactional", [False, True])
async def test_a_storage_that_refuses(queue, sync, transactional, monkeypatch):
    """An outcome that the storage refuses is written once it no longer does."""
    await queue.enqueue("a")
    commit, refusals = sync._commit, iter([True, True, False])

    def refusing(changes, limits):
        if any(isinstance(each, Complete) for every in changes.values() for each in every) and next(refusals):
            raise StorageError("full")
        return commit(changes, limits)

    monkeypatch.setattr(sync, "_commit", refusing)
    if sync._calls is not None:
        monkeypatch.setattr(sync, "_calls", None)
    worker = aio.Worker(queue, nothing, backoff=NO_PAUSE, transactional=transactional)
    released = 2 if transactional else 0
    assert await worker.run(drain=True) == WorkerStats(completed=1, released=released)


async def test_a_storage_that_cannot_be_asked(queue, sync, monkeypatch):
    """A worker to which the storage gives nothing for a while goes on when it does again."""
    await queue.enqueue("a")
    claim, refusals = sync.claim, iter([OSError(errno.EMFILE, "no"), StorageError("no")])

    def refusing(*arguments, **options):
        for error in refusals:
            raise error
        return claim(*arguments, **options)

    monkeypatch.setattr(sync, "claim", refusing)
    worker = aio.Worker(queue, nothing, backoff=NO_PAUSE)
    assert await worker.run(drain=True) == WorkerStats(completed=1)


async def test_a_storage_that_is_closed(queue, storage):
    """A worker whose storage is closed ends at once, with StorageClosed, and its handlers are cancelled."""
    await queue.enqueue("a")
    slow = Slow()

    async def close():
        await slow.began.wait()
        await storage.close()

    async with anyio.create_task_group() as group:
        group.start_soon(close)
        with pytest.raises(StorageClosed):
            await aio.Worker(queue, slow, concurrency=2).run()
    assert len(slow.cancelled) == 1


async def test_the_row_of_failures(queue):
    """From the second failure in a row on the back-off is asked for a pause; a success ends the row."""
    await queue.enqueue_many(["bad", "bad", "bad", "good", "bad", "good", "bad", "bad"])
    asked = []

    class Recorded:
        def get_retry_delay(self, attempts):
            asked.append(attempts)
            return AT_ONCE

    async def handler(entry):
        if entry.data == "bad":
            raise ValueError

    worker = aio.Worker(queue, handler, backoff=Recorded())
    assert await worker.run(drain=True) == WorkerStats(completed=2, dead=6)
    assert asked == [1, 2, 1]
