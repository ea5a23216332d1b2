"""A disk that takes its time: what waits for it loses no lease by that, and nobody else waits."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
from evidence import count

from duraq import Cause, Counts, FileStorage, FixedDelay, LeaseLost, Queue
from duraq.journal.filesystem import RealFileSystem

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
LEASE = timedelta(seconds=3)
SOON = 60  # seconds; only so that a failing test ends
RETRIES = FixedDelay(max_attempts=99, delay=timedelta(0))


class SlowDisk(RealFileSystem):
    """Whatever ``meanwhile`` does happens during each sync of a journal or a segment."""

    def __init__(self):
        super().__init__()
        self.meanwhile = lambda: None
        datasync = self.datasync
        self.datasync = lambda fd: (self.meanwhile(), datasync(fd))[1]


@pytest.fixture
def disk():
    return SlowDisk()


@pytest.fixture
def open_queue(tmp_path, clock):
    """The queue, as another process has it; everything is closed in the end."""
    opened = []

    def open_queue(**options):
        opened.append(FileStorage(tmp_path / "storage", clock=clock, lock_duration=LEASE, **options))
        return Queue("jobs", opened[-1], retry_policy=RETRIES)

    yield open_queue
    for storage in opened:
        storage.close()


def test_a_lease_is_whole_when_it_is_given(open_queue, disk, clock):
    """However long an entry had to be waited for until it was durable, its holder has all of the lease."""
    others, mine = open_queue(durability="process"), open_queue(file_system=disk)
    others.enqueue_many([1, 2])
    disk.meanwhile = lambda: clock.advance(2 * LEASE)
    entries = mine.dequeue(limit=2)
    assert [entry.data for entry in entries] == [1, 2]
    clock.advance(LEASE - timedelta(microseconds=1))
    assert others.dequeue() is None
    assert [entry.lease_deadline for entry in entries] == [
        mine.get(entry.id).lease_deadline for entry in entries
    ]
    mine.mark_completed_many(entries)
    count("processes")


def test_a_lease_that_ended_is_not_given(open_queue, disk, clock):
    """An entry that somebody else was given while it had to be waited for is not given as well."""
    others, mine = open_queue(durability="process"), open_queue(file_system=disk)
    others.enqueue_many([1, 2])
    taken = []

    def meanwhile():
        disk.meanwhile = lambda: None
        clock.advance(2 * LEASE)
        taken.append(others.dequeue())

    disk.meanwhile = meanwhile
    (entry,) = mine.dequeue(limit=2)
    assert (entry.data, taken[0].data, taken[0].errors[0].cause) == (2, 1, Cause.TIMED_OUT)
    mine.mark_completed(entry)
    others.mark_completed(taken[0])
    assert mine.counts() == Counts()
    count("processes")


def test_a_lease_is_extended_at_once(open_queue, disk, clock):
    """A lease can be extended while the disk does not answer, by any number of threads."""
    queue = open_queue(file_system=disk)
    queue.enqueue_many([1, 2])
    held = queue.dequeue(limit=2)
    begun, goes_on = threading.Event(), threading.Event()

    def meanwhile():
        begun.set()
        assert goes_on.wait(SOON)

    disk.meanwhile = meanwhile
    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(queue.enqueue, 3)
        assert begun.wait(SOON)
        for _ in range(3):
            clock.advance(LEASE / 2)
            for entry in held:
                queue.extend(entry)
        goes_on.set()
        stuck.result(SOON)
    disk.meanwhile = lambda: None
    queue.mark_completed_many(held)
    count("processes")


def test_a_holder_that_waits_for_the_disk(open_queue, disk, clock):
    """What a process holds that hangs in a sync is taken at its deadline; others' disks are their own."""
    others, mine = open_queue(), open_queue(file_system=disk)
    others.enqueue(1)
    held = mine.dequeue()
    begun, goes_on = threading.Event(), threading.Event()

    def meanwhile():
        begun.set()
        assert goes_on.wait(SOON)

    disk.meanwhile = meanwhile
    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(mine.enqueue, 2)
        assert begun.wait(SOON)
        clock.advance(LEASE)
        entry = others.dequeue()
        assert (entry.id, entry.errors[0].cause) == (held.id, Cause.TIMED_OUT)
        goes_on.set()
        stuck.result(SOON)
    disk.meanwhile = lambda: None
    with pytest.raises(LeaseLost):
        mine.mark_completed(held)
    others.mark_completed(entry)
    count("processes")


SLOWED_DOWN = """
queue = Queue("jobs", FileStorage(sys.argv[1], lock_duration=timedelta(seconds=3)))
say("ready")
listen()
entry = queue.dequeue(wait=timedelta(minutes=1))
say("has", entry.attempts)
listen()
queue.mark_completed(entry)
say("completed")
"""


@pytest.mark.skipif(not DEEP, reason="takes ten seconds, and the others show the same in no time")
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is what slows the system call down")
def test_a_real_process(start_worker, tmp_path):
    """A process of which each sync takes longer than a lease holds what it is given, and completes it."""
    program = start_worker(SLOWED_DOWN)
    program.hear("ready")
    with FileStorage(tmp_path / "storage", durability="process") as storage, slowed_down(program.pid, 4):
        others = Queue("jobs", storage)
        others.enqueue(1)
        program.go_on()
        assert program.hear("has") == [1]
        assert others.dequeue() is None
        program.go_on()
        program.hear("completed")
        assert others.counts() == Counts()
    count("processes")


@contextmanager
def slowed_down(pid, seconds):
    delay = f"inject=fdatasync:delay_enter={seconds * 1_000_000}"
    command = ["strace", "-f", "-p", str(pid), "-o", "/dev/null", "-e", "trace=fdatasync", "-e", delay]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        try:
            said = strace.stderr.readline()
            if "attached" not in said:
                pytest.skip(f"strace cannot attach here: {said}")
            yield
        finally:
            strace.terminate()
