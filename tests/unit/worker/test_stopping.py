"""A worker that is told to stop: what becomes of the handlers that run, and of their entries."""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from duraq import (
    Cause,
    Counts,
    EntryStatus,
    InvalidInput,
    NoRetry,
    Queue,
    Worker,
    WorkerStats,
    run_processes,
    shift,
)

SOON = 60  # seconds; only so that a failing test ends
AT_ONCE, HOUR = timedelta(0), timedelta(hours=1)


class StopNowError(BaseException):
    """As a framework might define one to end its threads with."""


class Slow:
    """A handler that waits until it may go on, then returns or raises."""

    def __init__(self, error=None):
        self.error = error
        self.began, self.may_go_on = threading.Event(), threading.Event()
        self.entry = self.thread = None

    def __call__(self, entry):
        self.entry, self.thread = entry, threading.current_thread()
        self.began.set()
        assert self.may_go_on.wait(SOON)
        if self.error is not None:
            raise self.error

    def go_on(self):
        """Let it go on, and see its thread end."""
        self.may_go_on.set()
        self.thread.join(SOON)
        assert not self.thread.is_alive()


@pytest.fixture
def clock():
    """The machine's own."""
    return


@pytest.fixture
def queue(storage):
    """A queue whose entries are tried once."""
    return Queue("jobs", storage, retry_policy=NoRetry())


@pytest.fixture(autouse=True)
def stopping(monkeypatch):
    """Set when a worker has been told to take no more entries."""
    stopping, stop = threading.Event(), shift.Shift.stop

    def stop_and_say(self):
        stop(self)
        stopping.set()

    monkeypatch.setattr(shift.Shift, "stop", stop_and_say)
    return stopping


def wait_for(event):
    assert event.wait(SOON)


# -- told from outside -------------------------------------------------------------------------------------


@pytest.mark.parametrize("now", [False, True])
def test_stopped_before_it_runs(queue, now):
    """A worker that was told to stop before it runs takes nothing; the run after that is not concerned."""
    queue.enqueue("a")
    worker = Worker(queue, lambda entry: None, threads=3)
    worker.stop(now=now)
    worker.stop(now=now)
    assert worker.run() == WorkerStats()
    assert queue.counts() == Counts(ready=1)
    assert worker.run(drain=True) == WorkerStats(completed=1)


def test_stopped_by_a_handler(queue):
    """A handler can stop its worker, although there is more to do, and its own entry is completed."""
    queue.enqueue("a")
    seen = []

    def handler(entry):
        seen.append(entry.id)
        queue.enqueue("more")
        worker.stop()

    worker = Worker(queue, handler)
    assert worker.run().completed == len(seen)
    assert queue.counts() == Counts(ready=1)


def test_graceful(queue, start, stopping):
    """A worker that stops lets the handlers that run finish, completes their entries, and takes no more."""
    queue.enqueue_many(["a", "b"])
    slow = Slow()
    worker = Worker(queue, slow, grace=HOUR)
    running = start(worker)
    wait_for(slow.began)
    worker.stop()
    wait_for(stopping)
    slow.may_go_on.set()
    assert running.result(SOON) == WorkerStats(completed=1)
    assert not slow.entry.lease_lost
    assert queue.counts() == Counts(ready=1)


@pytest.mark.parametrize("how", ["grace over", "now", "at last now"])
def test_without_grace(queue, start, stopping, how):
    """Once the grace is over or denied, what is being worked is given back, uncounted, its handler told."""
    entry_id = queue.enqueue("a")
    slow = Slow()
    worker = Worker(queue, slow, grace=timedelta(milliseconds=1) if how == "grace over" else HOUR)
    running = start(worker)
    wait_for(slow.began)
    worker.stop(now=how == "now")
    if how == "at last now":
        wait_for(stopping)
        worker.stop(now=True)
    assert running.result(SOON) == WorkerStats(released=1)
    assert slow.entry.lease_lost
    entry = queue.get(entry_id)
    assert (entry.status, entry.attempts) == (EntryStatus.READY, 0)
    assert [attempt.cause for attempt in entry.errors] == [Cause.RELEASED]
    slow.go_on()


@pytest.mark.parametrize(
    ("error", "told"),
    [(None, ["ended_late"]), (ValueError("late"), ["ended_late"]), (StopNowError(), [])],
    ids=["returns", "fails", "ends the program"],
)
def test_a_handler_that_ends_later(queue, start, caplog, error, told):
    """However a handler ends after its entry was given back, the next holder's lease is not touched."""
    queue.enqueue("a")
    slow = Slow(error)
    worker = Worker(queue, slow)
    running = start(worker)
    wait_for(slow.began)
    worker.stop(now=True)
    running.result(SOON)
    entry = queue.dequeue()
    assert entry.attempts == 1
    slow.go_on()
    assert queue.get(entry.id).token == entry.token
    queue.mark_completed(entry)
    assert [record.event for record in caplog.records if record.levelname != "INFO"] == told


def test_signals_in_another_thread(queue, start):
    """A worker that does not run in the main thread leaves the signals alone."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    seen = []

    def handler(entry):
        seen.append((signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)))

    queue.enqueue("a")
    start(Worker(queue, handler), drain=True).result(SOON)
    Worker(queue, handler).run(drain=True)
    queue.enqueue("b")
    Worker(queue, handler).run(drain=True)
    assert seen[0] == before
    assert seen[1] != before
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_processes_in_another_thread():
    """Processes can only be run from the main thread, for they are stopped by signals."""

    def run():
        run_processes(lambda: pytest.fail("opened"), print, processes=1)

    with ThreadPoolExecutor(1) as threads:
        assert isinstance(threads.submit(run).exception(SOON), InvalidInput)


# -- told by a handler's end -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit(), StopNowError()], ids=repr)
def test_an_end_of_the_program(queue, error):
    """What ends a program is no failure: the entry is given back, uncounted, and run raises the same."""
    entry_id = queue.enqueue("a")

    def handler(entry):
        raise error

    with pytest.raises(type(error)) as caught:
        Worker(queue, handler, threads=3).run()
    assert caught.value is error
    entry = queue.get(entry_id)
    assert (entry.status, entry.attempts) == (EntryStatus.READY, 0)
    assert [attempt.cause for attempt in entry.errors] == [Cause.RELEASED]


@pytest.mark.parametrize("transactional", [False, True])
def test_a_handler_that_exits(queue, transactional):
    """SystemExit stops the worker, and is a failed attempt: else its entry would come back for ever."""
    queue.enqueue_many(["a", "b"])

    def handler(entry):
        sys.exit("usage: ...")

    with pytest.raises(SystemExit):
        Worker(queue, handler, transactional=transactional).run()
    assert queue.counts() == Counts(ready=1, dead=1)
    (dead,) = queue.entries(EntryStatus.DEAD)
    assert (dead.errors[-1].error.type, dead.error_message) == ("SystemExit", "usage: ...")


def test_an_end_of_the_program_is_graceful(queue, start, stopping):
    """When a handler ends the program, the others that run may finish."""
    queue.enqueue_many(["exit", "slow"])
    slow = Slow()

    def handler(entry):
        if entry.data == "slow":
            slow(entry)
        else:
            wait_for(slow.began)
            raise StopNowError

    running = start(Worker(queue, handler, threads=2, grace=HOUR))
    wait_for(stopping)
    slow.may_go_on.set()
    assert isinstance(running.exception(SOON), StopNowError)
    assert [entry.data for entry in queue.entries()] == ["exit"]
    assert queue.counts() == Counts(ready=1)
