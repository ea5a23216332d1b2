"""Tasks that wait for entries: woken by whatever ends the wait for threads, and no thread waits for them."""

import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from duraq import Cause, Counts, FixedDelay, Queue, StorageClosed, aio
from duraq.aio import calls
from duraq.aio import waiting as waiting_tasks
from duraq.storage import waiting

pytestmark = pytest.mark.anyio
PATIENCE = timedelta(seconds=60)
HOLDER = """
import sys
from duraq import FileStorage, Queue

storage = FileStorage(sys.argv[1])
queue = Queue("jobs", storage)
entry = queue.dequeue()
print(entry.id, flush=True)
sys.stdin.readline()
"""
PRODUCER = """
import sys
from duraq import FileStorage, Queue

with FileStorage(sys.argv[1]) as storage:
    sys.stdin.readline()
    Queue("jobs", storage).enqueue_many(range(int(sys.argv[2])))
"""


@pytest.fixture
def start(tmp_path):
    """Start a process that has the storage open; it is killed in the end."""
    with ExitStack() as stack:

        def start(program, *arguments):
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(tmp_path / "storage"), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def asleep(monkeypatch):
    """Await it to see a task sleep that waits for an entry."""
    sleeping = [anyio.Event()]
    wait_readable = waiting_tasks.wait_readable

    async def wait(place):
        sleeping[0].set()
        await wait_readable(place)

    monkeypatch.setattr(waiting_tasks, "wait_readable", wait)

    async def asleep():
        await sleeping[0].wait()
        sleeping[0] = anyio.Event()

    return asleep


@pytest.fixture
def _no_sweeps(monkeypatch):
    """Whoever waits is woken or waits for ever: it does not look for itself."""
    monkeypatch.setattr(waiting, "SWEEP_INTERVAL", PATIENCE.total_seconds())


@pytest.fixture
def take(queue):
    """Begin to wait for an entry; it lies in the list in the end, or the error that ended the wait."""

    async def take(found, **options):
        try:
            found.append(await queue.dequeue(**{"wait": PATIENCE} | options))
        except StorageClosed as error:
            found.append(error)

    return take


