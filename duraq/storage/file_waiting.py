"""A file storage's queues as this process knows them, and the lines of those who wait for them."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack

from duraq.errors import StorageClosed, StorageDamaged, StorageError
from duraq.journal.filesystem import FileSystem
from duraq.journal.folded import Folded
from duraq.journal.log import Log
from duraq.journal.recycling import REOPEN
from duraq.journal.waiters import Waiters, count_living
from duraq.shelf import Mislaid
from duraq.storage.waiting import SWEEP_INTERVAL, WaitingStorage

log = logging.getLogger("duraq")


class KnownQueue:
    """What this process knows of one queue."""

    __slots__ = ("damage", "folded", "lost", "stale", "waiters")

    def __init__(self, folded: Folded, waiters: Waiters) -> None:
        self.folded = folded
        self.waiters = waiters
        self.damage: StorageDamaged | None = None
        self.stale = False
        self.lost: Mislaid | None = None

    def mislay(self, lost: Mislaid | None = None) -> None:
        """Read it anew when it is needed; ``lost`` if something is not there that a checkpoint names."""
        self.stale = True
        self.lost = lost
        self.folded.segments.read_at = -1

    def close(self, fs: FileSystem, *, wake: bool = True) -> None:
        """Wake those of our threads that wait, and give up the descriptor they are found by."""
        if self.waiters.directory >= 0:
            if wake:
                self.waiters.close()
            directory, self.waiters.directory = self.waiters.directory, -1
            fs.close(directory)


class FileWaitingStorage(WaitingStorage):
    """What of a file storage is about processes and not about a disk."""

    _log: Log
    _fs: FileSystem
    _queues: dict[str, KnownQueue]
    _closing: bool
    _next_recount: float

    def _give_space(self, error: OSError, need: int) -> bool:
        return self._log.give(error, need)

    def _check_leasing(self) -> None:
        if self._closing or self._log.closed:
            # What is leased has been given back already, or the descriptors are not ours any more.
            self._log.check_usable()
            raise StorageClosed("this storage is being closed", path=self._where)

    @property
    def _someone_waits(self) -> bool:
        return self._log.journal.standing.waiters != 0

    def _notify(self, queue: str, count: int) -> None:
        try:
            if not self._queues[queue].waiters.wake(count):
                self._forget_waiters()
        except (OSError, StorageError) as error:
            # What was committed is durable; whoever waits looks for itself before long.
            log.warning("queue %s: nobody could be woken: %s", queue, error)

    def _forget_waiters(self) -> None:
        """Nobody waited for that queue; if nobody waits for any, spare the next ones the look."""
        now = time.monotonic()
        if now < self._next_recount:
            return
        # Not at every entry: it looks at each queue, and somebody may be waiting for another one for long.
        self._next_recount = now + SWEEP_INTERVAL
        with self._turn:
            # In a turn: whoever comes to wait makes a FIFO first, then notes in a turn that somebody waits.
            if not any(self._anyone_waits_for(name) for name in self._log.names()):
                self._log.note_waiters(some=False)

    def _anyone_waits_for(self, queue: str) -> bool:
        with ExitStack() as opened:
            home = self._fs.open_dir(self._log.root, queue)
            opened.callback(self._fs.close, home)
            directory = self._fs.open_dir(home, "waiters", create=True)
            opened.callback(self._fs.close, directory)
            Waiters(directory).sweep()
            return bool(self._fs.names(directory))

    def _count_waiting(self, queue: str) -> int:
        return count_living(self._fs, self._log.root, queue)

    def _waiters(self, queue: str) -> Waiters:
        with self._turn:
            self._state(queue, create=True)
            return self._queues[queue].waiters

    def _expect_waiters(self, queue: str) -> None:
        self._log.note_waiters(some=True)
        self._state(queue)
        self._check_in_place(queue)

    def _check_in_place(self, queue: str) -> None:
        """Raise if the queue's directory is not the one that we have open: nobody would find us there."""
        known = self._queues[queue]
        try:
            home = self._fs.open_dir(self._log.root, queue)
        except FileNotFoundError:
            found = None
        else:
            found = self._fs.identity(home)
            self._fs.close(home)
        if found != self._fs.identity(known.folded.segments.home):
            known.mislay()
            known.damage = StorageDamaged("the queue's directory was removed", path=queue, hint=REOPEN)
            raise known.damage
