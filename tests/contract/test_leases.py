"""One holder at a time: tokens, deadlines, and what a holder may do while its lease lasts and no longer."""

import copy
from datetime import UTC, datetime, timedelta

import pytest

from duraq import (
    Cause,
    Counts,
    EntryStatus,
    FixedDelay,
    InvalidOption,
    LeaseLost,
    NoRetry,
    NotLeased,
    Queue,
    QueueError,
)

SECOND = timedelta(seconds=1)
LEASE = timedelta(minutes=5)  # the default
HELD = [
    lambda queue, entry: queue.mark_completed(entry),
    lambda queue, entry: queue.mark_failed(entry, "no"),
    lambda queue, entry: queue.mark_failed(entry, retry_in=SECOND),
    lambda queue, entry: queue.mark_failed(entry, dead=True),
    lambda queue, entry: queue.release(entry),
    lambda queue, entry: queue.release(entry, delay=SECOND),
    lambda queue, entry: queue.extend(entry),
]
NAMES = ["complete", "fail", "retry_in", "dead", "release", "release_later", "extend"]
ending = pytest.mark.parametrize("end", HELD[:-1], ids=NAMES[:-1])
acting = pytest.mark.parametrize("act", HELD, ids=NAMES)
naming = pytest.mark.parametrize("name", [lambda entry: entry, lambda entry: entry.id], ids=["entry", "id"])


@pytest.fixture
def queue(storage):
    """A queue whose entries come back at once, as often as they fail."""
    return Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=99, delay=timedelta(0)))


def held(queue, data="a"):
    """A new entry, leased."""
    queue.enqueue(data)
    return queue.dequeue()


def snapshot(queue):
    """All there is to see of a queue."""
    return queue.counts(), queue.entries()


@acting
@naming
def test_a_holder_may_act(queue, act, name):
    """Whoever holds a lease may end or extend it, by the entry or by its id."""
    entry = held(queue)
    act(queue, name(entry))
    if act is not HELD[-1]:
        assert queue.counts().leased == 0


@acting
def test_what_nobody_enqueued(queue, act):
    """An id of no entry is not leased, whether there is such a queue or not."""
    with pytest.raises(NotLeased):
        act(queue, "nothing")
    held(queue)
    before = snapshot(queue)
    with pytest.raises(NotLeased):
        act(queue, "nothing")
    assert snapshot(queue) == before


@acting
@naming
def test_what_nobody_dequeued(queue, act, name):
    """An entry that was only looked at is not leased, and stays where it is."""
    queue.enqueue("a")
    (entry,) = queue.peek()
    with pytest.raises(NotLeased):
        act(queue, name(entry))
    assert queue.counts() == Counts(ready=1)


@acting
@naming
@ending
def test_a_lease_ends_once(queue, end, act, name):
    """When its holder has ended a lease, nothing more can be done with it."""
    entry = held(queue)
    end(queue, entry)
    before = snapshot(queue)
    with pytest.raises(LeaseLost) as caught:
        act(queue, name(entry))
    assert isinstance(caught.value, QueueError)
    if name(entry) == entry.id:
        assert isinstance(caught.value, NotLeased)
    assert snapshot(queue) == before


@acting
def test_a_late_holder_changes_nothing(queue, clock, act):
    """After its deadline and another's lease, whatever a holder does raises LeaseLost and does nothing."""
    late = held(queue)
    clock.advance(LEASE)
    entry = queue.dequeue()
    assert (entry.id, entry.attempts) == (late.id, 2)
    assert entry.token > late.token
    before = snapshot(queue)
    with pytest.raises(LeaseLost):
        act(queue, late)
    assert snapshot(queue) == before
    queue.mark_completed(entry)


@acting
@pytest.mark.needs("shared")
def test_a_late_holder_elsewhere_changes_nothing(queue, open_storage, clock, act):
    """The same if the next holder is another open storage, by the entry or by its id."""
    late = held(queue)
    clock.advance(LEASE)
    other = Queue("jobs", open_storage(), retry_policy=queue.retry_policy)
    assert other.counts() == Counts(leased=1)
    entry = other.dequeue()
    before = snapshot(other)
    for name in (late, late.id):
        with pytest.raises(LeaseLost):
            act(queue, name)
    assert snapshot(other) == before
    other.mark_completed(entry)


