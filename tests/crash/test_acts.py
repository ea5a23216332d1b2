"""An act on many dead letters that is killed again and again: each of them is somewhere, once."""

import os
import subprocess
import sys
from contextlib import suppress
from random import Random

import pytest

from duraq import AttemptError, Cause, DeadLetterQueue, EntryStatus, FileStorage, Queue
from duraq.operations import Bury

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
COUNT, KILLS = (100_000, 20) if DEEP else (2_000, 5)

pytestmark = pytest.mark.timeout(3600)


def bury(storage, count):
    """So many dead letters; returns their ids."""
    queue = Queue("jobs", storage)
    ids = []
    for start in range(0, count, 1000):
        ids += queue.enqueue_many(range(start, min(start + 1000, count)))
        error = AttemptError("ValueError", "no")
        taken = queue.dequeue(limit=1000)
        storage.commit({"jobs": [Bury(entry.id, entry.token, Cause.FAILED, error) for entry in taken]})
    return ids


def duraq(root, *arguments, group=("dlq",)):
    """A command as a process."""
    command = [sys.executable, "-m", "duraq", "--root", str(root), *group, *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def killed_at(process, progress, wanted):
    """Kill it when it has come so far, if it does not end before; returns whether it was killed."""
    while progress() < wanted:
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=0.001)
            return False
    process.kill()
    process.communicate()
    return True


def test_a_retry_that_is_killed(tmp_path):
    """However often `dlq retry` is killed and repeated, each entry is put back once, whatever dies again."""
    random = Random(4711)
    with FileStorage(tmp_path, durability="process") as storage:
        ids = bury(storage, COUNT)
        queue = Queue("jobs", storage)

        def put_back():
            return len(died_again) + len(queue)

        kills, died_again = 0, set()
        for _ in range(KILLS):
            so_far = put_back()
            process = duraq(tmp_path, "retry", "--all", "--yes", "--act", "act")
            kills += killed_at(process, put_back, so_far + random.randint(0, COUNT // KILLS))
            for entry in queue.dequeue(limit=random.randint(1, 5)):
                queue.mark_failed(entry, "again", dead=True)
                died_again.add(entry.id)
        assert kills > KILLS // 2
        process = duraq(tmp_path, "retry", "--all", "--yes", "--act", "act")
        process.communicate()
        assert process.returncode == 0
        assert {entry.id for entry in queue.entries(EntryStatus.DEAD)} == died_again
        everywhere = queue.entries()
        assert [entry.id for entry in everywhere] == ids
        assert {entry.redriven for entry in everywhere} == {1}


def test_a_removal_that_is_killed(tmp_path):
    """However often `dlq rm` is killed and repeated, what it has removed comes back when it is undone."""
    random = Random(42)
    with FileStorage(tmp_path, durability="process") as storage:
        count = COUNT // 4
        ids = bury(storage, count)
        queue, dead_letters = Queue("jobs", storage), DeadLetterQueue("jobs", None, storage)
        before = queue.entries()
        for _ in range(5):
            gone = count - len(dead_letters)
            process = duraq(tmp_path, "rm", "--where", "queue=jobs", "--yes", "--act", "act")
            killed_at(process, lambda: count - len(dead_letters), gone + random.randint(0, count // 5))
        process = duraq(tmp_path, "rm", "--where", "queue=jobs", "--yes", "--act", "act")
        process.communicate()
        assert (process.returncode, queue.entries()) == (0, [])
        (act,) = dead_letters.acts()
        assert dead_letters.undo(act.id) == count
        assert [entry.id for entry in dead_letters.list()] == ids
        assert [entry.errors for entry in queue.entries()] == [entry.errors for entry in before]


def test_a_move_that_is_killed(tmp_path):
    """However often `move` is killed and repeated, each entry is in one of the queues, and in one only."""
    random = Random(17)
    with FileStorage(tmp_path, durability="process") as storage:
        count = COUNT // 4
        ids = bury(storage, count)
        queue, other = Queue("jobs", storage), Queue("other", storage)
        other.mark_completed(other.enqueue("there") and other.dequeue())
        # Not all in one change, which would be done before it could be killed.
        arguments = ("move", "jobs", "--all", "--to", "other", "--yes", "--act", "act", "--rate", str(count))
        kills = 0
        for _ in range(5):
            so_far = len(other)
            process = duraq(tmp_path, *arguments, group=())
            kills += killed_at(process, lambda: len(other), so_far + random.randint(0, count // 5))
            here, there = ({entry.id for entry in each.entries()} for each in (queue, other))
            assert here.isdisjoint(there)
            assert len(here) + len(there) == count
        process = duraq(tmp_path, *arguments, group=())
        process.communicate()
        assert (process.returncode, queue.entries()) == (0, [])
        assert [entry.id for entry in other.entries()] == ids
        assert {entry.redriven for entry in other.entries()} == {1}
        assert kills > 1
