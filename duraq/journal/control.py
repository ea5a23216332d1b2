"""The control block: where the journal stands, shared by the processes that have the storage open.

It is a note between living processes and means nothing to anyone else: the first process to open a storage
writes it anew from the journal itself, so that no value in it can outlive a reboot, a copy or a power cut.
It is never synced. Read and written with pread and pwrite; a shared mapping would turn a full disk or an I/O
error into a signal.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from duraq.journal.filesystem import FileSystem

#        epoch chain base start end waiters failed | synced
_BLOCK = struct.Struct("<IIQQQII")
_SYNCED = struct.Struct("<Q")
_LENGTH = _BLOCK.size + _SYNCED.size
assert _LENGTH == 48


class Standing(NamedTuple):
    """What the control block says. An ``epoch`` of 0: being recovered, or never written."""

    epoch: int
    chain: int  # crc of the last frame
    base: int  # position of the first frame of this epoch's file
    start: int  # position of the last frame
    end: int  # position behind it
    waiters: int  # consumers that wait, at least: whether it is worth looking for them
    failed: int  # not 0: a sync failed and could not be made good
    synced: int  # everything before this position is durable; may lag behind the truth, never runs ahead


class Control:
    """Reads and writes the control block through one descriptor, which is also the storage's lock."""

    def __init__(self, file_system: FileSystem, fd: int) -> None:
        self._fs = file_system
        self.fd = fd

    def read(self) -> Standing:
        """What stands there now. Exact under the storage's lock; a hint without it."""
        block = self._fs.pread(self.fd, _LENGTH, 0)
        if len(block) < _LENGTH:
            return Standing(0, 0, 0, 0, 0, 0, 0, 0)
        return Standing._make(_BLOCK.unpack_from(block) + _SYNCED.unpack_from(block, _BLOCK.size))

    def write(self, standing: Standing) -> None:
        """Write all but ``synced``. Only under the storage's lock."""
        self._fs.pwrite(self.fd, _BLOCK.pack(*standing[:-1]), 0)

    def publish_synced(self, position: int) -> None:
        """Tell the others what is durable.

        Without a lock: a slower process may set it back to what it knew, which costs an extra sync and
        no entry.
        """
        self._fs.pwrite(self.fd, _SYNCED.pack(position), _BLOCK.size)