@acting
@pytest.mark.needs("shared")
def test_an_id_stands_for_ones_own_lease(queue, open_storage, act):
    """By its id an entry can only be ended or extended through the storage that holds it."""
    entry = held(queue)
    other = Queue("jobs", open_storage())
    assert other.get(entry.id).worker == entry.worker
    with pytest.raises(NotLeased):
        act(other, entry.id)
    queue.mark_completed(entry.id)


def test_a_lease_lasts_until_its_deadline(queue, clock):
    """Nobody gets a held entry before its deadline, and at its deadline the next one does."""
    first = held(queue)
    clock.advance(LEASE - timedelta(microseconds=1))
    assert queue.dequeue() is None
    clock.advance(timedelta(microseconds=1))
    second = queue.dequeue()
    assert (second.id, second.attempts, second.token > first.token) == (first.id, 2, True)
    (attempt,) = second.errors
    assert (attempt.number, attempt.cause, attempt.worker) == (1, Cause.TIMED_OUT, first.worker)
    assert attempt.error.type == "LeaseTimedOut"
    assert (attempt.started_at, attempt.ended_at) == (first.updated_at, first.updated_at + LEASE)


def test_an_overdue_entry_comes_back_at_once(storage, clock):
    """The retry policy's delay is for failures: what a hung worker held is ready without it."""
    queue = Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=3, delay=timedelta(hours=1)))
    held(queue)
    clock.advance(LEASE)
    assert queue.dequeue().attempts == 2


def test_an_overdue_last_attempt_is_dead(storage, dead_letters, clock):
    """A deadline that passes in the last attempt ends in the dead-letter queue, with its cause."""
    queue = Queue("jobs", storage, retry_policy=NoRetry())
    entry_id = held(queue).id
    clock.advance(LEASE)
    assert queue.dequeue() is None
    assert queue.counts() == Counts(dead=1)
    (attempt,) = dead_letters.retrieve(entry_id).errors
    assert attempt.cause is Cause.TIMED_OUT


def test_many_are_overdue(queue, clock):
    """All leases that have passed their deadline end together, and the others go on."""
    queue.enqueue_many(range(6))
    first = queue.dequeue(limit=3)
    clock.advance(timedelta(minutes=2))
    queue.dequeue(limit=3)
    queue.extend(first[1], timedelta(minutes=10))
    clock.advance(timedelta(minutes=3))
    assert [entry.data for entry in queue.dequeue(limit=9)] == [0, 2]
    assert queue.counts() == Counts(leased=6)


def test_a_wait_ends_with_a_deadline(queue, clock):
    """A consumer that comes to wait after a deadline gets the entry without waiting."""
    held(queue)
    clock.advance(LEASE)
    assert queue.dequeue(wait=timedelta(minutes=1)).attempts == 2


def test_the_wall_clock_ends_no_lease(queue, clock):
    """However the wall clock jumps, a lease lasts as long as time really passes."""
    entry = held(queue)
    clock.jump(timedelta(days=1000))
    assert queue.dequeue() is None
    clock.jump(-timedelta(days=2000))
    assert queue.dequeue() is None
    clock.advance(LEASE)
    assert queue.dequeue().id == entry.id


def test_late_but_first(queue, clock):
    """Who is late may still complete as long as nobody has been given the entry: the work is done."""
    entry = held(queue)
    clock.advance(2 * LEASE)
    queue.mark_completed(entry)
    assert queue.counts() == Counts()


@naming
def test_extend(queue, clock, name):
    """An extended lease ends at the time that extend returns, and not at the one before."""
    entry = held(queue)
    clock.advance(timedelta(minutes=4))
    until = queue.extend(name(entry), timedelta(minutes=10))
    assert until == entry.updated_at + timedelta(minutes=14)
    assert queue.get(entry.id).lease_deadline == until
    clock.advance(timedelta(minutes=10) - timedelta(microseconds=1))
    assert queue.dequeue() is None
    clock.advance(timedelta(microseconds=1))
    assert queue.dequeue().id == entry.id


