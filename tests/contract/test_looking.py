"""Looking at a queue and steering it: counts, lists, pauses. None of it takes an entry from anybody."""

import getpass
from datetime import UTC, datetime, timedelta

import pytest

from duraq import (
    Counts,
    EntryNotFound,
    EntryStatus,
    InvalidOption,
    Pause,
    Queue,
    QueueError,
    QueueManager,
    QueueNotFound,
)

SECOND = timedelta(seconds=1)


@pytest.fixture
def mixed(queue):
    """A queue with one entry in each state, and one more that is ready."""
    queue.enqueue("leased", id="leased", priority=9)
    queue.dequeue()
    queue.enqueue("dead", id="dead")
    queue.mark_failed(queue.dequeue(), dead=True)
    queue.enqueue("scheduled", id="scheduled", delay=SECOND)
    queue.enqueue("ready", id="ready")
    queue.enqueue("urgent", id="urgent", priority=1)
    return queue


def ids(entries):
    """The ids in that order."""
    return [entry.id for entry in entries]


def test_counts(mixed):
    """Every entry is counted in the state it is in."""
    counts = mixed.counts()
    assert counts == Counts(scheduled=1, ready=2, leased=1, dead=1)
    assert counts.length == mixed.length == len(mixed) == 4


def test_counts_of_nothing(queue):
    """A queue that does not exist counts zero, and is still a queue."""
    assert queue.counts() == Counts(0, 0, 0, 0)
    assert (len(queue), queue.length, queue.entries(), queue.peek(), queue.paused) == (0, 0, [], [], None)
    assert queue
    assert "jobs" in repr(queue)


def test_counts_follow_the_time(mixed, clock):
    """What is due counts as ready, with nobody having taken it."""
    clock.advance(SECOND)
    assert mixed.counts() == Counts(ready=3, leased=1, dead=1)


def test_entries_by_status(mixed):
    """A list is of one state, or of all that are live or dead in enqueue order."""
    assert ids(mixed.entries(EntryStatus.LEASED)) == ["leased"]
    assert ids(mixed.entries(EntryStatus.DEAD)) == ["dead"]
    assert ids(mixed.entries(EntryStatus.SCHEDULED)) == ["scheduled"]
    assert ids(mixed.entries(EntryStatus.READY)) == ["urgent", "ready"]
    assert ids(mixed.entries("ready")) == ["urgent", "ready"]
    assert mixed.entries(EntryStatus.COMPLETED) == mixed.entries(EntryStatus.EXPIRED) == []
    assert ids(mixed.entries()) == ["leased", "dead", "scheduled", "ready", "urgent"]
    for entry in mixed.entries():
        assert entry.data == entry.id
        assert entry == mixed.get(entry.id)


def test_what_is_due_is_listed_as_ready(mixed, clock):
    """A list says what is so now, not what was written."""
    clock.advance(SECOND)
    assert mixed.entries(EntryStatus.SCHEDULED) == []
    assert ids(mixed.entries(EntryStatus.READY)) == ["urgent", "scheduled", "ready"]
    assert mixed.get("scheduled").status is EntryStatus.READY


def test_entries_in_pages(queue):
    """Pages follow each other without a gap, in the order of delivery."""
    queue.enqueue_many(range(10))
    queue.enqueue_many(range(10, 15), priority=1)
    order = [*range(10, 15), *range(10)]
    pages = [queue.entries(EntryStatus.READY, limit=4, offset=offset) for offset in range(0, 20, 4)]
    assert [entry.data for page in pages for entry in page] == order
    assert [entry.data for entry in queue.entries("ready", offset=12)] == order[12:]
    assert [entry.data for entry in queue.dequeue(limit=99)] == order


def test_looking_changes_nothing(mixed):
    """Whatever is looked at is afterwards as it was before."""
    before = (mixed.counts(), mixed.entries())
    for _ in range(3):
        mixed.peek(9)
        mixed.get("ready")
        assert mixed.paused is None
        assert (mixed.counts(), mixed.entries()) == before
    assert ids([mixed.dequeue(), mixed.dequeue()]) == ["urgent", "ready"]


def test_get(mixed):
    """An entry that lives or is dead can be looked at by its id."""
    assert mixed.get("leased").status is EntryStatus.LEASED
    assert mixed.get("dead").status is EntryStatus.DEAD
    with pytest.raises(EntryNotFound):
        mixed.get("unknown")


def test_get_without_a_queue(queue):
    """A queue that does not exist is told from an entry that does not."""
    with pytest.raises(QueueNotFound):
        queue.get("unknown")


def test_looking_makes_no_queue(storage, queue, dead_letters):
    """Neither a name nor looking for entries brings a queue into being; its first entry does."""
    queue.counts()
    queue.entries()
    queue.dequeue()
    dead_letters.list()
    assert storage.queues() == []
    queue.enqueue("a")
    assert storage.queues() == ["jobs"]


