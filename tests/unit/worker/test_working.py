"""A worker at work: what becomes of the entries, how many are worked at a time, and when it ends."""

import functools
import threading
from datetime import timedelta

import pytest

from duraq import (
    Cause,
    Counts,
    EntryStatus,
    FixedDelay,
    InvalidInput,
    InvalidOption,
    Queue,
    Worker,
    WorkerStats,
    run_processes,
)

SOON = 60  # seconds; only so that a failing test ends
AT_ONCE, HOUR = timedelta(0), timedelta(hours=1)
NO_PAUSE = FixedDelay(delay=AT_ONCE)


@pytest.fixture
def clock():
    """The machine's own."""
    return


@pytest.fixture
def queue(storage):
    """A queue whose entries are tried three times, at once."""
    return Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=3, delay=AT_ONCE))


def nothing(entry):
    """A handler that succeeds."""


def failing(entry):
    """A handler that fails."""
    raise ValueError(entry.data)


def events(caplog):
    return [record.event for record in caplog.records if hasattr(record, "event")]


# -- outcomes ----------------------------------------------------------------------------------------------


def test_done(queue):
    """A handler is called with each entry in order, and each is completed, whatever the handler returns."""
    queue.enqueue_many(["a", "b", "c"])
    seen = []

    def handler(entry):
        seen.append((entry.data, entry.attempts, entry.lease_lost))
        return False

    assert Worker(queue, handler).run(drain=True) == WorkerStats(completed=3)
    assert seen == [("a", 1, False), ("b", 1, False), ("c", 1, False)]
    assert queue.counts() == Counts()


@pytest.mark.needs("shared")
def test_the_attempt_is_written_first(queue, open_storage):
    """While the handler runs, everybody can see that the entry is leased and its attempt counted."""
    queue.enqueue("a")
    other = Queue("jobs", open_storage())
    seen = []

    def handler(entry):
        found = other.get(entry.id)
        seen.append((found.status, found.attempts))

    Worker(queue, handler).run(drain=True)
    assert seen == [(EntryStatus.LEASED, 1)]


def test_failed(queue):
    """A handler's Exception is a failed attempt; after the last one the entry is dead, with its errors."""
    entry_id = queue.enqueue("a")
    assert Worker(queue, failing, backoff=NO_PAUSE).run(drain=True) == WorkerStats(failed=2, dead=1)
    entry = queue.get(entry_id)
    assert (entry.status, entry.attempts) == (EntryStatus.DEAD, 3)
    assert [attempt.cause for attempt in entry.errors] == [Cause.FAILED] * 3
    assert (entry.errors[0].error.type, entry.error_message) == ("ValueError", "a")
    assert "in failing" in entry.errors[0].error.traceback


def test_a_retry(queue):
    """An entry that failed is delivered again, and may succeed."""
    queue.enqueue("a")

    def handler(entry):
        if entry.attempts < 3:
            raise ValueError

    assert Worker(queue, handler, backoff=NO_PAUSE).run(drain=True) == WorkerStats(completed=1, failed=2)
    assert queue.counts() == Counts()


def test_no_payload_in_the_log(queue, caplog):
    """The log tells each outcome with its ids, and never a payload, nor an error that quotes it."""
    queue.enqueue_many(["secret-fine", "secret-bad"], ids=["fine", "bad"])

    def handler(entry):
        if entry.data == "secret-bad":
            raise ValueError(entry.data)

    with caplog.at_level("INFO", "duraq"):
        Worker(queue, handler, threads=1, backoff=NO_PAUSE).run(drain=True)
    told = [
        (record.event, record.entry_id, record.queue, record.attempt, record.levelname)
        for record in caplog.records
        if hasattr(record, "entry_id")
    ]
    assert told == [
        ("completed", "fine", "jobs", 1, "INFO"),
        ("failed", "bad", "jobs", 1, "WARNING"),
        ("failed", "bad", "jobs", 2, "WARNING"),
        ("dead", "bad", "jobs", 3, "ERROR"),
    ]
    assert events(caplog)[0] == "worker_started"
    assert events(caplog)[-1] == "worker_stopped"
    assert {record.name for record in caplog.records} == {"duraq"}
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


# -- threads and queues ------------------------------------------------------------------------------------


