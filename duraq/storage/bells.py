"""Waiting for a queue within this process: an eventfd for each place in line."""

from __future__ import annotations

import math
import os
import select
import threading
from typing import Self

from duraq.storage.transacting import TransactingStorage

_LONGEST_SLEEP = 24 * 60 * 60  # seconds; poll() takes milliseconds in an int


class BellStorage(TransactingStorage):
    """A storage that tells those who wait in this process."""

    _places: set[BellPlace]
    _bells: threading.Lock

    def _seconds_to_sleep(self, queue: str, timeout: float) -> float | None:
        """How long until somebody who waits must look again; None if there may be something now."""

        def look() -> float | None:
            state = self._state(queue)
            if state is None:
                return timeout
            if state.has_ready(self.clock.now()) or self._any_late(state):
                return None
            return self._seconds_to_next_event(state, timeout)

        return self._in_turn(look)

    def _line(self, queue: str) -> BellPlace:
        return BellPlace(self, queue)

    def _ring(self, queue: str | None = None) -> None:
        """All who wait for the queue look again, and see who gets something; None: whatever the queue is."""
        with self._bells:
            for place in self._places:
                if queue is None or place.queue == queue:
                    place.wake()

    def _count_places(self, queue: str) -> int:
        with self._bells:
            return sum(place.queue == queue for place in self._places)


class BellPlace:
    """See PlaceInLine. It sleeps on an eventfd: a wake-up that comes before the sleep ends it at once."""

    def __init__(self, storage: BellStorage, queue: str) -> None:
        self.queue = queue
        self._storage = storage
        self._bell = -1

    def __enter__(self) -> Self:
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with self._storage._bells:  # noqa: SLF001 - a part of it
            self._storage._places.add(self)  # noqa: SLF001
        return self

    def __exit__(self, *_: object) -> None:
        with self._storage._bells:  # noqa: SLF001
            self._storage._places.discard(self)  # noqa: SLF001
            os.close(self._bell)

    def wake(self) -> None:
        """End its sleep, or the next one; with the storage's bells held."""
        os.eventfd_write(self._bell, 1)

    def look(self, timeout: float = math.inf) -> float | None:
        return self._storage._seconds_to_sleep(self.queue, timeout)  # noqa: SLF001

    def sleep(self, seconds: float) -> bool:
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        if not poller.poll(1000 * min(seconds, _LONGEST_SLEEP)):
            return False
        os.eventfd_read(self._bell)
        self._storage._check_usable()  # noqa: SLF001
        return True

    def fileno(self) -> int:
        return self._bell
