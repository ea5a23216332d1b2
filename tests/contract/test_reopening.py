"""Everything survives closing and opening again, and any number of open storages agree on it."""

from datetime import timedelta

import pytest

from duraq import (
    Cause,
    Counts,
    DeadLetterQueue,
    DuplicateEntry,
    EntryStatus,
    FixedDelay,
    Queue,
    QueueFull,
    QueueManager,
)

SECOND = timedelta(seconds=1)
pytestmark = pytest.mark.needs("survives")


@pytest.fixture
def reopen(open_storage):
    """Close the storage that was opened last, if any, and open it once more; returns the queue of it."""
    opened = []

    def reopen(**options):
        for storage in opened:
            storage.close()
        opened[:] = [open_storage(**options)]
        return Queue("jobs", opened[0], retry_policy=FixedDelay(max_attempts=3, delay=SECOND))

    return reopen


def everything(queue):
    """All there is to see of a queue."""
    return queue.counts(), queue.paused, queue.entries(), queue.peek(10_000)


def test_entries_in_every_state(reopen, clock):
    """States, payloads, priorities, schedules, attempts and histories are the same after opening again."""
    queue = reopen()
    queue.enqueue("a", id="failed")
    queue.mark_failed(queue.dequeue(), ValueError("first: é\n"))
    clock.advance(2 * SECOND)
    queue.mark_failed(queue.dequeue(), "second", retry_in=timedelta(hours=2))
    queue.enqueue({"n": [1, None]}, id="dead", priority=-3)
    queue.mark_failed(queue.dequeue(), KeyError("third"), dead=True)
    queue.enqueue("c", id="completed")
    queue.mark_completed(queue.dequeue())
    queue.enqueue("d", id="released")
    queue.release(queue.dequeue())
    queue.enqueue("e", id="scheduled", delay=timedelta(hours=1), ttl=timedelta(hours=3))
    queue.enqueue("f", id="urgent", priority=2**31 - 1)
    queue.enqueue("g", id="expired", ttl=SECOND)
    clock.advance(2 * SECOND)
    before = everything(queue)
    assert before[0] == Counts(scheduled=2, ready=2, dead=1)
    assert everything(reopen()) == before
    assert everything(reopen()) == before


def test_the_schedule_goes_on(reopen, clock):
    """What was scheduled is due at its time, and what has a TTL expires, whoever has it open by then."""
    queue = reopen()
    queue.enqueue("a", delay=SECOND)
    queue.enqueue("b", ttl=SECOND)
    clock.advance(SECOND)
    queue = reopen()
    assert queue.counts() == Counts(ready=1)
    assert queue.dequeue().data == "a"
    assert queue.dequeue() is None


def test_time_passes_while_nobody_has_it_open(reopen, clock):
    """A reboot changes nothing but the time since boot."""
    queue = reopen()
    queue.enqueue("a", delay=timedelta(hours=1))
    queue.enqueue("b")
    clock.advance(timedelta(minutes=1))
    queue = reopen()
    clock.reboot()
    clock.advance(timedelta(hours=1))
    queue = reopen()
    assert [entry.data for entry in queue.dequeue(limit=9)] == ["a", "b"]


def test_attempts_go_on(reopen, clock):
    """Attempts, tokens and histories go on where they were."""
    seen = []
    queue = reopen()
    queue.enqueue("a")
    for _ in range(3):
        entry = queue.dequeue()
        seen.append((entry.attempts, len(entry.errors)))
        queue.mark_failed(entry, "no")
        clock.advance(SECOND)
        token = entry.token
        queue = reopen()
    assert seen == [(1, 0), (2, 1), (3, 2)]
    dead = queue.entries(EntryStatus.DEAD)[0]
    assert [attempt.cause for attempt in dead.errors] == [Cause.FAILED] * 3
    DeadLetterQueue("jobs", None, queue.storage).retry(dead.id)
    assert queue.dequeue().token > token


def test_a_pause_stays(reopen, clock):
    """A pause is kept with its time and its words, and so is its end."""
    queue = reopen()
    queue.enqueue("a")
    queue.pause("why: é", who="me")
    pause = queue.paused
    clock.advance(SECOND)
    queue = reopen()
    assert queue.paused == pause
    assert queue.dequeue() is None
    queue.resume()
    queue = reopen()
    assert queue.paused is None
    assert queue.dequeue().data == "a"


