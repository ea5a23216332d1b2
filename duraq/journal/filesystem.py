"""Every file call of the engine, in one place, so that a test can stand in for the disk.

The method docstrings are the contract; a stand-in lives in ``duraq.testing``. Directories are descriptors and
files are opened by one name inside one of them, never through a longer path, so that nothing planted on
the way (a symbolic link, a FIFO, somebody else's file) is ever followed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

DIRECTORY_MODE = 0o700
# 0600: whoever can open a lock file, even read-only, can hold its lock.
FILE_MODE = 0o600
_NOT_A_FILE = "it is no regular file"
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OTHERS, _OTHERS_WRITE, _SPECIAL = 0o077, 0o022, 0o7000
# What opening a link, a directory, a socket, or what is no directory fails with.
_OF_ANOTHER_KIND = {errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR}


class NotOurs(OSError):
    """What is there is not to be used: somebody else has put it there, or could have. It was left alone."""

    def __init__(self, name: str, why: str, hint: str | None = "somebody put it there; look at it") -> None:
        super().__init__(f"{name}: {why}" + (f"; {hint}" if hint else ""))
        self.name = name
        self.why = why
        self.hint = hint


class SomethingElse(NotOurs):
    """It is not even the kind of thing that was to be opened."""


class OfAnotherUser(NotOurs):
    """It belongs to another user: what is made beside it would not be theirs to use."""


class SyncFailed(OSError):
    """A sync failed that must not be tried again: the kernel has dropped what it could not write."""


class Space(NamedTuple):
    """What a file system has room for. ``total``: the bytes that we could have if it were empty.

    ``files``: how many it can hold, 0 if there is no such limit.
    """

    total: int
    free: int
    files: int
    free_files: int


# Of a file or directory: (device, inode, length, when it was changed). A plain tuple, for there are many.
Mark = tuple[int, int, int, int]


class FileSystem(Protocol):
    """What the engine may do to a disk. Descriptors are small integers; every call may raise OSError."""

    def open_root(self, path: str, *, create: bool = False) -> int:
        """A descriptor of the directory at ``path``; made first if asked, durably, and its parents too.

        Raises NotOurs as ``open_dir`` does.
        """

    def open_dir(self, parent: int, name: str, *, create: bool = False) -> int:
        """A descriptor of the directory ``name`` in ``parent``; never follows a symbolic link.

        Raises NotOurs if it is none, or if anybody but us and root may write to it.
        """

    def open_file(
        self,
        directory: int,
        name: str,
        *,
        create: bool = False,
        exclusive: bool = False,
        writable: bool = True,
    ) -> int:
        """A descriptor of the regular file ``name``; never follows a link, never waits.

        ``create`` makes it if it is missing, ``exclusive`` insists on making it. Raises NotOurs if it is no
        regular file, or one of another user, or one that has a second name.
        """

    def close(self, fd: int) -> None:
        """Give up a descriptor, and with it any lock held through it. Does not fail."""

    def pread(self, fd: int, length: int, offset: int, /) -> bytes:
        """Up to ``length`` bytes at ``offset``; fewer only at the end of the file."""

    def pwrite(self, fd: int, data: bytes, offset: int, /) -> int:
        """Write at ``offset``; returns how many bytes were written, which a full disk makes fewer."""

    def start_writing(self, fd: int, offset: int, length: int, /) -> None:
        """Begin to write those bytes to the disk, without waiting.

        A hint: nothing is durable by it, and it does not fail.
        """

    def truncate(self, fd: int, length: int, /) -> None:
        """Cut (or extend with zeros) to ``length``."""

    def datasync(self, fd: int, /) -> None:
        """Return once the file's bytes, and the size needed to read them, are on the disk."""

    def sync(self, fd: int, /) -> None:
        """The same for a file with its metadata, or for the names in a directory."""

    def size(self, fd: int) -> int:
        """Length of the file in bytes."""

    def identity(self, fd: int) -> tuple[int, int]:
        """What tells this file from every other: (device, inode)."""

    def has_name(self, fd: int) -> bool:
        """Whether the file is still in a directory: one that was removed can be used, but not be found."""

    def mark(self, directory: int, path: str) -> Mark | None:
        """What is different once the file or directory at ``path`` was changed; None if there is none.

        A hint, and the one call that goes through a path: what it leads to is not checked.
        """

    def space(self, fd: int) -> Space:
        """What is left of the file system that the file or directory is on."""

    def names(self, directory: int) -> list[str]:
        """Names in the directory, sorted."""

    def file_names(self, directory: int) -> list[str]:
        """Those of regular files."""

    def exists(self, directory: int, name: str) -> bool:
        """Whether the name exists, whatever it is."""

    def rename(self, directory: int, old: str, new: str) -> None:
        """Replace ``new`` by ``old`` in the same directory, atomically; durable after sync(directory)."""

    def unlink(self, directory: int, name: str) -> None:
        """Remove the file's name; durable after sync(directory)."""

    def rmdir(self, directory: int, name: str) -> None:
        """Remove the directory of that name, which is empty; durable after sync(directory)."""

    def lock(self, fd: int, /) -> None:
        """Hold the file's exclusive lock; waits for it."""

    def unlock(self, fd: int, /) -> None:
        """Give up the lock held through this descriptor, which is open. Does not fail."""

    def try_lock(self, fd: int) -> bool:
        """Hold the exclusive lock if nobody else holds any; says whether it does."""

    def share_lock(self, fd: int) -> None:
        """Hold the shared lock, waiting for an exclusive holder; trades an exclusive lock held for it."""


