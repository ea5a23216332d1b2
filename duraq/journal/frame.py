"""A group of changes as the journal holds it: the frame.

    frame   magic  epoch  position  synced  previous  length  crc  | body
            4s     u32    u64       u64     u32       u32     u32  | `length` bytes
    body    parts: name length, segment, offset, lines length      | queue name | lines
                   u8           u64      u64     u32

All numbers are little-endian. ``position`` is where the frame begins in the journal's endless numbering,
``previous`` the crc of the frame before it, so a frame left over from an earlier round, or from behind a
torn one, never passes for the next. ``synced`` is a position that was known to be durable when the frame
was written: a frame that says so convicts a break before that position of being damage, not a torn end.
The crc32 covers all other bytes of the frame. This module is pure: bytes in, frames out.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

from duraq.model import PROVISIONAL, is_queue_name

MAGIC = b"DQf1"
_HEAD = struct.Struct("<4sIQQII")
_CRC = struct.Struct("<I")
_PART = struct.Struct("<BQQI")
HEAD_LENGTH = _HEAD.size + _CRC.size
assert HEAD_LENGTH == 36  # FORMAT.md, "The frame"
assert _PART.size == 21
LAST_EPOCH = (1 << 32) - 3  # with room for those that are prepared behind it
_STRETCH = 16 << 10  # bytes of frames that are looked at in one go, some 50 us
_SPAN = 64 << 10  # bytes in which a frame is looked for at once


# What a writer gives: (queue, segment, offset, lines). A plain tuple, for one is made at every operation.
Share = tuple[str, int, int, bytes]


# How a journal file is read: so many bytes from there on, or as many as there are.
Take = Callable[[int, int], bytes]


class Part(NamedTuple):
    """Lines to be found in one segment of one queue, at this offset."""

    queue: str
    segment: int
    offset: int
    lines: bytes


class Frame(NamedTuple):
    """One frame as read."""

    epoch: int
    position: int
    synced: int
    previous: int
    crc: int
    length: int
    body: bytes

    @property
    def end(self) -> int:
        """The position behind the frame."""
        return self.position + self.length

    def parts(self) -> Iterator[Part]:
        """What the frame wants written, in order."""
        body = self.body
        for name, segment, offset, begin, end in _places(body, 0, len(body)):
            yield Part(name.decode("ascii"), segment, offset, body[begin:end])


def encode(
    epoch: int, position: int, synced: int, previous: int, parts: Sequence[Share]
) -> tuple[bytes, int]:
    """The frame's bytes, and its crc for the next one."""
    pieces: list[bytes] = []
    for queue, segment, offset, lines in parts:
        name = queue.encode()
        pieces.append(_PART.pack(len(name), segment, offset, len(lines)) + name)
        pieces.append(lines)
    # One piece, for a call costs more than copying a few hundred bytes.
    body = b"".join(pieces)
    head = _HEAD.pack(MAGIC, epoch, position, synced, previous, len(body))
    crc = crc32(body, crc32(head))
    return b"".join((head, _CRC.pack(crc), body)), crc


def _places(buffer: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int, int, int]]:
    """The parts between: queue, segment, offset, and from where to where its lines stand.

    Raises ValueError for what no writer of ours makes.
    """
    while at < end:
        if end - at < _PART.size:
            raise ValueError("half of a part")
        name_length, segment, offset, lines_length = _PART.unpack_from(buffer, at)
        at += _PART.size
        begin = at + name_length
        name = buffer[at:begin]
        at = begin + lines_length
        if at > end or segment >= PROVISIONAL or offset >= PROVISIONAL or not _is_queue(name):
            raise ValueError("not a part of ours")
        yield name, segment, offset, begin, at


@lru_cache(256)
def _is_queue(name: bytes) -> bool:
    # The lines go into a directory of that name.
    return name.isascii() and is_queue_name(name.decode("ascii"))


