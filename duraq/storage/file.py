"""Queues in files: the fold, and the journal and segments that it is the fold of."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Literal

from duraq import forks, options, stack
from duraq.clock import Clock, SystemClock, from_timedelta
from duraq.entry import Entry
from duraq.errors import (
    DuraqError,
    GroupTooLarge,
    InvalidOption,
    NetworkFileSystem,
    NotAStorage,
    NotEnqueued,
    NotWritten,
    QueueNotFound,
    StorageDamaged,
    StorageError,
)
from duraq.journal import opening, wording
from duraq.journal.descriptors import Descriptors, Guard
from duraq.journal.filesystem import FileSystem, RealFileSystem
from duraq.journal.folded import Folded
from duraq.journal.journal import NeedsRoom
from duraq.journal.lease import WorkerPresence
from duraq.journal.log import Log, Sizes
from duraq.journal.mounts import file_system_type, is_network
from duraq.journal.pieces import LONGEST_LINE
from duraq.journal.reserve import FOR_ENDING, FOR_REMOVING
from duraq.journal.segment import bytes_on_disk
from duraq.journal.tail import Group
from duraq.journal.waiters import Waiters
from duraq.model import ACTS, OWN_QUEUES, is_users
from duraq.operations import Complete, Drop, Enqueue, Keep, Operation, Restore
from duraq.shelf import Mislaid
from duraq.state import QueueState
from duraq.storage.calls import Calls
from duraq.storage.checkpointer import Checkpointer
from duraq.storage.committing import enqueues
from duraq.storage.compactor import Compacted, Compactor
from duraq.storage.file_waiting import FileWaitingStorage, KnownQueue
from duraq.storage.flusher import Flusher
from duraq.storage.fold import NoRoom, TryAgain
from duraq.storage.tidying import Tidier
from duraq.storage.upkeep import Upkeep
from duraq.times import rfc3339

log = logging.getLogger("duraq")

Durability = Literal["power", "batched", "process"]


class _Turn:
    """The storage's lock, as a with-block."""

    __slots__ = ("_log", "_storage")

    def __init__(self, storage: FileStorage, log: Log) -> None:
        self._storage, self._log = storage, log

    def __enter__(self) -> None:
        call = stack.caller_of_caller()
        try:
            # A Ctrl-C may have come between a with-block and its end.
            self._log.end_broken_turn(self._storage._forget)  # noqa: SLF001
            self._log.lock(call)
            while self._storage._in_doubt:  # noqa: SLF001
                # In a turn of its own: the next one then begins with what is true.
                try:
                    self._storage._forget()  # noqa: SLF001
                finally:
                    self._log.unlock()
                self._log.lock(call)
        except OSError as error:
            raise self._storage._refused(error, self._storage.path, NotWritten) from error  # noqa: SLF001

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            # A Ctrl-C may come anywhere, so that something is written and not yet folded, or the reverse.
            if isinstance(error, Mislaid):
                self._storage._mislay(error)  # noqa: SLF001
            elif isinstance(error, OSError):
                # In reading, so that nothing was written; what was read may be half of it.
                self._storage._mislay_all()  # noqa: SLF001
                raise self._storage._refused(error, self._storage.path, StorageError) from error  # noqa: SLF001
            elif kind is not None and not issubclass(kind, (DuraqError, TryAgain)):
                # Should this be broken off as well, for want of memory perhaps, a turn for it comes first.
                self._storage._in_doubt = True  # noqa: SLF001
                self._storage._forget()  # noqa: SLF001
        finally:
            self._log.unlock()
        if kind is not None:
            # Whoever was refused for want of space does not get as far as where this is done as a rule.
            self._storage._upkeep.if_due()  # noqa: SLF001


