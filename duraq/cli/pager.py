"""Long output, page by page, for whoever sits at a terminal and has a pager."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from duraq.cli.foreground import left_to_program
from duraq.cli.options import Settings

# End if all of it fits the screen, show colours, leave it there. What could do more than colour is escaped.
_LESS = "-FRX"


@contextmanager
def paged(said: Settings) -> Iterator[None]:
    """What is printed in this block goes through $PAGER, or less, if a person reads it."""
    command = _command(said)
    if command is None:
        yield
        return
    # As it would be without the pager, which is none to be seen.
    said.color = "always" if said.colored else "never"
    environment = {"LESS": _LESS, **os.environ}
    try:
        pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)  # noqa: S603 - the user's own
    except OSError:
        yield
        return
    assert pager.stdin is not None
    screen, said.paging = sys.stdout, True
    try:
        sys.stdout = io.TextIOWrapper(pager.stdin, encoding=screen.encoding, errors="backslashreplace")
        # Whoever has seen enough closes it.
        with suppress(BrokenPipeError):
            yield
            sys.stdout.flush()
    finally:
        pages, sys.stdout, said.paging = sys.stdout, screen, False
        with suppress(BrokenPipeError):
            pages.close()
        with left_to_program():
            pager.wait()


def _command(said: Settings) -> list[str] | None:
    if not said.pager or said.style != "table" or not (sys.stdout.isatty() and sys.stdin.isatty()):
        return None
    if not os.get_terminal_size(sys.stdout.fileno()).lines:
        return None  # a terminal without a size is no screen
    named = os.environ.get("PAGER", "less" if shutil.which("less") else "")
    try:
        command = shlex.split(named)
    except ValueError:
        return None
    return command if command and command != ["cat"] and shutil.which(command[0]) else None
