"""Descriptors that are given up together, and the locks that are held through them."""

from __future__ import annotations

import errno

from duraq.journal.filesystem import FileSystem


class Descriptors:
    """Closed the last first.

    Without memory not even a call can be made: then, and until they are settled (``is_settled``), they are
    closed when nobody refers to this any more. A lock that stays behind holds up everybody else.
    """

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._open: list[int] = []
        self.is_settled = False
        self._in_doubt = -1  # one that there was no memory for: before it was closed, or just after

    def keep(self, fd: int) -> int:
        """It belongs to them from here on."""
        self._open.append(fd)
        return fd

    def close(self) -> None:
        """Close them all. Idempotent; if it raises, it goes on where it was when it is called again."""
        while self._open:
            # First, for after an interrupt its number may be another file's. Without memory it is not closed.
            fd = self._open.pop()
            try:
                self._fs.close(fd)
            except MemoryError:
                self.is_settled = False
                self._open.append(fd)
                self._in_doubt = fd
                raise
            except OSError as error:
                if fd != self._in_doubt or error.errno != errno.EBADF:
                    raise

    def leave(self) -> None:
        """Leave them open, for as long as the process lives."""
        self._open.clear()

    def __del__(self) -> None:
        if not self.is_settled:
            self.close()


class Guard:
    """Closes them as well, if they are not settled when nobody refers to it any more.

    For a variable of whoever opens something: what he has opened so far is full of references in a circle,
    and would only be found by the collector of garbage, some day.
    """

    def __init__(self, opened: Descriptors) -> None:
        self._opened = opened

    def __del__(self) -> None:
        if not self._opened.is_settled:
            self._opened.close()
