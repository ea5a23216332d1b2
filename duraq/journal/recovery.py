"""Bring a storage to rest: what the journal says is written into the segments, and nothing else.

Run by the first process to open a storage (nobody else has it open, so nothing moves), and in part by whoever
finds that a process died between its frame and the segments. Every step may be interrupted and run again.

    1. Read both headers. The older file's frames come first, then the newer's, if they follow on.
    2. A frame that is torn, or of another epoch, ends the journal. A frame behind the break that knew the
       break's position to be durable convicts it: damage, and the storage is refused.
    3. Write every frame's lines at their offsets, where they are not there already. A queue whose segments
       have lost more than that is left alone, and refused (``duraq.journal.refusal``).
       What was written to a segment that a drop among these frames makes needless is passed over.
    4. Cut each segment behind the last of them, keeping a copy of what is cut; but never before the end that
       ``journal/ends.jsonl`` knows to be durable, for the frames up to there may be gone. A queue that is
       not there either has no record that was promised.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from duraq.errors import StorageDamaged
from duraq.journal import frame, journal, pieces, record, refusal, segment
from duraq.journal.control import Standing
from duraq.journal.ends import End
from duraq.journal.filesystem import FileSystem, SomethingElse, write_all
from duraq.journal.frame import Frame, Part
from duraq.journal.journal import HEADER_BYTES, Header
from duraq.journal.opening import sync_once
from duraq.journal.pieces import Window
from duraq.journal.record import BadRecord
from duraq.operations import Drop

log = logging.getLogger("duraq")


class Found(NamedTuple):
    """What the journal holds: frames in order, and how it stands behind them."""

    frames: list[Frame]
    standing: Standing
    newest: int  # the highest epoch that a header names


def newest_epoch(file_system: FileSystem, files: tuple[int, ...]) -> int:
    """The highest epoch that a header names."""
    return max((header.epoch for header in _headers(file_system, files)), default=0)


def _headers(file_system: FileSystem, files: tuple[int, ...]) -> list[Header]:
    """The headers that are whole, the older first."""
    found = [Header.decode(file_system.pread(fd, HEADER_BYTES, 0)) for fd in files]
    return sorted((header for header in found if header is not None), key=lambda header: header.epoch)


def read_journal(file_system: FileSystem, files: tuple[int, ...], durable: int = 0) -> Found:
    """Read the pair, but for what the segments are known to hold: the frames before position ``durable``.

    Raises StorageDamaged if something that was durable is not there any more.
    """
    known = _headers(file_system, files)
    newest = known[-1].epoch if known else 0
    if len(known) == 1:
        _check_torn_header(file_system, files, known[0], durable)
    # A file that was left for good after a failed sync, say: whatever is still in it is not needed.
    known = known[-1:] if known and durable >= known[-1].base > 0 else known
    if not known:
        raise StorageDamaged("neither journal file has a header", path="journal/0.journal", byte=0)
    frames, window = journal.scan(file_system, files[known[0].epoch & 1], known[0])
    _convict(frames, window, known[0], known[0].base)
    current = known[0]
    if len(known) == 2:
        newer, window = journal.scan(file_system, files[known[1].epoch & 1], known[1])
        _convict(newer, window, known[1], known[1].base)
        if newer:
            # The one that it names is the last of the older file. What is behind that was written by somebody
            # who died before it counted, and was passed over because the next frame did not fit there.
            crcs = [0, *(each.crc for each in frames)]
            if newer[0].previous in crcs:
                frames = frames[: len(crcs) - 1 - crcs[::-1].index(newer[0].previous)] + newer
                current = known[1]
            else:
                end = frames[-1].end if frames else known[0].base
                _convict_gap(newer, known[0], end)
    chain = frames[-1].crc if frames else 0
    in_current = [found for found in frames[-1:] if found.epoch == current.epoch]
    start = in_current[0].position if in_current else current.base
    end = in_current[0].end if in_current else current.base
    # Nothing is known to be durable: the page cache may hold more than the disk does.
    standing = Standing(current.epoch, chain, current.base, start, end, 0, 0, 0, 0)
    return Found([found for found in frames if found.position >= durable], standing, newest)


def _convict(frames: list[Frame], window: Window, header: Header, base: int) -> None:
    """Raise if a frame behind the break says that the break was durable."""
    end = frames[-1].end if frames else base
    break_at = HEADER_BYTES + end - header.base
    for later in frame.search(window.take, break_at):
        if later.epoch == header.epoch and later.synced > end:
            raise StorageDamaged(
                f"a frame is damaged that was durable: the one of position {later.position} says so",
                path=f"journal/{journal.file_name(header.epoch)}",
                byte=break_at,
                hint="nothing was changed; restore the file, or see duraq repair --dry-run",
            )


def _convict_gap(newer: list[Frame], older: Header, end: int) -> None:
    for later in newer:
        if later.synced > end:
            raise StorageDamaged(
                f"the journal ends too early: the frame of position {later.position} knew more to be durable",
                path=f"journal/{journal.file_name(older.epoch)}",
                byte=HEADER_BYTES + end - older.base,
            )


def _check_torn_header(file_system: FileSystem, files: tuple[int, ...], known: Header, durable: int) -> None:
    """A header may be torn by a crash only while nobody needs a frame of its file."""
    other = files[(known.epoch + 1) & 1]
    content = file_system.pread(other, file_system.size(other), 0)
    newer = any(found.epoch > known.epoch for found in frame.find(content, HEADER_BYTES))
    # A header is replaced only after ends.jsonl has taken in what the file held.
    if newer or durable < known.base:
        raise StorageDamaged(
            "the header is damaged, and the frames behind it are needed",
            path=f"journal/{journal.file_name(known.epoch + 1)}",
            byte=0,
            hint="nothing was changed; restore the file, or see duraq repair --dry-run",
        )


class Unsynced(OSError):
    """The sync of a segment failed. The kernel has dropped its bytes; the journal still has them."""


class Replay:
    """Writes frames into segments."""

    def __init__(self, file_system: FileSystem, root: int) -> None:
        self._fs = file_system
        self._root = root
        self._open: dict[tuple[str, int], int] = {}
        self._directories: dict[str, int] = {}

    def run(self, frames: list[Frame]) -> None:
        """Write all lines that are missing, and cut what lies behind them. Raises StorageDamaged."""
        for error in self.recover(frames, {}, []).values():
            raise error

    def recover(
        self, frames: list[Frame], known: dict[str, End], queues: list[str]
    ) -> dict[str, StorageDamaged]:
        """The same, and bring every other queue back to where it is known to end.

        Returns the queues that have lost more than the frames can bring back. Their segments were left alone;
        what the frames hold of them is set aside, for the journal will not hold it for ever.
        """
        damaged: dict[str, StorageDamaged] = {}
        try:
            for queue, (first, wanted) in _wanted(frames, [*queues, *known]).items():
                end = known.get(queue, End(0, 0))
                if end.segment < first:
                    end = End(0, 0)
                try:
                    self._check(queue, wanted, end)
                    self._mend(queue, wanted, end)
                except StorageDamaged as error:
                    damaged[queue] = error
                    self._refuse(queue, error, wanted)
        finally:
            self._close()
        return damaged

    def _refuse(self, queue: str, error: StorageDamaged, parts: list[Part]) -> None:
        log.error("queue %s is refused from now on: %s", queue, error)
        refusal.refuse(self._fs, self._home(queue), error, parts)

    def _check(self, queue: str, parts: list[Part], end: End) -> None:
        """Raise StorageDamaged if lines are missing that no frame has. Makes nothing."""
        # Only from where something is to be compared: a deep queue has thousands of segments.
        compared = [part.segment for part in parts] + ([end.segment] if end.segment else [])
        sizes = self._sizes(queue, min(compared)) if compared else {}
        for part in parts:
            size = sizes.get(part.segment, 0)
            if size < part.offset:
                raise _too_short(queue, part.segment, size, part.offset)
            sizes[part.segment] = max(size, part.offset + len(part.lines))
        if sizes.get(end.segment, 0) < end.size:
            raise _too_short(queue, end.segment, sizes.get(end.segment, 0), end.size)

    def _sizes(self, queue: str, first: int) -> dict[int, int]:
        """The lengths of those segments that are there, from that one on."""
        if not self._fs.exists(self._root, queue) or not self._fs.exists(self._home(queue), "segments"):
            return {}
        found = {}
        for number in segment.numbers(self._fs, self._segments(queue)):
            if number >= first:
                # One that is needed by nobody may go at any moment, and must not come back as an empty file.
                with suppress(FileNotFoundError):
                    found[number] = self._fs.size(self._segment(queue, number, create=False))
        return found

    def _mend(self, queue: str, parts: list[Part], end: End) -> None:
        """Write the lines that are missing, and cut the segments behind the byte where the queue ends."""
        ends: dict[int, int] = {}
        for part in parts:
            fd = self._segment(queue, part.segment)
            if self._fs.pread(fd, len(part.lines), part.offset) != part.lines:
                write_all(self._fs, fd, part.lines, part.offset)
            ends[part.segment] = part.offset + len(part.lines)
        # Not where more is known to be durable: the frames behind these were lost, but only after that.
        ends = {number: size for number, size in ends.items() if End(number, size) > end}
        last = max([end, *(End(*each) for each in ends.items())])
        for number in sorted({*self._sizes(queue, last.segment), *ends}):
            self._cut(queue, number, last.size if number == last.segment else ends.get(number, 0))
        if (home := self._directories.get(queue)) is not None:
            self._lift(home)

    def _lift(self, home: int) -> None:
        refusal.lift(self._fs, home)

    def reaches(self, part: Part) -> bool:
        """Whether the segment has bytes up to where those lines end, or its queue is refused as it is."""
        if not self._fs.exists(self._root, part.queue):
            return True  # it was there when the frame was written, so somebody has removed it
        try:
            found = self._sizes(part.queue, part.segment).get(part.segment, 0)
            if found >= part.offset + len(part.lines):
                return True
            return refusal.is_refused(self._fs, self._home(part.queue))
        finally:
            self._close()

    def rewrite(self, frames: list[Frame]) -> None:
        """Write all lines again, whatever is there, so that a coming sync has them to write."""
        try:
            for queue, (_, parts) in _wanted(frames).items():
                if refusal.is_refused(self._fs, self._home(queue)):
                    continue
                for part in parts:
                    write_all(self._fs, self._segment(queue, part.segment), part.lines, part.offset)
        finally:
            self._close()

    def fill(self, frames: Iterable[Frame]) -> None:
        """Write all lines again that lie in a segment, or go on where it ends; not what is further on."""
        sizes: dict[str, dict[int, int]] = {}
        try:
            for part in (part for found in frames for part in found.parts()):
                if part.queue not in sizes:
                    sizes[part.queue] = self._sizes(part.queue, 0)
                size = sizes[part.queue].get(part.segment, 0)
                if size < part.offset:
                    continue
                fd = self._segment(part.queue, part.segment)
                write_all(self._fs, fd, part.lines, part.offset)
                sizes[part.queue][part.segment] = max(size, part.offset + len(part.lines))
        finally:
            self._close()

    def sync(self, touched: Iterable[tuple[str, int]]) -> None:
        """Make these segments durable, their names included.

        Raises Unsynced if their bytes are not (they may be written again), SyncFailed if their names are not,
        and OSError if nothing was synced at all.
        """
        try:
            fds = []
            for queue, number in touched:
                # Of a refused one, what the journal held has been set aside.
                if not refusal.is_refused(self._fs, self._home(queue)):
                    # One that was dropped since is needed by nobody.
                    with suppress(FileNotFoundError):
                        fds.append(self._segment(queue, number, create=False))
            for fd in fds:
                try:
                    self._fs.datasync(fd)
                except OSError as error:
                    raise Unsynced(*error.args) from error
            # A segment, or a queue, may be new; its name must not be lost before its lines are needed.
            for fd in (*self._directories.values(), self._root):
                sync_once(self._fs, fd)
        finally:
            self._close()

    def _close(self) -> None:
        for fd in (*self._open.values(), *self._directories.values()):
            self._fs.close(fd)
        self._open, self._directories = {}, {}

    def _segment(self, queue: str, number: int, *, create: bool = True) -> int:
        fd = self._open.get((queue, number))
        if fd is None:
            # Made if missing: after a power cut a new queue's name can be gone while its frames are there.
            fd = segment.open_segment(self._fs, self._segments(queue), (queue, number), create=create)
            self._open[queue, number] = fd
        return fd

    def _home(self, queue: str) -> int:
        return self._directory(queue, self._root, queue)

    def _segments(self, queue: str) -> int:
        home, path = self._home(queue), f"{queue}/segments"
        try:
            return self._directory(path, home, "segments")
        except SomethingElse as error:
            # Of this queue alone, as in ``open_segment``.
            raise StorageDamaged(error.why, path=path, hint=error.hint) from error

    def _directory(self, path: str, parent: int, name: str) -> int:
        if path not in self._directories:
            self._directories[path] = self._fs.open_dir(parent, name, create=True)
        return self._directories[path]

    def _cut(self, queue: str, number: int, end: int) -> None:
        fd = self._open[queue, number]
        length = self._fs.size(fd) - end
        if length <= 0:
            return
        # Never acknowledged: the journal ends before it. Kept all the same, for whoever wants to know.
        home = self._directories[queue]
        quarantine = self._fs.open_dir(home, refusal.QUARANTINE, create=True)
        try:
            name = f"{segment.file_name(number)}.{end}.cut"
            copy = self._fs.open_file(quarantine, name, create=True)
            try:
                self._fs.truncate(copy, 0)
                at = 0
                for piece in pieces.pieces(self._fs, fd, end, end + length):
                    write_all(self._fs, copy, piece, at)
                    at += len(piece)
            finally:
                self._fs.close(copy)
        finally:
            self._fs.close(quarantine)
        self._fs.truncate(fd, end)
        # Or the next power cut brings it back, beside records of the same numbers that are durable by then.
        sync_once(self._fs, fd)
        log.warning(
            "queue %s: cut %d unacknowledged bytes off %s, kept in quarantine/%s",
            queue,
            length,
            segment.file_name(number),
            name,
        )


def _wanted(frames: Iterable[Frame], queues: Iterable[str] = ()) -> dict[str, tuple[int, list[Part]]]:
    """By queue, these too: the first segment that it needs, and the parts for that one and later ones."""
    parts: dict[str, list[Part]] = {queue: [] for queue in queues}
    for found in frames:
        for part in found.parts():
            parts.setdefault(part.queue, []).append(part)
    firsts = {queue: _first_needed(wanted) for queue, wanted in parts.items()}
    return {
        queue: (firsts[queue], [part for part in wanted if part.segment >= firsts[queue]])
        for queue, wanted in parts.items()
    }


def _first_needed(parts: Iterable[Part]) -> int:
    """The first segment that a queue needs, for all that these parts say."""
    first = 0
    for part in parts:
        if segment.DROP in part.lines:
            for line in part.lines.splitlines(keepends=True):
                if line.startswith(segment.DROP):
                    # One that is none keeps its queue from being read, once it is where it belongs.
                    with suppress(BadRecord):
                        operation = record.decode(line).operation
                        assert isinstance(operation, Drop)
                        first = max(first, operation.first)
    return first


def _too_short(queue: str, number: int, size: int, wanted: int) -> StorageDamaged:
    return StorageDamaged(
        f"the segment ends at byte {size}, but lines up to byte {wanted} were durable",
        path=segment.path_of(queue, number),
        byte=size,
        hint=segment.REFUSED,
    )
