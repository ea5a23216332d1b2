"""The failures in one queue's records: read once, and on from there. Or, without records, in its entries.

An attempt is known by its ``fail`` or ``dead`` record, as long as that is there. Of what was compacted away
only the histories of entries tell that have not ended; they are asked for the time before the first record.
"""

from __future__ import annotations

import re
import sys
import threading
from bisect import bisect_right
from collections.abc import Callable
from contextlib import closing, suppress
from functools import lru_cache

from duraq.clock import from_datetime
from duraq.entry import DEAD, Entry
from duraq.fates import Fate, Fates, signature_of
from duraq.journal import record
from duraq.journal.lines import Lines
from duraq.journal.record import BadRecord
from duraq.model import AttemptError, Cause
from duraq.operations import Bury, Fail, Restore
from duraq.reader import Reader
from duraq.state import QueueState
from duraq.times import microseconds, rfc3339

# The beginning of a line that matters here; no payload has a line's end in it.
_MATTERS = re.compile(
    rb'\n\{"op":"(fail|dead|complete|expire|remove|requeue|restore)","seq":\d+,"at":"([^"]{27})","id":"([^"]+)"'
)
_AT = re.compile(rb'\{"op":"[a-z]+","seq":\d+,"at":"([^"]+)"')
_SECONDS = len("2026-11-24T13:26:00.")
_SIGNED = re.compile(rb',"signature":"([0-9a-f]{8})"')
_FAILURES = frozenset({b"fail", b"dead"})
_BRINGS = _FAILURES | {b"restore"}  # what can make attempts known


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

    def catch_up(
        self,
        reader: Reader,
        state: QueueState,
        stop: threading.Event | None = None,
        progress: Callable[[], None] | None = None,
    ) -> None:
        """Read what was written since the last time; stopped, it goes on from there the next time.

        ``progress`` is called now and then; once it has called ``show``, all that is known may be looked at.
        """
        with closing(reader.lines(self._queue)) as lines:
            numbers = lines.segments()
            if self._segment < 0 or (numbers and not self._goes_on(lines, numbers)):
                # What it had read last was compacted away, and perhaps more; or the queue was made again.
                self.fates = Fates(self._queue, *self._stretches)
                if not self._begin(lines, numbers, state, stop):
                    self._segment = -1
                    return
            for number in numbers:
                if number >= self._segment and not (stop is not None and stop.is_set()):
                    with suppress(FileNotFoundError):  # dropped since it was listed
                        self._read(lines, number, stop, progress)
        self.show()

    def _goes_on(self, lines: Lines, numbers: list[int]) -> bool:
        """Whether what it had read last is still there, where it was."""
        if not numbers[0] <= self._segment <= numbers[-1]:
            return False
        with suppress(FileNotFoundError):  # dropped since it was listed
            return lines.before(self._segment, self._offset, len(self._last)) == self._last
        return True

    def show(self) -> None:
        """Have samples and errors as of what was read."""
        self.fates.show(_shown)

    def _begin(
        self, lines: Lines, numbers: list[int], state: QueueState, stop: threading.Event | None
    ) -> bool:
        """Find the first segment that matters, and see what was before all of them; False if stopped."""
        at = bisect_right(numbers, self._since, key=lambda number: _begins(lines, number) or 0)
        self._segment, self._offset = (numbers[max(at - 1, 0)] if numbers else 0), 0
        self._last = b""
        first = next((begins for number in numbers if (begins := _begins(lines, number)) is not None), 0)
        self.reach = first
        if first <= self._since:
            return True  # all that matters is on record
        # All that has happened to the others is on record.
        for entry in state.lived(numbers[0]):
            if stop is not None and stop.is_set():
                return False
            # As the entry is now, unless a record that is read next says otherwise.
            _tell(self.fates, entry, self.reach)
        return True

    def _read(
        self,
        lines: Lines,
        number: int,
        stop: threading.Event | None,
        progress: Callable[[], None] | None,
    ) -> None:
        if number != self._segment:
            self._segment, self._offset, self._last = number, 0, b""
        for block in lines.blocks(number, self._offset):
            self._fold(b"\n" + block)
            self._offset += len(block)
            self._last = block[-record.SUFFIX_LENGTH :]
            if stop is not None and stop.is_set():
                return
            if progress is not None:
                progress()

    def _fold(self, block: bytes) -> None:
        since = rfc3339(self._since).encode()
        for found in _MATTERS.finditer(block):
            op, at, said = found.groups()
            entry_id = said.decode("utf-8", "replace")
            # Times of one length are in order as texts, too. Most lines end here.
            if at <= since if op in _BRINGS else not self.fates.follows(entry_id):
                continue
            start = found.start() + 1
            line = block[start : block.index(b"\n", start) + 1]
            if op == b"restore" and not self.fates.follows(entry_id) and b'"history":' not in line:
                continue  # whole storages are moved by such lines; most of them have never failed
            # What is damaged is for those to tell who fold the queue.
            with suppress(BadRecord, ValueError):
                record.check(line)
                if op in _FAILURES:
                    when = _microseconds(at[:_SECONDS]) + int(at[_SECONDS:-1])
                    self.fates.fail(entry_id, when, _signature(line), line, dead=op == b"dead")
                elif op == b"requeue":
                    self.fates.move(entry_id, Fate.WAITING)
                elif op == b"remove":
                    # It may be brought back.
                    self.fates.move(entry_id, Fate.OTHER)
                elif op == b"restore":
                    self._bring(line)
                else:
                    self.fates.end(entry_id, Fate.OK if op == b"complete" else Fate.OTHER)

    def _bring(self, line: bytes) -> None:
        """An entry is back, or comes from elsewhere with all that it has been through."""
        operation = record.decode(line).operation
        assert isinstance(operation, Restore)
        entry = operation.entry
        # One that comes from another queue of this storage is to be worked again; its attempts are on record
        # there.
        if entry.status is DEAD or operation.source:
            _tell(self.fates, entry, sys.maxsize)
        if self.fates.follows(entry.id):
            self.fates.move(entry.id, Fate.DEAD if entry.status is DEAD else Fate.WAITING)


