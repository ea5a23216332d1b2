"""A Ctrl-C, or whatever else a signal handler raises, in the middle of a call.

The process lives on and so do its objects: they must know what is true, or say that they do not, and no lock
may be left behind that anybody waits for in vain.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Self

import pytest

from duraq import EntryStatus, FileStorage, Queue, StorageFailed
from duraq.journal.filesystem import RealFileSystem
from duraq.journal.log import Sizes

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SIZES = Sizes(journal=8 << 10, segment=2 << 10)
STEPS = 40
CALLS = ("pread", "pwrite", "lock", "unlock", "datasync", "size")

Entries = dict[str, str]  # id: whether it is "live", "held" or "dead"


class Interrupted(BaseException):
    """What the signal handler raises."""


class InterruptedFileSystem(RealFileSystem):
    """Raises Interrupted once, before or after a call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self._at, self._after = 0, False
        for name in CALLS:
            setattr(self, name, self._interruptible(getattr(self, name)))

    def interrupt(self, at: int, *, after: bool) -> None:
        self.calls, self._at, self._after = 0, at, after

    def _interruptible(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def interruptible(*arguments: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return call(*arguments)  # signal handlers run in the main thread only
            self.calls += 1
            due = self.calls == self._at
            if due and not self._after:
                raise Interrupted
            result = call(*arguments)
            if due and self._after:
                raise Interrupted
            return result

        return interruptible


def script(seed: int, steps: int) -> Iterator[tuple[str, int]]:
    chance = Random(seed)
    for number in range(steps):
        yield chance.choice(("enqueue", "enqueue", "many", "take", "complete", "fail", "release")), number


class Run:
    """One queue that is worked by one thread, and what must be in it."""

    def __init__(self, root: Path, file_system: RealFileSystem | None = None) -> None:
        self.root, self.file_system = root, file_system
        self.entries: Entries = {}
        self.open()

    def open(self) -> None:
        self.storage = FileStorage(self.root, sizes=SIZES, file_system=self.file_system)
        self.queue = Queue("jobs", self.storage, str)

    def do(self, kind: str, number: int) -> Entries:
        """Do one step, and return what is there after it; ``self.asked`` is that from the beginning."""
        self.asked = asked = dict(self.entries)
        held = next((name for name, state in self.entries.items() if state == "held"), None)
        if kind == "enqueue":
            asked[f"{number}"] = "live"
            self.queue.enqueue("x" * 100, id=f"{number}")
        elif kind == "many":
            ids = [f"{number}-{n}" for n in range(10)]
            asked |= dict.fromkeys(ids, "live")
            self.queue.enqueue_many(["y" * 50] * 10, ids=ids)
        elif kind == "take":
            first = next((name for name, state in self.entries.items() if state == "live"), None)
            if first is not None:
                asked[first] = "held"
            found = self.queue.dequeue()
            assert (None if found is None else found.id) == first
        elif held is not None:
            if kind == "complete":
                del asked[held]
                self.queue.mark_completed(held)
            elif kind == "fail":
                asked[held] = "dead"
                self.queue.mark_failed(held, "no", dead=True)
            else:
                asked[held] = "live"
                self.queue.release(held)
        return asked

    def seen(self) -> Entries:
        words = {EntryStatus.LEASED: "held", EntryStatus.DEAD: "dead"}
        return {entry.id: words.get(entry.status, "live") for entry in self.queue.entries()}

    def after_interrupt(self, where: str) -> None:
        """It was done or not; if the storage cannot say, it says so, and can be closed and opened again."""
        allowed = [self.entries, self.asked]
        try:
            found = self.seen()
        except StorageFailed:
            self.storage.close()
            self.open()
            found = self.seen()
            # What was held has died with the old one.
            self.queue.settle_lapsed()
            allowed = [given_back(entries) for entries in allowed]
            found = given_back(found)
        assert found in allowed, where
        self.entries = found

    def end(self, where: str) -> None:
        """Another one finds the same, and everything can be worked."""
        assert self.seen() == self.entries, where
        self.storage.close()
        self.file_system = None
        self.open()
        assert given_back(self.seen()) == given_back(self.entries), where
        live = [name for name, state in self.entries.items() if state != "dead"]
        taken = [entry.id for entry in self.queue.dequeue(limit=len(live) + 1)]
        assert sorted(taken) == sorted(live), where
        self.storage.close()


def given_back(entries: Entries) -> Entries:
    return {name: "live" if state == "held" else state for name, state in entries.items()}


def calls_of(root: Path) -> int:
    file_system = InterruptedFileSystem()
    run = Run(root, file_system)
    file_system.interrupt(0, after=False)
    for kind, number in script(1, STEPS):
        run.entries = run.do(kind, number)
    run.storage.close()
    return file_system.calls


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_at_every_call(tmp_path: Path, after: bool) -> None:
    """Interrupted before or after any call of the file system, a storage still knows what is true."""
    for at in range(1, calls_of(tmp_path / "counted"), 1 if DEEP else 5):
        file_system = InterruptedFileSystem()
        run = Run(tmp_path / f"{at}", file_system)
        file_system.interrupt(at, after=after)
        where = f"{'after' if after else 'before'} call {at}"
        for kind, number in script(1, STEPS):
            try:
                run.entries = run.do(kind, number)
            except Interrupted:
                run.after_interrupt(f"{where}, {kind}")
        run.end(where)


class Alarm:
    """Has Interrupted raised after a while, once, unless it is too late for that."""

    def __init__(self) -> None:
        self._armed = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGALRM, self._ring)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def set(self, seconds: float) -> None:
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def stop(self) -> None:
        self._armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _ring(self, _number: int, _frame: object) -> None:
        # Another thread may have been given the signal, and been late to say so.
        if self._armed:
            self._armed = False
            raise Interrupted


# What was just being opened is closed by the garbage collector, and the interpreter ignores what is raised in
# its own callbacks.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(20 if DEEP else 2))
def test_at_any_moment(tmp_path: Path, seed: int) -> None:
    """Interrupted at any moment, a storage still knows what is true, or says that it does not."""
    chance = Random(seed)
    run = Run(tmp_path / "storage")
    interrupted = 0
    with Alarm() as alarm:
        for kind, number in script(seed, 5000 if DEEP else 1500):
            try:
                alarm.set(chance.uniform(1e-6, 400e-6))
                after = run.do(kind, number)
                alarm.stop()
                run.entries = after
            except (Interrupted, RuntimeError) as error:
                # The interpreter's own threading code, interrupted, may trip over a lock that it lost.
                if not isinstance(error, Interrupted) and not isinstance(error.__context__, Interrupted):
                    raise
                interrupted += 1
                run.after_interrupt(f"seed {seed}, step {number}, {kind}")
    assert interrupted
    run.end(f"seed {seed}")
