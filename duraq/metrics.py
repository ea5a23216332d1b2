"""What can be said of a queue in numbers, as of one moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate, islice
from math import ceil, inf
from typing import ClassVar

from duraq import options
from duraq.clock import to_datetime
from duraq.entry import READY
from duraq.errors import InvalidOption
from duraq.ledger import BOUNDS, Counters, Durations, Ledger
from duraq.model import Counts, Pause
from duraq.state import QueueState

SECOND = 1_000_000  # microseconds
_NO_ENTRIES, _NO_EVENTS = Counts(), Counters()
_LOOKS = 200  # entries that are read to find the oldest; others may wait meanwhile


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often something took how long. Lengths are in seconds.

    ``buckets`` has one number for each of ``bounds``, of what took at most that long and longer than the
    bound before, and a last one for what took longer than all of them.
    """

    buckets: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    sum: float = 0.0

    bounds: ClassVar[tuple[float, ...]] = tuple(bound / SECOND for bound in BOUNDS)

    @classmethod
    def of(cls, durations: Durations) -> Histogram:
        """As it is now."""
        return cls(tuple(durations.counts), durations.total / SECOND)

    @property
    def count(self) -> int:
        """How often in all."""
        return sum(self.buckets)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound, and how often it took at most that long; the last bound is infinite."""
        return zip((*self.bounds, float("inf")), accumulate(self.buckets), strict=True)

    def quantile(self, q: float) -> float | None:
        """About how long it took at most in the share ``q`` (0 to 1) of all cases; None if there was none.

        As precise as the buckets are, never more than the last bound, and no more than the sum leaves for it
        when all others took as little as their buckets have it.
        """
        if not 0 <= q <= 1:
            raise InvalidOption(f"a quantile is between 0 and 1, not {q!r}")
        rank, below, lower = q * self.count, 0, 0.0
        for upper, count in zip(self.bounds, self.buckets, strict=False):
            if count and below + count >= rank:
                found = lower + (upper - lower) * (rank - below) / count
                # That one and all of its bucket behind it took at least so long.
                as_long = below + count - max(ceil(rank), below + 1) + 1
                return min(found, lower + self._spare / as_long)
            below, lower = below + count, upper
        return self.bounds[-1] if self.count else None

    @property
    def _spare(self) -> float:
        """What they took together beyond the lower bounds of their buckets."""
        if not self.sum:
            return inf  # not known, or nothing took any time
        lowest = (0.0, *self.bounds)
        return max(0.0, self.sum - sum(low * count for low, count in zip(lowest, self.buckets, strict=True)))

    @property
    def p50(self) -> float | None:
        """Half of them took no longer than about that."""
        return self.quantile(0.5)

    @property
    def p95(self) -> float | None:
        """All but one in twenty took no longer than about that."""
        return self.quantile(0.95)


@dataclass(frozen=True, slots=True)
class Period:
    """What happened in a stretch of time."""

    start: datetime
    length: timedelta
    counters: Counters

    @property
    def end(self) -> datetime:
        """When it was over, or will be."""
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class QueueMetrics:
    """A queue in numbers.

    ``counters``, ``wait``, ``run``, ``last_completed`` and ``history`` tell of all that ever happened in the
    queue, whichever process did it; they follow from the times in the records alone.

    ``wait``: how long entries were ready before each lease. ``run``: how long attempts took that were
    completed, or that failed.
    ``history``: what happened when, oldest first: the last hour by minutes, the last day by ten minutes, the
    last week by hours; times without any event are left out.
    ``bytes_on_disk``: of all files that the queue's records are in; ``live_bytes``: of the records in which
    its entries lie. In memory: 0, and the bytes of the payloads.
    ``workers``: living processes that hold entries of it; ``waiting``: consumers that wait for one, which in
    PostgreSQL is known of the own process only.
    """

    queue: str
    at: datetime
    counts: Counts = _NO_ENTRIES
    counters: Counters = _NO_EVENTS
    wait: Histogram = Histogram()
    run: Histogram = Histogram()
    oldest_ready: datetime | None = None
    last_completed: datetime | None = None
    paused: Pause | None = None
    bytes_on_disk: int = 0
    live_bytes: int = 0
    workers: int = 0
    waiting: int = 0
    history: tuple[Period, ...] = field(default=(), repr=False)

    @property
    def oldest_ready_age(self) -> timedelta | None:
        """For how long the entry has been ready that has been so longest; None if none is ready."""
        return None if self.oldest_ready is None else max(self.at - self.oldest_ready, timedelta(0))

    def rate(self, what: str, window: timedelta) -> float:
        """How often a second it happened lately: ``rate("enqueued", timedelta(minutes=5))``.

        ``what`` is the name of one of the counters; the window may be as long as a week. Of the period in
        which the window begins it takes the share that lies in it.
        """
        if what not in Counters._fields:
            raise InvalidOption(f"there is no counter {what!r}; there are {', '.join(Counters._fields)}")
        options.duration("window", window)
        begin = self.at - window
        column = Counters._fields.index(what)
        times = sum(_share(each, begin, self.at) * each.counters[column] for each in self.history)
        return times / window.total_seconds()


def _share(period: Period, begin: datetime, end: datetime) -> float:
    """Which part of what happened in the period lies between these times, if it happened evenly."""
    if period.start > end or period.end <= begin:
        return 0.0
    if period.start >= begin:
        return 1.0  # what would lie behind ``end`` has not happened yet
    last = min(period.end, end)
    return (last - begin) / (last - period.start)


def measure(state: QueueState, now: int, live_bytes: int) -> QueueMetrics:
    """What the fold alone can say."""
    ledger = state.ledger
    counts = state.counts(now)
    oldest = oldest_ready(state, now)
    return QueueMetrics(
        state.name,
        to_datetime(now),
        counts,
        ledger.totals(),
        Histogram.of(ledger.wait),
        Histogram.of(ledger.run),
        None if oldest is None else to_datetime(oldest),
        to_datetime(ledger.completed_at) if ledger.completed_at else None,
        state.pause,
        live_bytes=live_bytes,
        history=history(ledger),
    )


def history(ledger: Ledger) -> tuple[Period, ...]:
    """What happened when, oldest first."""
    return tuple(
        Period(to_datetime(start), timedelta(microseconds=length), counters)
        for start, length, counters in sorted(ledger.periods())
    )


def oldest_ready(state: QueueState, now: int) -> int | None:
    """Since when the entry is ready that has been so longest, as of the last ``advance``; None if none is.

    Of those on the shelf it looks at the first that were enqueued; that is enough, unless hundreds of them
    became ready again later than one behind them.
    """
    found = [
        entry.ready_since
        for entry in state.entries.values()
        if entry.status is READY and not state.is_over(entry, now)
    ]
    oldest = min(found, default=None)
    for entry in islice(state.shelf.by_age(), _LOOKS):
        # Nothing was ready before it was enqueued.
        if oldest is not None and entry.created_at >= oldest:
            break
        if entry.expires_at is None or entry.expires_at > now:
            oldest = entry.ready_since if oldest is None else min(oldest, entry.ready_since)
    return oldest
