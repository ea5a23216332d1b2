"""What a workload is: a function from a stage and a count to figures, of whom, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.contender import Durability
from benchmarks.stage import Stage

# What one contender did in one round, by metric; a workload's main metric has no name.
Figures = dict[str, list[float]]
Operation = Literal["enqueue", "batch", "work"]


@dataclass(frozen=True, slots=True)
class Column:
    """A metric in a table: its heading, and whether it is summed over the rounds or their median taken.

    ``over``: the heading of a further column, the ratio to the contender's first variant.
    """

    metric: str
    heading: str
    summed: bool = False
    over: str = ""


@dataclass(frozen=True, slots=True)
class Workload:
    """``count`` is what each contender does in a round: enough of it to be a figure.

    A round is done in ``slices``: what is short can take turns more often, and noise meets all alike.
    ``operation`` is the one whose syncs are shown. ``prepare`` is done once, before the first round.
    ``variants`` are named kinds of it, each on a stage of its own, in the same rounds. ``columns`` are the
    metrics of a table that has several. ``left_out`` names those who do not take part, with the reason.
    """

    name: str
    title: str
    unit: str
    measure: Callable[[Stage, int], Figures]
    count: int
    quick_count: int
    contenders: tuple[str, ...]
    shows: Literal["rate", "latency", "columns"] = "rate"
    columns: tuple[Column, ...] = ()
    operation: Operation | None = None
    durability: Durability = "power"
    prepare: Callable[[Stage], None] | None = None
    variants: tuple[tuple[str, int], ...] = (("", 0),)
    warm_up: bool = True
    slices: int = 1
    once: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
