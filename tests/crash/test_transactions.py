"""Transactions when the power fails, when processes are killed, and when many of them meet."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

import pytest

from duraq import FileStorage, NoRetry, Queue
from duraq.journal.log import Sizes
from duraq.operations import Complete
from duraq.testing import FakeClock, MemoryFileSystem
from duraq.testing.disk import Directory, Fate, File, Node, Write
from duraq.testing.killing_filesystem import KillingFileSystem
from duraq.testing.power_cut import after_power_cut

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
QUEUES = ("a", "b", "c", "d", "e")
SIZES = Sizes(journal=8 << 10, segment=2 << 10)
POINTS = 40  # at which a process is killed; deep: all of them
PROCESSES = 16
# How many transactions each begins, and for how many seconds at most.
ROUNDS, SECONDS = (1_000_000, 60.0) if DEEP else (12, 3600.0)

pytestmark = pytest.mark.timeout(3600)


def open_queues(storage: FileStorage) -> dict[str, Queue[int]]:
    return {name: Queue(name, storage, int, retry_policy=NoRetry()) for name in QUEUES}


def contents(queues: Mapping[str, Queue[int]], names: Sequence[str] = QUEUES) -> dict[str, list[int]]:
    return {name: [entry.data for entry in queues[name].entries()] for name in names}


# -- power cuts --------------------------------------------------------------------------------------------


class Kept:
    """Of what was not synced, these changes survive whole, and of one write perhaps the beginning."""

    def __init__(self, changes: Sequence[object], torn: Write | None = None, length: int = 0) -> None:
        self._kept = {id(change) for change in changes}
        self._torn = torn
        self._length = length

    def content(self, file: File) -> bytearray:
        content = file.settled.copy()
        for change in file.log:
            if change is self._torn:
                Write(change.offset, change.data[: self._length]).apply(content)
            elif change.fate is Fate.SYNCED or id(change) in self._kept:
                change.apply(content)
        return content

    def entries(self, directory: Directory) -> Mapping[str, Node]:
        return directory.cache


class Watched(MemoryFileSystem):
    """Calls ``before`` before each call that changes the disk."""

    before = staticmethod(lambda: None)

    def _begin(self, call: str, path: str, size: int = 0, *, changes: bool = False) -> int | None:
        if changes:
            self.before()
        return super()._begin(call, path, size, changes=changes)


def pending(fs: MemoryFileSystem) -> list[object]:
    """What a power cut may keep or lose."""
    return [change for _, file in fs._disk.files() for change in file.log if change.fate is not Fate.SYNCED]


def crash_states(
    fs: MemoryFileSystem, older: Sequence[object], chance: Random, share: float
) -> Iterator[MemoryFileSystem]:
    """A share of: every subset of the changes since ``older``, and of each also with one of them torn."""
    for outcome in outcomes(fs, older):
        if chance.random() < share:
            yield MemoryFileSystem(disk=after_power_cut(fs._disk, outcome))


def outcomes(fs: MemoryFileSystem, older: Sequence[object]) -> Iterator[Kept]:
    known = {id(change) for change in older}
    new = [change for change in pending(fs) if id(change) not in known]
    for count in range(len(new) + 1):
        for kept in itertools.combinations(new, count):
            survivors = [*older, *kept]
            yield Kept(survivors)
            for torn in new:
                if torn in kept or not isinstance(torn, Write):
                    continue
                for length in {1, len(torn.data) // 2, len(torn.data) - 1}:
                    yield Kept(survivors, torn, length)


def open_in_memory(fs: MemoryFileSystem) -> FileStorage:
    return FileStorage("/storage", file_system=fs, sizes=SIZES, clock=FakeClock(), allow_network=True)


@pytest.mark.parametrize("older_survive", [False, True])
def test_a_power_cut_leaves_all_or_nothing(older_survive, one_thread, monkeypatch):
    """Whatever of its writes survives, and however torn, a transaction is there whole or not at all."""
    # What recovery reports, thousands of times, is not what a failing test is about.
    monkeypatch.setattr(logging.getLogger("duraq"), "disabled", True)
    fs, chance = Watched(), Random(1)
    names = QUEUES[:3]
    # With what came before to be lost as well there are tens of thousands.
    share = 1.0 if DEEP or older_survive else 0.012
    found: list[dict[str, list[int]]] = []

    def look() -> None:
        for state in crash_states(fs, older, chance, share):
            with open_in_memory(state) as opened:
                found.append(contents(open_queues(opened), names))

    with open_in_memory(fs) as storage:
        queues = open_queues(storage)
        queues["a"].enqueue_many([1, 2])
        # Of nobody's process, for on this disk there are no processes.
        (entry,) = storage.claim("a", detached=True)
        before = contents(queues, names)
        older = pending(fs) if older_survive else []
        fs.before = look
        with storage.transaction():
            storage.commit({"a": [Complete(entry.id, entry.token)]})
            queues["b"].enqueue_many([10, 11])
            queues["c"].enqueue(20)
            storage.begin_transaction()
            queues["c"].enqueue(21)
            storage.rollback_transaction()
        fs.before = lambda: None
        after = contents(queues, names)
        on_the_way, found = found, []
        look()
    logging.getLogger(__name__).warning("%d crash states", len(on_the_way) + len(found))
    assert before == {"a": [1, 2], "b": [], "c": []}
    assert after == {"a": [2], "b": [10, 11], "c": [20]}
    assert len(on_the_way) > 50
    assert all(each in (before, after) for each in on_the_way)
    assert before in on_the_way
    assert after in on_the_way
    assert found
    assert all(each == after for each in found)


# -- moving amounts about ----------------------------------------------------------------------------------


def move(storage: FileStorage, queues: Mapping[str, Queue[int]], chance: Random) -> None:
    """Take amounts out of some queues and put as much into others, in any order of queues."""
    with storage.transaction():
        taken = 0
        for name in chance.sample(QUEUES, chance.randint(1, 3)):
            entry = queues[name].dequeue()
            if entry is not None:
                taken += entry.data
                queues[name].mark_completed(entry)
        if chance.random() < 0.3:
            storage.begin_transaction()
            queues[chance.choice(QUEUES)].enqueue(1000)
            queues[chance.choice(QUEUES)].dequeue()
            storage.rollback_transaction()
        while taken:
            part = chance.randint(1, taken)
            queues[chance.choice(QUEUES)].enqueue(part)
            taken -= part
        if chance.random() < 0.2:
            raise InterruptedError


def move_often(storage: FileStorage, seed: int, rounds: int) -> Iterator[int]:
    """Counts what was committed."""
    queues, chance = open_queues(storage), Random(seed)
    until = time.monotonic() + SECONDS
    for number in range(rounds):
        if time.monotonic() > until:
            return
        try:
            move(storage, queues, chance)
        except InterruptedError:
            continue
        yield number


def total(root: Path) -> int:
    """All amounts there are, in one look."""
    with FileStorage(root, sizes=SIZES) as storage, storage._turn:
        found = 0
        for name in storage.queues():
            state = storage._state(name)
            found += sum(json.loads(storage._payload(name, each)) for each in state.all_of(None))
        return found


def fill(root: Path) -> int:
    with FileStorage(root, sizes=SIZES) as storage:
        for number, queue in enumerate(open_queues(storage).values()):
            queue.enqueue_many([10 * (number + 1)] * 3)
    return total(root)


# -- kills -------------------------------------------------------------------------------------------------


def killed(root: Path, killer: KillingFileSystem) -> tuple[int, int]:
    """A child moves amounts until it is done or killed; returns how many it has moved, and its calls."""
    output, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with FileStorage(root, sizes=SIZES, file_system=killer) as storage:
                for _ in move_often(storage, seed=7, rounds=8):
                    os.write(write, b"m\n")
            os.write(write, b"%d\n" % killer.calls)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(output) as lines:
        said = lines.read().split()
    os.waitpid(pid, 0)
    return said.count("m"), int(said[-1]) if said and said[-1] != "m" else 0


@pytest.mark.parametrize("tear", [False, True])
def test_a_kill_leaves_all_or_nothing(tmp_path, tear):
    """A process that is killed at any call of its transactions leaves each of them whole or not at all."""
    source = tmp_path / "source"
    wanted = fill(source)
    shutil.copytree(source, tmp_path / "whole")
    done, calls = killed(tmp_path / "whole", KillingFileSystem())
    assert done
    assert calls
    step = 1 if DEEP else max(1, calls // POINTS)
    for point in range(1, calls + 1, step):
        root = tmp_path / f"at-{point}"
        shutil.copytree(source, root)
        killed(root, KillingFileSystem(point, tear=tear))
        assert total(root) == wanted, f"killed at call {point}"
        assert total(root) == wanted, f"killed at call {point}, opened again"
        shutil.rmtree(root)


# -- many processes ----------------------------------------------------------------------------------------

MOVER = """
import sys
from pathlib import Path
from tests.crash.test_transactions import SIZES, move_often
from duraq import FileStorage

