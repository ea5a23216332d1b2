"""A few lines at the end of a terminal that are drawn again in place. The last ones stay when it is over."""

from __future__ import annotations

import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

from duraq.cli.failing import Code, CommandError
from duraq.cli.options import Settings

# A look takes a few milliseconds, and nobody reads faster.
SHORTEST = timedelta(milliseconds=100)


class Frames:
    """Draws lines over those before. Only what differs is written, and nothing if nothing does."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._size = shutil.get_terminal_size()

    def show(self, lines: Sequence[str]) -> None:
        """Have these lines there; none may be longer than the screen is wide."""
        size = shutil.get_terminal_size()
        # What does not fit the screen could not be drawn over; nor is it known where things are on another.
        fitting = list(lines[: max(1, size.lines - 1)])
        before = self._lines if size == self._size else []
        self._size = size
        if fitting == before:
            return
        out = f"\x1b[{len(before)}A" if before else ""
        for number, line in enumerate(fitting):
            if number < len(before) and line == before[number]:
                out += "\n"
            else:
                out += f"\r{line}\x1b[K\n"
        if len(fitting) < len(before):
            out += "\x1b[J"
        self._lines = fitting
        sys.stdout.write(out)
        sys.stdout.flush()


def again_and_again(said: Settings, look: Callable[[], Sequence[str]], interval: timedelta) -> int:
    """Show what ``look`` says, in place, until q or Ctrl-C; where it cannot be drawn over, once."""
    if interval < SHORTEST:
        raise CommandError(Code.USAGE, "look at most ten times a second")
    frames = Frames()
    with suppress(KeyboardInterrupt), _keys() as pressed:  # that is how one leaves
        while True:
            frames.show(look())
            if not can_be_drawn(said) or pressed(interval.total_seconds()) == b"q":
                break
    return Code.DONE


def has_keys() -> bool:
    """Whether somebody can press keys for us: at a terminal, and not while we are in its background."""
    if not sys.stdin.isatty():
        return False
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return True  # a terminal that is not the one of our session has no background


@contextmanager
def _keys() -> Iterator[Callable[[float], bytes]]:
    """Keys as they are pressed, and none of them drawn: each call waits at most so long for the next one."""
    if not has_keys():
        yield _asleep
        return
    before = termios.tcgetattr(0)
    tty.setcbreak(0)
    try:
        yield _pressed
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _asleep(seconds: float) -> bytes:
    time.sleep(seconds)
    return b""


def _pressed(seconds: float) -> bytes:
    until = time.monotonic() + seconds
    while select.select([0], [], [], max(0.0, until - time.monotonic()))[0]:
        key = os.read(0, 1)
        if key in {b"q", b""}:
            return b"q"  # or the terminal is gone
    return b""


def can_be_drawn(said: Settings) -> bool:
    """Whether there is a screen to draw on."""
    return said.style == "table" and sys.stdout.isatty()
