"""One sync for many: callers wait for a sync that began after their frame was written.

Threads take turns: whoever comes to it syncs everything that was written by then, so that of those who waited
meanwhile most find that nothing is left to do. Processes do not wait for each other (one that is stopped in
the middle would hold up all): each syncs for itself, the kernel merges what comes together, and the
published position spares a process the sync that another has done for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from duraq.errors import OutcomeUnknown

# A disk may not answer for very long, or ever; in seconds.
_PATIENCE = 60.0


class GroupCommit:
    """Runs ``sync`` for whoever needs it, one at a time.

    ``sync`` makes everything written so far durable and returns the position up to which that is.
    """

    def __init__(self, sync: Callable[[], int]) -> None:
        self._sync = sync
        # Given up whatever happens, for ``with`` does that without a moment in between. Re-entrant, for a
        # signal handler that commits may come to the very thread that has it.
        self._turn = threading.RLock()
        self._closed = False
        self.synced = 0

    def learn(self, position: int) -> None:
        """Another process has synced up to here."""
        # Without the lock: the worst that a lost race costs is a sync that was not needed.
        self.synced = max(self.synced, position)

    def wait_for(self, position: int) -> None:
        """Return once everything before ``position`` is durable. Raises what the sync raised."""
        while self.synced < position:
            with self._turn:
                # A sync that ran meanwhile may have begun before our frame was written: then it is our turn.
                if self.synced < position:
                    if self._closed:
                        raise OutcomeUnknown("the storage was closed before this was known to be durable")
                    self.learn(self._sync())

    def close(self) -> bool:
        """Let no sync begin any more, and wait for the one that runs; returns whether it has ended."""
        self._closed = True
        if not self._turn.acquire(timeout=_PATIENCE):
            return False
        self._turn.release()
        return True
