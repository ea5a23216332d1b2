"""What a worker is told, by whoever and from wherever: other tasks, threads, signal handlers."""

from __future__ import annotations

import os
from contextlib import suppress
from queue import Empty, SimpleQueue

from anyio import CancelScope, wait_readable

from duraq.shift import Notice


class Inbox:
    """Notices, and an eventfd that wakes the one task that reads them."""

    def __init__(self) -> None:
        self._notices: SimpleQueue[Notice] = SimpleQueue()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __del__(self) -> None:
        # Only now: a signal handler may be about to put something into it.
        os.close(self._bell)

    def put(self, notice: Notice) -> None:
        """May be called anywhere, in a signal handler too."""
        self._notices.put(notice)
        os.eventfd_write(self._bell, 1)

    def empty(self) -> bool:
        """Whether there is nothing to read."""
        return self._notices.empty()

    async def get(self, until: float) -> Notice | None:
        """The next notice, or None if none has come until then, by the event loop's clock."""
        with CancelScope(deadline=until):
            while True:
                with suppress(Empty):
                    return self._notices.get_nowait()
                await wait_readable(self._bell)
                # Before looking: what is put after this look rings again.
                with suppress(BlockingIOError):
                    os.eventfd_read(self._bell)
        return None