def test_queues(storage):
    """A storage names its queues in order, also those that have become empty."""
    manager = QueueManager(storage)
    assert manager.queues() == []
    for name in ("b", "a.1", "c-2"):
        manager.queue(name).enqueue(name)
    manager.queue("b").mark_completed(manager.queue("b").dequeue())
    assert manager.queues() == storage.queues() == ["a.1", "b", "c-2"]


def test_the_manager_hands_everything_on(storage, clock):
    """A queue from a manager is the queue with those options."""
    queue = QueueManager(storage).queue("jobs", str, lock_duration=SECOND, max_size=1)
    assert queue.max_size == 1
    queue.enqueue("a")
    entry = queue.dequeue()
    assert entry.lease_deadline - entry.updated_at == SECOND


def test_a_paused_queue_delivers_nothing(queue):
    """While a queue is paused nothing is delivered, however it is asked for, and everything else works."""
    queue.enqueue("held")
    entry = queue.dequeue()
    queue.pause()
    queue.enqueue_many(["a", "b"])
    assert queue.dequeue() is None
    assert queue.dequeue(limit=2) == []
    assert queue.dequeue(wait=timedelta(milliseconds=1)) is None
    assert queue.process_next(lambda entry: pytest.fail("delivered")) is None
    assert queue.counts() == Counts(ready=2, leased=1)
    assert [entry.data for entry in queue.peek(9)] == ["a", "b"]
    queue.extend(entry)
    queue.mark_completed(entry)
    queue.resume()
    assert [entry.data for entry in queue.dequeue(limit=9)] == ["a", "b"]


def test_who_paused_it_when_and_why(queue, clock):
    """A pause says who made it, when and why; resuming forgets it."""
    queue.pause("the mail server is down: é\n", who="alice")
    assert queue.paused == Pause(
        datetime.fromtimestamp(clock.now() / 1e6, UTC), "alice", "the mail server is down: é\n"
    )
    clock.advance(SECOND)
    queue.pause("still", who="bob")
    assert (queue.paused.who, queue.paused.reason) == ("bob", "still")
    queue.resume(who="carol")
    assert queue.paused is None


def test_a_pause_without_words(queue):
    """Who pauses a queue is by default the user of the process."""
    queue.pause()
    assert (queue.paused.who, queue.paused.reason) == (getpass.getuser(), "")


def test_a_user_without_a_name(queue, monkeypatch):
    """A process whose user has no name, as in many containers, can pause and resume too."""

    def getuser():
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", getuser)
    queue.pause("why not")
    assert queue.paused.who
    queue.resume()
    assert queue.paused is None


def test_a_pause_in_words_that_cannot_be_written(queue):
    """A pause says who and why in text that can be written, or is refused."""
    for words in ({"reason": "\ud800"}, {"who": "\udcff"}, {"reason": 7}, {"who": b"me"}):
        with pytest.raises(InvalidOption):
            queue.pause(**words)
    assert queue.paused is None


def test_a_pause_before_the_first_entry(queue, storage):
    """A queue may be paused before anything is in it."""
    queue.pause("not yet")
    assert storage.queues() == ["jobs"]
    queue.enqueue("a")
    assert queue.dequeue() is None
    queue.resume()
    assert queue.dequeue().data == "a"


def test_resuming_what_is_not_paused(queue):
    """Resuming a queue that is not paused does nothing; one that does not exist is not found."""
    with pytest.raises(QueueError):
        queue.resume()
    queue.enqueue("a")
    queue.resume()
    assert queue.dequeue().data == "a"


def test_a_pause_is_of_one_queue(storage):
    """Other queues go on."""
    first, second = Queue("first", storage), Queue("second", storage)
    first.enqueue("a")
    second.enqueue("b")
    first.pause()
    assert first.dequeue() is None
    assert second.dequeue().data == "b"


def test_a_deadline_passes_in_a_pause(queue, clock):
    """What is overdue in a paused queue comes back, and is not delivered before it is resumed."""
    queue.enqueue("a")
    queue.dequeue()
    queue.pause()
    clock.advance(timedelta(hours=1))
    assert queue.dequeue() is None
    queue.resume()
    assert queue.dequeue().attempts == 2


@pytest.mark.needs("shared")
def test_a_pause_is_everybodys(queue, open_storage):
    """A pause in one open storage holds in all, at once."""
    elsewhere = Queue("jobs", open_storage())
    queue.enqueue("a")
    elsewhere.pause("here", who="me")
    assert queue.dequeue() is None
    assert queue.paused == elsewhere.paused
    queue.resume()
    assert elsewhere.dequeue().data == "a"
