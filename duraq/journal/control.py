"""The control block: where the journal stands, shared by the processes that have the storage open.

It is a note between living processes and means nothing to anyone else: the first process to open a storage
writes it anew from the journal itself, so that no value in it can outlive a reboot, a copy or a power cut.
It is never synced. Read and written with pread and pwrite; a shared mapping would turn a full disk or an I/O
error into a signal.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import NamedTuple
from zlib import crc32

from duraq.journal.filesystem import FileSystem, write_all

#        epoch chain base start end waiters failed short | crc of these | synced
_BLOCK = struct.Struct("<IIQQQIHH")
_CRC = struct.Struct("<I")
_SYNCED = struct.Struct("<Q")
_END = struct.Struct("<IQ")  # the last two
_CRC_AT, _SYNCED_AT, LENGTH = 40, 44, 52
assert _BLOCK.size == _CRC_AT
# Behind the block, and not part of it: whether somebody is syncing segments.
_SYNCING_AT = 60


class Standing(NamedTuple):
    """What the control block says. An ``epoch`` of 0: being recovered, or never written."""

    epoch: int
    chain: int  # crc of the last frame
    base: int  # position of the first frame of this epoch's file
    start: int  # position of the last frame
    end: int  # position behind it
    waiters: int  # consumers that wait, at least: whether it is worth looking for them
    failed: int  # not 0: a sync failed and could not be made good
    short: int  # not 0: what is kept for a full disk was given back, so nothing may be enqueued
    synced: int  # everything before this position is durable; may lag behind the truth, never runs ahead


NOTHING = Standing(0, 0, 0, 0, 0, 0, 0, 0, 0)


class Control:
    """Reads and writes the control block through one descriptor, which is also the storage's lock."""

    def __init__(self, file_system: FileSystem, fd: int) -> None:
        self._fs = file_system
        self.fd = fd
        # The block as last seen, as bytes and decoded: most of the time nobody else has written since.
        self._block = _encode(NOTHING)
        self._standing = NOTHING

    def read(self) -> Standing:
        """What stands there now; NOTHING if it is half written. Only under the storage's lock."""
        block = self._fs.pread(self.fd, LENGTH, 0)
        if block != self._block:
            if len(block) < LENGTH or _CRC.unpack_from(block, _CRC_AT)[0] != crc32(block[:_CRC_AT]):
                return NOTHING
            self._standing = Standing._make(
                _BLOCK.unpack_from(block) + _SYNCED.unpack_from(block, _SYNCED_AT)
            )
            self._block = block
        return self._standing

    def write(self, standing: Standing) -> None:
        """Replace it. Only under the storage's lock."""
        self._block = block = _encode(standing)
        self._standing = standing
        write_all(self._fs, self.fd, block, 0)

    def publish_synced(self, position: int) -> None:
        """Tell the others, at once, what is durable; if that fails they sync for themselves.

        Without a lock: a slower process may set it back to what it knew, which costs an extra sync and
        no entry.
        """
        with suppress(OSError):
            self._fs.pwrite(self.fd, _SYNCED.pack(position), _SYNCED_AT)

    @property
    def syncing(self) -> bool:
        """Whether somebody began to sync segments, and has not come to the end of it. For one at a time."""
        return self._fs.pread(self.fd, 1, _SYNCING_AT) == b"\1"

    def note_syncing(self, *, begun: bool) -> None:
        """Note that, or that it is over."""
        # Never a new block of the disk, for the block before it is there: it works on a full one.
        write_all(self._fs, self.fd, bytes([begun]), _SYNCING_AT)


def _encode(standing: Standing) -> bytes:
    epoch, chain, base, start, end, waiters, failed, short, synced = standing
    fields = _BLOCK.pack(epoch, chain, base, start, end, waiters, failed, short)
    return fields + _END.pack(crc32(fields), synced)


def pulse(file_system: FileSystem, fd: int) -> bytes:
    """What is different after every frame that anybody has written; perhaps half of it. Needs no lock."""
    return file_system.pread(fd, _SYNCED_AT, 0)
