"""A file storage's leases and waiters: under which name it holds entries, who waits, and who is woken."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod

from duraq.errors import StorageClosed, StorageDamaged, StorageError
from duraq.journal.filesystem import FileSystem
from duraq.journal.folded import Folded
from duraq.journal.lease import Watch, WorkerPresence
from duraq.journal.log import Log
from duraq.journal.waiters import Waiters, count_living
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
        return self._presence.worker

    def _is_alive(self, worker: str) -> bool:
        return self._presence.is_alive(worker)

    @property
    def _someone_waits(self) -> bool:
        return self._log.journal.standing.waiters != 0

    def _notify(self, queue: str, count: int) -> None:
        try:
            if not self._queues[queue].waiters.wake(count):
                self._forget_waiters()
        except OSError as error:
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
        home = self._fs.open_dir(self._log.root, queue)
        directory = self._fs.open_dir(home, "waiters", create=True)
        try:
            Waiters(directory).sweep()
            return bool(self._fs.names(directory))
        finally:
            self._fs.close(directory)
            self._fs.close(home)

    def _count_waiting(self, queue: str) -> int:
        return count_living(self._fs, self._log.root, queue)

    def wait(self, queue: str, timeout: float | None) -> bool:
        """Block until an entry may be claimable or a holder died; see Storage."""
        until = None if timeout is None else time.monotonic() + timeout
        with self._turn:
            self._state(queue, create=True)
            waiters = self._queues[queue].waiters
        try:
            return self._wait(queue, waiters, until)
        except OSError as error:
            raise self._refused(error, f"{self.path}/{queue}", StorageError) from error

    def _wait(self, queue: str, waiters: Waiters, until: float | None) -> bool:
        # Registered before looking: what is committed after a look finds the waiter there.
        with waiters.register() as waiter:
            while True:
                remaining = None if until is None else until - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return False
                found = self._look(queue, remaining)
                if found is None or waiter.wait(*found):
                    # Raised in here, so that a wake-up meant for an entry goes to the next in line.
                    self._check_usable()
                    # The next dequeue is to see for itself who is alive, however lately that was asked.
                    self._next_liveness_check.pop(queue, None)
                    return True

    @found_again
    def _look(self, queue: str, timeout: float | None) -> tuple[float, list[Watch]] | None:
        """None if there is something to do for a consumer; else how long to sleep, and what else ends it."""
        mine = self._worker()
        with self._turn:
            self._log.note_waiters(some=True)
            state = self._state(queue)
            assert state is not None
            if state.has_ready(self.clock.now()) or state.past_deadline(self.clock.uptime()):
                return None
            holders = [worker for worker in state.leased if worker not in {mine, ""}]
            seconds = self._seconds_to_next_event(state, timeout)
        watches = []
        for worker in holders:
            watch = self._presence.watch(worker)
            if watch is None:
                return None
            watches.append(watch)
        return SWEEP_INTERVAL if seconds is None else min(seconds, SWEEP_INTERVAL), watches
