"""Entries as the rows of indexes say where to find them, and those ahead of a run's head read together.

To read one entry from its record takes longer than everything else that is done to dequeue it. Entries that
were enqueued one after the other lie so in their segment, and are dequeued so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from duraq import snapshot
from duraq.entry import READY, Entry
from duraq.errors import StorageDamaged
from duraq.journal.index import Index, Row, is_changed
from duraq.journal.record import Record
from duraq.journal.run import Run
from duraq.journal.segment import Where
from duraq.journal.segments import READ_AHEAD
from duraq.operations import Enqueue, Keep

TOGETHER = 32  # entries


class RowReader:
    """Reads the entries of one queue's runs."""

    def __init__(
        self, record: Callable[[Where, int], Record], keep_stretch: Callable[[int, int, int], None]
    ) -> None:
        """``record`` reads the enqueue at a place.

        ``keep_stretch`` has part of a segment at hand for that, from one byte up to another.
        """
        self._record = record
        self._keep_stretch = keep_stretch
        # By segment, rows from the head of its run on. One may have been taken since.
        self._ahead: dict[int, deque[tuple[int, Entry]]] = {}

    def entry(self, run: Run, index: Index, number: int, position: int) -> Entry:
        """The entry of that row. Raises StorageDamaged if its record cannot be read."""
        row = index.row(number)
        if row.length <= READ_AHEAD:
            # Whoever takes an entry off the shelf wants its payload next.
            self._keep_stretch(row.segment, row.offset, row.offset + row.length)
        entry = self._read(index, row, position)
        entry.status = run.status(number)
        return entry

    def _read(self, index: Index, row: Row, position: int) -> Entry:
        order, segment, offset, length, _, state = row
        where = (segment, offset, length)
        if is_changed(state):
            return snapshot.restore(*index.snapshot(state), where, position)
        operation, seq, at = self._record(where, order)
        if isinstance(operation, Keep):
            entry = operation.entry
            entry.where, entry.position = where, position
            return entry
        assert isinstance(operation, Enqueue)
        return Entry(operation, seq, at, where, position)

    def head(self, run: Run, index: Index, position: int) -> Entry:
        """The entry at the head of that run. Raises StorageDamaged if its record cannot be read."""
        ahead = self._ahead.get(run.segment)
        while ahead and ahead[0][0] < run.head:
            ahead.popleft()
        if not ahead or ahead[0][0] != run.head:
            ahead = self._ahead[run.segment] = self._read_together(run, index, position)
        entry = ahead[0][1]
        entry.status = READY
        return entry

    def _read_together(self, run: Run, index: Index, position: int) -> deque[tuple[int, Entry]]:
        number = run.head
        found = deque([(number, self.entry(run, index, number, position))])
        _, segment, start, length, _, _ = index.row(number)
        end = start + length
        behind: list[tuple[int, Row]] = []
        while len(behind) < TOGETHER - 1 and (number := run.next_ready(number)) >= 0:
            row = index.row(number)
            if row.segment != segment or row.offset < end or row.offset + row.length > start + READ_AHEAD:
                break
            behind.append((number, row))
            end = row.offset + row.length
        if behind:
            # What is damaged further on, or cannot be read, is for the one who comes to it.
            with suppress(StorageDamaged, OSError):
                self._keep_stretch(segment, start, end)
                found.extend([(number, self._read(index, row, position)) for number, row in behind])
        return found

    def forget(self, segment: int) -> None:
        """What was read ahead of that run is not needed."""
        self._ahead.pop(segment, None)
