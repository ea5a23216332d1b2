"""The queues of a storage, folded by somebody who may only read. What an Inspector stands on."""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from duraq.clock import Clock, SystemClock
from duraq.entry import Entry
from duraq.errors import NotAStorage, QueueNotFound, StorageClosed, StorageDamaged, StorageError
from duraq.journal import opening, reading, refusal, wording
from duraq.journal.described import Description
from duraq.journal.filesystem import FileSystem, Mark
from duraq.journal.folded_by_reader import FoldedByReader
from duraq.journal.lines import Lines
from duraq.journal.reading import View
from duraq.journal.segment import Gap, bytes_on_disk, file_name
from duraq.journal.segments import Segments
from duraq.journal.waiters import count_living
from duraq.model import MARKER, is_users
from duraq.shelf import Mislaid
from duraq.state import QueueState
from duraq.views import EntryView, entry_view
from duraq.workers import Living

# A queue that changes while it is read can look damaged; damage that is real stays.
_ATTEMPTS = 3
_PAUSE = 0.02  # seconds
_MANY = 200  # records, of which most are about entries that are over


class Seen(Protocol):
    """One queue as a reader sees it, and what keeps it from being read, if anything does."""

    problem: StorageError | None

    @property
    def state(self) -> QueueState: ...

    @property
    def live_bytes(self) -> int: ...


class AnyReader(Protocol):
    """What an Inspector stands on, whatever it is that keeps the queues; what it says is as of ``refresh``.

    ``errors`` is what it raises where the system, or the database, refuses something: ``refused`` has words
    for these. Any method may raise Mislaid.
    """

    path: str  # as it may be shown
    clock: Clock
    errors: tuple[type[Exception], ...]

    def refresh(self) -> bool: ...
    def queues(self) -> list[str]: ...
    def has_queue(self, queue: str) -> bool: ...
    def check_queue(self, queue: str) -> None: ...
    def state(self, queue: str) -> QueueState: ...
    def fold(self, queue: str) -> Seen: ...
    def place(self, queue: str) -> object: ...
    def entry_view(self, queue: str, entry: Entry) -> EntryView | None: ...
    def bytes_on_disk(self, queue: str) -> int: ...
    def waiting(self, queue: str) -> int: ...
    def is_alive(self, worker: str) -> bool | None: ...
    def described(self) -> Mapping[str, Description]: ...
    def mislay(self, queue: str) -> None: ...
    def refused(self, error: Exception, queue: str = "") -> StorageError: ...
    def close(self) -> None: ...


class ReadQueue:
    """One queue as far as it could be read, and what ended the reading if that was not its end."""

    def __init__(self, queue: str, distrusted: int = 0) -> None:
        self._nothing = QueueState(queue)
        self.distrusted = distrusted
        self.read: FoldedByReader | None = None  # None: there is nothing to read
        self.problem: StorageError | None = None

    @property
    def state(self) -> QueueState:
        return self._nothing if self.read is None else self.read.state

    @property
    def segments(self) -> Segments | None:
        return None if self.read is None else self.read.segments

    @property
    def live_bytes(self) -> int:
        """How long the records are that the entries lie in."""
        return 0 if self.read is None else self.read.live_bytes

    def close(self) -> None:
        if self.read is not None:
            self.read.segments.close()


