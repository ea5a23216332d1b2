"""What of the queues is shown, and in which words: plain values in, plain text out. Knows no Textual."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from duraq.attention import DEFAULT, Attention, label, not_yet
from duraq.errors import InvalidFilter
from duraq.metrics import QueueMetrics
from duraq.model import QUEUE_NAME
from duraq.pauses import is_on_its_way
from duraq.safe_text import safe_text
from duraq.sparkline import sparkline
from duraq.where import Where
from duraq_dashboard import wording
from duraq_dashboard.history import ENTERED, FAILED, LEFT, Durations, columns, number_of, rate
from duraq_dashboard.snapshot import QueueNow
from duraq_dashboard.wording import NOTHING

LOUDNESS = ("crit", "warn", "note", "plain")
_WORDS = ("GONE", *(word.value for word in Attention))
LATELY = timedelta(minutes=15)  # what the sparkline tells of
NOW = timedelta(minutes=1)  # what a rate is of, if nothing else is said
AN_HOUR = timedelta(hours=1)


# -- order and choice --------------------------------------------------------------------------------------


def _attention(queue: QueueNow) -> tuple[object, ...]:
    return (LOUDNESS.index(queue.role), _WORDS.index(queue.word))


_NOT_YET = 1e18


def _oldest(queue: QueueNow) -> tuple[object, ...]:
    oldest = queue.view.oldest_ready
    return (oldest is None, _NOT_YET if oldest is None else oldest.timestamp())


def _busiest(queue: QueueNow) -> tuple[object, ...]:
    metrics = queue.metrics
    return (0.0 if metrics is None else -rate(metrics, LEFT, LATELY, metrics.at),)


# By name; all of them end with the name, so that equals stand still.
SORTS: Mapping[str, Callable[[QueueNow], tuple[object, ...]]] = {
    "attention": _attention,
    "name": lambda _: (),
    "ready": lambda queue: (-queue.view.counts.ready,),
    "dead": lambda queue: (-queue.view.counts.dead,),
    "oldest": _oldest,
    "out": _busiest,
}


def in_order(queues: Iterable[QueueNow], sort: str = "attention") -> list[QueueNow]:
    """The queues in that order; by attention those first that need somebody."""
    key = SORTS[sort]
    return sorted(queues, key=lambda queue: (key(queue), queue.name))


class QueueFilter:
    """Which queues are shown: a part of their names, or a filter of which entries they must have.

    Raises InvalidFilter for what is neither, and for fields that only entries have.
    """

    def __init__(self, text: str, now: datetime) -> None:
        self.text = text.strip()
        self._where: Where | None = None
        if self.text and QUEUE_NAME.match(self.text.lower()) is None:
            where = Where.parse(self.text, now)
            others = {term.field.name or '"text"' for term in where.terms} - {"queue", "state"}
            if others:
                known = "queue: and state:, or a part of a queue's name"
                raise InvalidFilter(f"queues are filtered by {known}, not by {', '.join(sorted(others))}")
            self._where = where

    def admits(self, queue: QueueNow) -> bool:
        """Whether the queue is meant."""
        if self._where is None:
            return self.text.lower() in queue.name
        if not self._where.queues([queue.name]):
            return False
        if all(term.field.name != "state" for term in self._where.terms):
            return True
        counts = queue.view.counts
        return any(getattr(counts, status.value, 0) for status in self._where.states())


def is_young(queue: QueueNow, now: datetime) -> bool:
    """Whether its oldest ready entry is: such ages change each second."""
    oldest = queue.view.oldest_ready
    return oldest is not None and 0 <= (now - oldest).total_seconds() < wording.MINUTE


# -- one queue ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue as one line of a list; all of it text that may be shown.

    ``note``: what stands in place of the numbers where there are none.
    """

    name: str
    status: str
    role: str
    ready: str = NOTHING
    scheduled: str = NOTHING
    leased: str = NOTHING
    dead: str = NOTHING
    oldest: str = NOTHING
    entered: str = NOTHING
    left: str = NOTHING
    bars: str = ""
    p50: str = NOTHING
    p95: str = NOTHING
    failed: str = NOTHING
    workers: str = NOTHING
    note: str = ""


def queue_row(queue: QueueNow, durations: Durations, now: datetime, *, ascii_only: bool = False) -> QueueRow:
    """The queue as of now."""
    metrics, counts = queue.metrics, queue.view.counts
    if metrics is None:
        return QueueRow(queue.name, queue.word, queue.role, note=safe_text(queue.why, 300))
    took = durations.took(metrics)
    oldest = queue.view.oldest_ready
    return QueueRow(
        queue.name,
        label(queue.word, paused=queue.view.pause is not None),
        queue.role,
        ready=wording.count(counts.ready),
        scheduled=wording.count(counts.scheduled),
        leased=wording.count(counts.leased),
        dead=wording.count(counts.dead),
        oldest=wording.age(None if oldest is None else now - oldest),
        entered=wording.rate(rate(metrics, ENTERED, NOW, now)),
        left=wording.rate(rate(metrics, LEFT, NOW, now)),
        bars=sparkline(columns(metrics.history, LEFT, LATELY, 15, now), ascii_only=ascii_only),
        p50=wording.seconds(took.p50(took.wait)),
        p95=wording.seconds(took.p95(took.wait)),
        failed=failing(metrics, now),
        workers=str(metrics.workers + metrics.waiting),
    )


