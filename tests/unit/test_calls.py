"""Threads that commit at the same time: who writes, who waits, and what becomes of each."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from duraq import Counts, DuplicateEntry, FileStorage, LeaseLost, OutcomeUnknown, Queue, StorageFailed
from duraq.operations import Complete, Enqueue, Release
from duraq.storage.base import Limits
from duraq.storage.calls import TOGETHER, Call, Calls, together

SOON = 30  # seconds; only so that a failing test ends


class Disk:
    """Writes and settles, each only when it is let; what it was asked for is kept."""

    def __init__(self):
        self.calls = Calls(self.write, self.write_all, self.settle)
        self.let = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.groups = []
        self.settled = []
        self.refuse = {}
        self.end = 0

    def write(self, changes, limits):
        call = Call(changes, limits)
        self.write_all([call])
        if call.error is not None:
            raise call.error
        return call.position

    def write_all(self, calls):
        self.groups.append([call.changes for call in calls])
        self.begun.release()
        assert self.let.acquire(timeout=SOON)
        for call in calls:
            call.begun = True
            error = self.refuse.get(call.changes)
            if isinstance(error, Exception):
                call.error = error
            elif error is not None:
                raise error
            else:
                self.end += 1
                call.position = self.end

    def settle(self, position):
        self.settled.append(position)

    def has_begun(self):
        assert self.begun.acquire(timeout=SOON)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as executor:
        yield executor


@pytest.fixture
def disk():
    return Disk()


def first_and_others(disk, pool, *names):
    """One thread is writing, and the others wait for it."""
    first = pool.submit(disk.calls.run, "first", None)
    disk.has_begun()
    others = []
    for waiting, name in enumerate(names):
        others.append(pool.submit(disk.calls.run, name, None))
        while len(disk.calls._waiting) == waiting:
            threading.Event().wait(0.001)
    return first, others


def test_one_writes_for_all_that_wait(disk, pool):
    """Calls that come while one is written are written together, and settled by one sync."""
    first, others = first_and_others(disk, pool, "a", "b", "c", "d")
    disk.let.release(2)
    for future in (first, *others):
        future.result(SOON)
    assert disk.groups == [["first"], ["d", "a", "b", "c"]]
    assert sorted(disk.settled) == [1, 5]
    assert disk.calls._leader is None
    assert disk.calls._waiting == []


def test_an_error_is_that_of_its_call(disk, pool):
    """What one call may not do is raised where it was called, and nowhere else."""
    disk.refuse["b"] = DuplicateEntry("b is there")
    first, others = first_and_others(disk, pool, "a", "b", "c")
    disk.let.release(2)
    first.result(SOON)
    with pytest.raises(DuplicateEntry, match="b is there"):
        others[1].result(SOON)
    others[0].result(SOON)
    others[2].result(SOON)


def test_a_leader_that_is_interrupted(disk, pool):
    """If the thread that writes is interrupted, what it had begun is unknown and the rest is written."""
    disk.refuse["b"] = KeyboardInterrupt()
    first, others = first_and_others(disk, pool, "a", "b", "c", "d")
    disk.let.release(3)
    first.result(SOON)
    with pytest.raises(KeyboardInterrupt):
        others[3].result(SOON)
    others[0].result(SOON)
    with pytest.raises(OutcomeUnknown):
        others[1].result(SOON)
    others[2].result(SOON)
    assert disk.groups == [["first"], ["d", "a", "b", "c"], ["c"]]


def test_a_first_one_that_is_interrupted(disk, pool):
    """If the thread that came first is interrupted, those that wait go on."""
    disk.refuse["first"] = KeyboardInterrupt()
    first, others = first_and_others(disk, pool, "a", "b")
    disk.let.release(2)
    with pytest.raises(KeyboardInterrupt):
        first.result(SOON)
    for future in others:
        future.result(SOON)


class Interrupted:
    """Stands in for the lock that a thread waits on, which a signal handler interrupts."""

    def acquire(self):
        raise KeyboardInterrupt

    def locked(self):
        return True

    def release(self):
        """Nobody waits any more."""


def test_a_waiting_thread_that_is_interrupted(disk, pool):
    """A thread that is interrupted while it waits is forgotten, and holds up nobody."""
    first, others = first_and_others(disk, pool, "a")
    gone = Call("gone", None)
    gone.woken = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        disk.calls._join(gone)
    disk.let.release(2)
    first.result(SOON)
    others[0].result(SOON)
    assert disk.groups == [["first"], ["a"]]


def test_an_interrupt_while_handing_over(disk, pool, monkeypatch):
    """Not even a Ctrl-C at the moment of handing over leaves those who wait without a leader."""
    first, others = first_and_others(disk, pool, "a", "b")
    wake = disk.calls._wake
    interrupts = iter([KeyboardInterrupt()])

    def interrupted(calls):
        for error in interrupts:
            raise error
        wake(calls)

    monkeypatch.setattr(disk.calls, "_wake", interrupted)
    disk.let.release(2)
    with pytest.raises(KeyboardInterrupt):
        first.result(SOON)
    for future in others:
        future.result(SOON)


def test_each_is_told_that_it_could_not_be_settled(disk, pool, monkeypatch):
    """A sync that fails is reported to every call that waited for it."""

    def fail(position):
        raise OutcomeUnknown(f"up to {position}")

    first, others = first_and_others(disk, pool, "a", "b")
    monkeypatch.setattr(disk.calls, "_settle", fail)
    disk.let.release(2)
    for future in (first, *others):
        with pytest.raises(OutcomeUnknown):
            future.result(SOON)
    assert disk.calls._leader is None


def test_a_call_within_a_call_of_the_same_thread(disk, monkeypatch):
    """A signal handler that commits in the middle of its thread's own commit is told not to."""
    mine = Call("mine", None)
    disk.calls._leader = mine
    with pytest.raises(StorageFailed, match="signal handler"):
        disk.calls._join(Call("nested", None))
    assert disk.calls._leader is mine


