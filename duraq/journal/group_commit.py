"""One sync for many: callers wait for a sync that began after their frame was written.

Threads share a leader's sync. Processes do not wait for each other (one that is stopped in the middle would
hold up all): each syncs for itself, the kernel merges what comes together, and the published position
spares a process the sync that another has done for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from duraq.errors import OutcomeUnknown

# A thread that was interrupted at the wrong moment may never say that it is done; in seconds.
_PATIENCE = 60.0


class GroupCommit:
    """Runs ``sync`` for whoever needs it, one at a time.

    ``sync`` makes everything written so far durable and returns the position up to which that is.
    """

    def __init__(self, sync: Callable[[], int]) -> None:
        self._sync = sync
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)
        self._waiting = 0
        self._running = False
        self._closed = False
        self.synced = 0

    def learn(self, position: int) -> None:
        """Another process has synced up to here."""
        # Without the lock: the worst that a lost race costs is a sync that was not needed.
        self.synced = max(self.synced, position)

    def wait_for(self, position: int) -> None:
        """Return once everything before ``position`` is durable. Raises what the sync raised."""
        # Again if a sync reached less: another thread was just finding out how far the journal goes.
        while self.synced < position:
            if self._closed:
                raise OutcomeUnknown("the storage was closed before this was known to be durable")
            self._wait_once(position)

    def _wait_once(self, position: int) -> None:
        leading, reached = False, 0
        try:
            with self._lock:
                while self.synced < position:
                    if not self._running:
                        leading = self._running = True
                        break
                    # A sync that is running may have begun before our frame was written, so it does not
                    # count; the next one will be ours or that of somebody who waits with us.
                    self._waiting += 1
                    try:
                        self._turn.wait()
                    finally:
                        self._waiting -= 1
            if leading:
                reached = self._sync()
        finally:
            if leading:
                with self._lock:
                    self._running = False
                    self.synced = max(self.synced, reached)
                    if self._waiting or self._closed:
                        self._turn.notify_all()

    def close(self) -> bool:
        """Let no sync begin any more, and wait for those that run; returns whether they have ended."""
        with self._lock:
            self._closed = True
            return self._turn.wait_for(lambda: not self._running and not self._waiting, _PATIENCE)