def write_all(file_system: FileSystem, fd: int, data: bytes, offset: int) -> None:
    """Write all of it, or raise OSError; then any part of it may be there."""
    written = file_system.pwrite(fd, data, offset)
    while written < len(data):
        # A short write does not say why it is one; the next one does, or goes on.
        more = file_system.pwrite(fd, data[written:], offset + written)
        if not more:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += more


class RealFileSystem:
    """The machine's own file system, by system calls."""

    def __init__(self) -> None:
        # Bound to the instance as they are: these are on the path of every operation.
        self.pread: Callable[[int, int, int], bytes] = os.pread
        self.pwrite: Callable[[int, bytes, int], int] = os.pwrite
        self.truncate: Callable[[int, int], None] = os.ftruncate
        self.datasync: Callable[[int], None] = os.fdatasync
        self.sync: Callable[[int], None] = os.fsync
        flock, exclusive, nothing = fcntl.flock, fcntl.LOCK_EX, fcntl.LOCK_UN
        self.lock: Callable[[int], None] = lambda fd: flock(fd, exclusive)
        self.unlock: Callable[[int], None] = lambda fd: flock(fd, nothing)

    def close(self, fd: int) -> None:
        try:
            os.close(fd)
        except OSError as error:
            # It is closed whatever else is wrong, and nothing that anybody was promised depends on it.
            if error.errno == errno.EBADF:
                raise

    def try_lock(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share_lock(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_SH)

    def open_root(self, path: str, *, create: bool = False) -> int:
        directory = Path(path)
        # An empty one too: whoever made it may have died before its name was synced.
        is_new = create and not (directory.is_dir() and any(directory.iterdir()))
        if is_new:
            _make_directory(directory)
        fd = os.open(path, _OPEN_DIRECTORY)
        try:
            about = os.fstat(fd)
            mode = stat.S_IMODE(about.st_mode)
            if is_new and about.st_uid == os.geteuid() and mode & (_SPECIAL | _OTHERS_WRITE) == stat.S_IWGRP:
                # Where the umask is 002, that is how a directory is made for this. /tmp is another matter.
                os.fchmod(fd, mode & ~stat.S_IWGRP)
        except BaseException:
            os.close(fd)
            raise
        return self._trusted(fd, "the directory itself")

    def open_dir(self, parent: int, name: str, *, create: bool = False) -> int:
        if create:
            with suppress(FileExistsError):
                os.mkdir(name, DIRECTORY_MODE, dir_fd=parent)
        return self._trusted(_opened(name, _OPEN_DIRECTORY | os.O_NOFOLLOW, parent), name)

    def open_file(
        self,
        directory: int,
        name: str,
        *,
        create: bool = False,
        exclusive: bool = False,
        writable: bool = True,
    ) -> int:
        # O_NONBLOCK: opening a FIFO that somebody planted under this name must not hang.
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        if exclusive:
            flags |= os.O_CREAT | os.O_EXCL
        elif create:
            flags |= os.O_CREAT
        return self._trusted(_opened(name, flags, directory), name, is_file=True, make_private=create)

    def _trusted(self, fd: int, name: str, *, is_file: bool = False, make_private: bool = False) -> int:
        """The descriptor itself, of what was opened by that name; else closes it and raises NotOurs."""
        try:
            self._check(fd, name, is_file=is_file, make_private=make_private)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check(self, fd: int, name: str, *, is_file: bool, make_private: bool) -> None:
        about = os.fstat(fd)
        if is_file and not stat.S_ISREG(about.st_mode):
            raise SomethingElse(name, _NOT_A_FILE)
        refused = self._distrust(name, about)
        if refused is not None:
            raise refused
        if make_private and about.st_mode & _OTHERS and about.st_uid == os.geteuid():
            # From a backup, say: whoever can open a lock file can hold its lock.
            os.fchmod(fd, FILE_MODE)

    @staticmethod
    def _distrust(name: str, about: os.stat_result) -> NotOurs | None:
        """Why a file or directory is not to be used, if it is not: who else could have a hand in it."""
        mode = stat.S_IMODE(about.st_mode)
        if about.st_uid not in {os.geteuid(), 0}:
            why = f"it belongs to user {about.st_uid}, and this is user {os.geteuid()}"
            return OfAnotherUser(name, why, f"run it as that user: sudo -u '#{about.st_uid}' duraq ...")
        if stat.S_ISDIR(about.st_mode):
            why = f"others may write to it (mode {mode:o})"
            return NotOurs(name, why, "chmod -R go-w") if mode & _OTHERS_WRITE else None
        return NotOurs(name, "it has a second name elsewhere") if about.st_nlink > 1 else None

    def start_writing(self, fd: int, offset: int, length: int) -> None:
        # Dirty pages of the range are sent off at once; what is clean may leave the cache, and is not needed.
        with suppress(OSError):
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def identity(self, fd: int) -> tuple[int, int]:
        about = os.fstat(fd)
        return about.st_dev, about.st_ino

    def has_name(self, fd: int) -> bool:
        return os.fstat(fd).st_nlink > 0

    def mark(self, directory: int, path: str) -> Mark | None:
        try:
            about = os.stat(path, dir_fd=directory, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns

    def space(self, fd: int) -> Space:
        about = os.fstatvfs(fd)
        # As df counts: what is kept for root is neither free nor used.
        blocks = about.f_blocks - about.f_bfree + about.f_bavail
        size = about.f_frsize
        return Space(blocks * size, about.f_bavail * size, about.f_files, about.f_favail)

    def names(self, directory: int) -> list[str]:
        with _listed(directory) as entries:
            return sorted(entry.name for entry in entries)

    def file_names(self, directory: int) -> list[str]:
        with _listed(directory) as entries:
            return sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))

    def exists(self, directory: int, name: str) -> bool:
        try:
            os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def rename(self, directory: int, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)

    def unlink(self, directory: int, name: str) -> None:
        os.unlink(name, dir_fd=directory)

    def rmdir(self, directory: int, name: str) -> None:
        os.rmdir(name, dir_fd=directory)


