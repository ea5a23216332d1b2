"""FIFOs between processes of one host, opened with the care of ``RealFileSystem.open_file``."""

from __future__ import annotations

import os
import stat

from duraq.journal.filesystem import FILE_MODE, NotOurs


class Descriptor:
    """A file descriptor that is closed with the last reference to it.

    For those that one thread may be about to use when another has done with them: the number must not be
    given to another file in between.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def __del__(self) -> None:
        os.close(self._fd)


def make_fifo(directory: int, name: str) -> None:
    """Make a FIFO that nobody else may open."""
    os.mkfifo(name, FILE_MODE, dir_fd=directory)


def open_fifo(directory: int, name: str, access: int) -> int:
    """A descriptor of the FIFO ``name``, ours and without a second link; never waits, never follows a link.

    ``access`` is O_RDONLY, O_WRONLY (ENXIO if nobody reads it) or O_RDWR.
    """
    fd = os.open(name, access | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    about = os.fstat(fd)
    if not stat.S_ISFIFO(about.st_mode) or about.st_nlink > 1 or about.st_uid not in {os.geteuid(), 0}:
        os.close(fd)
        raise NotOurs(name, "it is no FIFO of ours with a single name")
    return fd


def unlink_if_there(directory: int, name: str) -> bool:
    """Remove a name; says whether it was this call that did."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True
