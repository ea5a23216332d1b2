"""SIGKILL before, and in the middle of, every call of a process that enqueues, works, recycles and recovers.

A child process works off a script over files so small that segments are sealed and the journal is recycled
all the time. It says on a pipe what it begins and what is done, and dies at a chosen call of the file system.
Whoever comes next must find what was done, and of what was only begun all or nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from evidence import count

from duraq import DeadLetterQueue, EntryStatus, FileStorage, NoRetry, Queue
from duraq.journal.log import Sizes
from duraq.testing.killing_filesystem import KillingFileSystem

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SIZES = Sizes(journal=8 << 10, segment=2 << 10)
TURNS = 10
POINTS = 30  # of each part of a sweep; deep: every call
PARTS = 2  # of a sweep, so that they can run at once
NOW = timedelta(0)

pytestmark = pytest.mark.timeout(3600)

Say = Callable[[str], None]


def open_queue(storage: FileStorage) -> Queue[str]:
    return Queue("jobs", storage, str, retry_policy=NoRetry())


def work(root: Path, killer: KillingFileSystem, say: Say) -> None:
    """Everything that changes a queue, over and over."""
    with FileStorage(root, sizes=SIZES, file_system=killer) as storage:
        queue = open_queue(storage)
        for turn in range(TURNS):
            say(f"? enqueue {turn}a")
            queue.enqueue("x" * 200, id=f"{turn}a")
            say("!")
            ids = [f"{turn}{letter}" for letter in "bcdef"]
            say(f"? enqueue {' '.join(ids)}")
            queue.enqueue_many([name * 40 for name in ids], ids=ids)
            say("!")
            for end in ("complete", "fail", "release", "complete", "bury"):
                work_one(queue, end, say)
    say(f"calls {killer.calls}")


def work_one(queue: Queue[str], end: str, say: Say) -> None:
    entry = queue.dequeue()
    assert entry is not None
    queue.extend(entry)
    say(f"? {end} {entry.id}")
    if end == "complete":
        queue.mark_completed(entry)
    elif end == "release":
        queue.release(entry)
    elif end == "fail":
        queue.mark_failed(entry, "not today", retry_in=NOW)
    else:
        queue.mark_failed(entry, "never", dead=True)
    say("!")


def recover(root: Path, killer: KillingFileSystem, say: Say) -> None:
    """Nothing but opening."""
    with FileStorage(root, sizes=SIZES, file_system=killer):
        pass
    say(f"calls {killer.calls}")


def run(job: Callable[[Path, KillingFileSystem, Say], None], root: Path, killer: KillingFileSystem) -> str:
    """What a child said that did the job until it ended or was killed."""
    output, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            job(root, killer, lambda line: os.write(write, f"{line}\n".encode()))
            status = 0
        except BaseException:  # noqa: BLE001 - it must not get back into pytest
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(output) as lines:
        said = lines.read()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in {0, -signal.SIGKILL}, said
    return said


def calls_of(job: Callable[[Path, KillingFileSystem, Say], None], root: Path) -> int:
    said = run(job, root, KillingFileSystem())
    return int(said.split()[-1])


def points(calls: int, part: int) -> list[int]:
    """Which calls to die at: this part's share of all, or of some that lie evenly between all."""
    step = 1.0 if DEEP else max(1.0, calls / (POINTS * PARTS))
    chosen = [1 + int(number * step) for number in range(int(calls / step))]
    return chosen[part::PARTS]


# What must be true. An entry is (status, how often it failed), or None.

Entries = dict[str, tuple[str, int] | None]


def after(entries: Entries, what: str, ids: list[str]) -> Entries:
    changed = dict(entries)
    for entry_id in ids:
        _, failures = changed.get(entry_id) or ("", 0)
        changed[entry_id] = {
            "enqueue": ("live", 0),
            "complete": None,
            "release": ("live", failures),
            "fail": ("live", failures + 1),
            "bury": ("dead", failures + 1),
        }[what]
    return changed


def allowed(said: str) -> list[Entries]:
    """The states that may be found: with what was done, and with or without what was only begun."""
    done: Entries = {}
    begun = done
    for line in said.splitlines():
        if line.startswith("?"):
            _, what, *ids = line.split()
            begun = after(done, what, ids)
        elif line == "!":
            done = begun
    return [{name: entry for name, entry in state.items() if entry} for state in (done, begun)]


