"""Whose turn it is among the threads and the tasks of one process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from duraq import transaction


class Turns:
    """The exclusive right to decide, of a thread or a task; it may take it again while it has it.

    Whoever waits longest is next: a thread that makes one call after the other keeps nobody from his.
    """

    def __init__(self) -> None:
        self._passed = threading.Condition(threading.RLock())
        self._line: deque[transaction.Owner] = deque()
        self._owner: transaction.Owner | None = None
        self._depth = 0

    def take(self, *, anew: bool = False) -> None:
        """``anew``: whatever an interrupt has left of one that its owner had is over."""
        me = transaction.owner()
        with self._passed:
            if self._owner not in {None, me}:
                self._wait(me)
            self._owner = me
            self._depth = 1 if anew else self._depth + 1

    def _wait(self, me: transaction.Owner) -> None:
        self._line.append(me)
        try:
            while self._owner != me:
                self._passed.wait()
        except BaseException:
            if self._owner == me:
                self._pass_on()
            else:
                self._line.remove(me)
            raise

    def is_mine(self) -> bool:
        """Whether the caller has it."""
        return self._owner == transaction.owner()

    def give(self, *, whole: bool = False) -> None:
        """``whole``: however often it was taken."""
        with self._passed:
            if not self.is_mine():
                return  # the whole was given
            self._depth = 0 if whole else self._depth - 1
            if not self._depth:
                self._pass_on()

    def _pass_on(self) -> None:
        self._owner = self._line.popleft() if self._line else None
        self._passed.notify()  # who began to wait first is woken first

    @contextmanager
    def mine(self, *, anew: bool = False) -> Iterator[None]:
        """Nobody else of this process is in a turn meanwhile; ``anew``: see ``take``."""
        self.take(anew=anew)
        try:
            yield
        finally:
            self.give()
