"""The index of a sealed segment: the entries that nobody held when it was sealed, in order.

Derived: it can be deleted at any time, and is made again from the records. What is in it never changes; what
was taken out since is noted elsewhere (``duraq.journal.runs``).

    header      magic  segment  rows  waiting  due  expiring  states  filter  crc of the filter  crc
    filter      bits                                                    which ids may be here (a Bloom filter)
    rows        order  segment  offset  length  priority  state         waiting ones first, then dead letters
    due         ready_at ...  row ...                                   rows that are scheduled, by time
    expiring    expires_at ...  row ...                                 rows with a TTL, by time
    ids         hash << 32 | row ...                                    all rows, by hash
    states      JSON, one after the other                               of entries that were leased before

Waiting rows are in the order of delivery, dead ones in the order they were enqueued in. Numbers are the
machine's own (the magic tells an index from a machine of the other kind). It is read into memory, not mapped:
a mapped file that somebody cuts short kills whoever looks at it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import NamedTuple
from zlib import crc32

import orjson

from duraq import snapshot
from duraq.entry import DEAD, Entry, delivery_order, enqueue_order

_MAGIC = 0x3349_5144  # "DQI3"
_HEADER = Struct("=IQIIIIIIII")
HEADER_BYTES = _HEADER.size
_ROW = Struct("=QQQIiI")
# In ``state``: whether the row is in the due table, and one more than where the entry's snapshot begins; 0
# for one that is as it was enqueued.
_TIMED = 1 << 31
_PRISTINE = 0


# With 16 to 32 bits for each id and so many looks, one id in 400 at most is taken for one that is here.
_BITS_EACH = 16
_LOOKS = 4
_DIGITS = bytes.maketrans(b"\0\1", b"01")


class BadIndex(ValueError):
    """The bytes are not a whole index."""


class Row(NamedTuple):
    """Where an entry stands and where its record lies."""

    order: int
    segment: int
    offset: int
    length: int
    priority: int
    state: int


class Columns(NamedTuple):
    """The same of all rows."""

    order: tuple[int, ...]
    segment: tuple[int, ...]
    offset: tuple[int, ...]
    length: tuple[int, ...]
    priority: tuple[int, ...]
    state: tuple[int, ...]


def is_changed(state: int) -> bool:
    """Whether the entry of a row is no longer as its record says."""
    return state & ~_TIMED != _PRISTINE


def id_hash(entry_id: str) -> int:
    """What the ids of an index are sorted by."""
    return crc32(entry_id.encode())


class Filter:
    """Tells most of the ids that are not in an index, without the index."""

    __slots__ = ("_bits", "_mask")

    def __init__(self, bits: bytes) -> None:
        self._bits = bits
        self._mask = len(bits) * 8 - 1

    def may_have(self, hashed: int) -> bool:
        """Whether an id of that hash could be there."""
        bits, mask, step = self._bits, self._mask, hashed >> 16 | 1
        for _ in range(_LOOKS):
            at = hashed & mask
            if not bits[at >> 3] >> (at & 7) & 1:
                return False
            hashed += step
        return True


def _filter(hashes: Sequence[int]) -> bytes:
    size = 1024
    while size < len(hashes) * _BITS_EACH:
        size *= 2
    # A byte for each bit at first: setting one in place is the quickest that Python has.
    marks, mask = bytearray(size), size - 1
    for hashed in hashes:
        step = hashed >> 16 | 1
        for at in range(hashed, hashed + _LOOKS * step, step):
            marks[at & mask] = 1
    marks.reverse()
    return int(marks.translate(_DIGITS), 2).to_bytes(size // 8, "little")


class Times:
    """Rows by a time, the earliest first."""

    def __init__(self, times: memoryview, rows: memoryview) -> None:
        self.times = times.cast("q")
        self.rows = rows.cast("q")

    def __len__(self) -> int:
        return len(self.times)

    def fit(self, rows: int) -> bool:
        """Whether they are rows of a table of so many."""
        return not self.rows or 0 <= min(self.rows) <= max(self.rows) < rows

    def until(self, now: int) -> int:
        """How many of the times are not after ``now``."""
        return bisect_left(self.times, now + 1)


def build(segment: int, entries: Iterable[Entry]) -> bytes:
    """The index of these entries, none of which is leased."""
    waiting: list[Entry] = []
    dead: list[Entry] = []
    for entry in entries:
        (dead if entry.status is DEAD else waiting).append(entry)
    waiting.sort(key=delivery_order)
    dead.sort(key=enqueue_order)
    rows = waiting + dead
    states, blobs = _states(rows)
    pack = _ROW.pack
    table = b"".join(
        [pack(e.seq, *e.where, e.priority, state) for e, state in zip(rows, states, strict=True)]
    )
    due = sorted((e.ready_at, row) for row, e in enumerate(waiting) if e.ready_at is not None)
    expiring = sorted((e.expires_at, row) for row, e in enumerate(waiting) if e.expires_at is not None)
    hashes = [id_hash(e.id) for e in rows]
    ids = sorted([hashed << 32 | row for row, hashed in enumerate(hashes)])
    bits = _filter(hashes)
    # Put together once: a segment of dead letters makes it nearly as long as that, and every copy is felt.
    body = [bits, table, _pairs(due), _pairs(expiring), _numbers("Q", ids), *blobs]
    length = sum(map(len, blobs))
    counts = (segment, len(rows), len(waiting), len(due), len(expiring), length, len(bits), crc32(bits))
    check = crc32(_HEADER.pack(_MAGIC, *counts, 0))
    for piece in body:
        check = crc32(piece, check)
    return b"".join([_HEADER.pack(_MAGIC, *counts, check), *body])


def _states(rows: Sequence[Entry]) -> tuple[list[int], list[bytes]]:
    """The snapshots of those that are no longer as they were enqueued, and where each begins."""
    places, blobs, at = [], list[bytes](), 0
    for entry in rows:
        place = _PRISTINE
        if entry.token:
            # The same, whoever makes it: each index has its checksum in everybody's checkpoints.
            blob = orjson.dumps({"id": entry.id, "entry": snapshot.of(entry)}) + b"\n"
            blobs.append(blob)
            place = at + 1
            at += len(blob)
        timed = entry.ready_at is not None and entry.status is not DEAD
        places.append(place | _TIMED if timed else place)
    return places, blobs


def _pairs(pairs: Sequence[tuple[int, int]]) -> bytes:
    return _numbers("q", [time for time, _ in pairs]) + _numbers("q", [row for _, row in pairs])


def _numbers(kind: str, numbers: Sequence[int]) -> bytes:
    return Struct(f"={len(numbers)}{kind}").pack(*numbers)


def length(head: bytes) -> int:
    """How long the index of this header is. Raises BadIndex if it is none."""
    if len(head) < HEADER_BYTES or _HEADER.unpack_from(head)[0] != _MAGIC:
        raise BadIndex("not an index")
    _, _, rows, _, due, expiring, states, bits, _, _ = _HEADER.unpack_from(head)
    return int(HEADER_BYTES + bits + rows * (_ROW.size + 8) + (due + expiring) * 16 + states)


def filter_size(head: bytes) -> int:
    """How long the filter is behind this header. Raises BadIndex if it is none."""
    if len(head) < HEADER_BYTES or _HEADER.unpack_from(head)[0] != _MAGIC:
        raise BadIndex("not an index")
    return int(_HEADER.unpack_from(head)[7])


def filter_of(head: bytes, bits: bytes) -> tuple[Filter, int]:
    """The filter, and the crc of the index that it is of. Raises BadIndex if it is damaged."""
    *_, check, crc = _HEADER.unpack_from(head)
    if crc32(bits) != check:
        raise BadIndex("the filter is damaged")
    return Filter(bits), crc


class Index:
    """An index, read. Raises BadIndex if the bytes are not a whole one."""

    def __init__(self, content: bytes) -> None:
        if len(content) != length(content[:HEADER_BYTES]):
            raise BadIndex("not as long as it says")
        _, *counts, check = _HEADER.unpack_from(content)
        self.segment, self.rows, self.waiting, due, expiring, _, bits, _ = counts
        self.crc = check
        self._table = _HEADER.size + bits
        head = _HEADER.pack(_MAGIC, *counts, 0)
        if crc32(memoryview(content)[_HEADER.size :], crc32(head)) != check:
            raise BadIndex("the checksum is wrong")
        self._content = content
        self.length = len(content)
        view = memoryview(content)
        self.filter = Filter(content[_HEADER.size : self._table])
        at = self._table + self.rows * _ROW.size
        self.due = Times(view[at : at + due * 8], view[at + due * 8 : at + due * 16])
        at += due * 16
        self.expiring = Times(view[at : at + expiring * 8], view[at + expiring * 8 : at + expiring * 16])
        at += expiring * 16
        if not (self.due.fit(self.waiting) and self.expiring.fit(self.waiting) and self.waiting <= self.rows):
            raise BadIndex("it speaks of rows that it has not")
        self._ids = view[at : at + self.rows * 8].cast("Q")
        self._states = at + self.rows * 8

    def row(self, number: int) -> Row:
        return Row(*_ROW.unpack_from(self._content, self._table + number * _ROW.size))

    def key(self, number: int) -> tuple[int, int]:
        """The row's place in the order of delivery."""
        order, _, _, _, priority, _ = _ROW.unpack_from(self._content, self._table + number * _ROW.size)
        return -priority, order

    def bulk(self, number: int) -> tuple[int, bool]:
        """How long the row's record is, and whether its entry waits, or waited, for a time."""
        _, _, _, length, _, state = _ROW.unpack_from(self._content, self._table + number * _ROW.size)
        return length, state & _TIMED != 0

    def columns(self) -> Columns:
        """All rows at once, field by field; there is one row at least."""
        table = memoryview(self._content)[self._table : self._table + self.rows * _ROW.size]
        return Columns(*zip(*_ROW.iter_unpack(table), strict=True))

    def dead(self) -> Iterator[tuple[int, int, int]]:
        """The rows of dead letters: number, order, state; in enqueue order."""
        start = self._table + self.waiting * _ROW.size
        table = memoryview(self._content)[start : self._table + self.rows * _ROW.size]
        for number, (order, _, _, _, _, state) in enumerate(_ROW.iter_unpack(table), self.waiting):
            yield number, order, state

    def states(self, state: int) -> bytes:
        """What entries had become, a line each: that of the row with this state and of all behind it."""
        return self._content[self._states + (state & ~_TIMED) - 1 :]

    def snapshot(self, state: int) -> tuple[str, snapshot.Snapshot]:
        """The id of an entry that has changed, and what it had become."""
        start = self._states + (state & ~_TIMED) - 1
        found = orjson.loads(self._content[start : self._content.index(b"\n", start)])
        return found["id"], found["entry"]

    def candidates(self, wanted: int) -> Iterator[int]:
        """Rows whose id has this hash."""
        at = bisect_left(self._ids, wanted << 32)
        while at < self.rows and self._ids[at] >> 32 == wanted:
            yield self._ids[at] & 0xFFFF_FFFF
            at += 1
