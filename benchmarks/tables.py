"""Figures as tables of text. Nothing here measures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.figures import Run, Spread, format_figure, format_ratio, percentile, ratios, values_of
from benchmarks.peers.registry import FLOORS
from benchmarks.syncs import Counted, survives_power_cut
from benchmarks.workload import Column, Operation


def rate_lines(
    runs: Sequence[Run],
    workload: str,
    contenders: Sequence[str],
    durability: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """A row for each contender, with its ratios to the floors.

    ``durability``: two cells for each, of what an operation survives and of the syncs it was seen to make.
    """
    head = ["", "median", "min", "max", *(f"x {floor} (min..max)" for floor in FLOORS)]
    rows = [head if durability is None else [*head, "survives", "syncs/op"]]
    for contender in contenders:
        rate = Spread.of(values_of(runs, workload, contender))
        row = [contender, *(format_figure(value) for value in (rate.median, rate.low, rate.high))]
        for floor in FLOORS:
            found = ratios(runs, workload, contender, floor)
            row.append(format_ratio(Spread.of(found)) if found else "-")
        rows.append(row if durability is None else [*row, *durability.get(contender, ("?", "not counted"))])
    return table(rows)


def durability_cells(counted: Counted | str, operation: Operation, *, leases: bool = True) -> list[str]:
    """What an operation survives, by the syncs that were seen or why they were not counted.

    Without ``leases`` an entry is gone when it is taken, before it is done.
    """
    if isinstance(counted, str):
        return ["?", counted]
    survives = "power cut" if survives_power_cut(counted, operation) else "process"
    lost = "" if leases or operation != "work" else ", not kill"
    return [survives + lost, str(counted[operation])]


def latency_lines(runs: Sequence[Run], workload: str, contenders: Sequence[str]) -> list[str]:
    rows = [["", "p50", "p99", "min", "max", "n"]]
    for contender in contenders:
        values = values_of(runs, workload, contender)
        spread = Spread.of(values)
        figures = (spread.median, percentile(values, 99), spread.low, spread.high)
        rows.append([contender, *map(format_figure, figures), str(len(values))])
    return table(rows)


def column_lines(
    runs: Sequence[Run],
    workload: str,
    contenders: Sequence[str],
    columns: Sequence[Column],
    firsts: Mapping[str, str],
) -> list[str]:
    """A row for each contender, a column for each metric: its median, or its sum over the rounds.

    ``firsts`` has each contender's first variant, for the columns of ratios to it.
    """
    rows = [["", *(heading for column in columns for heading in (column.heading, column.over) if heading)]]
    for contender in contenders:
        row = [contender]
        for column in columns:
            values = values_of(runs, workload, contender, column.metric)
            if not values:
                row.append("-")
            else:
                row.append(format_figure(sum(values) if column.summed else statistics.median(values)))
            if column.over:
                found = ratios(runs, workload, contender, firsts[contender], column.metric)
                row.append(format_ratio(Spread.of(found)) if found else "-")
        rows.append(row)
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
