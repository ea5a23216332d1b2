"""The design's budgets, and what a run says of each."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.figures import Run, format_figure, percentile, ratios, values_of

# Whoever is the best of these in a run: they sync for every entry, as DuraQ does.
DURABLE_PEERS = ("sqlite", "persist-queue", "huey", "localqueue", "beanstalkd", "redis")


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on a figure of a contender in a workload.

    ``over``: the limit is on the ratio to that contender, or to the best of several. ``percentile``: of
    all values; for ratios it is the median of the rounds.
    """

    workload: str
    limit: float
    unit: str
    at_least: bool = True
    over: str | tuple[str, ...] | None = None
    percentile: int = 50
    contender: str = "duraq"
    metric: str = ""

    def __str__(self) -> str:
        what = "median" if self.percentile == 50 else f"p{self.percentile}"
        where = " ".join(
            filter(None, (self.workload, self.metric, self.contender.removeprefix("duraq").strip()))
        )
        relation = "≥" if self.at_least else "≤"
        return f"{where}, {what} {relation} {format_figure(self.limit)} {self.unit}"


def _at_most(workload: str, limit: float, unit: str, metric: str, contender: str = "duraq") -> Budget:
    return Budget(workload, limit, unit, at_least=False, metric=metric, contender=contender)


BUDGETS = (
    Budget("enqueue", 1.10, "x floor A", over="floor A"),
    Budget("enqueue", 0.85, "x floor B", over="floor B"),
    Budget("batch", 250_000, "entries/s"),
    Budget("batch", 1.10, "x sqlite", over="sqlite"),
    Budget("work", 1.00, "x floor A", over="floor A"),
    Budget("work-process", 30_000, "cycles/s"),
    Budget("crowd", 3, "x one", metric="threads x"),
    Budget("crowd", 3, "x one", metric="processes x"),
    _at_most("lives", 0, "entries", "lost"),
    _at_most("lives", 0, "entries", "twice"),
    Budget("lives", 3, "x the best durable peer", over=DURABLE_PEERS),
    Budget("depth", 0.9, "x duraq 1k", over="duraq 1k", contender="duraq 1M"),
    Budget("depth", 0.9, "x duraq 1k", over="duraq 1k", contender="duraq 10M"),
    _at_most("depth", 40, "MB", "memory", "duraq 1M"),
    _at_most("depth", 150, "ms", "start", "duraq 1M"),
    _at_most("depth", 250, "ms", "start", "duraq 10M"),
    _at_most("wake", 0.6, "ms", ""),
    Budget("wake", 2, "ms", at_least=False, percentile=99),
    _at_most("idle", 0.1, "% of a core", ""),
    _at_most("kill", 10, "ms", ""),
    _at_most("disk", 4, "MB", ""),
    _at_most("startup", 100, "ms", "help"),
    _at_most("startup", 150, "ms", "put"),
)


def measured(budget: Budget, runs: Sequence[Run]) -> float | None:
    """The figure that the budget limits; None if it was not measured."""
    workload, contender, metric = budget.workload, budget.contender, budget.metric
    if isinstance(budget.over, tuple):
        found = [ratios(runs, workload, contender, peer, metric) for peer in budget.over]
        # The smallest ratio is the one to the best of them.
        return min((statistics.median(each) for each in found if each), default=None)
    if budget.over is not None:
        values = ratios(runs, workload, contender, budget.over, metric)
    else:
        values = values_of(runs, workload, contender, metric)
    if not values:
        return None
    if budget.percentile == 50:
        return statistics.median(values)
    return percentile(values, budget.percentile)


def verdict(budget: Budget, value: float) -> str:
    miss = budget.limit - value if budget.at_least else value - budget.limit
    if miss <= 0:
        return "holds"
    return f"misses by {format_figure(100 * miss / budget.limit)} %" if budget.limit else "misses"


def budget_rows(runs: Sequence[Run]) -> list[list[str]]:
    rows = [["budget", "measured", "verdict"]]
    for budget in BUDGETS:
        value = measured(budget, runs)
        if value is None:
            rows.append([str(budget), "not measured", ""])
        else:
            rows.append([str(budget), f"{format_figure(value)} {budget.unit}", verdict(budget, value)])
    return rows
