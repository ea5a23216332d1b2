"""The specification's code, in Python's manner: several consumers."""

import threading
from datetime import timedelta

import pytest

from duraq import Counts, EntryStatus, FileStorage, QueueManager, Worker
from duraq.clock import to_datetime


def test_concurrent_processing(storage):
    """Two consumers never get the same entry while one of them holds it."""
    QueueManager(storage).queue("jobs", str).enqueue_many(["a", "b"])
    entry1 = QueueManager(storage).queue("jobs", str).dequeue()
    entry2 = QueueManager(storage).queue("jobs", str).dequeue()
    assert {entry1.data, entry2.data} == {"a", "b"}
    assert QueueManager(storage).queue("jobs", str).dequeue() is None


def test_multiple_workers(storage, queue):
    """Several workers work one queue until it is empty, each entry once."""
    queue.enqueue_many(range(30))
    done, lock = [], threading.Lock()

    def process_job(entry):
        with lock:
            done.append(entry.data)

    workers = [
        threading.Thread(target=Worker(queue, process_job, threads=1).run, kwargs={"drain": True})
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(done) == list(range(30))
    assert queue.counts() == Counts()


def test_distributed_processing(tmp_path):
    """Workers with storages of their own on one directory get entries of their own."""
    with FileStorage(tmp_path) as worker1, FileStorage(tmp_path) as worker2:
        QueueManager(worker1).queue("jobs").enqueue_many(["a", "b"])
        (entry1,) = worker1.claim("jobs")
        (entry2,) = worker2.claim("jobs")
        assert (entry1.payload, entry2.payload) == (b'"a"', b'"b"')


def test_safe_concurrent_updates(queue):
    """Processors that share a queue process each entry exactly once while none of them dies."""
    queue.enqueue_many(range(40))
    processed, lock = [], threading.Lock()

    def process_orders():
        while (entry := queue.dequeue()) is not None:
            with lock:
                processed.append(entry.data)
            queue.mark_completed(entry)

    processors = [threading.Thread(target=process_orders) for _ in range(3)]
    for processor in processors:
        processor.start()
    for processor in processors:
        processor.join()
    assert sorted(processed) == list(range(40))


@pytest.mark.needs("survives")
def test_lock_timeouts(open_storage, clock):
    """How long an entry stays locked is the storage's to say; after that somebody else gets it."""
    storage = open_storage(lock_duration=timedelta(minutes=30))
    queue = QueueManager(storage).queue("jobs")
    queue.enqueue("a")
    first = queue.dequeue()
    clock.advance(timedelta(minutes=30) - timedelta(microseconds=1))
    assert queue.dequeue() is None
    clock.advance(timedelta(microseconds=1))
    assert queue.dequeue().id == first.id


def test_error_handling(queue):
    """A handler that fails says so, and the entry is unlocked with the error kept."""
    queue.enqueue("a")
    entry = queue.dequeue()
    try:
        raise ValueError("no such address")
    except ValueError as error:
        queue.mark_failed(entry.id, error=str(error))
    assert queue.get(entry.id).error_message == "no such address"
    assert queue.counts().leased == 0


def test_health_monitoring(queue, clock):
    """Entries that have been processed for too long are found by their state and the time of their lease."""
    clock.advance(timedelta(0))
    queue.enqueue_many(["stuck", "fresh"])
    queue.extend(queue.dequeue(), timedelta(hours=9))
    clock.advance(timedelta(hours=2))
    queue.dequeue()
    alerts = [
        f"Entry {entry.data} stuck in processing"
        for entry in queue.entries(EntryStatus.LEASED)
        if to_datetime(clock.now()) - entry.updated_at > timedelta(hours=1)
    ]
    assert alerts == ["Entry stuck stuck in processing"]
