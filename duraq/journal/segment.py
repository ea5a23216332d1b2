"""A queue's segments as files: their names, their descriptors, and where something lies in them.

    emails/segments/00000000000000000001.jsonl     sealed: its last record is a seal, which names the next
                    00000000000000003042.jsonl     active: the next record goes to its end

A segment is named after its first sequence number. ``duraq.journal.segments`` reads them,
``duraq.journal.tail`` appends to the last one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from duraq.errors import StorageDamaged
from duraq.journal import pieces, record
from duraq.journal.filesystem import FileSystem, NotOurs
from duraq.journal.pieces import LineTooLong
from duraq.journal.record import BadRecord, Record

SUFFIX = ".jsonl"
REFUSED = (
    "other queues go on working, and of this one nothing was changed; restore the file, "
    "or see duraq repair --dry-run"
)
OPEN_FILES = 8  # descriptors of segments that are kept
DROP = b'{"op":"drop",'


# Where a record lies: in which segment, at which byte, how long with its newline. A plain tuple, for there is
# one for every entry: the garbage collector stops looking at plain tuples of numbers.
Where = tuple[int, int, int]


class SealAt(NamedTuple):
    """Where a segment's seal lies, its checksum, and the segment that it names."""

    segment: int
    offset: int
    length: int
    crc: str
    next: int


class Gap(StorageDamaged):
    """Something is not there that comes before what is there."""


def seal_at(where: Where, line: bytes, following: int) -> SealAt:
    """The seal that lies there, with this line."""
    return SealAt(*where, record.checksum(line), following)


class Files:
    """Descriptors of one queue's segments: opened when one is needed, and the last few kept."""

    def __init__(self, file_system: FileSystem, directory: int, queue: str, *, writable: bool) -> None:
        self._fs = file_system
        self._directory = directory
        self._queue = queue
        self._writable = writable
        self._open: OrderedDict[int, int] = OrderedDict()

    def get(self, segment: int, *, create: bool = False) -> int:
        """The segment's descriptor, good until the next few are asked for; ``create`` makes the file."""
        fd = self._open.get(segment)
        if fd is None:
            fd = open_segment(
                self._fs,
                self._directory,
                (self._queue, segment),
                create=create and self._writable,
                writable=self._writable,
            )
            self._open[segment] = fd
            if len(self._open) > OPEN_FILES:
                _, oldest = self._open.popitem(last=False)
                self._fs.close(oldest)
        else:
            self._open.move_to_end(segment)
        return fd

    def close_before(self, segment: int) -> None:
        """Give up those of earlier segments: one that is removed takes space as long as it is open."""
        for number in [number for number in self._open if number < segment]:
            self._fs.close(self._open.pop(number))

    def close(self) -> None:
        while self._open:
            _, fd = self._open.popitem()
            self._fs.close(fd)


def file_name(segment: int, suffix: str = SUFFIX) -> str:
    """The segment's file, or what lies beside it."""
    return f"{segment:020d}{suffix}"


def open_segment(
    file_system: FileSystem,
    directory: int,
    which: tuple[str, int],
    *,
    create: bool = False,
    writable: bool = True,
) -> int:
    """A descriptor of that queue's segment. Raises StorageDamaged if what lies there is not ours."""
    queue, number = which
    try:
        return file_system.open_file(directory, file_name(number), create=create, writable=writable)
    except NotOurs as error:
        # Of this queue alone, whoever put it there.
        raise StorageDamaged(error.why, path=path_of(queue, number), hint=error.hint) from error


def path_of(queue: str, segment: int, suffix: str = SUFFIX) -> str:
    """The segment's file, relative to the storage."""
    return f"{queue}/segments/{file_name(segment, suffix)}"


def numbers(file_system: FileSystem, directory: int, suffix: str = SUFFIX) -> list[int]:
    """The segments that have such a file in that directory, in order; what is foreign is left alone."""
    return numbers_in(file_system.file_names(directory), suffix)


def numbers_in(names: Iterable[str], suffix: str = SUFFIX) -> list[int]:
    """The same, of a directory that was listed."""
    found = []
    for name in names:
        stem = name.removesuffix(suffix)
        if name.endswith(suffix) and len(stem) == 20 and stem.isascii() and stem.isdigit():
            found.append(int(stem))
    return found


def length(file_system: FileSystem, directory: int, number: int) -> int:
    """How many bytes that segment has. Raises FileNotFoundError."""
    fd = file_system.open_file(directory, file_name(number), writable=False)
    try:
        return file_system.size(fd)
    finally:
        file_system.close(fd)


def growing(file_system: FileSystem, directory: int) -> dict[int, int]:
    """The segments at the queue's end that may still grow, and how long they are now.

    That is the one that is being sealed and the next one; and any empty ones, made for a write that was
    refused, or by somebody who died before it.
    """
    found: dict[int, int] = {}
    for number in reversed(numbers(file_system, directory)):
        found[number] = length(file_system, directory, number)
        if sum(map(bool, found.values())) == 2:
            break
    return found


def bytes_on_disk(file_system: FileSystem, root: int, queue: str, *, but: str = "") -> int:
    """How long the queue's segments are, all together, with what lies beside them; all but that file."""
    with ExitStack() as opened:
        home = file_system.open_dir(root, queue)
        opened.callback(file_system.close, home)
        directory = file_system.open_dir(home, "segments")
        opened.callback(file_system.close, directory)
        names = file_system.names(directory)
        return sum(_length(file_system, directory, name) for name in names if name != but)


def _length(file_system: FileSystem, directory: int, name: str) -> int:
    try:
        fd = file_system.open_file(directory, name, writable=False)
    except (FileNotFoundError, NotOurs):
        return 0  # removed meanwhile, or none of ours
    try:
        return file_system.size(fd)
    finally:
        file_system.close(fd)


def any_segment(file_system: FileSystem, root: int, queue: str) -> bool:
    """Whether the queue, whose directory there is, has got as far as a segment."""
    with ExitStack() as opened:
        home = file_system.open_dir(root, queue)
        opened.callback(file_system.close, home)
        if not file_system.exists(home, "segments"):
            return False
        directory = file_system.open_dir(home, "segments")
        opened.callback(file_system.close, directory)
        return bool(numbers(file_system, directory))


def last_drop(
    file_system: FileSystem, directory: int, existing: Sequence[int], queue: str
) -> tuple[Record, Where] | None:
    """The newest drop in those segments, and where it lies; None if nothing was ever dropped.

    Raises StorageDamaged if it cannot be read: nobody could say what else is needed.
    """
    for segment in reversed(existing):
        try:
            fd = open_segment(file_system, directory, (queue, segment), writable=False)
        except FileNotFoundError:
            continue  # dropped, and removed since it was listed
        try:
            for at in pieces.starts_from_the_end(file_system, fd, DROP):
                try:
                    length = pieces.line_length(file_system, fd, at, file_system.size(fd))
                    if length:  # else it is in the making
                        return record.decode(file_system.pread(fd, length, at)), (segment, at, length)
                except (BadRecord, LineTooLong) as error:
                    where = path_of(queue, segment)
                    raise StorageDamaged(str(error), path=where, byte=at, hint=REFUSED) from None
        finally:
            file_system.close(fd)
    return None
