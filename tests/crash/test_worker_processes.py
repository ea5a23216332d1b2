"""Workers in several processes, real signals, real deaths: nothing is lost, and nothing left running."""

import os
import signal
from datetime import timedelta

import pytest

from duraq import Cause, Counts, EntryStatus, FileStorage, FixedDelay, Queue


@pytest.fixture
def queue(tmp_path):
    """The queue of the programs."""
    with FileStorage(tmp_path / "storage", durability="process") as storage:
        yield Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=3, delay=timedelta(0)))


def assert_given_back(queue, entry_id):
    entry = queue.get(entry_id)
    assert (entry.status, entry.attempts) == (EntryStatus.READY, 0)
    assert [attempt.cause for attempt in entry.errors] == [Cause.RELEASED]


def test_work_is_shared(start_worker, queue, tmp_path):
    """As many processes as were asked for work at once; draining ends them all, tidily, when all is done."""
    queue.enqueue_many(range(30))
    program = start_worker("run_processes(open_queue, slow, processes=3, drain=True)")
    began = [program.hear("began") for _ in range(3)]
    assert len({pid for pid, _, _ in began} - {program.pid}) == 3
    program.go_on(30)
    status, rest = program.end()
    assert status == 0
    assert sum(line.startswith("finished") for line in rest) == 30
    assert queue.counts() == Counts()
    workers = [path.name for path in (tmp_path / "storage" / "leases").iterdir()]
    assert [name for name in workers if not name.startswith(f"{os.getpid()}-")] == []


def test_threads_of_processes(start_worker, queue):
    """Each process has as many threads as were asked for."""
    queue.enqueue_many(range(4))
    program = start_worker("run_processes(open_queue, slow, processes=2, threads=2, drain=True)")
    pids = [program.hear("began")[0] for _ in range(4)]
    assert sorted(map(pids.count, set(pids))) == [2, 2]
    program.go_on(4)
    assert program.end()[0] == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_child(start_worker, queue, processes):
    """A killed child's entry is worked by another, or by its replacement; the attempt counts, and why."""
    queue.enqueue(1)
    program = start_worker(
        f"""
def handler(entry):
    say("began", os.getpid(), entry.attempts, *[attempt.cause for attempt in entry.errors])
    if entry.attempts == 1:
        threading.Event().wait()

run_processes(open_queue, handler, processes={processes}, drain=True)
"""
    )
    killed, attempt = program.hear("began")
    os.kill(killed, signal.SIGKILL)
    pid, *next_attempt = program.hear("began")
    assert (attempt, next_attempt) == (1, [2, Cause.WORKER_DIED])
    assert pid != killed
    assert program.end()[0] == 0
    assert queue.counts() == Counts()


def test_an_entry_that_kills(start_worker, queue):
    """An entry that kills its workers ends as a dead letter; their replacements come after growing pauses."""
    entry_id = queue.enqueue(1)
    program = start_worker(
        """
class Pauses:
    def get_retry_delay(self, attempts):
        say("pause", attempts)
        return AT_ONCE

def handler(entry):
    os.kill(os.getpid(), signal.SIGKILL)

run_processes(open_queue, handler, processes=1, drain=True, backoff=Pauses())
"""
    )
    assert [program.hear("pause") for _ in range(3)] == [[1], [2], [3]]
    assert program.end()[0] == 0
    entry = queue.get(entry_id)
    assert (entry.status, entry.attempts) == (EntryStatus.DEAD, 3)
    assert [attempt.cause for attempt in entry.errors] == [Cause.WORKER_DIED] * 3


@pytest.mark.parametrize("status", [0, 3, 78])
def test_a_handler_that_exits(start_worker, queue, status):
    """A handler that ends its process has failed, whatever its status, and the process is replaced."""
    queue.enqueue(1)
    program = start_worker(
        f"""
def handler(entry):
    say("began", os.getpid(), entry.attempts)
    if not entry.errors:
        raise SystemExit({status})

run_processes(open_queue, handler, processes=1, drain=True)
"""
    )
    first, second = program.hear("began"), program.hear("began")
    assert first[0] != second[0]
    assert (first[1], second[1]) == (1, 2)
    assert program.end()[0] == 0
    assert queue.counts() == Counts()


# -- stopping several processes ----------------------------------------------------------------------------

PAIR = "run_processes(open_queue, {}, processes=2, grace={}, backoff=RETRIES)"


def parent(program):
    program.send(signal.SIGTERM)


def group(program):
    os.killpg(program.pid, signal.SIGINT)


@pytest.mark.parametrize("stop", [parent, group])
def test_a_graceful_stop(start_worker, queue, stop):
    """One signal, to the parent alone or, as terminals send it, to all, lets every handler finish."""
    queue.enqueue_many(range(3))
    program = start_worker(PAIR.format("slow", "HOUR"))
    children = {program.hear("began")[0] for _ in range(2)}
    stop(program)
    while children:
        children.discard(program.hear("stopping")[0])
    program.go_on(2)
    status, rest = program.end()
    assert status == 0
    assert sum(line.startswith("finished") for line in rest) == 2
    assert queue.counts() == Counts(ready=1)


