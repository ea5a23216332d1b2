"""Leases and waiters on one host: under which name a storage holds entries, who waits, and who is woken."""

from __future__ import annotations

import math
import select
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Self

from duraq.errors import NotWritten, StorageError
from duraq.journal.lease import Watch, WorkerPresence
from duraq.journal.reserve import retrying
from duraq.journal.waiters import Waiter, Waiters
from duraq.storage.fold import found_again
from duraq.storage.transacting import TransactingStorage

# A blocked consumer looks for itself this often, in seconds: for the waiter that was woken and then died.
SWEEP_INTERVAL = 0.5


class WaitingStorage(TransactingStorage):
    """What of a storage is about the processes of one host, and not about where its entries lie."""

    _where: str  # what errors speak of
    _presence: WorkerPresence

    @abstractmethod
    def _refused(self, error: OSError, path: str, kind: type[StorageError]) -> StorageError:
        """What the system refused, in our words; or StorageClosed, if another thread has just closed this."""

    @abstractmethod
    def _give_space(self, error: OSError, need: int) -> bool:
        """Give back space that is kept for a full disk, if it is that; whether trying again may help."""

    @abstractmethod
    def _waiters(self, queue: str) -> Waiters:
        """The line of those who wait for the queue."""

    @abstractmethod
    def _expect_waiters(self, queue: str) -> None:
        """Somebody stands in that line now, and looks; in a turn."""

    def _worker(self) -> str:
        self._check_leasing()
        # Nothing is leased without it.
        with self._in_words_of("leases", NotWritten):
            return self._presence.known or retrying(lambda: self._presence.worker, self._give_space)

    def _is_alive(self, worker: str) -> bool:
        with self._in_words_of("leases"):
            return self._presence.is_alive(worker)

    def wait(self, queue: str, timeout: float | None) -> bool:
        """Block until an entry may be claimable or a holder died; see Storage."""
        with self._in_words_of(queue):
            return super().wait(queue, timeout)

    def _line(self, queue: str) -> _Place:
        return _Place(self, queue)

    @contextmanager
    def _in_words_of(self, part: str, kind: type[StorageError] = StorageError) -> Iterator[None]:
        """What the system refuses in waiting, or in asking who lives, is the storage's trouble."""
        try:
            yield
        except OSError as error:
            raise self._refused(error, f"{self._where}/{part}", kind) from error

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
            self._expect_waiters(queue)
            state = self._state(queue)
            if state is None:
                return min(timeout, SWEEP_INTERVAL), []
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


class _Place:
    """See PlaceInLine. What is raised in it is raised in the waiter: a wake-up then goes to the next."""

    def __init__(self, storage: WaitingStorage, queue: str) -> None:
        self._storage = storage
        self._queue = queue
        self._waiter: Waiter
        self._watches: list[Watch] = []
        self._poller: select.epoll | None = None

    def __enter__(self) -> Self:
        with self._in_words_of():
            # Registered before looking: what is committed after a look finds the waiter there.
            # On a full disk as well, where a name takes space.
            retrying(self._stand_in_line, self._storage._give_space)  # noqa: SLF001 - a part of it
        return self

    def _stand_in_line(self) -> None:
        self._waiter = self._storage._waiters(self._queue).register()  # noqa: SLF001
        self._waiter.__enter__()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._watch([])
        with self._in_words_of():
            self._waiter.__exit__(error)

    def look(self, timeout: float = math.inf) -> float | None:
        with self._in_words_of():
            found = self._storage._look(self._queue, timeout)  # noqa: SLF001
            if found is None:
                self._storage._wake_up(self._queue)  # noqa: SLF001
                return None
            seconds, watches = found
            self._watch(watches)
            return seconds

    def sleep(self, seconds: float) -> bool:
        with self._in_words_of():
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

    def _in_words_of(self) -> AbstractContextManager[None]:
        return self._storage._in_words_of(self._queue)  # noqa: SLF001
