"""Storages on a disk in memory, into which a fuzzer's bytes are put in the place of what they had."""

from __future__ import annotations

import logging
import re
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from unittest.mock import patch
from zlib import crc32

import lived_in
from lived_in import PLACE, SIZES, Entries, Files
from one_thread import INSTEAD, MODULES

from duraq import DuraqError, FileStorage, examining, mending, reader
from duraq.inspector import Inspector
from duraq.journal import frame, reading, record, refusal
from duraq.journal import repair as mend
from duraq.journal.journal import HEADER_BYTES, Header
from duraq.testing import FakeClock, MemoryFileSystem

SEPARATOR = b"\n--\n"
FIRST = f"{1:020d}"
_SUFFIX = re.compile(rb',"crc":"[^"]*"?\}?\r?\Z')
_HEAD = struct.Struct("<4sIQQII")  # of a frame, but for its checksum
_INDEX = struct.Struct("=IQIIIIIIII")  # its header


@contextmanager
def stillness() -> Iterator[None]:
    """Nothing happens at the same time, so nothing is looked at twice; and what is found is not logged."""
    with ExitStack() as stack:
        for module in MODULES:
            stack.enter_context(patch.object(module, "threading", INSTEAD))
        for module in (examining, reading, reader):
            stack.enter_context(patch.object(module, "_ATTEMPTS", 1))
        # A journal that is made anew is no larger than it was.
        stack.enter_context(patch.object(mending, "Sizes", lambda: SIZES))
        # What is out of all proportion is so sooner.
        stack.enter_context(patch.object(mend, "MOST_LOST", 1000))
        stack.enter_context(patch.object(refusal, "MOST_MISSING", 100_000))
        stack.enter_context(patch.object(logging.getLogger("duraq"), "disabled", new=True))
        yield


@cache
def empty() -> Files:
    """The files of a storage without a queue."""
    fs = MemoryFileSystem()
    with stillness():
        FileStorage(PLACE, sizes=SIZES, clock=FakeClock(), file_system=fs, allow_network=True).close()
    return {path.removeprefix(f"{PLACE.lstrip('/')}/"): content for path, content in fs.files().items()}


@cache
def lived() -> Files:
    """The files of one with everything in it, and no frame that is needed."""
    with tempfile.TemporaryDirectory() as root:
        return lived_in.make(Path(root))


def with_segment(lines: bytes) -> MemoryFileSystem:
    """A storage with one queue of one segment, all of it known to be durable."""
    body = b'{"op":"ends","position":0,"queues":{"jobs":[1,%d]}' % len(lines)
    files = {"journal/ends.jsonl": record.finished(body), f"jobs/segments/{FIRST}.jsonl": lines}
    return lived_in.disk(empty() | files)


def with_journal(older: bytes, newer: bytes) -> MemoryFileSystem:
    """A storage of which there is only the journal: the frames of its two files."""
    files = {}
    for place, frames in enumerate((older, newer)):
        epoch, position = place + 1, place * SIZES.journal
        if len(frames) >= _HEAD.size and frames.startswith(frame.MAGIC):
            _, epoch, position, *_ = _HEAD.unpack_from(frames)
        head = Header(epoch, position, SIZES.journal).encode()
        content = head.ljust(HEADER_BYTES, b"\0") + frames[: SIZES.journal].ljust(SIZES.journal, b"\0")
        files[f"journal/{epoch % 2}.journal"] = content
    return lived_in.disk(empty() | files)


# -- checksums ---------------------------------------------------------------------------------------------


def mended_line(line: bytes) -> bytes:
    """The line with the checksum that it should have."""
    line = line.rstrip(b"\n")
    body = _SUFFIX.sub(b"", line)
    return record.finished(body if len(body) < len(line) else line.removesuffix(b"}"))


def mended_lines(lines: bytes) -> bytes:
    """The same of each line; what stands behind the last one's end is left as it is."""
    *whole, rest = lines.split(b"\n")
    return b"".join(map(mended_line, whole)) + rest


def take(content: bytes) -> frame.Take:
    """The bytes as a file that is read piece by piece."""
    return lambda at, length: content[at : at + length]


def mended_frames(content: bytes, previous: int = 0) -> tuple[bytes, int]:
    """The frames with the lengths and checksums that they should have, in a chain; and the last one's crc."""
    mended, at, chain = bytearray(content), 0, previous
    while len(mended) - at >= frame.HEAD_LENGTH and mended.startswith(frame.MAGIC, at):
        magic, epoch, position, synced, before, length = _HEAD.unpack_from(mended, at)
        body = bytes(mended[at + frame.HEAD_LENGTH : at + frame.HEAD_LENGTH + length])
        head = _HEAD.pack(magic, epoch, position, synced, chain or before, len(body))
        chain = crc32(body, crc32(head))
        mended[at : at + frame.HEAD_LENGTH] = head + struct.pack("<I", chain)
        at += frame.HEAD_LENGTH + len(body)
    return bytes(mended), chain


def mended_index(content: bytes) -> bytes:
    """The index with the lengths and checksums that it should have, as far as it has the bytes."""
    if len(content) < _INDEX.size:
        return content
    magic, *counts, _, _ = _INDEX.unpack_from(content)
    body = content[_INDEX.size :]
    bits = body[: counts[-1]]
    counts.append(crc32(bits))
    crc = crc32(body, crc32(_INDEX.pack(magic, *counts, 0)))
    return _INDEX.pack(magic, *counts, crc) + body


# -- looking -----------------------------------------------------------------------------------------------


def opened(fs: MemoryFileSystem) -> Entries | str:
    """What whoever opens the storage finds in it, or how it is refused."""
    try:
        return lived_in.entries(fs.process())
    except DuraqError as error:
        return type(error).__name__


def looked_at(fs: MemoryFileSystem) -> Entries | str:
    """The same of whoever only looks."""
    try:
        with Inspector(PLACE, clock=FakeClock(), file_system=fs.process()) as inspector:
            return {
                (queue, each.id): (each.payload, each.priority, str(each.status))
                for queue in inspector.queues()
                for each in inspector.each_entry(queue)
            }
    except DuraqError as error:
        return type(error).__name__