# -- what goes together ------------------------------------------------------------------------------------


def new(entry_id, size=1):
    return Call({"jobs": [Enqueue(entry_id, b"1" * size, fresh=True)]}, None)


def done(entry_id, queue="jobs"):
    return Call({queue: [Complete(entry_id, 1)]}, None)


@pytest.mark.parametrize(
    ("calls", "count"),
    [
        ([new("a"), new("b"), new("c")], 3),
        ([done("a"), done("b")], 2),
        ([new("a"), done("b")], 1),
        ([new("a"), new("a")], 1),
        ([done("a"), done("b", "others")], 1),
        ([new("a", TOGETHER), new("b", TOGETHER), new("c")], 2),
        ([new("a", 16 << 20), new("b")], 2),
        ([Call({"jobs": [Release("a", 1)]}, None), done("b")], 1),
        ([done("a"), Call({"jobs": [Complete("b", 1), Complete("c", 1)]}, None)], 1),
        ([done("a"), Call({"jobs": [Complete("b", 1)], "others": [Complete("c", 1)]}, None)], 1),
        ([Call({"jobs": [Enqueue("a", b"")]}, Limits(max_size={"jobs": 1})), new("b")], 1),
    ],
)
def test_what_goes_together(calls, count):
    """Single new entries of one queue, or single completions, go together while they are small."""
    assert together(calls) == calls[:count]


# -- with a real storage -----------------------------------------------------------------------------------


def test_many_threads_on_one_storage(tmp_path, pool):
    """Threads that enqueue, are refused, and complete at once each get what is theirs."""
    with FileStorage(tmp_path / "queues") as storage:
        queue = Queue("jobs", storage)

        def enqueue(number):
            try:
                return queue.enqueue(number, id=f"n{number // 2}")
            except DuplicateEntry:
                return None

        ids = list(pool.map(enqueue, range(400)))
        assert sorted(filter(None, ids)) == sorted(f"n{number}" for number in range(200))
        assert ids.count(None) == 200
        entries = queue.dequeue(limit=200)
        assert len(entries) == 200

        def complete(entry):
            try:
                queue.mark_completed(entry)
            except LeaseLost:
                return 1
            return 0

        assert sum(pool.map(complete, entries * 2)) == 200
        assert queue.counts() == Counts()
    with FileStorage(tmp_path / "queues") as storage:
        assert Queue("jobs", storage).counts() == Counts()
