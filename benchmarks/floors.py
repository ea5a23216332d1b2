"""What the file system itself can do: bare loops that write the bytes DuraQ writes, and sync.

A floor is no queue. Its ``complete`` writes what one cycle of leasing and completing writes, and its
entries are counted by the bytes that are in its file.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.contender import Contender, Durability, Lost, Payload

SPACE = 4 * 1024 * 1024
PIECE = 16 * 1024


class RecordBytes(NamedTuple):
    """Bytes that DuraQ appends to a segment: for one enqueue, and for one lease and its completion."""

    enqueue: int
    cycle: int


class _Floor(Contender):
    def __init__(self, directory: Path, durability: Durability, *, size: RecordBytes) -> None:
        self._line = b"e" * (size.enqueue - 1) + b"\n"
        self._cycle = b"c" * (size.cycle - 1) + b"\n"
        self._synced = durability == "power"
        self._fd = self._open(directory / "floor")
        self._enqueued = self._completed = 0

    def enqueue(self, payload: Payload) -> None:  # noqa: ARG002 - a floor writes as many bytes, not these
        self._write(self._line)
        self._enqueued += 1

    def enqueue_many(self, payloads: Sequence[Payload]) -> None:
        self._write(self._line * len(payloads))
        self._enqueued += len(payloads)

    def lease(self) -> int | None:
        return None if self._completed == self._enqueued else self._completed

    def complete(self) -> None:
        self._write(self._cycle)
        self._completed += 1

    def remaining(self) -> int:
        written = self._enqueued * len(self._line) + self._completed * len(self._cycle)
        if self._found() != written:
            raise Lost(f"{type(self).__name__} wrote {written} bytes, its file shows {self._found()}")
        return self._enqueued - self._completed

    def close(self) -> None:
        os.close(self._fd)

    @abstractmethod
    def _open(self, path: Path) -> int: ...

    @abstractmethod
    def _write(self, data: bytes) -> None: ...

    @abstractmethod
    def _found(self) -> int:
        """Bytes written, as far as the file can tell."""


class FloorA(_Floor):
    """Append and sync. The file grows, so each sync also commits its new size."""

    def _open(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _write(self, data: bytes) -> None:
        os.write(self._fd, data)
        if self._synced:
            os.fdatasync(self._fd)

    def _found(self) -> int:
        return os.fstat(self._fd).st_size


class FloorB(_Floor):
    """Overwrite space that is allocated, written and synced already: only data goes to the disk."""

    def _open(self, path: Path) -> int:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Zeros and not posix_fallocate: overwriting an unwritten extent changes metadata. In pieces, because
        # one large write is cached in large folios, and each later pwrite and sync goes over a whole one.
        for offset in range(0, SPACE, PIECE):
            os.pwrite(fd, bytes(PIECE), offset)
        os.fsync(fd)
        self._offset = 0
        self._written = 0
        self._last = b""
        return fd

    def _write(self, data: bytes) -> None:
        if self._offset + len(data) > SPACE:
            self._offset = 0
        self._written += os.pwrite(self._fd, data, self._offset)
        if self._synced:
            os.fdatasync(self._fd)
        self._offset += len(data)
        self._last = data

    def _found(self) -> int:
        # Older rounds are overwritten; the last write must be there, in a file that did not grow.
        last = os.pread(self._fd, len(self._last), self._offset - len(self._last)) if self._last else b""
        return self._written if last == self._last and os.fstat(self._fd).st_size == SPACE else 0
