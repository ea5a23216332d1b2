"""Trying out what a storage stands on, beside those who work: the disk, the lock, the marks of what failed.

Whoever probes has not opened the storage, and never waits for anybody longer than it was told to.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple, Self

from duraq.errors import StorageDamaged
from duraq.journal import journal, opening, poison, reading, refusal
from duraq.journal.control import NOTHING, Control, Standing
from duraq.journal.filesystem import FileSystem, RealFileSystem, Space, write_all
from duraq.journal.reading import ReaderFileSystem
from duraq.journal.recovery import newest_epoch

SCRATCH = "scratch-"
_LENGTH = 64 * 1024
_PAUSE = 0.002  # seconds between two tries for the lock


class Wait(NamedTuple):
    """How the storage's lock was waited for.

    ``seconds``: how long, until it was there or no longer waited for. ``got``: whether it was there.
    ``others``: whether somebody wrote meanwhile, so that it is busy and not stuck.
    """

    seconds: float
    got: bool
    others: bool


class Probe:
    """A storage's directory, to be tried out. Raises NotAStorage and UnsupportedVersion, as opening does."""

    def __init__(self, path: str, file_system: FileSystem | None = None) -> None:
        # As a reader, so that root may look at what belongs to somebody else.
        self._fs = fs = file_system or ReaderFileSystem()
        self._writer = file_system or RealFileSystem()
        with ExitStack() as opened:
            self._root = fs.open_root(path)
            opened.callback(fs.close, self._root)
            opening.make_or_check(fs, self._root, path, 0, create=False)
            self._journal = fs.open_dir(self._root, "journal")
            opened.callback(fs.close, self._journal)
            # Missing until somebody opens the storage for the first time.
            self._lock: int | None = None
            if fs.exists(self._journal, "lock"):
                self._lock = fs.open_file(self._journal, "lock", writable=False)
                opened.callback(fs.close, self._lock)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def write(self) -> None:
        """Write a file beside the journal, sync it and read it back. Raises what the system refuses.

        It is removed again; and so is any that a killed process has left.
        """
        self._remove_left()
        fs, name = self._writer, SCRATCH + secrets.token_hex(8)
        fd = fs.open_file(self._journal, name, exclusive=True)
        try:
            content = secrets.token_bytes(_LENGTH)
            write_all(fs, fd, content, 0)
            fs.datasync(fd)
            # What is synced may leave the cache: it is to be read from the disk.
            fs.start_writing(fd, 0, _LENGTH)
            if fs.pread(fd, _LENGTH, 0) != content:
                raise StorageDamaged("what was written is not what is read back", path=f"journal/{name}")
        finally:
            fs.close(fd)
            self._remove(name)

    def _remove_left(self) -> None:
        # Also that of another probe that is still at it: it has its descriptor, and has no use for the name.
        for name in self._fs.names(self._journal):
            if name.startswith(SCRATCH):
                # One that is no file of ours is in nobody's way.
                with suppress(IsADirectoryError, PermissionError):
                    self._remove(name)

    def _remove(self, name: str) -> None:
        # No sync: should a power cut bring the name back, the next probe removes it.
        with suppress(FileNotFoundError):
            self._writer.unlink(self._journal, name)

    def wait_for_lock(self, seconds: float) -> Wait:
        """Hold the storage's lock for a moment; wait for it no longer than that."""
        if self._lock is None:
            return Wait(0.0, got=True, others=False)
        before = self._standing()
        begin = now = time.monotonic()
        # Not by a call that waits: if the holder is stopped, nothing brings it back.
        while not (got := self._fs.try_lock(self._lock)) and now - begin < seconds:
            time.sleep(_PAUSE)
            now = time.monotonic()
        if got:
            self._fs.unlock(self._lock)
        return Wait(now - begin, got, self._standing() != before)

    def holder(self) -> tuple[int, str] | None:
        """Which process has the storage's lock, and its state as ps names it (T: stopped); None: unknown."""
        return None if self._lock is None else _holder(*self._fs.identity(self._lock))

    def space(self) -> Space:
        """How much there is left of the file system that the journal is on."""
        return self._fs.space(self._journal)

    def has_failed(self) -> bool:
        """Whether a sync failed and could not be made good, so that nothing is accepted."""
        return bool(self._standing().failed)

    def poisoned(self) -> bool:
        """Whether the sync of a file failed that the journal still consists of."""
        current = self._standing().epoch or self._newest_epoch()
        marked = poison.poisoned(self._fs, self._journal, current)
        # An older one has been prepared anew since.
        return bool(marked) and marked > current - 2

    def _standing(self) -> Standing:
        # Without the lock it may be read half written, and then says nothing.
        return NOTHING if self._lock is None else Control(self._fs, self._lock).read()

    def _newest_epoch(self) -> int:
        with ExitStack() as opened:
            files = []
            for epoch in (0, 1):
                files.append(self._fs.open_file(self._journal, journal.file_name(epoch), writable=False))
                opened.callback(self._fs.close, files[-1])
            return newest_epoch(self._fs, tuple(files))

    def refused(self) -> list[str]:
        """The queues that are refused, because they have lost durable lines."""
        found = []
        for name in reading.queue_names(self._fs, self._root):
            # One that we may not look into is not ours to judge; one that is just being removed, nobody's.
            with suppress(OSError):
                home = self._fs.open_dir(self._root, name)
                try:
                    if refusal.is_refused(self._fs, home):
                        found.append(name)
                finally:
                    self._fs.close(home)
        return found


def _holder(device: int, inode: int) -> tuple[int, str] | None:
    """From lines such as ``7: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF``."""
    place = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[-3] == place:
                pid = int(fields[-4])
                state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1]
                return pid, state.decode()
    return None
