"""Whether the numbers can be believed."""

from __future__ import annotations

from duraq.errors import DuraqError
from duraq.health.looking import Source, looking
from duraq.health.result import HealthResult, HealthStatus
from duraq.metrics import QueueMetrics


class MetricsHealthCheck:
    """Whether the metrics of every queue can be read, and add up."""

    component = "metrics"

    def __init__(self, storage: Source) -> None:
        self._source = storage

    def check(self) -> HealthResult:
        """Unhealthy if a queue's numbers cannot be told; degraded if some contradict each other."""
        unread: dict[str, str] = {}
        wrong: dict[str, str] = {}
        with looking(self._source) as (look, _):
            names = look.queues()
            for name in names:
                try:
                    metrics = look.metrics(name)
                except (DuraqError, OSError) as error:
                    unread[name] = f"{type(error).__name__}: {error}"
                    continue
                if (doubt := _doubt(metrics)) is not None:
                    wrong[name] = doubt
        details = {"queues": len(names), "unread": unread, "wrong": wrong}
        said = "; ".join(f"queue {name}: {why}" for name, why in (unread | wrong).items())
        if unread:
            return HealthResult(self.component, HealthStatus.UNHEALTHY, said, details)
        if wrong:
            return HealthResult(self.component, HealthStatus.DEGRADED, said, details)
        return HealthResult(self.component, HealthStatus.HEALTHY, "they add up", details)


def _doubt(metrics: QueueMetrics) -> str | None:
    """What cannot be true of a queue whose records are all counted."""
    count, there = metrics.counters, metrics.counts
    over = count.completed + count.expired + count.removed - count.restored
    here = there.length + there.dead
    # More is possible: what is past its time to live is not there, and expires when somebody comes by.
    if count.enqueued < over + here:
        return f"{count.enqueued} were enqueued, {over} are over, and {here} are there"
    ended = count.completed + count.failed + count.timed_out + count.worker_died + count.released
    if metrics.wait.count != ended + there.leased:
        return f"{metrics.wait.count} were leased, {ended} leases have ended, and {there.leased} are held"
    return None
