"""The storage's log: every queue's segments and the journal before them, shared by many processes.

The write path. One lock (a thread lock, then flock on ``journal/lock``) covers deciding and writing:

    lock          read the control block; if others wrote, make sure their last frame reached its segments
    (fold)        the caller catches up and decides
    append        one pwrite of the frame, the control block, one pwrite per segment
    unlock
    settle        fdatasync of the journal, outside every lock, shared with whoever waits for it too

No sync and nothing of the user's runs under the lock, so a process that is stopped holds nobody up for long
in the ordinary case; the exceptions are listed in docs/ARCHITECTURE.md, and each says why where it stands.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import get_ident
from types import FrameType
from typing import NamedTuple

from duraq import forks, stack
from duraq.errors import (
    OutcomeUnknown,
    StorageBusy,
    StorageClosed,
    StorageDamaged,
    StorageFailed,
    StorageForked,
)
from duraq.journal import ends, opening, refusal
from duraq.journal.control import NOTHING, Control, Standing
from duraq.journal.descriptors import Descriptors, Guard
from duraq.journal.failed_syncs import FailedSyncs
from duraq.journal.filesystem import FileSystem, write_all
from duraq.journal.frame import Part
from duraq.journal.group_commit import GroupCommit
from duraq.journal.journal import CannotUndo, Journal
from duraq.journal.recovery import Replay, newest_epoch, read_journal
from duraq.journal.recycling import REOPEN, Recycling
from duraq.journal.reserve import Reserve, retrying
from duraq.journal.segment import any_segment
from duraq.journal.segments import Segments
from duraq.journal.tail import Group, Tail

log = logging.getLogger("duraq")


class Sizes(NamedTuple):
    """How large things may get, in bytes."""

    journal: int = 4 << 20  # one file of the pair
    segment: int = 1 << 20  # sealed when it has grown past this
    group: int = 64 << 20  # one call's records

    @property
    def reserve(self) -> int:
        """What is kept for a full disk: writing a segment again takes two, with what lies beside it."""
        return min(self.journal, 4 * self.segment)


class Log:
    """An open storage's files. Every change goes through ``append`` under the lock, then ``settle``."""

    def __init__(
        self,
        file_system: FileSystem,
        path: str,
        sizes: Sizes,
        *,
        create: bool = True,
        history: opening.History | None = None,
        opened: Descriptors | None = None,
    ) -> None:
        """``opened``: those of a storage that is being opened, which then has its own guard over them."""
        self.fs = file_system
        self.path = path
        self.sizes = sizes
        self.closed = self.forked = False
        # Re-entrant, so that a thread that was interrupted in the middle of a turn can still close all this.
        self._threads = threading.RLock()
        self._inside = 0  # the thread that is in a turn
        self._call: FrameType | None = None  # whose turn that is
        self.shared = False  # whether others wrote between the last two turns of this process
        self.queues: dict[str, Segments] = {}
        self._opened = opened or Descriptors(file_system)
        guard = None if opened else Guard(self._opened)
        # Before anything is opened: a child forked by another thread meanwhile must not keep a lock of it.
        forks.register(self)
        try:
            self.root = self._opened.keep(file_system.open_root(path, create=create))
            opening.make_or_check(file_system, self.root, path, sizes.journal, create=create)
            self.history = opening.settle_history(file_system, self.root, path, history)
            self.directory = self._opened.keep(file_system.open_dir(self.root, "journal"))
            self.control = Control(file_system, self._journal_file("lock"))
            self._presence = self._journal_file("presence")
            self.recycling = Recycling(self, self._journal_file("recycle"))
            files = (self._journal_file("0.journal"), self._journal_file("1.journal"))
            self.journal = Journal(file_system, files, self.control)
            self.reserve = Reserve(file_system, self.directory, self.journal)
            self.failed_syncs = FailedSyncs(self)
            self.commits = GroupCommit(self._sync)
            self._arrive()
            self._opened.is_settled = guard is not None
        except BaseException:
            self._opened.close()
            raise

    def _journal_file(self, name: str) -> int:
        # Lock files are made here if missing, never removed and never truncated: two processes must mean the
        # same inode. The journal's files exist; one that does not is found empty, and so damaged.
        with forks.no_fork:
            return self._opened.keep(self.fs.open_file(self.directory, name, create=True))

    # -- opening ---------------------------------------------------------------------------------------

    def _arrive(self) -> None:
        """Be counted among those who have the storage open; the first one recovers it."""
        if self.fs.try_lock(self._presence):
            # Nobody else has it open: whatever the control block says is from another life.
            if not self.fs.size(self.control.fd) and self.fs.size(self._presence):
                self.fs.truncate(self._presence, 0)  # see _check_not_removed
            if newest_epoch(self.fs, self.journal.files) <= 2:
                # It is new. Whoever made it may have died, or be held up, before the marker's name was
                # durable; a power cut that takes it would have all made anew, over what was promised since.
                opening.sync_once(self.fs, self.root)
            self._recover()
        # flock trades an exclusive lock for the shared one in two steps; another process may get in between
        # and recover once more, which changes nothing.
        self.fs.share_lock(self._presence)
        self.fs.lock(self.control.fd)
        try:
            standing = self.control.read()
            self.failed_syncs.doubt_from(standing.synced)
            if not standing.epoch:
                self._check_not_removed()
            # Its first opener may have died while it was recovering, and the last to write before its lines
            # were in the segments. We are the next.
            try:
                self._refresh(standing, NOTHING)
            except StorageDamaged as error:
                # Of one queue; whoever uses it is told.
                log.error("%s: what a dead process has left cannot be completed: %s", self.path, error)
                self.journal.adopt(standing)
            self.reserve.arrange(self.sizes.reserve, self.path)
            if not self.fs.size(self._presence):
                retrying(lambda: write_all(self.fs, self._presence, b"\n", 0), self.reserve.give)
        finally:
            self.fs.unlock(self.control.fd)

    def _check_not_removed(self) -> None:
        """Raise if the lock is a new one, while others go on with the one before it.

        Or its first opener has died before he wrote to it, and those who wait behind him are all there are:
        then nobody has yet left a byte in ``presence``. (Not synced: it is about those who live.)
        """
        if self.fs.size(self.control.fd) or not self.fs.size(self._presence):
            return
        alone = self.fs.try_lock(self._presence)
        self.fs.share_lock(self._presence)
        if not alone:
            raise StorageFailed(
                "journal/lock was removed while others had the storage open", path=self.path, hint=REOPEN
            )

    def _recover(self) -> None:
        self.fs.lock(self.control.fd)
        try:
            self.failed_syncs.doubt_from(self.control.read().synced)
            self._recover_under_lock()
        finally:
            self.fs.unlock(self.control.fd)

    def _recover_under_lock(self) -> None:
        failed = self.control.read().failed
        # Whoever comes now must not believe the block before it is written anew.
        self.control.write(NOTHING._replace(failed=failed))
        # The first recycling prepares epoch 3; before that there may be nothing to note.
        required = newest_epoch(self.fs, self.journal.files) > 2
        known = ends.load(self.fs, self.directory, required=required)
        found = read_journal(self.fs, self.journal.files, known.position)
        names = self.names()
        retrying(
            lambda: Replay(self.fs, self.root).recover(found.frames, known.queues, names), self.reserve.give
        )
        if found.newest > found.standing.epoch:
            self.journal.clear(found.newest)
        standing = found.standing._replace(short=int(self.reserve.is_short()))
        self.journal.adopt(standing)
        if failed or self.failed_syncs.is_poisoned(found.standing.epoch):
            # A sync failed in another life. What the page cache shows may be nowhere else, and no sync would
            # write it: so all of it is written again, and nothing is promised from that file any more.
            Replay(self.fs, self.root).rewrite(found.frames)
            self.failed_syncs.leave_file(standing, afresh=True)
        else:
            self.control.write(standing)

    def give(self, error: OSError, need: int) -> bool:
        """As that of the reserve, in a turn or outside of one."""
        with self._threads:
            if self._inside:
                return self.reserve.give(error, need)
            self.lock()
            try:
                return self.reserve.give(error, need)
            finally:
                self.unlock()

    def come_to_rest(self) -> None:
        """Make all of the journal durable in the segments, so that none of its frames is needed any more.

        Raises StorageBusy if anybody else has the storage open. Whoever opens it from now on waits until this
        one is closed.
        """
        if not self.fs.try_lock(self._presence):
            raise StorageBusy(
                "somebody has the storage open",
                path=self.path,
                hint=f"stop whatever works on it; `fuser {self.path}/journal/presence` names the processes",
            )
        with self.recycling.alone():
            self.lock()
            try:
                # Should one of its syncs fail: that somebody was syncing stands in the control block, and
                # whoever opens the storage next writes again what none is known to have written.
                self.failed_syncs.go_over(self.journal.standing, afresh=True)
            finally:
                self.unlock()

    def close(self) -> None:
        """Give up every descriptor and lock, once no thread is in the middle of a turn.

        Once more, after it was interrupted, it goes on.
        """
        self.recycling.join()
        idle = self.commits.close()
        with self._threads:
            self.closed = True
            if not idle:
                # A disk that does not answer. The sync's descriptors stay open: their numbers, given to other
                # files, would have it write and sync there. The next opener is not kept waiting.
                self.fs.unlock(self._presence)
                self._opened.leave()
            self._let_go()

    def _let_go(self) -> None:
        with forks.no_fork:
            while self.queues:
                self.queues.popitem()[1].close()
            self._opened.close()

    def after_fork_in_child(self) -> None:
        """The descriptors are the parent's: close them, unlock nothing (that would unlock the parent)."""
        self.forked = self.forked or not self.closed
        self.closed = True
        # Locks may be held by threads that do not exist here.
        self._threads, self._inside, self._call = threading.RLock(), 0, None
        self._let_go()

    def check_usable(self) -> None:
        """Raise StorageForked or StorageClosed if it is not."""
        if self.forked:
            raise StorageForked(
                "this storage was opened before a fork",
                path=self.path,
                hint="open a new one in the child process",
            )
        if self.closed:
            raise StorageClosed("this storage is closed", path=self.path)

    # -- the lock --------------------------------------------------------------------------------------

    def lock(self, call: FrameType | None = None) -> None:
        """Hold the storage's lock; everything written by others is in the segments, to be caught up on.

        ``call``: the one that will give it up; by default whoever calls this.
        """
        # A signal handler may raise behind any call: what is taken here is given up whatever happens, and
        # until it is noted whose turn this is nothing else is called.
        call, thread = call or stack.caller_of_caller(), get_ident()
        try:
            self._threads.acquire()
        except BaseException:
            with suppress(RuntimeError):  # not acquired
                self._threads.release()
            raise
        if self._inside:
            self._threads.release()
            raise StorageFailed(
                "a call was broken off in its middle, or this one comes from a signal handler within it",
                path=self.path,
                hint="in a signal handler, set a flag instead; else close the storage and open it again",
            )
        # First the call, so that whoever finds it held can see whether it is still going on.
        self._call = call
        self._inside = thread
        try:
            if self.closed:
                self.check_usable()
            self.fs.lock(self.control.fd)
            standing = self.control.read()
            mine = self.journal.standing
            if standing is mine:
                self.shared = False
            else:
                self._refresh(standing, mine)
        except BaseException:
            self.unlock()
            raise

    def unlock(self) -> None:
        """Give the lock up."""
        self._inside, self._call = 0, None
        try:
            if not self.closed:
                self.fs.unlock(self.control.fd)
        finally:
            self._threads.release()

    def _check_not_failed(self, standing: Standing) -> None:
        if standing.failed:
            raise StorageFailed(
                "an earlier sync failed and could not be made good", path=self.path, hint=REOPEN
            )

    def _refresh(self, standing: Standing, mine: Standing) -> None:
        """Others, or other threads, have been here since."""
        self._check_not_failed(standing)
        if not standing.epoch:
            # Somebody died in the middle of writing the block. The journal itself says where it stands.
            self._recover_under_lock()
            self.shared = True
            return
        self.commits.learn(standing.synced)
        self.shared = standing.end != mine.end or standing.epoch != mine.epoch
        if self.shared and standing.synced < standing.end and standing.start < standing.end:
            # Whoever wrote the last frame may have died before its lines reached the segments. (If it is
            # synced, its writer lived long enough to write them first.)
            frame = self.journal.last_frame(standing)
            if not all(map(self._reached_its_segment, frame.parts())):
                retrying(lambda: Replay(self.fs, self.root).run([frame]), self.reserve.give)
                standing = self.control.read()
        # Not before: should that fail, the next turn is to come back to it, and no sync of another thread may
        # say meanwhile that the frame is durable, which would pass for its lines being there.
        self.journal.adopt(standing)

    def _reached_its_segment(self, part: Part) -> bool:
        queue = self.queues.get(part.queue)
        if queue is None:
            return Replay(self.fs, self.root).reaches(part)
        return queue.tail.reaches(part.segment, part.offset + len(part.lines))

    def end_broken_turn(self, forget: Callable[[], None]) -> None:
        """If a turn of this thread was broken off so that it left the lock held, give it up.

        ``forget`` makes good what the turn may have left half done.
        """
        if self._inside != get_ident():
            return
        with self._threads:
            if not stack.is_running(self._call):
                try:
                    forget()
                finally:
                    self.unlock()

    def doubt(self) -> None:
        """A turn was broken off: whoever has the lock next is to read from the journal where it stands.

        There may be a frame that the control block knows nothing of. It would appear at the next recovery;
        better now, than after everybody was told that it is not there.
        """
        self.control.write(NOTHING._replace(failed=self.control.read().failed))

    # -- under the lock --------------------------------------------------------------------------------

    def queue(self, name: str, *, create: bool = False) -> Segments | None:
        """The queue's segments, or None if there is no such queue."""
        found = self.queues.get(name)
        if found is None:
            there = self.fs.exists(self.root, name)
            if there:
                self._check_not_refused(name)
            # Who only looks makes nothing: a queue without a segment has no record.
            if not create and not (there and any_segment(self.fs, self.root, name)):
                return None
            if not there:
                self._check_is_new(name)
                # No sync: until a recycling syncs the names, the journal's frames bring them back.
                home = self.fs.open_dir(self.root, name, create=True)
                try:
                    for part in ("segments", "waiters"):
                        self.fs.close(self.fs.open_dir(home, part, create=True))
                finally:
                    self.fs.close(home)
            found = Segments(self.fs, self.root, name, writable=True, limit=self.sizes.segment)
            self.queues[name] = found
        return found

    def _check_is_new(self, name: str) -> None:
        """Raise if there was such a queue: somebody has removed it, and others may still have it open."""
        known = ends.load(self.fs, self.directory, required=False).queues.keys()
        if name in known or (self.journal.may_mention(name) and name in self._touched()):
            raise StorageDamaged("the queue's directory was removed", path=name, hint=REOPEN)

    def _touched(self) -> set[str]:
        """The queues that the journal's frames wrote to."""
        epoch = self.journal.standing.epoch
        return {queue for each in (epoch - 1, epoch) for queue, _ in self.recycling.touched(each)}

    def _check_not_refused(self, name: str) -> None:
        home = self.fs.open_dir(self.root, name)
        try:
            refusal.check(self.fs, home, name)
        finally:
            self.fs.close(home)

    def reopen(self, name: str) -> Segments:
        """The queue's segments, read from their beginning."""
        # Not there if this failed once before.
        before = self.queues.pop(name, None)
        if before is not None:
            before.close()
        # Made, if whoever was about to make its first segment was interrupted.
        found = self.queue(name, create=True)
        assert found is not None
        return found

    def append(self, groups: Sequence[tuple[Tail, Group]], *, soon: bool = True) -> int:
        """Write the groups as one frame and into their segments; returns the position to settle.

        ``soon``: the caller is about to settle it, so the disk may as well begin.
        Raises NeedsRoom or OSError; then nothing is written.
        """
        parts = (
            groups[0][1].parts if len(groups) == 1 else [part for _, group in groups for part in group.parts]
        )
        # If others write too, one of them waits for the lock; the disk is at work all the same.
        soon = soon and not self.shared
        try:
            after = self.journal.append(parts, self.commits.synced, start_writing=soon)
        except CannotUndo as error:
            raise self._cannot_undo(error) from error
        try:
            for tail, group in groups:
                tail.write(group)
        except OSError:
            # Disk full: the frame must go, and go durably, before anyone is told that nothing was written.
            try:
                for tail, group in groups:
                    tail.cut(group)
                self.journal.take_back(after)
            except OSError as worse:
                raise self._cannot_undo(worse) from worse
            raise
        # Not before: a position that another thread had synced, and that was then taken back, would be used
        # again for a frame that nobody has synced.
        self.journal.adopt(after)
        for tail, group in groups:
            tail.accept(group)
        return after.end

    def _cannot_undo(self, error: OSError) -> OutcomeUnknown:
        with suppress(OSError):
            self.failed_syncs.fail()
        return OutcomeUnknown(
            f"a half-written change could not be undone ({error})", path=self.path, hint=REOPEN
        )

    def names(self) -> list[str]:
        """The queues that exist."""
        return opening.queue_names(self.fs, self.root)

    def note_waiters(self, *, some: bool) -> None:
        """Note whether anybody may be waiting; under the lock."""
        standing = self.journal.standing
        if bool(standing.waiters) is not some:
            standing = standing._replace(waiters=int(some))
            self.control.write(standing)
            self.journal.standing = standing

    # -- durability, outside the lock ------------------------------------------------------------------

    def settle(self, position: int) -> None:
        """Return once everything before ``position`` survives a power cut. Raises OutcomeUnknown."""
        self.commits.wait_for(position)

    def _sync(self) -> int:
        self.failed_syncs.before_sync()
        standing = self.journal.standing
        try:
            self.journal.datasync(standing, self.commits.synced)
        except OSError as error:
            return self.failed_syncs.make_good(standing, error)
        try:
            # Whoever opens the storage now knows nothing of this lock, and writes where we write.
            if not self.fs.has_name(self.control.fd):
                self.failed_syncs.fail()
                raise OutcomeUnknown("journal/lock was removed", path=self.path, hint=REOPEN)
        except OSError as error:
            raise OutcomeUnknown(
                f"nobody knows whether journal/lock was removed ({error})", path=self.path, hint=REOPEN
            ) from error
        if self.shared or standing.waiters:
            # Whoever reads these frames next need not sync for itself. Alone, the next write says it as well.
            self.control.publish_synced(standing.end)
        return standing.end

    def fail_at_least(self) -> None:
        """Nothing is accepted any more until the storage is reopened, whatever comes between."""
        with self._threads, suppress(OSError):
            if not self._inside:
                self.fs.lock(self.control.fd)
                try:
                    self.failed_syncs.fail_at_all_costs()
                finally:
                    self.fs.unlock(self.control.fd)
