"""The end of a queue: where its next record goes, found and moved on without knowing what is before it.

Lines are appended beside the journal without a sync of their own; ``duraq.journal.log`` says when they become
durable. All of this happens under the storage's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, repeat

from duraq.journal import pieces, record
from duraq.journal.filesystem import FileSystem
from duraq.journal.frame import Share
from duraq.journal.pieces import LineTooLong
from duraq.journal.record import BadRecord, Seal
from duraq.journal.segment import Files, SealAt, Where, seal_at
from duraq.operations import Operation


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


class Tail:
    """Where one queue ends, as far as this process knows."""

    def __init__(self, file_system: FileSystem, files: Files, queue: str, limit: int) -> None:
        self._fs = file_system
        self._files = files
        self._queue = queue
        self._limit = limit
        self.segment = self.size = 0  # the active segment, and its length
        self.next_seq = 0
        self.seen_at = -1  # the storage's position for which this is known to be right

    def reach(self, segment: int, size: int, next_seq: int) -> None:
        """Everything up to here was read, and there is no more."""
        self.segment, self.size, self.next_seq = segment, size, next_seq

    def follow(self) -> bool:
        """Find the end that others have moved on; False if only reading all that they wrote can tell."""
        try:
            while (length := self._fs.size(self._files.get(self.segment))) > self.size:
                line = pieces.last_line(self._fs, self._files.get(self.segment), self.size, length)
                seq, seal = record.number(line)
                self.size, self.next_seq = length, seq + 1
                if seal is None:
                    return True
                if seal.next != self.next_seq:
                    return False
                self.segment, self.size = seal.next, 0
        except (BadRecord, LineTooLong, FileNotFoundError):
            return False
        return length == self.size

    def reaches(self, segment: int, end: int) -> bool:
        """Whether that segment has bytes up to there."""
        try:
            return self._fs.size(self._files.get(segment)) >= end
        except FileNotFoundError:
            return False

    def compose(self, operations: Sequence[Operation], at: str, *, seal: bool = False) -> Group:
        """The lines of these operations, numbered, and where they are to go. Writes nothing of them.

        A full segment (with ``seal``, any) is sealed first; the new file is made here, empty, so that running
        out of descriptors or inodes is known before anything is written.
        """
        seq, segment, size = self.next_seq, self.segment, self.size
        parts: list[Share] = []
        sealed = None
        if size >= self._limit or (seal and size):
            line = record.encode(Seal(seq + 1), seq, at)
            parts.append((self._queue, segment, size, line))
            sealed = seal_at((segment, size, len(line)), line, seq + 1)
            seq += 1
            segment, size = seq, 0
            self._files.get(segment, create=True)
        encode = record.encode
        lines: list[bytes] = []
        for number, operation in enumerate(operations, seq):
            lines.append(encode(operation, number, at))
        data = b"".join(lines)
        parts.append((self._queue, segment, size, data))
        return Group(parts, lines, seq, len(data), sealed)

    def write(self, group: Group) -> None:
        """Put the group's lines into the segments.

        Raises OSError when the disk is full; whatever was written is cut off again by ``cut``.
        """
        for _, segment, offset, lines in group.parts:
            # No sync: the journal's frame is what makes these lines durable.
            if self._fs.pwrite(self._files.get(segment), lines, offset) != len(lines):
                raise OSError(28, "no space left for the segment")

    def cut(self, group: Group) -> None:
        """Undo ``write``."""
        for _, segment, offset, _ in group.parts:
            self._fs.truncate(self._files.get(segment), offset)

    def accept(self, group: Group) -> None:
        """The group is written; go on from behind it."""
        _, self.segment, offset, _ = group.parts[-1]
        self.size = offset + group.bytes
        self.next_seq = group.first_seq + len(group.lines)