@pytest.mark.parametrize("grace", ["AT_ONCE", "HOUR"])
def test_a_stop_without_grace(start_worker, queue, grace):
    """When the grace is over, or at a second signal, the entries are given back, uncounted."""
    entry_ids = queue.enqueue_many([1, 2])
    program = start_worker(PAIR.format("endless", grace))
    children = {program.hear("began")[0] for _ in range(2)}
    program.send(signal.SIGTERM)
    if grace == "HOUR":
        while children:
            children.discard(program.hear("stopping")[0])
        program.send(signal.SIGTERM)
    assert program.end()[0] == 0
    for entry_id in entry_ids:
        assert_given_back(queue, entry_id)


def test_a_killed_parent(start_worker, queue):
    """When the parent is killed its children stop gracefully, although they live on in each other's sight."""
    queue.enqueue_many(range(3))
    program = start_worker(PAIR.format("slow", "HOUR"))
    children = {program.hear("began")[0] for _ in range(2)}
    program.send(signal.SIGKILL)
    while children:
        children.discard(program.hear("stopping")[0])
    program.go_on(2)
    status, rest = program.end()
    assert status == -signal.SIGKILL
    assert sum(line.startswith("finished") for line in rest) == 2
    assert queue.counts() == Counts(ready=1)


def test_a_child_told_to_stop(start_worker, queue):
    """A child that alone is told to stop finishes its entry, and is replaced."""
    queue.enqueue_many([1, 2])
    program = start_worker("run_processes(open_queue, slow, processes=1, backoff=RETRIES)")
    child, *_ = program.hear("began")
    os.kill(child, signal.SIGTERM)
    assert program.hear("stopping") == [child]
    program.go_on()
    assert program.hear("finished") == [child, 1]
    pid, data, attempt = program.hear("began")
    assert (pid != child, data, attempt) == (True, 2, 1)
    program.send(signal.SIGTERM)
    program.hear("stopping")
    program.go_on()
    assert program.end()[0] == 0
    assert queue.counts() == Counts()


def test_a_child_killed_while_it_stops(start_worker, queue):
    """A child that dies during its grace is not replaced; its entry comes back, with the attempt counted."""
    queue.enqueue(1)
    program = start_worker("run_processes(open_queue, endless, processes=1, grace=HOUR, backoff=RETRIES)")
    child, *_ = program.hear("began")
    program.send(signal.SIGTERM)
    program.hear("stopping")
    os.kill(child, signal.SIGKILL)
    assert program.end() == (0, [])
    assert_died(queue)


def test_a_child_that_cannot_stop(start_worker, queue):
    """A child that does not end in time after its grace is killed, and its attempt counts."""
    queue.enqueue(1)
    program = start_worker(
        "worker_pool._MARGIN = 0.05\n"
        "run_processes(open_queue, endless, processes=1, grace=AT_ONCE, backoff=RETRIES)"
    )
    child, *_ = program.hear("began")
    os.kill(child, signal.SIGSTOP)
    program.send(signal.SIGTERM)
    assert program.end() == (0, [])
    assert_died(queue)


def assert_died(queue):
    entry = queue.dequeue(wait=timedelta(minutes=1))
    assert (entry.attempts, entry.errors[0].cause) == (2, Cause.WORKER_DIED)


# -- children that cannot begin ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opening", "why"),
    [
        ("def opened(): raise ValueError('no queue today')", "ValueError: no queue today"),
        ("queue = open_queue()\ndef opened(): return queue", "StorageForked"),
        ("def opened(): return []", "InvalidOption"),
    ],
)
def test_workers_failed(start_worker, queue, opening, why):
    """If the children cannot open their queue when all begin, that ends them, and the caller is told why."""
    queue.enqueue(1)
    program = start_worker(
        f"""
{opening}

try:
    run_processes(opened, slow, processes=2, backoff=RETRIES)
except worker_pool.WorkersFailed as error:
    say("failed:", error)
"""
    )
    assert why in " ".join(map(str, program.hear("failed:")))
    assert program.end() == (0, [])
    assert queue.get(queue.peek()[0].id).attempts == 0


def test_a_replacement_that_cannot_begin(start_worker, queue, tmp_path):
    """Once work has begun, a child that cannot open its queue is no end: another is started."""
    queue.enqueue(1)
    program = start_worker(
        f"""
def opened():
    with open({str(tmp_path / "openings")!r}, "a") as file:
        file.write("x")
        if file.tell() == 2:
            raise OSError("not now")
    return open_queue()

def handler(entry):
    if entry.attempts == 1:
        os._exit(1)
    say("worked", entry.attempts)

run_processes(opened, handler, processes=1, drain=True, backoff=RETRIES)
"""
    )
    assert program.hear("worked") == [2]
    assert program.end()[0] == 0
    assert (tmp_path / "openings").read_text() == "xxx"
