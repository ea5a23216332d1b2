"""Opening a storage to look at it: no lock, no lease, nothing made, nothing written.

Two things stand between a reader and the truth. After a power cut, until somebody opens the storage, the
segments may lack what the journal holds, and hold what it lacks; so the reader runs the recovery in memory.
And while others write, what was read first may be older than what was read next. Hence the order here:
how long the segments are, then the journal, then the ends. Every line that a segment had by then has its
frame in what is read next, or its end in what is read last; what has neither is a power cut's leftover.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import NamedTuple

from duraq.errors import StorageDamaged
from duraq.journal import ends, journal, refusal, segment
from duraq.journal.ends import End
from duraq.journal.filesystem import FileSystem, NotOurs, RealFileSystem, SomethingElse, opened
from duraq.journal.frame import Frame, Part
from duraq.journal.overlay import Overlay
from duraq.journal.recovery import Replay, newest_epoch, read_journal
from duraq.model import is_queue_name

_ATTEMPTS = 5
_PAUSE = 0.01  # seconds


class ReaderFileSystem(RealFileSystem):
    """The machine's file system for those who only look.

    Files of other users and hard links are read as well: a backup may consist of them, and nothing that
    is read here is ever believed without its checksum.
    """

    def open_file(
        self,
        directory: int,
        name: str,
        *,
        create: bool = False,
        exclusive: bool = False,
        writable: bool = True,
    ) -> int:
        assert not create
        assert not exclusive
        assert not writable
        return super().open_file(directory, name, writable=False)

    @staticmethod
    def _distrust(name: str, about: os.stat_result) -> NotOurs | None:  # noqa: ARG004 - whosever it is
        return None


class View(NamedTuple):
    """A storage to read from: a file system, and the storage's directory in it.

    ``settled``: the segments hold what the journal says, so they alone may be followed from here on. If
    not, the view is good for one look, and ``damaged`` has the queues that could not be brought to rest.
    ``ends``: how far the queues went at least, for all that the journal and its note say.
    """

    fs: FileSystem
    root: int
    settled: bool
    damaged: dict[str, StorageDamaged]
    ends: Mapping[str, End] = MappingProxyType({})


def look(fs: FileSystem, root: int) -> View:
    """The storage as its next opener would find it. ``root`` remains the caller's to close."""
    for _ in range(_ATTEMPTS - 1):
        # Segments that are dropped and removed between two looks can pass for lost ones.
        view = _look(fs, root)
        if not view.damaged:
            return view
        time.sleep(_PAUSE)
    return _look(fs, root)


def _look(fs: FileSystem, root: int) -> View:
    overlay = Overlay(fs)
    top = overlay.adopt(root)
    lengths = _lengths(overlay, top)
    frames, known = _read_journal(overlay, top)
    damaged = _InMemory(overlay, top, lengths).recover(frames, known, queue_names(overlay, top))
    for queue in queue_names(overlay, top):
        if queue not in damaged and (error := _still_refused(overlay, top, queue)):
            damaged[queue] = error
    for part in (part for found in frames for part in found.parts()):
        end = End(part.segment, part.offset + len(part.lines))
        known[part.queue] = max(end, known.get(part.queue, end))
    if overlay.changed or damaged:
        return View(overlay, top, settled=False, damaged=damaged, ends=known)
    return View(fs, root, settled=True, damaged={}, ends=known)


def _still_refused(fs: FileSystem, root: int, queue: str) -> StorageDamaged | None:
    try:
        with opened(fs, root, queue) as home:
            return refusal.still_refused(fs, home, queue)
    except OSError:
        return None  # not ours to read: whoever folds it is told


def queue_names(fs: FileSystem, root: int) -> list[str]:
    """The queues in a storage's directory, sorted."""
    return [name for name in fs.names(root) if is_queue(fs, root, name)]


def is_queue(fs: FileSystem, root: int, name: str) -> bool:
    """Whether there is a queue of that name."""
    if not is_queue_name(name):
        return False
    try:
        home = fs.open_dir(root, name)
    except (FileNotFoundError, SomethingElse):
        return False
    except OSError:
        # Nobody knows what is in it, but it is there, and that should be seen.
        return True
    try:
        return fs.exists(home, "segments")
    finally:
        fs.close(home)


class _Lengths(NamedTuple):
    """How long the segments are now, of those that may be growing; and the queues of which nobody knows."""

    known: dict[tuple[str, int], int]
    unknown: set[str]


def _lengths(fs: FileSystem, root: int) -> _Lengths:
    found = _Lengths({}, set())
    for queue in queue_names(fs, root):
        try:
            with opened(fs, root, queue) as home, opened(fs, home, "segments") as directory:
                for number, length in segment.growing(fs, directory).items():
                    found.known[queue, number] = length
        except OSError:
            # Whoever reads it is told, should it be so for good.
            found.unknown.add(queue)
    return found


def _read_journal(fs: FileSystem, root: int) -> tuple[list[Frame], dict[str, End]]:
    """The journal's frames, and where queues end that have none."""
    try:
        directory = fs.open_dir(root, "journal")
    except FileNotFoundError:
        raise StorageDamaged("the journal is missing", path="journal") from None
    files: list[int] = []
    try:
        # One that is missing is made by whoever opens the storage, and is then as good as one that is empty.
        files.extend(fs.open_file(directory, journal.file_name(epoch), create=True) for epoch in (0, 1))
        for _ in range(_ATTEMPTS - 1):
            # A file that is written or recycled between two reads of it can look like a damaged one.
            with suppress(StorageDamaged):
                return _read(fs, directory, tuple(files))
            time.sleep(_PAUSE)
        return _read(fs, directory, tuple(files))
    finally:
        for fd in (*files, directory):
            fs.close(fd)


def _read(fs: FileSystem, directory: int, files: tuple[int, ...]) -> tuple[list[Frame], dict[str, End]]:
    required = newest_epoch(fs, files) > 2
    found = read_journal(fs, files, ends.load(fs, directory, required=required).position)
    return found.frames, ends.load(fs, directory, required=required).queues


class _InMemory(Replay):
    """The recovery over an overlay."""

    def __init__(self, overlay: Overlay, root: int, lengths: _Lengths) -> None:
        super().__init__(overlay, root)
        self._overlay, self._lengths = overlay, lengths

    def _refuse(self, queue: str, error: StorageDamaged, parts: list[Part]) -> None:
        """Nothing: that is for those who may write."""

    def _lift(self, home: int) -> None:
        """Nothing either."""

    def _check(self, queue: str, parts: list[Part], end: End) -> None:
        with self._looking_into(queue):
            super()._check(queue, parts, end)

    def _mend(self, queue: str, parts: list[Part], end: End) -> None:
        with self._looking_into(queue):
            super()._mend(queue, parts, end)

    @contextmanager
    def _looking_into(self, queue: str) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            # Whoever folds it is told, be it allowed again by then: of its end there is nothing laid over it.
            self._overlay.forbid(queue, error)

    def _cut(self, queue: str, number: int, end: int) -> None:
        fd = self._segment(queue, number)
        known, unknown = self._lengths
        length = known.get((queue, number))
        if length is None:
            # Made since, so it is growing; or long sealed, so it is not.
            newest = max((other for name, other in known if name == queue), default=0)
            length = 0 if number > newest and queue not in unknown else self._fs.size(fd)
        if length > end:
            self._fs.truncate(fd, end)
