"""What became of a queue's failed attempts: a fold over the records of their failures and of their ends.

An attempt is counted once, in the cell of the time at which it ended and of what made it fail, and moves
there from one column to the next as its entry goes on: it waits for the next attempt, is dead, is done after
all. How much memory that takes is a matter of how many kinds of failures there are and how many entries have
failed and not ended since; of both no more than so many are told apart.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from duraq.clock import to_datetime
from duraq.model import AttemptError
from duraq.signature import signature

MOST_KINDS = 1000  # of failures of one queue; what is beyond is one more
MOST_OPEN = 50_000  # entries that are followed
SAMPLES = 3  # of each kind
LATEST = 20  # of all kinds
_LONGEST = 1000  # characters of a sample's message
MORE = AttemptError("(more)", "too many kinds of failures to tell them apart")


class Fate(IntEnum):
    """What became of the entry of a failed attempt; ``OTHER``: removed, expired, or not followed."""

    OK = 0
    WAITING = 1
    DEAD = 2
    OTHER = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """One failed attempt, its message as it is."""

    queue: str
    id: str
    at: datetime
    type: str
    message: str


_Cell = list[int]  # how many attempts, by fate


# An attempt's error, or its record, of which the error is read if somebody is to see it.
Evidence = AttemptError | bytes
_Seen = tuple[int, str, Evidence]  # when, of which entry


class Kind:
    """Failures of one signature in one queue; ``cells`` are by stretches of time."""

    __slots__ = ("cells", "error", "first", "last", "samples", "seen")

    def __init__(self, at: int, error: AttemptError) -> None:
        self.error = error  # of the newest
        self.first = self.last = at
        self.cells: dict[int, _Cell] = {}
        self.seen: deque[_Seen] = deque(maxlen=SAMPLES)
        self.samples: list[Sample] = []


class _Open:
    """An entry that has failed and is not over: in which cells, in which column."""

    __slots__ = ("at", "cells", "fate", "newest")

    def __init__(self) -> None:
        self.fate = Fate.WAITING
        self.at = 0  # when the last of them ended
        self.cells: list[_Cell] = []
        self.newest = 0  # the stretch of the last of them

    def move(self, fate: Fate) -> None:
        for cell in self.cells:
            cell[self.fate] -= 1
            cell[fate] += 1
        self.fate = fate


def signature_of(error: AttemptError) -> str:
    """What it has in common with others; an error that was written without one gets it here."""
    return error.signature or signature(error.type, error.message, error.frame)


class Fates:
    """The failed attempts of one queue, by kind.

    Time is cut into stretches of ``width`` microseconds, counted from ``origin``; one that ends at a boundary
    belongs to the stretch before it. What ended before the stretch ``horizon`` is not counted.
    """

    def __init__(self, queue: str, origin: int, width: int, horizon: int) -> None:
        self.queue = queue
        self.kinds: dict[str, Kind] = {}
        self.latest: list[Sample] = []
        self._origin, self._width, self._horizon = origin, width, horizon
        self._open: dict[str, _Open] = {}
        self._over: dict[str, int] = {}  # of those that failed and are over, when they last failed
        self._seen: deque[_Seen] = deque(maxlen=LATEST)
        self._touched: set[str] = set()  # kinds of which something was seen

    def stretch(self, at: int) -> int:
        """In which stretch of time that is."""
        return (at - self._origin - 1) // self._width

    def fail(self, entry_id: str, at: int, key: str, evidence: Evidence, *, dead: bool) -> None:
        """An attempt of that entry ended at that time, and was the last if the entry is ``dead``.

        ``key``: the signature of its error.
        """
        kind = self.kinds.get(key)
        if kind is None:
            if len(self.kinds) >= MOST_KINDS:
                key = ""
            kind = self.kinds.setdefault(key, Kind(at, MORE))
        kind.first = min(kind.first, at)
        stretch = self.stretch(at)
        if stretch < self._horizon:
            return
        kind.last = max(kind.last, at)
        seen = (at, entry_id, evidence)
        kind.seen.append(seen)
        self._seen.append(seen)
        self._touched.add(key)
        cell = kind.cells.get(stretch)
        if cell is None:
            cell = kind.cells[stretch] = [0] * len(Fate)
        self._follow(entry_id, cell, at, Fate.DEAD if dead else Fate.WAITING)

    def show(self, read: Callable[[bytes], AttemptError]) -> None:
        """Read the errors of the newest that were seen since the last time, of each kind and of all."""
        for key in self._touched:
            kind = self.kinds[key]
            found = sorted(kind.seen, key=lambda seen: seen[0])
            errors = [(seen, self._error(seen, read)) for seen in found]
            kind.samples = [*kind.samples, *(self._sample(*each) for each in errors)][-SAMPLES:]
            kind.error = errors[-1][1] if key else MORE
            kind.seen.clear()
        self.latest += [self._sample(seen, self._error(seen, read)) for seen in self._seen]
        self.latest.sort(key=lambda sample: sample.at)
        del self.latest[:-LATEST]
        self._seen.clear()
        self._touched.clear()

    @staticmethod
    def _error(seen: _Seen, read: Callable[[bytes], AttemptError]) -> AttemptError:
        evidence = seen[2]
        return read(evidence) if isinstance(evidence, bytes) else evidence

    def _sample(self, seen: _Seen, error: AttemptError) -> Sample:
        at, entry_id, _ = seen
        return Sample(self.queue, entry_id, to_datetime(at), error.type, error.message[:_LONGEST])

    def _follow(self, entry_id: str, cell: _Cell, at: int, fate: Fate) -> None:
        entry = self._open.get(entry_id)
        if entry is None:
            if len(self._open) >= MOST_OPEN:
                cell[Fate.DEAD if fate is Fate.DEAD else Fate.OTHER] += 1
                return
            entry = self._open[entry_id] = _Open()
        entry.cells.append(cell)
        entry.newest = self.stretch(at)
        entry.at = max(entry.at, at)
        cell[entry.fate] += 1
        entry.move(fate)

    def follows(self, entry_id: str) -> bool:
        """Whether what becomes of that entry matters."""
        return entry_id in self._open

    def counted_until(self, entry_id: str) -> int:
        """When the newest of its attempts ended that was counted; what ended later was not counted yet."""
        entry = self._open.get(entry_id)
        if entry is not None:
            return entry.at
        # One that could not be followed any more may have been counted.
        return self._over.get(entry_id, 0) if len(self._open) < MOST_OPEN else sys.maxsize

    def move(self, entry_id: str, fate: Fate) -> None:
        """The entry is not over, but no longer what it was: it was put back, removed, or brought back."""
        self._open[entry_id].move(fate)

    def end(self, entry_id: str, fate: Fate) -> None:
        """The entry is over."""
        entry = self._open.pop(entry_id)
        entry.move(fate)
        # It may be brought in again, with what it has been through.
        self._over.pop(entry_id, None)
        self._over[entry_id] = entry.at
        if len(self._over) > MOST_OPEN:
            del self._over[next(iter(self._over))]

    def forget_before(self, horizon: int) -> None:
        """What ended before that stretch no longer counts."""
        if horizon <= self._horizon:
            return
        self._horizon = horizon
        for key, kind in list(self.kinds.items()):
            for stretch in [each for each in kind.cells if each < horizon]:
                del kind.cells[stretch]
            if not kind.cells:
                del self.kinds[key]
                self._touched.discard(key)
        self._open = {name: entry for name, entry in self._open.items() if entry.newest >= horizon}
