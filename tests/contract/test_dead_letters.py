"""Dead letters: kept with all they carry until somebody decides, and put back or removed on demand."""

from dataclasses import replace
from datetime import timedelta

import pytest

import duraq.dead_letters as dead_letters_module
from duraq import (
    AttemptError,
    Cause,
    Counts,
    DeadLetterQueue,
    EntryNotFound,
    EntryStatus,
    NoRetry,
    Queue,
    QueueError,
    QueueManager,
)

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


def bury(queue, *payloads, **options):
    """Make dead letters of new entries; returns their ids."""
    ids = queue.enqueue_many(payloads, **options)
    for entry in queue.dequeue(limit=max(1, len(ids))):
        queue.mark_failed(entry, f"{entry.data} failed", dead=True)
    return ids


def test_none(queue, dead_letters):
    """A queue without dead letters, or one that does not exist, has an empty dead-letter queue."""
    for _ in range(2):
        assert len(dead_letters) == 0
        assert dead_letters.list() == []
        assert dead_letters.retrieve() is None
        assert dead_letters.retrieve("x") is None
        assert dead_letters.retry_many([]) == 0
        assert dead_letters.retry_all() == 0
        assert dead_letters.purge_older_than(timedelta(0)) == 0
        with pytest.raises(QueueError):
            dead_letters.retry("x")
        with pytest.raises(QueueError):
            dead_letters.remove("x")
        queue.enqueue("alive")


def test_it_is_true(dead_letters):
    """A dead-letter queue stands for itself, also when it is empty."""
    assert dead_letters
    assert "jobs" in repr(dead_letters)


def test_what_a_dead_letter_keeps(queue, dead_letters, clock):
    """A dead letter keeps its id, payload, priority, attempts and errors, and is in nobody's hands."""
    queue.enqueue({"n": 1}, id="x", priority=3)
    queue.mark_failed(queue.dequeue(), ValueError("first"), retry_in=timedelta(0))
    entry = queue.dequeue()
    clock.advance(SECOND)
    queue.mark_failed(entry, KeyError("second"), dead=True)
    (dead,) = dead_letters.list()
    assert (dead.id, dead.data, dead.queue, dead.priority) == ("x", {"n": 1}, "jobs", 3)
    assert (dead.status, dead.attempts, dead.worker, dead.lease_deadline) == (EntryStatus.DEAD, 2, None, None)
    assert [attempt.error.type for attempt in dead.errors] == ["ValueError", "KeyError"]
    assert [attempt.cause for attempt in dead.errors] == [Cause.FAILED] * 2
    assert dead.error_message == "'second'"
    assert (dead.created_at, dead.updated_at) == (entry.created_at, entry.created_at + SECOND)
    assert dead == dead_letters.retrieve("x") == dead_letters.retrieve()
    # How many attempts it had was for those to say who worked it.
    assert dead.max_attempts is None
    assert replace(dead, max_attempts=5) == queue.get("x")


def test_dead_is_not_length(queue, dead_letters):
    """Dead letters are counted apart from what is still to be worked."""
    bury(queue, "a", "b")
    queue.enqueue("c")
    assert len(dead_letters) == 2
    assert len(queue) == queue.length == 1
    assert queue.counts() == Counts(ready=1, dead=2)


def test_they_are_never_delivered(queue, clock):
    """However long a dead letter lies there it is not delivered again by itself."""
    bury(queue, "a")
    clock.advance(1000 * DAY)
    assert queue.dequeue() is None
    assert queue.counts() == Counts(dead=1)


def test_they_never_expire(queue, dead_letters, clock):
    """A dead letter outlives its TTL."""
    (entry_id,) = bury(queue, "a", ttl=SECOND)
    clock.advance(DAY)
    assert queue.dequeue() is None
    assert [entry.id for entry in dead_letters.list()] == [entry_id]
    assert dead_letters.retrieve(entry_id).data == "a"


def test_listed_in_enqueue_order(queue, dead_letters):
    """Dead letters are listed in the order in which they were enqueued, whenever they died."""
    queue.enqueue_many(range(5))
    for entry in reversed(queue.dequeue(limit=5)):
        queue.mark_failed(entry, dead=True)
    assert [entry.data for entry in dead_letters.list()] == list(range(5))
    assert dead_letters.retrieve().data == 0


def test_listed_in_pages(queue, dead_letters):
    """A limit and an offset cut the list."""
    bury(queue, *range(7))
    assert [entry.data for entry in dead_letters.list(limit=3)] == [0, 1, 2]
    assert [entry.data for entry in dead_letters.list(limit=3, offset=3)] == [3, 4, 5]
    assert [entry.data for entry in dead_letters.list(3, 6)] == [6]
    assert [entry.data for entry in dead_letters.list(offset=5)] == [5, 6]
    assert dead_letters.list(limit=3, offset=7) == []
    assert dead_letters.list(limit=10**30, offset=10**30) == []


