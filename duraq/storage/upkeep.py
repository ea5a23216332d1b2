"""The thread that looks after the queues' files beside the work, and who of all processes may do so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from duraq.errors import DuraqError, StorageClosed, StorageForked
from duraq.journal.log import Log

log = logging.getLogger("duraq")

# What is to be done for a queue.
Work = Callable[[str], None]


class Upkeep:
    """Does what is due. Nobody waits for it, and nothing that anybody was promised depends on it."""

    def __init__(self, journal: Log, turn: AbstractContextManager[object]) -> None:
        self._log = journal
        self._turn = turn
        # Re-entrant, only so that whoever was interrupted can tell whether it has it.
        self._threads = threading.RLock()
        self._lock = -1  # a descriptor of the directory that is locked
        self._due: set[tuple[str, Work]] = set()
        self._thread: threading.Thread | None = None
        self.stopping = False

    def note(self, queue: str, work: Work) -> None:
        """Have this done for the queue before long."""
        self._due.add((queue, work))

    def if_due(self) -> None:
        """Begin, if something is due and nothing has begun."""
        # Whoever is at it in its own thread comes by here as well.
        begun = self._lock >= 0 or (self._thread is not None and self._thread.is_alive())
        if self._due and not self.stopping and not begun:
            # By a name of its own: a signal handler that commits may come in between, and start another.
            self._thread = thread = threading.Thread(target=self._run, name="duraq-upkeep", daemon=True)
            thread.start()

    def _run(self) -> None:
        # What is done may make more of it due, without end if others do the same.
        while not self.stopping:
            try:
                queue, work = self._due.pop()
            except KeyError:
                return
            try:
                work(queue)
            except (StorageClosed, StorageForked):
                return
            except (DuraqError, OSError) as error:
                # The next seal comes back to it.
                log.warning("queue %s: looking after its files was broken off: %s", queue, error)

    def stop(self) -> None:
        """Begin nothing more, and wait for what has begun to come to where it can be broken off."""
        self.stopping = True
        if self._thread is not None:
            with suppress(RuntimeError):  # interrupted before it was started
                self._thread.join()

    @contextmanager
    def alone(self, queue: str, part: str, *, wait: bool) -> Iterator[bool]:
        """Nobody else does meanwhile what is done with the lock of that directory of the queue.

        Without ``wait``: or False, if somebody does.
        """
        fs = self._log.fs
        try:
            if not self._threads.acquire(blocking=wait):
                yield False
                return
            try:
                self._lock = self._open_lock(queue, part)
                alone = True
                if wait:
                    fs.lock(self._lock)
                else:
                    alone = fs.try_lock(self._lock)
                yield alone
            finally:
                self._give_up_lock()
        finally:
            # A Ctrl-C may have come at any moment.
            with suppress(RuntimeError):  # not ours
                self._threads.release()

    def _open_lock(self, queue: str, part: str) -> int:
        """A descriptor of our own: the queue's other ones may be closed after a turn."""
        fs = self._log.fs
        with self._turn:
            home = fs.open_dir(self._log.root, queue)
            try:
                return fs.open_dir(home, part)
            finally:
                fs.close(home)

    def _give_up_lock(self) -> None:
        lock, self._lock = self._lock, -1
        if lock >= 0:
            try:
                # By hand: a forked child that has not closed it would go on holding it.
                self._log.fs.unlock(lock)
            finally:
                self._log.fs.close(lock)

    def after_fork_in_child(self) -> None:
        """Close the parent's descriptor; unlocking it would unlock the parent."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            self._log.fs.close(lock)
