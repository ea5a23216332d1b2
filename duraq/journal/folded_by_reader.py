"""One queue as somebody has folded it who only looks: nothing is written, and bookmarks are gone on from."""

from __future__ import annotations

from contextlib import suppress

from duraq.journal import bookmark, refusal
from duraq.journal.filesystem import FileSystem
from duraq.journal.folded import Folded
from duraq.journal.record import SUFFIX_LENGTH
from duraq.journal.segment import SealAt
from duraq.journal.segments import Segments
from duraq.shelf import Mislaid

# So many records take longer to read than a bookmark does.
WORTH_IT = 300


class FoldedByReader(Folded):
    """Without the lock, and without a trace.

    It goes on from the checkpoints that others make. Where there is none at a seal, what was read stays in
    memory until a later seal has one.
    """

    def __init__(
        self,
        file_system: FileSystem,
        segments: Segments,
        distrusted: int = 0,
        mark: bytes | None = None,
    ) -> None:
        """``mark``: a bookmark to go on from, if it is one."""
        super().__init__(file_system, segments, distrusted, give=lambda _error, _need: False)
        self.repairs = refusal.repairs(file_system, segments.home)  # before anything is read
        self._last_read = (0, 0, b"")  # a segment, up to where it was read, and what stood there
        self._mark = mark
        self._marked = 0  # the record that the last bookmark stands before

    def bookmark(self) -> bytes | None:
        """Where it was read up to, and what it had come to; None if that was made a moment ago."""
        # The more it holds, the longer it takes to make one.
        if self.segments.next_seq - self._marked < WORTH_IT * (1 + len(self.state.entries) // 500):
            return None
        self._marked = self.segments.next_seq
        return bookmark.image(self._fs, self.segments, self.state, self._runs.imaged(), self.repairs)

    def _go_on(self) -> bool:
        """Whether there was a bookmark to go on from."""
        if self._mark is None:
            return False
        with suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError):
            place, self._mark = bookmark.Bookmark(self._mark), None
            if place.is_there(self._fs, self.segments, self.repairs):
                self._adopted = True
                segments = self.segments
                segments.start_at(place.segment, place.offset, place.next_seq)
                segments.first, segments.sealed_bytes = place.first, place.sealed_bytes
                segments.known_from = place.known_from
                place.restore(self.state)
                self._runs = self._shelf(place.runs, 0)
                self.state.shelve(self._runs)
                place.admit(self.state)
                self._marked = place.next_seq
                return True
        return False

    def catch_up(self, position: int) -> None:
        begun = self._begun
        if not begun and self._go_on():
            begun = self._begun = True
        super().catch_up(position)
        if not begun and self._adopted and self._is_left_behind(position):
            raise Mislaid(
                self.state.name, f"the checkpoint of segment {self.checkpoint} is of what was dropped"
            )
        segment, size = self.segments.segment, self.segments.size
        if size and self._last_read[:2] != (segment, size):
            with suppress(FileNotFoundError):
                self._last_read = (segment, size, self._before(segment, size))

    def stands(self) -> bool:
        """Whether what was read last is still there: who finds no room for all of a group takes it back."""
        segment, size, last = self._last_read
        with suppress(FileNotFoundError):  # dropped since, so it was there
            return not size or self._before(segment, size) == last
        return True

    def _before(self, segment: int, end: int) -> bytes:
        """The end of the line that ends there, with its checksum."""
        return self._fs.pread(self.segments.open(segment), SUFFIX_LENGTH, end - SUFFIX_LENGTH)

    def _is_left_behind(self, position: int) -> bool:
        """Whether the checkpoint is one of segments that were dropped: a power cut brought the names back."""
        segment = self.segments.segment
        if not self.segments.goes_on():
            return False
        # Others may have sealed it since it was read.
        super().catch_up(position)
        return self.segments.segment == segment

    def _shelve(self, seal: SealAt, position: int) -> None:
        """Nothing: that is for those who may write."""
