"""A queue that has lost durable lines is refused, by everyone and for as long as they are missing.

Recovery is the one to notice: a segment ends before the byte up to which it was durable. It leaves the
segments alone, writes ``damaged.json`` into the queue's directory for those who open the storage later, and
puts what the journal still holds for the queue into ``quarantine/``, because the journal is recycled: the
lines for byte 310 of the first segment into ``00000000000000000001.jsonl.310.lines``. Once a later recovery
finds the segments long enough again, the mark goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import orjson

from duraq.errors import NotAStorage, StorageDamaged
from duraq.journal.filesystem import FileSystem, write_all
from duraq.journal.frame import Part
from duraq.journal.opening import sync_once, write_durably
from duraq.journal.segment import REFUSED, file_name

MARK = "damaged.json"
QUARANTINE = "quarantine"


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
    except (NotAStorage, ValueError, KeyError, TypeError):
        error = StorageDamaged("the queue is marked as damaged", path=f"{queue}/{MARK}", hint=REFUSED)
    raise error


def lift(fs: FileSystem, home: int) -> None:
    """The queue is whole again."""
    if is_refused(fs, home):
        # No sync: should the mark come back in a power cut, the next recovery removes it once more.
        with suppress(IsADirectoryError):  # somebody else's, which refuses the queue for good
            fs.unlink(home, MARK)
