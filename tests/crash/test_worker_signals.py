"""One worker in a process of its own, and the signals that stop it."""

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


WORKER = """
def mine(*_): pass
signal.signal(signal.SIGTERM, mine)
worker = Worker(open_queue(), {}, grace={})
say("ended", worker.run())
sys.exit(0 if signal.getsignal(signal.SIGTERM) is mine else 1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_signal(start_worker, queue, number):
    """At the first signal the handler that runs finishes, nothing more is taken, and run returns as usual."""
    queue.enqueue_many([1, 2])
    program = start_worker(WORKER.format("slow", "HOUR"))
    assert program.hear("began")[1:] == [1, 1]
    program.send(number)
    program.hear("stopping")
    program.go_on()
    program.hear("finished")
    assert program.hear("ended")[0] == "WorkerStats(completed=1,"
    assert program.end() == (0, [])
    assert queue.counts() == Counts(ready=1)


@pytest.mark.parametrize(
    ("grace", "numbers"),
    [
        ("AT_ONCE", [signal.SIGTERM]),
        ("HOUR", [signal.SIGTERM, signal.SIGTERM]),
        ("HOUR", [signal.SIGINT, signal.SIGTERM]),
    ],
)
def test_the_end_of_grace(start_worker, queue, grace, numbers):
    """Once the grace is over, or at the second signal, the entry is given back, uncounted, and run ends."""
    entry_id = queue.enqueue(1)
    program = start_worker(WORKER.format("endless", grace))
    program.hear("began")
    for number in numbers:
        program.send(number)
        program.hear("stopping")
    assert "released=1," in program.hear("ended")
    assert program.end() == (0, [])
    assert_given_back(queue, entry_id)


def test_two_signals_at_once(start_worker, queue):
    """Two signals that come together are two."""
    entry_id = queue.enqueue(1)
    program = start_worker(WORKER.format("endless", "HOUR"))
    program.hear("began")
    program.send(signal.SIGTERM)
    program.send(signal.SIGINT)
    assert "released=1," in program.hear("ended")
    assert program.end()[0] == 0
    assert_given_back(queue, entry_id)


def test_a_signal_in_a_handlers_thread(start_worker, queue):
    """A signal is seen even if the system gives it to a thread that runs a handler."""
    queue.enqueue(1)
    program = start_worker(
        """
def handler(entry):
    say("began")
    listen()
    signal.raise_signal(signal.SIGTERM)
    say("stopped", entry.lost.wait(60))
"""
        + WORKER.format("handler", "AT_ONCE")
    )
    program.hear("began")
    program.go_on()
    assert "released=1," in program.hear("ended")
    assert program.end()[0] == 0
