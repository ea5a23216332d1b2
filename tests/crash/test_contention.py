"""Many at once on one storage: each gets its turn, and nobody's end or interest disturbs another."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from evidence import count

from duraq import Counts, FileStorage, Queue
from duraq.journal.log import Sizes
from duraq.testing import FakeClock, MemoryFileSystem

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
CONTENDERS = 64 if DEEP else 16
TURNS = 100 if DEEP else 5  # that each has had when it is over
SOON = 60  # seconds; only so that a failing test ends

pytestmark = pytest.mark.timeout(3600)

# They go on until each has had so many turns: one that is never let in would hold up the end for ever.
CONTEND = """
import select, time

def contend(number):
    longest, done = 0.0, 0
    with FileStorage(sys.argv[1], durability="process") as storage:
        queue = Queue(f"jobs-{number % 3}", storage)
        while not select.select([over], [], [], 0)[0]:
            begin = time.monotonic()
            queue.enqueue(number)
            queue.mark_completed_many(queue.dequeue(limit=2))
            longest = max(longest, time.monotonic() - begin)
            done += 1
            if done == {turns}:
                say("had", number)
    say("longest", f"{longest * 1000:.0f}", done)

over, tell = os.pipe()
children = []
for number in range({contenders}):
    children.append(os.fork())
    if not children[-1]:
        contend(number)
        os._exit(0)
listen()
os.write(tell, b"x")  # it is never read, so all of them see it
say("exits", *(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_each_gets_its_turn(start_worker, tmp_path):
    """Of many processes that take turns as fast as they can each has its share, and none is kept out."""
    program = start_worker(CONTEND.replace("{turns}", str(TURNS)).replace("{contenders}", str(CONTENDERS)))
    assert sorted(program.hear("had")[0] for _ in range(CONTENDERS)) == list(range(CONTENDERS))
    program.go_on()
    waits = [program.hear("longest") for _ in range(CONTENDERS)]
    print(f"longest turn {max(wait for wait, _ in waits)} ms, turns {sorted(turns for _, turns in waits)}")  # noqa: T201
    assert program.hear("exits") == [0] * CONTENDERS
    with FileStorage(tmp_path / "storage") as storage:
        counters = [Queue(name, storage).metrics().counters for name in storage.queues()]
    assert sum(each.enqueued for each in counters) == sum(turns for _, turns in waits)
    count("processes", CONTENDERS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "storage"


def test_threads_of_one_storage(path):
    """Each of many threads holds entries of its own; one that ends its leases ends nobody else's."""
    with FileStorage(path) as storage, FileStorage(path) as other:
        queue, others = Queue("jobs", storage), Queue("jobs", other)
        queue.enqueue_many(range(64))
        barrier = threading.Barrier(32)

        def work(number):
            barrier.wait(SOON)
            mine = queue.dequeue(limit=2)
            barrier.wait(SOON)
            if number % 2:
                queue.mark_completed_many(mine)
            barrier.wait(SOON)
            if number == 0:
                assert others.dequeue() is None
                assert others.counts() == Counts(leased=32)
            barrier.wait(SOON)
            if not number % 2:
                queue.mark_completed_many(mine)
            return mine

        with ThreadPoolExecutor(32) as pool:
            taken = [entry.data for mine in pool.map(work, range(32)) for entry in mine]
        assert sorted(taken) == list(range(64))
        assert others.counts() == Counts()
    count("processes")


def test_another_kind_of_lock(path, start_worker):
    """A lock of another kind (fcntl) that somebody has on its files is nothing to a storage."""
    with FileStorage(path) as storage:
        queue = Queue("jobs", storage)
        queue.enqueue_many([1, 2])
        held = queue.dequeue()
        program = start_worker("""
import fcntl
from pathlib import Path

path = Path(sys.argv[1])
files = [each.open("r+b") for each in (*path.glob("journal/*"), *path.glob("leases/*.json"))]
for file in files:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
say("locked", len(files))
listen()
""")
        assert program.hear("locked")[0] >= 6
        with FileStorage(path) as other:
            entry = Queue("jobs", other).dequeue()
            assert entry.data == 2
            Queue("jobs", other).mark_completed(entry)
        queue.mark_completed(held)
    count("processes")


def test_a_sync_that_began_before(one_thread):
    """Nobody is told that an entry is durable by a sync that began before it was written."""
    disk = MemoryFileSystem()
    options = {"clock": FakeClock(), "sizes": Sizes(journal=8 << 10, segment=2 << 10), "allow_network": True}
    storage = FileStorage("/storage", file_system=disk, **options)
    queue = Queue("jobs", storage)
    queue.enqueue("before")
    datasync, syncs = disk.datasync, []

    def slow(fd):
        datasync(fd)
        syncs.append(fd)
        if len(syncs) == 1:
            end = storage._log.journal.standing.end
            late.append(pool.submit(queue.enqueue, "late"))
            while storage._log.journal.standing.end == end:
                threading.Event().wait(0.001)

    late = []
    with ThreadPoolExecutor() as pool:
        disk.datasync = slow
        queue.enqueue("early")
        late[0].result(SOON)
    assert len(syncs) == 2
    survivors = FileStorage("/storage", file_system=disk.surviving(nothing=True), **options)
    assert [entry.data for entry in Queue("jobs", survivors).entries()] == ["before", "early", "late"]
    count("processes")
