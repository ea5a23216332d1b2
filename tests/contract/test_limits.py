"""A queue with a largest size: it says so when it is full, and never drops what it holds."""

import threading
from datetime import timedelta

import pytest

from duraq import Counts, DuplicateEntry, Queue, QueueError, QueueFull

SECOND = timedelta(seconds=1)


@pytest.fixture
def queue(storage):
    """A queue that holds three entries."""
    return Queue("jobs", storage, max_size=3)


def test_full(queue):
    """One more than it holds is refused, and what it holds stays."""
    for number in range(3):
        queue.enqueue(number)
    with pytest.raises(QueueFull) as caught:
        queue.enqueue("more")
    assert isinstance(caught.value, QueueError)
    assert [entry.data for entry in queue.dequeue(limit=9)] == [0, 1, 2]


def test_a_batch_fits_or_does_not(queue):
    """Of a batch that does not fit nothing is enqueued; one that just fits is."""
    queue.enqueue("a")
    with pytest.raises(QueueFull):
        queue.enqueue_many(["b", "c", "d"])
    assert queue.counts() == Counts(ready=1)
    queue.enqueue_many(["b", "c"])
    assert queue.counts() == Counts(ready=3)


def test_whatever_is_to_be_worked_counts(queue):
    """Scheduled, ready and leased entries take a place each."""
    queue.enqueue("leased")
    queue.dequeue()
    queue.enqueue("scheduled", delay=SECOND)
    queue.enqueue("ready")
    with pytest.raises(QueueFull):
        queue.enqueue("more", delay=SECOND)


def test_what_is_over_makes_room(queue, dead_letters, clock):
    """Completed, dead and expired entries take no place."""
    queue.enqueue_many(["completed", "dead"])
    first, second = queue.dequeue(limit=2)
    queue.enqueue("expired", ttl=SECOND)
    with pytest.raises(QueueFull):
        queue.enqueue("more")
    queue.mark_completed(first)
    queue.enqueue("1")
    queue.mark_failed(second, dead=True)
    queue.enqueue("2")
    clock.advance(SECOND)
    queue.enqueue("3")
    with pytest.raises(QueueFull):
        queue.enqueue("more")
    assert queue.counts() == Counts(ready=3, dead=1)


def test_what_comes_back_is_never_refused(queue, dead_letters):
    """Entries that fail, are given back or are put back have their place however full the queue is."""
    queue.enqueue_many(["a", "b", "c"])
    first, second, third = queue.dequeue(limit=3)
    queue.mark_failed(third, dead=True)
    queue.enqueue("d")
    queue.release(first)
    queue.mark_failed(second, retry_in=timedelta(0))
    dead_letters.retry(third.id)
    assert queue.counts() == Counts(ready=4)
    with pytest.raises(QueueFull):
        queue.enqueue("e")


def test_a_duplicate_is_a_duplicate(queue):
    """In a full queue an id that is there already is still told to be one."""
    queue.enqueue_many(range(3), ids=["a", "b", "c"])
    with pytest.raises(DuplicateEntry):
        queue.enqueue("again", id="a")


def test_the_limit_is_the_callers(queue, storage):
    """Who opens the queue without a limit has none."""
    Queue("jobs", storage).enqueue_many(range(5))
    assert queue.length == 5
    with pytest.raises(QueueFull):
        queue.enqueue("more")


def test_many_threads_never_overfill(storage):
    """However many enqueue at once, a queue never holds more than it may."""
    queue = Queue("jobs", storage, max_size=10)
    together = threading.Barrier(4)
    refused = []

    def produce():
        together.wait()
        for number in range(10):
            try:
                queue.enqueue(number)
            except QueueFull:
                refused.append(number)

    threads = [threading.Thread(target=produce) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert queue.length == 10
    assert len(refused) == 30


@pytest.mark.needs("shared")
def test_all_storages_count_together(queue, open_storage):
    """Entries from elsewhere take a place as one's own do."""
    elsewhere = Queue("jobs", open_storage(), max_size=3)
    elsewhere.enqueue_many(["a", "b"])
    queue.enqueue("c")
    for full in (queue, elsewhere):
        with pytest.raises(QueueFull):
            full.enqueue("d")
