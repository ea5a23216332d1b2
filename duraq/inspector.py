"""Looking at a storage from outside: for commands, dashboards and checks, never in anybody's way.

An inspector takes no lock that a writer waits for, makes no file and writes none, so it works on a read-only
mount, on a copy and on a backup. It sees what the storage's next opener would see; the newest records a
moment late while others write. As that opener does, it begins at checkpoints: damage in a segment that a
checkpoint spares it is noticed when something is wanted of it, or by ``duraq verify``, which reads all.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import wraps
from itertools import islice
from typing import Concatenate, ParamSpec, Self, TypeVar

from duraq import dead_index, following, short_ids
from duraq.clock import Clock, to_datetime
from duraq.dead_index import DeadIndex
from duraq.entry import READY, Entry, delivery_order, enqueue_order
from duraq.errors import EntryNotFound, InvalidOption, QueueError, StorageDamaged, StorageError
from duraq.journal.filesystem import FileSystem
from duraq.journal.reading import ReaderFileSystem
from duraq.journal.segment import Gap
from duraq.metrics import QueueMetrics, measure
from duraq.model import OWN_QUEUES, Counts, EntryStatus, Pause
from duraq.reader import AnyReader, Reader
from duraq.shelf import Mislaid
from duraq.state import QueueState
from duraq.views import EntryView, LeaseView, Place, QueueView, RecordView, WorkerView
from duraq.watching import Watcher
from duraq.workers import workers

P = ParamSpec("P")
T = TypeVar("T")

# How often in a row what lies in files is gone before it could be read, until that is damage.
_LOSSES = 5
# How often one looks whether a time to live has passed, in microseconds.
_EXPIRY = 5_000_000


def _in_our_words(method: Callable[Concatenate[Inspector, P], T]) -> Callable[Concatenate[Inspector, P], T]:
    """The method, but that what the system refuses is a StorageError, and what was mislaid is read anew."""

    @wraps(method)
    def telling(self: Inspector, /, *args: P.args, **kwargs: P.kwargs) -> T:
        losses = 0
        while True:
            try:
                with self._told():
                    return method(self, *args, **kwargs)
            except Mislaid as lost:
                losses += 1
                self._mislay(lost.queue, lost, losses)

    return telling


@contextmanager
def _dropped(queue: str) -> Iterator[None]:
    """What is read of an entry here may lie in a segment that was dropped since: the queue is read anew."""
    try:
        yield
    except Gap as gap:
        raise Mislaid(queue, str(gap)) from gap


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
        bookmarks: MutableMapping[str, bytes] | None = None,
    ) -> None:
        """``bookmarks``: what an inspector of the same storage has put there earlier, by queue.

        With these there is less to be read. It is kept up to date, and several inspectors may share it.
        """
        self._stand_on(Reader(os.fspath(path), file_system or ReaderFileSystem(), bookmarks, clock))

    @classmethod
    def at(cls, url: str, *, clock: Clock | None = None) -> Self:
        """The storage of that URL, of any kind that ``duraq.open`` knows but ``memory:``.

        Of a database it sees one moment until the next ``refresh``. Nothing is made there, and nothing
        waited for; what is over has left no record in it, and no ``follow`` has anything to say. Raises
        InvalidOption as well: if it is no such URL, or if what it needs is not installed.
        """
        from duraq.storage import registry  # noqa: PLC0415 - whoever looks at files needs none of it

        kind, where = registry.taken_apart(url)
        if kind == "file":
            return cls(where, clock=clock)
        self = cls.__new__(cls)
        reader = registry.reader(url)
        reader.clock = clock or reader.clock
        self._stand_on(reader)
        return self

    def _stand_on(self, reader: AnyReader) -> None:
        self._reader: AnyReader = reader
        self._files = reader if isinstance(reader, Reader) else None
        self._watcher: Watcher | None = None
        self._clock = reader.clock
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> str:
        """What is looked at, as it may be shown: a directory, a database file, a server and no password."""
        return self._reader.path

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
    def reader(self) -> AnyReader:
        """What it stands on: its queues folded; for the modules beside it."""
        return self._reader

    @property
    def files(self) -> Reader:
        """The same, with its lines. Raises InvalidOption if it is a database, which has none."""
        if self._files is None:
            raise InvalidOption(f"{self.path}: a database keeps no records of what has happened")
        return self._files

    @property
    def keeps_records(self) -> bool:
        """Whether there are records of what has happened; if not, only what is there now is known."""
        return self._files is not None

    def close(self) -> None:
        """Give up every descriptor. Idempotent."""
        if self._watcher is not None:
            self._watcher.close()
        self._reader.close()

    @_in_our_words
    def refresh(self) -> bool:
        """Look again: from here on, everything is told as of now.

        Returns whether there is another storage in the place of the one before.
        """
        return self._reader.refresh()

    @contextmanager
    def _told(self, queue: str = "") -> Iterator[None]:
        try:
            yield
        except self._reader.errors as error:
            raise self._reader.refused(error, queue) from error

    def _mislay(self, queue: str, lost: Exception, losses: int) -> None:
        """Have the queue read anew. Raises if it was lost too often: then it is not that somebody writes."""
        if losses >= _LOSSES:
            raise lost if isinstance(lost, StorageError) else StorageDamaged(str(lost), path=queue)
        self._reader.mislay(queue)

    # -- noticing changes ------------------------------------------------------------------------------

    @_in_our_words
    def pulse(self) -> bytes:
        """What is different once anybody has committed anything to the storage; see ``duraq.watching``.

        Needs no ``refresh``, and is none.
        """
        return self._watch.pulse()

    @_in_our_words
    def changed(self, *, thorough: bool = True) -> set[str]:
        """The queues that may have changed since this was asked last, new and removed ones among them.

        To be asked before looking at them, and after a ``refresh`` if it is ``settled``; if not, a refresh
        reads everything anew, which only those that are named here make necessary. Not ``thorough``: only
        those in which something was written, which is quicker.
        """
        return self._watch.changed(thorough=thorough)

    @property
    def _watch(self) -> Watcher:
        if self._watcher is None:
            self._watcher = Watcher(self.files)
        return self._watcher

    @property
    def settled(self) -> bool:
        """Whether the queues are read from their files; else what the journal makes of them, in memory."""
        return self._files is None or self._files.view.settled

    @_in_our_words
    def next_change(self, queue: str) -> int | None:
        """When, in microseconds since 1970, the queue may change by time alone; None if it will not."""
        state = self._reader.fold(queue).state
        times = [state.next_event(), self._clock.now() + _EXPIRY if state.may_have_expired else None]
        return min((time for time in times if time is not None), default=None)

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

    def overview(self, queue: str) -> QueueView:
        """All that can be said of one queue at once, damaged or not. Raises QueueNotFound."""
        return self.look(queue)[0]

    def metrics(self, queue: str) -> QueueMetrics:
        """The queue in numbers. Raises what keeps it from being read: half of them would be wrong."""
        view, found = self.look(queue)
        if view.problem is not None:
            raise view.problem
        assert found is not None
        return found

    @_in_our_words
    def look(self, queue: str) -> tuple[QueueView, QueueMetrics | None]:
        """The overview and the metrics of one queue, of the same moment; None if it cannot be read."""
        folded = self._reader.fold(queue)
        state = folded.state
        now = self._clock.now()
        leases = tuple(self._leases_of(state))
        waiting = self._reader.waiting(queue)
        try:
            found = measure(state, now, folded.live_bytes)
        except StorageDamaged as error:
            # Found when the oldest entry was looked at; if it is gone, somebody has just dropped it.
            if isinstance(error, Gap) and folded.problem is None:
                raise Mislaid(queue, str(error)) from error
            folded.problem = folded.problem or error
            found = QueueMetrics(queue, to_datetime(now), state.counts(now))
        view = QueueView(
            queue, found.counts, state.pause, found.oldest_ready, leases, waiting, folded.problem
        )
        if folded.problem is not None:
            return view, None
        workers = len({lease.worker for lease in leases if lease.alive})
        size = self._reader.bytes_on_disk(queue)
        return view, replace(found, bytes_on_disk=size, workers=workers, waiting=waiting)

    @_in_our_words
    def leases(self, queue: str | None = None) -> list[LeaseView]:
        """Who holds what: of that queue, or of all that can be read; the next deadline first."""
        names = self.queues() if queue is None else [queue]
        found = [lease for name in names for lease in self._leases_of(self._reader.fold(name).state)]
        return sorted(found, key=lambda lease: (lease.deadline_at, lease.queue, lease.id))

    def is_alive(self, worker: str) -> bool | None:
        """Whether a worker lives; None if this reader may not know."""
        return self._reader.is_alive(worker)

    @_in_our_words
    def workers(self, leases: Iterable[LeaseView] | None = None) -> list[WorkerView]:
        """Who works here, or has died and not been cleared away: what each says of itself, and what it holds.

        Of those leases; by default of all there are.
        """
        held = self.leases() if leases is None else leases
        return workers(self._reader.described(), self.is_alive, held)

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
        self._reader.state(queue)  # whatever keeps it from being read is told at once
        end = None if limit is None else offset + limit
        return self._each_view(queue, islice(self._each(queue, status), offset, end))

    def _each_view(self, queue: str, chosen: Iterable[Entry]) -> Iterator[EntryView]:
        with self._told(queue):
            for entry in chosen:
                view = self._reader.entry_view(queue, entry)
                if view is not None:
                    yield view

    def _each(self, queue: str, status: EntryStatus | None) -> Iterator[Entry]:
        """Entries in that state; if more of the queue was read by then, on from there as it is now."""
        order: Callable[[Entry], object] = delivery_order if status is READY else enqueue_order
        behind: object = None
        losses = 0
        while True:
            try:
                state, place_read = self._reader.state(queue), self._reader.place(queue)
                for entry in state.listing(status, self._clock.now()):
                    place = order(entry)
                    if behind is None or place > behind:  # type: ignore[operator] # both of one order
                        yield entry
                        behind, losses = place, 0
                        if self._reader.place(queue) != place_read:
                            break  # what is listed has changed on the way
                else:
                    return
            except (Mislaid, Gap) as lost:
                losses += 1
                self._mislay(queue, lost, losses)

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
            with _dropped(name):
                entry = state.find(entry_id)
            view = None if entry is None else self._reader.entry_view(name, entry)
            if view is not None:
                live.append(view)
        files = None if live else self._files
        ended = [] if files is None else [following.over(files, name, entry_id) for name in names]
        over = [view for view in ended if view is not None]
        if len(live) > 1:
            where = ", ".join(view.queue for view in live)
            raise QueueError(f"several queues have an entry {entry_id}: {where}; say which")
        if not live and not over:
            text = f"there is no entry {entry_id}" + (f" in queue {queue}" if queue else "")
            # Whoever looks for one in files finds it even when it is over.
            text += "" if self.keeps_records else "; of what is over a database keeps nothing"
            raise EntryNotFound(text)
        return max(live or over, key=lambda view: view.updated_at)

    def find(self, name: str, queue: str | None = None) -> EntryView:
        """One entry by its id or, if no other entry has the same, by a part of it; see ``duraq.short_ids``.

        Raises EntryNotFound, or QueueError that names all entries that may be meant; where not all could be
        read, what is the matter there.
        """
        try:
            return self.get(name, queue)
        except EntryNotFound as missing:
            like = short_ids.like(name)
            found: list[EntryView] = []
            for where, entry_id in () if like is None else self._ids(like, queue):
                with suppress(EntryNotFound):  # removed
                    found.append(self.get(entry_id, where))
            if not found:
                unread = self._unread(queue)
                if unread is not None:
                    raise type(unread)(f"entry {name} is not in what can be read: {unread}") from None
                raise EntryNotFound(f"{missing}{short_ids.too_short(name)}") from None
        if len(found) > 1:
            raise QueueError(short_ids.several(name, [f"{view.queue}/{view.id}" for view in found]))
        return found[0]

    def _unread(self, queue: str | None) -> StorageError | None:
        """What keeps that queue, or any, from being read."""
        names = self.queues() if queue is None else [queue]
        problems = (self.overview(name).problem for name in names)
        return next((problem for problem in problems if problem is not None), None)

    @_in_our_words
    def _ids(self, like: re.Pattern[bytes], queue: str | None) -> list[tuple[str, str]]:
        names = self.queues() if queue is None else [queue]
        most = short_ids.TOLD + 1
        if self._files is not None:
            return [(name, each) for name in names for each in following.ids(self._files, name, like, most)]
        there = ((name, entry.id) for name in names for entry in self._reader.state(name).listing(None, 0))
        return list(islice((each for each in there if like.fullmatch(each[1].encode())), most))

    @_in_our_words
    def life(self, entry_id: str, queue: str | None = None) -> list[RecordView]:
        """Every record that concerns the entry, oldest first, each with its file, line and byte.

        None where none are kept, in a database.
        """
        found = []
        names = self.queues() if queue is None else [queue]
        for name in names if self._files is not None else ():
            lines = following.of_entry(self.files, name, entry_id)
            found += [following.view(name, *each) for each in lines]
        return following.in_time(found)

    def where_is(self, entry_id: str, queue: str | None = None) -> list[Place]:
        """File, line and byte of each record of the entry, oldest first."""
        return [view.place for view in self.life(entry_id, queue)]

    # -- dead letters ----------------------------------------------------------------------------------

    @_in_our_words
    def dead_index(
        self,
        queue: str,
        *,
        stop: threading.Event | None = None,
        progress: Callable[[DeadIndex, int], None] | None = None,
        before: DeadIndex | None = None,
    ) -> DeadIndex | None:
        """All dead letters of the queue in a few numbers each, see ``duraq.dead_index``; None if stopped.

        ``progress`` is given the index so far, which has those that died last, and how many there are in all.
        ``before``: what this has said earlier; then only what has changed is read.
        """
        return dead_index.build(self._reader.state(queue), stop=stop, progress=progress, before=before)

    @_in_our_words
    def letters(self, index: DeadIndex, places: Iterable[int]) -> list[EntryView | None]:
        """The letters at these places of the index; None in place of what is dead no more."""
        state = self._reader.state(index.queue)
        with _dropped(index.queue):
            found = dead_index.entries(index, state, places)
        return [None if entry is None else self._reader.entry_view(index.queue, entry) for entry in found]

    # -- records ---------------------------------------------------------------------------------------

    @_in_our_words
    def records(self, queues: Iterable[str] | None = None, *, last: int = 10) -> list[RecordView]:
        """The newest records of these queues, or of all, oldest first."""
        return following.newest(self.files, self.queues() if queues is None else queues, last)

    def follow(
        self, queues: Iterable[str] | None = None, *, last: int = 0, stop: threading.Event | None = None
    ) -> Iterator[RecordView]:
        """The newest records, then each new one as it is written, until ``stop`` is set.

        Of these queues, or of all; then also of those that come into being. Goes its own way: it needs no
        ``refresh`` and notices none.
        """
        chosen = None if queues is None else list(queues)
        with self._told():
            yield from following.follow(self.files, chosen, last, stop or threading.Event())
