"""Whether queues get worked."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from duraq.attention import DEFAULT, Attention, Thresholds, Verdict, error_rate, verdicts
from duraq.errors import DuraqError
from duraq.health.looking import Look, Source, looking
from duraq.health.result import HealthResult, HealthStatus, failed, worst
from duraq.metrics import QueueMetrics
from duraq.views import QueueView

_STATUSES = {"crit": HealthStatus.UNHEALTHY, "warn": HealthStatus.DEGRADED}


class QueueHealthCheck:
    """Whether what is ready gets worked, what is worked succeeds, and what is leased comes to its end.

    ``queue``: its name, or several; default: all there are. The thresholds are those of
    ``duraq.attention.Thresholds``, which says why they are set where they are. A queue is unhealthy if it
    cannot be read, if its entries are ready and nobody takes them, or if the oldest is so for too long; it is
    degraded by too many failing attempts, too many dead letters, and leases that nobody ends. One that is
    paused is not expected to be worked.
    """

    def __init__(
        self,
        storage: Source,
        queue: str | Iterable[str] | None = None,
        *,
        error_rate_window: timedelta = DEFAULT.error_rate_window,
        max_error_rate: float = DEFAULT.max_error_rate,
        min_attempts: int = DEFAULT.min_attempts,
        max_oldest_ready: timedelta = DEFAULT.max_oldest_ready,
        no_consumer_after: timedelta = DEFAULT.no_consumer_after,
        stuck_after: timedelta = DEFAULT.stuck_after,
        max_dead: int | None = DEFAULT.max_dead,
        max_dead_lately: int = DEFAULT.max_dead_lately,
        dead_window: timedelta = DEFAULT.dead_window,
    ) -> None:
        self.component = f"queue {queue}" if isinstance(queue, str) else "queues"
        self._source = storage
        self._names = None if queue is None else [queue] if isinstance(queue, str) else list(queue)
        self._limits = Thresholds(
            error_rate_window=error_rate_window,
            max_error_rate=max_error_rate,
            min_attempts=min_attempts,
            max_oldest_ready=max_oldest_ready,
            no_consumer_after=no_consumer_after,
            stuck_after=stuck_after,
            max_dead=max_dead,
            max_dead_lately=max_dead_lately,
            dead_window=dead_window,
        )

    def check(self) -> HealthResult:
        """The queue; or of several the worst, and in the details each of them."""
        found = self.check_each()
        if self.component != "queues":
            return found[0]
        overall = worst(result.status for result in found)
        # Who reads only this line is to see what it is about.
        wrong = [f"{each.component}: {each.message}" for each in found if each.status is overall]
        message = "; ".join(wrong) if overall is not HealthStatus.HEALTHY else "all are well"
        names = [result.component.removeprefix("queue ") for result in found]
        return HealthResult(
            self.component,
            overall,
            message,
            {
                "queues": {
                    name: {"status": each.status.value, "message": each.message, **each.details}
                    for name, each in zip(names, found, strict=True)
                }
            },
        )

    def check_each(self) -> list[HealthResult]:
        """Each queue by itself, as component ``queue NAME``; one that cannot be read hides no other."""
        with looking(self._source) as (look, now):
            there = look.queues()
            names = there if self._names is None else self._names
            return [self._check(look, name, now) if name in there else _missing(name) for name in names]

    def _check(self, look: Look, name: str, now: datetime) -> HealthResult:
        try:
            view = look.overview(name)
            metrics = None if view.problem is not None else look.metrics(name)
        except (DuraqError, OSError) as error:
            return failed(f"queue {name}", error)
        found = verdicts(view, now, self._limits, metrics=metrics)
        status = worst(_STATUSES.get(verdict.word.role, HealthStatus.HEALTHY) for verdict in found)
        return HealthResult(
            f"queue {name}", status, _message(view, found), self._details(view, now, found, metrics)
        )

    def _details(
        self, view: QueueView, now: datetime, found: list[Verdict], metrics: QueueMetrics | None
    ) -> dict[str, Any]:
        details: dict[str, Any] = {"words": [verdict.word.value for verdict in found]}
        if metrics is None:
            return details | {"error": type(view.problem).__name__}
        share, ended = error_rate(metrics, self._limits)
        oldest = timedelta(0) if view.oldest_ready is None else max(now - view.oldest_ready, timedelta(0))
        runs = metrics.run
        return details | {
            "ready": view.counts.ready,
            "scheduled": view.counts.scheduled,
            "leased": view.counts.leased,
            "dead": view.counts.dead,
            "oldest_ready_seconds": oldest.total_seconds(),
            "error_rate": round(share, 4),
            "attempts": ended,
            "mean_run_seconds": round(runs.sum / runs.count, 6) if runs.count else 0.0,
            "waiting": view.waiting,
        }


def _missing(name: str) -> HealthResult:
    # Queues come into being by their first entry; a program may well ask before it.
    return HealthResult(f"queue {name}", HealthStatus.HEALTHY, "nothing was ever put into it")


def _message(view: QueueView, found: list[Verdict]) -> str:
    said = [f"{verdict.word}: {verdict.why}" for verdict in found if verdict.word is not Attention.DEAD]
    counts = view.counts
    return "; ".join(said) or f"{counts.ready} ready, {counts.leased} leased, {counts.dead} dead"
