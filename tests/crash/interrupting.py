"""A queue that is worked while its calls are interrupted, and a way to interrupt them at every place."""

from __future__ import annotations

import contextlib
import dis
import sys
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

import duraq
from duraq import EntryStatus, FileStorage, Queue, StorageClosed, StorageFailed
from duraq.journal.filesystem import RealFileSystem
from duraq.journal.log import Sizes

SIZES = Sizes(journal=8 << 10, segment=2 << 10)
_OURS = (str(Path(duraq.__file__).parent), contextlib.__file__)

Entries = dict[str, str]  # id: whether it is "live", "held" or "dead"


class Interrupted(BaseException):
    """What the signal handler raises."""


class Run:
    """One queue that is worked by one thread, and what must be in it."""

    def __init__(self, root: Path, file_system: RealFileSystem | None = None) -> None:
        self.root, self.file_system = root, file_system
        self.entries: Entries = {}
        self.asked = self.entries  # of the step that is being done, or was done last
        self.open()

    def open(self) -> None:
        self.storage = FileStorage(self.root, sizes=SIZES, file_system=self.file_system)
        self.queue = Queue("jobs", self.storage, str)

    def first(self, state: str) -> str | None:
        return next((name for name, each in self.entries.items() if each == state), None)

    def do(self, kind: str, number: int) -> Entries:
        """Do one step, and return what is there after it; ``self.asked`` is that from the beginning."""
        self.asked = asked = dict(self.entries)
        if kind == "enqueue":
            asked[f"{number}"] = "live"
            self.queue.enqueue("x" * 100, id=f"{number}")
        elif kind == "many":
            ids = [f"{number}-{n}" for n in range(10)]
            asked |= dict.fromkeys(ids, "live")
            self.queue.enqueue_many(["y" * 50] * 10, ids=ids)
        elif kind == "take":
            first = self.first("live")
            if first is not None:
                asked[first] = "held"
            found = self.queue.dequeue()
            assert (None if found is None else found.id) == first
        elif kind == "transaction":
            asked |= {f"{number}-a": "live", f"{number}-b": "live"}
            with self.storage.transaction():
                self.queue.enqueue("z" * 50, id=f"{number}-a")
                self._end("complete", asked)
                self.queue.enqueue("z" * 50, id=f"{number}-b")
        elif kind == "compact":
            self.storage.compact("jobs")
        elif kind == "close":
            asked |= given_back(asked)
            self.storage.close()
        elif kind == "open":
            self.open()
        else:
            self._end(kind, asked)
        return asked

    def _end(self, how: str, asked: Entries) -> None:
        """End the lease of what is held, if anything is."""
        held = self.first("held")
        if held is None:
            return
        if how == "complete":
            del asked[held]
            self.queue.mark_completed(held)
        elif how == "fail":
            asked[held] = "dead"
            self.queue.mark_failed(held, "no", dead=True)
        else:
            asked[held] = "live"
            self.queue.release(held)

    def after_interrupt(self, where: str) -> None:
        """It was done or not; if the storage cannot say, it says so, and can be closed and opened again."""
        allowed = [self.entries, self.asked]
        try:
            found = seen(self.queue)
        except (StorageFailed, StorageClosed):
            self.storage.close()
            self.open()
            found = seen(self.queue)
            # What was held has died with the old one.
            self.queue.settle_lapsed()
            allowed = [given_back(entries) for entries in allowed]
            found = given_back(found)
        assert found in allowed, where
        self.entries = found

    def end(self, where: str) -> None:
        """Another one finds the same, and everything can be worked."""
        assert seen(self.queue) == self.entries, where
        self.storage.close()
        self.file_system = None
        self.open()
        assert given_back(seen(self.queue)) == given_back(self.entries), where
        live = [name for name, state in self.entries.items() if state != "dead"]
        taken = [entry.id for entry in self.queue.dequeue(limit=len(live) + 1)]
        assert sorted(taken) == sorted(live), where
        self.storage.close()


def seen(queue: Queue[str]) -> Entries:
    words = {EntryStatus.LEASED: "held", EntryStatus.DEAD: "dead"}
    return {entry.id: words.get(entry.status, "live") for entry in queue.entries()}


def given_back(entries: Entries) -> Entries:
    return {name: "live" if state == "held" else state for name, state in entries.items()}


class Interrupter:
    """Within it, Interrupted is raised at the ``at``-th place, once, in this thread.

    The interpreter notices a signal behind a call of what is not Python, at the beginning of a function and
    where a loop goes back: never between a ``with`` and what it protects. So these are the places, in our own
    code and in that of contextlib, and not all lines.
    """

    def __init__(self, at: int) -> None:
        self.hit = ""  # where it was
        self._left = at
        self._calling: set[int] = set()  # frames that have called one of Python's

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: FrameType, _event: str, _arg: object) -> Any:
        self._calling.add(id(frame.f_back))
        self._calling.discard(id(frame))
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        noticed, handlers = _places(frame.f_code)
        before = -1

        def step(frame: FrameType, event: str, _arg: object) -> Any:
            nonlocal before
            if event == "opcode":
                at, called = frame.f_lasti, id(frame) in self._calling
                self._calling.discard(id(frame))
                # Raised before this instruction in place of behind the one before it: it comes to the same
                # where both have the same handler.
                if before in noticed and not called and handlers.get(before) == handlers.get(at):
                    self._arrive(frame)
                before = at
            return step

        return step

    def _arrive(self, frame: FrameType) -> None:
        self._left -= 1
        if self._left == 0:
            self.hit = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            raise Interrupted


@cache
def _places(code: CodeType) -> tuple[set[int], dict[int, int]]:
    """Behind which instructions a signal may be noticed; and of each, which handler has it."""
    found = dis.Bytecode(code)
    noticed = {each.offset for each in found if each.opname.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))}
    handlers = {
        offset: entry.target
        for entry in found.exception_entries
        for offset in range(entry.start, entry.end, 2)
    }
    return noticed, handlers