def test_only_the_dead_are_retrieved(queue, dead_letters):
    """An entry that lives is no dead letter."""
    entry_id = queue.enqueue("a")
    assert dead_letters.retrieve(entry_id) is None
    queue.dequeue()
    assert dead_letters.retrieve(entry_id) is None


def test_retry(queue, dead_letters):
    """A dead letter that is put back is ready at once, begins to count anew and keeps its history."""
    (entry_id,) = bury(queue, "a")
    dead_letters.retry(entry_id)
    assert queue.counts() == Counts(ready=1)
    entry = queue.dequeue()
    assert (entry.id, entry.attempts) == (entry_id, 1)
    assert [attempt.error.message for attempt in entry.errors] == ["a failed"]
    queue.mark_completed(entry)
    assert queue.counts() == Counts()


def test_retry_keeping_the_attempts(storage, dead_letters):
    """With keep_attempts the count goes on, so that the next failure may be the last again."""
    queue = Queue("jobs", storage, retry_policy=NoRetry())
    (entry_id,) = bury(queue, "a")
    dead_letters.retry(entry_id, keep_attempts=True)
    entry = queue.dequeue()
    assert entry.attempts == 2
    queue.mark_failed(entry, "again")
    assert [attempt.number for attempt in dead_letters.list()[0].errors] == [1, 2]


