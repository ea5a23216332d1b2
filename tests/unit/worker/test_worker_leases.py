"""A worker's leases: renewed while handlers run, and what happens once one is lost all the same."""

import threading
from datetime import timedelta

import pytest

from duraq import Cause, Counts, NoRetry, Queue, StorageError, Worker, WorkerStats
from duraq.lease_keeper import Held, LeaseKeeper
from duraq.operations import Extend

SOON = 60  # seconds; only so that a failing test ends
# A lease lasts this long by the tests' clock, and is looked at thrice as often by the machine's.
LENGTH = timedelta(milliseconds=60)


@pytest.fixture
def storage(open_storage):
    """A storage with short leases, by a clock that stands still."""
    return open_storage(lock_duration=LENGTH)


@pytest.fixture
def renewals(storage, monkeypatch):
    """Released at each renewal of a lease, with the error that the storage is to refuse it with, if any."""
    renewals, commit = threading.Semaphore(0), storage.commit
    renewals.error = None

    def watched(changes, limits=None):
        renewal = any(isinstance(operation, Extend) for each in changes.values() for operation in each)
        if renewal and renewals.error is not None:
            renewals.release()
            raise renewals.error
        commit(changes, limits)
        if renewal:
            renewals.release()

    monkeypatch.setattr(storage, "commit", watched)
    return renewals


def wait_for(semaphore):
    assert semaphore.acquire(timeout=SOON)


def take_over(queue, clock):
    """Take the entry whose lease has lapsed; a renewal may come before that, but not every time."""
    while True:
        clock.advance(2 * LENGTH)
        entry = queue.dequeue()
        if entry is not None:
            return entry


def let_time_pass(clock, until):
    """As much as it takes, a little at a time."""
    for _ in range(SOON * 100):
        if until.wait(0.01):
            return
        clock.advance(LENGTH / 3)
    pytest.fail("in vain")


def test_renewed(queue, clock, renewals):
    """A handler may run for many times the length of a lease, and nobody else is given its entry."""
    queue.enqueue("a")
    deadlines, others = [], []

    def handler(entry):
        for _ in range(5):
            clock.advance(LENGTH * 2 / 3)
            wait_for(renewals)
            deadlines.append(queue.get(entry.id).lease_deadline)
            others.append(queue.dequeue())
        assert not entry.lease_lost

    assert Worker(queue, handler).run(drain=True) == WorkerStats(completed=1)
    assert deadlines == sorted(set(deadlines))
    assert others == [None] * 5


def test_renewed_together(storage, clock, renewals):
    """Each lease is renewed in its own time, a short one also if it begins while a long one waits."""
    long = Queue("long", storage, lock_duration=timedelta(hours=1))
    short = Queue("short", storage)
    long.enqueue("a")
    ended = threading.Event()

    def handler(entry):
        if entry.queue == "long":
            short.enqueue("b")
            assert ended.wait(SOON)
            return
        for _ in range(3):
            clock.advance(LENGTH * 2 / 3)
            wait_for(renewals)
            assert short.dequeue() is None
        ended.set()

    assert Worker([long, short], handler, threads=2).run(drain=True) == WorkerStats(completed=2)


@pytest.mark.parametrize("error", [None, ValueError("late")], ids=repr)
def test_lost(storage, clock, caplog, error):
    """A handler is told that its lease is lost; not its outcome is committed, but that of the next holder."""
    queue = Queue("jobs", storage, retry_policy=NoRetryOfFailures())
    entry_id = queue.enqueue("a")
    taken = []

    def handler(entry):
        assert not entry.lease_lost
        taken.append(take_over(queue, clock))
        let_time_pass(clock, until=entry.lost)
        assert entry.lease_lost
        if error is not None:
            raise error

    assert Worker(queue, handler).run(limit=1) == WorkerStats(lost=1)
    (entry,) = taken
    assert queue.get(entry_id).token == entry.token
    assert [attempt.cause for attempt in entry.errors] == [Cause.TIMED_OUT]
    queue.mark_completed(entry)
    assert queue.counts() == Counts()
    told = [record.event for record in caplog.records if hasattr(record, "event")]
    assert told == ["lease_lost", "lost"]


class NoRetryOfFailures(NoRetry):
    """Failures are final; a lease that lapsed is not."""

    def should_retry(self, attempts, error=None):
        return not isinstance(error, ValueError)

    def should_move_to_dead_letter(self, attempts, error=None):
        return isinstance(error, ValueError)


@pytest.mark.parametrize("error", [None, ValueError("late")], ids=repr)
def test_lost_and_not_yet_known(open_storage, clock, monkeypatch, error):
    """The outcome of a handler whose lease was lost without its knowing is not committed either."""
    monkeypatch.setattr(LeaseKeeper, "renew_due", lambda _keeper: None)
    queue = Queue("jobs", open_storage(lock_duration=timedelta(hours=1)), retry_policy=NoRetryOfFailures())
    queue.enqueue("a")
    taken = []

    def handler(entry):
        clock.advance(timedelta(hours=2))
        taken.append(queue.dequeue())
        assert not entry.lease_lost
        if error is not None:
            raise error

    assert Worker(queue, handler).run(limit=1) == WorkerStats(lost=1)
    assert queue.counts() == Counts(leased=1)
    queue.mark_completed(taken[0])


def test_renewals_that_are_refused(queue, clock, renewals, caplog):
    """A renewal that the storage refuses is tried again, and the lease goes on if it succeeds in time."""
    queue.enqueue("a")

    def handler(entry):
        renewals.error = StorageError("no")
        clock.advance(LENGTH / 7)
        for _ in range(3):
            clock.advance(LENGTH / 5)
            wait_for(renewals)
        renewals.error = None
        clock.advance(LENGTH / 5)
        wait_for(renewals)
        assert not entry.lease_lost

    assert Worker(queue, handler).run(drain=True) == WorkerStats(completed=1)
    assert {record.event for record in caplog.records} == {"renewal_failed"}


def test_renewals_that_are_refused_too_long(queue, clock, renewals):
    """A lease that could not be renewed until its deadline is lost, and the handler is told."""
    queue.enqueue("a")
    renewals.error = StorageError("no")

    def handler(entry):
        clock.advance(LENGTH)
        assert entry.lost.wait(SOON)

    assert Worker(queue, handler).run(limit=1) == WorkerStats(lost=1)
    assert queue.counts() == Counts(leased=1)


def test_a_lease_that_is_over_is_not_looked_at_again(queue, clock, renewals):
    """The lease of an entry that is completed is let go of at its next turn, not tried over and over."""
    queue.enqueue("a")
    keeper, held = LeaseKeeper(), Held(queue, queue.dequeue())
    keeper.hold(held)
    held.complete()
    clock.advance(LENGTH)
    keeper.renew_due()
    assert keeper._held == set()
    assert not renewals.acquire(blocking=False)
    assert not held.lost.is_set()


def test_an_entry_without_a_worker(queue):
    """Only a worker tells of a lost lease; whoever dequeues looks for himself."""
    queue.enqueue("a")
    entry = queue.dequeue()
    assert entry.lost is None
    assert not entry.lease_lost