def test_extend_by_default(storage, clock):
    """Without a duration a lease is extended by the queue's, or else by the storage's."""
    short = Queue("short", storage, lock_duration=SECOND)
    entry = held(short)
    assert entry.lease_deadline - entry.updated_at == SECOND
    clock.advance(SECOND / 2)
    assert short.extend(entry) - entry.lease_deadline == SECOND / 2
    plain = Queue("plain", storage)
    entry = held(plain)
    clock.advance(SECOND)
    assert plain.extend(entry) - entry.lease_deadline == SECOND


def test_extend_to_less(queue, clock):
    """A lease may be extended to less than it had, and then ends earlier."""
    entry = held(queue)
    queue.extend(entry, SECOND)
    clock.advance(SECOND)
    assert queue.dequeue().attempts == 2


def test_extend_to_less_and_to_more_again(queue, clock):
    """Of several extensions the last one counts."""
    entry = held(queue)
    for length in (SECOND, LEASE, 2 * SECOND, LEASE):
        queue.extend(entry, length)
    clock.advance(3 * SECOND)
    assert queue.dequeue() is None
    clock.advance(LEASE)
    assert queue.dequeue() is not None


def test_extending_keeps_the_token(queue):
    """An extension is the same lease, the same attempt."""
    entry = held(queue)
    queue.extend(entry)
    now = queue.get(entry.id)
    assert (now.token, now.attempts, now.worker) == (entry.token, entry.attempts, entry.worker)
    queue.mark_completed(entry)


def test_the_storages_lease(open_storage, clock):
    """A storage may be opened with another length of its leases."""
    queue = Queue("jobs", open_storage(lock_duration=SECOND))
    entry = held(queue)
    assert entry.lease_deadline - entry.updated_at == SECOND
    clock.advance(SECOND)
    assert queue.dequeue().id == entry.id


def test_release_does_not_count(queue):
    """What is given back is ready again, its attempt uncounted and its token used up."""
    first = held(queue)
    queue.release(first)
    assert queue.counts() == Counts(ready=1)
    assert queue.get(first.id).attempts == 0
    second = queue.dequeue()
    assert (second.id, second.attempts) == (first.id, 1)
    assert second.token > first.token


def test_a_lease_is_ended_by_somebody_else(queue, open_storage, backend):
    """Whoever knows its token can end a lease: its entry is ready, uncounted; its holder is told both."""
    first = held(queue)
    other = Queue("jobs", open_storage()) if "shared" in backend.abilities else queue
    other.end_lease(first.id, first.token, who="ann", reason="it hangs")
    for act in HELD:
        with pytest.raises(LeaseLost, match="is not leased, it is ready"):
            act(queue, first)
    second = queue.dequeue()
    assert (second.id, second.attempts) == (first.id, 1)
    (attempt,) = second.errors
    assert (attempt.cause, attempt.worker) == (Cause.RELEASED, first.worker)
    assert attempt.error.message == "ended by ann: it hangs; not counted"
    with pytest.raises(LeaseLost):
        other.end_lease(first.id, first.token)
    queue.mark_completed(second)
    with pytest.raises(LeaseLost):
        other.end_lease(second.id, second.token)
    assert queue.counts() == Counts()


def test_ending_a_lease_checks_what_it_is_given(queue):
    """Who and why are texts that can be written; of a queue that is not there no lease can be ended."""
    entry = held(queue)
    for wrong in ({"who": "\ud800"}, {"reason": "\ud800"}, {"reason": 7}):
        with pytest.raises(InvalidOption):
            queue.end_lease(entry.id, entry.token, **wrong)
    queue.mark_completed(entry)


def test_release_keeps_the_place(queue):
    """What is given back stands where it stood before."""
    queue.enqueue_many(["a", "b", "c"])
    entry = queue.dequeue()
    queue.release(entry)
    assert [entry.data for entry in queue.dequeue(limit=3)] == ["a", "b", "c"]


