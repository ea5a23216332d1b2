"""Clocks that are set while processes run, reboots, and containers with clocks of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from evidence import count

from duraq import Cause, Counts, FileStorage, FixedDelay, Queue
from duraq.inspector import Inspector
from duraq.testing import FakeClock

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
JUMPS = 100 if DEEP else 10  # of each seed
LEASE = timedelta(minutes=5)
PATIENCE = timedelta(minutes=1)
RETRIES = FixedDelay(max_attempts=99, delay=timedelta(0))

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.timeout(3600)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


# -- somebody sets the clock -------------------------------------------------------------------------------

LIBFAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
TIMES = (
    "+1d",
    "-1d",
    "+400d",
    "-12y",
    "@1970-01-01 00:00:10",
    "@2038-01-19 03:14:05",
    "@2106-02-07 06:28:14",
    "@2200-02-28 23:59:59",
)
THE_END = "@2240-01-01 00:00:00"

HOLDER = """
queue = open_queue()
entry = queue.dequeue(wait=timedelta(minutes=1))
say("has", entry.attempts)
listen()
queue.mark_completed(entry)
say("completed")
"""

SET_BACK_AND_FORTH = """
import time

first, second = FileStorage(sys.argv[1]), FileStorage(sys.argv[1])
held, at_once, later, mortal = (Queue(name, first) for name in ("jobs", "at_once", "later", "mortal"))
shorts = [Queue("short", each, retry_policy=RETRIES) for each in (first, second)]
due, expiring = {}, {}

def look():
    # In order, and at once.
    ids = at_once.enqueue_many([*"ab"])
    entries = at_once.dequeue(limit=9)
    assert [entry.id for entry in entries] == ids
    at_once.mark_completed_many(entries)
    # Not before their time, by the clock as it is now.
    for entry in later.dequeue(limit=999):
        assert due.pop(entry.id) <= time.time()
        later.mark_completed(entry)
    assert [each for each in due.values() if each <= time.time()] == []
    due[later.enqueue(1, delay=timedelta(hours=1))] = time.time() + 3600
    # What was over once does not come back.
    expiring[mortal.enqueue(1, ttl=timedelta(hours=1))] = time.time() + 3600
    for entry_id in [each for each in expiring if expiring[each] <= time.time()]:
        del expiring[entry_id]
    assert [entry.id for entry in mortal.entries()] == list(expiring)
    assert at_once.metrics().oldest_ready_age is None
    assert mortal.metrics().oldest_ready_age >= timedelta(0)

def lease():
    # A deadline comes after the time that it was to, and no other lease ends.
    shorts[0].enqueue(1)
    late = shorts[0].dequeue()
    assert shorts[1].dequeue() is None
    shorts[0].extend(late, timedelta(milliseconds=1))
    entry = shorts[1].dequeue(wait=timedelta(minutes=1))
    assert (entry.attempts, entry.errors[0].cause) == (2, "timed_out")
    shorts[1].mark_completed(entry)
    assert held.dequeue(wait=timedelta(milliseconds=5)) is None

while listen() or True:
    look()
    lease()
    say("fine", int(time.time()), len(due), len(expiring))
"""


@pytest.mark.skipif(LIBFAKETIME is None, reason="faketime is not installed")
@pytest.mark.parametrize("seed", range(2 if DEEP else 1))
def test_the_clock_is_set(start_worker, tmp_path, monkeypatch, seed):
    """However the clock is set, no lease ends or goes on by it, and nothing is lost, early or misplaced."""
    setting = tmp_path / "setting"
    setting.write_text("+0\n")
    environment = {
        "LD_PRELOAD": str(LIBFAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(setting),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # and CLOCK_BOOTTIME, which nobody can set
        "NO_FAKE_STAT": "1",
    }
    with FileStorage(tmp_path / "storage") as storage:
        Queue("jobs", storage).enqueue(1)
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        holder, program = start_worker(HOLDER), start_worker(SET_BACK_AND_FORTH)
    assert holder.hear("has") == [1]
    chance, seen = Random(seed), set()
    for _ in range(JUMPS):
        setting.write_text(f"{chance.choice(TIMES)}\n")
        program.go_on()
        seen.add(program.hear("fine")[0])
    assert max(seen) - min(seen) > timedelta(days=365).total_seconds()
    setting.write_text(f"{THE_END}\n")
    program.go_on()
    # All of them but those of just now.
    assert program.hear("fine")[1:] == [1, 1]
    holder.go_on()
    holder.hear("completed")
    program.send(signal.SIGKILL)
    with Inspector(tmp_path / "storage") as inspector:
        assert {name: inspector.counts(name).length for name in inspector.queues()} == {
            "at_once": 0,
            "jobs": 0,
            "later": 1,
            "mortal": 1,
            "short": 0,
        }
    count("processes", JUMPS + 1)


# -- reboots -----------------------------------------------------------------------------------------------

TAKES_TWO = """
storage = FileStorage(sys.argv[1])
queue = Queue("jobs", storage)
queue.enqueue_many([1, 2, 3])
queue.dequeue()
storage.claim("jobs", 1, lease_for=3_600_000_000, detached=True)
say("has")
listen()
"""


def assert_all_leases_are_void(path, clock):
    """Of two leases, of a worker and of nobody, neither holds; and no time is less than nothing."""
    with Inspector(path, clock=clock) as inspector:
        assert [(lease.late, lease.alive) for lease in inspector.leases()] == [(True, False), (True, None)]
    with FileStorage(path, clock=clock, lock_duration=LEASE) as storage:
        queue = Queue("jobs", storage, retry_policy=RETRIES)
        assert queue.counts() == Counts(ready=1, leased=2)
        entries = queue.dequeue(limit=9)
        assert [(entry.data, entry.attempts) for entry in entries] == [(1, 2), (2, 2), (3, 1)]
        causes = [attempt.cause for entry in entries for attempt in entry.errors]
        assert causes == [Cause.WORKER_DIED, Cause.TIMED_OUT]
        with Inspector(path, clock=clock) as inspector:
            assert [lease.late for lease in inspector.leases()] == [False] * 3
        if isinstance(clock, FakeClock):
            clock.advance(LEASE - timedelta(microseconds=1))
        assert queue.dequeue() is None
        queue.mark_completed_many(entries)
        assert queue.counts() == Counts()
        assert min(queue.metrics().run.sum, queue.metrics().wait.sum) >= 0
    count("processes")


@pytest.fixture
def left_behind(start_worker, tmp_path):
    """A storage with two leases of a process that has gone with its machine."""
    program = start_worker(TAKES_TWO)
    program.hear("has")
    program.send(signal.SIGKILL)
    program.process.wait()
    return tmp_path / "storage"


def test_a_reboot(left_behind):
    """After a reboot no lease of before holds, however far away its deadline is; the next ones do."""
    assert_all_leases_are_void(left_behind, FakeClock(uptime=timedelta(seconds=2)))


IN_ITS_NEXT_LIFE = """
import sys
from pathlib import Path

