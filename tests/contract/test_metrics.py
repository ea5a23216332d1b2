"""A queue in numbers: what happened in it, how long it took, how much there is."""

from datetime import UTC, datetime, timedelta

import pytest

from duraq import Counts, DeadLetterQueue, FixedDelay, LeaseLost, Queue, QueueFull
from duraq.ledger import Counters

SECOND = timedelta(seconds=1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
POLICY = FixedDelay(max_attempts=2, delay=10 * SECOND)


@pytest.fixture
def queue(storage):
    """A queue that tries twice."""
    return Queue("jobs", storage, retry_policy=POLICY)


def work(queue, clock, seconds):
    """Dequeue one; it takes that long."""
    entry = queue.dequeue()
    clock.advance(seconds * SECOND)
    return entry


def live(queue, clock):
    """Everything that can happen to an entry, and when it is over, what must be counted."""
    queue.enqueue_many(range(6))
    queue.enqueue("expires", ttl=SECOND, priority=-1)
    clock.advance(2 * SECOND)
    queue.mark_completed(work(queue, clock, 3))
    queue.mark_failed(work(queue, clock, 1), "fails and is tried again")
    clock.advance(10 * SECOND)
    queue.mark_failed(work(queue, clock, 1), "fails and is dead")
    queue.release(work(queue, clock, 1))
    queue.mark_failed(work(queue, clock, 1), dead=True)
    work(queue, clock, 400)
    assert queue.settle_lapsed()
    queue.mark_completed_many(queue.dequeue(limit=2))
    dead = DeadLetterQueue("jobs", None, queue.storage)
    first, second = dead.list()
    dead.retry(first.id)
    dead.remove(second.id)
    return Counters(
        enqueued=7, completed=3, failed=3, dead=2, timed_out=1, released=1, expired=1, requeued=1, removed=1
    )


def test_a_life(queue, clock):
    """Everything that happened is counted once, with how long it waited and how long it ran."""
    expected = live(queue, clock)
    found = queue.metrics()
    assert found.counters == expected
    assert found.counts == queue.counts() == Counts(ready=2)
    assert found.wait.count == 8
    assert found.run.count == 6
    assert found.run.sum == 3 + 1 + 1 + 1
    assert found.last_completed == found.at == NOON + 419 * SECOND
    assert (found.queue, found.paused) == ("jobs", None)
    assert sum(period.counters.enqueued for period in found.history) == 7


def test_numbers_add_up(queue, clock):
    """What came in is what is there and what is over; what was leased is held or has ended."""
    live(queue, clock)
    queue.dequeue()
    found = queue.metrics()
    counters = found.counters
    over = counters.completed + counters.expired + counters.removed - counters.restored
    assert counters.enqueued == over + found.counts.length + found.counts.dead
    ended = counters.completed + counters.failed + counters.timed_out + counters.worker_died
    assert found.wait.count == ended + counters.released + found.counts.leased


def test_waiting_begins_when_it_is_ready(queue, clock):
    """An entry waits from its enqueue, from the time it was scheduled for, or from when it came back."""
    queue.enqueue("at once")
    clock.advance(SECOND)
    first = queue.dequeue()
    assert queue.metrics().wait.sum == 1
    queue.enqueue("scheduled", delay=10 * SECOND)
    clock.advance(12 * SECOND)
    queue.mark_completed(queue.dequeue())
    assert queue.metrics().wait.sum == 1 + 2
    queue.release(first)
    clock.advance(4 * SECOND)
    queue.mark_failed(queue.dequeue())
    assert queue.metrics().wait.sum == 1 + 2 + 4
    clock.advance(30 * SECOND)
    queue.dequeue()
    assert queue.metrics().wait.sum == 1 + 2 + 4 + 20


def test_a_transaction_counts_when_it_is_committed(storage, queue):
    """What a transaction did is counted at its end, and in it nobody sees it yet."""
    queue.enqueue("before")
    with storage.transaction():
        queue.enqueue_many(range(3))
        queue.mark_completed(queue.dequeue())
        assert queue.metrics().counters == Counters(enqueued=1)
    assert queue.metrics().counters == Counters(enqueued=4, completed=1)


def test_what_is_undone_was_never_counted(storage, queue):
    """Of a transaction that is undone only the leases that it gave back are counted."""
    queue.enqueue("before")
    storage.begin_transaction()
    queue.enqueue_many(range(3))
    queue.mark_completed(queue.dequeue())
    queue.mark_failed(queue.dequeue())
    len(queue), queue.entries()
    storage.rollback_transaction()
    assert queue.metrics().counters == Counters(enqueued=1, released=1)


def test_what_is_refused_is_not_counted(storage, queue, clock):
    """A call that raised has changed no number."""
    small = Queue("jobs", storage, max_size=1)
    small.enqueue(1)
    with pytest.raises(QueueFull):
        small.enqueue(2)
    entry = queue.dequeue()
    queue.mark_completed(entry)
    with pytest.raises(LeaseLost):
        queue.mark_completed(entry)
    assert queue.metrics().counters == Counters(enqueued=1, completed=1)


def test_rates(queue, clock):
    """Rates in and out, over a minute and longer, follow the clock."""
    for _ in range(10):
        queue.enqueue_many(range(6))
        queue.mark_completed(queue.dequeue())
        clock.advance(60 * SECOND)
    found = queue.metrics()
    assert found.rate("enqueued", 60 * SECOND) == pytest.approx(6 / 60)
    assert found.rate("completed", 300 * SECOND) == pytest.approx(1 / 60)
    assert found.rate("enqueued", 900 * SECOND) == pytest.approx(60 / 900)
    clock.advance(timedelta(hours=2))
    assert queue.metrics().rate("enqueued", timedelta(hours=1)) == 0


def test_the_oldest_ready_entry(queue, clock):
    """Of all that are ready it is the one that has been so longest, whatever is delivered first."""
    assert queue.metrics().oldest_ready_age is None
    queue.enqueue("later", delay=5 * SECOND)
    assert queue.metrics().oldest_ready_age is None
    clock.advance(SECOND)
    queue.enqueue("patient", priority=-1)
    clock.advance(SECOND)
    queue.enqueue("urgent", priority=1)
    clock.advance(8 * SECOND)
    found = queue.metrics()
    assert (found.oldest_ready, found.oldest_ready_age) == (NOON + SECOND, 9 * SECOND)
    queue.release(queue.dequeue())
    assert queue.metrics().oldest_ready_age == 9 * SECOND


def test_the_oldest_of_many(queue, clock):
    """It is found among thousands, whether their records are new or old."""
    queue.enqueue_many(range(1000), priority=3)
    first = queue.enqueue("first", priority=-5)
    clock.advance(SECOND)
    for _ in range(3):
        queue.enqueue_many(range(1000))
        clock.advance(SECOND)
    queue.mark_completed_many(queue.dequeue(limit=1000))
    assert queue.metrics().oldest_ready_age == 4 * SECOND
    queue.mark_completed_many(queue.dequeue(limit=3000))
    assert queue.metrics().oldest_ready_age == 4 * SECOND
    assert queue.dequeue().id == first
    assert queue.metrics().oldest_ready_age is None


def test_an_expired_entry_is_not_the_oldest(queue, clock):
    """One past its time to live is not delivered, so it does not wait."""
    queue.enqueue_many(range(300), ttl=SECOND)
    clock.advance(SECOND)
    queue.enqueue("lives")
    clock.advance(SECOND)
    assert queue.metrics().oldest_ready_age == SECOND


def test_who_works(queue):
    """A process that holds entries is one worker, whatever it holds, and none when it holds none."""
    queue.enqueue_many(range(3))
    assert queue.metrics().workers == 0
    entries = queue.dequeue(limit=3)
    assert queue.metrics().workers == 1
    queue.mark_completed_many(entries)
    assert (queue.metrics().workers, queue.metrics().waiting) == (0, 0)


def test_a_pause_shows(queue):
    """A queue that is paused says by whom."""
    queue.pause("because", who="ann")
    assert queue.metrics().paused.who == "ann"


def test_a_queue_that_does_not_exist(storage, queue):
    """It has had nothing, and asking does not make it."""
    found = queue.metrics()
    assert (found.counters, found.counts, found.history) == (Counters(), Counts(), ())
    assert (found.bytes_on_disk, found.live_bytes, found.oldest_ready) == (0, 0, None)
    assert storage.queues() == []


def test_live_bytes(queue):
    """What the entries need is told, and nothing is left when they are over."""
    queue.enqueue_many(["x" * 1000] * 20)
    assert 20_000 < queue.metrics().live_bytes < 30_000
    queue.mark_completed_many(queue.dequeue(limit=20))
    assert queue.metrics().live_bytes == 0


@pytest.mark.needs("survives")
@pytest.mark.needs("files")
def test_bytes_on_disk(queue, tmp_path):
    """All files in which the queue's records are count, with what lies beside them."""
    queue.enqueue_many(["x" * 1000] * 50)
    files = (tmp_path / "storage" / "jobs" / "segments").iterdir()
    assert queue.metrics().bytes_on_disk == sum(file.stat().st_size for file in files) > 50_000


def test_in_memory_nothing_is_on_the_disk(queue, tmp_path):
    """Where there are no files they have no bytes."""
    queue.enqueue("x")
    assert (queue.metrics().bytes_on_disk == 0) == (list(tmp_path.iterdir()) == [])


@pytest.mark.needs("survives")
def test_everybody_has_the_same_numbers(open_storage, clock):
    """Storages that have seen all and one that comes later tell the same, and of the same times."""
    queue = Queue("jobs", open_storage(), retry_policy=POLICY)
    other = Queue("jobs", open_storage(), retry_policy=POLICY)
    other.metrics()
    expected = live(queue, clock)
    late = Queue("jobs", open_storage(), retry_policy=POLICY)
    assert queue.metrics().counters == expected
    assert queue.metrics() == other.metrics() == late.metrics()