class FileStorage(FileWaitingStorage):
    """A directory of queues, shared by any number of processes on one host.

    ``durability``: "power" (the default) returns when a change survives a power cut; "batched" returns at
    once and syncs within ``batch_window``, so a power cut may take the changes of that window; "process"
    never syncs for a caller: changes survive the death of any process, and a power cut may take the last
    ones. What is taken is always the end of the journal, never something in between.

    ``lock_duration``: how long a lease lasts unless it is extended. ``max_payload_bytes``: up to 16 MiB.
    ``history``: how much to keep of what is over, of each queue: for how long, or how many bytes. It is
    written down for everybody who opens the storage from now on; None leaves it as it was, at first nothing.
    ``sizes``: of the journal (when it is created), of a segment, of the largest group.
    ``create``: make the storage if there is none yet. ``allow_network``: open a storage on a network or FUSE
    file system, where nothing is promised. ``clock`` and ``file_system``: for tests, see ``duraq.testing``.

    Raises InvalidOption, NotAStorage, UnsupportedVersion, NetworkFileSystem, StorageReadOnly or
    StorageDamaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "power",
        batch_window: timedelta = timedelta(milliseconds=20),
        lock_duration: timedelta = timedelta(minutes=5),
        max_payload_bytes: int = 1 << 20,
        history: timedelta | int | None = None,
        sizes: Sizes | None = None,
        create: bool = True,
        allow_network: bool = False,
        clock: Clock | None = None,
        file_system: FileSystem | None = None,
    ) -> None:
        _check_options(durability, batch_window)
        # Not resolved: messages speak of the path that was given, even if it is a link today.
        self.path = self._where = str(Path(path).absolute())
        try:
            clock = clock or SystemClock()
            kind = "" if allow_network else file_system_type(self.path)
        except OSError as error:
            raise wording.of(error, self.path) from error
        super().__init__(clock, lock_duration, max_payload_bytes)
        self.durability = durability
        self._power = durability == "power"
        keep = options.history(history)
        self._calls = self._new_calls()
        self._need = 0
        self._queues: dict[str, KnownQueue] = {}
        self._in_doubt = False  # what is known has yet to be forgotten
        self._closing = self._is_over = False
        self._closing_lock = threading.RLock()
        self._next_recount = 0.0
        if is_network(kind):
            raise NetworkFileSystem(
                f"{kind} is a network or user-space file system; locks and syncs promise nothing there",
                path=self.path,
                hint="use a local disk, or allow_network=True at your own risk",
            )
        # For leases and waiters the real one whatever is given: they are about processes, not about a disk.
        self._fs = file_system or RealFileSystem()
        try:
            # Whatever keeps it from being opened, nobody else could close what was opened by then.
            opened = Descriptors(self._fs)
            _guard = Guard(opened)
            with ExitStack() as undo:
                self._log = Log(
                    self._fs, self.path, sizes or Sizes(), create=create, history=keep, opened=opened
                )
                undo.callback(self._log.close)
                self._leases = self._fs.open_dir(self._log.root, "leases", create=True)
                undo.callback(self._fs.close, self._leases)
                self._set_up(batch_window)
                undo.pop_all()
                opened.is_settled = True
        except FileNotFoundError as error:
            raise NotAStorage("there is no such directory", path=self.path) from error
        except OSError as error:
            raise wording.of(error, self.path) from error
        opening.warn_if_exposed(self.path)

    def _set_up(self, batch_window: timedelta) -> None:
        self._turn = _Turn(self, self._log)
        self._presence = WorkerPresence(self._leases, self.clock)
        self._upkeep = Upkeep(self._log, self._turn)
        self._checkpointer = Checkpointer(self._log, self._upkeep, self._turn)
        self._compactor = Compactor(
            self._log,
            self.clock,
            self._upkeep,
            turn=self._turn,
            folded=self._folded,
            write=lambda queue, operations, seal: self._write({queue: operations}, soon=True, seal=seal),
            make_room=lambda: self._make_room(enqueuing=False),
        )
        self._tidier = Tidier(self._log, self._upkeep, self._end_some)
        batched = self.durability == "batched"
        self._flusher = Flusher(self._log, batch_window.total_seconds()) if batched else None
        forks.register(self)

    def __repr__(self) -> str:
        return f"<FileStorage {self.path!r}>"

    # -- turns -----------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        self._log.check_usable()

    def _state(self, queue: str, *, create: bool = False) -> QueueState | None:
        try:
            known = self._queues.get(queue)
            if known is None:
                segments = self._log.queue(queue, create=create)
                if segments is None:
                    return None
                waiters = Waiters(self._fs.open_dir(segments.home, "waiters", create=True))
                known = KnownQueue(Folded(self._fs, segments, give=self._log.give), waiters)
                self._queues[queue] = known
            end = self._log.journal.standing.end
            if known.folded.segments.read_at != end:
                self._catch_up(known, end)
                known.folded.segments.read_at = known.folded.segments.tail.seen_at = end
        except OSError as error:
            if create and queue in OWN_QUEUES and self._log.give(error, 0):
                return self._state(queue, create=True)
            raise self._refused(
                error, f"{self.path}/{queue}", NotEnqueued if create else NotWritten
            ) from error
        return known.folded.state

    def _new_calls(self) -> Calls | None:
        return Calls(self._commit, self._commit_all) if self._power else None

    def _is_at_its_end(self, queue: str) -> bool:
        known, end = self._queues.get(queue), self._log.journal.standing.end
        if known is None or known.stale or known.damage is not None:
            return False
        segments = known.folded.segments
        if known.folded.state.may_have_expired:
            return False  # it is for whoever comes by to end what is over
        if segments.tail.seen_at != end:
            try:
                if not segments.tail.follow():
                    return False
            except OSError as error:
                raise self._refused(error, f"{self.path}/{queue}", NotEnqueued) from error
            segments.tail.seen_at = end
        return True

    def _folded(self, queue: str) -> Folded | None:
        return None if self._state(queue) is None else self._queues[queue].folded

    def _forget(self) -> None:
        """What is known may be half of the truth: read it anew when it is needed."""
        self._in_doubt = True
        self._mislay_all()
        self._log.doubt()
        self._in_doubt = False

    def _mislay_all(self) -> None:
        for known in self._queues.values():
            known.mislay()

    def _mislay(self, lost: Mislaid) -> None:
        self._queues[lost.queue].mislay(lost)

    def _catch_up(self, known: KnownQueue, end: int) -> None:
        if known.damage is not None:
            raise known.damage.with_traceback(None)
        folded, checkpoint = known.folded, known.folded.checkpoint
        try:
            while True:
                try:
                    if known.stale:
                        folded = self._begun_anew(known, folded)
                    folded.catch_up(end)
                    break
                except Mislaid as error:
                    known.mislay(error)
        except OSError:
            # A record may have been read and not folded.
            known.mislay()
            raise
        except StorageDamaged as error:
            # What was read before it must not pass for all there is.
            known.damage = error
            raise
        # Whoever wrote a seal may be one who only enqueues, and knows nothing of what is over.
        if folded is known.folded and (folded.checkpoint != checkpoint or folded.is_worth_a_look):
            self._compactor.note(folded)
        # Only now: threads that look without a turn see the state as it was before, or whole.
        known.folded, known.stale = folded, False

    def _begun_anew(self, known: KnownQueue, before: Folded) -> Folded:
        """From the newest checkpoint, or from the first record if what it names was lost."""
        if known.lost is not None:
            # Nothing unusual: others compact, and a checkpoint is made again.
            log.info("%s; going on from what else is there", known.lost)
        distrusted = 0 if known.lost is None else before.distrusted
        found = Folded(self._fs, self._log.reopen(before.state.name), distrusted, give=self._log.give)
        known.lost = None
        return found

    def _known_state(self, queue: str, *, whole: bool = False) -> QueueState | None:
        known = self._queues.get(queue)
        if known is None:
            return None
        segments = known.folded.segments
        return None if whole and segments.read_at < segments.tail.seen_at else known.folded.state

    def _write(
        self, changes: Mapping[str, Sequence[Operation]], *, soon: bool = False, seal: bool = False
    ) -> int:
        at = self.clock.now()
        stamp = rfc3339(at)
        if self._log.journal.standing.short:
            self._check_space(changes)
        while True:
            groups, length = [], 0
            try:
                for queue, operations in changes.items():
                    tail = self._queues[queue].folded.segments.tail
                    group = tail.compose(operations, stamp, seal=seal)
                    groups.append((tail, group))
                    length += group.bytes
                    if group.bytes > LONGEST_LINE and max(map(len, group.lines)) > LONGEST_LINE:
                        raise self._too_large(group.bytes)  # nobody would read it
                # What is written already can be written again, however long it has become meanwhile.
                if length > self._log.sizes.group and not _are_written(changes):
                    raise self._too_large(length)
                end = self._log.append(groups, soon=soon and self._power)
                break
            except NeedsRoom as need:
                self._need = need.length
                raise NoRoom from None
            except OSError as error:
                self._make_space(error, changes, length)
        for (queue, operations), (_, group) in zip(changes.items(), groups, strict=True):
            self._fold_own(self._queues[queue], operations, group, at, end)
            # Whoever has completed one asks for the next. Among others it would be taken by one of them.
            if soon and self._power and isinstance(operations[0], Complete) and not self._log.shared:
                self._queues[queue].folded.read_ahead()
        return end

    def _make_space(self, error: OSError, changes: Mapping[str, Sequence[Operation]], need: int) -> None:
        """Return if it may be tried again, with what is kept for a full disk; else raise what was refused."""
        (operation, *_), *_ = changes.values()
        leave = 0 if isinstance(operation, Drop) else FOR_ENDING if _are_written(changes) else FOR_REMOVING
        if _add(changes) or not self._log.reserve.give(error, need, leave):
            raise self._not_written(error, changes) from error

    def _check_space(self, changes: Mapping[str, Sequence[Operation]]) -> None:
        """Raise if there is only what is kept for a full disk, and these are not to take it."""
        try:
            lacking = self._log.reserve.lacks(adding=_add(changes))
        except OSError as error:
            raise self._not_written(error, changes) from error
        if lacking:
            raise NotEnqueued(
                "what is left of the disk is kept for those who end entries",
                path=self._place(changes),
                hint="the disk is full; nothing was written; free some space and try again"
                f" (at least {-(-lacking // 1024)} KiB, or as much of the quota)",
            )

    def _not_written(self, error: OSError, changes: Mapping[str, Sequence[Operation]]) -> StorageError:
        return self._refused(error, self._place(changes), NotEnqueued if enqueues(changes) else NotWritten)

    def _place(self, changes: Mapping[str, Sequence[Operation]]) -> str:
        return f"{self.path}/{next(iter(changes))}" if len(changes) == 1 else self.path

    def _check_beginning(self, queue: str, operations: Sequence[Operation], max_size: int | None) -> None:
        super()._check_beginning(queue, operations, max_size)
        if self._log.journal.standing.short:
            # Before it has directories, which take space as well.
            self._check_space({queue: operations})

    def _fold_own(
        self, known: KnownQueue, operations: Sequence[Operation], group: Group, at: int, end: int
    ) -> None:
        folded, segments = known.folded, known.folded.segments
        segments.tail.seen_at = end
        if not segments.is_at(group):
            # What others wrote before it was not needed. All of it is read together, when it is.
            if group.seal is not None:
                self._checkpointer.note(segments.queue)
            return
        segments.read_at = end
        try:
            folded.written(operations, group, at, end)
        except Mislaid as error:
            # It is written, whatever has become of what was kept beside it: the next look reads it.
            known.mislay(error)
        except OSError as error:
            name = segments.queue
            log.warning("queue %s: reading what is kept beside its segments failed: %s", name, error)
            known.mislay()
        if group.seal is not None or folded.is_worth_a_look:
            self._compactor.note(folded)

    def _too_large(self, length: int) -> GroupTooLarge:
        return GroupTooLarge(
            f"{self.path}: the records of this call take {length} bytes, the limit is {self._log.sizes.group}"
            " (enqueue in smaller batches, or open the storage with a larger sizes.group)"
        )

    def _make_room(self, *, enqueuing: bool) -> None:
        try:
            self._log.recycling.make_room(self._need, enqueuing=enqueuing)
        except OSError as error:
            raise self._refused(error, self.path, NotEnqueued if enqueuing else NotWritten) from error

    def _settle(self, position: int) -> None:
        # First, for the disk is at work already; afterwards the caller would wait for it.
        self._log.recycling.if_due()
        self._upkeep.if_due()
        if self._power:
            self._log.settle(position)
        elif self._flusher is not None:
            self._flusher.note()
        if self._compactor.late:
            self._compactor.help()

    def _settle_to_read(self, position: int) -> int:
        took = 0
        if self._power and position > self._log.commits.synced:
            begin = self.clock.uptime()
            self._log.settle(position)
            took = self.clock.uptime() - begin
        self._log.recycling.if_due()
        if time.monotonic() >= self._tidier.due_at:
            self._tidier.begin()
        self._upkeep.if_due()
        return took

    def _end_some(self, queue: str) -> bool:
        """End some of what has expired in the queue; whether there may be more."""

        def end() -> bool:
            state = self._state(queue)
            return state is not None and self._end_expired(state)

        return self._in_turn(end)

    def _payload(self, queue: str, entry: Entry) -> bytes:
        try:
            return self._queues[queue].folded.segments.payload(entry.where)
        except OSError as error:
            raise self._refused(error, f"{self.path}/{queue}", StorageError) from error

    def _live_bytes(self, state: QueueState) -> int:
        return self._queues[state.name].folded.live_bytes

    def _bytes_on_disk(self, queue: str) -> int:
        try:
            return bytes_on_disk(self._fs, self._log.root, queue)
        except OSError as error:
            raise self._refused(error, f"{self.path}/{queue}", StorageError) from error

    def _refused(self, error: OSError, path: str, kind: type[StorageError]) -> StorageError:
        """What the system refused, in our words; or StorageClosed, if another thread has just closed this."""
        self._check_usable()
        return wording.of(error, path, kind)

    # -- the rest --------------------------------------------------------------------------------------

    def queues(self) -> list[str]:
        """Names of the queues that exist, sorted; see Storage."""
        self._log.check_usable()
        try:
            return list(filter(is_users, self._log.names()))
        except OSError as error:
            raise self._refused(error, self.path, StorageError) from error

    def compact(self, queue: str) -> Compacted:
        """Remove what is over from the queue's files, but for the history, and say what that was.

        It happens by itself as a queue grows; this does it now. Others go on working meanwhile. Raises
        QueueNotFound.
        """
        self._check_usable()
        try:
            if queue not in self._log.names():
                raise QueueNotFound.among(queue, self.queues())
            if queue in OWN_QUEUES:
                self._tidier.tidy(queue)
            return self._compactor.compact(queue)
        except OSError as error:
            raise self._refused(error, f"{self.path}/{queue}", StorageError) from error

    def close(self) -> None:
        """Give back what is leased, uncounted, and release every lock and descriptor. Idempotent."""
        # By another thread at once it waits; again, after it was interrupted, it goes on.
        with self._closing_lock:
            if self._is_over:
                return
            self._closing = True
            if not self._log.closed:
                self._warn_if_begun()
                self._end_turn_and_leases()
            self._upkeep.stop()
            if self._flusher is not None:
                self._flusher.stop()
            # First, so that whoever is woken by the rest sees that it is closed.
            self._log.close()
            for known in self._queues.values():
                known.close(self._fs)
            self._presence.close()
            self._is_over = True
            self._fs.close(self._leases)

    def _end_turn_and_leases(self) -> None:
        try:
            # First: the thread that prepares the journal is waited for later, and it waits for the lock.
            self._log.end_broken_turn(self._forget)
            self._give_back()
        except (DuraqError, OSError) as error:
            # The leases end all the same, when the locks go; only their attempts then count.
            log.warning("closing %s: could not give back what was leased: %s", self.path, error)

    def _give_back(self) -> None:
        if not any(known.folded.state.leased for known in self._queues.values()):
            return
        mine = self._presence.worker
        for queue, known in list(self._queues.items()):
            self._release_each(queue, known.folded.state.leased.get(mine, {}).values())

    def after_fork_in_child(self) -> None:
        """The child closes the parent's descriptors and may not use this object; see StorageForked."""
        if self._is_over:
            return
        self._is_over = True
        self._closing_lock = threading.RLock()
        self._calls = self._new_calls()
        self._upkeep.after_fork_in_child()
        self._checkpointer.after_fork_in_child()
        for known in self._queues.values():
            known.close(self._fs, wake=False)
        self._fs.close(self._leases)


def _are_written(changes: Mapping[str, Sequence[Operation]]) -> bool:
    """Whether something of this was written before."""
    return any(isinstance(operations[0], Keep) for operations in changes.values())


def _add(changes: Mapping[str, Sequence[Operation]]) -> bool:
    """Whether they add an entry; on a full disk only what does not goes on."""
    if len(changes) == 1 and ACTS in changes:
        return False  # what is to be done to dead letters: purging them, for one
    return any(isinstance(each, (Enqueue, Restore)) for operations in changes.values() for each in operations)


def _check_options(durability: str, batch_window: timedelta) -> None:
    if durability not in ("power", "batched", "process"):
        raise InvalidOption(f"durability must be 'power', 'batched' or 'process', not {durability!r}")
    if options.duration("batch_window", batch_window) > from_timedelta(timedelta(minutes=1)):
        raise InvalidOption(f"batch_window must be at most a minute, not {batch_window}")
