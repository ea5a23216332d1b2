"""A storage copied into an empty directory, as it was at one moment.

Segments only grow, so how long each of them was at that moment is all that has to be known; what is written
meanwhile is left out. The copy has a journal of its own, without a frame, and a note of where each queue
ends. Its marker is written last: a directory with a marker is a whole storage. Of a copy that fails nothing
stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from duraq.errors import NotEmpty, StorageBusy, StorageError
from duraq.journal import ends, journal, opening, refusal, segment, wording
from duraq.journal.ends import End, Ends
from duraq.journal.filesystem import FileSystem, opened, write_all
from duraq.journal.log import Log, Sizes
from duraq.model import MARKER

_PIECE = 1 << 20  # bytes that are copied at once

# By queue, how long its segments were.
Moment = dict[str, dict[int, int]]


class Copier:
    """Copies out of one file system into another; ``origin`` is the path of what is copied."""

    def __init__(self, source: FileSystem, target: FileSystem, origin: str) -> None:
        self._source, self._target, self._origin = source, target, origin

    def copy(self, root: int, moment: Moment, path: str, about: Mapping[str, Any]) -> None:
        """Write the storage as it was at that moment into an empty directory, durably; made if it is missing.

        ``about`` is what the marker says besides. Raises NotEmpty if there is something in the directory, and
        StorageError.
        """
        with wording.said_of(path):
            top = self._target.open_root(path, create=True)
            try:
                self._fill(top, root, moment, path, about)
            finally:
                self._target.close(top)

    def _fill(self, top: int, root: int, moment: Moment, path: str, about: Mapping[str, Any]) -> None:
        target = self._target
        # So that two who make one there do not take away what the other makes.
        if not target.try_lock(top):
            raise StorageBusy("somebody else makes a storage of it just now", path=path)
        if target.names(top):
            raise NotEmpty("the directory is not empty", path=path, hint="name a new one")
        try:
            self._write(top, root, moment, about)
        except BaseException:
            with suppress(OSError):
                _clear(target, top, moment)
            raise

    def _write(self, top: int, root: int, moment: Moment, about: Mapping[str, Any]) -> None:
        source, target = self._source, self._target
        for queue, numbers in moment.items():
            with opened(source, root, queue) as home, opened(source, home, "segments") as directory:
                self._copy_queue(directory, numbers, top, queue)
        with opened(target, top, "journal", create=True) as directory:
            journal.create(target, directory, Sizes().journal)
            last = {queue: End(*max(each.items())) for queue, each in moment.items() if each}
            ends.save(target, directory, Ends(0, last))
        target.close(target.open_dir(top, "leases", create=True))
        # Before the marker gets its name: names are independent of each other.
        target.sync(top)
        opening.write_marker(target, top, **about)

    def _copy_queue(self, source: int, numbers: Mapping[int, int], top: int, queue: str) -> None:
        target = self._target
        with opened(target, top, queue, create=True) as home:
            with opened(target, home, "segments", create=True) as directory:
                for number, length in numbers.items():
                    self._copy_file(source, directory, segment.file_name(number), length)
                # The segments' names, and below that of their directory.
                target.sync(directory)
            target.sync(home)

    def _reading(self) -> AbstractContextManager[None]:
        return wording.said_of(self._origin, hint="this user must be able to read it")

    def _copy_file(self, source: int, directory: int, name: str, length: int) -> None:
        with self._reading():
            read = self._source.open_file(source, name, writable=False)
        try:
            write = self._target.open_file(directory, name, exclusive=True)
            try:
                for at in range(0, length, _PIECE):
                    with self._reading():
                        piece = self._source.pread(read, min(_PIECE, length - at), at)
                    write_all(self._target, write, piece, at)
                if self._target.size(write) != length:
                    raise StorageError(
                        "it has become shorter while it was copied", path=f"{self._origin}/{name}"
                    )
                # Whoever is told that the copy is made may rely on it.
                self._target.sync(write)
            finally:
                self._target.close(write)
        finally:
            self._source.close(read)


def disown(fs: FileSystem, top: int) -> None:
    """From here on it is no storage, and a power cut does not make it one again."""
    if fs.exists(top, MARKER):
        fs.unlink(top, MARKER)
        # The names of the files below may go first, otherwise.
        fs.sync(top)


def _clear(fs: FileSystem, top: int, queues: Iterable[str]) -> None:
    """Remove what there is of a copy that was not finished, and nothing that somebody else has put there."""
    disown(fs, top)
    with suppress(FileNotFoundError):
        fs.unlink(top, f"{MARKER}.tmp")
    for name in (*queues, "journal", "leases"):
        with suppress(OSError):
            _remove(fs, top, name)


def _remove(fs: FileSystem, directory: int, name: str) -> None:
    with opened(fs, directory, name) as inner:
        files = set(fs.file_names(inner))
        for each in fs.names(inner):
            if each in files:
                fs.unlink(inner, each)
            else:
                _remove(fs, inner, each)
    fs.rmdir(directory, name)


def lengths(fs: FileSystem, root: int, queues: Iterable[str]) -> Moment:
    """How long the segments of these queues are, while nobody writes."""
    found: Moment = {}
    for queue in queues:
        with opened(fs, root, queue) as home, opened(fs, home, "segments") as directory:
            numbers = segment.numbers(fs, directory)
            found[queue] = _without_empty(
                {number: segment.length(fs, directory, number) for number in numbers}
            )
    return found


@contextmanager
def standing_still(log: Log) -> Iterator[Moment]:
    """The storage at one moment; until the end of the block no segment of it is removed.

    Raises StorageDamaged if a queue is refused, for nobody knows how long its segments should be.
    """
    fs = log.fs
    held: dict[str, int] = {}
    try:
        while True:
            for queue in set(log.names()) - held.keys():
                held[queue] = _hold(log, queue)
            log.lock()
            try:
                # A queue that has come into being in between could lose a segment already.
                if held.keys() >= set(log.names()):
                    # All that others wait for: a deep queue has thousands of segments.
                    growing = {queue: segment.growing(fs, directory) for queue, directory in held.items()}
                    end = log.journal.standing.end
                    break
            finally:
                log.unlock()
        # The copy must not know of anything that a power cut could take back.
        log.settle(end)
        yield {
            queue: _without_empty(
                {
                    number: growing[queue][number]
                    if number in growing[queue]
                    else segment.length(fs, directory, number)
                    for number in segment.numbers(fs, directory)
                    if number <= max(growing[queue], default=0)
                }
            )
            for queue, directory in held.items()
        }
    finally:
        for fd in held.values():
            fs.close(fd)


def _hold(log: Log, queue: str) -> int:
    """The directory of the queue's segments, with the lock of whoever removes some of them."""
    with opened(log.fs, log.root, queue) as home:
        refusal.check(log.fs, home, queue)
        fd = log.fs.open_dir(home, "segments")
    try:
        log.fs.lock(fd)
    except BaseException:
        log.fs.close(fd)
        raise
    return fd


def _without_empty(there_are: dict[int, int]) -> dict[int, int]:
    """Without files that somebody made and never wrote to: none of them is where the queue ends."""
    return {number: length for number, length in there_are.items() if length} or dict(
        sorted(there_are.items())[:1]
    )
