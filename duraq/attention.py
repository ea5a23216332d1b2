"""What is the matter with a queue, in one word, and what the evidence is. The worst word wins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from duraq.errors import StorageDamaged
from duraq.views import LeaseView, QueueView


class Attention(StrEnum):
    """The words, worst first."""

    DENIED = "DENIED"
    CORRUPT = "CORRUPT"
    NO_CONSUMER = "NO CONSUMER"
    STUCK = "STUCK"
    LEASE = "LEASE!"
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
    Attention.DLQ: "warn",
    Attention.PAUSED: "note",
    Attention.DEAD: "note",
    Attention.OK: "plain",
}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on something is worth a word."""

    unattended: timedelta = timedelta(minutes=2)  # ready entries, and nobody to take them
    stuck: timedelta = timedelta(minutes=15)  # age of the oldest ready entry
    late: timedelta = timedelta(seconds=30)  # a lease past its deadline that nobody has ended
    died: int = 5  # more dead letters than this ...
    died_within: timedelta = timedelta(hours=1)  # ... in this time


DEFAULT = Thresholds()


class Verdict(NamedTuple):
    """The word, and why."""

    word: Attention
    why: str


def judge(queue: QueueView, now: datetime, limits: Thresholds = DEFAULT) -> Verdict:
    """The worst that can be told from one look; rates are not known from one."""
    return (
        _unreadable(queue)
        # Paused on purpose: that its entries wait is no news.
        or (None if queue.pause else _waiting(queue, now, limits))
        or _overdue(queue, now, limits)
        or _dying(queue, now, limits)
        or _paused(queue)
        or _has_dead(queue)
        or Verdict(Attention.OK, "")
    )


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
    working = [lease for lease in queue.leases if lease.alive is not False and not lease.late]
    ready = f"{queue.counts.ready} ready, the oldest for {_whole(age)}"
    if age > limits.unattended and not working and not queue.waiting:
        return Verdict(Attention.NO_CONSUMER, f"{ready}; no lease, nobody waits")
    if age > limits.stuck:
        return Verdict(Attention.STUCK, f"{ready}; {len(working)} being worked")
    return None


def _overdue(queue: QueueView, now: datetime, limits: Thresholds) -> Verdict | None:
    """Leases that are over, but for somebody to say so: past their deadline, or their worker is dead."""
    over = [lease for lease in queue.leases if _is_over(lease) and now - lease.deadline_at > limits.late]
    dead = [lease for lease in queue.leases if lease.alive is False and now - lease.leased_at > limits.late]
    if not over and not dead:
        return None
    worst = (over or dead)[0]
    who = f"worker {worst.worker}" if worst.worker else "no process"
    why = "its worker is dead" if worst in dead else "its deadline has passed"
    return Verdict(
        Attention.LEASE, f"{len({*over, *dead})} of {len(queue.leases)}: {worst.id} ({who}), {why}"
    )


def _is_over(lease: LeaseView) -> bool:
    return lease.late and lease.alive is not False


def _dying(queue: QueueView, now: datetime, limits: Thresholds) -> Verdict | None:
    lately = sum(1 for died in queue.died if now - died <= limits.died_within)
    if lately <= limits.died:
        return None
    return Verdict(Attention.DLQ, f"{lately} entries died within {_whole(limits.died_within)}")


def _paused(queue: QueueView) -> Verdict | None:
    if queue.pause is None:
        return None
    reason = f": {queue.pause.reason}" if queue.pause.reason else ""
    return Verdict(Attention.PAUSED, f"by {queue.pause.who} at {queue.pause.at:%Y-%m-%d %H:%M:%SZ}{reason}")


def _has_dead(queue: QueueView) -> Verdict | None:
    if not queue.counts.dead:
        return None
    return Verdict(Attention.DEAD, f"{queue.counts.dead} to be decided on, see duraq dlq ls {queue.name}")


def _whole(duration: timedelta) -> str:
    return str(timedelta(seconds=int(duration.total_seconds())))
