"""The benchmarks' arithmetic, on made-up figures: nothing here is timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import budgets, figures, tables
from benchmarks.budgets import BUDGETS, Budget
from benchmarks.figures import Run, Spread
from benchmarks.machine import type_of_mount
from benchmarks.syncs import Counted, Syncs
from benchmarks.workload import Column, Operation
from benchmarks.workloads import name_of

RUNS = [
    # The machine was slow in round 2 and slower in round 3, for both; in round 3 for one of them more.
    Run("enqueue", "floor A", 1, (100.0,)),
    Run("enqueue", "duraq", 1, (120.0,)),
    Run("enqueue", "duraq", 2, (55.0,)),
    Run("enqueue", "floor A", 2, (50.0,)),
    Run("enqueue", "floor A", 3, (10.0,)),
    Run("enqueue", "duraq", 3, (9.0,)),
    Run("work", "duraq", 1, (7.0,)),
    Run("lives", "sqlite", 1, (20.0,)),
    Run("lives", "redis", 1, (50.0,)),
    Run("lives", "redis", 1, (0.0,), "lost"),
    Run("lives", "duraq", 1, (100.0,)),
    Run("lives", "duraq", 1, (0.0,), "lost"),
    Run("wake", "duraq", 1, tuple(map(float, range(1, 101)))),
    Run("wake", "duraq", 2, tuple(map(float, range(101, 201)))),
]


def test_ratios_are_taken_round_by_round() -> None:
    """A round's ratio is of two rates of that round, so a slow spell of the machine cancels out."""
    found = figures.ratios(RUNS, "enqueue", "duraq", "floor A")
    assert found == pytest.approx([1.2, 1.1, 0.9])
    assert Spread.of(found) == Spread(pytest.approx(1.1), pytest.approx(0.9), pytest.approx(1.2))


def test_ratio_needs_both_in_the_round() -> None:
    """A round without the other contender gives no ratio, and neither does another workload."""
    assert figures.ratios(RUNS[1:], "enqueue", "duraq", "floor A") == pytest.approx([1.1, 0.9])
    assert figures.ratios(RUNS, "work", "duraq", "floor A") == []


@pytest.mark.parametrize(("percent", "expected"), [(1, 2), (50, 100), (99, 198), (100, 200)])
def test_percentile_is_a_value_that_occurred(percent: int, expected: float) -> None:
    """The p-th percentile is the smallest value that p percent of all rounds' values do not exceed."""
    assert figures.percentile(figures.values_of(RUNS, "wake", "duraq"), percent) == expected


def test_percentile_of_one_value_is_that_value() -> None:
    """A single figure is its own p50 and p99."""
    assert figures.percentile([3.0], 50) == figures.percentile([3.0], 99) == 3.0


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget("enqueue", 1.1, "x floor A", over="floor A"), 1.1),
        (Budget("enqueue", 50, "entries/s"), 55),
        (Budget("wake", 2, "ms", at_least=False), 100.5),
        (Budget("wake", 2, "ms", at_least=False, percentile=99), 198),
        (Budget("work", 1, "x floor A", over="floor A"), None),
        (Budget("kill", 10, "ms", at_least=False), None),
        (Budget("lives", 3, "x the best", over=("sqlite", "redis", "absent")), 2.0),
        (Budget("lives", 0, "entries", at_least=False, metric="lost"), 0.0),
    ],
)
def test_budget_is_compared_with_what_was_measured(budget: Budget, expected: float | None) -> None:
    """A budget's figure is a median, a percentile or a median ratio; None without the runs it needs."""
    assert budgets.measured(budget, RUNS) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("at_least", "value", "expected"),
    [
        (True, 200, "holds"),
        (True, 250, "holds"),
        (True, 150, "misses by 25.0 %"),
        (False, 200, "holds"),
        (False, 100, "holds"),
        (False, 210, "misses by 5.00 %"),
    ],
)
def test_verdict_says_by_how_much(at_least: bool, value: float, expected: str) -> None:
    """On the limit a budget holds; beyond it the miss is in percent of the limit."""
    assert budgets.verdict(Budget("x", 200, "ms", at_least=at_least), value) == expected


def test_limit_of_nothing_has_no_percentage() -> None:
    """What must not happen at all is missed, by however much it happened."""
    budget = Budget("lives", 0, "entries", at_least=False, metric="lost")
    assert (budgets.verdict(budget, 0), budgets.verdict(budget, 1)) == ("holds", "misses")


def test_every_budget_has_a_line() -> None:
    """What was not measured is listed as that, and gets no verdict."""
    rows = budgets.budget_rows([])
    assert len(rows) == 1 + len(BUDGETS)
    assert all(row[1:] == ["not measured", ""] for row in rows[1:])


def test_rates_are_shown_with_their_ratios() -> None:
    """A contender's row has its rates, its ratio to each floor that ran, and its durability."""
    cells = {"floor A": ["power cut", "1.00 fdatasync"]}
    lines = tables.rate_lines(RUNS, "enqueue", ("floor A", "duraq"), cells)
    assert [line.split() for line in lines[1:]] == [
        [
            "floor",
            "A",
            "50.0",
            "10.0",
            "100",
            "1.00",
            "(1.00..1.00)",
            "-",
            "power",
            "cut",
            "1.00",
            "fdatasync",
        ],
        ["duraq", "55.0", "9.00", "120", "1.10", "(0.90..1.20)", "-", "?", "not", "counted"],
    ]


