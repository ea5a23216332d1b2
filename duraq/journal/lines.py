"""The segments of one queue as plain lines, for finding and following records without folding them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from duraq.errors import StorageDamaged
from duraq.journal import pieces, record, segment
from duraq.journal.filesystem import FileSystem, content
from duraq.journal.pieces import LineTooLong
from duraq.journal.record import SUFFIX_LENGTH, BadRecord, Record, Seal

_PASSED = 1000  # lines that a follower knows to have read


class Line(NamedTuple):
    """A whole line, newline included: in which segment, the how manieth from 1, at which byte."""

    segment: int
    number: int
    offset: int
    text: bytes


class Lines:
    """One queue's lines, as they are in the files at each call; holds two descriptors of directories."""

    def __init__(self, fs: FileSystem, root: int, queue: str) -> None:
        self._fs = fs
        self.queue = queue
        self._home = fs.open_dir(root, queue)
        try:
            self._directory = fs.open_dir(self._home, "segments")
        except BaseException:
            fs.close(self._home)
            raise

    def close(self) -> None:
        self._fs.close(self._directory)
        self._fs.close(self._home)

    def segments(self) -> list[int]:
        return segment.numbers(self._fs, self._directory)

    def blocks(self, number: int, offset: int = 0) -> Iterator[bytes]:
        """The segment's whole lines from there on, many at once. Raises FileNotFoundError, StorageDamaged."""
        fd = self._fs.open_file(self._directory, segment.file_name(number), writable=False)
        try:
            yield from pieces.lines(self._fs, fd, offset, self._fs.size(fd))
        except LineTooLong as error:
            path = segment.path_of(self.queue, number)
            raise StorageDamaged(str(error), path=path, byte=error.offset) from None
        finally:
            self._fs.close(fd)

    def before(self, number: int, offset: int, length: int) -> bytes:
        """Up to so many bytes of the segment that end there. Raises FileNotFoundError."""
        start = max(0, offset - length)
        fd = self._fs.open_file(self._directory, segment.file_name(number), writable=False)
        try:
            return self._fs.pread(fd, offset - start, start)
        finally:
            self._fs.close(fd)

    def read(self, number: int, offset: int = 0, first: int = 1) -> Iterator[Line]:
        """The same line by line, the first of them being that one."""
        for block in self.blocks(number, offset):
            at = 0
            while at < len(block):
                end = block.find(b"\n", at) + 1
                yield Line(number, first, offset + at, block[at:end])
                first += 1
                at = end
            offset += len(block)

    def length(self, number: int) -> int:
        """How many bytes the segment has. Raises FileNotFoundError."""
        return segment.length(self._fs, self._directory, number)

    def content(self, number: int) -> bytes:
        """All that there is of a segment, be it lines or not. Raises FileNotFoundError."""
        return content(self._fs, self._directory, segment.file_name(number))

    def last(self, count: int) -> list[tuple[Line, Record]]:
        """The newest records, oldest first, as far as there are so many. Raises StorageDamaged."""
        found: list[tuple[Line, Record]] = []
        for number in reversed(self.segments()):
            missing = count - len(found)
            if missing <= 0:
                break
            # One more, for a sealed segment ends in its seal.
            newest: deque[Line] = deque(maxlen=missing + 1)
            with suppress(FileNotFoundError):  # dropped since it was listed
                newest.extend(self.read(number))
            records = [(line, self.decode(line)) for line in newest]
            found[:0] = [each for each in records if not isinstance(each[1].operation, Seal)][-missing:]
        return found

    def decode(self, line: Line) -> Record:
        """The record of a line. Raises StorageDamaged."""
        try:
            return record.decode(line.text)
        except BadRecord as error:
            path = segment.path_of(self.queue, line.segment)
            raise StorageDamaged(str(error), path=path, line=line.number, byte=line.offset) from None

    def of_entry(self, entry_id: str) -> Iterator[tuple[Line, Record]]:
        """Every undamaged record that concerns the entry, oldest first."""
        mention = f'"id":"{entry_id}"'.encode()
        for number in self.segments():
            # Dropped since it was listed; or what comes is no line, and nothing behind it can be found.
            with suppress(FileNotFoundError, StorageDamaged):
                for line in self._mentioning(number, mention):
                    # A payload may say the same words.
                    found = _decoded(line.text)
                    if found is not None and getattr(found.operation, "id", None) == entry_id:
                        yield line, found

    def ids(self, like: re.Pattern[bytes], most: int) -> set[str]:
        """The ids in undamaged records that are like that; so many of them at most."""
        mention = re.compile(b'"id":"(' + like.pattern + b')"')
        found: set[str] = set()
        for number in self.segments():
            with suppress(FileNotFoundError, StorageDamaged):  # as above
                for block in self.blocks(number):
                    for hit in mention.finditer(block):
                        entry_id = hit[1].decode()
                        if entry_id in found:
                            continue
                        start, end = block.rfind(b"\n", 0, hit.start()) + 1, block.find(b"\n", hit.end()) + 1
                        # A payload may say the same words.
                        known = _decoded(block[start:end])
                        if known is not None and getattr(known.operation, "id", None) == entry_id:
                            found.add(entry_id)
                            if len(found) == most:
                                return found
        return found

    def _mentioning(self, number: int, mention: bytes) -> Iterator[Line]:
        offset, line = 0, 1
        for block in self.blocks(number):
            counted, at = 0, block.find(mention)
            while at >= 0:
                start = block.rfind(b"\n", 0, at) + 1
                end = block.find(b"\n", at) + 1
                line += block.count(b"\n", counted, start)
                counted = start
                yield Line(number, line, offset + start, block[start:end])
                at = block.find(mention, end)
            line += block.count(b"\n", counted)
            offset += len(block)


