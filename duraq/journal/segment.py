"""The segments of one queue: append-only files of records, each named after its first sequence number.

    emails/segments/00000000000000000001.jsonl     sealed: its last record is a seal, which names the next
                    00000000000000003042.jsonl     active: the next record goes to its end

They are written beside the journal without a sync of their own; ``duraq.journal.log`` says when they become
durable. Whoever decides from them holds the storage's lock; a reader without it sees whole lines, perhaps
not yet the newest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import accumulate, repeat
from typing import NamedTuple

from duraq.errors import StorageDamaged
from duraq.journal import record
from duraq.journal.filesystem import FileSystem
from duraq.journal.frame import Share
from duraq.journal.record import BadRecord, Record, Seal
from duraq.operations import Drop, Enqueue, Keep, Operation

SUFFIX = ".jsonl"
REFUSED = "other queues go on working, and of this one nothing was changed; restore the file"
READ_AHEAD = 64 << 10  # bytes of a record that may be kept until it is asked for
OPEN_SEALED = 8  # descriptors kept for payloads in sealed segments
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


def _seal_at(where: Where, line: bytes, following: int) -> SealAt:
    return SealAt(*where, record.checksum(line), following)


class Group:
    """A queue's share of a frame: its lines, and the parts in which they go to the segments."""

    __slots__ = ("bytes", "first_seq", "lines", "parts", "seal")

    def __init__(
        self, parts: list[Share], lines: list[bytes], first_seq: int, length: int, seal: SealAt | None
    ) -> None:
        self.parts = parts  # the last one has the lines, one before it a seal
        self.lines = lines
        self.first_seq = first_seq
        self.bytes = length  # of all the lines
        self.seal = seal  # of the segment before, if that was full

    def places(self) -> list[Where]:
        """Where each line lies; asked for when the disk is at work already."""
        _, segment, offset, _ = self.parts[-1]
        if len(self.lines) == 1:
            return [(segment, offset, self.bytes)]
        lengths = list(map(len, self.lines))
        return list(zip(repeat(segment), accumulate(lengths, initial=offset), lengths))


def file_name(segment: int, suffix: str = SUFFIX) -> str:
    """The segment's file, or what lies beside it."""
    return f"{segment:020d}{suffix}"


def numbers(file_system: FileSystem, directory: int, suffix: str = SUFFIX) -> list[int]:
    """The segments that have such a file in that directory, in order; foreign files are left alone."""
    return numbers_in(file_system.names(directory), suffix)


def numbers_in(names: Iterable[str], suffix: str = SUFFIX) -> list[int]:
    """The same, of a directory that was listed."""
    found = []
    for name in names:
        stem = name.removesuffix(suffix)
        if name.endswith(suffix) and len(stem) == 20 and stem.isascii() and stem.isdigit():
            found.append(int(stem))
    return found


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
    file_system: FileSystem, directory: int, existing: Sequence[int], path: Callable[[int], str]
) -> tuple[Record, Where] | None:
    """The newest drop in those segments, and where it lies; None if nothing was ever dropped.

    Raises StorageDamaged if it cannot be read: nobody could say what else is needed.
    """
    for segment in reversed(existing):
        try:
            fd = file_system.open_file(directory, file_name(segment), writable=False)
        except FileNotFoundError:
            continue  # dropped, and removed since it was listed
        try:
            data = file_system.pread(fd, file_system.size(fd), 0)
        finally:
            file_system.close(fd)
        for at in _line_starts(data, DROP):
            line = data[at : data.find(b"\n", at) + 1]
            if not line:
                continue  # in the making
            try:
                return record.decode(line), (segment, at, len(line))
            except BadRecord as error:
                raise StorageDamaged(str(error), path=path(segment), byte=at, hint=REFUSED) from None
    return None


def _line_starts(data: bytes, prefix: bytes) -> Iterator[int]:
    """Where lines begin that start so, the last one first."""
    at = len(data)
    while (at := data.rfind(b"\n" + prefix, 0, at)) >= 0:
        yield at + 1
    if data.startswith(prefix):
        yield 0


