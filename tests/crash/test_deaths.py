"""The ways for a process to die: what it held is ready at once, and the attempt counts."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from evidence import count

from duraq import Cause, FileStorage, FixedDelay, Queue

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
DEATHS = 30 if DEEP else 1  # of each kind
PATIENCE = timedelta(minutes=1)
RETRIES = FixedDelay(max_attempts=99, delay=timedelta(0))

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def queue(tmp_path):
    """The queue of the programs, as another process sees it."""
    with FileStorage(tmp_path / "storage", durability="process") as storage:
        yield Queue("jobs", storage, retry_policy=RETRIES)


HOLDING = """
import ctypes, faulthandler, resource

queue = open_queue()
entry = queue.dequeue(wait=timedelta(minutes=1))
say("has", entry.attempts)
listen()
"""

# A core of some size, so that it takes a while to write; in a directory that goes with the test.
DUMP_CORE = """
os.chdir(os.path.dirname(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
large = bytearray(os.urandom(1)) * (64 << 20)
os.abort()
"""

ENDS = {
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "segmentation fault": ("ctypes.string_at(1)", -signal.SIGSEGV),
    "bus error": ("signal.raise_signal(signal.SIGBUS)", -signal.SIGBUS),
    "core dumped": (DUMP_CORE, -signal.SIGABRT),
    "os._exit": ("os._exit(5)", 5),
    "exit of C": ("ctypes.CDLL(None).exit(6)", 6),
    "exec": ("os.execv('/bin/false', ['false'])", 1),
    "an exception": ("raise ValueError", 1),
    "the interpreter's end": ("", 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_end(start_worker, queue, end):
    """However a process ends that has not closed its storage, what it held goes to whoever waits for it."""
    act, status = ENDS[end]
    for _ in range(DEATHS):
        queue.enqueue(1)
        program = start_worker(HOLDING + act)
        assert program.hear("has") == [1]
        assert queue.dequeue() is None
        program.go_on()
        entry = queue.dequeue(wait=PATIENCE)
        assert (entry.attempts, entry.errors[0].cause) == (2, Cause.WORKER_DIED)
        assert program.end()[0] == status
        queue.mark_completed(entry)
        count("processes")


# -- no memory left ----------------------------------------------------------------------------------------

MEMORY = Path("/sys/fs/cgroup/memory")
TAKE_ALL = """
taken = []
while True:
    taken.append(bytearray(b"x") * (1 << 20))
"""


@contextmanager
def limited_memory(limit):
    """A control group whose processes are killed when they take more than that together."""
    group = MEMORY / f"duraq-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(f"{limit}")
    except OSError as error:
        pytest.skip(f"no memory control group can be made here: {error}")
    try:
        yield group
    finally:
        group.rmdir()


@pytest.mark.root
@pytest.mark.skipif(not (MEMORY / "memory.limit_in_bytes").exists(), reason="no memory control groups (v1)")
def test_out_of_memory(start_worker, queue):
    """What a process held that the kernel kills for its memory goes to whoever waits for it."""
    with limited_memory(64 << 20) as group:
        for _ in range(DEATHS):
            queue.enqueue(1)
            program = start_worker(HOLDING + TAKE_ALL)
            assert program.hear("has") == [1]
            (group / "cgroup.procs").write_text(f"{program.pid}")
            program.go_on()
            entry = queue.dequeue(wait=PATIENCE)
            assert (entry.attempts, entry.errors[0].cause) == (2, Cause.WORKER_DIED)
            assert program.end()[0] == -signal.SIGKILL
            queue.mark_completed(entry)
            count("processes")
