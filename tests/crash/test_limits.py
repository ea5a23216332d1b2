"""Limits of a process that are reached while it works: descriptors, the size of files, what a user may do."""

import gc
import os
import resource
import threading
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from crash.children import child, in_child
from evidence import count

from duraq import DuraqError, FileStorage, NoRetry, NotEnqueued, Queue, StorageError, StorageReadOnly
from duraq.health import HealthCheckAggregator, MetricsHealthCheck, QueueHealthCheck, StorageHealthCheck
from duraq.inspector import Inspector
from duraq.journal.filesystem import RealFileSystem
from duraq.journal.log import Sizes

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SIZES = Sizes(journal=8 << 10, segment=2 << 10)
NOBODY = 65534
MOMENT = timedelta(milliseconds=1)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming nobody needs root")
pytestmark = pytest.mark.timeout(300)


# Descriptors


def descriptors():
    return sorted(int(each.name) for each in Path("/proc/self/fd").iterdir())


@contextmanager
def only(number):
    """With no more than so many descriptors left."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors()[-1] + 1 + number, hard))
    taken = []
    with suppress(OSError):
        while True:
            taken.append(os.dup(0))
    for fd in taken[:number]:
        os.close(fd)
    try:
        yield
    finally:
        for fd in taken[number:]:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Short:
    """A process that does all it can with so few descriptors, and remembers what it was told."""

    def __init__(self, root):
        self.root = root
        self.storage = None
        self.there = 0
        self.refused = []

    def open(self):
        if self.storage is None:
            self.storage = FileStorage(self.root, sizes=SIZES)
        return self.storage

    def queue(self, name="jobs"):
        return Queue(name, self.open(), str, retry_policy=NoRetry())

    def attempt(self, call, more=0):
        """Nothing but DuraQ's errors; what is refused did not happen."""
        try:
            found = call()
        except DuraqError as error:
            self.refused.append(str(error))
            return None
        self.there += more
        return found

    def work(self):
        self.attempt(lambda: self.open().queues())
        for _ in range(12):
            self.attempt(lambda: self.queue().enqueue("x" * 300), 1)
        self.attempt(lambda: self.queue("other").enqueue("x"))
        for end in (Queue.mark_completed, Queue.mark_failed, Queue.release):
            entry = self.attempt(lambda: self.queue().dequeue())
            if entry is not None:
                self.attempt(partial(self.queue().extend, entry))
                self.attempt(partial(end, self.queue(), entry.id), -(end is not Queue.release))
        self.attempt(lambda: self.queue("idle").dequeue(wait=MOMENT))
        self.attempt(self.transact, 1)
        for ask in (Queue.counts, Queue.entries, Queue.metrics, Queue.settle_lapsed):
            self.attempt(lambda ask=ask: ask(self.queue()))
        self.attempt(lambda: self.open().compact("jobs"))
        self.attempt(self.look)
        checks = [each(self.root) for each in (StorageHealthCheck, MetricsHealthCheck, QueueHealthCheck)]
        HealthCheckAggregator(checks).check_all()

    def transact(self):
        with self.open().transaction():
            self.queue().enqueue("x")
            self.queue("other").enqueue("x")

    def look(self):
        with Inspector(self.root) as inspector:
            inspector.overview("jobs")
            inspector.metrics("jobs")
            inspector.records()

    def close(self):
        if self.storage is not None:
            self.storage.close()
            self.storage = None


@pytest.mark.parametrize("opened", [True, False], ids=["while-open", "before-opening"])
@pytest.mark.parametrize("number", range(16) if DEEP else (0, 5, 11))
def test_so_few_descriptors(tmp_path, number, opened):
    """With ever so few descriptors left everything happens or is refused, and with more all goes on."""

    def job(told):
        threading.excepthook = lambda about: told.say(repr(about.exc_value))
        with FileStorage(tmp_path / "storage", sizes=SIZES) as other:
            # Somebody else's lease, so that it is asked whether he lives.
            Queue("jobs", other, str).enqueue("x", priority=1)
            held = Queue("jobs", other, str).dequeue()
            before = descriptors()
            short = Short(tmp_path / "storage")
            short.there = 1
            if opened:
                short.open()
            with only(number):
                short.work()
            if number < 8:
                assert any("ulimit -n" in error for error in short.refused)
            short.attempt(lambda: short.queue().enqueue("x"), 1)
            assert len(short.queue()) == short.there
            # Whatever was leased meanwhile, its holder knows it.
            while (entry := short.queue().dequeue()) is not None:
                short.queue().mark_completed(entry)
            short.close()
            assert len(descriptors()) == len(before)
            Queue("jobs", other, str).mark_completed(held)
            assert len(Queue("jobs", other, str)) == 0

    assert in_child(job) == ""
    count("failed system calls")


