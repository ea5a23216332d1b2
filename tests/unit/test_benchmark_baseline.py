"""The guard's baseline: margins that come from the spread of runs, and what counts as behind."""

from __future__ import annotations

import pytest

from benchmarks import baseline
from benchmarks.baseline import Expected
from benchmarks.figures import Run


def test_margin_is_four_deviations() -> None:
    """The more the runs differ, the further a check may stay behind."""
    expected = Expected.of([0.9, 1.0, 1.1])
    assert (expected.median, expected.deviation) == (1.0, pytest.approx(0.1))
    assert expected.margin == pytest.approx(0.4)
    assert expected.limit == pytest.approx(0.6)


def test_margin_is_never_nothing() -> None:
    """Runs that agree by chance leave five percent all the same."""
    assert Expected.of([1.0, 1.0, 1.0]).margin == 0.05


def test_runs_that_say_nothing_guard_nothing() -> None:
    """A ratio that differs too much from run to run cannot fail, and says so."""
    noisy = Expected.of([0.1, 1.0, 5.0])
    assert not noisy.guards
    assert noisy.limit == 0.0
    assert baseline.behind({"x": noisy}, {"x": 0.01}) == []
    (row,) = baseline.comparison_rows({"x": noisy}, {"x": 0.5})[1:]
    assert row[-1] == "-50 %: the baseline is too noisy to guard it"


def test_baseline_needs_several_runs() -> None:
    """Two runs have no spread to speak of."""
    with pytest.raises(ValueError, match="at least 3 runs, not 2"):
        Expected.of([1.0, 1.0])


def test_medians_are_of_ratios_round_by_round() -> None:
    """A watched ratio is the median of the rounds' ratios, or of a metric that is a ratio already."""
    runs = [
        Run("enqueue", "floor A", 1, (100.0,)),
        Run("enqueue", "duraq", 1, (120.0,)),
        Run("enqueue", "floor A", 2, (50.0,)),
        Run("enqueue", "duraq", 2, (50.0,)),
        Run("crowd", "duraq", 1, (4.0,), "threads x"),
        Run("crowd", "duraq", 2, (6.0,), "threads x"),
    ]
    found = baseline.medians(runs)
    assert found == {"enqueue: x floor A": pytest.approx(1.1), "crowd: threads x": 5.0}


def test_recorded_baseline_is_read_back() -> None:
    """What record makes, load reads; a ratio that is not in every run is left out."""
    runs = [{"enqueue: x floor A": 1.0 + number / 100, "batch: x sqlite": 2.0} for number in range(3)]
    del runs[1]["batch: x sqlite"]
    document = baseline.record({"cpus": "2"}, runs, rounds=7)
    expected = Expected.of([1.0, 1.01, 1.02])
    assert baseline.load(document) == {"enqueue: x floor A": expected}
    assert (document["machine"], document["rounds"]) == ({"cpus": "2"}, 7)


EXPECTED = {
    "enqueue: x floor A": Expected.of([1.0, 1.0, 1.0]),
    "work: x sqlite": Expected.of([2.0, 2.0, 2.0]),
}


@pytest.mark.parametrize(
    ("found", "behind"),
    [
        ({"enqueue: x floor A": 0.96, "work: x sqlite": 2.0}, []),
        ({"enqueue: x floor A": 0.94, "work: x sqlite": 2.0}, ["enqueue: x floor A"]),
        ({"enqueue: x floor A": 9.0, "work: x sqlite": 1.0}, ["work: x sqlite"]),
        ({"enqueue: x floor A": 1.0}, ["work: x sqlite"]),
    ],
)
def test_behind_is_below_the_margin_or_missing(found: dict[str, float], behind: list[str]) -> None:
    """A ratio fails below its limit, or when it could not be measured; being ahead never fails."""
    assert baseline.behind(EXPECTED, found) == behind


def test_comparison_says_what_is_the_matter() -> None:
    """Each ratio has a row with the baseline, the margin, what is now, and a verdict."""
    found = {"enqueue: x floor A": 1.2}
    assert baseline.comparison_rows(EXPECTED, found)[1:] == [
        ["enqueue: x floor A", "1.00", "5 %", "1.20", "ahead by 20 %: record a new baseline"],
        ["work: x sqlite", "2.00", "5 %", "-", "NOT MEASURED"],
    ]
    found = {"enqueue: x floor A": 0.98, "work: x sqlite": 1.0}
    assert [row[-1] for row in baseline.comparison_rows(EXPECTED, found)[1:]] == ["-2 %", "BEHIND by 50 %"]


def test_workloads_of_ratios() -> None:
    """What is behind is measured again by the workloads that it comes from."""
    assert baseline.workloads_of(["work: x sqlite", "crowd: threads x"]) == {"work", "crowd"}
