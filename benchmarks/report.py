"""From figures to ratios, tables and a verdict on each budget. Nothing here measures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

FLOORS = ("floor A", "floor B")


@dataclass(frozen=True, slots=True)
class Run:
    """What one contender did in one round of one workload: one rate, or many latencies."""

    workload: str
    contender: str
    round: int
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Spread:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Budget:
    """A line of the design's table of budgets, for ``duraq`` in a workload.

    ``over``: the limit is on the ratio to that contender, else on the figure itself. ``percentile``: of
    all values; for ratios it is the median of the rounds.
    """

    workload: str
    limit: float
    unit: str
    at_least: bool = True
    over: str | None = None
    percentile: int = 50

    def __str__(self) -> str:
        what = "median" if self.percentile == 50 else f"p{self.percentile}"
        relation = "≥" if self.at_least else "≤"
        return f"{self.workload}, {what} {relation} {format_figure(self.limit)} {self.unit}"


BUDGETS = (
    Budget("enqueue", 1.10, "x floor A", over="floor A"),
    Budget("enqueue", 0.85, "x floor B", over="floor B"),
    Budget("batch", 250_000, "entries/s"),
    Budget("batch", 1.10, "x sqlite", over="sqlite"),
    Budget("work", 1.00, "x floor A", over="floor A"),
    Budget("work-process", 30_000, "cycles/s"),
    Budget("wake", 0.6, "ms", at_least=False),
    Budget("wake", 2, "ms", at_least=False, percentile=99),
    Budget("idle", 0.1, "% of a core", at_least=False),
    Budget("kill", 10, "ms", at_least=False),
)


def percentile(values: Iterable[float], percent: int) -> float:
    """The smallest value that at least so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def values_of(runs: Iterable[Run], workload: str, contender: str) -> list[float]:
    """All rounds together."""
    return [
        value
        for run in runs
        if run.workload == workload and run.contender == contender
        for value in run.values
    ]


def ratios(runs: Sequence[Run], workload: str, contender: str, base: str) -> list[float]:
    """A contender's rate over another's, round by round: what slows a round slows both."""
    by_round: dict[str, dict[int, float]] = {contender: {}, base: {}}
    for run in runs:
        if run.workload == workload and run.contender in by_round:
            by_round[run.contender][run.round] = statistics.median(run.values)
    theirs = by_round[base]
    return [rate / theirs[number] for number, rate in by_round[contender].items() if number in theirs]


def measured(budget: Budget, runs: Sequence[Run]) -> float | None:
    """The figure that the budget limits; None if it was not measured."""
    if budget.over is not None:
        values = ratios(runs, budget.workload, "duraq", budget.over)
    else:
        values = values_of(runs, budget.workload, "duraq")
    if not values:
        return None
    if budget.percentile == 50:
        return statistics.median(values)
    return percentile(values, budget.percentile)


def verdict(budget: Budget, value: float) -> str:
    miss = (budget.limit - value) / budget.limit
    if not budget.at_least:
        miss = -miss
    return "holds" if miss <= 0 else f"misses by {format_figure(100 * miss)} %"


def budget_lines(runs: Sequence[Run]) -> list[str]:
    rows = [["budget", "measured", "verdict"]]
    for budget in BUDGETS:
        value = measured(budget, runs)
        if value is None:
            rows.append([str(budget), "not measured", ""])
        else:
            rows.append([str(budget), f"{format_figure(value)} {budget.unit}", verdict(budget, value)])
    return table(rows)


def rate_lines(
    runs: Sequence[Run], workload: str, contenders: Sequence[str], syncs: Mapping[str, int]
) -> list[str]:
    """A row for each contender, with its ratios to the floors; ``syncs`` are those of one operation."""
    rows = [["", "median", "min", "max", *(f"x {floor} (min..max)" for floor in FLOORS), "syncs/op"]]
    for contender in contenders:
        rate = Spread.of(values_of(runs, workload, contender))
        row = [contender, *(format_figure(value) for value in (rate.median, rate.low, rate.high))]
        for floor in FLOORS:
            found = ratios(runs, workload, contender, floor)
            row.append(format_ratio(Spread.of(found)) if found else "-")
        rows.append([*row, str(syncs.get(contender, "-"))])
    return table(rows)


def latency_lines(runs: Sequence[Run], workload: str, contenders: Sequence[str]) -> list[str]:
    rows = [["", "p50", "p99", "min", "max", "n"]]
    for contender in contenders:
        values = values_of(runs, workload, contender)
        spread = Spread.of(values)
        figures = (spread.median, percentile(values, 99), spread.low, spread.high)
        rows.append([contender, *map(format_figure, figures), str(len(values))])
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns two spaces apart, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def format_ratio(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f}..{ratio.high:.2f})"


def format_figure(value: float) -> str:
    """Three digits that say something, and no exponent."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"
