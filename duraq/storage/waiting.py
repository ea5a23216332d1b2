"""A file storage's leases and waiters: under which name it holds entries, who waits, and who is woken."""

from __future__ import annotations

import logging
import math
import select
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Self

from duraq.errors import NotWritten, StorageClosed, StorageDamaged, StorageError
from duraq.journal.filesystem import FileSystem
from duraq.journal.folded import Folded
from duraq.journal.lease import Watch, WorkerPresence
from duraq.journal.log import Log
from duraq.journal.recycling import REOPEN
from duraq.journal.reserve import retrying
from duraq.journal.waiters import Waiter, Waiters, count_living
from duraq.shelf import Mislaid
from duraq.storage.fold import found_again
from duraq.storage.transacting import TransactingStorage

log = logging.getLogger("duraq")

# A blocked consumer looks for itself this often, in seconds: for the waiter that was woken and then died.
SWEEP_INTERVAL = 0.5


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


class WaitingStorage(TransactingStorage):
    """What of a file storage is about processes and not about a disk."""

    path: str
    _log: Log
    _fs: FileSystem
    _presence: WorkerPresence
    _queues: dict[str, KnownQueue]
    _closing: bool
    _next_recount: float

    @abstractmethod
    def _refused(self, error: OSError, path: str, kind: type[StorageError]) -> StorageError:
        """What the system refused, in our words; or StorageClosed, if another thread has just closed this."""

    def _worker(self) -> str:
        if self._closing or self._log.closed:
            # What is leased has been given back already, or the descriptors are not ours any more.
            self._log.check_usable()
            raise StorageClosed("this storage is being closed", path=self.path)
        # Nothing is leased without it.
        with self._in_our_words("leases", NotWritten):
            return self._presence.known or retrying(lambda: self._presence.worker, self._log.give)

    def _is_alive(self, worker: str) -> bool:
        with self._in_our_words("leases"):
            return self._presence.is_alive(worker)

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

    def wait(self, queue: str, timeout: float | None) -> bool:
        """Block until an entry may be claimable or a holder died; see Storage."""
        with self._in_our_words(queue):
            return super().wait(queue, timeout)

    def place(self, queue: str) -> _Place:
        """What ``wait`` waits with; see Storage."""
        return _Place(self, queue)

    @contextmanager
    def _in_our_words(self, part: str, kind: type[StorageError] = StorageError) -> Iterator[None]:
        """What the system refuses in waiting, or in asking who lives, is the storage's trouble."""
        try:
            yield
        except OSError as error:
            raise self._refused(error, f"{self.path}/{part}", kind) from error

    def _waiters(self, queue: str) -> Waiters:
        with self._turn:
            self._state(queue, create=True)
            return self._queues[queue].waiters

    def _wake_up(self, queue: str) -> None:
        """Somebody who waits is about to dequeue."""
        self._check_usable()
        # The next dequeue is to see for itself who is alive, however lately that was asked.
        self._next_liveness_check.pop(queue, None)

    @found_again
    def _look(self, queue: str, timeout: float) -> tuple[float, list[Watch]] | None:
        """None if there is something to do for a consumer; else how long to sleep, and what else ends it."""
        mine = self._worker()
        with self._turn:
            self._log.note_waiters(some=True)
            state = self._state(queue)
            assert state is not None
            self._check_in_place(queue)
            if state.has_ready(self.clock.now()) or self._any_late(state):
                return None
            holders = [worker for worker in state.leased if worker not in {mine, ""}]
            seconds = self._seconds_to_next_event(state, timeout)
        watches = []
        for worker in holders:
            watch = self._presence.watch(worker)
            if watch is None:
                return None
            watches.append(watch)
        return min(seconds, SWEEP_INTERVAL), watches

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


class _Place:
    """See Place. What is raised in it is raised in the waiter, so that a wake-up goes to the next in line."""

    def __init__(self, storage: WaitingStorage, queue: str) -> None:
        self._storage = storage
        self._queue = queue
        self._waiter: Waiter
        self._watches: list[Watch] = []
        self._poller: select.epoll | None = None

    def __enter__(self) -> Self:
        with self._in_our_words():
            # Registered before looking: what is committed after a look finds the waiter there.
            # On a full disk as well, where a name takes space.
            retrying(self._stand_in_line, self._storage._log.give)  # noqa: SLF001 - a part of it
        return self

    def _stand_in_line(self) -> None:
        self._waiter = self._storage._waiters(self._queue).register()  # noqa: SLF001
        self._waiter.__enter__()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._watch([])
        with self._in_our_words():
            self._waiter.__exit__(error)

    def look(self, timeout: float = math.inf) -> float | None:
        with self._in_our_words():
            found = self._storage._look(self._queue, timeout)  # noqa: SLF001
            if found is None:
                self._storage._wake_up(self._queue)  # noqa: SLF001
                return None
            seconds, watches = found
            self._watch(watches)
            return seconds

    def sleep(self, seconds: float) -> bool:
        with self._in_our_words():
            if not self._waiter.wait(seconds, self._watches):
                return False
            self._storage._wake_up(self._queue)  # noqa: SLF001
            return True

    def fileno(self) -> int:
        if self._poller is None:
            self._poller = self._waiter.poller(self._watches)
        return self._poller.fileno()

    def _watch(self, watches: list[Watch]) -> None:
        if self._poller is not None:
            self._poller.close()
        self._poller, self._watches = None, watches

    def _in_our_words(self) -> AbstractContextManager[None]:
        return self._storage._in_our_words(self._queue)  # noqa: SLF001
