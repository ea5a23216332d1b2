"""Checkpoints of segments that were sealed by a process that has not read them: one that only enqueues."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager

from duraq.journal.folded import Folded
from duraq.journal.log import Log
from duraq.journal.segment import Gap
from duraq.journal.segments import Segments
from duraq.shelf import Mislaid
from duraq.storage.upkeep import Upkeep

log = logging.getLogger("duraq")

LOCK = "waiters"  # the directory whose lock is held by whoever does this for the queue
# Records that are folded in one go, some 20 us: a thread that comes back from a system call waits for them.
RECORDS = 8


class Checkpointer:
    """Folds sealed segments apart from the work, so that whoever opens the queue need not."""

    def __init__(self, journal: Log, upkeep: Upkeep, turn: AbstractContextManager[object]) -> None:
        self._log = journal
        self._upkeep = upkeep
        self._turn = turn
        self._reading: Segments | None = None

    def note(self, queue: str) -> None:
        """A segment of the queue was sealed, and what is in it was not read."""
        self._upkeep.note(queue, self._run)

    def _run(self, queue: str) -> None:
        with self._upkeep.alone(queue, LOCK, wait=False) as alone:
            # If not: whoever is at it goes on to the last seal there is.
            if not alone:
                return
            fs, limit = self._log.fs, self._log.sizes.segment
            self._reading = Segments(fs, self._log.root, queue, writable=False, limit=limit)
            try:
                self._fold(Folded(fs, self._reading, give=self._log.give))
            except (Mislaid, Gap) as error:
                # Removed meanwhile, for one; the next seal comes back to it.
                log.debug("queue %s: no checkpoint now: %s", queue, error)
            finally:
                self.close()

    def _fold(self, folded: Folded) -> None:
        # No lock: what is sealed does not change any more.
        for count, seal in enumerate(folded.through_seals()):
            if self._upkeep.stopping:
                return
            if seal is not None:
                with self._turn:
                    # In a turn, as everybody does it who writes or reads a seal in one.
                    folded.pass_seal()
            elif count % RECORDS == 0:
                time.sleep(0)

    def close(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()

    def after_fork_in_child(self) -> None:
        """The descriptors are the parent's."""
        self.close()