# The size of files


def test_files_that_may_not_grow_any_more(tmp_path):
    """Where a running process is forbidden larger files it is refused whole, goes on, and so do others."""

    def job(told):
        with FileStorage(tmp_path / "storage", sizes=Sizes(journal=64 << 10, segment=1 << 20)) as storage:
            queue, there = Queue("jobs", storage, str), 0
            for _ in range(10):
                queue.enqueue("x" * 500)
            told.say("ready")
            told.hear()
            with suppress(NotEnqueued):
                while True:
                    queue.enqueue("x" * 500)
                    there += 1
            assert len(queue) == 10 + there
            told.say("refused")
            told.hear()
            queue.enqueue("x" * 500)
            assert len(queue) == 11 + there
            told.say(f"there {11 + there}")

    with child(job) as limited:
        limited.listen("ready")
        hard = resource.prlimit(limited.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(limited.pid, resource.RLIMIT_FSIZE, (20_000, hard))
        limited.go_on()
        limited.listen("refused")
        with FileStorage(tmp_path / "storage") as storage:
            other = len(Queue("jobs", storage, str))
            Queue("jobs", storage, str).mark_completed(Queue("jobs", storage, str).dequeue())
            Queue("jobs", storage, str).enqueue("x")
            resource.prlimit(limited.pid, resource.RLIMIT_FSIZE, (hard, hard))
            limited.go_on()
            assert limited.end().endswith(f"there {other + 1}\n")
    count("failed system calls")


# What a user may do


@pytest.fixture
def nobodys(tmp_path):
    """A storage of nobody's with two queues, which nobody can get at."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and str(directory).startswith("/tmp/pytest"):
            directory.chmod(0o755)
    root = tmp_path / "storage"
    root.mkdir()
    os.chown(root, NOBODY, NOBODY)

    def job(_):
        os.setresuid(NOBODY, NOBODY, NOBODY)
        with FileStorage(root, sizes=SIZES) as storage:
            for name in ("good", "jobs"):
                Queue(name, storage, str).enqueue("x")

    in_child(job)
    return root


def as_nobody(job):
    def job_as_nobody(told):
        os.setresuid(NOBODY, NOBODY, NOBODY)
        job(told)

    assert in_child(job_as_nobody) == ""


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("part", ["jobs/segments/00000000000000000001.jsonl", "jobs/segments", "jobs"])
def test_a_queue_that_may_not_be_touched(nobodys, part):
    """What this user may not touch is refused by name; nothing is passed over, and no other queue is hurt."""

    def job(_):
        with FileStorage(nobodys, sizes=SIZES) as storage:
            (nobodys / part).chmod(0)
            name = part.rpartition("/")[2]
            for act in (
                lambda: Queue("jobs", storage, str).enqueue("y"),
                lambda: Queue("jobs", storage, str).dequeue(),
                lambda: Queue("jobs", storage, str).entries(),
            ):
                with pytest.raises(StorageError, match=name):
                    act()
            entry = Queue("good", storage, str).dequeue()
            Queue("good", storage, str).mark_completed(entry)
            with Inspector(nobodys) as inspector:
                assert inspector.counts("good").leased == 0
                with pytest.raises(StorageReadOnly, match=name):
                    inspector.counts("jobs")
            (nobodys / part).chmod(0o700)
            assert len(Queue("jobs", storage, str)) == 1

    as_nobody(job)


# Memory


class Poor(RealFileSystem):
    """Without memory from some moment of the opening on, so that nothing can be closed either."""

    is_poor = False

    def share_lock(self, fd):
        self.is_poor = True
        raise MemoryError

    def close(self, fd):
        if self.is_poor:
            raise MemoryError
        super().close(fd)


def test_an_opening_that_cannot_close_what_it_opened(tmp_path):
    """Once there is memory again it holds nobody up, and no collector of garbage is waited for."""
    poor = Poor()
    before = descriptors()
    gc.disable()
    try:
        try:
            FileStorage(tmp_path / "storage", file_system=poor)
        except MemoryError:
            poor.is_poor = False
        assert descriptors() == before
    finally:
        gc.enable()
    FileStorage(tmp_path / "storage").close()
