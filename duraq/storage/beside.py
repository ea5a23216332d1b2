"""Storages in a database file: who lives and who waits stands in a directory beside it.

``queue.db`` has ``queue.db-duraq/`` beside it, with the same ``leases/`` and, of each queue, ``waiters/`` as
a storage in files has; so a dead worker's entries come back as fast. Once nobody works, it can go.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import abstractmethod
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

from duraq import forks
from duraq.clock import Clock
from duraq.errors import DuraqError, StorageClosed, StorageError
from duraq.journal import wording
from duraq.journal.filesystem import RealFileSystem
from duraq.journal.lease import WorkerPresence
from duraq.journal.waiters import Waiters, count_living
from duraq.storage.joining import JoiningStorage
from duraq.storage.waiting import WaitingStorage

log = logging.getLogger("duraq")

SUFFIX = "-duraq"


class BesideStorage(WaitingStorage, JoiningStorage):
    """A storage in a database file that the processes of one host share."""

    def __init__(self, path: str, clock: Clock, lock_duration: timedelta, max_payload_bytes: int) -> None:
        super().__init__(clock, lock_duration, max_payload_bytes)
        self.db_path = self._where = path
        # Under whatever names the database is opened, these are the same.
        self._beside = os.path.realpath(path) + SUFFIX
        self._fs = RealFileSystem()
        self._lines: dict[str, Waiters] = {}
        self._closing_lock = threading.RLock()
        self._descriptors = ExitStack()

    def _open_beside(self) -> None:
        """Open what lies beside the database; it is made where it is missing."""
        try:
            with ExitStack() as undo:
                self._home = self._fs.open_root(self._beside, create=True)
                undo.callback(self._fs.close, self._home)
                leases = self._fs.open_dir(self._home, "leases", create=True)
                undo.callback(self._fs.close, leases)
                self._queues_home = self._fs.open_dir(self._home, "queues", create=True)
                undo.callback(self._fs.close, self._queues_home)
                self._turn_lock = self._fs.open_file(self._home, "turn", create=True)
                undo.callback(self._fs.close, self._turn_lock)
                self._presence = WorkerPresence(leases, self.clock)
                self._presence.sweep()
                self._descriptors = undo.pop_all()
        except OSError as error:
            raise wording.of(error, self._beside) from error
        forks.register(self)

    # -- who lives -------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return self.db_path

    def _known_worker(self) -> str | None:
        return self._presence.known

    def _refused(self, error: OSError, path: str, kind: type[StorageError]) -> StorageError:
        if self._closed:
            return StorageClosed("this storage is closed", path=self.db_path)
        return wording.of(error, path, kind)

    def _give_space(self, error: OSError, need: int) -> bool:  # noqa: ARG002 - nothing is kept for it here
        return False

    # -- who waits -------------------------------------------------------------------------------------

    def _waiters(self, queue: str) -> Waiters:
        with self._turns.mine():
            self._check_usable()
            line = self._lines.get(queue)
            if line is None:
                with ExitStack() as opened:
                    home = self._fs.open_dir(self._queues_home, queue, create=True)
                    opened.callback(self._fs.close, home)
                    line = Waiters(self._fs.open_dir(home, "waiters", create=True))
                    line.sweep()
                self._lines[queue] = line
            return line

    def _expect_waiters(self, queue: str) -> None:
        """Those who commit look into the directory each time."""

    @property
    def _someone_waits(self) -> bool:
        return True

    def _notify(self, queue: str, count: int) -> None:
        try:
            self._waiters(queue).wake(count)
        except (OSError, StorageError) as error:
            # What was committed is durable; whoever waits looks for itself before long.
            log.warning("queue %s: nobody could be woken: %s", queue, error)

    def _count_waiting(self, queue: str) -> int:
        return count_living(self._fs, self._queues_home, queue)

    # -- closing ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back what is leased, uncounted, and release every lock and descriptor. Idempotent."""
        with self._closing_lock:
            if self._closed or self._forked:
                return
            self._closing = True
            self._warn_if_begun()
            try:
                self._give_back()
            except DuraqError as error:
                # The leases end all the same, when the locks go; only their attempts then count.
                log.warning("closing %s: could not give back what was leased: %s", self.db_path, error)
            with self._last_turn():
                self._closed = True
                self._close_database()
            for line in self._lines.values():
                line.close()
                directory, line.directory = line.directory, -1
                self._fs.close(directory)
            self._presence.close()
            self._descriptors.close()

    @abstractmethod
    def _close_database(self) -> None: ...

    def after_fork_in_child(self) -> None:
        """The child closes the parent's descriptors and may not use this object; see StorageForked."""
        if self._closed or self._forked:
            return
        self._forked = True
        for line in self._lines.values():
            with suppress(OSError):
                self._fs.close(line.directory)
        self._descriptors.close()
        self._abandon_database()

    @abstractmethod
    def _abandon_database(self) -> None:
        """In a forked child: neither use nor close what is the parent's."""


def absolute(path: str | os.PathLike[str]) -> str:
    # Not resolved: messages speak of the path that was given, even if it is a link today.
    return str(Path(path).absolute())
