"""The ratios that were measured once, and how far a new run may stay behind them.

A ratio compares DuraQ with a floor or a peer in the same rounds of the same run, so that a slower machine
or a busy one changes both sides. What is left is noise, and only repeated runs can tell how large it is:
a baseline is made of several short runs, of which each gives one median for each ratio. With m their
median and s their standard deviation, a check fails below m - MARGIN_DEVIATIONS * s, and never for less
than LEAST_MARGIN of m.

Why four deviations: s is itself known from a handful of runs only, and may be too small by a third; four
measured ones are then still some 2.7 true ones, which a normal run falls below once in 300 times. A check
looks at eight ratios, and what is found below is measured again and fails only if it is below twice. Why
never less than 5 %: runs close together agree better than runs of different days. A ratio whose margin
would be more than GREATEST_MARGIN guards nothing, and is shown as such rather than passed: the machine was
not quiet enough, or the ratio depends on how fast the disk is just then.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.figures import Run, format_figure, ratios, values_of

MARGIN_DEVIATIONS = 4
LEAST_MARGIN = 0.05
GREATEST_MARGIN = 0.6
# With fewer there is no spread to speak of.
LEAST_RUNS = 3


@dataclass(frozen=True, slots=True)
class Watched:
    """A ratio that is guarded: of DuraQ to ``over`` or, without it, a metric that is a ratio already."""

    workload: str
    over: str = ""
    metric: str = ""

    @property
    def name(self) -> str:
        return f"{self.workload}: {self.metric or f'x {self.over}'}"


WATCHED = (
    Watched("enqueue", "floor A"),
    Watched("enqueue", "floor B"),
    Watched("batch", "sqlite"),
    Watched("work", "floor A"),
    Watched("work", "sqlite"),
    Watched("work-process", "sqlite"),
    Watched("crowd", metric="threads x"),
    Watched("crowd", metric="processes x"),
)


@dataclass(frozen=True, slots=True)
class Expected:
    """A ratio in a baseline: each run's median, and the share of ``median`` that a check may lack."""

    runs: tuple[float, ...]
    median: float
    deviation: float
    margin: float

    @property
    def guards(self) -> bool:
        return self.margin <= GREATEST_MARGIN

    @property
    def limit(self) -> float:
        return self.median * (1 - self.margin) if self.guards else 0.0

    @classmethod
    def of(cls, runs: Sequence[float]) -> Expected:
        if len(runs) < LEAST_RUNS:
            raise ValueError(f"a baseline needs at least {LEAST_RUNS} runs, not {len(runs)}")
        median, deviation = statistics.median(runs), statistics.stdev(runs)
        margin = max(LEAST_MARGIN, MARGIN_DEVIATIONS * deviation / median)
        return cls(tuple(runs), median, deviation, margin)


def medians(runs: Sequence[Run]) -> dict[str, float]:
    """Of each watched ratio that was measured, by its name."""
    found = {}
    for watched in WATCHED:
        if watched.over:
            values = ratios(runs, watched.workload, "duraq", watched.over)
        else:
            values = values_of(runs, watched.workload, "duraq", watched.metric)
        if values:
            found[watched.name] = statistics.median(values)
    return found


def record(machine: Mapping[str, str], runs: Sequence[Mapping[str, float]], rounds: int) -> dict[str, Any]:
    """The baseline of several runs' medians, for JSON."""
    names = [watched.name for watched in WATCHED if all(watched.name in run for run in runs)]
    expected = {name: asdict(Expected.of([run[name] for run in runs])) for name in names}
    return {"machine": dict(machine), "rounds": rounds, "ratios": expected}


def load(document: Mapping[str, Any]) -> dict[str, Expected]:
    return {
        name: Expected(**{**ratio, "runs": tuple(ratio["runs"])})
        for name, ratio in document["ratios"].items()
    }


def behind(expected: Mapping[str, Expected], found: Mapping[str, float]) -> list[str]:
    """Names of the ratios that are below their limit, or not there at all."""
    return [name for name, each in expected.items() if name not in found or found[name] < each.limit]


def workloads_of(names: Sequence[str]) -> set[str]:
    return {watched.workload for watched in WATCHED if watched.name in names}


def comparison_rows(expected: Mapping[str, Expected], found: Mapping[str, float]) -> list[list[str]]:
    rows = [["ratio", "baseline", "margin", "now", "verdict"]]
    for name, each in expected.items():
        margin = f"{100 * each.margin:.0f} %"
        if name not in found:
            rows.append([name, format_figure(each.median), margin, "-", "NOT MEASURED"])
            continue
        change = 100 * (found[name] / each.median - 1)
        if not each.guards:
            verdict = f"{change:+.0f} %: the baseline is too noisy to guard it"
        elif found[name] < each.limit:
            verdict = f"BEHIND by {-change:.0f} %"
        elif found[name] > each.median * (1 + each.margin):
            verdict = f"ahead by {change:.0f} %: record a new baseline"
        else:
            verdict = f"{change:+.0f} %"
        rows.append([name, format_figure(each.median), margin, format_figure(found[name]), verdict])
    return rows
