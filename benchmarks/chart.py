"""A run's main comparisons as an SVG for a README: ``python -m benchmarks.chart RESULTS.json > CHART.svg``.

Written by hand, since it is rectangles and words: one panel for each comparison, one bar for each contender.
Its colours can be read on a light and on a dark page; where the viewer says which it is, text is sharper.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.figures import Run, format_figure, ratios, values_of
from benchmarks.peers.registry import DURAQ, FLOOR_A, FLOORS
from benchmarks.syncs import Syncs, survives_power_cut
from benchmarks.workload import Operation

WIDTH = 860
MARGIN = 16
GAP = 36
COLUMNS = 2
PANEL_WIDTH = (WIDTH - 2 * MARGIN - GAP) / COLUMNS
NAMES = 96  # the column of names, and right of the longest bar the column of figures
FIGURES = 96
BAR, STEP = 13, 20
HEAD, FOOT = 72, 74
PANEL_HEAD = 44

STYLE = """
  text { font: 12px ui-sans-serif, system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #6e7781 }
  .title { font-size: 16px; font-weight: 600 }
  .panel { font-size: 13px; font-weight: 600 }
  .small { font-size: 11px }
  .ours { font-weight: 600 }
  .bar { fill: #8b949e } .bar.floor { fill: none; stroke: #8b949e; stroke-dasharray: 3 2 }
  .bar.unsafe { fill: url(#hatch) } .bar.ours { fill: #2f81f7 }
  @media (prefers-color-scheme: light) { text { fill: #1f2328 } .small { fill: #59636e } }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .small { fill: #9198a1 } }
"""
HATCH = (
    '<pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<line x1="0" y1="0" x2="0" y2="5" stroke="#8b949e" stroke-width="2"/></pattern>'
)


@dataclass(frozen=True, slots=True)
class Panel:
    """``base``: bars are ratios to this contender, else rates.

    ``operation``: the one by whose syncs it is told what is durable.
    """

    workload: str
    title: str
    operation: Operation
    base: str | None = None


PANELS = (
    Panel("enqueue", "One durable enqueue", "enqueue", FLOOR_A),
    Panel("work", "Lease and complete one entry", "work", FLOOR_A),
    Panel("batch", "1000 entries at once, entries/s", "batch"),
    Panel("lives", "4 producers + 4 consumers, whole lives/s", "enqueue"),
)
# Workloads in which entries are taken: who has no lease is marked there.
TAKING = ("work", "lives")


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    value: float
    figure: str
    kind: str


def draw(document: Mapping[str, Any]) -> str:
    """The chart of a run, from what its JSON holds."""
    runs = [Run(**{**run, "values": tuple(run["values"])}) for run in document["runs"]]
    panels = [(panel, bars(panel, runs, document)) for panel in PANELS]
    shown = [(panel, found) for panel, found in panels if found]
    parts: list[str] = []
    top: float = HEAD
    for first in range(0, len(shown), COLUMNS):
        row = shown[first : first + COLUMNS]
        for column, (panel, found) in enumerate(row):
            parts += _panel(MARGIN + column * (PANEL_WIDTH + GAP), top, panel, found)
        top += PANEL_HEAD + STEP * max(len(found) for _, found in row) + GAP / 4
    return _document(top + FOOT, parts, _foot(document, top + 14))


def bars(panel: Panel, runs: Sequence[Run], document: Mapping[str, Any]) -> list[Bar]:
    """The fastest first; a floor only where it is a limit, not where it would dwarf everything."""
    found = []
    for name in dict.fromkeys(run.contender for run in runs if run.workload == panel.workload):
        value = statistics.median(values_of(runs, panel.workload, name))
        figure = format_figure(value)
        if panel.base is not None:
            over = ratios(runs, panel.workload, name, panel.base)
            if not over:
                continue
            value = statistics.median(over)
            figure = f"{value:.2f} · {figure}/s"
        elif name in FLOORS:
            continue
        for fault in ("lost", "twice"):
            if count := sum(values_of(runs, panel.workload, name, fault)):
                figure += f", {count:.0f} {fault}"
        keeps = panel.workload not in TAKING or document["peers"][name].get("leases", True)
        shown = name if keeps else f"{name} *"
        found.append(Bar(shown, value, figure, _kind(name, panel, document["syncs"])))
    return sorted(found, key=lambda bar: bar.value, reverse=True)


def _kind(name: str, panel: Panel, syncs: Mapping[str, Any]) -> str:
    if name in FLOORS:
        return "floor"
    if name == DURAQ:
        return "ours"
    counted = syncs.get(name)
    if not isinstance(counted, Mapping):
        return "safe"
    found = {operation: Syncs(calls) for operation, calls in counted.items()}
    return "safe" if survives_power_cut(found, panel.operation) else "unsafe"


def _panel(left: float, top: float, panel: Panel, found: Sequence[Bar]) -> list[str]:
    base = f", as a multiple of {panel.base}" if panel.base else ""
    parts = [_text(left, top + 14, panel.title + base, "panel")]
    # Who does not sync is no measure for the others: its bar goes to the edge and is cut.
    scale = max((bar.value for bar in found if bar.kind != "unsafe"), default=0) or found[0].value
    full = PANEL_WIDTH - NAMES - FIGURES
    bars_top = top + PANEL_HEAD - 18
    for number, bar in enumerate(found):
        y = bars_top + number * STEP
        length = max(1.0, full * min(1.0, bar.value / scale))
        cut = " ▸" if bar.value > scale else ""
        x, size = left + NAMES, f'width="{length:.1f}" height="{BAR}" rx="2"'
        parts += [
            _text(x - 8, y + BAR - 2, bar.name, bar.kind, anchor="end"),
            f'<rect class="bar {bar.kind}" x="{x:.1f}" y="{y:.1f}" {size}/>',
            _text(x + length + 6, y + BAR - 2, bar.figure + cut, f"small {bar.kind}"),
        ]
    return parts


def _foot(document: Mapping[str, Any], top: float) -> list[str]:
    where, syncs = document["machine"], document["syncs"]
    counted = syncs and all(isinstance(found, Mapping) for found in syncs.values())
    machine = f"CPUs: {where['cpus']}; {where['kernel']}, {where['file system']}, {where['python']}."
    rounds, size = document["rounds"], document["payload_bytes"]
    lines = [
        "Hatched: no sync for each entry, so a power cut takes accepted ones (syncs counted by strace)."
        if counted
        else "Syncs were not counted for all: a solid bar does not say that a power cut is survived.",
        f"Medians of at least {rounds} interleaved rounds, {size} B payloads. {machine}",
    ]
    if not all(peer.get("leases", True) for peer in document["peers"].values()):
        lines.insert(1, "* No lease: an entry whose worker is killed is lost.")
    if document["quick"]:
        lines.append("A smoke run: too short to judge by.")
    return [_text(MARGIN, top + number * 16, line, "small") for number, line in enumerate(lines)]


def _document(height: float, parts: Sequence[str], foot: Sequence[str]) -> str:
    head = [
        _text(MARGIN, 28, "DuraQ beside its floors and its peers", "title"),
        _text(
            MARGIN,
            48,
            "Floor A: append and fdatasync. Floor B: overwrite preallocated space and fdatasync."
            " Longer is faster.",
            "small",
        ),
    ]
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    label = 'role="img" aria-label="Benchmark of DuraQ and its peers"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>',
            f"<style>{STYLE}</style>",
            f"<defs>{HATCH}</defs>",
            *head,
            *parts,
            *foot,
            "</svg>\n",
        )
    )


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


if __name__ == "__main__":
    sys.stdout.write(draw(json.loads(Path(sys.argv[1]).read_text())))
