"""A program in a terminal of its own: all that it writes is kept count of, and drawn by pyte."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pyte

COLUMNS, LINES = 120, 36
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
# What a terminal is asked, and answers; with synchronized output it is told where frames begin and end.
ANSWERS = {b"\x1b[?2026$p": b"\x1b[?2026;2$y", b"\x1b[c": b"\x1b[?62;c"}
QUIT, GRACE = b"\x11", 5.0  # ctrl+q, and how long it may take over it, in seconds
FRAME, CLEAR = b"\x1b[?2026h", b"\x1b[2J"


class Cost(NamedTuple):
    """What a program has taken so far: seconds of a core, times it was woken, bytes it has written."""

    cpu: float
    wakeups: int
    written: int
    frames: int
    clears: int
    at: float


class Terminal:
    """Runs the command until the block ends."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], size: tuple[int, int] = (COLUMNS, LINES)
    ) -> None:
        self.screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self.screen)
        self.written = self.frames = self.clears = 0
        self.started_at = time.monotonic()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], list(command), {**os.environ, "TERM": "xterm-256color", **env})
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self._tail = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # As a person would end it.
            with suppress(EOFError):
                self.send(QUIT)
                self.rest(GRACE)
        finally:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self._fd)

    # -- what it shows ---------------------------------------------------------------------------------

    def read(self, seconds: float) -> float | None:
        """Take what it writes within that time, one piece; when that came."""
        if not select.select([self._fd], [], [], max(0, seconds))[0]:
            return None
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:
            raise EOFError("the program has ended:\n" + "\n".join(self.lines())) from None
        at = time.monotonic()
        self.written += len(data)
        # What is looked for may come in two pieces.
        both = self._tail + data
        self.frames += both.count(FRAME) - self._tail.count(FRAME)
        self.clears += both.count(CLEAR) - self._tail.count(CLEAR)
        for asked, answer in ANSWERS.items():
            if asked in both and asked not in self._tail:
                self.send(answer)
        self._tail = both[-16:]
        # pyte prints the end of a private sequence that it does not know.
        self._stream.feed(
            data.replace(b"\x1b[?2026$p", b"").replace(b"\x1b[>1u", b"").replace(b"\x1b[<u", b"")
        )
        return at

    def rest(self, seconds: float) -> None:
        """Take what it writes for that long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(left)

    def until(self, holds: Callable[[list[str]], bool], timeout: float = 60.0) -> float:
        """When that began to be true of its lines."""
        if holds(self.lines()):
            return time.monotonic()
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            at = self.read(left)
            if at is not None and holds(self.lines()):
                return at
        raise TimeoutError("it did not show in time what it should:\n" + "\n".join(self.lines()))

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    def shows(self, text: str) -> bool:
        return any(text in line for line in self.lines())

    def send(self, keys: bytes) -> float:
        """Type that; when it was."""
        at = time.monotonic()
        os.write(self._fd, keys)
        return at

    # -- what it takes ---------------------------------------------------------------------------------

    def cost(self) -> Cost:
        fields = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(") ")[2].split()
        wakeups = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            for line in (task / "status").read_text("ascii", "replace").splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    wakeups += int(line.split()[1])
        cpu = (int(fields[11]) + int(fields[12])) / TICKS
        return Cost(cpu, wakeups, self.written, self.frames, self.clears, time.monotonic())

    def rss(self) -> float:
        """Its memory in MB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1]) * PAGE / 1e6