def _decoded(text: bytes) -> Record | None:
    try:
        return record.decode(text)
    except BadRecord:
        return None


class Follower:
    """Reads what is appended to one queue, from a place on, from segment to segment."""

    def __init__(self, lines: Lines, after: Line | None) -> None:
        self._lines = lines
        self._begin(after.segment if after else 0)
        if after is not None:
            self._pass(after)
        self._doubted = -1

    def _begin(self, segment: int) -> None:
        self._segment, self._offset, self._number = segment, 0, 1
        # Of the lines that were read last: where each ends, its number, and how it ends.
        self._passed = deque([(0, 0, b"")], maxlen=_PASSED)

    def _pass(self, line: Line) -> None:
        self._offset, self._number = line.offset + len(line.text), line.number + 1
        self._passed.append((self._offset, line.number, line.text[-SUFFIX_LENGTH:]))

    def _step_back(self) -> None:
        """Go on behind the last line that is still there: who finds no room for a group takes it back."""
        passed = self._passed
        while passed:
            end, number, last = passed[-1]
            if self._lines.before(self._segment, end, len(last)) == last:
                self._offset, self._number = end, number + 1
                return
            passed.pop()

    def new(self) -> Iterator[tuple[Line, Record]]:
        """What was appended since the last call.

        A line that does not check is held back once, for it may be just being mended; if it is still there
        at the next call, StorageDamaged is raised.
        """
        with suppress(FileNotFoundError):  # it was dropped, see below
            self._step_back()
        while True:
            following = 0
            try:
                for line in self._lines.read(self._segment, self._offset, self._number):
                    try:
                        found = self._lines.decode(line)
                    except StorageDamaged:
                        if self._doubted == line.offset:
                            raise
                        self._doubted = line.offset
                        return
                    self._pass(line)
                    if isinstance(found.operation, Seal):
                        following = found.operation.next
                    else:
                        yield line, found
            except FileNotFoundError:
                following = self._segment + 1  # it was dropped
            if not (following and self._go_on(following)):
                return

    def _go_on(self, least: int) -> bool:
        """Go over to the next segment there is; not to what lies before the one that a seal names."""
        following = [number for number in self._lines.segments() if number >= least]
        if following:
            self._begin(following[0])
        return bool(following)
