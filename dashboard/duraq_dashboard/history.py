"""How things went: rates from what queues have counted, durations from what was seen of them.

Queues count by minutes, tens of minutes and hours, so rates reach back further than the dashboard was there.
How long things took they keep only in all; of lately there is the difference between two looks.

Knows no Textual.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

from duraq.ledger import Counters
from duraq.metrics import Histogram, Period, QueueMetrics
from duraq_dashboard.snapshot import QueueNow

FAILED = ("failed", "timed_out", "worker_died")
ENTERED, LEFT = ("enqueued",), ("completed",)

A_MINUTE = timedelta(minutes=1)
# Of a stretch of time that has only just begun nothing can be told yet.
SHORTEST = timedelta(seconds=10)


def columns(
    history: Sequence[Period], what: Iterable[str], window: timedelta, count: int, now: datetime
) -> list[float]:
    """How often a second it happened, in each of ``count`` stretches of the window, the current one last.

    They begin at full multiples of their length, so that what is over does not change any more.
    """
    length = window / count
    begun = datetime.min.replace(tzinfo=now.tzinfo)
    end = begun + ((now - begun) // length + 1) * length
    found = [0.0] * count
    fields = [Counters._fields.index(each) for each in what]
    for period in reversed(history):
        if period.end <= end - window:
            break
        happened = sum(period.counters[field] for field in fields)
        if happened:
            _spread(found, happened, period, begin=end - window, length=length, now=now)
    whole = length.total_seconds()
    rates = [times / whole for times in found]
    lasted = max(now - (end - length), min(SHORTEST, length))
    rates[-1] = found[-1] / lasted.total_seconds()
    return rates


def _spread(
    found: list[float], happened: int, period: Period, *, begin: datetime, length: timedelta, now: datetime
) -> None:
    """Add what happened in a period to the stretches it lies in, as if it had happened evenly."""
    # What is counted in a period that is not over has happened up to now.
    last = max(min(period.end, now), period.start + timedelta(seconds=1))
    lasts = last - period.start
    first = max(0, (period.start - begin) // length)
    for at in range(first, len(found)):
        start = begin + at * length
        if start >= last:
            break
        found[at] += happened * ((min(last, start + length) - max(period.start, start)) / lasts)


def rate(metrics: QueueMetrics, what: Iterable[str], window: timedelta, now: datetime) -> float:
    """How often a second it happened in the time up to now."""
    fields = [Counters._fields.index(each) for each in what]
    begin, times = now - window, 0.0
    for period in reversed(metrics.history):
        if period.end <= begin:
            break
        happened = sum(period.counters[field] for field in fields)
        if period.start >= begin:
            times += happened
        else:
            last = max(min(period.end, now), begin)
            times += happened * ((last - begin) / max(last - period.start, timedelta.resolution))
    return times / window.total_seconds()


def number_of(metrics: QueueMetrics, what: Iterable[str], window: timedelta, now: datetime) -> int:
    """About how often it happened in the time up to now."""
    return round(rate(metrics, what, window, now) * window.total_seconds())


@dataclass(frozen=True, slots=True)
class Took:
    """How long entries waited and attempts ran: since then, or ever if ``since`` is None.

    ``most``: nothing can have taken longer, in seconds.
    """

    wait: Histogram
    run: Histogram
    since: datetime | None
    most: float = inf

    def p50(self, lengths: Histogram) -> float | None:
        """Half of them took no longer than about that."""
        return possible(lengths.p50, self.most)

    def p95(self, lengths: Histogram) -> float | None:
        """All but one in twenty took no longer than about that."""
        return possible(lengths.p95, self.most)


def possible(length: float | None, most: float) -> float | None:
    """The length; what a wide bucket adds to it is left out if so much time has not passed at all."""
    return None if length is None else min(length, most)


def age(metrics: QueueMetrics) -> float:
    """For how many seconds something has happened in the queue, to a minute; infinite if nothing has."""
    if not metrics.history or metrics.history[0].start >= metrics.at:
        return inf
    return (metrics.at - metrics.history[0].start).total_seconds()


@dataclass(frozen=True, slots=True)
class _Look:
    at: datetime
    wait: Histogram
    run: Histogram


class Durations:
    """What queues' histograms were at earlier looks, so that there is a difference to tell of.

    A look a minute for a quarter of an hour is kept of each queue in which things happen.
    """

    WINDOW = timedelta(minutes=15)

    def __init__(self) -> None:
        self._looks: dict[str, deque[_Look]] = {}

    def add(self, queues: Iterable[QueueNow]) -> None:
        """Take note of what queues that have changed are now."""
        for now in queues:
            metrics = now.metrics
            if metrics is None:
                continue
            looks = self._looks.setdefault(now.name, deque())
            if looks and _less(metrics.wait, looks[-1].wait):
                looks.clear()  # another queue of that name
            if not looks or metrics.at - looks[-1].at >= A_MINUTE:
                looks.append(_Look(metrics.at, metrics.wait, metrics.run))
            # One that is older than the window stays: the difference begins there.
            while len(looks) > 1 and metrics.at - looks[1].at >= self.WINDOW:
                looks.popleft()

    def took(self, metrics: QueueMetrics) -> Took:
        """How long things took lately; ever, if nothing happened since this was first looked at."""
        looks = self._looks.get(metrics.queue)
        if looks:
            first = looks[0]
            wait, run = _difference(metrics.wait, first.wait), _difference(metrics.run, first.run)
            if wait.count > 0:
                return Took(wait, run, first.at, age(metrics))
        return Took(metrics.wait, metrics.run, None, age(metrics))


def _less(one: Histogram, other: Histogram) -> bool:
    return any(here < there for here, there in zip(one.buckets, other.buckets, strict=True))


def _difference(later: Histogram, earlier: Histogram) -> Histogram:
    buckets = tuple(max(0, a - b) for a, b in zip(later.buckets, earlier.buckets, strict=True))
    return Histogram(buckets, max(0.0, later.sum - earlier.sum))
