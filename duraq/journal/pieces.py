"""Reading files piece by piece, so that none costs more memory than what is wanted of it.

However long a file has become (a disk that went wrong, somebody's joke), no more of it is read at once than a
piece, or one line; and a line that is longer than any record is not read at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from duraq.journal.filesystem import FileSystem

# Bytes. A larger one is not read faster, and the C library keeps much of what threads have taken for it.
PIECE = 128 << 10
# No record is longer: a payload takes 16 MiB, and what it has been through a few KB for each attempt.
LONGEST_LINE = 128 << 20


class LineTooLong(ValueError):
    """A line is longer than any record; ``offset`` says where it begins."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the line is longer than any record ({LONGEST_LINE} bytes)")
        self.offset = offset


def only_line(fs: FileSystem, fd: int) -> bytes:
    """All of a file that is one line. Raises LineTooLong."""
    size = fs.size(fd)
    if size > LONGEST_LINE:
        raise LineTooLong(0)
    return fs.pread(fd, size, 0)


def pieces(fs: FileSystem, fd: int, start: int, end: int) -> Iterator[bytes]:
    """The bytes from there to there, or to the file's end."""
    while start < end and (data := fs.pread(fd, min(PIECE, end - start), start)):
        yield data
        start += len(data)


class Window:
    """A file that is read from front to back, in larger pieces than are asked for."""

    def __init__(self, fs: FileSystem, fd: int, end: int) -> None:
        self._fs, self._fd, self.end = fs, fd, end
        self._start, self._data = 0, b""

    def take(self, at: int, length: int) -> bytes:
        """So many bytes from there on; fewer at the end."""
        end = min(at + length, self.end)
        if not self._start <= at <= end <= self._start + len(self._data):
            most = min(max(PIECE, end - at), self.end - at)
            self._start, self._data = at, self._fs.pread(self._fd, max(0, most), at)
        return self._data[at - self._start : end - self._start]


def is_in(fs: FileSystem, fd: int, text: bytes) -> bool:
    """Whether the file has these bytes somewhere."""
    before = b""
    for piece in pieces(fs, fd, 0, fs.size(fd)):
        if text in before + piece:
            return True
        before = piece[-len(text) :]
    return False


def lines(fs: FileSystem, fd: int, start: int, end: int) -> Iterator[bytes]:
    """The whole lines between, a piece of them at a time; what has no end is left out. Raises LineTooLong."""
    while start < end:
        data = fs.pread(fd, min(PIECE, end - start), start)
        length = data.rfind(b"\n") + 1
        if not length:
            length = line_length(fs, fd, start, end)
            if not length:
                return
            data = fs.pread(fd, length, start)
        yield data[:length]
        start += length


def line_length(fs: FileSystem, fd: int, start: int, end: int) -> int:
    """How long the line is that begins there, newline included; 0 if it has no end. Raises LineTooLong."""
    length = 0
    for piece in pieces(fs, fd, start, min(end, start + LONGEST_LINE)):
        at = piece.find(b"\n")
        if at >= 0:
            return length + at + 1
        length += len(piece)
    if length >= LONGEST_LINE:
        raise LineTooLong(start)
    return 0


def last_line(fs: FileSystem, fd: int, start: int, end: int) -> bytes:
    """The line that ends there and begins at ``start`` or behind it. Raises LineTooLong."""
    length = 4096
    while length <= LONGEST_LINE:
        first = max(start, end - length)
        data = fs.pread(fd, end - first, first)
        before = data.rfind(b"\n", 0, -1)
        if before >= 0 or first == start:
            return data[before + 1 :]
        length *= 4
    raise LineTooLong(end)


def starts_from_the_end(fs: FileSystem, fd: int, beginning: bytes) -> Iterator[int]:
    """Where lines begin that start so, the last one first."""
    wanted, size = b"\n" + beginning, fs.size(fd)
    end = size
    while end > 0:
        start = max(0, end - PIECE)
        # With as much behind it as belongs to one that begins at its last byte.
        data = fs.pread(fd, min(end + len(beginning), size) - start, start)
        at = len(data)
        while (at := data.rfind(wanted, 0, at)) >= 0:
            yield start + at + 1
        if start == 0 and data.startswith(beginning):
            yield 0
        end = start
