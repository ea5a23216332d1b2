"""The segments of one queue as one process reads them, record by record.

Whoever decides from them holds the storage's lock; a reader without it sees whole lines, perhaps not yet the
newest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress

from duraq.errors import StorageDamaged
from duraq.journal import pieces, record
from duraq.journal.ends import End
from duraq.journal.filesystem import FileSystem
from duraq.journal.pieces import LineTooLong
from duraq.journal.record import BadRecord, Record, Seal
from duraq.journal.segment import REFUSED, Files, Gap, SealAt, Where, last_drop, numbers, path_of, seal_at
from duraq.journal.tail import Group, Tail
from duraq.operations import Drop, Enqueue, Keep

READ_AHEAD = 64 << 10  # bytes that may be kept until they are asked for


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
        self._files = Files(file_system, self.directory, queue, writable=writable)
        self.tail = Tail(file_system, self._files, queue, limit)
        # Nothing is read before ``start`` or ``start_behind``.
        self.segment = self.size = 0  # the active one, and how many bytes of it were read
        self.next_seq = 0
        self.known = End(0, 0)  # how far a reader knows the queue to go
        self.first = 1  # what comes before this segment is not needed, and may be gone
        self.sealed_bytes = 0  # the length of the sealed ones from there on
        # Until this record not every entry is known that records speak of: what came before is gone, and what
        # is still needed of it is written again in front of this.
        self.known_from: Where | None = None
        self._ahead: tuple[Where, bytes] | None = None  # a payload that was read ahead
        self._stretch: tuple[int, int, bytes] = (
            0,
            0,
            b"",
        )  # of a sealed segment: which, from where, and its bytes
        self.seal: SealAt | None = None  # it was read, and the segment that it names is still to be opened
        # The storage's position up to which this queue is known to have been read.
        self.read_at = -1

    def start(self) -> None:
        """Read from the first record that is needed. Raises StorageDamaged if it is not there."""
        drop = last_drop(self._fs, self.directory, self._existing, self.queue)
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
            self._files.get(first, create=True)
        except FileNotFoundError:
            raise self._missing(first) from None
        self.segment = self.next_seq = first

    def note_drop(self, operation: Drop, where: Where) -> None:
        """A drop was read, or written."""
        if self.known_from is None:
            self.first = operation.first
            self.sealed_bytes -= operation.bytes
            self._files.close_before(self.first)
        elif where == self.known_from:
            self.known_from = None

    def _length(self, segment: int) -> int:
        try:
            return self._fs.size(self._files.get(segment))
        except FileNotFoundError:
            return 0  # dropped, and removed since it was listed

    def close(self) -> None:
        self._files.close()
        self._fs.close(self.directory)
        self._fs.close(self.home)

    def _path(self, segment: int) -> str:
        return path_of(self.queue, segment)

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
            end = self._fs.size(self._file())
            yield from self._read(end)
            # For a reader it is a line in the making, unless that is known to be durable; whoever holds the
            # lock sees none.
            if self.seal is None and self.size < end and (self._writable or self._is_short(end)):
                raise self._damaged("the last line has no end")
        # A reader may have come between the seal and what was written behind it.
        if self.seal is None and self._writable:
            self._check_end()
            self.tail.reach(self.segment, self.size, self.next_seq)

    def _is_short(self, size: int) -> bool:
        """Whether the segment has the bytes that are known to be durable, and no line that ends there."""
        return self.segment == self.known.segment and self.size < self.known.size <= size

    def is_followed(self) -> bool:
        """Whether there is a later segment than the one that is read: then this one is sealed, or nearly."""
        return any(number > self.segment for number in numbers(self._fs, self.directory))

    def goes_on(self) -> bool:
        """Whether there are records behind the segment that is read: then it has a seal by now."""
        later = [number for number in numbers(self._fs, self.directory) if number > self.segment]
        return any(map(self._length, later))

    def _check_end(self) -> None:
        """Raise StorageDamaged if there is more, though no seal says so; once, at what was there first."""
        later = [number for number in self._existing if number > self.segment]
        self._existing.clear()
        for number in later:
            # An empty one was made by somebody who died before the seal.
            if self._length(number):
                raise self._damaged(f"the segment ends without a seal, though segment {number} follows")

    def open(self, segment: int | None = None) -> int:
        """A descriptor of that segment, or of the one that is read. Raises FileNotFoundError."""
        return self._files.get(self.segment if segment is None else segment)

    def start_at(self, segment: int, size: int, next_seq: int) -> None:
        """Read from there on; what comes before is known."""
        self.segment, self.size, self.next_seq = segment, size, next_seq

    def _file(self) -> int:
        try:
            return self._files.get(self.segment)
        except FileNotFoundError:
            raise self._missing(self.segment) from None  # dropped, and removed since we were here

    def _read(self, end: int) -> Iterator[tuple[Record, Where]]:
        while self.seal is None:
            try:
                # The file is asked for each time: whoever folds a record may read others on the way.
                data = next(pieces.lines(self._fs, self._file(), self.size, end), b"")
            except LineTooLong as error:
                raise self._damaged(str(error)) from None
            if not data:
                return
            yield from self._decoded(data)

    def _decoded(self, data: bytes) -> Iterator[tuple[Record, Where]]:
        at = 0
        while (newline := data.find(b"\n", at)) >= 0:
            line = data[at : newline + 1]
            try:
                found = record.decode(line)
            except BadRecord as error:
                raise self._damaged(str(error)) from None
            if found.seq != self.next_seq:
                raise self._damaged(f"record {self.next_seq} was due here, this is record {found.seq}")
            if isinstance(found.operation, Seal) and found.operation.next != found.seq + 1:
                # An earlier one would be read again and again.
                raise self._damaged(f"the seal names {found.operation.next}, not {found.seq + 1}")
            where = (self.segment, self.size, len(line))
            self.next_seq += 1
            self.size += len(line)
            at = newline + 1
            if isinstance(found.operation, Seal):
                # What is behind a seal is nobody's.
                self.seal = seal_at(where, line, found.operation.next)
                return
            yield found, where

    def _missing(self, segment: int) -> Gap:
        return Gap("the segment is missing", path=self._path(segment), hint=REFUSED)

    def _damaged(self, why: str) -> StorageDamaged:
        before = pieces.pieces(self._fs, self._files.get(self.segment), 0, self.size)
        line = sum(piece.count(b"\n") for piece in before) + 1
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
            self._files.get(seal.next)
        except FileNotFoundError:
            raise self._missing(seal.next) from None
        self.segment, self.size = seal.next, 0
        self.next_seq = seal.next
        self.sealed_bytes += seal.offset + seal.length
        self.seal = None

    def is_at(self, group: Group) -> bool:
        """Whether everything before that group was read."""
        _, segment, offset, _ = group.parts[0]
        return self.size == offset and self.segment == segment and self.seal is None

    def pass_over(self, group: Group) -> None:
        """The group that comes next was written by us: it need not be read."""
        tail = self.tail
        self.segment, self.size, self.next_seq = tail.segment, tail.size, tail.next_seq
        if group.seal is not None:
            self.sealed_bytes += group.seal.offset + group.seal.length

    # -- reading what somebody asks for ----------------------------------------------------------------

    def line(self, where: Where) -> bytes:
        """The bytes of one record."""
        segment, offset, length = where
        kept, start, data = self._stretch
        if kept == segment and start <= offset and offset + length <= start + len(data):
            return data[offset - start : offset - start + length]
        return self._fs.pread(self._files.get(segment), length, offset)

    def keep_stretch(self, segment: int, start: int, end: int) -> None:
        """Read these bytes of a sealed segment at once: the records in them will be asked for one by one.

        Raises StorageDamaged if it is not there.
        """
        try:
            fd = self._files.get(segment)
        except FileNotFoundError:
            raise self._missing(segment) from None
        self._stretch = (segment, start, self._fs.pread(fd, end - start, start))

    def read_ahead(self, where: Where) -> None:
        """Have the payload that is likely to be asked for next at hand: read while the disk is at work."""
        if where[2] <= READ_AHEAD and (self._ahead is None or self._ahead[0] is not where):
            # What cannot be read is for the one who asks for it.
            with suppress(BadRecord):
                self._ahead = where, record.payload(self.line(where))

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
                return found
            why = f"the record of entry number {seq} was due here, this is record {found.seq}"
        raise StorageDamaged(why, path=self._path(segment), byte=offset, hint=REFUSED)
