"""Where somebody who looks has read a queue up to, and what it had come to there: to go on from another time.

A checkpoint stands at the end of a sealed segment; what lies behind it are thousands of records, in hundreds
of queues millions. A bookmark stands anywhere. It is the looker's own, kept wherever he likes, and never
beside the records: one line of JSON with a record's checksum, which also has the checksum of the last line
before the place. If that line is still there, all before it is what it was, unless the queue was repaired
since, which it notes as well; else the bookmark is of no use, and nothing is lost but time.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from zlib import crc32

import orjson

from duraq import snapshot, values
from duraq.clock import from_datetime, to_datetime
from duraq.entry import LEASED, Entry
from duraq.journal import pieces, record
from duraq.journal.filesystem import FileSystem
from duraq.journal.run import Run
from duraq.journal.segments import Segments
from duraq.ledger import Ledger
from duraq.model import Pause
from duraq.state import QueueState

FORMAT = 1
# An image of more than that would take as long to read as it spares.
MOST_ENTRIES = 2000


def image(
    fs: FileSystem, segments: Segments, state: QueueState, runs: list[Run], repairs: int
) -> bytes | None:
    """The bookmark at the place that was read up to; None if there is none to be made.

    ``repairs``: those that the queue had been through before it was read.
    """
    if segments.seal is not None or not segments.size or len(state.entries) > MOST_ENTRIES:
        return None
    last = pieces.last_line(fs, segments.open(), 0, segments.size)
    pause = state.pause
    leased = [each for held in state.leased.values() for each in held.values()]
    entries = leased + [each for each in state.entries.values() if each.status is not LEASED]
    fields = {
        "op": "bookmark",
        "format": FORMAT,
        "segment": segments.segment,
        "offset": segments.size,
        "next": segments.next_seq,
        "last": [len(last), crc32(last)],
        "first": segments.first,
        "bytes": segments.sealed_bytes,
        "known_from": segments.known_from,
        "repairs": repairs,
        "tokens": state.tokens,
        "pause": None if pause is None else [from_datetime(pause.at), pause.who, pause.reason],
        "ledger": state.ledger.image(),
        "entries": [[each.id, snapshot.of(each), list(each.where)] for each in entries],
        "runs": [run.image() for run in runs],
    }
    return record.finished(orjson.dumps(fields)[:-1])


class Bookmark:
    """A bookmark, read. Raises ValueError, KeyError or TypeError if it is none."""

    def __init__(self, line: bytes) -> None:
        record.check(line)
        fields: dict[str, Any] = orjson.loads(line)
        number = values.number
        if fields["format"] != FORMAT:
            raise ValueError("of another version")
        self.segment, self.offset, self.next_seq = (
            number(fields["segment"]),
            number(fields["offset"]),
            number(fields["next"]),
        )
        self._length, self._crc = map(number, fields["last"])
        self.first, self.sealed_bytes = number(fields["first"]), number(fields["bytes"])
        known_from = fields["known_from"]
        self.known_from = None if known_from is None else _where(known_from)
        self.repairs = number(fields["repairs"])
        self.tokens = number(fields["tokens"])
        self.pause: Pause | None = None
        if fields["pause"] is not None:
            at, who, reason = fields["pause"]
            self.pause = Pause(to_datetime(number(at)), values.text(who), values.text(reason))
        self.ledger = Ledger.of(fields["ledger"])
        self.entries = [_entry(entry_id, said, where) for entry_id, said, where in fields["entries"]]
        self.runs = [Run(each) for each in fields["runs"]]

    def is_there(self, fs: FileSystem, segments: Segments, repairs: int) -> bool:
        """Whether the line before it is still what it was, and nobody has written others anew."""
        if self.repairs != repairs:
            return False
        with suppress(FileNotFoundError):
            fd = segments.open(self.segment)
            return crc32(fs.pread(fd, self._length, self.offset - self._length)) == self._crc
        return False

    def restore(self, state: QueueState) -> None:
        """Have the state be as it was there, but for the shelf; ``admit`` follows."""
        state.resume(self.tokens, self.pause, [each for each in self.entries if each.status is LEASED])
        state.ledger = self.ledger

    def admit(self, state: QueueState) -> None:
        """Have it hold those that nobody had leased."""
        for entry in self.entries:
            if entry.status is not LEASED:
                state.admit(entry)


def _entry(entry_id: Any, said: Any, where: Any) -> Entry:
    return snapshot.restore(entry_id, said, _where(where))


def _where(found: Any) -> tuple[int, int, int]:
    segment, offset, length = found
    return values.number(segment), values.number(offset), values.number(length)