def _opened(name: str, flags: int, directory: int) -> int:
    try:
        return os.open(name, flags, FILE_MODE, dir_fd=directory)
    except OSError as error:
        if error.errno not in _OF_ANOTHER_KIND:
            raise
        raise SomethingElse(name, "it is no directory" if flags & os.O_DIRECTORY else _NOT_A_FILE) from error


@contextmanager
def opened(fs: FileSystem, parent: int, name: str, *, create: bool = False) -> Iterator[int]:
    """A directory's descriptor, for as long as the block goes on."""
    fd = fs.open_dir(parent, name, create=create)
    try:
        yield fd
    finally:
        fs.close(fd)


def content(fs: FileSystem, directory: int, name: str) -> bytes:
    """All that a file holds."""
    fd = fs.open_file(directory, name, writable=False)
    try:
        return fs.pread(fd, fs.size(fd), 0)
    finally:
        fs.close(fd)


@contextmanager
def _listed(directory: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    # Reopened: the position in a directory belongs to the open file description, so two threads that list
    # through one descriptor would each miss what the other has read.
    own = os.open(".", _OPEN_DIRECTORY, dir_fd=directory)
    try:
        with os.scandir(own) as entries:
            yield entries
    finally:
        os.close(own)


def _make_directory(path: Path) -> None:
    """Make a directory, and its parents, so that a power cut does not take the names away."""
    if not path.parent.is_dir():
        _make_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir(DIRECTORY_MODE)
    # A parent that we may enter but not read cannot be opened, so not synced; only its owner can do that.
    with suppress(PermissionError):
        parent = os.open(path.parent, _OPEN_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
