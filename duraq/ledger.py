"""What has happened in a queue, in numbers: counted by the fold, and kept wherever its state is kept.

Nothing here asks a clock. All of it follows from the records and from the times that stand in them, so
whoever has folded the same records has the same numbers.

Each event is counted in one row, that of its minute. Of minutes, and of the coarser periods after them, so
many rows are kept; when there is one too many, the one that was begun first is added to the row of the
coarser period that it lies in, and in the end to ``before``. So how long ago something was is known the more
precisely the less long ago it was, in a size that does not grow, and no total is ever lost.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

from duraq.model import Cause


class Counters(NamedTuple):
    """How often something has happened.

    ``failed``: attempts whose handler failed, the last ones among them; ``dead``: entries that became dead
    letters, for whatever cause; ``timed_out``, ``worker_died`` and ``released``: leases that ended so;
    ``expired``: entries whose TTL passed; ``requeued``, ``removed``, ``restored``: dead letters that
    were; and ``restored``: entries that came from another storage.
    """

    enqueued: int = 0
    completed: int = 0
    failed: int = 0
    dead: int = 0
    timed_out: int = 0
    worker_died: int = 0
    released: int = 0
    expired: int = 0
    requeued: int = 0
    removed: int = 0
    restored: int = 0


# The columns of a row.
(
    ENQUEUED,
    COMPLETED,
    FAILED,
    DEAD,
    TIMED_OUT,
    WORKER_DIED,
    RELEASED,
    EXPIRED,
    REQUEUED,
    REMOVED,
    RESTORED,
) = range(len(Counters._fields))
ENDED = {
    Cause.FAILED: FAILED,
    Cause.TIMED_OUT: TIMED_OUT,
    Cause.WORKER_DIED: WORKER_DIED,
    Cause.RELEASED: RELEASED,
}

MINUTE = 60_000_000  # microseconds
# Name, minutes in a row, rows that are kept. A rate over an hour touches 61 minutes, and must not touch the
# ten minutes that those before it were added to; the same goes for a day, of tens.
LEVELS = (("minutes", 1, 72), ("tens", 10, 152), ("hours", 60, 168))

MOST = 1 << 62  # of anything that is counted

# The upper bounds of durations that are counted together, in microseconds; what is longer is one more.
BOUNDS = tuple(
    milliseconds * 1000
    for milliseconds in (
        *(5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000),
        *(30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000),
    )
)


class Durations:
    """How often something took how long, and how long all together, in microseconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        # Not a whole number: of a deep and busy queue that would outgrow what JSON holds.
        self.total = 0.0

    def add(self, duration: int) -> None:
        """It took so long, once more."""
        duration = max(duration, 0)  # somebody set the clock back in between
        self.counts[bisect_left(BOUNDS, duration)] += 1
        self.total += duration

    def image(self) -> list[float | int]:
        return [self.total, *_short(self.counts)]

    @classmethod
    def of(cls, image: Any) -> Self:
        self = cls()
        total, *counts = image
        if type(total) not in {int, float} or not 0 <= total < MOST:
            raise TypeError(f"not a length of time: {total!r}")
        self.total = float(total)
        self.counts = _row(_checked(counts), len(self.counts))
        return self