def count_descriptors():
    """How many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def fifos(tmp_path):
    """The FIFOs of those who wait."""
    return list((tmp_path / "storage").glob("jobs/waiters/*"))


@pytest.mark.usefixtures("_no_sweeps")
async def test_woken_by_an_entry(queue, take, asleep, tmp_path):
    """A task that waits is given what another one enqueues, and leaves nothing behind."""
    found = []
    async with anyio.create_task_group() as group:
        group.start_soon(take, found)
        await asleep()
        await queue.enqueue("a")
    assert [entry.data for entry in found] == ["a"]
    assert fifos(tmp_path) == []


@pytest.mark.usefixtures("_no_sweeps")
async def test_woken_by_a_thread(queue, take, asleep, sync):
    """A task that waits is given what a thread enqueues."""
    found = []
    async with anyio.create_task_group() as group:
        group.start_soon(take, found)
        await asleep()
        Queue("jobs", sync).enqueue("a")
    assert [entry.data for entry in found] == ["a"]


@pytest.mark.needs("shared")
@pytest.mark.usefixtures("_no_sweeps")
async def test_woken_by_another_process(take, asleep, start):
    """A task that waits is given what another process enqueues."""
    found, producer = [], start(PRODUCER, "1")
    async with anyio.create_task_group() as group:
        group.start_soon(take, found)
        await asleep()
        producer.stdin.write("\n")
        producer.stdin.flush()
    assert [entry.data for entry in found] == [0]


@pytest.mark.needs("shared")
@pytest.mark.usefixtures("_no_sweeps")
async def test_woken_by_a_death(storage, asleep, start):
    """Tasks that wait are woken by the death of a process, and one of them is given what it held."""
    queue = aio.Queue("jobs", storage, retry_policy=FixedDelay(delay=timedelta(0)))
    await queue.enqueue("a", id="x")
    holder = start(HOLDER)
    assert holder.stdout.readline() == "x\n"
    found = []

    async def take():
        found.append(await queue.dequeue(wait=PATIENCE))
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(take)
        await asleep()
        holder.kill()
    (entry,) = found
    assert (entry.id, entry.attempts, entry.errors[0].cause) == ("x", 2, Cause.WORKER_DIED)


@pytest.mark.usefixtures("_no_sweeps")
async def test_woken_by_the_clock(queue):
    """A task that waits is given what becomes due by time alone."""
    await queue.enqueue("a", delay=timedelta(milliseconds=20))
    assert (await queue.dequeue(wait=PATIENCE)).data == "a"


async def test_in_vain(queue, tmp_path):
    """A wait that was in vain ends with nothing in hand, and leaves nothing behind."""
    assert await queue.dequeue(wait=timedelta(milliseconds=20)) is None
    assert await queue.dequeue(wait=timedelta(milliseconds=20), limit=3) == []
    assert fifos(tmp_path) == []


@pytest.mark.usefixtures("_no_sweeps")
async def test_closing_ends_a_wait(storage, take, asleep):
    """Tasks that wait for an entry learn at once that their storage was closed."""
    found = []
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(take, found)
        await asleep()
        await storage.close()
    assert [type(error) for error in found] == [StorageClosed] * 3


@pytest.mark.usefixtures("_no_sweeps")
async def test_cancelled_while_it_waits(queue, take, asleep, tmp_path):
    """A task that is cancelled while it waits leaves no place in the line, and the next one is woken."""
    found = []
    async with anyio.create_task_group() as group:
        async with anyio.create_task_group() as first:
            first.start_soon(take, found)
            await asleep()
            group.start_soon(take, found)
            first.cancel_scope.cancel()
        await asleep()
        await queue.enqueue("a")
    assert [entry.data for entry in found] == ["a"]
    assert fifos(tmp_path) == []


@pytest.mark.needs("shared")
@pytest.mark.usefixtures("_no_sweeps")
async def test_a_wake_up_is_passed_on(queue, take, asleep, open_storage):
    """The wake-up of a task that is cancelled before it could look goes to the next in line."""
    found, other = [], aio.Queue("jobs", aio.Storage(open_storage()))

    async def take_there():
        found.append(await other.dequeue(wait=PATIENCE))

    async with anyio.create_task_group() as group, anyio.create_task_group() as first:
        first.start_soon(take, found)
        await asleep()
        group.start_soon(take_there)
        await asleep()
        # In this thread, so that the first is woken and cancelled before it has a chance to run.
        queue.sync.enqueue("a")
        first.cancel_scope.cancel()
    assert [entry.data for entry in found] == ["a"]


@pytest.mark.usefixtures("_no_sweeps")
async def test_a_thousand_wait(queue, take, asleep, count_threads):
    """A thousand tasks that wait take no more threads or descriptors than one, and each is served."""
    descriptors, found = count_descriptors(), []
    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(take, found)
        await asleep()
        assert count_descriptors() - descriptors < 20
        assert count_threads() <= 20
        await queue.enqueue_many(range(1000))
    assert sorted(entry.data for entry in found) == list(range(1000))
    assert await queue.counts() == Counts(leased=1000)


async def test_all_threads_busy(queue, asleep, take, monkeypatch):
    """Waiting takes none of the threads that make the calls: a single one is enough for everybody."""
    monkeypatch.setattr(calls, "THREADS", 1)
    found = []
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(take, found)
        await asleep()
        await queue.enqueue_many(range(5))
    assert len(found) == 5


async def test_a_loop_that_waits(queue, asleep):
    """An async for loop waits for entries for ever, until it is cancelled."""
    seen = []

    async def consume():
        async for entry in queue.consume():
            seen.append(entry.data)
            await queue.mark_completed(entry)

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        for number in range(3):
            await asleep()
            await queue.enqueue(number)
        await asleep()
        group.cancel_scope.cancel()
    assert seen == [0, 1, 2]
    assert await queue.counts() == Counts()


@pytest.mark.needs("shared")
async def test_it_looks_for_itself(queue, take, asleep, sync, monkeypatch):
    """A task whose wake-up went to a process that died finds the entry before long."""
    monkeypatch.setattr(sync, "_notify", lambda queue, count: None)
    found = []
    async with anyio.create_task_group() as group:
        group.start_soon(take, found)
        await asleep()
        await queue.enqueue("a")
    assert [entry.data for entry in found] == ["a"]
