"""Keeping the queues' files small, in steps that are short enough for others to wait for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from duraq.clock import Clock
from duraq.entry import Entry
from duraq.errors import DuraqError, NotWritten
from duraq.journal import compaction
from duraq.journal.folded import Folded
from duraq.journal.log import Log
from duraq.operations import Drop, Keep, Operation
from duraq.shelf import Mislaid
from duraq.state import QueueState
from duraq.storage.fold import NoRoom, TryAgain
from duraq.storage.upkeep import Upkeep

log = logging.getLogger("duraq")

# Whether another segment is to go, if so many are gone already.
Wanted = Callable[[Folded, int], bool]

LOCK = "segments"  # the directory whose lock is held by whoever compacts the queue
# What one step writes again at most. Others wait for a step, some 2 to 3 ms.
ENTRIES = 128
BYTES = 256 << 10
FILES = 16  # and removes
# Segments that go for each new one, unless the queue is late.
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
        upkeep: Upkeep,
        *,
        turn: AbstractContextManager[object],
        folded: Callable[[str], Folded | None],
        write: Callable[[str, Sequence[Operation], bool], int],
        make_room: Callable[[], None],
    ) -> None:
        """``folded`` gives a queue that is caught up, ``write`` writes and folds: both in a turn only.

        The last argument of ``write``: whether to seal the segment before.
        """
        self._log = journal
        self._clock = clock
        self._upkeep = upkeep
        self._turn = turn
        self._folded = folded
        self._write = write
        self._make_room = make_room
        self.late: set[str] = set()  # queues that will soon be longer than they may become

    # -- in the background -----------------------------------------------------------------------------

    def note(self, folded: Folded) -> None:
        """A segment of the queue was sealed, or a good deal in it is over; in a turn."""
        folded.over = 0
        # On a full disk less is enough; what that is cannot be told without looking at files.
        if self._log.journal.standing.short or compaction.is_due(folded, self._log.history):
            self._upkeep.note(folded.state.name, self._run)
            if compaction.is_late(folded, self._log.history):
                self.late.add(folded.state.name)

    def _run(self, queue: str) -> None:
        with self._upkeep.alone(queue, LOCK, wait=False) as alone:
            if alone:
                self._compact(queue, self._is_wanted)

    def _is_wanted(self, folded: Folded, gone: int) -> bool:
        rule = compaction.is_due if gone < PACE else compaction.is_late
        return self._is_sensible(folded, wanted=rule(folded, self._log.history))

    def _is_sensible(self, folded: Folded, *, wanted: bool) -> bool:
        """Whether to do it: on a full disk what frees more than it takes, or what there is room for."""
        if not self._log.journal.standing.short:
            return wanted
        fs, history = self._log.fs, self._log.history
        if compaction.is_cheap(fs, folded, history, self._clock.now()):
            return True
        # Of a queue that lives for the most part everything may have to be written again before any of it
        # comes free, and somewhat longer than it was.
        return wanted and self._log.reserve.has_room(2 * folded.segments.limit)

    def help(self) -> None:
        """Do a step for each queue that is late, in place of a thread that gets too little of the processor.

        For whoever has just written: so nobody makes a queue longer faster than it is made shorter. Only what
        any number of processes may do at once; the rest is for the one that compacts.
        """
        for queue in list(self.late):
            try:
                if self._write_again(queue, self._keeps_if_late) is None:
                    self.late.discard(queue)
            except (DuraqError, OSError) as error:
                # Nothing to the caller, whose own change is written.
                self.late.discard(queue)
                log.warning("queue %s: it is longer than it should be: %s", queue, error)

    def _keeps_if_late(self, folded: Folded) -> tuple[Sequence[Operation], bool] | None:
        history = self._log.history
        if not self._is_sensible(folded, wanted=compaction.is_late(folded, history)):
            return None
        first = compaction.following(self._log.fs, folded, history, self._clock.now())
        found = None if first is None else folded.lying_before(first, ENTRIES)
        return None if first is None or found == [] else (self._keeps(folded, found), False)

    # -- on demand -------------------------------------------------------------------------------------

    def compact(self, queue: str) -> Compacted:
        """Free what can be freed now, but for the history that is to be kept."""
        with self._upkeep.alone(queue, LOCK, wait=True):
            with self._turn:
                folded = self._folded(queue)
                end = 0 if folded is None else folded.checkpoint

            def wanted(folded: Folded, _gone: int) -> bool:
                return self._is_sensible(folded, wanted=compaction.is_worth_it(folded, self._log.history))

            # Up to where it stands now: what is written again is not to be worked through as well.
            return self._compact(queue, wanted, end)

    # -- the work --------------------------------------------------------------------------------------

    def _compact(self, queue: str, wanted: Wanted, last: int | None = None) -> Compacted:
        """Let the oldest segments go, some at a time, as long as that is wanted; none behind ``last``."""
        self._write_again(queue, self._checkpoint)
        freed, kept = self._sweep(queue), 0  # what an earlier one has left behind
        gone = 0
        while not (gone and self._upkeep.stopping):
            first = self._next(queue, wanted, gone, last)
            if first is None:
                break
            while (step := self._step(queue, first)) is not None:
                kept += step
            self._write_again(queue, self._checkpoint)
            freed += self._sweep(queue)
            gone += 1
        return Compacted(queue, freed, kept)

    def _checkpoint(self, folded: Folded) -> tuple[Sequence[Operation], bool] | None:
        """Have a checkpoint behind the last drop: who begins there needs nothing of what was dropped."""
        segments = folded.segments
        if folded.first_needed >= segments.first or not compaction.any_before(self._log.fs, segments):
            return None
        return [_dropped(folded.state, segments.first, 0)], True

    def _next(self, queue: str, wanted: Wanted, gone: int, last: int | None) -> int | None:
        """From which segment on everything is to be, if the oldest one is to go."""
        with self._turn:
            folded = self._folded(queue)
            if folded is None or not wanted(folded, gone):
                return None
            return compaction.following(self._log.fs, folded, self._log.history, self._clock.now(), last)

    def _step(self, queue: str, first: int) -> int | None:
        """Write again some of what lies before that segment and return how much.

        If nothing does, drop what comes before it; None if that is done.
        """

        def some(folded: Folded) -> tuple[Sequence[Operation], bool] | None:
            if folded.segments.first >= first:
                return None
            found = folded.lying_before(first, ENTRIES)
            return self._keeps(folded, found) if found != [] else self._drop(folded, first), False

        written = self._write_again(queue, some)
        return None if written is None else sum(isinstance(operation, Keep) for operation in written)

    def _write_again(
        self, queue: str, choose: Callable[[Folded], tuple[Sequence[Operation], bool] | None]
    ) -> Sequence[Operation] | None:
        """One step: what ``choose`` says, written; None if it says that nothing is to be done."""
        while True:
            try:
                with self._turn:
                    folded = self._folded(queue)
                    chosen = None if folded is None else choose(folded)
                    if chosen is None:
                        return None
                    operations, position = self._write_what_fits(queue, *chosen)
                break
            except NoRoom:
                self._make_room()
            except (TryAgain, Mislaid):
                continue
        if operations and isinstance(operations[0], Keep):
            # Not for durability, which ``_sweep`` sees to: others get their turn before the next step.
            self._log.settle(position)
        return operations

    def _write_what_fits(
        self, queue: str, operations: Sequence[Operation], seal: bool
    ) -> tuple[Sequence[Operation], int]:
        """Write these, or on a full disk fewer; what was written, and the position to settle."""
        while operations:
            try:
                return operations, self._write(queue, operations, seal)
            except NotWritten:
                if len(operations) == 1:
                    raise
                operations = operations[: len(operations) // 2]
        return operations, 0

    def _keeps(self, folded: Folded, entries: Sequence[Entry] | None) -> Sequence[Operation]:
        keeps: list[Operation] = []
        room = BYTES
        for entry in entries or ():
            room -= compaction.length_of(entry)
            if room < 0 and keeps:
                break
            keeps.append(Keep(entry.id, folded.segments.payload(entry.where), entry))
        return keeps

    def _drop(self, folded: Folded, first: int) -> Sequence[Operation]:
        first = compaction.furthest(folded, first, self._log.history)
        gone = compaction.length_before(self._log.fs, folded.segments, first)
        return [_dropped(folded.state, first, gone)]

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
            # In every mode: what is dropped must be dropped for good before its files go, and whoever wrote
            # the drop may have died before it was durable.
            self._log.settle(durable)


def _dropped(state: QueueState, first: int, gone: int) -> Drop:
    """The drop of what comes before that segment, with all that is to be known of it."""
    return Drop(first, gone, state.tokens, state.pause, state.ledger)
