"""All queues of a storage together, kept from look to look: only what has changed is counted anew.

Knows no Textual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from duraq.metrics import Histogram
from duraq_dashboard import wording
from duraq_dashboard.history import ENTERED, LEFT, Durations, number_of, rate
from duraq_dashboard.snapshot import QueueNow, Snapshot
from duraq_dashboard.view_model import AN_HOUR, NOW, in_order


@dataclass(frozen=True, slots=True)
class _Part:
    """What one queue adds to the sums; as of a minute, for rates fade."""

    queue: QueueNow
    minute: datetime
    entered: float = 0.0
    left: float = 0.0
    died: int = 0
    wait: Histogram | None = None


class Overview:
    """The storage at a glance, as of the last ``look``."""

    def __init__(self) -> None:
        self.durations = Durations()
        self.alerts: Sequence[str] = ()
        self._parts: dict[str, _Part] = {}

    def look(self, snapshot: Snapshot, now: datetime) -> None:
        """See how it is now."""
        minute = now.replace(second=0, microsecond=0)
        parts, before = {}, self._parts
        changed = [
            queue
            for name, queue in snapshot.queues.items()
            if name not in before or before[name].queue is not queue
        ]
        self.durations.add(changed)
        for name, queue in snapshot.queues.items():
            known = before.get(name)
            if known is None or known.queue is not queue or known.minute != minute:
                known = self._part(queue, minute, now)
            parts[name] = known
        self._parts = parts
        if changed or len(parts) != len(before):
            loud = [queue for queue in snapshot.queues.values() if queue.role in {"crit", "warn"}]
            self.alerts = [f"{queue.name} {queue.word}" for queue in in_order(loud)]

    def _part(self, queue: QueueNow, minute: datetime, now: datetime) -> _Part:
        metrics = queue.metrics
        if metrics is None:
            return _Part(queue, minute)
        return _Part(
            queue,
            minute,
            rate(metrics, ENTERED, NOW, now),
            rate(metrics, LEFT, NOW, now),
            number_of(metrics, ("dead",), AN_HOUR, now),
            self.durations.took(metrics).wait,
        )

    def lines(self) -> Sequence[str]:
        """All of it in a line: the longest first, an empty one last."""
        parts = list(self._parts.values())
        counts = [part.queue.view.counts for part in parts]
        ready, leased = sum(each.ready for each in counts), sum(each.leased for each in counts)
        scheduled, dead = sum(each.scheduled for each in counts), sum(each.dead for each in counts)
        died = sum(part.died for part in parts)
        flows = (
            f"in {wording.rate(sum(part.entered for part in parts))}/s "
            f"out {wording.rate(sum(part.left for part in parts))}/s"
        )
        letters = f"DLQ {wording.count(dead)}" + (f" (+{wording.count(died)}/1h)" if died else "")
        p95 = f"p95 wait {wording.seconds(_together([part.wait for part in parts if part.wait]).p95)}"
        now = f"ready {wording.count(ready)}  in-flight {wording.count(leased)}"
        later = f"delayed {wording.count(scheduled)}"
        return (
            f"{now}  {later}  {letters}  {flows}  {p95}  workers {self._workers()}",
            f"{now}  {later}  {letters}  {flows}",
            f"ready {wording.count(ready)}  {letters}  {flows}",
            f"ready {wording.count(ready)}  {letters}",
            "",
        )

    def _workers(self) -> str:
        """How many of those who hold something live."""
        leases = [lease for part in self._parts.values() for lease in part.queue.view.leases if lease.worker]
        alive = {lease.worker for lease in leases if lease.alive}
        return f"{len(alive)}/{len({lease.worker for lease in leases})}"


def _together(every: Sequence[Histogram]) -> Histogram:
    """Several histograms as one."""
    if not every:
        return Histogram()
    buckets = tuple(map(sum, zip(*(each.buckets for each in every), strict=True)))
    return Histogram(buckets, sum(each.sum for each in every))