sys.path.insert(0, "tests")
from crash.test_clocks import assert_all_leases_are_void
from duraq.clock import SystemClock

clock = SystemClock()
assert clock.boot_id == "00000000-0000-4000-8000-000000000002"
assert_all_leases_are_void(Path(sys.argv[1]), clock)
"""


@needs_root
@pytest.mark.root
def test_another_boot_id(left_behind, tmp_path):
    """The same for the machine's own clock, where the kernel gives itself another boot id."""
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("00000000-0000-4000-8000-000000000002\n")
    mount = f"mount --bind {boot_id} /proc/sys/kernel/random/boot_id"
    command = ["unshare", "--mount", "sh", "-c", f'{mount} || exit 77; exec "$@"', "sh"]
    command += [sys.executable, "-c", IN_ITS_NEXT_LIFE, str(left_behind)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(f"cannot mount over the boot id here: {done.stderr}")
    assert done.returncode == 0, done.stderr


# -- containers --------------------------------------------------------------------------------------------


def test_a_boot_id_of_its_own(tmp_path):
    """A container's boot id of its own keeps nobody from work: its leases end with its processes."""
    outside, inside = FakeClock(), FakeClock()
    inside.boot_id = "00000000-0000-4000-8000-00000000000c"
    with (
        FileStorage(tmp_path / "storage", clock=outside) as storage,
        FileStorage(tmp_path / "storage", clock=inside) as other,
    ):
        queue, theirs = Queue("jobs", storage, retry_policy=RETRIES), Queue("jobs", other)
        queue.enqueue_many([1, 2])
        held = theirs.dequeue()
        for clock in (outside, inside):
            clock.advance(2 * LEASE)
        with Inspector(tmp_path / "storage", clock=outside) as inspector:
            assert [lease.late for lease in inspector.leases()] == [False]
        entry = queue.dequeue()
        assert entry.data == 2
        queue.mark_completed(entry)
        looks = 0
        with storage.place("jobs") as place:
            # It sleeps, and does not find something to do again and again.
            while looks < 3 and place.look() is not None:
                looks += 1
        assert looks == 3
        theirs.mark_completed(held)
        assert queue.counts() == Counts()
    count("processes")


SHIFTED = """
storage = FileStorage(sys.argv[1], lock_duration=timedelta(minutes=5))
queue = Queue("jobs", storage, retry_policy=RETRIES)
say("clock", storage.clock.uptime())
entry = queue.dequeue(wait=timedelta(minutes=1))
say("has", entry.data)
listen()
# What is held outside of here is not late.
say("none", queue.dequeue())
queue.extend(entry, timedelta(milliseconds=1))
say("late")
listen()
"""


@needs_root
@pytest.mark.root
@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare makes the namespace")
@pytest.mark.parametrize("shift", [timedelta(days=10), timedelta(days=365), -timedelta(seconds=100)])
def test_a_time_namespace(start_worker, tmp_path, shift):
    """Deadlines are the same inside and outside of a time namespace, whose clocks are ahead or behind."""
    shifted = ["unshare", "--time", "--monotonic", f"{shift.total_seconds():.0f}"]
    shifted += ["--boottime", f"{shift.total_seconds():.0f}"]
    if subprocess.run([*shifted, "true"], check=False).returncode:
        pytest.skip("cannot make a time namespace here")
    with FileStorage(tmp_path / "storage") as storage:
        queue = Queue("jobs", storage, retry_policy=RETRIES)
        queue.enqueue_many([1, 2])
        held = queue.dequeue()
        program = start_worker(SHIFTED, *shifted)
        assert abs(program.hear("clock")[0] - storage.clock.uptime()) < PATIENCE / timedelta(microseconds=1)
        assert program.hear("has") == [2]
        # What is held in there is not late either.
        assert queue.dequeue() is None
        program.go_on()
        assert program.hear("none") == ["None"]
        program.hear("late")
        entry = queue.dequeue(wait=PATIENCE)
        assert (entry.data, entry.errors[0].cause) == (2, Cause.TIMED_OUT)
        queue.mark_completed_many([held, entry])
    count("processes")
