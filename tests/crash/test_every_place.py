"""A Ctrl-C at each place of a call at which Python may notice it, one after the other.

Afterwards the storage knows what is true, or says that it does not until it is opened again; the lock is
nobody's; and whoever opens the storage beside it finds the same and goes on.
"""

from __future__ import annotations

import os
import time
from fcntl import LOCK_EX, LOCK_NB, flock
from itertools import count as numbers
from pathlib import Path

import pytest
from crash.interrupting import SIZES, Interrupted, Interrupter, Run, seen
from evidence import count

from duraq import DeadLetterQueue, FileStorage, Queue

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SHARES = 4 if DEEP else 1
STEP = 1 if DEEP else 31  # of the places, each so manyth
# A compaction has many more than the others.
STEPS = {"compact": 1 if DEEP else 3}
KINDS = ("enqueue", "many", "take", "complete", "fail", "release", "transaction", "compact", "close", "open")
SOON = 30  # seconds; only so that a failing test ends

pytestmark = pytest.mark.timeout(3600)


def prepare(run: Run, kind: str, number: int) -> None:
    """What the step needs: something live and something held, but not too much of it."""
    if len(run.entries) > 50:
        empty(run)
    if run.first("live") is None:
        run.entries = run.do("many", 10**9 + number)
    if run.first("held") is None:
        run.entries = run.do("take", number)
    if kind == "compact":
        over = run.queue.enqueue_many(["x" * 200] * 20, priority=1)
        run.queue.mark_completed_many(run.queue.dequeue(limit=len(over)))
    if kind == "open":
        run.entries = run.do("close", number)


def empty(run: Run) -> None:
    live = [name for name, state in run.entries.items() if state == "live"]
    run.queue.dequeue(limit=len(live) + 1)
    run.queue.mark_completed_many(name for name, state in run.entries.items() if state != "dead")
    dead_letters = DeadLetterQueue("jobs", str, run.storage)
    for entry in dead_letters.list():
        dead_letters.remove(entry.id)
    run.entries = {}


def assert_no_lock_is_held(root: Path, where: str) -> None:
    """Also not until the storage is closed."""
    for name in ("lock", "recycle"):
        until = time.monotonic() + SOON
        with (root / "journal" / name).open("r+b") as file:
            # A thread that looks after the files may have it for a moment.
            while not is_free(file.fileno()):
                assert time.monotonic() < until, f"{where}: {name} is held"


def assert_others_go_on(run: Run, where: str) -> None:
    """Whoever comes now sees the same."""
    with FileStorage(run.root, sizes=SIZES) as storage:
        assert seen(Queue("jobs", storage, str)) == run.entries, where


def is_free(fd: int) -> bool:
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


# What was just being opened is closed by the garbage collector, and what is interrupted in it goes unnoticed.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("kind", KINDS)
def test_at_every_place(tmp_path: Path, kind: str, share: int) -> None:
    """Wherever a call is interrupted, it was done or not, nothing else has changed, and all can go on."""
    step = STEP * STEPS.get(kind, 1)
    run = Run(tmp_path / "storage")
    for at in numbers(1 + share * step, SHARES * step):
        prepare(run, kind, at)
        interrupter = Interrupter(at)
        try:
            with interrupter:
                after = run.do(kind, at)
        except Interrupted:
            where = f"{kind}, place {at}: {interrupter.hit}"
            assert_no_lock_is_held(run.root, where)
            if kind == "close":
                # Once more goes on with it.
                run.storage.close()
                assert list(run.root.glob("leases/*.json")) == [], where
            run.after_interrupt(where)
            assert_others_go_on(run, where)
        else:
            run.entries = after
            if kind == "close":
                run.open()
        if not interrupter.hit:
            break  # there are no more
        count("interrupted")
    run.end(kind)
