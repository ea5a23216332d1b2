"""Processes that are stopped, late, or stuck: each entry is completed once, by whoever held it then."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from evidence import count

from duraq import Cause, Counts, FileStorage, FixedDelay, Queue

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
ROUNDS = 250 if DEEP else 15  # of each share
SHARES = 4 if DEEP else 1
STOPS = 500 if DEEP else 30
PATIENCE = timedelta(minutes=1)
RETRIES = FixedDelay(max_attempts=10_000, delay=timedelta(0))

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def queue(tmp_path):
    """The queue of the programs, as another process sees it."""
    with FileStorage(tmp_path / "storage", durability="process") as storage:
        yield Queue("jobs", storage, retry_policy=RETRIES)


def stop(program):
    program.send(signal.SIGSTOP)
    os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)


LATE = """
from duraq import LeaseLost

queue = open_queue()
while True:
    entry = queue.dequeue(wait=timedelta(minutes=5))
    queue.extend(entry, timedelta(milliseconds=1))
    say("has", entry.id)
    listen()
    try:
        queue.mark_completed(entry)
        say("completed")
    except LeaseLost:
        say("lost")
"""


@pytest.mark.parametrize("share", range(SHARES))
def test_stopped_past_the_deadline(start_worker, queue, share):
    """Who was stopped past its deadline completes nothing, whether the next holder has done so yet or not."""
    program = start_worker(LATE)
    chance = Random(share)
    for _ in range(ROUNDS):
        entry_id = queue.enqueue(1)
        assert program.hear("has") == [entry_id]
        stop(program)
        entry = queue.dequeue(wait=PATIENCE)
        assert (entry.id, entry.attempts, entry.errors[0].cause) == (entry_id, 2, Cause.TIMED_OUT)
        at_once = chance.random() < 0.5
        if at_once:
            queue.mark_completed(entry)
        program.go_on()
        program.send(signal.SIGCONT)
        assert program.process.stdout.readline() == "lost\n"
        if not at_once:
            queue.mark_completed(entry)
    assert queue.counts() == Counts()
    assert queue.metrics().counters.completed == ROUNDS
    count("processes", ROUNDS)


AT_THE_DEADLINE = """
import random
from duraq import LeaseLost

queue, chance = open_queue(), random.Random({seed})
clock = queue.storage.clock
while True:
    listen()
    entry = queue.dequeue(wait=timedelta(minutes=5))
    due = clock.uptime() + 2000 + chance.randrange(-300, 100)
    queue.extend(entry, timedelta(milliseconds=2))
    say("has")
    while clock.uptime() < due:
        pass
    try:
        queue.mark_completed(entry)
        say("completed")
    except LeaseLost:
        say("lost")
"""


@pytest.mark.parametrize("share", range(SHARES))
def test_at_the_very_deadline(start_worker, queue, share):
    """When a holder completes at its deadline, and another takes the entry then, one of them succeeds."""
    program = start_worker(AT_THE_DEADLINE.replace("{seed}", str(share)))
    outcomes = Counter()
    for _ in range(ROUNDS):
        queue.enqueue(1)
        program.go_on()
        program.hear("has")
        taken = None
        while taken is None and queue.counts().leased:
            taken = queue.dequeue()
        outcome = program.process.stdout.readline().strip()
        if outcome == "lost" and taken is None:
            taken = queue.dequeue(wait=PATIENCE)
        assert (outcome == "completed") is (taken is None)
        if taken is not None:
            queue.mark_completed(taken)
        outcomes[outcome] += 1
    print(outcomes)  # noqa: T201 - shown by pytest -rP
    assert queue.counts() == Counts()
    assert queue.metrics().counters.completed == ROUNDS
    count("processes", ROUNDS)


CONSUMER = """
import random, select, time
from pathlib import Path
from duraq import LeaseLost

storage = FileStorage(sys.argv[1], durability="process", lock_duration=timedelta(milliseconds=20))
queue = Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=10_000, delay=AT_ONCE))
late = 0
with Path(f"{sys.argv[1]}.{os.getpid()}").open("w") as done:
    while True:
        entry = queue.dequeue(wait=timedelta(milliseconds=20))
        if entry is None:
            if not len(queue) and select.select([0], [], [], 0)[0]:
                break
            continue
        time.sleep(random.uniform(0, 0.005))  # the work
        try:
            queue.mark_completed(entry)
            done.write(entry.id + "\\n")
        except LeaseLost:
            late += 1
say("over", late)
"""


@pytest.mark.parametrize("seed", range(2 if DEEP else 1))
def test_stopped_at_any_time(start_worker, queue, tmp_path, seed):
    """Consumers that are stopped at any time, and go on after a while, complete each entry once."""
    programs = [start_worker(CONSUMER) for _ in range(3)]
    chance, enqueued = Random(seed), []
    for _ in range(STOPS):
        enqueued += queue.enqueue_many(range(chance.randrange(1, 9)))
        program = chance.choice(programs)
        stop(program)
        # Nothing is asked of the storage meanwhile: this one may have the lock.
        time.sleep(chance.uniform(0, 0.05))
        program.send(signal.SIGCONT)
    late = 0
    for program in programs:
        program.go_on()
        late += program.hear("over")[0]
    completed = [
        entry_id
        for program in programs
        for entry_id in Path(f"{tmp_path / 'storage'}.{program.pid}").read_text().splitlines()
    ]
    print(f"{len(enqueued)} entries, {late} completed too late")  # noqa: T201 - shown by pytest -rP
    assert sorted(completed) == sorted(enqueued), f"seed {seed}"
    assert queue.counts() == Counts()
    assert queue.metrics().counters.completed == len(enqueued)
    count("processes", STOPS)


def test_a_zombie(start_worker, queue):
    """What a killed process held is ready although nobody has waited for it yet."""
    entry_id = queue.enqueue(1)
    program = start_worker("entry = open_queue().dequeue()\nsay('has', entry.id)\nlisten()\n")
    assert program.hear("has") == [entry_id]
    program.send(signal.SIGKILL)
    entry = queue.dequeue(wait=PATIENCE)
    assert (entry.id, entry.attempts, entry.errors[0].cause) == (entry_id, 2, Cause.WORKER_DIED)
    assert Path(f"/proc/{program.pid}").exists()
    count("processes")


# Python's own lock is held while PyDLL's functions run: no other thread of the program does anything.
STUCK = """
import ctypes

def handler(entry):
    say("began", entry.attempts)
    ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)
    say("lost", entry.lost.wait(60))

queue = Queue("jobs", FileStorage(sys.argv[1], lock_duration=timedelta(milliseconds=300)))
worker = Worker(queue, handler, threads=1)
say(worker.run(limit=1))
"""


def test_a_handler_that_stops_all_threads(start_worker, queue):
    """Where no thread could renew its lease, a handler is told so, and its outcome is not written."""
    entry_id = queue.enqueue(1)
    program = start_worker(STUCK)
    assert program.hear("began") == [1]
    entry = queue.dequeue(wait=PATIENCE)
    assert (entry.id, entry.attempts, entry.errors[0].cause) == (entry_id, 2, Cause.TIMED_OUT)
    program.go_on()
    assert program.hear("lost") == ["True"]
    assert program.end()[0] == 0
    queue.mark_completed(entry)
    count("processes")
