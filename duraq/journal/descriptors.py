"""Descriptors that are given up together, and the locks that are held through them."""

from __future__ import annotations

from duraq.journal.filesystem import FileSystem


class Descriptors:
    """Closed the last first.

    Without memory not even a call can be made: then, and until they are settled, they are closed when nobody
    refers to this any more. A lock that stays behind holds up everybody else.
    """

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._open: list[int] = []
        self._is_settled = False

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
                self._is_settled = False
                self._open.append(fd)
                raise

    def settle(self) -> None:
        """From here on only ``close`` closes them."""
        self._is_settled = True

    def leave(self) -> None:
        """Leave them open, for as long as the process lives."""
        self._open.clear()

    def __del__(self) -> None:
        if not self._is_settled:
            self.close()
