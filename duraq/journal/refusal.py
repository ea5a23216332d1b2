"""A queue that has lost durable lines is refused, by everyone and for as long as they are missing.

Recovery is the one to notice: a segment ends before the byte up to which it was durable. It leaves the
segments alone, writes ``damaged.json`` into the queue's directory for those who open the storage later, and
puts what the journal still holds for the queue into ``quarantine/``, because the journal is recycled: the
lines for byte 310 of the first segment into ``00000000000000000001.jsonl.310.lines``. Once a later recovery
finds the segments long enough again, the mark goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from zlib import crc32

import orjson

from duraq.errors import StorageDamaged
from duraq.journal.ends import End
from duraq.journal.filesystem import FileSystem, NotOurs, content, opened, write_all
from duraq.journal.frame import Part
from duraq.journal.opening import sync_once, write_durably
from duraq.journal.segment import REFUSED, file_name, path_of

MARK = "damaged.json"
QUARANTINE = "quarantine"
MOST_MISSING = 1 << 30  # bytes that are put back as zeros, in memory
# What is kept of a repair, see ``duraq.journal.repair``.
NOTE = "repair.{}.json"
_NOTE = re.compile(r"repair\..+\.json\Z")
_LINES = re.compile(r"(\d{20})\.jsonl\.(\d+)\.lines\Z")


def refuse(fs: FileSystem, home: int, error: StorageDamaged, parts: Sequence[Part]) -> None:
    """Mark the queue, durably, and keep those parts of frames for whoever repairs it."""
    if parts:
        directory = fs.open_dir(home, QUARANTINE, create=True)
        try:
            for part in parts:
                _keep(fs, directory, f"{file_name(part.segment)}.{part.offset}.lines", part.lines)
            # Their names, for the journal may be recycled next; the mark below syncs the directory's own.
            sync_once(fs, directory)
        finally:
            fs.close(directory)
    about = {"why": error.reason, "path": error.path, "byte": error.byte}
    write_durably(fs, home, MARK, orjson.dumps(about) + b"\n")


def _keep(fs: FileSystem, directory: int, name: str, lines: bytes) -> None:
    fd = fs.open_file(directory, name, create=True)
    try:
        fs.truncate(fd, 0)
        write_all(fs, fd, lines, 0)
        # They are durable in the journal only as long as that is not recycled.
        sync_once(fs, fd)
    finally:
        fs.close(fd)


def put_back(fs: FileSystem, root: int, queue: str, end: End) -> set[int]:
    """Write what was kept of the journal's frames to where it belongs, with zeros where lines are missing.

    ``end``: how far the queue went, with or without such lines. Returns the segments that are longer by it.
    To be done over a file system that keeps its changes to itself: whoever finds the segments long enough on
    the disk takes them for whole. Raises StorageDamaged if that would take too much memory.
    """
    longer = set()
    with opened(fs, root, queue, create=True) as home, opened(fs, home, "segments", create=True) as directory:
        for number, offset, lines in _kept(fs, home):
            with _segment(fs, directory, number) as fd:
                # Not if there is something else by now.
                there = fs.pread(fd, len(lines), offset)
                if there != lines and lines.startswith(there):
                    _check_hole(fs, fd, offset, path_of(queue, number))
                    write_all(fs, fd, lines, offset)
                    longer.add(number)
        if end.segment:
            with _segment(fs, directory, end.segment) as fd:
                if fs.size(fd) < end.size:
                    _check_hole(fs, fd, end.size, path_of(queue, end.segment))
                    fs.truncate(fd, end.size)
                    longer.add(end.segment)
    return longer


def _check_hole(fs: FileSystem, fd: int, end: int, path: str) -> None:
    size = fs.size(fd)
    if end - size > MOST_MISSING:
        raise StorageDamaged(
            f"{end - size} bytes are missing here, which no segment has", path=path, byte=size
        )


@contextmanager
def _segment(fs: FileSystem, directory: int, number: int) -> Iterator[int]:
    fd = fs.open_file(directory, file_name(number), create=True)
    try:
        yield fd
    finally:
        fs.close(fd)


def use_up(fs: FileSystem, home: int, stamp: str) -> None:
    """What was kept is where it belongs now; it is not to be put back again."""
    with opened(fs, home, QUARANTINE, create=True) as quarantine:
        for name in filter(_LINES.match, fs.names(quarantine)):
            fs.rename(quarantine, name, f"{name}.{stamp}")


def _kept(fs: FileSystem, home: int) -> list[tuple[int, int, bytes]]:
    """All lines that were kept, in order: for which segment, for which byte in it, and they themselves."""
    if not fs.exists(home, QUARANTINE):
        return []
    with opened(fs, home, QUARANTINE) as quarantine:
        return sorted(
            (int(found[1]), int(found[2]), content(fs, quarantine, name))
            for name in fs.names(quarantine)
            if (found := _LINES.match(name))
        )


def repairs(fs: FileSystem, home: int) -> int:
    """What is different once the queue was repaired: what was read before may lie elsewhere, or be lost."""
    with suppress(FileNotFoundError, PermissionError), opened(fs, home, QUARANTINE) as quarantine:
        notes = sorted(filter(_NOTE.match, fs.names(quarantine)))
        return crc32("".join(notes).encode()) if notes else 0
    return 0


def is_refused(fs: FileSystem, home: int) -> bool:
    """Whether the queue is marked."""
    return fs.exists(home, MARK)


def check(fs: FileSystem, home: int, queue: str) -> None:
    """Raise what the mark says, if there is one."""
    if not is_refused(fs, home):
        return
    try:
        fd = fs.open_file(home, MARK, writable=False)
        try:
            about = orjson.loads(fs.pread(fd, 65536, 0))
        finally:
            fs.close(fd)
        error = StorageDamaged(about["why"], path=about["path"], byte=about["byte"], hint=REFUSED)
    except (NotOurs, ValueError, KeyError, TypeError):
        error = StorageDamaged("the queue is marked as damaged", path=f"{queue}/{MARK}", hint=REFUSED)
    raise error


def still_refused(fs: FileSystem, home: int, queue: str) -> StorageDamaged | None:
    """What a mark says, if there is one and the queue is not whole again."""
    try:
        check(fs, home, queue)
    except StorageDamaged as error:
        return None if _is_in_place(fs, home) else error
    return None


def lift(fs: FileSystem, home: int) -> None:
    """The queue is as long as it should be; if what was kept of it is in its place, it is whole again."""
    if is_refused(fs, home) and _is_in_place(fs, home):
        # No sync: should the mark come back in a power cut, the next recovery removes it once more.
        with suppress(IsADirectoryError):  # somebody else's, which refuses the queue for good
            fs.unlink(home, MARK)


def _is_in_place(fs: FileSystem, home: int) -> bool:
    """Whether the segments have all lines that were kept; the journal may not have them any more."""
    kept = _kept(fs, home)
    if kept and not fs.exists(home, "segments"):
        return False
    for number, offset, lines in kept:
        with opened(fs, home, "segments") as directory:
            if not fs.exists(directory, file_name(number)):
                return False
            if content(fs, directory, file_name(number))[offset : offset + len(lines)] != lines:
                return False
    return True
