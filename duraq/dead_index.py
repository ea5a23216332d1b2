"""All dead letters of a queue in a few numbers each, to be listed, sorted and grouped, be it a million.

A million of them take some 30 MB and a few seconds, and no payload is read. Whoever shows a page of them
fetches those few in full:

    found = inspector.dead_index("emails", stop=stop, progress=show)    # show(index so far, how many in all)
    found = inspector.dead_index("emails", before=found)                # later: only what has changed is read
    len(found), found.died[0], found.attempts[0], found.causes[found.cause[0]]
    views = inspector.letters(found, range(30))      # EntryView, or None for one that is dead no more

Places count from 0. As a rule the letter that died last comes first, but compaction moves letters: whoever
wants them exactly so goes by ``in_order(found.died, descending=True)``. Places are those of one index: in the
next one (``before``) a letter may have another. What tells a letter from every other in its queue is its
``order``, the number of its enqueue.
"""

from __future__ import annotations

import operator
import threading
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from duraq.clock import to_datetime
from duraq.entry import DEAD, Entry
from duraq.fates import signature_of
from duraq.journal.run import Run
from duraq.journal.runs import Runs
from duraq.model import last_failure
from duraq.state import QueueState

_MOST_ATTEMPTS = (1 << 16) - 1
_IN_MEMORY = 0  # in place of a segment: those that lie in no index yet


class ErrorKind(NamedTuple):
    """What letters died of: the signature that all errors of one kind have, and their type."""

    signature: str
    type: str


class _Piece(NamedTuple):
    """The letters of one index: from which place on."""

    segment: int
    crc: int
    start: int


class DeadIndex:
    """The dead letters of one queue at one moment. What it holds never changes.

    By place: ``orders``, ``died`` (microseconds since 1970), ``attempts``, ``cause`` (where in ``causes``).
    """

    def __init__(self, queue: str, causes: dict[ErrorKind, int]) -> None:
        self.queue = queue
        self.orders = array("Q")
        self.died = array("q")
        self.attempts = array("H")
        self.cause = array("I")
        self._rows = array("I")
        self._causes = causes  # each with its number, shared by the indexes that follow each other
        self._pieces: list[_Piece] = []
        # From where to where those of an index are that has so many left.
        self._spans: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._by_run: dict[tuple[int, int, int], int] = {}  # which piece has those of a run
        self._ids: list[str] = []  # of those in memory, in place of rows
        self._length = 0

    def __len__(self) -> int:
        # Of one that is being built: as many as may be shown already.
        return self._length

    @property
    def causes(self) -> list[ErrorKind]:
        """All causes, by their number."""
        return list(self._causes)

    def died_at(self, place: int) -> datetime:
        """When that letter died."""
        return to_datetime(self.died[place])

    # -- building --------------------------------------------------------------------------------------

    def add_memory(self, letters: Iterable[Entry]) -> None:
        """Those that lie in no index yet."""
        self._pieces.append(_Piece(_IN_MEMORY, 0, len(self)))
        # Of what may be a million nothing is kept but these few.
        found = [
            (entry.updated_at, entry.seq, entry.attempts, self._number(_cause(entry)), entry.id)
            for entry in letters
        ]
        for died, seq, attempts, cause, entry_id in sorted(found, key=lambda each: -each[0]):
            self.orders.append(seq)
            self.died.append(died)
            self.attempts.append(min(attempts, _MOST_ATTEMPTS))
            self.cause.append(cause)
            self._rows.append(len(self._ids))
            self._ids.append(entry_id)
        self._length = len(self.orders)

    def add_run(self, runs: Runs, run: Run, before: DeadIndex | None) -> None:
        """Those that one index has."""
        known = None if before is None else before._span(run)  # noqa: SLF001 - one of us
        start = len(self)
        if known is not None:
            assert before is not None
            self._copy(before, *known)
        else:
            found = runs.dead_rows(run)
            # As a rule they died as they were enqueued; of those that died at once the last comes first, too
            order = sorted(range(len(found.rows)), key=found.died.__getitem__)[::-1]
            chosen = [place for place in order if not run.is_taken(found.rows[place])]
            self._rows.extend([found.rows[place] for place in chosen])
            self.orders.extend([found.orders[place] for place in chosen])
            self.died.extend([found.died[place] for place in chosen])
            self.attempts.extend([min(found.attempts[place], _MOST_ATTEMPTS) for place in chosen])
            self.cause.extend([self._number(found.causes[place]) for place in chosen])
        self._by_run[run.segment, run.crc, run.dead] = len(self._pieces)
        self._pieces.append(_Piece(run.segment, run.crc, start))
        self._spans[run.segment, run.crc, run.dead] = (start, len(self.orders))
        self._length = len(self.orders)

    def _span(self, run: Run) -> tuple[int, int] | None:
        """From where to where those of that run are, if it has lost none since."""
        return self._spans.get((run.segment, run.crc, run.dead))

    def _copy(self, other: DeadIndex, start: int, end: int) -> None:
        self.orders += other.orders[start:end]
        self.died += other.died[start:end]
        self.attempts += other.attempts[start:end]
        self.cause += other.cause[start:end]
        self._rows += other._rows[start:end]

    def _number(self, cause: tuple[str, str]) -> int:
        found: int | None = self._causes.get(cause)  # type: ignore[call-overload] # equal as tuples
        if found is None:
            found = self._causes[ErrorKind(*cause)] = len(self._causes)
        return found

    # -- fetching --------------------------------------------------------------------------------------

    def entry(self, state: QueueState, place: int) -> Entry | None:
        """The letter at that place, as the state has it; None if it is dead no more."""
        piece = self._pieces[bisect_right(self._pieces, place, key=lambda piece: piece.start) - 1]
        row = self._rows[place]
        if piece.segment == _IN_MEMORY:
            found = state.find(self._ids[row])
        else:
            assert isinstance(state.shelf, Runs)
            found = state.shelf.row(piece.segment, piece.crc, row)
        return (
            found if found is not None and found.status is DEAD and found.seq == self.orders[place] else None
        )


