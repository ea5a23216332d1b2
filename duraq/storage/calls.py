"""Threads that commit at the same time: one of them writes for all that wait, as one frame where it can."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from duraq.errors import OutcomeUnknown
from duraq.operations import Complete, Enqueue, Operation
from duraq.storage.base import Limits

Changes = Mapping[str, Sequence[Operation]]

# Bytes of payloads that are written as one group, so that it always fits.
TOGETHER = 64 << 10


class Call:
    """What a thread wants to be committed, and what has become of it."""

    __slots__ = ("changes", "error", "limits", "position")

    def __init__(self, changes: Changes, limits: Limits | None) -> None:
        self.changes = changes
        self.limits = limits
        self.position: int | None = None  # written, up to here
        self.error: Exception | None = None

    @property
    def decided(self) -> bool:
        """Whether it is written, or cannot be."""
        return self.position is not None or self.error is not None

    def single(self) -> tuple[str, Enqueue | Complete] | None:
        """Its queue and operation, if it has one that may be written in a group with those of others."""
        if self.limits is not None or len(self.changes) != 1:
            return None
        ((queue, operations),) = self.changes.items()
        # One that cannot be written as a record must not keep others from being written.
        match tuple(islice(operations, 2)):
            case (
                Enqueue(id=str(), payload=bytes(), priority=int()) | Complete(id=str(), token=int()) as one,
            ):
                return queue, one
        return None


def together(calls: Sequence[Call]) -> list[Call]:
    """The first call, and those behind it that may be written with it as one group.

    Single entries of one queue that are enqueued, or that are completed: none of them concerns another.
    """
    first = calls[0].single()
    if first is None:
        return [calls[0]]
    queue, operation = first
    found, ids, room = [calls[0]], {operation.id}, TOGETHER
    for call in islice(calls, 1, None):
        each = call.single()
        if each is None or each[0] != queue or type(each[1]) is not type(operation) or each[1].id in ids:
            break
        room -= len(each[1].payload) if isinstance(each[1], Enqueue) else 0
        if room < 0:
            break
        found.append(call)
        ids.add(each[1].id)
    return found


class Calls:
    """Who writes now, and who waits to.

    A thread whose turn comes writes its own call and those of all others that wait; these then find theirs
    written. The main thread, which alone may be interrupted by a signal at any moment, writes only its own,
    so that a Ctrl-C is nobody else's.
    """

    def __init__(
        self, write: Callable[[Changes, Limits | None], int], write_all: Callable[[Sequence[Call]], None]
    ) -> None:
        """``write`` returns the position to settle; ``write_all`` gives each call its own, or its error."""
        self._write = write
        self._write_all = write_all
        # Given up whatever happens, for ``with`` does that without a moment in between. Re-entrant: a signal
        # handler that commits in the middle of its own thread's call is refused by the turn.
        self._gate = threading.RLock()
        self._waiting: deque[Call] = deque()
        self._main = threading.main_thread().ident

    def run(self, changes: Changes, limits: Limits | None) -> int:
        """The position to settle, once the changes are written. Raises what writing them raised."""
        if threading.get_ident() == self._main:
            with self._gate:
                return self._write(changes, limits)
        call = Call(changes, limits)
        self._waiting.append(call)
        with self._gate:
            if not call.decided:
                self._write_all(self._taken())
        if call.error is not None:
            raise call.error
        if call.position is None:
            raise OutcomeUnknown(
                "the thread that was writing this was ended in the middle",
                hint="the change is there wholly or not at all; look for it",
            )
        return call.position

    def _taken(self) -> list[Call]:
        """All that wait, and wait no more."""
        calls: list[Call] = []
        # One by one: others add to them meanwhile.
        while True:
            try:
                calls.append(self._waiting.popleft())
            except IndexError:
                return calls
