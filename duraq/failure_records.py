"""The failures in one queue's records: read once, and on from there.

An attempt is known by its ``fail`` or ``dead`` record, as long as that is there. Of what was compacted away
only the histories of entries tell that have not ended; they are asked for the time before the first record.
"""

from __future__ import annotations

import re
import threading
from contextlib import closing, suppress

from duraq.clock import from_datetime
from duraq.entry import DEAD
from duraq.fates import Fate, Fates
from duraq.journal import record
from duraq.journal.lines import Lines
from duraq.journal.record import BadRecord
from duraq.model import Cause
from duraq.operations import Bury, Complete, Expire, Fail, Remove, Requeue
from duraq.reader import Reader
from duraq.state import QueueState
from duraq.times import microseconds, rfc3339

# The beginning of a line that matters here; no payload has a line's end in it.
_MATTERS = re.compile(
    rb'\n\{"op":"(fail|dead|complete|expire|remove|requeue)","seq":\d+,"at":"([^"]+)","id":"([^"]+)"'
)
_AT = re.compile(rb'\{"op":"[a-z]+","seq":\d+,"at":"([^"]+)"')
_FIRST = 1  # the number of a queue's first segment
_FAILURES = frozenset({b"fail", b"dead"})


class FailureRecords:
    """One queue's failures since the stretch ``horizon``; see Fates for the stretches.

    ``reach``: when its first record was written, before which little is known.
    """

    def __init__(self, queue: str, origin: int, width: int, horizon: int) -> None:
        self._queue = queue
        self._since = origin + horizon * width
        self._stretches = origin, width, horizon
        self.fates = Fates(queue, origin, width, horizon)
        self.reach = 0
        self._segment, self._offset = -1, 0  # up to where it was read
        self._last = b""  # what stood there, a checksum in it

    def catch_up(self, reader: Reader, state: QueueState, stop: threading.Event | None = None) -> None:
        """Read what was written since the last time; stopped, it goes on from there the next time."""
        with closing(reader.lines(self._queue)) as lines:
            numbers = lines.segments()
            if self._segment < 0 or (numbers and not self._goes_on(lines, numbers)):
                # What it had read last was compacted away, and perhaps more; or the queue was made again.
                self.fates = Fates(self._queue, *self._stretches)
                self._begin(lines, numbers, state)
            for number in numbers:
                if number >= self._segment and not (stop is not None and stop.is_set()):
                    with suppress(FileNotFoundError):  # dropped since it was listed
                        self._read(lines, number, stop)

    def _goes_on(self, lines: Lines, numbers: list[int]) -> bool:
        """Whether what it had read last is still there, where it was."""
        if not numbers[0] <= self._segment <= numbers[-1]:
            return False
        with suppress(FileNotFoundError):  # dropped since it was listed
            return lines.before(self._segment, self._offset, len(self._last)) == self._last
        return True

    def _begin(self, lines: Lines, numbers: list[int], state: QueueState) -> None:
        """Find the first segment that matters, and see what was before all of them."""
        self._segment, self._offset, self._last = (numbers[0] if numbers else 0), 0, b""
        for number in reversed(numbers):
            begins = _begins(lines, number)
            if begins is not None and begins <= self._since:
                self._segment = number
                break
        first = next((at for number in numbers if (at := _begins(lines, number)) is not None), 0)
        self.reach = first
        if first <= self._since or numbers[0] == _FIRST:
            return  # all that matters is on record
        for entry in state.lived():
            for attempt in entry.history:
                ended_at = from_datetime(attempt.ended_at)
                if attempt.cause is not Cause.RELEASED and ended_at < self.reach:
                    # As the entry is now, unless a record that is read next says otherwise.
                    self.fates.fail(entry.id, ended_at, attempt.error, dead=entry.status is DEAD)

    def _read(self, lines: Lines, number: int, stop: threading.Event | None) -> None:
        if number != self._segment:
            self._segment, self._offset, self._last = number, 0, b""
        for block in lines.blocks(number, self._offset):
            self._fold(b"\n" + block)
            self._offset += len(block)
            self._last = block[-record.SUFFIX_LENGTH :]
            if stop is not None and stop.is_set():
                return

    def _fold(self, block: bytes) -> None:
        since = rfc3339(self._since).encode()
        for found in _MATTERS.finditer(block):
            op, at, entry_id = found.groups()
            # Times of one length are in order as texts, too. Most lines end here.
            if (
                at <= since
                if op in _FAILURES
                else not self.fates.follows(entry_id.decode("utf-8", "replace"))
            ):
                continue
            start = found.start() + 1
            # What is damaged is for those to tell who fold the queue.
            with suppress(BadRecord):
                self._apply(record.decode(block[start : block.index(b"\n", start) + 1]))

    def _apply(self, found: record.Record) -> None:
        operation, _, at = found
        match operation:
            case Fail() | Bury():
                self.fates.fail(operation.id, at, operation.error, dead=isinstance(operation, Bury))
            case Complete():
                self.fates.end(operation.id, Fate.OK)
            case Expire() | Remove():
                self.fates.end(operation.id, Fate.OTHER)
            case Requeue():
                self.fates.put_back(operation.id)


def _begins(lines: Lines, number: int) -> int | None:
    """When the segment's first record was written; None if there is none, or it is gone."""
    with suppress(FileNotFoundError, ValueError, TypeError):
        found = _AT.match(next(lines.blocks(number), b""))
        return None if found is None else microseconds(found[1].decode("ascii", "replace"))
    return None