class FailureHistories:
    """The failures that entries tell which are still there: all that is known where no records are kept.

    So nothing is known of what has failed and was completed, and ``reach`` is the moment itself.
    """

    def __init__(self, queue: str, origin: int, width: int, horizon: int) -> None:
        self._queue = queue
        self._stretches = origin, width, horizon
        self.fates = Fates(queue, origin, width, horizon)
        self.reach = 0

    def catch_up(self, state: QueueState, now: int, stop: threading.Event | None = None) -> None:
        """Ask every entry once more; stopped, those that were asked so far have told."""
        self.reach = now
        self.fates = Fates(self._queue, *self._stretches)
        for entry in state.lived(sys.maxsize):
            if stop is not None and stop.is_set():
                break
            _tell(self.fates, entry, now + 1)
        self.show()

    def show(self) -> None:
        """Have samples and errors as of what was asked."""
        self.fates.show(_shown)


def _tell(fates: Fates, entry: Entry, before: int) -> None:
    """What the entry's history has of failures before that time that were not counted yet."""
    after = fates.counted_until(entry.id)
    for attempt in entry.history:
        ended_at = from_datetime(attempt.ended_at)
        if attempt.cause is not Cause.RELEASED and after < ended_at < before:
            error = attempt.error
            fates.fail(entry.id, ended_at, signature_of(error), error, dead=entry.status is DEAD)


def _signature(line: bytes) -> str:
    """That of the error in the record, which is read for it if it was written without one."""
    # In a text every quote has a backslash before it, so this is where it looks to be.
    found = _SIGNED.search(line)
    return signature_of(_error(line)) if found is None else found[1].decode()


def _error(line: bytes) -> AttemptError:
    operation = record.decode(line).operation
    assert isinstance(operation, Fail | Bury)
    return operation.error


def _shown(line: bytes) -> AttemptError:
    try:
        return _error(line)
    except BadRecord as error:  # the checksum is right, and it is not ours
        return AttemptError("(unreadable)", str(error))


@lru_cache(256)
def _microseconds(second: bytes) -> int:
    """Of a time up to the point before its fraction."""
    return microseconds(f"{second.decode('ascii')}000000Z")


def _begins(lines: Lines, number: int) -> int | None:
    """When the segment's first record was written; None if there is none, or it is gone."""
    with suppress(FileNotFoundError, ValueError, TypeError):
        found = _AT.match(next(lines.blocks(number), b""))
        return None if found is None else microseconds(found[1].decode("ascii", "replace"))
    return None
