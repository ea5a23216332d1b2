"""Trying out a storage, while everything that can be wrong with it is; and checks asked together."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from duraq import FileStorage, InvalidOption, Queue, StorageError
from duraq.health import (
    HealthCheckAggregator,
    HealthResult,
    HealthStatus,
    MetricsHealthCheck,
    QueueHealthCheck,
    StorageHealthCheck,
    worst,
)
from duraq.health import metrics as metrics_check
from duraq.inspector import Inspector
from duraq.journal import opening, poison, probe
from duraq.journal.filesystem import RealFileSystem, Space
from duraq.journal.probe import SCRATCH
from duraq.ledger import Counters
from duraq.metrics import QueueMetrics
from duraq.model import Counts
from duraq.testing import KillingFileSystem, MemoryFileSystem

HEALTHY, DEGRADED, UNHEALTHY = HealthStatus
SHORT = timedelta(milliseconds=50)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "storage"


@pytest.fixture
def storage(path, clock):
    with FileStorage(path, clock=clock) as storage:
        yield storage


def left(path):
    """Scratch files that lie beside the journal."""
    return [file.name for file in (path / "journal").iterdir() if file.name.startswith(SCRATCH)]


def check(path, **options):
    """The storage check, but for how full this machine's disk is."""
    return StorageHealthCheck(path, **{"min_free": 0} | options).check()


# -- the storage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["storage", "path", "inspector"])
def test_a_healthy_storage(storage, path, given):
    """It is written, synced and read back, with nothing left behind, whatever the check is made with."""
    Queue("jobs", storage).enqueue("x")
    before = sorted(path.rglob("*"))
    with Inspector(path) as inspector:
        result = check({"storage": storage, "path": path, "inspector": inspector}[given])
    assert (result.component, result.status) == ("storage", HEALTHY)
    assert result.details["sync_seconds"] >= 0
    assert result.details["free_bytes"] > 0
    assert sorted(path.rglob("*")) == before


def test_without_writing(storage, path):
    """If it is told not to, it makes no file, not even for a moment."""

    class Reading(RealFileSystem):
        def open_file(self, directory, name, *, create=False, exclusive=False, writable=True):
            assert (create, exclusive, writable) == (False, False, False)
            return super().open_file(directory, name, writable=False)

    result = check(path, write=False, file_system=Reading())
    assert result.status is HEALTHY
    assert "sync_seconds" not in result.details


def test_a_storage_that_nobody_opened_yet(path):
    """One that was only just made, and has no lock yet, can be checked as well."""
    fs = RealFileSystem()
    path.mkdir()
    root = fs.open_root(str(path))
    opening.make_or_check(fs, root, str(path), 1 << 16, create=True)
    fs.close(root)
    assert check(path).status is HEALTHY


def test_no_storage(path):
    """Where there is none the check says so, and makes none."""
    path.mkdir()
    result = HealthCheckAggregator([StorageHealthCheck(path)]).check_all()["storage"]
    assert result.status is UNHEALTHY
    assert "duraq.json" in result.message
    assert list(path.iterdir()) == []


def test_slow_syncs(storage, path, clock):
    """A disk on which a sync takes longer than it may is degraded."""

    class Slow(RealFileSystem):
        def __init__(self, seconds):
            super().__init__()
            self.datasync = lambda fd: (os.fdatasync(fd), clock.advance(timedelta(seconds=seconds)))

    assert check(storage, file_system=Slow(1)).status is HEALTHY
    result = check(storage, file_system=Slow(1.5))
    assert (result.status, result.details["sync_seconds"]) == (DEGRADED, 1.5)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("pwrite", errno.ENOSPC),
        ("open_file", errno.ENOSPC),
        ("open_file", errno.EROFS),
        ("open_file", errno.EACCES),
        ("datasync", errno.EIO),
        ("pread", errno.EIO),
    ],
)
def test_a_disk_that_fails(call, error):
    """Whatever the disk refuses, the storage is unhealthy with that error, and nothing is left behind."""
    fs = on_a_disk()
    fs.fail(call, error, name=SCRATCH + "*")
    result = check("/storage", file_system=fs)
    assert result.status is UNHEALTHY
    assert os.strerror(error) in result.message
    assert ("--no-write" in result.message) == (error == errno.EACCES)
    assert not any(SCRATCH in name for name in fs.files())
    assert fs.opened == []
    assert check("/storage", file_system=fs).status is HEALTHY