def _cause(entry: Entry) -> tuple[str, str]:
    """What it died of."""
    last = last_failure(entry.history)
    if last is None:
        return "", ""
    return signature_of(last.error), last.error.type


def in_order(values: array[int], *, descending: bool = False) -> array[int]:
    """The places of the values in their order; of those that are equal, as they stand.

    A million values are as many objects while they are sorted, and the memory for that is not given back. So
    those that are in order already, as most are, are not sorted.
    """
    follows, precedes = (operator.ge, operator.gt) if descending else (operator.le, operator.lt)
    if all(map(follows, values, islice(values, 1, None))):
        return array("I", range(len(values)))
    if all(map(precedes, islice(values, 1, None), values)):
        return array("I", reversed(range(len(values))))
    return array("I", sorted(range(len(values)), key=values.__getitem__, reverse=descending))


def entries(index: DeadIndex, state: QueueState, places: Iterable[int]) -> list[Entry | None]:
    """The letters at these places, as the state has them; None for what is dead no more. Raises Mislaid."""
    chosen = list(places)
    found = [index.entry(state, place) for place in chosen]
    if None in found and state.tally.dead:
        # It may only have been moved since, by compaction.
        later = build(state, before=index)
        assert later is not None
        wanted = {index.orders[place] for place, entry in zip(chosen, found, strict=True) if entry is None}
        moved = {order: place for place, order in enumerate(later.orders) if order in wanted}
        for at, place in enumerate(chosen):
            if found[at] is None and index.orders[place] in moved:
                found[at] = later.entry(state, moved[index.orders[place]])
    return found


def build(
    state: QueueState,
    *,
    stop: threading.Event | None = None,
    progress: Callable[[DeadIndex, int], None] | None = None,
    before: DeadIndex | None = None,
) -> DeadIndex | None:
    """The index of the state's dead letters; None if it was stopped. Raises Mislaid."""
    index = DeadIndex(state.name, {} if before is None else before._causes)  # noqa: SLF001 - one of us
    total = state.tally.dead
    index.add_memory(entry for entry in state.entries.values() if entry.status is DEAD)
    if not isinstance(state.shelf, Runs):
        # Rows of a database, which has no index of them.
        index.add_memory(state.shelf.walk(DEAD))
    for runs, run in _runs(state):
        if stop is not None and stop.is_set():
            return None
        index.add_run(runs, run, before)
        if progress is not None:
            progress(index, total)
    return index


def _runs(state: QueueState) -> Iterator[tuple[Runs, Run]]:
    shelf = state.shelf
    if isinstance(shelf, Runs):
        for run in shelf.buried:
            yield shelf, run