def test_retried_entries_keep_their_place(queue, dead_letters):
    """A dead letter goes back to where it stood."""
    (entry_id,) = bury(queue, "a")
    queue.enqueue("b")
    dead_letters.retry(entry_id)
    assert [entry.data for entry in queue.dequeue(limit=2)] == ["a", "b"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_retried_entry_has_no_ttl(queue, dead_letters, clock, when):
    """Who puts a dead letter back wants it worked, whether its TTL has passed by then or passes later."""
    (entry_id,) = bury(queue, "a", ttl=SECOND)
    if when == "after":
        clock.advance(DAY)
    dead_letters.retry(entry_id)
    clock.advance(DAY)
    assert queue.counts() == Counts(ready=1)
    assert [entry.id for entry in queue.peek()] == [entry_id]
    entry = queue.dequeue()
    assert (entry.id, entry.expires_at) == (entry_id, None)


def test_a_token_outlives_death(queue, dead_letters):
    """Whoever held an entry before it died cannot complete it after it was put back."""
    queue.enqueue("a")
    late = queue.dequeue()
    queue.mark_failed(late, dead=True)
    dead_letters.retry(late.id)
    entry = queue.dequeue()
    assert entry.token > late.token
    with pytest.raises(QueueError):
        queue.mark_completed(late)
    queue.mark_completed(entry)


@pytest.mark.parametrize("act", ["retry", "remove"])
def test_only_dead_letters_can_be_decided_on(queue, dead_letters, act):
    """Ready, leased, scheduled and unknown entries are no dead letters, and stay as they are."""
    queue.enqueue("leased", id="leased")
    queue.dequeue()
    queue.enqueue("ready", id="ready")
    queue.enqueue("scheduled", id="scheduled", delay=SECOND)
    before = queue.entries()
    for entry_id in ("leased", "ready", "scheduled", "unknown", ""):
        with pytest.raises(EntryNotFound):
            getattr(dead_letters, act)(entry_id)
    assert queue.entries() == before


def test_decided_once(queue, dead_letters):
    """A dead letter that was put back or removed is none any more."""
    first, second = bury(queue, "a", "b")
    dead_letters.retry(first)
    dead_letters.remove(second)
    for entry_id in (first, second):
        with pytest.raises(EntryNotFound):
            dead_letters.retry(entry_id)
        with pytest.raises(EntryNotFound):
            dead_letters.remove(entry_id)
    assert queue.counts() == Counts(ready=1)


def test_retry_many(queue, dead_letters):
    """Several are put back together, the others stay."""
    ids = bury(queue, *range(5))
    assert dead_letters.retry_many(iter([ids[3], ids[1]])) == 2
    assert queue.counts() == Counts(ready=2, dead=3)
    assert [(entry.data, entry.attempts) for entry in queue.dequeue(limit=9)] == [(1, 1), (3, 1)]


def test_retry_many_keeping_the_attempts(queue, dead_letters):
    """keep_attempts holds for each of them."""
    dead_letters.retry_many(bury(queue, "a", "b"), keep_attempts=True)
    assert [entry.attempts for entry in queue.dequeue(limit=9)] == [2, 2]


def test_retry_many_is_whole_or_nothing(queue, dead_letters):
    """One that is no dead letter keeps its batch from being put back."""
    ids = bury(queue, "a", "b")
    alive = queue.enqueue("c")
    for wrong in ("unknown", alive):
        with pytest.raises(EntryNotFound):
            dead_letters.retry_many([ids[0], wrong, ids[1]])
    assert queue.counts() == Counts(ready=1, dead=2)


def test_retry_all(queue, dead_letters):
    """All are put back, in whatever number there are."""
    queue.enqueue("alive")
    bury(queue, *range(1200), priority=1)
    assert dead_letters.retry_all() == 1200
    assert queue.counts() == Counts(ready=1201)
    assert dead_letters.retry_all() == 0
    assert {entry.attempts for entry in queue.dequeue(limit=1200)} == {1}


def test_retry_all_keeping_the_attempts(queue, dead_letters):
    """keep_attempts holds for all."""
    bury(queue, "a", "b")
    assert dead_letters.retry_all(keep_attempts=True) == 2
    assert [entry.attempts for entry in queue.dequeue(limit=9)] == [2, 2]


def test_remove(queue, dead_letters):
    """A removed dead letter is gone for good."""
    first, second = bury(queue, "a", "b")
    dead_letters.remove(first)
    assert [entry.id for entry in dead_letters.list()] == [second]
    assert dead_letters.retrieve(first) is None
    with pytest.raises(EntryNotFound):
        queue.get(first)
    assert queue.counts() == Counts(dead=1)


def test_purge(queue, dead_letters, clock):
    """What died at least so long ago is removed, however long it had lived; the rest stays."""
    queue.enqueue("lived long", id="x")
    old = bury(queue, "a", "b", priority=1)
    clock.advance(DAY)
    queue.mark_failed(queue.dequeue(), dead=True)
    clock.advance(DAY)
    assert dead_letters.purge_older_than(2 * DAY + timedelta(microseconds=1)) == 0
    assert dead_letters.purge_older_than(2 * DAY) == len(old)
    assert [entry.id for entry in dead_letters.list()] == ["x"]
    assert dead_letters.purge_older_than(timedelta(0)) == 1
    assert queue.counts() == Counts()


def test_purge_of_an_absurd_age(queue, dead_letters):
    """Nothing is older than time itself."""
    bury(queue, "a")
    assert dead_letters.purge_older_than(timedelta.max) == 0


def test_purge_leaves_the_living(queue, dead_letters, clock):
    """Only dead letters are purged, however old the others are."""
    queue.enqueue("alive")
    queue.enqueue("leased", priority=1)
    queue.dequeue()
    clock.advance(1000 * DAY)
    assert dead_letters.purge_older_than(timedelta(0)) == 0
    assert queue.length == 2


def test_a_second_death(queue, dead_letters, clock):
    """What was put back and died again is as old as its last death, with both in its history."""
    (entry_id,) = bury(queue, "a")
    clock.advance(DAY)
    dead_letters.retry(entry_id)
    queue.mark_failed(queue.dequeue(), AttemptError("Second", "death"), dead=True)
    assert dead_letters.purge_older_than(DAY) == 0
    assert [attempt.error.message for attempt in dead_letters.retrieve().errors] == ["a failed", "death"]


def test_of_one_queue(storage):
    """Each queue has dead letters of its own."""
    manager = QueueManager(storage)
    first, second = manager.queue("first"), manager.queue("second")
    bury(first, "a")
    bury(second, "b", "c")
    assert [entry.data for entry in manager.dead_letters("first").list()] == ["a"]
    assert len(DeadLetterQueue("second", str, storage)) == 2


@pytest.mark.needs("shared")
def test_decided_elsewhere(queue, dead_letters, open_storage):
    """What one open storage decides about a dead letter, all others see."""
    first, second, third = bury(queue, "a", "b", "c")
    elsewhere = DeadLetterQueue("jobs", None, open_storage())
    elsewhere.retry(first)
    elsewhere.remove(second)
    assert [entry.id for entry in dead_letters.list()] == [third]
    with pytest.raises(EntryNotFound):
        dead_letters.remove(second)
    assert queue.dequeue().id == first


def test_many_are_gone_through_in_pages(storage, queue, monkeypatch):
    """A filter finds what it means among many, also in a transaction, and never asks for all at once."""
    letters = DeadLetterQueue("jobs", None, storage)
    monkeypatch.setattr(dead_letters_module, "_PAGE", 3)
    monkeypatch.setattr(storage, "entries", None)
    queue.enqueue_many(range(10))
    for entry in queue.dequeue(limit=10):
        queue.mark_failed(entry, "odd" if entry.data % 2 else "even", dead=True)
    assert [entry.data for entry in letters.list(where="err:odd")] == [1, 3, 5, 7, 9]
    assert [entry.data for entry in letters.list(2, 1, where="err:odd")] == [3, 5]
    with storage.transaction():
        letters.retry(letters.list(where="err:odd")[0].id)
        assert [entry.data for entry in letters.list(where="err:odd")] == [3, 5, 7, 9]
    assert letters.retry_all(where="err:even") == 5
    assert letters.purge_older_than(timedelta(0), where="err:odd") == 4
    assert queue.counts() == Counts(ready=6)