def on_a_disk(capacity=None):
    fs = MemoryFileSystem(capacity=capacity)
    root = fs.open_root("/storage", create=True)
    opening.make_or_check(fs, root, "/storage", 1 << 16, create=True)
    fs.close(root)
    return fs


def test_a_full_disk():
    """A disk on which a write comes out short is full: unhealthy."""
    fs = on_a_disk()
    fs.capacity = fs.used + 4096
    result = check("/storage", file_system=fs)
    assert result.status is UNHEALTHY
    assert "the disk is full" in result.message
    assert os.strerror(errno.ENOSPC) in result.message
    assert not any(SCRATCH in name for name in fs.files())


def test_bytes_that_come_back_changed(path, storage):
    """What is read back is compared with what was written."""

    class Lying(RealFileSystem):
        def __init__(self):
            super().__init__()
            # Only what the check has written is so long.
            self.pread = lambda fd, length, at: os.pread(fd, length, at)[:: -1 if length > 4096 else 1]

    result = check(path, file_system=Lying())
    assert result.status is UNHEALTHY
    assert "read back" in result.message


@pytest.mark.parametrize(
    ("space", "min_free", "status"),
    [
        (Space(1000 << 20, 100 << 20, 0, 0), 0.1, HEALTHY),
        (Space(1000 << 20, (100 << 20) - 1, 0, 0), 0.1, DEGRADED),
        (Space(1000 << 20, 100 << 20, 0, 0), 100 << 20, HEALTHY),
        (Space(1000 << 20, 100 << 20, 0, 0), (100 << 20) + 1, DEGRADED),
        (Space(1000 << 20, 16 << 20, 0, 0), 0, HEALTHY),
        (Space(1000 << 20, (16 << 20) - 1, 0, 0), 0, UNHEALTHY),
        (Space(1000 << 20, 500 << 20, 100, 10), 0.1, HEALTHY),
        (Space(1000 << 20, 500 << 20, 100, 9), 0.1, DEGRADED),
        (Space(1000 << 20, 500 << 20, 100, 0), 0, UNHEALTHY),
    ],
)
def test_free_space(path, storage, space, min_free, status):
    """Bytes and files may become as few as was said, and no fewer; without room to go on it is unhealthy."""

    class Sized(RealFileSystem):
        def space(self, fd):
            return space

    assert check(path, min_free=min_free, file_system=Sized()).status is status


def test_how_much_is_free_is_asked_of_the_system(path, storage):
    """The numbers are those of the file system that the journal is on."""
    about = os.statvfs(path)
    assert check(path).details["total_bytes"] <= about.f_blocks * about.f_frsize


@pytest.mark.parametrize("option", [{"min_free": 1.5}, {"min_free": -1}, {"max_sync": -SHORT}])
def test_wrong_options(path, option):
    """What can mean nothing is refused when the check is made."""
    with pytest.raises(InvalidOption, match=next(iter(option))):
        StorageHealthCheck(path, **option)


# -- scratch files -----------------------------------------------------------------------------------------

KILLED = """
import sys
from duraq.journal.probe import Probe
from duraq.testing import KillingFileSystem
with Probe(sys.argv[1], KillingFileSystem(int(sys.argv[2]))) as probe:
    probe.write()
"""


def test_a_killed_check(path, storage):
    """A check that is killed at any moment leaves a file at most, which the next one removes."""
    counting = KillingFileSystem()
    check(path, file_system=counting)
    seen = set()
    for n in range(1, 100):
        done = subprocess.run([sys.executable, "-W", "error", "-c", KILLED, path, str(n)], check=False)
        seen.update(found := left(path))
        assert len(found) <= 1
        assert check(path).status is HEALTHY
        assert left(path) == []
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert n <= counting.calls + 1
    assert len(seen) >= 3


def test_nobody_minds_a_scratch_file(path, clock):
    """A file that a killed check has left is nothing to those who open, recover or read the storage."""
    with FileStorage(path, clock=clock) as storage:
        Queue("jobs", storage).enqueue("x")
        (path / "journal" / (SCRATCH + "0")).write_bytes(b"x" * 100)
        with Inspector(path) as inspector:
            assert inspector.counts("jobs").ready == 1
    (path / "journal" / "lock").write_bytes(b"")
    with FileStorage(path, clock=clock) as storage:
        assert storage.counts("jobs").ready == 1


