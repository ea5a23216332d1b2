"""Several processes share a storage; what one of them holds comes back when it dies, however it dies."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta

import pytest

from duraq import (
    Cause,
    Counts,
    DeadLetterQueue,
    FixedDelay,
    HealthStatus,
    LeaseLost,
    Queue,
    QueueHealthCheck,
    StorageForked,
)

pytestmark = pytest.mark.needs("shared")

PATIENCE = timedelta(seconds=60)
OPENING = """
import os, signal, sys
from pathlib import Path
import lmdb
from duraq import FileStorage, Queue
from duraq.storage.lmdb import LMDBStorage
from duraq.storage.postgres import PostgresStorage
from duraq.storage.sqlite import SQLiteStorage

home = Path(sys.argv[1])
storage = %s
"""
WORKER = """
queue = Queue("jobs", storage)
entry = queue.dequeue()
print(entry.id, entry.attempts, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def clock():
    """The machine's own: processes that share a storage share its clock."""
    return


@pytest.fixture
def queue(storage):
    """A queue with one entry, which is delivered three times at most."""
    queue = Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=3, delay=timedelta(0)))
    queue.enqueue("a")
    return queue


@pytest.fixture
def start(backend, tmp_path):
    """Start a process that leases an entry; returns it and what it says."""
    with ExitStack() as stack:

        def start(then=""):
            process = subprocess.Popen(
                [sys.executable, "-c", OPENING % backend.elsewhere + WORKER + then, str(tmp_path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process, process.stdout.readline().split()

        yield start


def end(process):
    """Let a process go on to its end."""
    process.communicate("\n")


def test_what_a_living_process_holds(queue, start):
    """What another process holds is leased to it, and to nobody else."""
    process, (entry_id, attempts) = start()
    assert attempts == "1"
    entry = queue.get(entry_id)
    assert entry.worker.startswith(f"{process.pid}-")
    assert queue.dequeue() is None
    with pytest.raises(LeaseLost):
        queue.mark_completed(entry_id)
    assert queue.counts() == Counts(leased=1)


def test_a_killed_process(queue, start):
    """What a killed process held is delivered again, its attempt counted, its cause kept."""
    process, (entry_id, _) = start()
    process.kill()
    entry = queue.dequeue(wait=PATIENCE)
    assert (entry.id, entry.attempts) == (entry_id, 2)
    (attempt,) = entry.errors
    assert (attempt.number, attempt.cause) == (1, Cause.WORKER_DIED)
    assert attempt.worker.startswith(f"{process.pid}-")
    assert attempt.error.type == "WorkerDied"


def test_the_health_of_what_a_dead_process_holds(storage, queue, start):
    """A lease whose holder is dead is no work in hand: whoever asks the storage for its health is told."""
    queue.enqueue("b")
    process, _ = start()
    check = QueueHealthCheck(storage, "jobs", no_consumer_after=timedelta(0))
    assert check.check().status is HealthStatus.HEALTHY
    process.kill()
    process.wait()
    # Postgres notices by the session's end.
    while (found := check.check()).status is HealthStatus.HEALTHY:
        assert storage.counts("jobs") == Counts(ready=1, leased=1)
    for _ in range(3):
        assert found.message.startswith("NO CONSUMER")
        found = check.check()


def test_an_heir_that_waits_already(queue, start):
    """Who sleeps until there is an entry is woken by the death of the one who holds it."""
    process, (entry_id, _) = start()
    with ThreadPoolExecutor(1) as pool:
        heir = pool.submit(queue.dequeue, wait=PATIENCE)
        while not queue.storage._count_waiting("jobs"):
            assert not heir.done()
        process.kill()
        entry = heir.result()
    assert (entry.id, entry.attempts, entry.errors[0].cause) == (entry_id, 2, Cause.WORKER_DIED)


def test_a_process_killed_before_anybody_looks(queue, start, open_storage):
    """Whoever opens the storage after a holder was killed is given the entry by its very first dequeue."""
    process, (entry_id, _) = start()
    process.kill()
    process.wait()
    assert Queue("jobs", open_storage()).dequeue().id == entry_id


@pytest.mark.parametrize(
    "then", ["os._exit(3)", "sys.exit(3)", "raise ValueError", "os.kill(os.getpid(), 15)"]
)
def test_a_process_that_ends_by_itself(queue, start, then):
    """A process that ends without closing its storage has died, whatever it ended with."""
    process, (entry_id, _) = start(then)
    end(process)
    entry = queue.dequeue(wait=PATIENCE)
    assert (entry.id, entry.attempts, entry.errors[0].cause) == (entry_id, 2, Cause.WORKER_DIED)


def test_a_process_that_closes(queue, start):
    """A process that closes its storage has given back what it held, uncounted."""
    process, (entry_id, _) = start("storage.close()")
    end(process)
    entry = queue.dequeue()
    assert (entry.id, entry.attempts) == (entry_id, 1)
    assert all(attempt.cause is Cause.RELEASED for attempt in entry.errors)


def test_a_lease_of_another_process_is_ended(queue, start):
    """The lease of a process that hangs can be ended from another one, which is then given the entry."""
    late = """
try:
    queue.mark_completed(entry)
except Exception as error:
    print(type(error).__name__, flush=True)
sys.stdin.readline()
"""
    process, (entry_id, _) = start(late)
    os.kill(process.pid, signal.SIGSTOP)
    queue.end_lease(entry_id, queue.get(entry_id).token)
    entry = queue.dequeue()
    assert (entry.id, entry.attempts, entry.errors[0].cause) == (entry_id, 1, Cause.RELEASED)
    os.kill(process.pid, signal.SIGCONT)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "LeaseLost\n"
    queue.mark_completed(entry)
    end(process)


def test_an_entry_that_kills(queue, start, storage):
    """An entry that kills whoever takes it ends as a dead letter, for every attempt was counted."""
    for number in range(1, 4):
        process, (_, attempts) = start("os.kill(os.getpid(), signal.SIGKILL)")
        assert attempts == str(number)
        end(process)
    assert queue.dequeue() is None
    (dead,) = DeadLetterQueue("jobs", None, storage).list()
    assert dead.attempts == 3
    assert [attempt.cause for attempt in dead.errors] == [Cause.WORKER_DIED] * 3


HANGING = """
from datetime import timedelta
queue.extend(entry, timedelta(milliseconds=1))
print("extended", flush=True)
sys.stdin.readline()
try:
    queue.extend(entry)
except Exception as error:
    print(type(error).__name__, flush=True)
"""


def test_a_stopped_process(queue, start):
    """A process that was stopped holds its entry until its deadline, and then it is too late for it."""
    process, (entry_id, _) = start(HANGING)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "extended\n"
    process.send_signal(signal.SIGSTOP)
    entry = queue.dequeue(wait=PATIENCE)
    assert (entry.id, entry.attempts, entry.errors[0].cause) == (entry_id, 2, Cause.TIMED_OUT)
    process.send_signal(signal.SIGCONT)
    assert process.communicate("\n")[0] == "LeaseLost\n"
    assert queue.get(entry_id).token == entry.token


USES = [
    Queue.counts,
    Queue.dequeue,
    lambda queue: queue.dequeue(wait=PATIENCE),
    lambda queue: queue.enqueue(1),
]


@pytest.mark.parametrize("use", USES, ids=["counts", "dequeue", "wait", "enqueue"])
def test_a_forked_child(queue, storage, use):
    """A child cannot use its parent's storage, says so, and takes nothing from its parent when it ends."""
    entry = queue.dequeue()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            use(queue)
        except StorageForked:
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert queue.dequeue() is None
    queue.mark_completed(entry)


def test_entries_from_elsewhere(backend, queue, start, tmp_path):
    """What another process enqueues is delivered here, in order, and wakes who waits."""
    queue.mark_completed(queue.dequeue())
    program = """
with storage:
    Queue("jobs", storage).enqueue_many(range(100))
"""
    subprocess.run([sys.executable, "-c", OPENING % backend.elsewhere + program, str(tmp_path)], check=True)
    found = []
    while len(found) < 100:
        found += queue.dequeue(wait=PATIENCE, limit=30)
    assert [entry.data for entry in found] == list(range(100))