def seen(storage: FileStorage) -> Entries:
    found: Entries = {}
    for entry in open_queue(storage).entries():
        failures = sum(attempt.cause == "failed" for attempt in entry.errors)
        assert entry.data in {"x" * 200, entry.id * 40}
        found[entry.id] = ("dead" if entry.status is EntryStatus.DEAD else "live", failures)
    return found


def segments(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.glob("*/segments/*.jsonl"))}


def check(root: Path, said: str, where: str) -> None:
    """It opens, twice the same, in an allowed state; and what is live is delivered and can be completed."""
    with FileStorage(root, sizes=SIZES) as storage:
        found = seen(storage)
        details = open_queue(storage).entries()
        written = segments(root)
    assert found in allowed(said), where
    with FileStorage(root, sizes=SIZES) as storage:
        assert open_queue(storage).entries() == details, where
        assert segments(root) == written, where
        works(storage, found, where)


def works(storage: FileStorage, found: Entries, where: str) -> None:
    """What is live is delivered, each once; a dead letter can be retried; and new entries come behind."""
    queue = open_queue(storage)
    dead = {name for name, entry in found.items() if entry and entry[0] == "dead"}
    DeadLetterQueue("jobs", str, storage).retry_all()
    queue.enqueue("new", id="new")
    delivered = []
    # A NoRetry policy: who died with an entry in hand is its last attempt, so it may be dead by now.
    while entry := queue.dequeue():
        delivered.append(entry.id)
        queue.mark_completed(entry)
    died = {entry.id for entry in queue.entries()}
    assert len(delivered) == len(set(delivered)), where
    assert set(delivered) | died == {*found, "new"}, where
    assert len(died - dead) <= 1, where


# The sweeps


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("tear", [False, True], ids=["before", "within"])
def test_whoever_comes_after(tmp_path: Path, tear: bool, part: int) -> None:
    """Killed at any call, a process leaves what it was told is done, and the next open finds it, twice."""
    for point in points(calls_of(work, tmp_path / "counted"), part):
        root = tmp_path / str(point)
        said = run(work, root, KillingFileSystem(point, tear=tear))
        check(root, said, f"call {point}, tear {tear}")
        shutil.rmtree(root)
        # Not one that got by with fewer calls than the one before.
        count("killed", int("calls" not in said))


@pytest.mark.parametrize("part", range(PARTS))
def test_whoever_is_there_already(tmp_path: Path, part: int) -> None:
    """Killed at any call, a process leaves to one that has the storage open what it was told is done."""
    for point in points(calls_of(work, tmp_path / "counted"), part):
        root = tmp_path / str(point)
        with FileStorage(root, sizes=SIZES) as storage:
            said = run(work, root, KillingFileSystem(point, tear=bool(point % 2)))
            found = seen(storage)
            assert found in allowed(said), f"call {point}"
            works(storage, found, f"call {point}")
        with FileStorage(root, sizes=SIZES) as storage:
            assert set(seen(storage)) <= {name for name, entry in found.items() if entry}
        shutil.rmtree(root)
        # Not one that got by with fewer calls than the one before.
        count("killed", int("calls" not in said))


def killed(tmp_path: Path, number: int) -> Iterator[tuple[Path, str]]:
    """Storages whose process was killed somewhere, and what it had said."""
    calls = calls_of(work, tmp_path / f"counted{number}")
    chance = Random(number)
    for _ in range(20 if DEEP else 2):
        root = tmp_path / f"killed{number}"
        said = run(work, root, KillingFileSystem(chance.randrange(calls // 3, calls), tear=True))
        yield root, said
        shutil.rmtree(root)


@pytest.mark.parametrize("number", range(4))
def test_recovery_too(tmp_path: Path, number: int) -> None:
    """Killed at any call of recovery, a process leaves nothing that the next recovery cannot mend."""
    for root, said in killed(tmp_path, number):
        copy = tmp_path / "copy"
        shutil.copytree(root, copy, symlinks=True, ignore=shutil.ignore_patterns("*.fifo"))
        calls = calls_of(recover, copy)
        for point in range(1, calls + 1, 1 if DEEP else max(1, calls // 12)):
            shutil.rmtree(copy)
            shutil.copytree(root, copy, symlinks=True, ignore=shutil.ignore_patterns("*.fifo"))
            assert run(recover, copy, KillingFileSystem(point, tear=True)) == ""
            check(copy, said, f"call {point} of recovery")
            count("killed")
        shutil.rmtree(copy)
