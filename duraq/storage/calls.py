"""Threads that commit at the same time: one of them writes for all that wait, and one sync serves them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from threading import get_ident

from duraq.errors import OutcomeUnknown, StorageFailed
from duraq.operations import Complete, Enqueue, Operation
from duraq.storage.base import Limits

Changes = Mapping[str, Sequence[Operation]]

# Bytes of payloads that are written as one group, so that it always fits.
TOGETHER = 64 << 10


class Call:
    """What a thread wants to be committed, and what has become of it."""

    __slots__ = ("begun", "changes", "durable", "error", "limits", "others", "position", "thread", "woken")

    def __init__(self, changes: Changes, limits: Limits | None) -> None:
        self.changes = changes
        self.limits = limits
        self.thread = get_ident()
        self.woken = threading.Lock()
        self.woken.acquire()
        self.others: Sequence[Call] = ()  # those it leads
        self.begun = False
        self.position: int | None = None  # written, up to here
        self.durable = False
        self.error: Exception | None = None

    @property
    def decided(self) -> bool:
        """Whether it is written, or cannot be."""
        return self.position is not None or self.error is not None

    def single(self) -> tuple[str, Enqueue | Complete] | None:
        """Its queue and operation, if it has one that may be written in a group with those of others."""
        if self.limits is not None or len(self.changes) > 1:
            return None
        ((queue, operations),) = self.changes.items()
        operation = operations[0]
        if len(operations) > 1 or not isinstance(operation, (Enqueue, Complete)):
            return None
        return queue, operation


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
    """Who writes now, and who waits.

    The thread that comes first writes its own call. Those that come meanwhile wait; one of them then writes
    them all, while the disk is at work for the first.
    """

    def __init__(
        self,
        write: Callable[[Changes, Limits | None], int],
        write_all: Callable[[Sequence[Call]], None],
        settle: Callable[[int], None],
    ) -> None:
        """``write`` returns the position to settle; ``write_all`` gives each call its own, or its error."""
        self._write = write
        self._write_all = write_all
        self._settle = settle
        # Re-entrant, for a signal handler may come to the very thread that has it.
        self._mutex = threading.RLock()
        self._leader: Call | int | None = None  # who writes; by its thread, if it came first
        self._waiting: list[Call] = []

    def run(self, changes: Changes, limits: Limits | None) -> None:
        """Return when the changes are settled; raises what committing them raised."""
        me = get_ident()
        position: int | None = None
        try:
            if self._is_first(me):
                position = self._write(changes, limits)
        finally:
            # From here on the next one writes, while the disk is at work for this one.
            if self._leader == me:
                self._hand_over(me)
        if position is not None:
            self._settle(position)
        else:
            self._join(Call(changes, limits))

    def _is_first(self, me: int) -> bool:
        with self._mutex:
            if self._leader is None:
                self._leader = me
                return True
            return False

    def _join(self, call: Call) -> None:
        try:
            if not self._wait(call):
                self._lead(call)
        except BaseException:
            self._leave(call)
            raise
        if call.error is not None:
            raise call.error
        if not call.durable:
            assert call.position is not None
            self._settle(call.position)

    def _wait(self, call: Call) -> bool:
        """Wait until somebody has written the call; False if it is for this thread to do."""
        with self._mutex:
            leader = self._leader
            if leader is None:
                self._leader = call
                return False
            if isinstance(leader, Call) and leader.thread == call.thread:
                raise StorageFailed(
                    "this call comes from a signal handler within another one",
                    hint="in a signal handler, set a flag instead",
                )
            self._waiting.append(call)
        call.woken.acquire()
        return self._leader is not call

    def _lead(self, mine: Call) -> None:
        with self._mutex:
            # They go on waiting until they are decided, whatever happens to this thread.
            mine.others = self._waiting[:]
        calls = [mine, *mine.others]
        self._write_all(calls)
        self._hand_over(mine)
        written = [call.position for call in calls if call.position is not None]
        if written:
            self._settle(max(written))
        for call in calls:
            call.durable = True
        self._wake(mine.others)

    def _leave(self, call: Call) -> None:
        """The thread of this call was interrupted, or could not settle: nobody may wait for it."""
        with self._mutex:
            if call in self._waiting:
                self._waiting.remove(call)
            for other in call.others:
                if other.begun and not other.decided:
                    other.error = OutcomeUnknown(
                        "the thread that was writing this was interrupted",
                        hint="the change is there wholly or not at all; look for it",
                    )
        if self._leader is call:
            self._hand_over(call)
        # If settling failed, each is told so by trying for itself.
        self._wake(call.others)

    def _hand_over(self, me: Call | int) -> None:
        try:
            self._appoint(me)
        except BaseException:
            # A Ctrl-C, even here: without a leader all would wait for ever.
            self._appoint(me)
            raise

    def _appoint(self, me: Call | int) -> None:
        """Somebody who waits leads from now on, and the others that are decided wait no longer.

        Done again after it was interrupted, it does the rest.
        """
        with self._mutex:
            self._waiting = [call for call in self._waiting if not call.decided]
            if self._leader == me:
                # The last one: if the thread of an earlier one was interrupted by a signal handler that
                # commits as well, that is the later one of the two.
                self._leader = self._waiting[-1] if self._waiting else None
            leader = self._leader
            if isinstance(leader, Call) and leader in self._waiting:
                self._wake([leader])
                self._waiting.remove(leader)

    def _wake(self, calls: Sequence[Call]) -> None:
        for call in calls:
            if (call.decided or self._leader is call) and call.woken.locked():
                call.woken.release()
