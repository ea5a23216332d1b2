"""A payload that is no longer of the queue's type must neither wedge the queue nor get lost."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from duraq import Cause, Counts, DeadLetterQueue, FixedDelay, NoRetry, PayloadUndecodable, Queue


@dataclass
class Job:
    """What the queue holds nowadays."""

    number: int


@pytest.fixture
def old(storage):
    """The queue as a program without types filled it."""
    return Queue("jobs", storage)


@pytest.fixture
def queue(storage):
    """The same queue, read with today's type."""
    return Queue("jobs", storage, Job)


@pytest.fixture
def dead_letters(storage):
    """Its dead letters, read with today's type."""
    return DeadLetterQueue("jobs", Job, storage)


def test_it_never_wedges_the_head(old, queue, dead_letters):
    """One dequeue passes over any number that do not decode and delivers the first that does."""
    old.enqueue_many(["junk", {"n": 1}, None])
    queue.enqueue(Job(7))
    assert queue.dequeue().data == Job(7)
    assert queue.counts() == Counts(leased=1, dead=3)


def test_it_does_not_take_others_with_it(old, queue):
    """Of several leased together those that decode are delivered."""
    queue.enqueue(Job(1))
    old.enqueue("junk")
    queue.enqueue(Job(2))
    assert [entry.data for entry in queue.dequeue(limit=3)] == [Job(1), Job(2)]
    assert queue.counts() == Counts(leased=2, dead=1)


def test_nothing_else_is_there(old, queue):
    """A queue of nothing but undecodable entries is empty afterwards, and a wait goes on waiting."""
    old.enqueue_many(["junk"] * 3)
    assert queue.dequeue(wait=timedelta(milliseconds=1), limit=2) == []
    assert queue.dequeue() is None
    assert queue.counts() == Counts(dead=3)


@pytest.mark.parametrize("policy", [None, NoRetry(), FixedDelay(max_attempts=99)], ids=repr)
def test_no_policy_retries_it(old, storage, policy):
    """Trying again would not help, so no retry policy is asked."""
    old.enqueue("junk")
    assert Queue("jobs", storage, Job, retry_policy=policy).dequeue() is None
    assert old.counts() == Counts(dead=1)


def test_the_dead_letter_says_why(old, queue, dead_letters):
    """The dead letter keeps the payload as it was, and the reason why it does not decode."""
    entry_id = old.enqueue({"n": 1})
    queue.dequeue()
    (attempt,) = dead_letters.retrieve(entry_id).errors
    assert (attempt.number, attempt.cause) == (1, Cause.FAILED)
    assert attempt.error.type == PayloadUndecodable.__name__
    assert "number" in attempt.error.message
    assert DeadLetterQueue("jobs", None, queue.storage).list()[0].data == {"n": 1}


def test_it_hides_nothing_from_who_looks(old, queue, dead_letters):
    """Lists show an undecodable entry as its JSON value, with the reason, and all others beside it."""
    old.enqueue("junk")
    queue.enqueue(Job(1))
    found = queue.peek(9)
    assert [entry.data for entry in found] == ["junk", Job(1)]
    assert [entry.decode_error is None for entry in found] == [False, True]
    assert queue.get(found[0].id).data == "junk"
    assert queue.dequeue().data == Job(1)
    assert [(entry.data, entry.decode_error is None) for entry in dead_letters.list()] == [("junk", False)]


def test_it_can_be_put_back(old, queue, dead_letters):
    """Once its type is mended an undecodable dead letter can be worked like any other."""
    old.enqueue("junk")
    queue.dequeue()
    assert dead_letters.retry_all() == 1
    entry = old.dequeue()
    assert (entry.data, entry.attempts, len(entry.errors)) == ("junk", 1, 1)
    old.mark_completed(entry)
    assert queue.counts() == Counts()


def test_a_paused_queue_buries_nothing(old, queue):
    """While a queue is paused nothing is taken from it to be looked at."""
    old.enqueue("junk")
    old.pause()
    assert queue.dequeue() is None
    assert old.counts() == Counts(ready=1)