class Segments:
    """One queue's segments as one process has read them so far."""

    def __init__(self, file_system: FileSystem, root: int, queue: str, *, writable: bool, limit: int) -> None:
        self._fs = file_system
        self.queue = queue
        self._writable = writable
        self.limit = limit
        with ExitStack() as undo:
            self.home = file_system.open_dir(root, queue)
            undo.callback(file_system.close, self.home)
            # Made if missing, as the first segment is: a power cut may have kept the name and no more.
            self.directory = file_system.open_dir(self.home, "segments", create=writable)
            undo.callback(file_system.close, self.directory)
            self._existing = numbers(file_system, self.directory)
            undo.pop_all()
        self._fd = -1  # nothing is read before ``start`` or ``start_behind``
        self.segment = self.size = 0  # the active one, and how many bytes of it were read
        self.next_seq = 0
        self.first = 1  # what comes before this segment is not needed, and may be gone
        self.sealed_bytes = 0  # the length of the sealed ones from there on
        # Until this record not every entry is known that records speak of: what came before is gone, and what
        # is still needed of it is written again in front of this.
        self.known_from: Where | None = None
        self._sealed: OrderedDict[int, int] = OrderedDict()
        self._ahead: tuple[Where, bytes] | None = None  # a payload that was read ahead
        self.seal: SealAt | None = None  # it was read, and the segment that it names is still to be opened
        # The storage's position up to which this queue is known to have been read.
        self.read_at = -1

    def start(self) -> None:
        """Read from the first record that is needed. Raises StorageDamaged if it is not there."""
        drop = last_drop(self._fs, self.directory, self._existing, self._path)
        if drop is not None:
            (operation, _, _), self.known_from = drop
            assert isinstance(operation, Drop)
            self.first = operation.first
        first = self.first
        if first not in self._existing:
            if drop is not None or any(map(self._length, self._existing)):
                raise self._missing(first)
            if self._existing and not self._writable:
                first = self._existing[0]  # empty like all the others
        try:
            self._fd = self._open(first, create=True)
        except FileNotFoundError:
            raise self._missing(first) from None
        self.segment = self.next_seq = first

    def note_drop(self, operation: Drop, where: Where) -> None:
        """A drop was read, or written."""
        if self.known_from is None:
            self.first = operation.first
            self.sealed_bytes -= operation.bytes
        elif where == self.known_from:
            self.known_from = None

    def _length(self, segment: int) -> int:
        try:
            fd = self._open(segment)
        except FileNotFoundError:
            return 0  # dropped, and removed since it was listed
        try:
            return self._fs.size(fd)
        finally:
            self._fs.close(fd)

    def close(self) -> None:
        # A set: an interrupted ``accept`` may have left one in both places.
        for fd in {self._fd, *self._sealed.values(), self.directory, self.home} - {-1}:
            self._fs.close(fd)

    def _open(self, segment: int, *, create: bool = False) -> int:
        return self._fs.open_file(
            self.directory, file_name(segment), create=create and self._writable, writable=self._writable
        )

    def _path(self, segment: int) -> str:
        return f"{self.queue}/segments/{file_name(segment)}"

    # -- reading ---------------------------------------------------------------------------------------

    def catch_up(self) -> Iterator[tuple[Record, Where]]:
        """Read what was appended since the last time, across segments.

        Raises StorageDamaged at the first line that is not a record, or not the next one.
        """
        while True:
            yield from self.read_on()
            if self.seal is None:
                return
            self.advance()

    def read_on(self) -> Iterator[tuple[Record, Where]]:
        """The same, but up to the end of a segment; ``seal`` then says that it goes on."""
        if self.seal is None:
            length = self._fs.size(self._fd) - self.size
            if length > 0:
                yield from self._read(self._fs.pread(self._fd, length, self.size))
        # A reader may have come between the seal and what was written behind it.
        if self.seal is None and self._writable:
            self._check_end()

    def _check_end(self) -> None:
        """Raise StorageDamaged if there is more, though no seal says so; once, at what was there first."""
        later = [number for number in self._existing if number > self.segment]
        self._existing.clear()
        for number in later:
            # An empty one was made by somebody who died before the seal.
            if self._length(number):
                raise self._damaged(f"the segment ends without a seal, though segment {number} follows")

    def _read(self, data: bytes) -> Iterator[tuple[Record, Where]]:
        at = 0
        while (newline := data.find(b"\n", at)) >= 0:
            line = data[at : newline + 1]
            try:
                found = record.decode(line)
            except BadRecord as error:
                raise self._damaged(str(error)) from None
            if found.seq != self.next_seq:
                raise self._damaged(f"record {self.next_seq} was due here, this is record {found.seq}")
            where = (self.segment, self.size, len(line))
            self.next_seq += 1
            self.size += len(line)
            at = newline + 1
            if isinstance(found.operation, Seal):
                # What is behind a seal is nobody's.
                self.seal = _seal_at(where, line, found.operation.next)
                return
            yield found, where
        if at < len(data) and self._writable:
            # For a reader it is a line in the making; whoever holds the lock sees none.
            raise self._damaged("the last line has no end")

    def _missing(self, segment: int) -> Gap:
        return Gap("the segment is missing", path=self._path(segment), hint=REFUSED)

    def _damaged(self, why: str) -> StorageDamaged:
        line = self._fs.pread(self._fd, self.size, 0).count(b"\n") + 1
        return StorageDamaged(
            why,
            path=self._path(self.segment),
            line=line,
            byte=self.size,
            hint=REFUSED,
        )

    def advance(self) -> None:
        """Go on to the segment that the seal names."""
        assert self.seal is not None
        self.start_behind(self.seal)

    def start_behind(self, seal: SealAt) -> None:
        """Read from that seal's next segment on; what comes before it is known already."""
        try:
            # An earlier group of ours that was not written may have made it.
            fd = self._sealed.pop(seal.next, None) or self._open(seal.next)
        except FileNotFoundError:
            raise self._missing(seal.next) from None
        if self._fd >= 0:
            self._keep_sealed(self.segment, self._fd)
        self._fd, self.segment, self.size = fd, seal.next, 0
        self.next_seq = seal.next
        self.sealed_bytes += seal.offset + seal.length
        self.seal = None

    def line(self, where: Where) -> bytes:
        """The bytes of one record."""
        segment, offset, length = where
        fd = self._fd if segment == self.segment else self._sealed_fd(segment)
        return self._fs.pread(fd, length, offset)

    def read_ahead(self, where: Where) -> None:
        """Have the payload that is likely to be asked for next at hand: read while the disk is at work."""
        if where[2] <= READ_AHEAD and (self._ahead is None or self._ahead[0] is not where):
            self._keep_ahead(where, self.line(where))

    def _keep_ahead(self, where: Where, line: bytes) -> None:
        if len(line) <= READ_AHEAD:
            # What cannot be read is for the one who asks for it.
            with suppress(BadRecord):
                self._ahead = where, record.payload(line)

    def payload(self, where: Where) -> bytes:
        """The payload in an entry's record. Raises StorageDamaged if its bytes have changed."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] is where:
            return ahead[1]
        segment, offset, _ = where
        try:
            return record.payload(self.line(where))
        except FileNotFoundError:
            raise self._missing(segment) from None
        except BadRecord as error:
            raise StorageDamaged(str(error), path=self._path(segment), byte=offset) from None

    def enqueued(self, where: Where, seq: int) -> Record:
        """The record in which the entry lies that was enqueued as that number.

        Raises StorageDamaged if it is not there.
        """
        segment, offset, _ = where
        try:
            line = self.line(where)
            found = record.enqueued(line)
        except BadRecord as error:
            why = str(error)
        except FileNotFoundError:
            raise self._missing(segment) from None
        else:
            operation = found.operation
            kept = isinstance(operation, Keep) and operation.entry.seq == seq
            if kept or (isinstance(operation, Enqueue) and found.seq == seq):
                # Who takes an entry off the shelf wants its payload next.
                self._keep_ahead(where, line)
                return found
            why = f"the record of entry number {seq} was due here, this is record {found.seq}"
        raise StorageDamaged(why, path=self._path(segment), byte=offset, hint=REFUSED)

    def _sealed_fd(self, segment: int) -> int:
        fd = self._sealed.get(segment)
        if fd is None:
            fd = self._open(segment)
            self._keep_sealed(segment, fd)
        return fd

    def _keep_sealed(self, segment: int, fd: int) -> None:
        self._sealed[segment] = fd
        if len(self._sealed) > OPEN_SEALED:
            _, oldest = self._sealed.popitem(last=False)
            self._fs.close(oldest)

    def reaches(self, segment: int, end: int) -> bool:
        """Whether the active segment is this one and has bytes up to there."""
        return segment == self.segment and self._fs.size(self._fd) >= end

    # -- writing, under the storage's lock -------------------------------------------------------------

    def compose(self, operations: Sequence[Operation], at: str, *, seal: bool = False) -> Group:
        """The lines of these operations, numbered, and where they are to go. Writes nothing of them.

        A full segment (with ``seal``, any) is sealed first; the new file is made here, empty, so that running
        out of descriptors or inodes is known before anything is written.
        """
        seq, segment, size = self.next_seq, self.segment, self.size
        parts: list[Share] = []
        sealed = None
        if size >= self.limit or (seal and size):
            line = record.encode(Seal(seq + 1), seq, at)
            parts.append((self.queue, segment, size, line))
            sealed = _seal_at((segment, size, len(line)), line, seq + 1)
            seq += 1
            segment, size = seq, 0
            if segment not in self._sealed:  # else an earlier group that was not written made it
                self._keep_sealed(segment, self._open(segment, create=True))
        encode = record.encode
        lines: list[bytes] = []
        for number, operation in enumerate(operations, seq):
            lines.append(encode(operation, number, at))
        data = b"".join(lines)
        parts.append((self.queue, segment, size, data))
        return Group(parts, lines, seq, len(data), sealed)

    def write(self, group: Group) -> None:
        """Put the group's lines into the segments.

        Raises OSError when the disk is full; whatever was written is cut off again by ``cut``.
        """
        for _, segment, offset, lines in group.parts:
            fd = self._fd if segment == self.segment else self._sealed_fd(segment)
            # No sync: the journal's frame is what makes these lines durable.
            if self._fs.pwrite(fd, lines, offset) != len(lines):
                raise OSError(28, "no space left for the segment")

    def cut(self, group: Group) -> None:
        """Undo ``write``."""
        for _, segment, offset, _ in group.parts:
            fd = self._fd if segment == self.segment else self._sealed_fd(segment)
            self._fs.truncate(fd, offset)

    def accept(self, group: Group) -> None:
        """The group is written; go on from behind it."""
        _, segment, offset, _ = group.parts[-1]
        if segment != self.segment:
            # Taken out before another is put in, which may push the oldest out.
            opened = self._sealed.pop(segment)
            self._keep_sealed(self.segment, self._fd)
            self._fd, self.segment = opened, segment
            assert group.seal is not None
            self.sealed_bytes += group.seal.offset + group.seal.length
        self.size = offset + group.bytes
        self.next_seq = group.first_seq + len(group.lines)
