"""Figures of many rounds: spreads, percentiles, and ratios that are taken round by round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """What one contender did in one round of one workload: one rate, or many latencies.

    ``metric`` is which of the workload's figures; its main one has no name.
    """

    workload: str
    contender: str
    round: int
    values: tuple[float, ...]
    metric: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


def percentile(values: Iterable[float], percent: int) -> float:
    """The smallest value that at least so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def values_of(runs: Iterable[Run], workload: str, contender: str, metric: str = "") -> list[float]:
    """All rounds together."""
    return [
        value
        for run in runs
        if (run.workload, run.contender, run.metric) == (workload, contender, metric)
        for value in run.values
    ]


def ratios(runs: Sequence[Run], workload: str, contender: str, base: str, metric: str = "") -> list[float]:
    """A contender's figure over another's, round by round: what slows a round slows both."""
    by_round: dict[str, dict[int, float]] = {contender: {}, base: {}}
    for run in runs:
        if run.workload == workload and run.metric == metric and run.contender in by_round:
            by_round[run.contender][run.round] = statistics.median(run.values)
    theirs = by_round[base]
    return [rate / theirs[number] for number, rate in by_round[contender].items() if theirs.get(number)]


def format_ratio(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f}..{ratio.high:.2f})"


def format_figure(value: float) -> str:
    """Three digits that say something, and no exponent."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"
