"""The thread that keeps the queues' files small, in steps that are short enough for others to wait for."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import NamedTuple

from duraq.clock import Clock
from duraq.errors import DuraqError, StorageClosed, StorageForked
from duraq.journal import compaction
from duraq.journal.folded import Folded
from duraq.journal.log import Log
from duraq.journal.opening import History
from duraq.operations import Drop, Keep, Operation
from duraq.shelf import Mislaid
from duraq.storage.fold import NoRoom, TryAgain

log = logging.getLogger("duraq")

Wanted = Callable[[Folded, History], bool]

# What one step writes again at most. Others wait for a step, some 1 to 2 ms.
ENTRIES = 64
BYTES = 128 << 10
FILES = 16  # and removes
# Segments that go for each new one. Three: then the live ones are worked through before the queue has grown
# from SLACK to twice its live bytes.
PACE = 3


class Compacted(NamedTuple):
    """What a compaction has done to one queue: bytes that were freed, entries that were written again."""

    queue: str
    freed: int
    kept: int


class Compactor:
    """Compacts queues when they have grown, and when somebody asks for it."""

    def __init__(
        self,
        journal: Log,
        clock: Clock,
        *,
        turn: AbstractContextManager[object],
        folded: Callable[[str], Folded | None],
        write: Callable[[str, Sequence[Operation]], int],
        make_room: Callable[[], None],
    ) -> None:
        """``folded`` gives a queue that is caught up, ``write`` writes and folds: both in a turn only."""
        self._log = journal
        self._clock = clock
        self._turn = turn
        self._folded = folded
        self._write = write
        self._make_room = make_room
        self._threads = threading.Lock()
        self._lock = -1  # a descriptor of the directory of the queue that is being compacted
        self._due: set[str] = set()
        self._stopping = False
        self._thread: threading.Thread | None = None

    # -- in the background -----------------------------------------------------------------------------

    def note(self, folded: Folded) -> None:
        """A segment of the queue was sealed; in a turn."""
        if compaction.is_due(folded, self._log.history):
            self._due.add(folded.state.name)

    def if_due(self) -> None:
        """Begin, if something is due and nothing has begun."""
        if self._due and not self._stopping and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="duraq-compactor", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while self._due:
            queue = self._due.pop()
            try:
                with self._alone(queue, wait=False) as alone:
                    if alone:
                        self._compact(queue, compaction.is_due, PACE)
            except (StorageClosed, StorageForked):
                return
            except (DuraqError, OSError) as error:
                # The next seal comes back to it.
                log.warning("queue %s: compaction was broken off: %s", queue, error)

    def stop(self) -> None:
        """End after the segment that is being worked on, so that short-lived processes get somewhere too."""
        self._stopping = True
        if self._thread is not None:
            with suppress(RuntimeError):  # interrupted before it was started
                self._thread.join()

    # -- on demand -------------------------------------------------------------------------------------

    def compact(self, queue: str) -> Compacted:
        """Free what can be freed now, but for the history that is to be kept."""
        with self._alone(queue, wait=True):
            with self._turn:
                folded = self._folded(queue)
                end = 0 if folded is None else folded.checkpoint

            def wanted(folded: Folded, history: History) -> bool:
                # Up to where it stands now: what is written again is not to be worked through as well.
                return folded.segments.first < end and compaction.is_worth_it(folded, history)

            return self._compact(queue, wanted, sys.maxsize)

    @contextmanager
    def _alone(self, queue: str, *, wait: bool) -> Iterator[bool]:
        """Nobody else compacts the queue meanwhile. Without ``wait``: or False, if somebody does."""
        if not self._threads.acquire(blocking=wait):
            yield False
            return
        fs = self._log.fs
        try:
            with self._turn:
                # A descriptor of our own: that of the queue may be closed when the turn is over.
                home = fs.open_dir(self._log.root, queue)
                try:
                    self._lock = fs.open_dir(home, "segments")
                finally:
                    fs.close(home)
            if wait:
                fs.lock(self._lock)
            elif not fs.try_lock(self._lock):
                yield False
                return
            try:
                yield True
            finally:
                # By hand: a forked child that has not closed it would go on holding it.
                fs.unlock(self._lock)
        finally:
            self._let_go()
            self._threads.release()

    def _let_go(self) -> None:
        if self._lock >= 0:
            self._log.fs.close(self._lock)
            self._lock = -1

    def after_fork_in_child(self) -> None:
        """The descriptor is the parent's, and the lock with it."""
        self._let_go()

    # -- the work --------------------------------------------------------------------------------------

    def _compact(self, queue: str, wanted: Wanted, segments: int) -> Compacted:
        freed, kept = self._sweep(queue), 0  # what an earlier one has left behind
        for count in range(segments):
            first = None if count and self._stopping else self._next(queue, wanted)
            if first is None:
                break
            while step := self._step(queue, first):
                kept += step
            freed += self._sweep(queue)
        return Compacted(queue, freed, kept)

    def _next(self, queue: str, wanted: Wanted) -> int | None:
        """From which segment on everything is to be, if the oldest one is to go."""
        with self._turn:
            folded = self._folded(queue)
            history = self._log.history
            if folded is None or not wanted(folded, history):
                return None
            return compaction.following(self._log.fs, folded.segments, history, self._clock.now())

    def _step(self, queue: str, first: int) -> int:
        """Write again some of what lies before that segment and return how much; if nothing does, drop it."""
        while True:
            try:
                with self._turn:
                    folded = self._folded(queue)
                    if folded is None or folded.segments.first >= first:
                        return 0
                    operations = self._operations(folded, first)
                    position = self._write(queue, operations)
                break
            except NoRoom:
                self._make_room()
            except (TryAgain, Mislaid):
                continue
        # Before the next step: others get their turn. And what is dropped must be dropped for good, in every
        # mode of durability, before its files go.
        self._log.settle(position)
        return 0 if isinstance(operations[0], Drop) else len(operations)

    def _operations(self, folded: Folded, first: int) -> Sequence[Operation]:
        keeps: list[Operation] = []
        room = BYTES
        for entry in folded.lying_before(first, ENTRIES):
            room -= compaction.length_of(entry)
            if room < 0 and keeps:
                break
            keeps.append(Keep(entry.id, folded.segments.payload(entry.where), entry))
        if keeps:
            return keeps
        first = compaction.furthest(folded, first, self._log.history)
        gone = compaction.length_before(self._log.fs, folded.segments, first)
        return [Drop(first, gone, folded.state.tokens, folded.state.pause)]

    def _sweep(self, queue: str) -> int:
        """Remove the files that drops have made needless; returns how many bytes they had."""
        fs, freed, durable = self._log.fs, 0, -1
        while True:
            with self._turn:
                folded = self._folded(queue)
                names = [] if folded is None else compaction.needless(fs, folded)
                if folded is None or not names:
                    return freed
                if durable >= 0:
                    freed += compaction.remove(fs, folded.segments.directory, names[:FILES])
                    continue
                durable = self._log.journal.standing.end
            # Whoever wrote the drop may have died before it was durable.
            self._log.settle(durable)