with FileStorage(sys.argv[1], sizes=SIZES) as storage:
    print(sum(1 for _ in move_often(storage, int(sys.argv[2]), int(sys.argv[3]))))
"""


@pytest.mark.parametrize("kill", [False, True])
def test_many_processes(tmp_path, kill):
    """Transactions over the same queues in any order never lock each other out, and lose or make nothing."""
    root = tmp_path / "storage"
    wanted = fill(root)
    home = Path(__file__).parents[2]
    movers = [
        subprocess.Popen(
            [sys.executable, "-c", MOVER, str(root), str(seed), str(ROUNDS)],
            env={**os.environ, "PYTHONPATH": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for seed in range(PROCESSES)
    ]
    chance = Random(1)
    looks = 0
    while any(mover.poll() is None for mover in movers):
        assert total(root) == wanted
        looks += 1
        if kill and looks % 2:
            chance.choice(movers).send_signal(signal.SIGKILL)
    moved = 0
    for mover in movers:
        count, said = mover.communicate(timeout=60)
        assert mover.returncode in ({0, -signal.SIGKILL} if kill else {0}), said.decode()
        moved += int(count or 0)
    logging.getLogger(__name__).warning("%d transactions, %d looks", moved, looks)
    assert moved or kill
    assert total(root) == wanted
    with FileStorage(root, sizes=SIZES) as storage:
        for queue in open_queues(storage).values():
            queue.settle_lapsed()
            assert queue.counts().leased == 0
            assert queue.counts().dead == 0 or kill
    assert looks
