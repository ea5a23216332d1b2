"""One sealed segment's index and what was taken out of it since: a run of entries, in order of delivery."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Self

from duraq import values
from duraq.entry import DEAD, READY, SCHEDULED
from duraq.journal.index import Index
from duraq.model import EntryStatus

# What a row is. It only ever goes on: from scheduled to ready, and from anything to taken.
WAITS, IS_READY, TAKEN, IS_DEAD = range(4)
STATUS = {WAITS: SCHEDULED, IS_READY: READY, IS_DEAD: DEAD}
_ONES = re.compile("1+")
_BITS = bytes.maketrans(bytes([WAITS, IS_READY, TAKEN, IS_DEAD]), b"0010")

Key = tuple[int, int]  # a place in the order of delivery


class Run:
    """Until somebody comes to it these are a few numbers; then each row gets a mark (``activate``)."""

    __slots__ = (
        "_due_at",
        "_due_from",
        "_expiring_from",
        "_ids",
        "_image",
        "_kept_due",
        "_kept_first",
        "_taken",
        "bytes",
        "crc",
        "dead",
        "expires",
        "head",
        "head_key",
        "lowest",
        "marks",
        "next_due",
        "oldest",
        "plain",
        "ready",
        "scheduled",
        "segment",
        "timed",
    )

    def __init__(self, image: dict[str, Any]) -> None:
        """From what ``image`` gave. Raises KeyError, TypeError or ValueError if it is not that."""
        self._image: dict[str, Any] | None = image
        number = values.number
        self.segment = number(image["segment"])
        self.crc = number(image["crc"])
        # How many rows are left: those that had no time to wait for, those that have or had, dead letters.
        self.plain = number(image["plain"])
        self.timed = number(image["timed"])
        self.dead = number(image["dead"])
        self._taken = int(values.text(image["taken"]), 16)  # a bit for each row, the first one's the lowest
        self.bytes = number(image["bytes"])  # of the records of the rows that are left
        self.lowest = number(image["lowest"])  # nothing in it was enqueued before this
        self.oldest = number(image["oldest"])  # and no record of it lies in a segment before this
        # No id comes before the first or behind the second. Ids that we make, and many others, rise with
        # time, so that this tells most runs from the one that an id is in.
        first, last = image["ids"]
        self._ids = values.text(first), values.text(last)
        # What these say may be too early, never too late: the row may have been taken.
        self.next_due = values.maybe_number(image["due"])
        self.expires = values.maybe_number(image["expires"])
        self._kept_due = self.next_due
        self._kept_first = None if image["first"] is None else _key(*image["first"])
        self.head_key = self._kept_first if self.plain else None
        if self.plain and self.head_key is None:
            raise ValueError("it does not say what comes first")
        # As of now, with those whose time has come among the ready ones.
        self.ready, self.scheduled = self.plain, self.timed
        self.marks: bytearray | None = None
        self.head = -1  # the first row that is ready
        self._due_at = 0  # how far in the index's due table the time has come
        self._due_from = 0  # before this all rows of that table are taken
        self._expiring_from = 0  # the same for the expiring ones

    def fits(self, index: Index) -> bool:
        """Whether this can be what is left of that index, as long as its rows have no marks."""
        return index.rows == self.left + self._taken.bit_count() and not self._taken >> index.rows

    @classmethod
    def whole(cls, index: Index, ids: tuple[str, str]) -> Self:
        """The run of an index that nothing was taken from; ``ids`` are the first and the last of its ids."""
        timed = len(index.due)
        rows = index.columns()
        return cls(
            {
                "segment": index.segment,
                "crc": index.crc,
                "plain": index.waiting - timed,
                "timed": timed,
                "dead": index.rows - index.waiting,
                "taken": "0",
                "bytes": sum(rows.length),
                "lowest": min(rows.order),
                "oldest": min(rows.segment),
                "ids": ids,
                "due": index.due.times[0] if timed else None,
                "expires": index.expiring.times[0] if len(index.expiring) else None,
                "first": index.key(0) if index.waiting else None,
            }
        )

    @property
    def left(self) -> int:
        """Rows that were not taken."""
        return self.plain + self.timed + self.dead

    def activate(self, index: Index) -> bytearray:
        """Mark each row, if that was not done yet."""
        if self.marks is None:
            marks = bytearray([IS_READY]) * index.waiting + bytearray([IS_DEAD]) * (
                index.rows - index.waiting
            )
            for row in index.due.rows:
                marks[row] = WAITS
            for taken in _ONES.finditer(f"{self._taken:b}"[::-1]):
                first, end = taken.span()
                marks[first:end] = bytearray([TAKEN]) * (end - first)
            self.marks = marks
            self._set_head(index, marks.find(IS_READY))
        return self.marks

    def _set_head(self, index: Index, row: int) -> None:
        self.head = row
        self.head_key = index.key(row) if row >= 0 else None

    def has(self, status: EntryStatus | None) -> bool:
        """Whether anything of that state (None: any) is left."""
        left: dict[EntryStatus | None, int] = {
            None: self.left,
            READY: self.ready,
            SCHEDULED: self.scheduled,
            DEAD: self.dead,
        }
        return left.get(status, 0) > 0

    def may_have(self, entry_id: str) -> bool:
        """Whether the id could be that of a row."""
        first, last = self._ids
        return first <= entry_id <= last

    def is_taken(self, row: int) -> bool:
        """Whether the row is no longer here."""
        assert self.marks is not None
        return self.marks[row] == TAKEN

    def status(self, row: int) -> EntryStatus:
        """The state of a row that was not taken."""
        assert self.marks is not None
        return STATUS[self.marks[row]]

    def next_ready(self, row: int) -> int:
        """The first ready row behind that one, or -1."""
        assert self.marks is not None
        return self.marks.find(IS_READY, row + 1)

    def make_due(self, index: Index, now: int) -> int:
        """Rows whose time has come are ready; returns how many became so."""
        marks = self.activate(index)
        due, count, first = index.due, 0, self.head
        until = due.until(now)
        for row in due.rows[self._due_at : until]:
            if marks[row] == WAITS:
                marks[row] = IS_READY
                count += 1
                if first < 0 or row < first:
                    first = row
        self._due_at = until
        self.next_due = due.times[until] if until < len(due) else None
        self.ready += count
        self.scheduled -= count
        if first != self.head:
            self._set_head(index, first)
        return count

    def take(self, index: Index, row: int) -> int:
        """Take a row out; returns what it was."""
        marks = self.activate(index)
        was = marks[row]
        marks[row] = TAKEN
        self._image = None
        length, timed = index.bulk(row)
        self.bytes -= length
        if was == IS_DEAD:
            self.dead -= 1
            return was
        if was == IS_READY:
            self.ready -= 1
        else:
            self.scheduled -= 1
        if timed:
            self.timed -= 1
        else:
            self.plain -= 1
        if row == self.head:
            self._set_head(index, marks.find(IS_READY, row + 1))
        return was

    def before(self, index: Index, segment: int) -> list[int]:
        """Rows that are left and whose records lie in segments before that one."""
        marks = self.activate(index)
        lies_in = index.columns().segment
        rows = [row for row, mark in enumerate(marks) if mark != TAKEN and lies_in[row] < segment]
        if not rows:
            # Not to be looked for again; an image that says less is as good.
            self.oldest = max(self.oldest, segment)
        return rows

    def expired(self, index: Index, now: int) -> Iterator[int]:
        """Rows that are left and whose TTL has passed."""
        marks, expiring = self.activate(index), index.expiring
        for at in range(self._expiring_from, expiring.until(now)):
            row = expiring.rows[at]
            if marks[row] != TAKEN:
                yield row
            elif at == self._expiring_from:
                self._expiring_from += 1
                following = self._expiring_from
                self.expires = expiring.times[following] if following < len(expiring) else None

    def image(self, index: Index | None = None) -> dict[str, Any]:
        """The run as JSON values, so that it can be made again.

        Without its index what comes first is said as it last was, which may be too early. What time alone has
        brought about is left out: whoever makes it again has a clock.
        """
        if self._image is None:
            assert self.marks is not None
            if index is not None:
                self._find_first(index)
            bits = self.marks.translate(_BITS)[::-1]
            self._image = {
                "segment": self.segment,
                "crc": self.crc,
                "plain": self.plain,
                "timed": self.timed,
                "dead": self.dead,
                "taken": f"{int(bits, 2):x}",
                "bytes": self.bytes,
                "lowest": self.lowest,
                "oldest": self.oldest,
                "ids": self._ids,
                "due": self._kept_due,
                "expires": self.expires,
                "first": self._kept_first,
            }
        return self._image

    def _find_first(self, index: Index) -> None:
        assert self.marks is not None
        due = index.due
        while self._due_from < len(due) and self.marks[due.rows[self._due_from]] == TAKEN:
            self._due_from += 1
        self._kept_due = due.times[self._due_from] if self._due_from < len(due) else None
        left = [row for row in (self.marks.find(WAITS), self.marks.find(IS_READY)) if row >= 0]
        self._kept_first = index.key(min(left)) if left else None


def _key(minus_priority: Any, order: Any) -> Key:
    return -values.priority(-minus_priority), values.number(order)