def counted(enqueue: dict[str, float], batch: dict[str, float], work: dict[str, float]) -> Counted:
    return {"enqueue": Syncs(enqueue), "batch": Syncs(batch), "work": Syncs(work)}


SYNCED = counted({"fdatasync": 1.0}, {"fdatasync": 1.0, "fsync": 1.0}, {"fdatasync": 2.0})
CHECKPOINTS = counted({"fdatasync": 0.02}, {"fdatasync": 1.0}, {})
STARTED = counted({"sync_file_range": 1.0}, {"sync_file_range": 1.0}, {"sync_file_range": 1.0})


@pytest.mark.parametrize(
    ("found", "operation", "expected"),
    [
        (SYNCED, "enqueue", ["power cut", "1.00 fdatasync"]),
        (SYNCED, "batch", ["power cut", "1.00 fdatasync + 1.00 fsync"]),
        (SYNCED, "work", ["power cut", "2.00 fdatasync"]),
        (CHECKPOINTS, "enqueue", ["process", "0.02 fdatasync"]),
        (CHECKPOINTS, "batch", ["process", "1.00 fdatasync"]),
        (CHECKPOINTS, "work", ["process", "none"]),
        (STARTED, "enqueue", ["process", "1.00 sync_file_range"]),
        ("strace is not on the PATH", "enqueue", ["?", "strace is not on the PATH"]),
    ],
)
def test_durability_is_what_was_counted(
    found: Counted | str, operation: Operation, expected: list[str]
) -> None:
    """Only a sync for each operation survives a power cut; what was not counted is not guessed."""
    assert tables.durability_cells(found, operation) == expected


def test_queue_without_leases_is_told_apart() -> None:
    """A queue that deletes what is taken loses it with its worker, however often it syncs."""
    assert tables.durability_cells(SYNCED, "work", leases=False)[0] == "power cut, not kill"
    assert tables.durability_cells(SYNCED, "enqueue", leases=False)[0] == "power cut"


def test_columns_are_medians_sums_and_ratios() -> None:
    """A column is the median of its metric or the sum, and may bring the ratio to the first variant."""
    runs = [
        Run("depth", "duraq 1k", 1, (100.0,)),
        Run("depth", "duraq 1M", 1, (90.0,)),
        Run("depth", "duraq 1k", 2, (50.0,)),
        Run("depth", "duraq 1M", 2, (40.0,)),
        Run("depth", "duraq 1M", 1, (2.0,), "lost"),
        Run("depth", "duraq 1M", 2, (1.0,), "lost"),
    ]
    columns = (Column("", "rate", over="x first"), Column("lost", "lost", summed=True))
    firsts = {"duraq 1k": "duraq 1k", "duraq 1M": "duraq 1k"}
    assert [line.split() for line in tables.column_lines(runs, "depth", tuple(firsts), columns, firsts)] == [
        ["rate", "x", "first", "lost"],
        ["duraq", "1k", "75.0", "1.00", "(1.00..1.00)", "-"],
        ["duraq", "1M", "65.0", "0.85", "(0.80..0.90)", "3.00"],
    ]


@pytest.mark.parametrize(
    ("number", "expected"), [(1000, "1k"), (100_000, "100k"), (10_000_000, "10M"), (1500, "1500"), (7, "7")]
)
def test_depths_have_short_names(number: int, expected: str) -> None:
    """Thousands and millions are k and M, when nothing is lost by it."""
    assert name_of(number) == expected


def test_latencies_of_all_rounds_are_shown_together() -> None:
    """A contender's row has the percentiles over every round's values, and how many those were."""
    lines = tables.latency_lines(RUNS, "wake", ("duraq",))
    assert lines[1].split() == ["duraq", "100", "198", "1.00", "200", "200"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (0.0123456, "0.0123"),
        (1.1, "1.10"),
        (45.678, "45.7"),
        (250_000, "250,000"),
        (-3.14159, "-3.14"),
    ],
)
def test_figures_have_three_digits(value: float, expected: str) -> None:
    """Small figures keep their digits, large ones have no decimals."""
    assert figures.format_figure(value) == expected


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("/home/x", "ext4"),
        ("/dev/shm/x", "tmpfs"),
        ("/mnt/a b/c", "xfs"),
        ("/mnt/a", "ext4"),
        ("/developer", "ext4"),
    ],
)
def test_file_system_is_that_of_the_deepest_mount(directory: str, expected: str) -> None:
    """Mount points are compared by whole path components, with their octal escapes undone."""
    mountinfo = (
        "24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw\n"
        "25 24 0:23 / /dev/shm rw,relatime shared:2 - tmpfs tmpfs rw\n"
        "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        "40 27 254:1 / /mnt/a\\040b rw - btrfs /dev/vdb rw\n"
        "41 27 254:2 / /mnt/a\\040b rw - xfs /dev/vdc rw\n"
    )
    assert type_of_mount(Path(directory), mountinfo) == expected
