"""Looking at a storage from outside: for commands, dashboards and checks, never in anybody's way.

An inspector takes no lock that a writer waits for, makes no file and writes none, so it works on a read-only
mount, on a copy and on a backup. It sees what the storage's next opener would see; the newest records a
moment late while others write.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import wraps
from typing import Concatenate, ParamSpec, Self, TypeVar

from duraq.clock import Clock, SystemClock, to_datetime
from duraq.entry import Entry
from duraq.errors import EntryNotFound, QueueError, StorageError
from duraq.journal import reading, record
from duraq.journal.filesystem import FileSystem, NotOurs
from duraq.journal.lease import WorkerPresence
from duraq.journal.lines import Follower, Line, Lines
from duraq.journal.reading import ReaderFileSystem
from duraq.journal.record import Record, Seal
from duraq.journal.segment import Gap, bytes_on_disk, path_of
from duraq.journal.waiters import count_living
from duraq.metrics import QueueMetrics, measure
from duraq.model import OWN_QUEUES, Counts, EntryStatus, Pause, is_users
from duraq.operations import Complete, Expire, Remove
from duraq.options import ENTRY_ID
from duraq.reader import Reader
from duraq.state import QueueState
from duraq.views import EntryView, LeaseView, Place, QueueView, RecordView, WorkerView, entry_view
from duraq.workers import workers

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("duraq")

# How often a follower looks for itself, in seconds; a hint from the system only makes it look sooner.
SWEEP_INTERVAL = 0.5


def _in_our_words(method: Callable[Concatenate[Inspector, P], T]) -> Callable[Concatenate[Inspector, P], T]:
    """The method, but that what the system refuses is a StorageError."""

    @wraps(method)
    def telling(self: Inspector, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._told():
            return method(self, *args, **kwargs)

    return telling


class Inspector:
    """The queues of one storage as of the last ``refresh``. For one thread; make one for each.

    Raises NotAStorage, UnsupportedVersion, StorageReadOnly if even looking is not permitted, StorageError if
    the system refuses it otherwise, or StorageDamaged if it is the journal that is damaged; a damaged queue
    keeps only itself from being read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        file_system: FileSystem | None = None,
    ) -> None:
        self._reader = Reader(os.fspath(path), file_system or ReaderFileSystem())
        self.path = self._reader.path
        with self._told():
            self._clock = clock or SystemClock()
        self._leases = -1
        self._presence: WorkerPresence | None = None
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Inspector {self.path!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def clock(self) -> Clock:
        """What it tells ages and deadlines by."""
        return self._clock

    @property
    def reader(self) -> Reader:
        """What it stands on: its queues folded, and their lines; for the modules beside it."""
        return self._reader

    def close(self) -> None:
        """Give up every descriptor. Idempotent."""
        self._reader.close()
        self._leave_leases()

    @_in_our_words
    def refresh(self) -> None:
        """Look again: from here on, everything is told as of now."""
        if self._reader.refresh():
            self._leave_leases()
            with suppress(FileNotFoundError):
                self._leases = self._reader.fs.open_dir(self._reader.root, "leases")
                self._presence = WorkerPresence(self._leases, self._clock)

    @contextmanager
    def _told(self, queue: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._reader.refused(error, queue) from error

    def _leave_leases(self) -> None:
        if self._presence is not None:
            self._presence.close()
            self._reader.fs.close(self._leases)
            self._presence = None

    # -- queues ----------------------------------------------------------------------------------------

    @_in_our_words
    def queues(self) -> list[str]:
        """Names of the queues that exist, sorted."""
        return self._reader.queues()

    @_in_our_words
    def check_queue(self, queue: str) -> None:
        """Raise QueueNotFound unless there is one."""
        self._reader.check_queue(queue)

    @_in_our_words
    def troubled(self) -> list[str]:
        """The storage's own queues that cannot be read; they are among no others."""
        names = filter(self._reader.has_queue, sorted(OWN_QUEUES))
        return [name for name in names if self._reader.fold(name).problem is not None]

    @_in_our_words
    def counts(self, queue: str) -> Counts:
        """Entries by state. Raises QueueNotFound, StorageDamaged."""
        return self._reader.state(queue).counts(self._clock.now())

    @_in_our_words
    def paused(self, queue: str) -> Pause | None:
        """Who paused the queue, when and why; None if it is not paused."""
        return self._reader.state(queue).pause

    @_in_our_words
    def overview(self, queue: str) -> QueueView:
        """All that can be said of one queue at once, damaged or not. Raises QueueNotFound."""
        folded = self._reader.fold(queue)
        state = folded.state
        now = self._clock.now()
        counts = state.counts(now)
        oldest: int | None = None
        died = []
        for entry in state.listing(None, now):
            if entry.status is EntryStatus.DEAD:
                died.append(to_datetime(entry.updated_at))
            elif entry.status is EntryStatus.READY:
                since = max(entry.updated_at, entry.ready_at or 0)
                oldest = since if oldest is None else min(oldest, since)
        return QueueView(
            queue,
            counts,
            state.pause,
            None if oldest is None else to_datetime(oldest),
            tuple(died),
            tuple(self._leases_of(state)),
            self._waiting(queue),
            folded.problem,
        )

    @_in_our_words
    def metrics(self, queue: str) -> QueueMetrics:
        """The queue in numbers. Raises what keeps it from being read: half of them would be wrong."""
        state = self._reader.state(queue)
        found = measure(state, self._clock.now(), sum(entry.where[2] for entry in state.entries.values()))
        return replace(
            found,
            bytes_on_disk=bytes_on_disk(self._reader.fs, self._reader.root, queue),
            workers=sum(self.is_alive(worker) is True for worker in state.leased if worker),
            waiting=self._waiting(queue),
        )

    @_in_our_words
    def leases(self, queue: str | None = None) -> list[LeaseView]:
        """Who holds what: of that queue, or of all that can be read; the next deadline first."""
        names = self.queues() if queue is None else [queue]
        found = [lease for name in names for lease in self._leases_of(self._reader.fold(name).state)]
        return sorted(found, key=lambda lease: lease.deadline_at)

    def is_alive(self, worker: str) -> bool | None:
        """Whether a worker lives; None if this reader may not know."""
        if self._presence is None:
            return False
        try:
            return self._presence.is_alive(worker)
        except (StorageError, OSError):
            # Its files are another user's.
            return None
        except ValueError:
            return False

    @_in_our_words
    def workers(self, leases: Iterable[LeaseView] | None = None) -> list[WorkerView]:
        """Who works here, or has died and not been cleared away: what each says of itself, and what it holds.

        Of those leases; by default of all there are.
        """
        directory = -1 if self._presence is None else self._leases
        return workers(self._reader.fs, directory, self.is_alive, self.leases() if leases is None else leases)

    def _leases_of(self, state: QueueState) -> Iterator[LeaseView]:
        boot, uptime = self._clock.boot_id, self._clock.uptime()
        for worker, held in state.leased.items():
            alive = self.is_alive(worker) if worker else None
            for entry in held.values():
                yield LeaseView(
                    queue=state.name,
                    id=entry.id,
                    token=entry.token,
                    attempt=entry.attempts,
                    worker=worker,
                    alive=alive,
                    # Of another boot, but alive: in a container that has a boot id of its own.
                    late=entry.deadline <= uptime if entry.boot == boot else alive is not True,
                    leased_at=to_datetime(entry.leased_at),
                    deadline_at=to_datetime(entry.deadline_at),
                )

    def _waiting(self, queue: str) -> int:
        """Consumers that block on the queue."""
        return count_living(self._reader.view.fs, self._reader.view.root, queue)

    # -- entries ---------------------------------------------------------------------------------------

    def entries(
        self, queue: str, status: EntryStatus | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[EntryView]:
        """Entries in that state (default: every live or dead one); ready ones in order of delivery."""
        return list(self.each_entry(queue, status, limit=limit, offset=offset))

    @_in_our_words
    def each_entry(
        self, queue: str, status: EntryStatus | None = None, *, limit: int | None = None, offset: int = 0
    ) -> Iterator[EntryView]:
        """The same, one by one: only the payload of the one at hand is in memory."""
        chosen = self._reader.state(queue).listing(status, self._clock.now(), limit, offset)
        return self._each_entry(queue, chosen)

    def _each_entry(self, queue: str, chosen: Iterable[Entry]) -> Iterator[EntryView]:
        with self._told(queue):
            for entry in chosen:
                view = self._entry(queue, entry)
                if view is not None:
                    yield view

    @_in_our_words
    def get(self, entry_id: str, queue: str | None = None) -> EntryView:
        """One entry, of that queue or wherever it is; one that is over too, while its records are there.

        Raises EntryNotFound, or QueueError if several queues have an entry of this id.
        """
        names = self.queues() if queue is None else [queue]
        live = []
        for name in names:
            # Damage in one queue must not hide an entry of another.
            state = self._reader.fold(name).state if queue is None else self._reader.state(name)
            state.advance(self._clock.now())
            view = self._entry(name, state.entries[entry_id]) if entry_id in state.entries else None
            if view is not None:
                live.append(view)
        over = [] if live else [view for name in names if (view := self._over(name, entry_id)) is not None]
        if len(live) > 1:
            where = ", ".join(view.queue for view in live)
            raise QueueError(f"several queues have an entry {entry_id}: {where}; say which")
        if not live and not over:
            raise EntryNotFound(f"there is no entry {entry_id}" + (f" in queue {queue}" if queue else ""))
        return max(live or over, key=lambda view: view.updated_at)

    @_in_our_words
    def life(self, entry_id: str, queue: str | None = None) -> list[RecordView]:
        """Every record that concerns the entry, oldest first, each with its file, line and byte."""
        found = []
        for name in self.queues() if queue is None else [queue]:
            found += [_record(name, *each) for each in self._records_of(name, entry_id)]
        return _in_time(found)

    def where_is(self, entry_id: str, queue: str | None = None) -> list[Place]:
        """File, line and byte of each record of the entry, oldest first."""
        return [view.place for view in self.life(entry_id, queue)]

    def _entry(self, queue: str, entry: Entry) -> EntryView | None:
        """The entry with its payload; None if it has come to its end since it was read."""
        folded, found = self._reader.fold(queue), entry
        while True:
            assert folded.segments is not None
            try:
                return entry_view(queue, found, folded.segments.payload(found.where))
            except Gap:
                # Its segment was dropped since. If it lives, it lies elsewhere now.
                before = found.where
                folded = self._reader.fold_on(queue)
                later = folded.state.entries.get(entry.id)
                if later is None:
                    return None
                if later.where == before:
                    raise
                found = later

    def _records_of(self, queue: str, entry_id: str) -> list[tuple[Line, Record]]:
        if not ENTRY_ID.match(entry_id):
            return []
        try:
            with closing(self._reader.lines(queue)) as lines:
                return list(lines.of_entry(entry_id))
        except (NotOurs, PermissionError, FileNotFoundError):
            # Not ours, or not ours to read, or only just coming into being: nothing is known of it here.
            return []

    def _over(self, queue: str, entry_id: str) -> EntryView | None:
        """An entry that is no longer in the queue, as its records tell it; a removed one is gone."""
        state = QueueState(queue)
        entry: Entry | None = None
        payload = b""
        for line, (operation, seq, at) in self._records_of(queue, entry_id):
            assert not isinstance(operation, Seal)
            if getattr(operation, "payload", None) is not None:
                payload = record.payload(line.text)
            # The beginning of its life may have been dropped already.
            with suppress(KeyError):
                entry = state.entries.get(entry_id, entry)
                state.apply(operation, seq, at)
                entry = state.entries.get(entry_id, entry)
            if isinstance(operation, Remove):
                entry = None
            elif entry is not None and isinstance(operation, Complete | Expire):
                entry.updated_at = at
                entry.status = EntryStatus.EXPIRED if isinstance(operation, Expire) else EntryStatus.COMPLETED
        return None if entry is None else entry_view(queue, entry, payload)

    # -- records ---------------------------------------------------------------------------------------

    @_in_our_words
    def records(self, queues: Iterable[str] | None = None, *, last: int = 10) -> list[RecordView]:
        """The newest records of these queues, or of all, oldest first."""
        return _newest(self._last(queues, last), last)

    def follow(
        self, queues: Iterable[str] | None = None, *, last: int = 0, stop: threading.Event | None = None
    ) -> Iterator[RecordView]:
        """The newest records, then each new one as it is written, until ``stop`` is set.

        Of these queues, or of all; then also of those that come into being. Goes its own way: it needs no
        ``refresh`` and notices none.
        """
        chosen = None if queues is None else list(queues)
        with self._told():
            yield from self._follow(chosen, last, stop or threading.Event())

    def _follow(self, chosen: Sequence[str] | None, last: int, stop: threading.Event) -> Iterator[RecordView]:
        fs, root = self._reader.fs, self._reader.root
        seen = self._last(chosen, max(last, 1))
        with ExitStack() as opened:
            followed = {}
            for name, lines in seen.items():
                followed[name] = _follow(fs, root, name, lines[-1][0] if lines else None, opened)
            yield from _newest(seen, last)
            for _ in _looks(self.path, stop):
                for name in reading.queue_names(fs, root) if chosen is None else ():
                    if is_users(name) and name not in followed:
                        followed[name] = _follow(fs, root, name, None, opened)
                found = [_record(name, *new) for name, tail in followed.items() for new in tail.new()]
                yield from _in_time(found)

    def _last(self, queues: Iterable[str] | None, count: int) -> dict[str, list[tuple[Line, Record]]]:
        """The newest records of each of these queues."""
        found = {}
        for name in self.queues() if queues is None else queues:
            with closing(self._reader.lines(name)) as lines:
                found[name] = lines.last(count)
        return found


def _follow(fs: FileSystem, root: int, queue: str, after: Line | None, opened: ExitStack) -> Follower:
    lines = Lines(fs, root, queue)
    opened.callback(lines.close)
    return Follower(lines, after)


def _newest(found: dict[str, list[tuple[Line, Record]]], last: int) -> list[RecordView]:
    views = [_record(queue, *each) for queue, records in found.items() for each in records]
    return _in_time(views)[-last:] if last > 0 else []


def _in_time(views: list[RecordView]) -> list[RecordView]:
    # Stable: the records of one queue keep their order even if somebody set the clock back between them.
    return sorted(views, key=lambda view: view.at)


def _record(queue: str, line: Line, found: Record) -> RecordView:
    return RecordView(
        queue=queue,
        op=found.operation.op,
        seq=found.seq,
        at=to_datetime(found.at),
        id=getattr(found.operation, "id", None),
        place=Place(path_of(queue, line.segment), line.number, line.offset, len(line.text)),
        text=line.text,
    )


def _looks(path: str, stop: threading.Event) -> Iterator[None]:
    """When to look: now, every SWEEP_INTERVAL, and as soon as the system hints that something changed."""
    yield
    try:
        import watchfiles  # noqa: PLC0415 - 40 ms that only a follower pays

        hints = watchfiles.watch(
            path,
            watch_filter=None,
            step=20,
            debounce=100,
            rust_timeout=int(SWEEP_INTERVAL * 1000),
            yield_on_timeout=True,
            force_polling=False,
            stop_event=stop,
        )
        for _ in hints:
            yield
    except (OSError, RuntimeError) as error:
        # No inotify instance left, or a directory went away. The sweep is enough.
        log.debug("cannot watch %s (%s); looking every %s s", path, error, SWEEP_INTERVAL)
    while not stop.wait(SWEEP_INTERVAL):
        yield
