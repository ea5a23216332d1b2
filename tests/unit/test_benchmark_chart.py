"""The chart of a benchmark, drawn from the JSON of a run."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

from benchmarks import chart
from benchmarks.chart import PANELS, Bar
from benchmarks.figures import Run

RUNS = [
    Run("enqueue", "floor A", 1, (1000.0,)),
    Run("enqueue", "floor B", 1, (1500.0,)),
    Run("enqueue", "duraq", 1, (1200.0,)),
    Run("enqueue", "relaxed", 1, (90_000.0,)),
    Run("lives", "taker", 1, (300.0,)),
    Run("lives", "taker", 1, (3.0,), "twice"),
    Run("lives", "taker", 2, (300.0,)),
    Run("lives", "taker", 2, (2.0,), "twice"),
]


def document(**changes: Any) -> dict[str, Any]:
    runs = [
        {"workload": run.workload, "contender": run.contender, "round": run.round, "values": list(run.values)}
        | {"metric": run.metric}
        for run in RUNS
    ]
    every = {operation: {"fdatasync": 1.0} for operation in ("enqueue", "batch", "work")}
    none: dict[str, dict[str, float]] = {operation: {} for operation in ("enqueue", "batch", "work")}
    return {
        "machine": {
            "cpus": "2, <some> & such",
            "kernel": "Linux",
            "file system": "ext4",
            "python": "CPython 3",
        },
        "payload_bytes": 200,
        "rounds": 2,
        "quick": False,
        "peers": {
            "floor A": {"leases": True},
            "floor B": {"leases": True},
            "duraq": {"leases": True},
            "relaxed": {"leases": True},
            "taker": {"leases": False},
        },
        "syncs": {"floor A": every, "floor B": every, "duraq": every, "relaxed": none, "taker": every},
        "runs": runs,
    } | changes


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_bars_are_ordered_and_told_apart() -> None:
    """The fastest is first; floors, DuraQ and whoever does not sync look different."""
    assert chart.bars(PANELS[0], RUNS, document()) == [
        Bar("relaxed", 90.0, "90.00 · 90,000/s", "unsafe"),
        Bar("floor B", 1.5, "1.50 · 1,500/s", "floor"),
        Bar("duraq", 1.2, "1.20 · 1,200/s", "ours"),
        Bar("floor A", 1.0, "1.00 · 1,000/s", "floor"),
    ]


def test_faults_are_named_beside_the_rate() -> None:
    """A rate with entries delivered twice says so, and a queue without leases is marked."""
    assert chart.bars(PANELS[3], RUNS, document()) == [Bar("taker *", 300.0, "300, 5 twice", "safe")]


def test_chart_is_well_formed() -> None:
    """The chart is XML whatever the machine is called, with the panels that have figures and no others."""
    words = texts(chart.draw(document()))
    assert "One durable enqueue, as a multiple of floor A" in words
    assert "4 producers + 4 consumers, whole lives/s" in words
    assert not any("1000 entries" in each for each in words)
    assert any("2, <some> & such" in each for each in words)
    assert any("No lease" in each for each in words)


def test_bar_off_the_scale_is_cut() -> None:
    """A contender that does not sync does not make the others' bars vanish."""
    root = ET.fromstring(chart.draw(document()))
    widths = {
        element.get("class"): float(element.get("width", "0"))
        for element in root.iter("{http://www.w3.org/2000/svg}rect")
    }
    assert widths["bar unsafe"] < 1.5 * widths["bar ours"]
    assert any(text.endswith("▸") for text in texts(chart.draw(document())))


def test_chart_does_not_guess_durability() -> None:
    """Without counted syncs nobody is called safe or unsafe."""
    words = texts(chart.draw(document(syncs={})))
    assert any("Syncs were not counted" in each for each in words)
    assert {bar.kind for bar in chart.bars(PANELS[0], RUNS, document(syncs={}))} == {"safe", "floor", "ours"}


def test_chart_of_nothing() -> None:
    """A run that ended before its first figure has a chart, without panels."""
    assert "DuraQ beside its floors and its peers" in texts(chart.draw(document(runs=[])))
