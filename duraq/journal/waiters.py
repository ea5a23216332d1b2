"""Who waits: one FIFO for each blocked consumer of a queue, in ``waiters/``, and how a producer wakes one.

A waiter makes a FIFO named after the moment of its arrival and holds it open for reading. A waker opens the
oldest one for writing, unlinks it and closes it again: the hang-up is the wake-up.

- The unlink is the claim. Of several wakers one succeeds and the others go on to the next waiter, so that
  each wake-up goes to another waiter and the longest waiting comes first. A waiter is woken at most once;
  to wait again it registers again, at the end of the line.
- No byte is written. A hang-up lasts, so it cannot come too early; it happens even if the waker is killed
  on the way; and it cannot raise SIGPIPE in a program that dies of it.
- A FIFO that nobody reads (ENXIO) is a dead waiter's and is removed on the way.

What a waiter must do so that it misses nothing: register, then look at the queue, then wait.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import select
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from duraq import forks
from duraq.journal.fifo import Descriptor, make_fifo, open_fifo, unlink_if_there
from duraq.journal.filesystem import FileSystem, NotOurs, RealFileSystem
from duraq.journal.lease import Watch

_NAME = re.compile(r"\d{20}-(?P<pid>[1-9]\d*)-\d+\.(new|fifo)")
_LONGEST_WAIT = 24 * 60 * 60  # seconds; poll() takes milliseconds in an int, which overflows after 24 days
_NO_WAITER = {errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.EACCES}  # gone, a link, a directory, not ours
_counter = itertools.count()
_files = RealFileSystem()


@dataclass(frozen=True, slots=True)
class Wake:
    """Why a wait ended. It is false if only because its time was up."""

    woken: bool = False
    hung_up: frozenset[Watch] = frozenset()

    def __bool__(self) -> bool:
        return self.woken or bool(self.hung_up)


class Waiters:
    """The line of waiters of one queue, over all processes. Thread-safe.

    ``directory`` is a descriptor of ``waiters/`` and remains the caller's to close.
    """

    def __init__(self, directory: int) -> None:
        self.directory = directory
        self.ours: set[Waiter] = set()
        forks.register(self)

    def register(self) -> Waiter:
        """A context in which the caller stands at the end of the line."""
        return Waiter(self)

    def wake(self, count: int) -> int:
        """Wake the ``count`` longest waiting, or as many as there are; returns how many.

        What is no waiter's FIFO of ours is left alone.
        """
        return _wake(self.directory, count)

    def sweep(self) -> None:
        """Remove the FIFOs of dead waiters.

        ``wake`` removes those it meets; this is for a queue whose consumers die while nobody adds to it.
        """
        for name in _files.names(self.directory):
            found = _NAME.fullmatch(name)
            # The pid is no proof, it only spares the living: to look closer is to wake them.
            if found and not Path("/proc", found["pid"]).exists():
                _wake_one(self.directory, name)

    def close(self) -> None:
        """Wake the threads that wait through this object, so that they see that it is closed."""
        for waiter in list(self.ours):
            # One that cannot be woken looks for itself before long.
            with suppress(OSError):
                _wake_one(self.directory, waiter.name)

    def after_fork_in_child(self) -> None:
        """Else the child would go on reading for the waiters of its parent, and be woken in their place."""
        ours, self.ours = self.ours, set()
        for waiter in ours:
            os.close(waiter.fileno())


def count_living(file_system: FileSystem, root: int, queue: str) -> int:
    """How many wait for the queue, as far as one may know; a dead one counts until its pid is gone."""
    with ExitStack() as opened, suppress(OSError):
        home = file_system.open_dir(root, queue)
        opened.callback(file_system.close, home)
        directory = file_system.open_dir(home, "waiters")
        opened.callback(file_system.close, directory)
        found = [_NAME.fullmatch(name) for name in file_system.names(directory)]
        return sum(Path("/proc", each["pid"]).exists() for each in found if each)
    return 0


class Waiter:
    """A place in the line of waiters."""

    def __init__(self, waiters: Waiters) -> None:
        self.name = ""
        self._waiters = waiters
        # The storage may be closed, and its descriptors with it, before a waiting thread has left.
        self._directory = Descriptor(os.dup(waiters.directory))
        self._fd = -1
        self._woken = False

    def fileno(self) -> int:
        """A descriptor that hangs up when this waiter is woken; ``wait(0)`` then says so."""
        return self._fd

    def wait(self, timeout: float | None, also: Iterable[Watch] = ()) -> Wake:
        """Sleep until woken, or one of ``also`` hangs up, or ``timeout`` seconds (at most a day) are over."""
        watches = {watch.fileno(): watch for watch in also}
        poller = select.poll()
        for fd in (self._fd, *watches):
            poller.register(fd, 0)  # a hang-up is always reported
        hung_up = {
            fd
            for fd, _ in poller.poll(None if timeout is None else 1000 * min(max(timeout, 0), _LONGEST_WAIT))
        }
        self._woken = self._fd in hung_up
        return Wake(self._woken, frozenset(watch for fd, watch in watches.items() if fd in hung_up))

    def poller(self, also: Iterable[Watch] = ()) -> select.epoll:
        """What becomes readable once ``wait(0, also)`` would be true; the caller's to close."""
        poller = select.epoll()
        for fd in (self._fd, *(watch.fileno() for watch in also)):
            poller.register(fd, 0)  # as above
        return poller

    def __enter__(self) -> Self:
        try:
            while not self._try_to_enter():
                pass
        except BaseException as error:
            self.__exit__(type(error))
            raise
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self not in self._waiters.ours:  # a forked child: the place is its parent's
            return
        # The name before the descriptor: a name that nobody reads is a dead waiter's.
        try:
            claimed = not unlink_if_there(self._directory.fileno(), self.name)
        finally:
            self._close()
        # A wake-up is for somebody who will look at the queue. One that went unnoticed, or that came to
        # somebody who failed, goes to the next in line.
        if claimed and (error is not None or not self._woken):
            _wake(self._directory.fileno(), 1)

    def _try_to_enter(self) -> bool:
        """Open the FIFO before it gets its name: wakers take one that nobody reads for a dead waiter's."""
        directory = self._directory.fileno()
        name = f"{time.monotonic_ns():020d}-{os.getpid()}-{next(_counter)}"
        make_fifo(directory, f"{name}.new")
        try:
            with forks.no_fork:
                self._fd = open_fifo(directory, f"{name}.new", os.O_RDONLY)
                self.name = f"{name}.fifo"
                self._waiters.ours.add(self)
        except FileNotFoundError:  # taken for dead
            return False
        try:
            _files.rename(directory, f"{name}.new", self.name)
        except FileNotFoundError:  # taken for dead
            self._close()
            return False
        return True

    def _close(self) -> None:
        with forks.no_fork:
            self._waiters.ours.discard(self)
            os.close(self._fd)


def _wake(directory: int, count: int) -> int:
    woken = 0
    for name in _files.names(directory):
        if woken >= count:
            break
        if name.endswith(".fifo") and _wake_one(directory, name):
            woken += 1
    return woken


def _wake_one(directory: int, name: str) -> bool:
    """Wake the waiter behind this FIFO, unless it is dead or another waker was quicker."""
    # A child forked in between would keep the FIFO open, and its reader asleep.
    with forks.no_fork:
        try:
            fd = open_fifo(directory, name, os.O_WRONLY)
        except NotOurs:
            return False
        except OSError as error:
            if error.errno == errno.ENXIO:
                unlink_if_there(directory, name)
            elif error.errno not in _NO_WAITER:
                raise
            return False
        try:
            return unlink_if_there(directory, name)
        finally:
            os.close(fd)
