"""Getting the other journal file ready before this one is full.

A file's old frames may go once the segments hold their lines durably. So: sync the segments that they wrote
to, note in ``ends.jsonl`` how far, then give the file its next epoch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from duraq.errors import StorageError, StorageFailed
from duraq.journal import checkpoint, ends
from duraq.journal.filesystem import SyncFailed
from duraq.journal.recovery import Replay, Unsynced, newest_epoch
from duraq.journal.reserve import retrying

if TYPE_CHECKING:
    from duraq.journal.log import Log

log = logging.getLogger("duraq")

REOPEN = "close the storage in every process and open it again"


class Recycling:
    """One process's part in it; whichever comes first does it for all."""

    def __init__(self, journal_log: Log, lock: int) -> None:
        self._log = journal_log
        self._fs = journal_log.fs
        self._lock = lock
        self._threads = threading.Lock()
        self._thread: threading.Thread | None = None
        self._prepared = 0  # epoch known to be ready to go over to

    def if_due(self) -> None:
        """Once half of the current journal file is used, prepare the other one in the background."""
        journal = self._log.journal
        standing = journal.standing
        if (standing.end - standing.base) * 2 < journal.capacity or self._prepared > standing.epoch:
            return
        # A thread, for its syncs take many times as long as the operation that happens to come by.
        if self._thread is None or not self._thread.is_alive():
            # By a name of its own: a signal handler that commits may come in between, and start another.
            self._thread = thread = threading.Thread(target=self._quietly, name="duraq-recycler", daemon=True)
            thread.start()

    def join(self) -> None:
        """Wait for what was begun in the background."""
        if self._thread is not None:
            with suppress(RuntimeError):  # interrupted before it was started
                self._thread.join()

    def _quietly(self) -> None:
        try:
            self.make_room(0)
        except (OSError, StorageError) as error:
            # Whoever needs the room will try for itself, and be told.
            log.warning("%s: preparing the other journal file failed: %s", self._log.path, error)

    def make_room(self, length: int, *, enqueuing: bool = False) -> None:
        """Prepare the other journal file for a frame of this length; waits for whoever is at it."""
        with self.alone():
            if enqueuing:
                self._prepare(length)
            else:
                retrying(lambda: self._prepare(length), self._log.give, length)

    def _prepare(self, length: int) -> None:
        try:
            self._recycle(length)
        except SyncFailed as error:
            # Neither file can be given a new epoch any more, for nobody can say what is durable. A
            # recovery can: it writes everything again that the journal still holds.
            self._log.fail_at_least()
            raise StorageFailed(f"a sync failed ({error})", path=self._log.path, hint=REOPEN) from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else prepares a file or notes the ends meanwhile. To be taken before the storage's lock."""
        with self._threads:
            self._log.check_usable()
            try:
                self._fs.lock(self._lock)
                yield
            finally:
                self._fs.unlock(self._lock)

    def _recycle(self, length: int) -> None:
        journal, sizes = self._log.journal, self._log.sizes
        self._log.lock()
        standing = journal.standing
        self._log.unlock()
        ahead = journal.try_header(standing.epoch + 1)
        if ahead is None:
            self._sync_segments(standing.epoch - 1)
            journal.prepare(standing, max(sizes.journal, length))
        elif ahead.capacity < length:
            # Under the lock, for once: the file is ready to be gone over to, and must not be used as long
            # as its header and its size disagree. Happens when a group is larger than ever before.
            self._log.lock()
            try:
                if journal.standing.epoch == standing.epoch:
                    journal.prepare(journal.standing, length)
            finally:
                self._log.unlock()
        self._prepared = standing.epoch + 1

    # -- what the frames wanted ------------------------------------------------------------------------

    def touched(self, epoch: int) -> dict[tuple[str, int], int]:
        """Where that epoch's frames left each (queue, segment)."""
        # No header of that epoch: a crash tore it after its frames had been made durable, or never was one.
        journal = self._log.journal
        return journal.touched(epoch) if journal.try_header(epoch) else {}

    def make_durable(self, touched: dict[tuple[str, int], int], position: int) -> None:
        """Sync these segments, then note that frames before ``position`` are not needed any more.

        Under the lock.
        """
        with self._syncing():
            Replay(self._fs, self._log.root).sync(touched)
        retrying(lambda: self._note_ends(touched, position), self._log.reserve.give)

    def _sync_segments(self, epoch: int) -> None:
        """The same for what that epoch's frames wrote; its file may then be overwritten."""
        touched = self.touched(epoch)
        journal, root = self._log.journal, self._log.root
        with self._syncing():
            try:
                Replay(self._fs, root).sync(touched)
            except Unsynced as error:
                # The kernel has dropped what it could not write; a second sync would lie. So make it dirty
                # again, from the journal (with what came later: it may have been dropped too), and sync that.
                log.error("syncing a segment failed (%s); writing its lines again from the journal", error)
                try:
                    self._write_again()
                    Replay(self._fs, root).sync(touched)
                except OSError as again:
                    raise SyncFailed(*again.args) from again
        self._note_ends(touched, journal.header(epoch + 1).base)
        checkpoint.sync(self._fs, root, touched)

    @contextmanager
    def _syncing(self) -> Iterator[None]:
        """Segments are synced meanwhile.

        Whoever did that last may have died at it, with the news that a sync has failed; the kernel tells it
        once, and would have ours pass over what was dropped. Then all lines are written again first.
        """
        if self._log.control.syncing:
            self._write_again()
        self._log.control.note_syncing(begun=True)
        yield
        self._log.control.note_syncing(begun=False)

    def _write_again(self) -> None:
        """Make all lines dirty that the journal's frames have."""
        journal = self._log.journal
        epochs = (journal.standing.epoch - 1, journal.standing.epoch)
        frames = [
            frame for epoch in epochs if journal.try_header(epoch) for frame in journal.frames_of(epoch)
        ]
        Replay(self._fs, self._log.root).rewrite(frames)

    def _note_ends(self, touched: dict[tuple[str, int], int], position: int) -> None:
        directory = self._log.directory
        required = newest_epoch(self._fs, self._log.journal.files) > 2
        known = ends.load(self._fs, directory, required=required)
        ends.merge(known.queues, touched)
        ends.save(self._fs, directory, ends.Ends(max(known.position, position), known.queues))
