"""The real file system in a process that kills itself at a chosen call."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn

from duraq.journal.filesystem import RealFileSystem
from duraq.testing.faults import MUTATING

KILL_POINTS = MUTATING | {"lock", "unlock", "pread"}


class KillingFileSystem(RealFileSystem):
    """Sends SIGKILL to its own process immediately before the ``n``-th call among ``at``.

    With ``n=None`` it only counts: ``calls`` tells a harness how far to sweep, ``trace`` at which call each
    ``n`` dies. As in MemoryFileSystem, calls that open count only when they make something. With ``tear``,
    a pwrite that is the last call writes its first half.
    """

    def __init__(
        self, n: int | None = None, *, at: Collection[str] = KILL_POINTS, tear: bool = False
    ) -> None:
        super().__init__()
        if (n is not None and n < 1) or not KILL_POINTS.issuperset(at):
            raise ValueError(f"a kill comes at the 1st or a later call of {', '.join(sorted(KILL_POINTS))}")
        self._n = n
        self._at = frozenset(at)
        self._tear = tear
        self.trace: list[str] = []
        # On the instance, because that is where RealFileSystem binds its own.
        for call in self._at - {"open_root", "open_dir", "open_file"}:
            setattr(self, call, self._deadly(call, getattr(self, call)))

    @property
    def calls(self) -> int:
        return len(self.trace)

    def open_root(self, path: str, *, create: bool = False) -> int:
        if create and not Path(path).is_dir():
            self._count("open_root")
        return super().open_root(path, create=create)

    def open_dir(self, parent: int, name: str, *, create: bool = False) -> int:
        if create and not self.exists(parent, name):
            self._count("open_dir")
        return super().open_dir(parent, name, create=create)

    def open_file(
        self,
        directory: int,
        name: str,
        *,
        create: bool = False,
        exclusive: bool = False,
        writable: bool = True,
    ) -> int:
        if (create or exclusive) and not self.exists(directory, name):
            self._count("open_file")
        return super().open_file(directory, name, create=create, exclusive=exclusive, writable=writable)

    def _deadly(self, call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self._count(call, *arguments)
            return real(*arguments, **named)

        return counted

    def _count(self, call: str, *arguments: Any) -> None:
        if call not in self._at:
            return
        self.trace.append(call)
        if self._n is None or len(self.trace) < self._n:
            return
        if self._tear and call == "pwrite":
            fd, data, offset = arguments
            os.pwrite(fd, data[: len(data) // 2], offset)
        _die()


def _die() -> NoReturn:
    """End this process as the kernel's out-of-memory killer would."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("outlived SIGKILL")
