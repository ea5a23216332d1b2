"""What is the matter with a queue, in one word, and what the evidence is. The worst word wins.

All rules are here: ``duraq stats``, ``duraq check`` and health checks ask the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from duraq import options
from duraq.errors import InvalidOption, StorageDamaged
from duraq.metrics import QueueMetrics
from duraq.times import span
from duraq.views import LeaseView, QueueView


class Attention(StrEnum):
    """The words, worst first."""

    DENIED = "DENIED"
    CORRUPT = "CORRUPT"
    NO_CONSUMER = "NO CONSUMER"
    STUCK = "STUCK"
    LEASE = "LEASE!"
    ERRORS = "ERRORS"
    DLQ = "DLQ+"
    PAUSED = "PAUSED"
    DEAD = "DEAD"
    OK = "OK"

    @property
    def role(self) -> str:
        """How loud it is: crit, warn, note or plain."""
        return _ROLES.get(self, "crit")


_ROLES = {
    Attention.LEASE: "warn",
    Attention.ERRORS: "warn",
    Attention.DLQ: "warn",
    Attention.PAUSED: "note",
    Attention.DEAD: "note",
    Attention.OK: "plain",
}


_FAILED = ("failed", "timed_out", "worker_died")
_ENDED = (*_FAILED, "completed")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on something is worth a word; each with why it is set where it is."""

    # A worker that is restarted is back by then.
    no_consumer_after: timedelta = timedelta(minutes=2)
    # Three default leases: that long an entry waits only if too few work, or none gets on.
    max_oldest_ready: timedelta = timedelta(minutes=15)
    # A lease that is over is ended within a second, by whoever works or waits; if not, nobody does.
    stuck_after: timedelta = timedelta(seconds=30)
    # Of the attempts that ended, the share that failed. One in ten is more than bad luck ...
    max_error_rate: float = 0.1
    # ... over a time that forgets what was mended ...
    error_rate_window: timedelta = timedelta(minutes=5)
    # ... and of as many at least: one of two says nothing yet.
    min_attempts: int = 10
    # Entries that died in an hour: somebody looks at a few of them when there is time, but at a wave now.
    max_dead_lately: int = 5
    dead_window: timedelta = timedelta(hours=1)
    # Dead letters in all; how many may lie there is for everybody to say.
    max_dead: int | None = None

    def __post_init__(self) -> None:
        for name in (
            "no_consumer_after",
            "max_oldest_ready",
            "stuck_after",
            "error_rate_window",
            "dead_window",
        ):
            options.duration(name, getattr(self, name), zero=not name.endswith("window"))
        if not 0 <= self.max_error_rate <= 1:
            raise InvalidOption(f"max_error_rate is between 0 and 1, not {self.max_error_rate!r}")
        for name in ("min_attempts", "max_dead_lately", "max_dead"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InvalidOption(f"{name} must be at least 0, not {value!r}")


DEFAULT = Thresholds()


class Verdict(NamedTuple):
    """The word, and why."""

    word: Attention
    why: str


def judge(
    queue: QueueView, now: datetime, limits: Thresholds = DEFAULT, *, metrics: QueueMetrics | None = None
) -> Verdict:
    """The worst word, and all that is the matter; what has happened lately only with the metrics."""
    found = verdicts(queue, now, limits, metrics=metrics)
    # Dead letters are counted beside it: they are evidence only where there is no other.
    told = [each for each in found if each.word is not Attention.DEAD] or found
    texts = [each.why if each is told[0] else f"{each.word}: {each.why}" for each in told]
    return Verdict(
        told[0].word if told else Attention.OK, "; ".join([*texts, *not_yet(queue, found, limits, metrics)])
    )


def verdicts(
    queue: QueueView, now: datetime, limits: Thresholds = DEFAULT, *, metrics: QueueMetrics | None = None
) -> list[Verdict]:
    """All that is the matter, the worst first."""
    found = (
        _unreadable(queue),
        # Paused on purpose: that its entries wait is no news.
        None if queue.pause else _waiting(queue, now, limits),
        _overdue(queue, now, limits),
        None if metrics is None else _failing(metrics, limits),
        _dying(queue, metrics, limits),
        _paused(queue),
        _has_dead(queue),
    )
    return [verdict for verdict in found if verdict is not None]


def label(word: str, *, paused: bool) -> str:
    """The word as a list of queues shows it: a pause, which keeps work from being done, is never hidden."""
    louder = word in {Attention.LEASE, Attention.ERRORS, Attention.DLQ}
    return f"{word} {Attention.PAUSED}" if paused and louder else word


def not_yet(
    queue: QueueView, found: Sequence[Verdict], limits: Thresholds, metrics: QueueMetrics | None
) -> list[str]:
    """What will be the matter if nothing happens, but is no word's yet; ``found``: what the verdicts are."""
    if queue.problem or {each.word for each in found} & {
        Attention.NO_CONSUMER,
        Attention.STUCK,
        Attention.LEASE,
    }:
        return []
    dead = sum(lease.alive is False for lease in queue.leases)
    notes = [f"{dead} held by a dead worker; whoever works the queue next takes it"] if dead else []
    # Whoever works may be between two entries just now.
    lately = 0 if metrics is None else _lately(metrics, limits.no_consumer_after, *_ENDED)
    if queue.counts.ready and not (queue.pause or queue.waiting or _working(queue) or lately):
        notes.append(f"{queue.counts.ready} ready, nobody works it yet")
    return notes


def error_rate(metrics: QueueMetrics, limits: Thresholds = DEFAULT) -> tuple[float, int]:
    """The share of the attempts that failed lately, and how many ended: completed, failed or lost."""
    failed = _lately(metrics, limits.error_rate_window, *_FAILED)
    ended = failed + _lately(metrics, limits.error_rate_window, "completed")
    return (failed / ended if ended else 0.0), round(ended)


def _lately(metrics: QueueMetrics, window: timedelta, *counters: str) -> float:
    """How often these have happened within the window."""
    # Rounded, for a rate is a quotient: exactly as many as are allowed must not pass for more.
    return round(sum(metrics.rate(each, window) for each in counters) * window.total_seconds(), 6)


def _unreadable(queue: QueueView) -> Verdict | None:
    if isinstance(queue.problem, StorageDamaged):
        return Verdict(Attention.CORRUPT, str(queue.problem))
    if queue.problem is not None:
        return Verdict(Attention.DENIED, str(queue.problem))
    return None


def _waiting(queue: QueueView, now: datetime, limits: Thresholds) -> Verdict | None:
    if queue.oldest_ready is None:
        return None
    age = now - queue.oldest_ready
    working = _working(queue)
    ready = f"{queue.counts.ready} ready, the oldest for {span(timedelta(seconds=int(age.total_seconds())))}"
    if age > limits.no_consumer_after and not working and not queue.waiting:
        held = (
            f"none of {len(queue.leases)} leases is held by a living worker" if queue.leases else "no lease"
        )
        return Verdict(Attention.NO_CONSUMER, f"{ready}; {held}, nobody waits")
    if age > limits.max_oldest_ready:
        return Verdict(Attention.STUCK, f"{ready}; {len(working)} being worked")
    return None


def _working(queue: QueueView) -> list[LeaseView]:
    """The leases of those who may be at work."""
    return [lease for lease in queue.leases if lease.alive is not False and not lease.late]


def _overdue(queue: QueueView, now: datetime, limits: Thresholds) -> Verdict | None:
    """Leases that are over, but for somebody to say so: past their deadline, or their worker is dead."""
    over = [
        lease for lease in queue.leases if _is_over(lease) and now - lease.deadline_at > limits.stuck_after
    ]
    dead = [
        lease for lease in queue.leases if lease.alive is False and now - lease.leased_at > limits.stuck_after
    ]
    if not over and not dead:
        return None
    worst = (over or dead)[0]
    who = f"worker {worst.worker}" if worst.worker else "no process"
    why = "which is dead" if worst in dead else "its deadline has passed"
    count = len({*over, *dead})
    number = f"{count} of {len(queue.leases)} leases {'is' if count == 1 else 'are'} over"
    return Verdict(
        Attention.LEASE,
        f"{number}: {worst.id}, held by {who}, {why}; "
        f"whoever works the queue next takes it, or duraq release {worst.id}",
    )


def _is_over(lease: LeaseView) -> bool:
    return lease.late and lease.alive is not False


def _failing(metrics: QueueMetrics, limits: Thresholds) -> Verdict | None:
    share, ended = error_rate(metrics, limits)
    if ended < limits.min_attempts or share <= limits.max_error_rate:
        return None
    return Verdict(
        Attention.ERRORS, f"{share:.0%} of {ended} attempts failed within {span(limits.error_rate_window)}"
    )


def _dying(queue: QueueView, metrics: QueueMetrics | None, limits: Thresholds) -> Verdict | None:
    # Of those that were put back or removed since nobody needs to be told.
    lately = 0 if metrics is None else round(_lately(metrics, limits.dead_window, "dead"))
    lately = min(lately, queue.counts.dead)
    if lately > limits.max_dead_lately:
        return Verdict(Attention.DLQ, f"{lately} entries died within {span(limits.dead_window)}")
    if limits.max_dead is not None and queue.counts.dead > limits.max_dead:
        return Verdict(Attention.DLQ, f"{queue.counts.dead} dead letters, the limit is {limits.max_dead}")
    return None


def _paused(queue: QueueView) -> Verdict | None:
    if queue.pause is None:
        return None
    reason = f": {queue.pause.reason}" if queue.pause.reason else ""
    return Verdict(Attention.PAUSED, f"by {queue.pause.who} at {queue.pause.at:%Y-%m-%d %H:%M:%SZ}{reason}")


def _has_dead(queue: QueueView) -> Verdict | None:
    if not queue.counts.dead:
        return None
    return Verdict(Attention.DEAD, f"{queue.counts.dead} to be decided on, see duraq dlq ls {queue.name}")
