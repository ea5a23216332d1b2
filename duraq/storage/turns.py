"""Whose turn it is among the threads and the tasks of one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from duraq import transaction


class Turns:
    """The exclusive right to decide, of a thread or a task; it may take it again while it has it."""

    def __init__(self) -> None:
        self._free = threading.Condition(threading.RLock())
        self._owner: transaction.Owner | None = None
        self._depth = 0

    def take(self, *, anew: bool = False) -> None:
        """``anew``: whatever an interrupt has left of one that its owner had is over."""
        me = transaction.owner()
        with self._free:
            while self._owner not in {None, me}:
                self._free.wait()
            self._owner = me
            self._depth = 1 if anew else self._depth + 1

    def is_mine(self) -> bool:
        """Whether the caller has it."""
        return self._owner == transaction.owner()

    def give(self) -> None:
        with self._free:
            self._depth -= 1
            if not self._depth:
                self._owner = None
                self._free.notify()

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Nobody else of this process is in a turn meanwhile."""
        self.take()
        try:
            yield
        finally:
            self.give()
