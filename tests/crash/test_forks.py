"""Forks at any time, by a program whose threads are in the middle of everything."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pytest
from evidence import count

from duraq import Cause, Counts, FileStorage, Queue

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
FORKS = 500 if DEEP else 40  # of each seed
PATIENCE = timedelta(minutes=1)

pytestmark = pytest.mark.timeout(3600)

# Every child is one of these. One that does not end in time is ended by its alarm, and says nothing.
CHILDREN = """
import multiprocessing, random, traceback
from pathlib import Path
from duraq import StorageForked

PATH = sys.argv[1]
storage = FileStorage(PATH)
jobs, anchor = Queue("jobs", storage), Queue("anchor", storage)
anchor.enqueue("a")
held = anchor.dequeue()

def inherited():
    found = []
    for fd in filter(os.path.lexists, Path("/proc/self/fd").iterdir()):
        link = Path(os.readlink(fd))
        locked = "lock:" in Path("/proc/self/fdinfo", fd.name).read_text()
        # What nobody locks, a directory or a segment that was just being opened, does no harm.
        if link.is_relative_to(PATH) and (locked or link.parent.name in {"journal", "leases", "waiters"}):
            found.append((str(link.relative_to(PATH)), locked))
    return found

def look():
    assert inherited() == [], inherited()

def use():
    for act in (
        jobs.counts,
        jobs.dequeue,
        lambda: jobs.dequeue(wait=timedelta(minutes=5)),
        lambda: jobs.enqueue(1),
        lambda: jobs.enqueue_many([1, 2]),
        lambda: anchor.mark_completed(held),
        lambda: anchor.release(held.id),
        lambda: anchor.extend(held),
        lambda: storage.compact("jobs"),
        storage.queues,
        storage.transaction().__enter__,
    ):
        try:
            act()
        except StorageForked:
            continue
        raise AssertionError(act)

def close():
    storage.close()
    storage.close()

def open_it():
    with FileStorage(PATH) as mine:
        queue = Queue("children", mine)
        # Its descriptors have the numbers of those that were the parent's.
        use()
        entry_id = queue.enqueue(1)
        entry = queue.dequeue()
        assert entry.id == entry_id
        queue.mark_completed(entry)

def leave():
    sys.exit(0)

def execute():
    os.execv("/bin/true", ["true"])

def holds(fd):
    return "lock:" in Path("/proc/self/fdinfo", str(fd)).read_text()

def fork(act):
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(60)
    try:
        act()
    except SystemExit:
        raise
    except BaseException:
        say("wrong:", act.__name__, traceback.format_exc().replace("\\n", " | "))
        os._exit(1)
    os._exit(0)
"""

STORM = (
    CHILDREN
    + """
def work():
    while not stop.is_set():
        jobs.enqueue_many(["x" * 100] * 3)
        with storage.transaction():
            jobs.enqueue("y")
            jobs.mark_completed_many(jobs.dequeue(limit=2))
        jobs.mark_completed_many(jobs.dequeue(limit=9))

def come_and_go():
    while not stop.is_set():
        with FileStorage(PATH, durability="batched") as other:
            Queue("others", other).enqueue(1)
            Queue("others", other).dequeue()

def wait():
    while not stop.is_set():
        Queue("nothing", storage).dequeue(wait=timedelta(milliseconds=20))

chance, stop = random.Random({seed}), threading.Event()
threads = [threading.Thread(target=target) for target in (work, work, come_and_go, wait)]
for thread in threads:
    thread.start()
for _ in range({forks}):
    stop.wait(chance.uniform(0, 0.004))
    act = chance.choice([look, use, close, open_it, leave, execute])
    status = os.waitstatus_to_exitcode(os.waitpid(fork(act), 0)[1])
    if status or not holds(storage._log._presence) or not holds(storage._presence._held[0]):
        say("status:", act.__name__, status)
stop.set()
for thread in threads:
    thread.join()
say("over")
listen()
anchor.mark_completed(held)
storage.close()
"""
)


@pytest.fixture
def anchor(tmp_path):
    """A queue of which the program holds the only entry, as another process sees it."""
    with FileStorage(tmp_path / "storage") as storage:
        yield Queue("anchor", storage)


@pytest.mark.parametrize("seed", range(4 if DEEP else 1))
def test_a_storm(start_worker, anchor, seed):
    """No child hangs or keeps anything, each is told that it was forked, and the parent loses nothing."""
    program = start_worker(STORM.replace("{seed}", str(seed)).replace("{forks}", str(FORKS)))
    said = []
    while (line := program.process.stdout.readline()) != "over\n":
        assert line, said
        said.append(line)
    assert said == [], f"seed {seed}"
    # A child that had ended its parent's lease, or its presence, would have given the entry to us.
    assert anchor.dequeue() is None
    program.go_on()
    assert program.end() == (0, [])
    assert anchor.counts() == Counts()
    count("processes", FORKS)


TURN = (
    CHILDREN
    + """
def turn():
    with storage._turn:
        entered.set()
        left.wait()

entered, left = threading.Event(), threading.Event()
thread = threading.Thread(target=turn)
thread.start()
entered.wait()
for act in (look, use, close, leave, execute):
    status = os.waitstatus_to_exitcode(os.waitpid(fork(act), 0)[1])
    say(act.__name__, status, holds(storage._log.control.fd))
left.set()
thread.join()
say("left", holds(storage._log.control.fd))
anchor.mark_completed(held)
"""
)


def test_in_the_middle_of_a_turn(start_worker, anchor):
    """Whatever a child does that was forked while another thread had the lock, that thread still has it."""
    program = start_worker(TURN)
    for act in ("look", "use", "close", "leave", "execute"):
        assert program.hear(act) == [0, "True"]
        count("processes")
    assert program.hear("left") == ["False"]
    assert program.end() == (0, [])
    assert anchor.counts() == Counts()


LIVES_ON = (
    CHILDREN
    + """
def live_on():
    os.write(told, b"x")
    listen()
    say("lives")

telling, told = os.pipe()
fork(live_on)
os.read(telling, 1)
"""
)


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(0)", "sys.exit(0)"])
def test_a_child_that_lives_on(start_worker, anchor, end):
    """However a process ends, what it held is ready at once, although a child of it lives on."""
    program = start_worker(LIVES_ON + end)
    assert program.process.wait(PATIENCE.seconds) in {0, -signal.SIGKILL}
    entry = anchor.dequeue()
    assert (entry.attempts, entry.errors[0].cause) == (2, Cause.WORKER_DIED)
    program.go_on()
    program.hear("lives")
    count("processes")


MULTIPROCESSING = (
    CHILDREN
    + """
context = multiprocessing.get_context("fork")
children = [context.Process(target=act) for act in (look, use, close, open_it, leave)]
for child in children:
    child.start()
for child in children:
    child.join(60)
say("exits", *(child.exitcode for child in children))
listen()
anchor.mark_completed(held)
"""
)


def test_multiprocessing(start_worker, anchor):
    """The same holds for the children of multiprocessing."""
    program = start_worker(MULTIPROCESSING)
    assert program.hear("exits") == [0] * 5
    assert anchor.dequeue() is None
    program.go_on()
    assert program.end() == (0, [])
    assert anchor.counts() == Counts()
    count("processes", 5)