def test_release_for_later(queue, clock):
    """What is given back with a delay is not delivered before, and a delay of nothing is none."""
    entry = held(queue)
    queue.release(entry, delay=SECOND)
    assert queue.counts() == Counts(scheduled=1)
    assert queue.get(entry.id).scheduled_for == datetime.fromtimestamp(clock.now() / 1e6, UTC) + SECOND
    assert queue.dequeue() is None
    clock.advance(SECOND)
    entry = queue.dequeue()
    queue.release(entry, delay=timedelta(0))
    assert queue.counts() == Counts(ready=1)
    assert queue.dequeue().id == entry.id


def test_released_over_and_over(storage):
    """However often an entry is given back it never becomes a dead letter."""
    queue = Queue("jobs", storage, retry_policy=NoRetry())
    queue.enqueue("a")
    for _ in range(20):
        entry = queue.dequeue()
        assert entry.attempts == 1
        queue.release(entry)
    assert queue.counts() == Counts(ready=1)


def test_what_is_not_held_has_no_lease(queue):
    """An entry that nobody holds names no holder, no deadline and no token, also if it was held before."""
    entry = held(queue)
    queue.release(entry)
    seen = queue.get(entry.id)
    assert (seen.status, seen.worker, seen.lease_deadline, seen.token) == (EntryStatus.READY, None, None, 0)


def test_a_token_is_never_used_again(queue, clock):
    """A holder that hung through its entry's end cannot touch a new entry that was given the same id."""
    queue.enqueue("a", id="x")
    late = queue.dequeue()
    clock.advance(LEASE)
    queue.mark_completed(queue.dequeue())
    queue.enqueue("b", id="x")
    entry = queue.dequeue()
    with pytest.raises(LeaseLost):
        queue.mark_completed(late)
    assert queue.get("x").data == "b"
    queue.mark_completed(entry)


def test_another_queues_entry(storage):
    """An entry can only be ended in the queue it came from, although another has one of the same id."""
    first, second = Queue("first", storage), Queue("second", storage)
    for queue in (first, second):
        queue.enqueue(queue.name, id="x")
    mine, other = first.dequeue(), second.dequeue()
    with pytest.raises(QueueError):
        second.mark_completed(mine)
    assert second.counts() == Counts(leased=1)
    first.mark_completed(mine)
    second.mark_completed(other)


def test_a_copy_of_an_entry_stands_for_it(queue):
    """What counts is the token and not the object."""
    queue.mark_completed(copy.copy(held(queue)))
    assert queue.counts() == Counts()


@pytest.mark.needs("shared")
def test_a_fresh_storage_finds_what_is_overdue(queue, open_storage, clock):
    """The first dequeue of a storage that was just opened finds what is overdue."""
    entry = held(queue)
    clock.advance(LEASE)
    other = Queue("jobs", open_storage())
    assert other.dequeue().id == entry.id


@pytest.mark.needs("shared")
def test_an_outdated_view_finds_what_is_overdue(queue, open_storage, clock):
    """So does the first dequeue of a storage that was open, but looked last before the entry was there."""
    other = Queue("jobs", open_storage())
    queue.enqueue("first", priority=1)
    assert other.counts() == Counts(ready=1)
    queue.mark_completed(queue.dequeue())
    entry = held(queue)
    clock.advance(LEASE)
    assert other.dequeue().id == entry.id


def test_extended_at_the_last_moment(queue, storage, clock, monkeypatch):
    """A lease that was late when somebody looked, and is extended before he can end it, goes on."""
    entry = held(queue)
    clock.advance(LEASE)
    lapsed = storage.lapsed

    def seen_too_early(name):
        found = lapsed(name)
        if found:
            queue.extend(entry)
        return found

    monkeypatch.setattr(storage, "lapsed", seen_too_early)
    assert queue.dequeue() is None
    assert queue.get(entry.id).token == entry.token
    queue.mark_completed(entry)
