"""Ending what has expired in the storage's own queues.

In a queue that is worked whoever comes by ends what is over. Nobody works these: what was removed, or was
done under a key, would stay on the disk until somebody does the like again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from duraq.journal.log import Log
from duraq.model import OWN_QUEUES
from duraq.storage.upkeep import Upkeep

EVERY = 3600.0  # seconds


class Tidier:
    """Has it done now and then, by whoever works other queues."""

    def __init__(self, journal: Log, upkeep: Upkeep, end_some: Callable[[str], bool]) -> None:
        """``end_some`` ends some of what has expired in a queue, and returns whether there may be more."""
        self._log = journal
        self._upkeep = upkeep
        self._end_some = end_some
        self.due_at = 0.0  # in monotonic seconds

    def begin(self) -> None:
        """Have it done."""
        self.due_at = time.monotonic() + EVERY
        for name in OWN_QUEUES:
            # Whoever comes by has just been given an entry; what cannot be looked at now can wait.
            with suppress(OSError):
                if self._log.fs.exists(self._log.root, name):
                    self._upkeep.note(name, self.tidy)

    def tidy(self, queue: str) -> None:
        """Do it now."""
        while not self._upkeep.stopping and self._end_some(queue):
            pass
