"""The ready entries of a queue, in the order of delivery: higher priority first, then as they were enqueued.

Nearly all have priority 0 and come in order: they stand in line. The others are in a heap: those of another
priority, and those that come back and stand before one that is in line already.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush

from duraq.entry import READY, Entry


class Ready:
    """An entry is put in here once and may be stale when it comes out: what counts is its status."""

    def __init__(self) -> None:
        self._line: deque[Entry] = deque()
        self._heap: list[tuple[int, int, Entry]] = []

    def __len__(self) -> int:
        return len(self._line) + len(self._heap)

    def add(self, entry: Entry) -> None:
        """Put an entry where it belongs."""
        # One that was left here by a lease that another process took serves again: its place never changes.
        if entry.queued:
            return
        entry.queued = True
        line = self._line
        if entry.priority == 0 and (not line or line[-1].seq < entry.seq):
            line.append(entry)
        else:
            heappush(self._heap, (-entry.priority, entry.seq, entry))

    def first(self) -> Entry | None:
        """The one that stands first, perhaps no longer ready."""
        line, heap = self._line, self._heap
        if heap and (not line or heap[0] < (0, line[0].seq)):
            return heap[0][2]
        return line[0] if line else None

    def take(self, limit: int) -> list[Entry]:
        """Up to ``limit`` entries from the front that are ready."""
        line, heap = self._line, self._heap
        taken: list[Entry] = []
        while len(taken) < limit:
            if heap and (not line or heap[0] < (0, line[0].seq)):
                entry = heappop(heap)[2]
            elif line:
                entry = line.popleft()
            else:
                break
            entry.queued = False
            if entry.status is READY:
                taken.append(entry)
        return taken

    def prune(self, ready: int, spare: int = 64) -> None:
        """Drop the stale ones if they outnumber the ``ready`` ones by so many.

        A process that only enqueues would otherwise keep every entry it ever saw.
        """
        if len(self) <= spare + 2 * ready:
            return
        for entry in (*self._line, *(item[2] for item in self._heap)):
            entry.queued = entry.status is READY
        self._line = deque(entry for entry in self._line if entry.queued)
        self._heap = [item for item in self._heap if item[2].queued]
        heapify(self._heap)