class Ledger:
    """The numbers of one queue.

    ``wait``: how long entries were ready before each of their leases; ``run``: how long each attempt took
    that its worker ended itself. ``completed_at``: when an entry was completed last; 0: never.
    """

    __slots__ = ("_begin", "_end", "_levels", "_row", "before", "completed_at", "run", "wait")

    def __init__(self) -> None:
        self.wait = Durations()
        self.run = Durations()
        self.completed_at = 0
        self.before = _row((), len(Counters._fields))
        self._levels: tuple[dict[int, list[int]], ...] = tuple({} for _ in LEVELS)
        # The row that is counted in, and from when to when.
        self._row = self.before
        self._begin = self._end = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ledger) and self.image() == other.image()

    __hash__ = None  # type: ignore[assignment] # it changes

    # -- counting; on the path of every operation ------------------------------------------------------

    def count(self, what: int, at: int, times: int = 1) -> None:
        """It has happened at that time."""
        if not self._begin <= at < self._end:
            self._turn_to(at)
        self._row[what] += times

    def complete(self, leased_at: int, at: int) -> None:
        """A lease of that time has ended so."""
        # As ``count`` does it; a call is most of what this costs.
        if not self._begin <= at < self._end:
            self._turn_to(at)
        self._row[COMPLETED] += 1
        run, duration = self.run, at - leased_at if at > leased_at else 0
        run.counts[bisect_left(BOUNDS, duration)] += 1
        run.total += duration
        self.completed_at = at

    def end(self, cause: Cause, leased_at: int, at: int) -> None:
        """A lease has ended otherwise."""
        self.count(ENDED[cause], at)
        if cause is Cause.FAILED:
            self.run.add(at - leased_at)

    def _turn_to(self, at: int) -> None:
        """Go on in the row of that time, which may be an earlier one than the last."""
        minute = at // MINUTE
        self._begin, self._end = minute * MINUTE, (minute + 1) * MINUTE
        rows = self._levels[0]
        if minute not in rows:
            rows[minute] = _row((), len(Counters._fields))
            self._condense()
        self._row = rows[minute]

    def _condense(self) -> None:
        for level, (_, _, most) in enumerate(LEVELS):
            rows = self._levels[level]
            while len(rows) > most:
                # The one that was begun first, whatever its time: a clock that was wrong for a while must not
                # drive out what is true.
                start = next(iter(rows))
                _add(self._coarser(level + 1, start), rows.pop(start))

    def _coarser(self, level: int, start: int) -> list[int]:
        if level == len(LEVELS):
            return self.before
        _, width, _ = LEVELS[level]
        return self._levels[level].setdefault(start - start % width, _row((), len(Counters._fields)))

    # -- asking ----------------------------------------------------------------------------------------

    def periods(self) -> Iterator[tuple[int, int, Counters]]:
        """When each period began, how long it is (microseconds), and what happened in it; in no order."""
        for (_, width, _), rows in zip(LEVELS, self._levels, strict=True):
            for start, row in rows.items():
                yield start * MINUTE, width * MINUTE, Counters(*row)

    def totals(self) -> Counters:
        """What has happened in all."""
        rows = [self.before, *(row for level in self._levels for row in level.values())]
        return Counters(*map(sum, zip(*rows, strict=True)))

    # -- keeping ---------------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        """About how long its image is as JSON."""
        return 400 + 30 * sum(map(len, self._levels))

    def image(self) -> dict[str, Any]:
        """All of it as JSON values."""
        found: dict[str, Any] = {
            "completed_at": self.completed_at,
            "wait": self.wait.image(),
            "run": self.run.image(),
            "before": _short(self.before),
        }
        for (name, _, _), rows in zip(LEVELS, self._levels, strict=True):
            found[name] = [[start, *_short(row)] for start, row in rows.items()]
        return found

    @classmethod
    def of(cls, image: dict[str, Any]) -> Self:
        """It again. Raises KeyError, TypeError or ValueError if it is not what ``image`` made."""
        self = cls()
        (self.completed_at,) = _checked([image["completed_at"]])
        self.wait, self.run = Durations.of(image["wait"]), Durations.of(image["run"])
        width = len(Counters._fields)
        self.before = self._row = _row(_checked(image["before"]), width)
        for (name, _, _), rows in zip(LEVELS, self._levels, strict=True):
            for start, *row in map(_checked, image[name]):
                rows[start] = _row(row, width)
        return self


def _row(counts: Sequence[int], width: int) -> list[int]:
    # One that is longer was written by a later version, which counts more.
    return [*counts[:width], *[0] * (width - len(counts))]


def _short(counts: Sequence[int]) -> list[int]:
    """Without the zeros at the end."""
    length = len(counts)
    while length and not counts[length - 1]:
        length -= 1
    return list(counts[:length])


def _add(row: list[int], more: Sequence[int]) -> None:
    row[:] = [here + there for here, there in zip(row, more, strict=True)]


def _checked(numbers: Any) -> list[int]:
    if not isinstance(numbers, list) or not all(type(each) is int and 0 <= each < MOST for each in numbers):
        raise TypeError(f"not a list of numbers: {numbers!r}")
    return numbers