class Reader:
    """Keeps what was read, reads what was added since ``refresh``, and begins anew where it must."""

    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(
        self,
        path: str,
        file_system: FileSystem,
        bookmarks: MutableMapping[str, bytes] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """``bookmarks``, by queue, are gone on from, and kept up to date."""
        self._bookmarks: MutableMapping[str, bytes] = {} if bookmarks is None else bookmarks
        self._keeps_bookmarks = bookmarks is not None
        self.path = str(Path(path).absolute())
        self.fs = file_system
        self.root = -1
        self._living = Living(file_system)
        try:
            self.clock = clock or SystemClock()
        except OSError as error:
            raise self.refused(error) from error
        self._view: View | None = None
        self._folded: dict[str, ReadQueue] = {}
        self._fresh: set[str] = set()
        # Of each queue, the length of what is beside its active segment, and when that was true.
        self._sealed: dict[str, tuple[tuple[Mark | None, int], int]] = {}
        # Of each queue, who waited there for entries, and whether that was seen twice.
        self._waiting: dict[str, tuple[Mark | None, int, bool]] = {}

    def close(self) -> None:
        """Give up every descriptor. Idempotent."""
        self._forget()
        self._living.close()
        if self.root >= 0:
            self.fs.close(self.root)
            self.root = -1

    def refresh(self) -> bool:
        """Look again; returns whether it is another directory than before."""
        moved = self._find_root()
        self._fresh.clear()
        if self._view is None or not self._view.settled:
            self._forget()
            self._view = reading.look(self.fs, self.root)
        if moved:
            self._living.look_in(self.root, self.clock)
        return moved

    def _find_root(self) -> bool:
        try:
            root = self.fs.open_root(self.path)
        except FileNotFoundError:
            raise NotAStorage("there is no such directory", path=self.path) from None
        except NotADirectoryError:
            raise NotAStorage("not a directory", path=self.path) from None
        with ExitStack() as undo:
            undo.callback(self.fs.close, root)
            if self.root >= 0 and self.fs.identity(root) == self.fs.identity(self.root):
                return False
            undo.pop_all()
        self.close()
        self.root = root
        if not self.fs.exists(root, MARKER):
            raise NotAStorage("not a DuraQ storage", path=self.path, hint="there is no duraq.json in it")
        opening.check_marker(self.fs, root, self.path)
        return True

    def _forget(self) -> None:
        for folded in self._folded.values():
            folded.close()
        self._folded.clear()
        self._sealed.clear()
        self._waiting.clear()
        self._view = None

    @property
    def view(self) -> View:
        """The storage as it was brought to rest at the last refresh."""
        if self._view is None:
            raise StorageClosed("this inspector is closed", path=self.path)
        return self._view

    def queues(self) -> list[str]:
        return list(filter(is_users, reading.queue_names(self.view.fs, self.view.root)))

    def has_queue(self, queue: str) -> bool:
        """Whether there is one of that name, be it the storage's own."""
        return reading.is_queue(self.view.fs, self.view.root, queue)

    def check_queue(self, queue: str) -> None:
        """Raise QueueNotFound unless there is one."""
        if not self.has_queue(queue):
            raise QueueNotFound.among(queue, self.queues())

    def lines(self, queue: str) -> Lines:
        """The queue's lines; the caller closes them."""
        self.check_queue(queue)
        return Lines(self.view.fs, self.view.root, queue)

    def state(self, queue: str) -> QueueState:
        """The queue's state. Raises what keeps it from being read."""
        folded = self.fold(queue)
        if folded.problem is not None:
            raise folded.problem
        return folded.state

    def fold_on(self, queue: str) -> ReadQueue:
        """The same, read up to its end as of now."""
        self._fresh.discard(queue)
        return self.fold(queue)

    def fold(self, queue: str) -> ReadQueue:
        """The queue, read up to its end as of the last refresh or later."""
        folded = self._folded.get(queue)
        if folded is not None and queue in self._fresh:
            return folded
        self.check_queue(queue)
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE)
            if folded is None or folded.problem is not None or self._was_replaced(folded):
                folded = self._begun_anew(queue)
            folded = self._read_on(folded)
            if not isinstance(folded.problem, StorageDamaged):
                break
        assert folded is not None
        self._fresh.add(queue)
        return folded

    def place(self, queue: str) -> tuple[object, int]:
        """What is another once more of the queue was read, or all of it anew."""
        folded = self._folded.get(queue)
        return folded, 0 if folded is None or folded.segments is None else folded.segments.next_seq

    def active(self, queue: str) -> int | None:
        """The segment that the queue was read to the end of; None if nothing was read of it."""
        folded = self._folded.get(queue)
        return None if folded is None or folded.segments is None else folded.segments.segment

    def bytes_on_disk(self, queue: str) -> int:
        """How long the queue's segments are, all together, with what lies beside them."""
        fs, root, active = self.view.fs, self.view.root, self.active(queue)
        if active is None or not self.view.settled:
            return bytes_on_disk(fs, root, queue)
        # Beside the active one they change seldom, and there may be thousands.
        name = file_name(active)
        mark, known = fs.mark(root, f"{queue}/segments"), self._sealed.get(queue)
        if known is None or known[0] != (mark, active):
            known = self._sealed[queue] = ((mark, active), bytes_on_disk(fs, root, queue, but=name))
        written = fs.mark(root, f"{queue}/segments/{name}")
        return known[1] + (0 if written is None else written[2])

    def waiting(self, queue: str) -> int:
        """Consumers that block on the queue."""
        fs, root = self.view.fs, self.view.root
        mark = None
        with suppress(PermissionError):
            mark = fs.mark(root, f"{queue}/waiters") if self.view.settled else None
        known = self._waiting.get(queue)
        if mark is not None and known == (mark, 0, True):
            return 0  # nobody can have come
        found = count_living(fs, root, queue)
        # Believed at the next look: what changes twice within one step of the clock looks unchanged.
        self._waiting[queue] = (mark, found, known is not None and known[0] == mark)
        return found

    def is_alive(self, worker: str) -> bool | None:
        """Whether a worker lives; None if this reader may not know."""
        return self._living.is_alive(worker)

    def described(self) -> dict[str, Description]:
        """The workers that have left a word here, living or dead."""
        return self._living.described()

    def entry_view(self, queue: str, entry: Entry) -> EntryView | None:
        """The entry with its payload; None if it has come to its end since it was read."""
        folded, found = self.fold(queue), entry
        while True:
            assert folded.segments is not None
            try:
                return entry_view(queue, found, folded.segments.payload(found.where))
            except Gap:
                # Its segment was dropped since. If it lives, it lies elsewhere now.
                before = found.where
                folded = self.fold_on(queue)
                later = folded.state.find(entry.id)
                if later is None:
                    return None
                if later.where == before:
                    raise
                found = later

    def mislay(self, queue: str) -> None:
        """What lay on the queue's shelf is gone: read it anew, and not from the same checkpoint."""
        self._bookmarks.pop(queue, None)
        folded = self._folded.get(queue)
        if folded is not None:
            self._begun_anew(queue, _distrusted(folded))
        self._fresh.discard(queue)

    def _begun_anew(self, queue: str, distrusted: int = 0) -> ReadQueue:
        before = self._folded.get(queue)
        if before is not None:
            before.close()
        found = self._folded[queue] = ReadQueue(queue, distrusted)
        return found

    def _was_replaced(self, folded: ReadQueue) -> bool:
        """Whether it was removed and made again, or repaired, or what was read last was taken back."""
        if folded.read is None:
            return False
        fs, root = self.view.fs, self.view.root
        home = fs.open_dir(root, folded.state.name)
        try:
            if fs.identity(home) != fs.identity(folded.read.segments.home):
                return True
            return refusal.repairs(fs, home) != folded.read.repairs or not folded.read.stands()
        finally:
            fs.close(home)

    def _read_on(self, folded: ReadQueue) -> ReadQueue:
        """The queue read to its end; begun anew as often as what was to be gone on from turns out lost."""
        while True:
            try:
                self._catch_up(folded)
            except Mislaid:
                self._bookmarks.pop(folded.state.name, None)
                folded = self._begun_anew(folded.state.name, _distrusted(folded))
            else:
                return folded

    def _catch_up(self, folded: ReadQueue) -> None:
        name = folded.state.name
        try:
            if folded.read is None:
                folded.read = self._open(name, folded.distrusted)
            if folded.read is not None:
                segments = folded.read.segments
                segments.known = self.view.ends.get(name, segments.known)
                before = segments.next_seq
                folded.read.catch_up(0)
                if folded.read.segments.next_seq - before > _MANY:
                    folded.state.trim()
                if self._keeps_bookmarks and self.view.settled:
                    made = folded.read.bookmark()
                    if made is not None:
                        self._bookmarks[name] = made
        except StorageDamaged as error:
            folded.problem = error
        except OSError as error:
            folded.problem = self.refused(error, name)
        if folded.problem is None:
            folded.problem = self.view.damaged.get(name)

    def refused(self, error: Exception, queue: str = "") -> StorageError:
        """What the system refuses to a reader, in our words."""
        assert isinstance(error, OSError)
        path = f"{self.path}/{queue}" if queue else self.path
        return wording.of(error, path, hint="this user must be able to read it")

    def _open(self, queue: str, distrusted: int) -> FoldedByReader | None:
        """The queue, nothing of it read; None if its maker has got no further than its directory."""
        try:
            lines = self.lines(queue)
        except FileNotFoundError:
            return None
        try:
            if not lines.segments():
                return None
        finally:
            lines.close()
        segments = Segments(self.view.fs, self.view.root, queue, writable=False, limit=0)
        mark = self._bookmarks.get(queue) if self.view.settled and not distrusted else None
        try:
            return FoldedByReader(self.view.fs, segments, distrusted, mark)
        except BaseException:
            segments.close()
            raise


def _distrusted(folded: ReadQueue) -> int:
    """Up to which segment no checkpoint is to be gone on from, now that what one names is lost."""
    return folded.distrusted if folded.read is None else folded.read.distrusted
