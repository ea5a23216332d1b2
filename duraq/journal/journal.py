"""The write-ahead journal of a storage: two preallocated files, overwritten in turn.

Appending to a file and syncing it commits a new file size each time; overwriting space that is already
there does not, and costs half the flushes. So this is where durability comes from, while the segments
are written beside it without a sync.

    0.journal, 1.journal    header (one block of 4096 bytes), then frames
    header   magic  format  epoch  base  capacity  crc     the file of epoch E is number E % 2

``base`` is the position of the file's first frame; the next epoch's base is base + capacity, so positions
rise for ever. The other file is prepared ahead: what its old frames wanted is synced in the segments, then
its header for the next epoch is written and synced. Only then may anyone go over to it.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from duraq.errors import StorageDamaged, UnsupportedVersion
from duraq.journal import frame
from duraq.journal.control import NOTHING, Control, Standing
from duraq.journal.filesystem import FileSystem, SyncFailed, write_all
from duraq.journal.frame import Frame, Share
from duraq.journal.pieces import Window, is_in, pieces
from duraq.model import PROVISIONAL

FORMAT = 1
HEADER_BYTES = 4096
_MAGIC = b"DURAQjnl"
_HEADER = struct.Struct("<8sIIQQ")
_CRC = struct.Struct("<I")
# Filled in small pieces: a page cache that was filled in large ones keeps them together, and then takes
# longer over each small write into them (measured: 0.5 against 1.1 million writes a second).
_ZEROS = bytes(16 << 10)


class Header(NamedTuple):
    """What a journal file says of itself."""

    epoch: int
    base: int
    capacity: int

    def encode(self) -> bytes:
        body = _HEADER.pack(_MAGIC, FORMAT, self.epoch, self.base, self.capacity)
        return body + _CRC.pack(crc32(body))

    @classmethod
    def decode(cls, block: bytes) -> Header | None:
        """The header, or None if it is torn or damaged. Raises UnsupportedVersion for a newer one."""
        if len(block) < _HEADER.size + _CRC.size:
            return None
        magic, version, epoch, base, capacity = _HEADER.unpack_from(block)
        (crc,) = _CRC.unpack_from(block, _HEADER.size)
        if magic != _MAGIC or crc != crc32(block[: _HEADER.size]):
            return None
        if version > FORMAT:
            raise UnsupportedVersion(f"the journal has format {version}; this version knows up to {FORMAT}")
        if epoch > frame.LAST_EPOCH or base + capacity >= PROVISIONAL:
            return None  # nobody has come so far
        return cls(epoch, base, capacity)


class NeedsRoom(Exception):
    """The frame does not fit; prepare the other file for this many bytes, without the lock, and retry."""

    def __init__(self, length: int) -> None:
        super().__init__(f"{length} bytes do not fit")
        self.length = length


class CannotUndo(OSError):
    """A frame was written that counts for nobody, and could not be wiped out again."""


def file_name(epoch: int) -> str:
    """The journal file of an epoch."""
    return f"{epoch % 2}.journal"


def create(file_system: FileSystem, directory: int, capacity: int) -> None:
    """Make the pair: epoch 1 to begin with, epoch 2 prepared. Durable on return, names included."""
    for header in (Header(1, 0, capacity), Header(2, capacity, capacity)):
        fd = file_system.open_file(directory, file_name(header.epoch), create=True)
        try:
            file_system.truncate(fd, 0)
            fill(file_system, fd, HEADER_BYTES + capacity)
            write_all(file_system, fd, header.encode(), 0)
            # The space itself is made durable here once, so that no later datasync commits a block map.
            file_system.sync(fd)
        finally:
            file_system.close(fd)
    # Without this the names, and so the whole journal, could be gone after a power cut.
    file_system.sync(directory)


def fill(file_system: FileSystem, fd: int, length: int) -> None:
    """Extend the file to ``length`` with written zeros (a hole would be allocated, and committed, later)."""
    for at in range(file_system.size(fd), length, len(_ZEROS)):
        write_all(file_system, fd, _ZEROS[: length - at], at)


class Journal:
    """The pair as one process sees it. The caller holds the storage's lock where a method says so."""

    def __init__(self, file_system: FileSystem, files: tuple[int, int], control: Control) -> None:
        self._fs = file_system
        self.files = files
        self.control = control
        self.standing = NOTHING
        self.capacity = 0

    # -- under the storage's lock ----------------------------------------------------------------------

    def adopt(self, standing: Standing) -> None:
        """Go on from where others, a recovery or our own last frame have brought the journal."""
        if standing.epoch != self.standing.epoch:
            self.capacity = self.header(standing.epoch).capacity
        self.standing = standing

    def append(self, parts: Sequence[Share], synced: int, *, start_writing: bool = False) -> Standing:
        """Write one frame and make it the last one; ``adopt`` follows once its lines are in place.

        Raises NeedsRoom before anything is written.
        """
        now = self.standing
        data, crc = frame.encode(now.epoch, now.end, synced, now.chain, parts)
        if now.end - now.base + len(data) > self.capacity:
            now = self._ahead(len(data))
            # Everybody goes over before there is a frame: else one whose writer dies here would be left over
            # in the next file, while others go on in this one.
            self.control.write(now)
            self.adopt(now)
            data, crc = frame.encode(now.epoch, now.end, synced, now.chain, parts)
        fd, at, length = self.files[now.epoch & 1], HEADER_BYTES + now.end - now.base, len(data)
        # Not synced here: the caller does that after giving up the lock, together with others.
        if self._fs.pwrite(fd, data, at) != length:
            # Where overwriting takes new space. What lies behind this piece may be the rest of the frame.
            self._take_away(now)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if start_writing:
            # The disk works on the frame while we go on; the sync that comes then has less left to wait for.
            self._fs.start_writing(fd, at, length)
        end, waiters, failed, short = now.end + length, now.waiters, now.failed, now.short
        after = Standing(now.epoch, crc, now.base, now.end, end, waiters, failed, short, synced)
        # From here on the frame counts: whoever gets the lock next brings it to the segments if we die.
        try:
            self.control.write(after)
        except OSError:
            self._take_away(now)
            raise
        return after

    def _take_away(self, now: Standing) -> None:
        """Undo what was written behind this standing, and counts for nobody. Raises CannotUndo."""
        try:
            self._wipe(now.end, now)
        except OSError as error:
            raise CannotUndo(*error.args) from error

    def _wipe(self, position: int, standing: Standing) -> None:
        """Make sure, durably, that there is no frame at this position."""
        fd = self.files[standing.epoch & 1]
        write_all(self._fs, fd, bytes(frame.HEAD_LENGTH), HEADER_BYTES + position - standing.base)
        # The frame may be on the disk already (others sync too); the caller is about to say it is not.
        self._fs.datasync(fd)

    def take_back(self, now: Standing) -> None:
        """Undo the append that led to ``now``, durably: no later recovery finds the frame."""
        # Should we die in between: whoever is next takes the journal's word, not the block's.
        self.control.write(NOTHING)
        self._wipe(now.start, now)
        self.control.write(self.standing)

    def _ahead(self, length: int) -> Standing:
        """Where the other file begins, if it is prepared for a frame of this length; else NeedsRoom."""
        now = self.standing
        ahead = self.try_header(now.epoch + 1)
        if ahead is None or ahead.capacity < length:
            raise NeedsRoom(length)
        return now._replace(
            epoch=ahead.epoch, chain=_chain(now), base=ahead.base, start=ahead.base, end=ahead.base
        )

    def go_over_now(self) -> None:
        """Leave the current file for good; the other one must be prepared."""
        now = self._ahead(0)
        now = now._replace(synced=now.base)
        self.control.write(now)
        self.adopt(now)

    def clear(self, epoch: int) -> None:
        """Wipe the frames of an epoch that the journal does not go on from, durably.

        A power cut can keep the first frame of a file and lose the end of the one before it. Recovery goes on
        in that one, and what it writes there must never be followed by the frame that was left over.
        """
        fd = self.files[epoch & 1]
        window = _window(self._fs, fd, self.header(epoch))
        if frame.any_of(window.take, HEADER_BYTES, epoch):
            for at in range(HEADER_BYTES, window.end, len(_ZEROS)):
                write_all(self._fs, fd, _ZEROS[: window.end - at], at)
            self._fs.datasync(fd)

    # -- with or without it ----------------------------------------------------------------------------

    def header(self, epoch: int) -> Header:
        """The header of that epoch's file. Raises StorageDamaged if it is not there."""
        found = self.try_header(epoch)
        if found is None:
            raise StorageDamaged(
                f"the header is not that of epoch {epoch}", path=f"journal/{file_name(epoch)}", byte=0
            )
        return found

    def try_header(self, epoch: int) -> Header | None:
        """The header of that epoch's file, or None while the file still belongs to another epoch."""
        found = Header.decode(self._fs.pread(self.files[epoch & 1], HEADER_BYTES, 0))
        return found if found is not None and found.epoch == epoch else None

    def last_frame(self, now: Standing) -> Frame:
        """The frame that this standing names as the last."""
        data = self._fs.pread(
            self.files[now.epoch & 1], now.end - now.start, HEADER_BYTES + now.start - now.base
        )
        found = frame.decode(data)
        if found is None or found.position != now.start:
            raise StorageDamaged(
                "the last frame is not what was written there",
                path=f"journal/{file_name(now.epoch)}",
                byte=HEADER_BYTES + now.start - now.base,
            )
        return found

    def touched(self, epoch: int) -> dict[tuple[str, int], int]:
        """Where the frames in that epoch's file left each (queue, segment).

        Only heads are read, not checked: all but the last few frames are long durable.
        """
        header = self.header(epoch)
        take = _window(self._fs, self.files[epoch & 1], header).take
        return frame.touched(take, HEADER_BYTES, epoch, header.base, self._last(epoch))

    def may_mention(self, queue: str) -> bool:
        """Whether there may be a frame that wrote to the queue; much cheaper than ``touched``."""
        name = queue.encode()
        return any(is_in(self._fs, fd, name) for fd in self.files)

    def _last(self, epoch: int) -> int:
        """The crc of the last frame of that epoch that counts, 0 if there is none."""
        now = self.standing
        if epoch == now.epoch:
            return _chain(now)
        if now.base == now.end:
            return now.chain
        return frame.previous(self._fs.pread(self.files[now.epoch & 1], frame.HEAD_LENGTH, HEADER_BYTES))

    def frames_of(self, epoch: int) -> list[Frame]:
        """The frames in that epoch's file that count, in order."""
        frames, _ = scan(self._fs, self.files[epoch & 1], self.header(epoch))
        crcs = [found.crc for found in frames]
        last = self._last(epoch)
        return frames[: crcs.index(last) + 1] if last in crcs else []

    def write_again(self, since: int) -> None:
        """Write over themselves what frames there are from that position on, for the next sync to write.

        Under the lock. The headers too that no sync has been seen to reach.
        """
        now = self.standing
        for epoch, end in ((now.epoch - 1, now.base), (now.epoch, now.end), (now.epoch + 1, 0)):
            header, fd = self.try_header(epoch), self.files[epoch & 1]
            if header is None:
                continue
            # That of the file before may be on its way to be the next one's, without the lock.
            if since <= header.base and epoch >= now.epoch:
                write_all(self._fs, fd, self._fs.pread(fd, HEADER_BYTES, 0), 0)
            first, behind = (HEADER_BYTES + each - header.base for each in (max(since, header.base), end))
            at = first
            for piece in pieces(self._fs, fd, first, behind):
                write_all(self._fs, fd, piece, at)
                at += len(piece)

    def datasync(self, standing: Standing, synced: int) -> None:
        """Make every frame before ``standing.end`` durable, given that those before ``synced`` are."""
        if synced < standing.base:
            # The end of the file before: without it a durable frame here would stand behind a hole.
            self._fs.datasync(self.files[(standing.epoch - 1) & 1])
        self._fs.datasync(self.files[standing.epoch & 1])

    def prepare(self, standing: Standing, capacity: int) -> None:
        """Give the other file the next epoch. What its frames wanted must be durable in the segments."""
        fd = self.files[(standing.epoch + 1) & 1]
        fill(self._fs, fd, HEADER_BYTES + capacity)
        base = standing.base + self.header(standing.epoch).capacity
        write_all(self._fs, fd, Header(standing.epoch + 1, base, capacity).encode(), 0)
        # Durable before the first frame, so that a bad header in front of good frames is always damage.
        try:
            self._fs.sync(fd)
        except OSError as error:
            raise SyncFailed(*error.args) from error


def _chain(now: Standing) -> int:
    # From a file without a frame the chain begins anew: recovery could not know what it was.
    return now.chain if now.start < now.end else 0


def _window(file_system: FileSystem, fd: int, header: Header) -> Window:
    """A journal file, as far as its header says, and as there is something."""
    return Window(file_system, fd, min(HEADER_BYTES + header.capacity, file_system.size(fd)))


def scan(file_system: FileSystem, fd: int, header: Header) -> tuple[list[Frame], Window]:
    """The whole frames of a journal file in order, and the file, to look at what is behind them."""
    window = _window(file_system, fd, header)
    frames: list[Frame] = []
    position, chain = header.base, None
    while True:
        found = frame.decode_at(window.take, HEADER_BYTES + position - header.base)
        if found is None or found.epoch != header.epoch or found.position != position:
            return frames, window
        if chain is not None and found.previous != chain:
            return frames, window
        frames.append(found)
        position, chain = found.end, found.crc
