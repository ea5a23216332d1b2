"""The fold itself: what no storage shows of it, and what keeps two processes in step and small."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from duraq.checks import check_group
from duraq.errors import DuplicateEntry, EntryNotFound, LeaseLost, QueueFull
from duraq.laid_over import check_in_turn
from duraq.model import AttemptError, Cause, Counts, EntryStatus
from duraq.operations import (
    Bury,
    Complete,
    Enqueue,
    Expire,
    Extend,
    Fail,
    Lease,
    PauseQueue,
    Release,
    Remove,
    Requeue,
    ResumeQueue,
)
from duraq.state import QueueState

BOOT = "boot"
SECOND = 1_000_000
ERROR = AttemptError("Error", "no")
# Stale items are dropped once they are this many, or a few times as many as the entries they were made for.
SLACK = 64


class Fold:
    """A state and the numbers and times that a storage would give its operations."""

    def __init__(self):
        self.state = QueueState("jobs")
        self.now = 1_000 * SECOND
        self.seq = 0
        self.log = []

    def apply(self, *operations):
        """Check and fold them as one group."""
        check_group(self.state, operations, None)
        for operation in operations:
            self.seq += 1
            self.log.append((operation, self.seq, self.now))
            self.state.apply(operation, self.seq, self.now, where=self.seq, position=self.seq)

    def enqueue(self, *ids, **options):
        self.apply(*(Enqueue(name, b"", **options) for name in ids))

    def lease(self, limit=1, worker="w", length=60 * SECOND):
        """Lease what is next; returns the entries."""
        self.state.advance(self.now)
        taken = self.state.take(limit)
        for entry in taken:
            self.lease_id(entry.id, worker, length)
        return taken

    def lease_id(self, name, worker="w", length=60 * SECOND):
        """Lease that entry, whether it is known here to be ready or not."""
        entry = self.state.entries[name]
        deadline = self.now + length
        lease = Lease(name, self.state.tokens + 1, entry.attempts + 1, worker, deadline, BOOT, deadline)
        self.seq += 1
        self.log.append((lease, self.seq, self.now))
        self.state.apply(lease, self.seq, self.now)

    def token(self, name):
        """The token of the lease that the entry is held under, or was last."""
        return self.state.entries[name].token

    def complete(self, name):
        self.apply(Complete(name, self.token(name)))

    def fail(self, name, delay=0):
        self.apply(Fail(name, self.token(name), Cause.FAILED, ERROR, self.now + delay))

    def bury(self, name):
        self.apply(Bury(name, self.token(name), Cause.FAILED, ERROR))

    def release(self, name, ready_at=None):
        self.apply(Release(name, self.token(name), ready_at))


@pytest.fixture
def fold():
    """An empty queue."""
    return Fold()


def heaps(state):
    """How many items each heap holds."""
    return [len(heap) for heap in (state._ready, state._scheduled, state._expiring, state._deadlines)]


def view(state, now):
    """All that two processes must agree on."""
    return (
        state.counts(now),
        state.pause,
        [
            (e.id, e.seq, e.status, e.priority, e.attempts, e.token, e.worker, e.history)
            for e in state.listing(None, now)
        ],
        [
            (e.created_at, e.updated_at, e.ready_at, e.expires_at, e.deadline, e.leased_at)
            for e in state.listing(None, now)
        ],
        [e.id for e in state.listing(EntryStatus.READY, now)],
        {worker: sorted(held) for worker, held in state.leased.items()},
    )


def test_an_entry_is_never_taken_twice(fold):
    """What was taken is not taken again, whether its lease has been written yet or not."""
    fold.enqueue("a", "b", "c")
    assert [entry.id for entry in fold.state.take(2)] == ["a", "b"]
    assert [entry.id for entry in fold.state.take(2)] == ["c"]
    assert fold.state.take(2) == []


def test_what_was_not_leased_after_all_is_put_back(fold):
    """Put back, an entry stands where it stood, once."""
    fold.enqueue("a", "b", "c")
    for _ in range(5):
        fold.state.put_back(fold.state.take(2))
    assert [entry.id for entry in fold.state.take(9)] == ["a", "b", "c"]


def test_putting_back_what_somebody_has_leased(fold):
    """An entry that has been leased meanwhile is not put back."""
    fold.enqueue("a")
    taken = fold.state.take(1)
    fold.lease_id("a")
    fold.state.put_back(taken)
    assert fold.state.take(1) == []
    fold.release("a")
    fold.state.put_back(taken)
    assert [entry.id for entry in fold.state.take(9)] == ["a"]


def test_leases_of_others_leave_nothing_to_take(fold):
    """Entries that another process has leased, as the log tells, are passed over until they return."""
    fold.enqueue(*"abcd")
    for name in "abc":
        fold.lease_id(name, worker="other")
    assert [entry.id for entry in fold.state.take(9)] == ["d"]
    fold.release("b")
    fold.fail("a")
    fold.complete("c")
    assert [entry.id for entry in fold.state.take(9)] == ["a", "b"]


def test_coming_back_many_times_is_one_entry(fold):
    """However often an entry was leased and given back it is taken once."""
    fold.enqueue("a", "b")
    for _ in range(10):
        fold.lease_id("b", worker="other")
        fold.release("b")
    assert [entry.id for entry in fold.state.take(9)] == ["a", "b"]


def test_a_scheduled_entry_that_somebody_leased_first(fold):
    """A process whose clock is behind folds the lease of an entry that it still holds for scheduled."""
    fold.enqueue("a", ready_at=fold.now + SECOND)
    fold.lease_id("a", worker="other")
    assert fold.state.counts(fold.now) == Counts(leased=1)
    assert fold.state.counts(fold.now + SECOND) == Counts(leased=1)
    fold.release("a")
    assert [entry.id for entry in fold.state.take(9)] == ["a"]


def test_a_new_time_replaces_the_old_one(fold):
    """An entry that comes back for later is due once, at its new time."""
    fold.enqueue("a", ready_at=fold.now + 10 * SECOND)
    start = fold.now
    fold.now += 10 * SECOND
    fold.lease()
    fold.now = start  # somebody set the clock back
    fold.release("a", fold.now + 20 * SECOND)
    assert fold.state.next_event() == start + 20 * SECOND
    assert fold.state.counts(start + 10 * SECOND) == Counts(scheduled=1)
    assert fold.state.counts(start + 20 * SECOND) == Counts(ready=1)
    assert [entry.id for entry in fold.state.take(9)] == ["a"]
    assert fold.state.next_event() is None


def test_the_next_event_is_of_an_entry_that_waits(fold):
    """Entries that are not scheduled any more wake nobody."""
    fold.enqueue("a", ready_at=fold.now + SECOND)
    fold.enqueue("b", ready_at=fold.now + 2 * SECOND)
    assert fold.state.next_event() == fold.now + SECOND
    fold.lease_id("a", worker="other")
    assert fold.state.next_event() == fold.now + 2 * SECOND


def test_deadlines(fold):
    """Of the leases those that have passed their deadline are told, with the extensions that were made."""
    fold.enqueue(*"abc")
    fold.lease(3, length=10 * SECOND)
    start = fold.now
    later = start + 20 * SECOND
    fold.apply(Extend("b", fold.token("b"), later, BOOT, later))
    assert not fold.state.may_be_late(start + 10 * SECOND - 1)
    assert fold.state.past_deadline(start + 10 * SECOND - 1, BOOT) == []
    assert fold.state.may_be_late(start + 10 * SECOND)
    assert {entry.id for entry in fold.state.past_deadline(start + 10 * SECOND, BOOT)} == {"a", "c"}
    assert fold.state.past_deadline(start + 10 * SECOND, "another boot") == []
    assert fold.state.next_deadline().deadline == start + 10 * SECOND
    fold.complete("a")
    fold.release("c")
    assert fold.state.next_deadline().id == "b"
    assert fold.state.past_deadline(later - 1, BOOT) == []
    fold.complete("b")
    assert fold.state.next_deadline() is None


def test_expired_entries(fold):
    """Those whose TTL has passed are told until they are ended, but for those that somebody holds."""
    fold.enqueue("a", "b", "c", expires_at=fold.now + SECOND)
    fold.enqueue("d", expires_at=fold.now + 9 * SECOND)
    fold.enqueue("e")
    fold.lease_id("b")
    now = fold.now + SECOND
    assert fold.state.expired(now - 1, 9) == []
    for _ in range(3):
        assert {entry.id for entry in fold.state.expired(now, 9)} == {"a", "c"}
    assert fold.state.counts(now) == Counts(ready=2, leased=1)
    assert [entry.id for entry in fold.state.listing(None, now)] == ["b", "d", "e"]
    fold.apply(Expire("a"), Expire("c"))
    assert fold.state.expired(now, 9) == []
    fold.release("b")
    assert [entry.id for entry in fold.state.expired(now, 9)] == ["b"]


def test_a_dead_entry_has_no_ttl_ever_after(fold):
    """Neither a dead letter nor one that was put back is told to be expired."""
    fold.enqueue("a", "b", expires_at=fold.now + SECOND)
    fold.lease(2)
    fold.bury("a")
    fold.bury("b")
    fold.apply(Requeue("a"))
    fold.now += SECOND
    assert fold.state.expired(fold.now, 9) == []
    fold.apply(Requeue("b"))
    assert fold.state.expired(fold.now, 9) == []
    assert fold.state.counts(fold.now) == Counts(ready=2)


def test_a_producer_stays_small(fold):
    """A process that only enqueues, while others work all of it off, keeps nothing of what is over."""
    for number in range(5000):
        name = str(number)
        fold.enqueue(name, expires_at=fold.now + 10**12)
        fold.lease_id(name, worker="other")
        fold.complete(name)
    assert fold.state.entries == {}
    assert fold.state.leased == {}
    assert max(heaps(fold.state)) <= 2 * SLACK


def test_a_consumer_stays_small(fold):
    """A process that works through very many entries keeps nothing of what is over."""
    for number in range(5000):
        fold.enqueue(str(number), ready_at=fold.now + 1, expires_at=fold.now + 10**12)
        fold.now += 1
        (entry,) = fold.lease()
        fold.fail(entry.id, delay=1)
        fold.now += 1
        (entry,) = fold.lease()
        fold.complete(entry.id)
    assert fold.state.entries == {}
    assert max(heaps(fold.state)) <= 2 * SLACK


def test_an_entry_that_comes_back_for_ever_stays_small(fold):
    """One entry that is leased, extended and given back again and again leaves nothing behind."""
    fold.enqueue("a")
    for number in range(3000):
        fold.lease()
        deadline = fold.now + 10**9 + number
        fold.apply(Extend("a", fold.token("a"), deadline, BOOT, deadline))
        fold.release("a", fold.now + 1 if number % 2 else None)
        fold.now += 1
    assert max(heaps(fold.state)) <= 6 * SLACK


def test_a_watcher_stays_small(fold):
    """A process that never takes anything itself keeps nothing of what others schedule and work off."""
    for number in range(3000):
        name = str(number)
        fold.enqueue(name, ready_at=fold.now + 10**9)
        fold.lease_id(name, worker="other")
        fold.complete(name)
    assert max(heaps(fold.state)) <= 2 * SLACK


def test_stale_items_do_not_hide_fresh_ones(fold):
    """Dropping what is over never drops what is there."""
    fold.enqueue("keep-0", "keep-1", priority=-1)
    for number in range(500):
        fold.enqueue(str(number))
        fold.lease_id(str(number), worker="other")
        if number % 50:
            fold.complete(str(number))
    for number in range(0, 500, 50):
        fold.release(str(number))
    back = [str(number) for number in range(0, 500, 50)]
    assert [entry.id for entry in fold.state.take(999)] == [*back, "keep-0", "keep-1"]


@pytest.mark.parametrize("seed", range(20))
def test_two_processes_agree(fold, seed):
    """Whoever folds the same operations holds the same state, whatever he has taken meanwhile."""
    rng = random.Random(seed)
    other = QueueState("jobs")
    told = 0
    for number in range(300):
        fold.now += rng.randrange(SECOND)
        fold.state.advance(fold.now)
        leased = [name for held in fold.state.leased.values() for name in held]
        dead = [entry.id for entry in fold.state.listing(EntryStatus.DEAD, fold.now)]
        choice = rng.choice(["enqueue", "lease", "lease", "complete", "fail", "bury", "release", "requeue"])
        if choice == "enqueue":
            options = {"priority": rng.randrange(3)}
            if rng.random() < 0.3:
                options["ready_at"] = fold.now + rng.randrange(5 * SECOND)
            fold.enqueue(f"{number}", f"{number}x", **options)
        elif choice == "lease":
            fold.lease(rng.randrange(1, 3), worker=rng.choice("vw"))
        elif choice == "requeue" and dead:
            fold.apply(rng.choice([Requeue, Remove])(rng.choice(dead)))
        elif leased and choice != "requeue":
            delay = rng.choice([0, 3 * SECOND])
            name = rng.choice(leased)
            {
                "complete": fold.complete,
                "fail": lambda name, delay=delay: fold.fail(name, delay),
                "bury": fold.bury,
                "release": lambda name, delay=delay: fold.release(name, fold.now + delay if delay else None),
            }[choice](name)
        if rng.random() < 0.3:
            for operation, seq, at in fold.log[told:]:
                other.apply(operation, seq, at)
            told = len(fold.log)
            if rng.random() < 0.5:
                other.put_back(other.take(3))
            assert view(other, fold.now) == view(fold.state, fold.now)


def test_replaying_gives_the_same(fold):
    """A state that was built in one go from the operations is the one that they were decided in."""
    fold.enqueue(*"abcdef")
    fold.enqueue("g", ready_at=fold.now + SECOND, expires_at=fold.now + 99 * SECOND)
    fold.lease(5)
    fold.complete("a")
    fold.fail("b", SECOND)
    fold.bury("c")
    fold.release("d")
    fold.apply(PauseQueue("me", "why"))
    fold.apply(ResumeQueue("me"))
    fold.apply(PauseQueue("you", "still"))
    replayed = QueueState("jobs")
    for operation, seq, at in fold.log:
        replayed.apply(operation, seq, at)
    assert view(replayed, fold.now) == view(fold.state, fold.now)
    assert view(replayed, fold.now + 9 * SECOND) == view(fold.state, fold.now + 9 * SECOND)


def test_the_history(fold):
    """An attempt is kept with its number, its cause, its error, its worker and its times."""
    fold.enqueue("a")
    start = fold.now
    fold.lease(worker="x")
    fold.now += SECOND
    fold.fail("a")
    (attempt,) = fold.state.entries["a"].history
    began = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=start)
    assert (attempt.number, attempt.cause, attempt.error, attempt.worker) == (1, Cause.FAILED, ERROR, "x")
    assert (attempt.started_at, attempt.ended_at) == (began, began + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (Enqueue("ready", b""), DuplicateEntry),
        (Enqueue("dead", b""), DuplicateEntry),
        (Enqueue("leased", b""), DuplicateEntry),
        (Enqueue("scheduled", b""), DuplicateEntry),
        (Lease("leased", 999, 2, "w", 0, BOOT, 0), EntryNotFound),
        (Lease("unknown", 1, 1, "w", 0, BOOT, 0), EntryNotFound),
        (Extend("leased", 999, 0, BOOT, 0), LeaseLost),
        (Extend("ready", 0, 0, BOOT, 0), LeaseLost),
        (Complete("leased", 999), LeaseLost),
        (Complete("ready", 0), LeaseLost),
        (Complete("dead", 1), LeaseLost),
        (Complete("unknown", 1), LeaseLost),
        (Fail("leased", 999, Cause.FAILED, ERROR, 0), LeaseLost),
        (Fail("scheduled", 0, Cause.FAILED, ERROR, 0), LeaseLost),
        (Bury("leased", 999, Cause.FAILED, ERROR), LeaseLost),
        (Bury("dead", 1, Cause.FAILED, ERROR), LeaseLost),
        (Release("leased", 999), LeaseLost),
        (Release("unknown", 0), LeaseLost),
        (Expire("leased"), EntryNotFound),
        (Expire("dead"), EntryNotFound),
        (Expire("unknown"), EntryNotFound),
        (Requeue("leased"), EntryNotFound),
        (Requeue("ready"), EntryNotFound),
        (Requeue("unknown"), EntryNotFound),
        (Remove("scheduled"), EntryNotFound),
        (Remove("unknown"), EntryNotFound),
    ],
    ids=lambda value: f"{value.op}-{value.id}" if hasattr(value, "op") else value.__name__,
)
def test_what_cannot_be_applied(fold, operation, error):
    """An operation that does not fit the state is refused, with the state left as it was."""
    fold.enqueue("leased", "dead")
    fold.lease(2)
    fold.bury("dead")
    fold.enqueue("scheduled", ready_at=fold.now + SECOND)
    fold.enqueue("ready")
    before = view(fold.state, fold.now)
    with pytest.raises(error, match=operation.id):
        check_group(fold.state, (operation,), None)
    assert view(fold.state, fold.now) == before


def test_operations_on_one_entry_are_checked_in_turn(fold):
    """Of several operations on one entry each must fit what the ones before it have made of it."""
    before = view(fold.state, fold.now)
    again = [Enqueue("a", b""), Enqueue("b", b""), Enqueue("b", b"")]
    with pytest.raises(DuplicateEntry, match="b"):
        check_in_turn(fold.state, again, None, fold.now)
    assert view(fold.state, fold.now) == before
    fold.enqueue("a")
    fold.lease()
    token = fold.state.entries["a"].token
    before = view(fold.state, fold.now)
    with pytest.raises(LeaseLost, match="a"):
        check_in_turn(fold.state, [Complete("a", token), Complete("a", token)], None, fold.now)
    check_in_turn(fold.state, [Complete("a", token), Enqueue("a", b"")], 1, fold.now)
    with pytest.raises(QueueFull):
        check_in_turn(fold.state, [Complete("a", token), *again[:2]], 1, fold.now)
    assert view(fold.state, fold.now) == before


def test_a_group_that_fits(fold):
    """The size is checked for a group as a whole, and only if it adds something."""
    fold.enqueue("a", "b")
    check_group(fold.state, [Enqueue("c", b"")], 3)
    with pytest.raises(QueueFull):
        check_group(fold.state, [Enqueue("c", b""), Enqueue("d", b"")], 3)
    fold.lease()
    check_group(fold.state, [Release("a", fold.token("a"))], 1)


def test_a_pause(fold):
    """While it is paused nothing can be leased, though it is ready."""
    fold.enqueue("a")
    assert fold.state.has_ready(fold.now)
    fold.apply(PauseQueue("me", "why"))
    assert not fold.state.has_ready(fold.now)
    assert fold.state.counts(fold.now) == Counts(ready=1)
    fold.apply(ResumeQueue("me"))
    assert fold.state.has_ready(fold.now)
