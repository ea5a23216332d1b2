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
from crash.interrupting import Interrupted, Run
from evidence import count

from duraq.journal.filesystem import RealFileSystem

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
STEPS = 40
CALLS = ("pread", "pwrite", "lock", "unlock", "datasync", "size")


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
        count("interrupted")


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
    count("interrupted", interrupted)
