"""The benchmarks' arithmetic, on made-up figures: nothing here is timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.machine import type_of_mount
from benchmarks.report import BUDGETS, Budget, Run, Spread

RUNS = [
    # The machine was slow in round 2 and slower in round 3, for both; in round 3 for one of them more.
    Run("enqueue", "floor A", 1, (100.0,)),
    Run("enqueue", "duraq", 1, (120.0,)),
    Run("enqueue", "duraq", 2, (55.0,)),
    Run("enqueue", "floor A", 2, (50.0,)),
    Run("enqueue", "floor A", 3, (10.0,)),
    Run("enqueue", "duraq", 3, (9.0,)),
    Run("work", "duraq", 1, (7.0,)),
    Run("wake", "duraq", 1, tuple(map(float, range(1, 101)))),
    Run("wake", "duraq", 2, tuple(map(float, range(101, 201)))),
]


def test_ratios_are_taken_round_by_round() -> None:
    """A round's ratio is of two rates of that round, so a slow spell of the machine cancels out."""
    found = report.ratios(RUNS, "enqueue", "duraq", "floor A")
    assert found == pytest.approx([1.2, 1.1, 0.9])
    assert Spread.of(found) == Spread(pytest.approx(1.1), pytest.approx(0.9), pytest.approx(1.2))


def test_ratio_needs_both_in_the_round() -> None:
    """A round without the other contender gives no ratio, and neither does another workload."""
    assert report.ratios(RUNS[1:], "enqueue", "duraq", "floor A") == pytest.approx([1.1, 0.9])
    assert report.ratios(RUNS, "work", "duraq", "floor A") == []


@pytest.mark.parametrize(("percent", "expected"), [(1, 2), (50, 100), (99, 198), (100, 200)])
def test_percentile_is_a_value_that_occurred(percent: int, expected: float) -> None:
    """The p-th percentile is the smallest value that p percent of all rounds' values do not exceed."""
    assert report.percentile(report.values_of(RUNS, "wake", "duraq"), percent) == expected


def test_percentile_of_one_value_is_that_value() -> None:
    """A single figure is its own p50 and p99."""
    assert report.percentile([3.0], 50) == report.percentile([3.0], 99) == 3.0


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget("enqueue", 1.1, "x floor A", over="floor A"), 1.1),
        (Budget("enqueue", 50, "entries/s"), 55),
        (Budget("wake", 2, "ms", at_least=False), 100.5),
        (Budget("wake", 2, "ms", at_least=False, percentile=99), 198),
        (Budget("work", 1, "x floor A", over="floor A"), None),
        (Budget("kill", 10, "ms", at_least=False), None),
    ],
)
def test_budget_is_compared_with_what_was_measured(budget: Budget, expected: float | None) -> None:
    """A budget's figure is a median, a percentile or a median ratio; None without the runs it needs."""
    assert report.measured(budget, RUNS) == (None if expected is None else pytest.approx(expected))


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
    assert report.verdict(Budget("x", 200, "ms", at_least=at_least), value) == expected


def test_every_budget_has_a_line() -> None:
    """What was not measured is listed as that, and gets no verdict."""
    lines = report.budget_lines([])
    assert len(lines) == 1 + len(BUDGETS)
    assert all(line.endswith("not measured") for line in lines[1:])


def test_rates_are_shown_with_their_ratios() -> None:
    """A contender's row has its rates, its ratio to each floor that ran, and its syncs."""
    lines = report.rate_lines(RUNS, "enqueue", ("floor A", "duraq"), {"floor A": 1})
    assert [line.split() for line in lines[1:]] == [
        ["floor", "A", "50.0", "10.0", "100", "1.00", "(1.00..1.00)", "-", "1"],
        ["duraq", "55.0", "9.00", "120", "1.10", "(0.90..1.20)", "-", "-"],
    ]


def test_latencies_of_all_rounds_are_shown_together() -> None:
    """A contender's row has the percentiles over every round's values, and how many those were."""
    lines = report.latency_lines(RUNS, "wake", ("duraq",))
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
    assert report.format_figure(value) == expected


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