def failing(metrics: QueueMetrics, now: datetime) -> str:
    """The share of attempts that failed, in percent, within the time that the rule of ERRORS looks at."""
    failed = rate(metrics, FAILED, DEFAULT.error_rate_window, now)
    ended = failed + rate(metrics, LEFT, DEFAULT.error_rate_window, now)
    return wording.share(failed / ended) if ended else "0.0"


@dataclass(frozen=True, slots=True)
class Flow:
    """How often a second something happened over a time, as bars."""

    bars: str
    peak: str
    now: str


def flow(
    metrics: QueueMetrics,
    what: Iterable[str],
    window: timedelta,
    width: int,
    now: datetime,
    *,
    ascii_only: bool = False,
) -> Flow:
    """The bars of one counter, from zero up to the peak."""
    values = columns(metrics.history, what, window, width, now)
    return Flow(
        sparkline(values, ascii_only=ascii_only),
        wording.rate(max(values, default=0.0)),
        wording.rate(rate(metrics, what, NOW, now)),
    )


def why(queue: QueueNow) -> list[str]:
    """All that is the matter with it, the worst first."""
    if queue.gone:
        return [queue.why]
    lines = [f"{verdict.word.value}: {safe_text(verdict.why, 500)}" for verdict in queue.verdicts]
    return [*lines, *not_yet(queue.view, queue.verdicts, DEFAULT, queue.metrics)] or ["nothing is the matter"]


def facts(queue: QueueNow, now: datetime) -> list[str]:
    """What else whoever wonders about the queue would ask next."""
    metrics = queue.metrics
    if metrics is None:
        return []
    last = metrics.last_completed
    happened = [
        f"{number_of(metrics, what, AN_HOUR, now):,} {name}"
        for name, what in (("in", ENTERED), ("out", LEFT), ("failed", FAILED), ("died", ("dead",)))
    ]
    lines = [
        f"last completed {wording.age(now - last)} ago" if last else "nothing was ever completed",
        f"last hour: {', '.join(happened)}",
        f"{wording.plural(metrics.workers, 'worker')} at it, {metrics.waiting} waiting for an entry",
        f"on disk {wording.size(metrics.bytes_on_disk)}, of which live {wording.size(metrics.live_bytes)}",
    ]
    if queue.view.counts.leased:
        lines.insert(1, holders(queue))
    return lines


def holders(queue: QueueNow) -> str:
    """Who holds its entries."""
    pids = sorted({lease.pid for lease in queue.view.leases if lease.pid is not None})
    shown = ", ".join(map(str, pids[:4])) + (" ..." if len(pids) > 4 else "")
    return f"{queue.view.counts.leased} leased" + (f" by pid {shown}" if pids else "")


_ADVICE = {
    "NO CONSUMER": ("run {name} -- PROGRAM", "workers"),
    "STUCK": ("leases {name}", "errors {name}"),
    "LEASE!": ("run {name} -- PROGRAM", "leases {name}"),
    "ERRORS": ("errors {name}",),
    "DLQ+": ("dlq ls {name}", "errors {name}"),
    "DEAD": ("dlq ls {name}",),
    "PAUSED": ("resume {name}",),
    "CORRUPT": ("verify {name}", "repair {name}"),
}


def advice(queue: QueueNow, path: str) -> list[str]:
    """Commands to go on with; they can be pasted into a shell."""
    if queue.word == "DENIED":
        return [shlex.join(["ls", "-ld", f"{path}/{queue.name}", path])]
    begin = shlex.join(["duraq", "-C", path])
    if queue.word == "PAUSED" and is_on_its_way(queue.view.pause):
        return []  # it is resumed when it is there; until then that is refused
    return [f"{begin} {each.format(name=queue.name)}" for each in _ADVICE.get(queue.word, ())]


def outlook(metrics: QueueMetrics, now: datetime) -> str:
    """Where it goes if it goes on like this."""
    entered, left = rate(metrics, ENTERED, LATELY, now), rate(metrics, LEFT, LATELY, now)
    ready = metrics.counts.ready
    growth = entered - left
    sign = "+" if growth >= 0 else "-"
    line = f"trend {sign}{wording.rate(abs(growth))}/s over 15m"
    if ready and left > 0:
        alone = wording.age(timedelta(seconds=ready / left))
        if growth < 0:
            line += f"; empty in {wording.age(timedelta(seconds=ready / -growth))}"
        line += f"; drained in {alone} if nothing more came"
    elif ready:
        line += "; nothing goes out"
    return line
