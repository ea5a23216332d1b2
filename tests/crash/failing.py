"""A disk in memory of which one process's calls fail, and which calls of the engine there are to fail."""

import ast
import errno
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import duraq
from duraq.testing import MemoryFileSystem
from duraq.testing.disk import Directory, Disk
from duraq.testing.faults import CALLS, os_error

ENGINE = Path(duraq.__file__).parent
# These never fail: see FileSystem.
SPARED = frozenset({"close", "unlock", "start_writing"})

ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, errno.EMFILE, errno.EACCES, errno.EROFS)
SHORT: dict[str, Callable[[int], int]] = {
    "1 byte": lambda length: min(1, length),
    "half": lambda length: length // 2,
    "all but 1 byte": lambda length: length - 1,
}


class Call(NamedTuple):
    """A call, and what it is about."""

    name: str
    path: str


# The lines of the engine that lead to a call: modules and numbers.
Way = tuple[tuple[str, int], ...]


class Failure(NamedTuple):
    """What becomes of the ``at``-th call: an errno, or a write of a part; ``for_ever``: also of its like."""

    at: int
    how: int | str
    for_ever: bool

    def __str__(self) -> str:
        how = errno.errorcode[self.how] if isinstance(self.how, int) else f"{self.how} written"
        return f"call {self.at}: {how}{' from there on' * self.for_ever}"


NONE = Failure(0, errno.EIO, for_ever=False)


class Lead(NamedTuple):
    """What has failed before a story begins: the ``at``-th such call, with this errno or as a part only."""

    name: str
    suffix: str
    at: int
    how: int | str


def failures(made: list[Call]) -> Iterator[Failure]:
    """All that can become of these calls, one at a time."""
    for at, call in enumerate(made, 1):
        for how in (*ERRORS, *(SHORT if call.name == "pwrite" else ())):
            yield Failure(at, how, for_ever=False)
            yield Failure(at, how, for_ever=True)


class FailingFileSystem(MemoryFileSystem):
    """Lists the calls that a process makes between ``begin`` and ``end``, and lets one of them fail.

    ``made``: the calls. ``ways``: the lines of the engine that lead to each. ``struck``: what has failed.
    With ``lead`` it all begins with that.
    """

    def __init__(self, failure: Failure = NONE, disk: Disk | None = None) -> None:
        super().__init__(disk=disk)
        self.failure = failure
        self.lead: Lead | None = None
        self.made: list[Call] = []
        self.ways: list[Way] = []
        self.recording = not failure.at
        self.struck: Call | None = None
        self.begun = False
        self._leading = 0

    def begin(self) -> None:
        self.begun = True

    def end(self) -> None:
        """From here on every call succeeds, unless one fails for ever."""
        if not (self.struck and self.failure.for_ever):
            self.heal()

    def heal(self) -> None:
        """From here on every call succeeds."""
        super().heal()
        self.begun, self.lead = False, None

    def _begin(self, call: str, path: str, size: int = 0, *, changes: bool = False) -> int | None:
        short = super()._begin(call, path, size, changes=changes)
        lead = self.lead
        if lead is not None and call == lead.name and path.endswith(lead.suffix):
            self._leading += 1
            if self._leading == lead.at:
                self.begin()
                return _fail(lead.how, path, size)
        if not self.begun or call in SPARED:
            return short
        self.made.append(Call(call, path))
        at, how, for_ever = self.failure
        if len(self.made) == at:
            self.struck = Call(call, path)
        elif not (for_ever and self.struck and call == self.struck.name):
            if self.recording:
                self.ways.append(tuple(_lines()))
            return short
        return _fail(how, path, size)

    def sync(self, fd: int) -> None:
        """The same, but a directory whose sync fails has its names still to be written.

        Real file systems journal names; when that fails they stop themselves. The disk in memory would go on
        showing names that no sync writes any more.
        """
        description = self._description(fd)
        if isinstance(description.node, Directory):
            self._begin("sync", description.path, changes=True)
            description.node.sync()
        else:
            super().sync(fd)


def _fail(how: int | str, path: str, size: int) -> int:
    if isinstance(how, int):
        raise os_error(how, path)
    return SHORT[how](size)


def _lines() -> Iterator[tuple[str, int]]:
    """The lines of the engine that lead to this call."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = _module(frame.f_code.co_filename)
        if module is not None:
            yield module, frame.f_lineno
        frame = frame.f_back


@cache
def _module(path: str) -> str | None:
    """Which module of the engine that is, if it is one."""
    return str(Path(path).relative_to(ENGINE)) if Path(path).is_relative_to(ENGINE) else None


ELSEWHERE = {
    "cli/demo.py",
    "backups.py:_checked",  # of a copy that is damaged: unit/test_backup.py
    "journal/recovery.py:reaches",  # of a queue that is refused
    # A lock that somebody has removed, and a line that is longer than any: crash/test_removed_files.py,
    # security/test_bounds.py.
    "journal/log.py:_check_not_removed",
    "journal/pieces.py:lines",
    "journal/pieces.py:line_length",
}


def call_sites() -> Iterator[tuple[str, range, str]]:
    """Where the engine calls a FileSystem: module, lines, call."""
    for path in sorted(ENGINE.rglob("*.py")):
        module = str(path.relative_to(ENGINE))
        if module.startswith("testing/") or module in ELSEWHERE:
            continue
        tree = ast.parse(path.read_text("utf-8"))
        elsewhere = [
            range(each.lineno, (each.end_lineno or each.lineno) + 1)
            for each in ast.walk(tree)
            if isinstance(each, ast.FunctionDef) and f"{module}:{each.name}" in ELSEWHERE
        ]
        for node in ast.walk(tree):
            if any(getattr(node, "lineno", 0) in lines for lines in elsewhere):
                continue
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                receiver, name = node.func.value, node.func.attr
                if name in CALLS - SPARED and _is_file_system(receiver):
                    yield module, range(node.lineno, (node.end_lineno or node.lineno) + 1), name


def _is_file_system(receiver: ast.expr) -> bool:
    """``fs``, ``file_system``, ``self._fs``, ``self._log.fs``: what the engine calls one."""
    name = receiver.attr if isinstance(receiver, ast.Attribute) else getattr(receiver, "id", "")
    return name.lstrip("_") in {"fs", "file_system"}
