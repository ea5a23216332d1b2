"""What ends the programs of a ``duraq run`` that is killed itself.

Its entries go back at once, so a program that lived on would work beside the next one that is given its
entry. A process forked before everything else waits for the end of a pipe that only its parent writes to,
which the kernel closes however the parent ends; then it ends what still runs. Only a program that was being
started in that very moment, and has not been given its payload, is missed.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

# How long a program may take to end after SIGTERM, in seconds.
_PATIENCE = 5.0


class Guard:
    """Knows the process groups that must not outlive this process. To be made before any thread is."""

    def __init__(self) -> None:
        read, self._write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._write)
                _watch(read)
            finally:
                os._exit(0)
        os.close(read)

    def add(self, group: int) -> None:
        """From now on this process group is to end with us."""
        self._tell(b"+%d\n" % group)

    def discard(self, group: int) -> None:
        """It has ended."""
        self._tell(b"-%d\n" % group)

    def close(self) -> None:
        """Nothing is left to be guarded."""
        os.close(self._write)
        os.waitpid(self._pid, 0)

    def _tell(self, line: bytes) -> None:
        # One write, and short, so that it is never torn. The guard may have been killed; the work goes on.
        with suppress(BrokenPipeError):
            os.write(self._write, line)


def _watch(read: int) -> None:
    # A Ctrl-C reaches all processes of the terminal; this one must outlive its parent.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Whoever reads our output waits for its end; that must not hang on this process.
    for fd in (0, 1, 2):
        with suppress(OSError):
            os.close(fd)
    groups: set[int] = set()
    rest = b""
    while piece := os.read(read, 1 << 16):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            change = groups.add if line[:1] == b"+" else groups.discard
            change(int(line[1:]))
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + _PATIENCE
        for group in groups:
            with suppress(ProcessLookupError):
                os.killpg(group, number)
        while groups and time.monotonic() < until:
            time.sleep(0.05)  # they are not our children, so nobody tells us
            groups = {group for group in groups if _is_there(group)}


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