def test_threads(queue):
    """As many handlers run at once as there are threads, and none in the thread that called run."""
    queue.enqueue_many(range(4))
    barrier = threading.Barrier(4)
    threads = []

    def handler(entry):
        barrier.wait(SOON)
        threads.append(threading.current_thread())

    assert Worker(queue, handler, threads=4).run(drain=True) == WorkerStats(completed=4)
    assert len(set(threads)) == 4
    assert threading.current_thread() not in threads


def test_several_queues(storage):
    """Queues are worked in turn, so that a long one does not hold up a short one."""
    queues = [Queue(name, storage) for name in ("long", "short")]
    queues[0].enqueue_many(range(6))
    queues[1].enqueue_many(range(2))
    seen = []
    worker = Worker(iter(queues), lambda entry: seen.append(entry.queue))
    assert worker.run(drain=True) == WorkerStats(completed=8)
    assert sorted(seen[:4]) == ["long", "long", "short", "short"]
    assert seen[4:] == ["long"] * 4


def test_an_idle_worker(storage, start):
    """A worker that waits is given what comes, into whichever of its queues."""
    queues = [Queue(name, storage) for name in ("one", "two")]
    done = threading.Semaphore(0)
    seen = []

    def handler(entry):
        seen.append(entry.queue)
        done.release()

    running = start(Worker(queues, handler, threads=2), limit=4)
    for number in (1, 0, 0, 1):
        queues[number].enqueue("a")
        assert done.acquire(timeout=SOON)
    assert running.result(SOON) == WorkerStats(completed=4)
    assert seen == ["two", "one", "one", "two"]


def test_drain(queue):
    """Draining ends when nothing can be delivered now, not before the last handler, which may add more."""
    queue.enqueue("later", delay=HOUR)
    queue.enqueue(3)

    def handler(entry):
        if entry.data:
            queue.enqueue(entry.data - 1)

    assert Worker(queue, handler, threads=3).run(drain=True) == WorkerStats(completed=4)
    assert queue.counts() == Counts(scheduled=1)


def test_limit(queue):
    """With a limit that many entries are taken, and no more, by however many threads."""
    queue.enqueue_many(range(5))
    assert Worker(queue, nothing, threads=4).run(limit=3) == WorkerStats(completed=3)
    assert queue.counts() == Counts(ready=2)
    assert Worker(queue, nothing, threads=4).run(limit=3, drain=True) == WorkerStats(completed=2)


def test_run_again(queue):
    """A worker can run again when it has ended, and counts anew; not while it runs."""
    seen = []

    def handler(entry):
        with pytest.raises(InvalidInput, match="running already"):
            worker.run(drain=True)
        seen.append(entry.data)

    worker = Worker(queue, handler)
    for data in ("a", "b"):
        queue.enqueue(data)
        assert worker.run(drain=True) == WorkerStats(completed=1)
    assert seen == ["a", "b"]


class Asynchronous:
    async def __call__(self, entry):
        """Never begun."""


async def asynchronous(entry):
    """Never begun."""


def generating(entry):
    yield entry


@pytest.mark.parametrize(
    "handler",
    [asynchronous, Asynchronous(), functools.partial(asynchronous), generating],
    ids=["function", "object", "partial", "generator"],
)
def test_handlers_that_would_not_begin(storage, handler):
    """A handler is refused if a call of it would return before it has begun."""
    with pytest.raises(InvalidOption, match="returns before it has begun"):
        Worker(Queue("jobs", storage), handler)
    with pytest.raises(InvalidOption, match="returns before it has begun"):
        run_processes(lambda: pytest.fail("opened"), handler, processes=1)


@pytest.mark.parametrize(
    "options", [{"threads": 0}, {"threads": True}, {"grace": -HOUR}, {"grace": 5}, {"queues": []}], ids=repr
)
def test_options_out_of_range(queue, options):
    """Options out of range are refused."""
    with pytest.raises(InvalidOption):
        Worker(**{"queues": queue, "handler": nothing} | options)
    with pytest.raises(InvalidOption):
        Worker(queue, nothing).run(limit=0)


def test_what_is_no_handler(queue):
    """What cannot be called is refused before an entry is taken."""
    with pytest.raises(InvalidOption, match="handler"):
        Worker(queue, None)


@pytest.mark.parametrize("queues", ["jobs", [], ["jobs"], None, 1])
def test_what_is_no_queue(queues):
    """A worker of what is no queue is refused at once."""
    with pytest.raises(InvalidOption):
        Worker(queues, print)
