"""A worker in trouble: handlers that fail one after the other, and a storage that refuses or ends."""

import errno
import threading
from datetime import timedelta
from queue import SimpleQueue

import pytest

from duraq import (
    Counts,
    FileStorage,
    FixedDelay,
    NoRetry,
    Queue,
    StorageClosed,
    StorageDamaged,
    StorageError,
    StorageFailed,
    Worker,
    WorkerStats,
    tally,
)
from duraq.operations import Complete

SOON = 60  # seconds; only so that a failing test ends
AT_ONCE, HOUR = timedelta(0), timedelta(hours=1)


class Recorded:
    """A back-off that keeps what it was asked."""

    def __init__(self, delay=AT_ONCE):
        self.delay = delay
        self.calls = []
        self.asked = threading.Event()

    def get_retry_delay(self, attempts):
        self.calls.append(attempts)
        self.asked.set()
        return self.delay


@pytest.fixture
def clock():
    """The machine's own."""
    return


@pytest.fixture
def queue(storage):
    """A queue whose entries are tried once."""
    return Queue("jobs", storage, retry_policy=NoRetry())


def wait_for(event):
    assert event.wait(SOON)


def nothing(entry):
    """A handler that succeeds."""


def events(caplog):
    return [record.event for record in caplog.records if hasattr(record, "event")]


# -- failures in a row -------------------------------------------------------------------------------------


def test_the_row_of_failures(queue):
    """From the second failure in a row on the back-off is asked for a pause; a success ends the row."""
    queue.enqueue_many(["bad", "bad", "bad", "good", "bad", "good", "bad", "bad"])
    backoff = Recorded()

    def handler(entry):
        if entry.data == "bad":
            raise ValueError

    assert Worker(queue, handler, backoff=backoff).run(drain=True) == WorkerStats(completed=2, dead=6)
    assert backoff.calls == [1, 2, 1]


def test_no_word_of_no_pause(queue, caplog):
    """Where failures in a row are followed by no pause, the log speaks of none."""
    queue.enqueue_many(["bad"] * 3)
    Worker(queue, lambda entry: 1 / 0, backoff=FixedDelay(delay=timedelta(0))).run(drain=True)
    assert "dead" in events(caplog)
    assert "pause" not in events(caplog)


def test_a_pause(queue, start):
    """After failures in a row nothing is taken before the delay is over, or another handler succeeds."""
    queue.enqueue_many(["long", "bad", "bad", "last"])
    backoff = Recorded(HOUR)
    last, took_early = threading.Event(), []

    def handler(entry):
        if entry.data == "long":
            wait_for(backoff.asked)
            took_early.append(last.wait(0.1))
        elif entry.data == "bad":
            raise ValueError
        else:
            last.set()

    running = start(Worker(queue, handler, threads=2, backoff=backoff), limit=4)
    assert running.result(SOON) == WorkerStats(completed=2, dead=2)
    assert took_early == [False]
    assert backoff.calls == [1]


# -- when the storage refuses ------------------------------------------------------------------------------


def refuse(monkeypatch, storage, verb, errors, kind=object):
    """Calls of this verb (commit: of this kind) raise these errors in turn; None lets one pass."""
    real, coming = getattr(storage, verb), iter(errors)

    def refusing(first, *rest, **options):
        if verb != "commit" or any(isinstance(each[0], kind) for each in first.values()):
            error = next(coming, None)
            if error is not None:
                raise error
        return real(first, *rest, **options)

    monkeypatch.setattr(storage, verb, refusing)


@pytest.mark.parametrize("error", [StorageError("no"), OSError(errno.EMFILE, "no")], ids=repr)
def test_trouble_with_taking(storage, queue, monkeypatch, caplog, error):
    """While nothing can be taken it is tried again, after pauses, and a row of errors is logged once."""
    queue.enqueue_many(["a", "b"])
    refuse(monkeypatch, storage, "claim", [error, error, error, None, error])
    backoff = Recorded()
    assert Worker(queue, nothing, backoff=backoff).run(limit=2) == WorkerStats(completed=2)
    assert backoff.calls == [1, 2, 3, 1]
    assert events(caplog) == ["dequeue_failed"] * 2


@pytest.mark.parametrize("error", [StorageClosed("closed"), StorageFailed("failed")], ids=repr)
def test_the_end_of_the_storage(storage, queue, monkeypatch, error):
    """A storage that is of no use any more ends the run, which raises its error."""
    queue.enqueue("a")
    refuse(monkeypatch, storage, "claim", [error])
    with pytest.raises(type(error)) as caught:
        Worker(queue, nothing, threads=3, backoff=Recorded()).run()
    assert caught.value is error


def test_the_end_of_the_storage_during_work(storage, queue, monkeypatch, start):
    """When the storage is of no use any more, handlers that run are told at once."""
    queue.enqueue("a")
    refuse(monkeypatch, storage, "claim", [None, StorageFailed("failed")])
    told = SimpleQueue()
    worker = Worker(queue, lambda entry: told.put(entry.lost.wait(SOON)), threads=2, grace=HOUR)
    assert isinstance(start(worker).exception(SOON), StorageFailed)
    assert told.get(timeout=SOON)


@pytest.mark.parametrize("waits", [True, False])
def test_a_storage_that_is_closed(storage, queue, start, waits):
    """A storage that is closed ends the run, whether the worker waits or a handler has just returned."""
    if waits:
        running = start(Worker(queue, nothing, threads=2))
        storage.close()
    else:
        queue.enqueue("a")
        running = start(Worker(queue, lambda entry: storage.close()))
    assert isinstance(running.exception(SOON), StorageClosed)


def test_trouble_with_completing(storage, queue, monkeypatch, caplog):
    """An outcome that cannot be written is tried again, after pauses, and this is logged once."""
    queue.enqueue("a")
    refuse(monkeypatch, storage, "commit", [StorageError("no")] * 3, Complete)
    backoff = Recorded()
    assert Worker(queue, nothing, backoff=backoff).run(drain=True) == WorkerStats(completed=1)
    assert backoff.calls == [1, 2, 3]
    assert events(caplog) == ["commit_failed"]
    assert queue.counts() == Counts()


@pytest.mark.parametrize("first", ["bad", "good"])
def test_a_damaged_queue(tmp_path, start, monkeypatch, first):
    """A queue that is damaged does not keep the worker from its others; it is looked at again later."""
    monkeypatch.setattr(tally, "_REST", 0.0)
    with FileStorage(tmp_path / "storage") as storage:
        queues = {name: Queue(name, storage) for name in ("bad", "good")}
        refusals = Recorded()

        def refuse(**_):
            refusals.get_retry_delay(1)
            raise StorageDamaged("a line is damaged", path="bad/segments/1.jsonl")

        monkeypatch.setattr(queues["bad"], "dequeue", refuse)
        done = SimpleQueue()
        order = [first, *({"bad", "good"} - {first})]
        worker = Worker([queues[name] for name in order], lambda entry: done.put(entry.data))
        running = start(worker)
        for number in range(5):
            queues["good"].enqueue(number)
            assert done.get(timeout=SOON) == number
        worker.stop()
        assert running.result(SOON).completed == 5
        assert len(refusals.calls) > 1
