"""Threads that commit at the same time: who writes, who waits, and what becomes of each."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from duraq import Counts, DuplicateEntry, FileStorage, LeaseLost, OutcomeUnknown, Queue, StorageFailed
from duraq.journal.log import Sizes
from duraq.operations import Complete, Enqueue, Release
from duraq.storage.base import Limits
from duraq.storage.calls import TOGETHER, Call, Calls, together
from duraq.storage.fold import NoRoom

SOON = 30  # seconds; only so that a failing test ends


class Disk:
    """Writes only when it is let; what it was asked for is kept."""

    def __init__(self):
        self.calls = Calls(self.write, self.write_all)
        self.let = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.groups = []
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
            error = self.refuse.get(call.changes)
            if isinstance(error, Exception):
                call.error = error
            elif error is not None:
                raise error
            else:
                self.end += 1
                call.position = self.end

    def has_begun(self):
        assert self.begun.acquire(timeout=SOON)

    def wait_until_waiting(self, count):
        while len(self.calls._waiting) < count:
            threading.Event().wait(0.001)


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
    for waiting, name in enumerate(names, start=1):
        others.append(pool.submit(disk.calls.run, name, None))
        disk.wait_until_waiting(waiting)
    return first, others


def test_one_writes_for_all_that_wait(disk, pool):
    """Calls that come while one is written are written together by one of them."""
    first, others = first_and_others(disk, pool, "a", "b", "c", "d")
    disk.let.release(2)
    assert [future.result(SOON) for future in (first, *others)] == [1, 2, 3, 4, 5]
    assert disk.groups == [["first"], ["a", "b", "c", "d"]]


def test_an_error_is_that_of_its_call(disk, pool):
    """What one call may not do is raised where it was called, and nowhere else."""
    disk.refuse["b"] = DuplicateEntry("b is there")
    first, others = first_and_others(disk, pool, "a", "b", "c")
    disk.let.release(2)
    first.result(SOON)
    with pytest.raises(DuplicateEntry, match="b is there"):
        others[1].result(SOON)
    assert [others[0].result(SOON), others[2].result(SOON)] == [2, 3]


def test_the_main_thread_writes_for_itself(disk, pool):
    """The main thread, which a signal may interrupt at any moment, never writes for others."""
    first, others = first_and_others(disk, pool, "a", "b")
    disk.refuse["main"] = KeyboardInterrupt()
    disk.let.release(3)
    with pytest.raises(KeyboardInterrupt):
        disk.calls.run("main", None)
    for future in (first, *others):
        future.result(SOON)
    assert ["main"] in disk.groups
    assert not any("main" in group and len(group) > 1 for group in disk.groups)


def test_an_interrupted_wait(disk, pool, monkeypatch):
    """The main thread may be interrupted while it waits, and holds up nobody."""
    first, others = first_and_others(disk, pool, "a")
    signal.setitimer(signal.ITIMER_REAL, 0.05)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            disk.calls.run("main", None)
    finally:
        signal.signal(signal.SIGALRM, before)
    disk.let.release(2)
    assert [first.result(SOON), others[0].result(SOON)] == [1, 2]


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


def together_in(storage, pool, *calls):
    """Have these written while a turn of somebody else ends, so that they come together."""
    futures = []
    with storage._calls._gate:
        for waiting, (function, *arguments) in enumerate(calls, start=1):
            futures.append(pool.submit(function, *arguments))
            while len(storage._calls._waiting) < waiting:
                threading.Event().wait(0.001)
    return futures


@pytest.fixture
def storage(tmp_path):
    with FileStorage(tmp_path / "queues", sizes=Sizes(journal=16 << 10, segment=2 << 10)) as storage:
        yield storage


def test_one_frame_for_many_threads(storage, pool):
    """What waits together is written as one frame, and what may not be is refused to its own thread."""
    queue = Queue("jobs", storage)
    queue.enqueue(0, id="taken")
    frames = []
    append = storage._log.journal.append
    storage._log.journal.append = lambda parts, *rest, **options: (
        frames.append(parts),
        append(parts, *rest, **options),
    )[1]
    futures = together_in(
        storage,
        pool,
        (queue.enqueue, 1),
        (lambda: queue.enqueue(2, id="taken"),),
        (queue.enqueue, 3),
    )
    with pytest.raises(DuplicateEntry):
        futures[1].result(SOON)
    assert {futures[0].result(SOON), futures[2].result(SOON)} == {entry.id for entry in queue.entries()[1:]}
    assert len(frames) == 1


def test_a_refusal_is_final(storage, pool, monkeypatch):
    """A call that was refused in a group is not written after all when the group has to be decided again."""
    queue = Queue("jobs", storage)
    queue.enqueue("old", id="taken")
    entry = queue.dequeue()
    write, room = storage._write, iter([NoRoom(), NoRoom()])

    def no_room(*arguments, **options):
        for error in room:
            raise error
        return write(*arguments, **options)

    def make_room(*_):
        with storage._turn:
            storage._state("jobs")
            write({"jobs": [Complete("taken", entry.token)]})

    monkeypatch.setattr(storage, "_write", no_room)
    monkeypatch.setattr(storage, "_make_room_for", make_room)
    futures = together_in(
        storage, pool, (lambda: queue.enqueue("new", id="taken"),), (queue.enqueue, 1), (queue.enqueue, 2)
    )
    with pytest.raises(DuplicateEntry):
        futures[0].result(SOON)
    for future in futures[1:]:
        future.result(SOON)
    assert sorted(entry.data for entry in queue.entries()) == [1, 2]


def test_nobody_knows_for_a_whole_group(storage, pool, monkeypatch):
    """If nobody can say whether a group was written, each of its calls is told so."""
    queue = Queue("jobs", storage)
    queue.enqueue(0)

    def unknown(*_, **__):
        raise OutcomeUnknown("who knows", path="there", hint="look")

    monkeypatch.setattr(storage._log, "append", unknown)
    for future in together_in(storage, pool, (queue.enqueue, 1), (queue.enqueue, 2)):
        with pytest.raises(OutcomeUnknown, match="who knows"):
            future.result(SOON)


def test_what_is_no_operation(storage, pool):
    """What cannot be written fails where it was asked for; what there is nothing of is no failure."""
    queue = Queue("jobs", storage)
    futures = together_in(
        storage,
        pool,
        (queue.enqueue, 1),
        (storage.commit, {"jobs": [Enqueue("bad", None, fresh=True)]}),
        (queue.enqueue, 2),
    )
    with pytest.raises(TypeError):
        futures[1].result(SOON)
    futures[0].result(SOON)
    futures[2].result(SOON)
    storage.commit({})
    storage.commit({"jobs": ()})
    assert sorted(entry.data for entry in queue.entries()) == [1, 2]


def test_many_threads_on_one_storage(storage, pool, tmp_path):
    """Threads that enqueue, are refused, and complete at once each get what is theirs."""
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
    storage.close()
    with FileStorage(tmp_path / "queues") as again:
        assert Queue("jobs", again).counts() == Counts()


def test_a_handler_that_commits(storage, pool):
    """A signal handler that commits in the middle of a commit is refused, and nobody waits for ever."""
    queue = Queue("jobs", storage)
    queue.enqueue(0)
    pwrite, told = storage._fs.pwrite, []

    def handle():
        try:
            queue.enqueue("from the handler")
        except StorageFailed as error:
            told.append(error)

    def interrupted(*arguments):
        if not told:
            other = pool.submit(queue.enqueue, "other")
            while not storage._calls._waiting:
                threading.Event().wait(0.001)
            handle()
            told.append(other)
        return pwrite(*arguments)

    storage._fs.pwrite = interrupted
    queue.enqueue("main")
    storage._fs.pwrite = pwrite
    error, other = told
    assert "signal handler" in str(error)
    other.result(SOON)
    assert [entry.data for entry in queue.entries()] == [0, "main", "other"]