def test_checks_at_once(path, storage):
    """Any number of checks of one storage come to the same result, and leave nothing."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(check(path).status)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [HEALTHY] * 8
    assert left(path) == []


# -- the lock ----------------------------------------------------------------------------------------------

HOLDER = """
import sys
from duraq import FileStorage
with FileStorage(sys.argv[1]) as storage, storage._turn:
    print(flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(path, *, stopped):
    """A process that has the storage's lock."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdin=pipe, stdout=pipe) as process:
        process.stdout.readline()
        if stopped:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            yield process
        finally:
            process.kill()


def test_a_stopped_holder(path, storage):
    """If the holder of the lock is stopped the check says who it is, and does not hang."""
    with holder(path, stopped=True) as process:
        result = check(path, max_lock_wait=SHORT)
    assert result.status is UNHEALTHY
    assert f"process {process.pid} has it, which is stopped" in result.message
    assert result.details["lock_holder"] == process.pid
    assert result.details["lock_wait_seconds"] >= SHORT.total_seconds()
    assert check(path).status is HEALTHY


def test_the_lock_left_alone(path, storage):
    """Whoever does not want the lock is told all the same if its holder is stopped, and waits for nobody."""
    alone = StorageHealthCheck(path, min_free=0, write=False, lock=False)
    assert alone.check().status is HEALTHY
    with holder(path, stopped=False):
        assert alone.check().status is HEALTHY
    with holder(path, stopped=True) as process:
        (lock,) = [each for each in alone.check_each() if each.component == "lock"]
    assert lock.status is UNHEALTHY
    assert f"process {process.pid} has the lock, which is stopped" in lock.message
    assert "lock_wait_seconds" not in lock.details


def test_no_check_hangs(path, storage):
    """Queues and metrics are looked at, with the open storage too, while the lock's holder is stopped."""
    Queue("jobs", storage).enqueue("x")
    checks = [
        StorageHealthCheck(storage, min_free=0, max_lock_wait=SHORT),
        MetricsHealthCheck(storage),
        QueueHealthCheck(storage),
    ]
    with holder(path, stopped=True):
        found = HealthCheckAggregator(checks).check_all()
    assert [result.status for result in found.values()] == [UNHEALTHY, HEALTHY, HEALTHY]


def test_a_lock_that_comes_in_time(path, storage):
    """A holder that gives the lock up within the bound is no trouble."""
    with holder(path, stopped=False) as process:
        timer = threading.Timer(0.05, process.stdin.close)
        timer.start()
        result = check(path, max_lock_wait=timedelta(seconds=60))
        timer.join()
    assert result.status is HEALTHY
    assert result.details["lock_wait_seconds"] > 0


def test_a_busy_lock(path, storage):
    """If the lock cannot be had because others use it, and get on, that is degraded and no more."""
    queue = Queue("jobs", storage)

    class Late(RealFileSystem):
        def try_lock(self, fd):
            queue.enqueue("somebody was first")
            return False

    result = check(path, max_lock_wait=SHORT, file_system=Late())
    assert result.status is DEGRADED
    assert "others write" in result.message


def test_a_holder_that_is_not_known(path, storage, monkeypatch):
    """Where the system does not tell who has a lock, the rest is said all the same."""
    monkeypatch.setattr(probe, "_holder", lambda device, inode: None)
    with holder(path, stopped=True):
        result = check(path, max_lock_wait=SHORT)
    assert result.status is UNHEALTHY
    assert "lock_holder" not in result.details


# -- marks -------------------------------------------------------------------------------------------------


def marked(path, epoch):
    fs = RealFileSystem()
    directory = os.open(path / "journal", os.O_RDONLY)
    poison.mark(fs, directory, epoch)
    os.close(directory)


def test_poison(path, storage):
    """A journal file whose sync has failed is told of, for as long as it is one of the pair."""
    marked(path, 1)
    assert "cannot be trusted" in check(path).message
    assert check(path).status is DEGRADED
    marked(path, 0)
    assert check(path).status is HEALTHY


def test_poison_of_a_storage_that_nobody_has_open(path):
    """The same, where only the journal itself can say how far it has come."""
    FileStorage(path).close()
    (path / "journal" / "lock").write_bytes(b"")
    marked(path, 2)
    assert check(path).status is DEGRADED


def test_a_sync_that_could_not_be_made_good(path, storage):
    """A storage that accepts nothing any more is unhealthy, and the way out is said."""
    storage._log.failed_syncs.fail()
    result = check(path)
    assert result.status is UNHEALTHY
    assert "open it again" in result.message


def test_a_damaged_queue(stored):
    """A refused queue makes the storage unhealthy, and itself; the others are told as always."""
    stored.write("jobs", *range(100))
    stored.write("other", 1)
    os.truncate(stored.segments("jobs")[0], 100)
    with stored.opened():
        result = check(stored.path)
    assert (result.status, result.details["refused"]) == (UNHEALTHY, ["jobs"])
    ages = timedelta(days=3650)  # the entries were made long ago, by another clock than this machine's
    queues = QueueHealthCheck(stored.path, no_consumer_after=ages, max_oldest_ready=ages).check()
    assert queues.status is UNHEALTHY
    assert queues.details["queues"]["jobs"]["words"] == ["CORRUPT"]
    assert queues.details["queues"]["other"]["status"] == "healthy"
    metrics = MetricsHealthCheck(stored.path).check()
    assert metrics.status is UNHEALTHY
    assert list(metrics.details["unread"]) == ["jobs"]


def test_a_damaged_journal(stored):
    """If the journal itself cannot be read, every check that needs it says so, and none raises."""
    stored.write("jobs", *range(3))
    stored.journal(1).unlink()
    found = HealthCheckAggregator(
        [MetricsHealthCheck(stored.path), QueueHealthCheck(stored.path)]
    ).check_all()
    assert {result.status for result in found.values()} == {UNHEALTHY}
    assert found["queues"].details == {"error": "StorageDamaged"}


# -- metrics -----------------------------------------------------------------------------------------------


def test_numbers_that_contradict_each_other(clock, path, storage, monkeypatch):
    """If more is over or there than came in, or leases are missing, somebody should look."""
    well = QueueMetrics("jobs", None, counts=Counts(ready=1), counters=Counters(enqueued=1))
    assert metrics_check._doubt(well) is None
    assert metrics_check._doubt(replace(well, counters=Counters())) is not None
    assert metrics_check._doubt(replace(well, counts=Counts(leased=1))) is not None
    Queue("jobs", storage).enqueue("x")
    monkeypatch.setattr(metrics_check, "_doubt", lambda metrics: "no")
    assert MetricsHealthCheck(path).check().status is DEGRADED


# -- together ----------------------------------------------------------------------------------------------


class Fixed:
    """A check that always says the same."""

    def __init__(self, component, status):
        self.component = component
        self._status = status

    def check(self):
        return HealthResult(self.component, self._status, "as ever")


class Raising:
    component = "raising"

    def check(self):
        raise StorageError("no", path="here")


def test_the_worst_counts():
    """All together are as well as the worst of them; nothing at all is well."""
    assert HealthCheckAggregator([]).overall_status() is HEALTHY
    one, two, three = Fixed("one", HEALTHY), Fixed("two", DEGRADED), Fixed("three", UNHEALTHY)
    assert HealthCheckAggregator([one, two]).overall_status() is DEGRADED
    assert HealthCheckAggregator([three, two, one]).overall_status() is UNHEALTHY
    assert worst([HEALTHY, HEALTHY]) is HEALTHY
    assert list(HealthCheckAggregator([two, one]).check_all()) == ["two", "one"]


def test_a_check_that_raises():
    """It is unhealthy, with the error, and keeps no other from being asked."""
    found = HealthCheckAggregator([Raising(), Fixed("one", HEALTHY)]).check_all()
    assert found["raising"] == HealthResult(
        "raising", UNHEALTHY, "StorageError: here: no", {"error": "StorageError"}
    )
    assert found["one"].status is HEALTHY


def test_components_are_unique():
    """Two checks of one component would hide each other, and are refused."""
    with pytest.raises(InvalidOption, match="'one'"):
        HealthCheckAggregator([Fixed("one", HEALTHY), Fixed("one", DEGRADED)])


def test_an_inspector_may_be_given(storage, path, clock):
    """A check that is made with an Inspector refreshes it each time it is asked."""
    queue = Queue("jobs", storage)
    with Inspector(path, clock=clock) as inspector:
        checking = QueueHealthCheck(inspector, "jobs")
        assert checking.check().status is HEALTHY
        queue.enqueue("x")
        clock.advance(timedelta(minutes=3))
        assert checking.check().status is UNHEALTHY
        queue.dequeue()
        assert checking.check().status is HEALTHY
