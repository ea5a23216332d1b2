"""Processes under load that say what they do, and what of it was heard before the power went.

A sync that is in flight while the kernel is told to forget may return 0 without having made anything
durable. That is the ioctl's doing and not a disk's, so nothing counts that was said after it: the processes
are stopped first, and what they have said by then is read first.
"""

from __future__ import annotations

import math
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.power.disk import Disk

Say = Callable[[str], None]


class ActorFailed(Exception):
    """A process under load ended by itself, or did nothing for too long."""


class Actor:
    """A child process, and the lines that it has said; ``late`` are those that came after the cut."""

    def __init__(self, act: Callable[[Say], None]) -> None:
        self.said: list[str] = []
        self.late: list[str] = []
        self.status: int | None = None
        self._begun = b""
        self.output, write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _play(act, write)
        os.close(write)

    def listen(self) -> bool:
        """Read what it has to say; False when it has ended."""
        more = os.read(self.output, 1 << 16)
        *lines, self._begun = (self._begun + more).split(b"\n")
        self.said += [line.decode() for line in lines]
        return bool(more)

    def stop(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def end(self) -> None:
        """Kill it, if it still lives, hear it out, and keep its exit status."""
        os.kill(self._pid, signal.SIGKILL)
        in_time, self.said = self.said, []
        while self.listen():
            pass
        self.said, self.late = in_time, self.said
        os.close(self.output)
        self.status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def _play(act: Callable[[Say], None], write: int) -> None:
    status = 1
    try:
        act(lambda line: _say(write, line))
        status = 0
    except BaseException:  # noqa: BLE001 - it must not get back into what its parent was doing
        traceback.print_exc()
    finally:
        os._exit(status)


def _say(write: int, line: str) -> None:
    os.write(write, line.encode() + b"\n")


@contextmanager
def acting(*acts: Callable[[Say], None]) -> Iterator[list[Actor]]:
    """A process for each, as long as the block lasts: one that lived on would keep the disk mounted."""
    actors: list[Actor] = []
    try:
        actors.extend(map(Actor, acts))  # one by one: what was started is ended if the next one is not
        yield actors
    finally:
        for actor in actors:
            actor.end()


def act_out(act: Callable[[Say], None], seconds: float) -> Actor:
    """A process that does this and ends by itself; one that takes longer is killed."""
    with acting(act) as (actor,):
        until = time.monotonic() + seconds
        while select.select([actor.output], [], [], max(0.0, until - time.monotonic()))[0]:
            if not actor.listen():
                break
    return actor


def hear(actors: Sequence[Actor], seconds: float, lines: float = math.inf) -> bool:
    """Listen for so long or until they have said so many lines in all; says whether they have."""
    by_output = {actor.output: actor for actor in actors}
    until = time.monotonic() + seconds
    while sum(len(actor.said) for actor in actors) < lines:
        left = until - time.monotonic()
        for output in select.select(list(by_output), [], [], max(0.0, left))[0]:
            if not by_output[output].listen():
                raise ActorFailed("a process under load ended by itself")
        if left <= 0:
            return False
    return True


def cut_power(disk: Disk, actors: Sequence[Actor]) -> None:
    """Stop them, hear what they have said so far, and cut the power."""
    for actor in actors:
        actor.stop()
    hear(actors, 0)
    disk.cut_power()
