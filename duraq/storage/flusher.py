"""The thread behind durability="batched": a sync within a window of the first change that nobody synced."""

from __future__ import annotations

import logging
import threading

from duraq.errors import StorageError, StorageFailed
from duraq.journal.log import Log

log = logging.getLogger("duraq")

_PAUSE = 1.0  # seconds until what could not be synced is tried again


class Flusher:
    """Syncs the journal ``window`` seconds after it was told of a change, for all that came until then."""

    def __init__(self, journal: Log, window: float) -> None:
        self._log = journal
        self._window = window
        self._due = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="duraq-flusher", daemon=True)
        self._thread.start()

    def note(self) -> None:
        """There is a change."""
        self._due.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._due.wait()
            # More changes gather in the window; the stop ends it early.
            self._stop.wait(self._window)
            self._due.clear()
            try:
                self._log.settle(self._log.journal.standing.end)
            except MemoryError:
                # Nothing is the matter with the disk: once more, after another window.
                self._due.set()
            except StorageError as error:
                log.exception("the journal could not be synced")
                if self._log.failed_syncs.failed or isinstance(error.__cause__, StorageFailed):
                    return  # the control block says so to everyone: the next call raises StorageFailed
                # No sync has failed, it could not be begun: nobody else is told, so it is for us to go on.
                self._due.set()
                self._stop.wait(_PAUSE)

    def stop(self) -> None:
        """Sync what is left and end."""
        self._stop.set()
        self._due.set()
        self._thread.join()
