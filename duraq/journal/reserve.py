"""Space that is kept for ending entries on a full disk: ``journal/reserve``.

    reserve    one line of JSON with a record's checksum, which says how long the file is to be; then spaces

Whoever finds the disk full, and is not enqueueing, cuts a piece off the file and tries again. From then on
the storage is short, which the control block tells everybody: enqueues are refused, or they would take what
was given back. Whoever comes by fills the file up again once there is room for it, and some to spare.

It holds no data, so nothing depends on what a crash leaves of it: one that is too short is filled up, one
that is gone or cannot be read is made again. As long as there is space nobody looks at it.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import orjson

from duraq import values
from duraq.journal import record
from duraq.journal.filesystem import FileSystem, SyncFailed, write_all
from duraq.journal.journal import Journal
from duraq.journal.recovery import Unsynced

log = logging.getLogger("duraq")

T = TypeVar("T")
# Gives back some of what is kept, for a call that has failed so and needs so many bytes: ``Reserve.give``.
Give = Callable[[OSError, int], bool]

NAME = "reserve"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_HEAD = 128  # bytes that are never given back: the line
_SHARE = 16  # of a disk no more than one in so many bytes is kept
_PIECES = 16  # in which it is given back, so that not every write has to ask for more
# So many of them are not for those who end entries, or nothing could be removed any more, and so many not for
# writing entries again, or none could be ended any more.
FOR_REMOVING, FOR_ENDING = 4, 8
_SPARE = 4  # it is filled up where a quarter more than that is free
_EVERY = 1.0  # second it is looked whether there is room, if nobody enqueues
_FILLING = b" " * (64 << 10)  # not zeros: a copy, or a disk that is thinly provisioned, may leave those out


class Reserve:
    """The file, as it is now: others cut it and fill it up as well. All of this under the storage's lock."""

    def __init__(self, file_system: FileSystem, directory: int, journal: Journal) -> None:
        self._fs = file_system
        self._directory = directory
        self._journal = journal
        self._look_again_at = 0.0  # monotonic

    # -- having it -------------------------------------------------------------------------------------

    def arrange(self, wanted: int, path: str) -> None:
        """See that there is one: made, if there is none and there is room for it, and filled up.

        Without it a storage can be opened as well.
        """
        try:
            with self._opened(create=True) as fd:
                # One that asks for half a disk is not ours.
                if not 0 < self._promised(fd) <= self._fs.space(fd).total // 2:
                    self._make(fd, wanted, path)
            if self.refill():
                # Whatever has cut it, a copy broken off perhaps: nobody is to enqueue in its place.
                self._note(short=True)
        except OSError as error:
            log.warning("%s: no space is kept for ending entries on a full disk: %s", path, error)

    def _make(self, fd: int, wanted: int, path: str) -> None:
        space = self._fs.space(fd)
        size = min(wanted, space.total // _SHARE)
        if size <= _HEAD or space.free < size + size // _SPARE:
            why = "there is no room for it now"
            log.warning("%s: no space is kept for ending entries on a full disk: %s", path, why)
            return
        if size < wanted:
            says = "%s: only %d bytes are kept for ending entries on a full disk, for the disk is small"
            log.warning(says, path, size)
        self._fs.truncate(fd, 0)
        self._fill(fd, size)
        body = orjson.dumps({"op": "reserve", "bytes": size})[:-1]
        write_all(self._fs, fd, record.finished(body), 0)
        # Under the lock, but once in a storage's life: should a power cut take it from a disk that is full,
        # nobody could make it again.
        self._fs.sync(fd)

    def _fill(self, fd: int, length: int) -> None:
        """Written, not only made longer: a hole keeps no space."""
        # No sync: what a power cut takes of it is filled up again.
        for at in range(self._fs.size(fd), length, len(_FILLING)):
            write_all(self._fs, fd, _FILLING[: length - at], at)

    @contextmanager
    def _opened(self, *, create: bool = False) -> Iterator[int]:
        fd = self._fs.open_file(self._directory, NAME, create=create)
        try:
            yield fd
        finally:
            self._fs.close(fd)

    def _promised(self, fd: int) -> int:
        """How long it is to be; 0 if it does not say so."""
        line, end, _ = self._fs.pread(fd, _HEAD, 0).partition(b"\n")
        try:
            record.check(line + end)
            return values.number(orjson.loads(line)["bytes"])
        except (ValueError, KeyError, TypeError):
            return 0

    def is_short(self) -> bool:
        """Whether some of it was given back."""
        try:
            with self._opened() as fd:
                return self._fs.size(fd) < self._promised(fd)
        except OSError:
            # Nobody can give anything back then.
            return False

    def _note(self, *, short: bool) -> None:
        """Tell everybody, before it is so or after it was so: they see it in their next turn."""
        control, journal = self._journal.control, self._journal
        mine, standing = journal.standing, control.read()
        if not standing.epoch:
            # In a recovery, which writes the block when it is done.
            journal.standing = mine._replace(short=int(short))
        elif bool(standing.short) is not short:
            standing = standing._replace(short=int(short))
            control.write(standing)
            # If not: a turn is about to begin, which takes it over from the block.
            if (mine.epoch, mine.end) == (standing.epoch, standing.end):
                journal.standing = standing

    # -- giving back -----------------------------------------------------------------------------------

    def give(self, error: OSError, need: int, leave: int = 0) -> bool:
        """Whether to try again what has failed with this, because there is more room now than there was.

        ``need``: at least so many bytes; 0 if nobody knows. ``leave``: so many pieces are not for this.
        """
        # What a failed sync was to write is lost; whether there is room now makes no difference to it.
        if error.errno not in FULL or isinstance(error, (SyncFailed, Unsynced)):
            return False
        try:
            with self._opened() as fd:
                return self._give(fd, error.errno, need, leave)
        except OSError as worse:
            log.warning("what is kept for a full disk cannot be given back: %s", worse)
            return False

    def _give(self, fd: int, why: int, need: int, leave: int) -> bool:
        fs, promised = self._fs, self._promised(fd)
        # A quota may be used up where the disk is not, and nothing tells how much is left of it.
        free = fs.space(fd).free if why == errno.ENOSPC else 0
        piece, size = promised // _PIECES, fs.size(fd)
        left = size - max(_HEAD, leave * piece)
        # File systems need more than what is written, some of them many blocks for a name. But where there is
        # much more it is something else that is wanting, inodes perhaps.
        if free > need + promised // 2 or left <= 0 or left + free < need:
            return False
        # Before it is so: should we die in between, whoever enqueues next finds that nothing is missing.
        self._note(short=True)
        fs.truncate(fd, size - min(left, max(piece, need + piece - free)))
        # Under the lock, on a full disk only: file systems give back what was cut off with their next commit.
        with suppress(OSError):
            fs.sync(fd)
        return True

    def has_room(self, need: int) -> bool:
        """Whether so much can be written again, and enough is left for those who end entries."""
        with self._opened() as fd:
            for_ending = FOR_ENDING * self._promised(fd) // _PIECES
            return self._fs.space(fd).free + self._fs.size(fd) - for_ending >= need

    # -- filling up ------------------------------------------------------------------------------------

    def lacks(self, *, adding: bool) -> int:
        """Called while the storage is short, by whoever is about to write.

        If something is to be added: how many bytes more must be free before that. Or OSError.
        """
        if adding:
            return self.refill()
        if time.monotonic() >= self._look_again_at:
            # Others use the disk as well: what comes free is not to be theirs.
            self._look_again_at = time.monotonic() + _EVERY
            with suppress(OSError):
                self.refill()
        return 0

    def refill(self) -> int:
        """Fill it up if there is room for it and some to spare; else how much more must be free for that.

        Without the spare room it would be given back at once.
        """
        try:
            with self._opened() as fd:
                promised = self._promised(fd)
                missing = promised - self._fs.size(fd)
                if missing > 0:
                    lacking = missing + promised // _SPARE - self._fs.space(fd).free
                    if lacking > 0:
                        return lacking
                    self._fill(fd, promised)
        except FileNotFoundError:
            pass  # removed, so nothing is kept any more
        self._note(short=False)
        return 0


def retrying(call: Callable[[], T], give: Give, need: int = 0) -> T:
    """What it gives; called again as long as there was no room for it and something is given back.

    ``need``: at least so many bytes; 0 if nobody knows.
    """
    while True:
        try:
            return call()
        except OSError as error:
            if not give(error, need):
                raise