def test_ids_stay_in_use(reopen):
    """An id that was in use is in use."""
    reopen().enqueue("a", id="x")
    with pytest.raises(DuplicateEntry):
        reopen().enqueue("b", id="x")


def test_the_size_stays(reopen, open_storage):
    """A queue that was full is full."""
    reopen().enqueue_many(range(3))
    with pytest.raises(QueueFull):
        Queue("jobs", open_storage(), max_size=3).enqueue("more")


def test_the_order_stays(reopen):
    """Entries are delivered in the order in which they were enqueued, whichever storage did it."""
    for number in range(20):
        reopen().enqueue(number, priority=number % 3)
    order = sorted(range(20), key=lambda number: (-(number % 3), number))
    assert [reopen().process_next(lambda entry: None).data for _ in range(20)] == order
    assert reopen().counts() == Counts()


def test_many_lives(reopen):
    """After very many entries, some of them old, everything is still as it should be."""
    queue = reopen()
    queue.enqueue("old", priority=-1)
    queue.enqueue("scheduled", delay=timedelta(days=1))
    queue.enqueue("dead")
    queue.mark_failed(queue.dequeue(), "no", dead=True)
    for _ in range(15):
        queue.enqueue_many(["x" * 100] * 50)
        for entry in queue.dequeue(limit=50):
            queue.mark_completed(entry)
    before = everything(queue)
    queue = reopen()
    assert everything(queue) == before
    assert queue.counts() == Counts(scheduled=1, ready=1, dead=1)
    assert queue.dequeue().data == "old"


@pytest.mark.needs("files")
def test_other_sizes(reopen, backend):
    """A storage may be opened with other sizes and another durability than it was made with."""
    queue = reopen()
    queue.enqueue_many(range(500))
    for durability in ("batched", "power", "process"):
        queue = reopen(durability=durability, sizes=None)
        queue.enqueue_many(range(10))
        queue.process_next(lambda entry: None)
    assert reopen().counts() == Counts(ready=527)


@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_a_first_group_of_any_size(reopen, backend, size):
    """A storage opens again whose first group was larger than its journal."""
    queue = reopen()
    times = 6 if size == 1_000_000 else 3
    queue.enqueue_many(["x" * size] * times)
    assert reopen().counts() == Counts(ready=times)
    reopen().enqueue("y" * size)
    assert len(reopen().entries()) == times + 1


def test_queues_stay(reopen, open_storage):
    """The queues of a storage are all there again, empty ones too."""
    manager = QueueManager(open_storage())
    for name in ("b", "a"):
        manager.queue(name).enqueue(name)
    manager.queue("a").process_next(lambda entry: None)
    manager.storage.close()
    manager = QueueManager(open_storage())
    assert manager.queues() == ["a", "b"]
    assert manager.queue("b").dequeue().data == "b"


@pytest.mark.needs("shared")
def test_all_see_the_same(open_storage, clock):
    """Every open storage sees what any of them has done, at once."""
    queues = [Queue("jobs", open_storage(), retry_policy=FixedDelay(delay=SECOND)) for _ in range(3)]
    first, second, third = queues

    def agree():
        seen = [everything(queue) for queue in queues]
        assert seen[0] == seen[1] == seen[2]
        return seen[0][0]

    first.enqueue_many(range(3))
    assert agree() == Counts(ready=3)
    mine = second.dequeue()
    theirs = third.dequeue()
    assert agree() == Counts(ready=1, leased=2)
    second.mark_failed(mine, "no")
    third.extend(theirs, timedelta(hours=1))
    assert agree() == Counts(scheduled=1, ready=1, leased=1)
    clock.advance(SECOND)
    assert agree() == Counts(ready=2, leased=1)
    third.mark_completed(theirs)
    first.pause("all")
    assert agree() == Counts(ready=2)
    second.resume()
    for entry in first.dequeue(limit=9):
        first.mark_failed(entry, dead=True)
    assert agree() == Counts(dead=2)
    DeadLetterQueue("jobs", None, second.storage).retry_all()
    assert agree() == Counts(ready=2)