def decode(buffer: bytes, start: int = 0) -> Frame | None:
    """The frame that begins at ``start``, or None if no whole, undamaged frame of ours does."""
    if len(buffer) - start < HEAD_LENGTH:
        return None
    magic, epoch, position, synced, previous, length = _HEAD.unpack_from(buffer, start)
    # The length is believed only as far as there are bytes: a damaged one must not cost memory.
    if magic != MAGIC or length > len(buffer) - start - HEAD_LENGTH:
        return None
    if position >= PROVISIONAL or epoch > LAST_EPOCH:
        return None  # nobody has come so far
    (crc,) = _CRC.unpack_from(buffer, start + _HEAD.size)
    body = buffer[start + HEAD_LENGTH : start + HEAD_LENGTH + length]
    if crc32(body, crc32(memoryview(buffer)[start : start + _HEAD.size])) != crc:
        return None
    try:
        deque(_places(body, 0, length), maxlen=0)
    except ValueError:
        return None
    return Frame(epoch, position, synced, previous, crc, HEAD_LENGTH + length, body)


def decode_at(take: Take, at: int) -> Frame | None:
    """The same, of a file that ``take`` reads."""
    head = take(at, HEAD_LENGTH)
    if len(head) < HEAD_LENGTH or not head.startswith(MAGIC):
        return None
    length: int = _HEAD.unpack_from(head)[-1]
    return decode(take(at, HEAD_LENGTH + length))


def search(take: Take, start: int) -> Iterator[Frame]:
    """Every undamaged frame of such a file at or behind ``start``, wherever it lies."""
    for at in _starts(take, start, MAGIC):
        frame = decode_at(take, at) if at >= start else None
        if frame is not None:
            yield frame
            start = at + frame.length


def _starts(take: Take, start: int, beginning: bytes) -> Iterator[int]:
    """Where these bytes are at or behind ``start``, with room for a frame."""
    while len(piece := take(start, _SPAN)) >= HEAD_LENGTH:
        at = piece.find(beginning)
        while at >= 0:
            yield start + at
            at = piece.find(beginning, at + 1)
        # What begins at the end of this piece is found in the next one.
        start += len(piece) - len(beginning) + 1


def find(buffer: bytes, start: int) -> Iterator[Frame]:
    """Every undamaged frame at or behind ``start``, wherever it lies."""
    at = buffer.find(MAGIC, start)
    while at >= 0:
        frame = decode(buffer, at)
        if frame is not None:
            yield frame
        at = buffer.find(MAGIC, at + (frame.length if frame else 1))


def any_of(take: Take, start: int, epoch: int) -> bool:
    """Whether there is a whole frame of that epoch at or behind ``start``."""
    beginning = MAGIC + epoch.to_bytes(4, "little")
    return any(decode_at(take, at) is not None for at in _starts(take, start, beginning))


def previous(head: bytes) -> int:
    """The crc that this head names as that of the frame before."""
    return int(_HEAD.unpack_from(head)[4])


def touched(take: Take, start: int, epoch: int, position: int, last: int) -> dict[tuple[str, int], int]:
    """Where the chain of frames that begins at ``position``, at ``start``, leaves each (queue, segment).

    ``last`` is the crc of the last one that counts, 0 if none does: one behind it was passed over.

    What has another position, or does not name the crc before it, is left over from an earlier round. The
    frame behind the last one may be torn, its head whole: a power cut did that, and nothing was written there
    since because it did not fit.
    """
    ends: dict[tuple[bytes, int], int] = {}
    at, chain, pause = start, None, start + _STRETCH
    if not last:
        return {}
    while len(head := take(at, HEAD_LENGTH)) == HEAD_LENGTH:
        if at > pause:
            # Let other threads go on: one that comes back from a system call would wait for 5 ms here.
            time.sleep(0)
            pause = at + _STRETCH
        magic, found_epoch, found_position, _, previous, length = _HEAD.unpack_from(head)
        if magic != MAGIC or found_epoch != epoch or found_position != position:
            break
        if chain is not None and previous != chain:
            break
        body = take(at + HEAD_LENGTH, length)
        (found_crc,) = _CRC.unpack_from(head, _HEAD.size)
        if len(body) < length or crc32(body, crc32(head[: _HEAD.size])) != found_crc:
            break
        try:
            places = list(_places(body, 0, length))
        except ValueError:
            break
        for name, segment, offset, begin, behind in places:
            ends[name, segment] = offset + behind - begin
        chain = found_crc
        position += HEAD_LENGTH + length
        at += HEAD_LENGTH + length
        if chain == last:
            break
    return {(name.decode("ascii"), segment): end for (name, segment), end in ends.items()}
