"""The guard against regressions: ``python -m benchmarks.guard check`` or ``record``.

``check`` makes a short interleaved run and compares its ratios with those of ``baseline.json``; what is
behind is run once more, and fails if it is behind again. ``record`` makes several such runs and writes the
baseline; ``baseline`` says how the margins come from them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import baseline, machine, tables, workloads
from benchmarks.figures import Run
from benchmarks.peers import registry
from benchmarks.peers.duraq_itself import record_bytes
from benchmarks.runner import Bench, say
from benchmarks.workload import Workload

BASELINE = Path(__file__).with_name("baseline.json")
ROUNDS = 5
RECORDED_RUNS = 7
# Enough of each to be a ratio, and little enough for a check of a minute.
COUNTS = {"enqueue": 200, "batch": 10, "work": 200, "work-process": 700, "crowd": 300}
CONTENDERS = frozenset({*registry.FLOORS, "sqlite", registry.DURAQ})


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    parser.add_argument("command", choices=("check", "record"))
    parser.add_argument("--dir", type=Path, default=Path(), help="where to measure")
    parser.add_argument("--baseline", type=Path, default=BASELINE, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each run; default {ROUNDS}")
    parser.add_argument("--runs", type=int, default=RECORDED_RUNS, help="of `record`")
    options = parser.parse_args(arguments)
    if options.command == "record" and options.runs < baseline.LEAST_RUNS:
        parser.error(f"--runs must be at least {baseline.LEAST_RUNS}: fewer have no spread")
    kind = machine.file_system(options.dir)
    if kind in machine.IN_MEMORY:
        parser.error(f"{options.dir.resolve()} is on {kind}, where nothing is durable: give --dir on a disk")
    with tempfile.TemporaryDirectory(prefix="duraq-benchmark-", dir=options.dir) as name:
        directory = Path(name).resolve()
        with tempfile.TemporaryDirectory(dir=directory) as sample:
            size = record_bytes(Path(sample))
        bench = Bench(registry.contenders(size), directory, options.rounds, only=CONTENDERS)
        if options.command == "record":
            return _record(bench, options.baseline, options.runs)
        return _check(bench, options.baseline)


def guarded(names: Collection[str] = tuple(COUNTS)) -> list[Workload]:
    """The workloads of the watched ratios, as long as they are in a check."""
    return [
        replace(workload, count=COUNTS[workload.name])
        for workload in workloads.workloads()
        if workload.name in names
    ]


def _record(bench: Bench, path: Path, count: int) -> int:
    where = machine.describe(bench.directory)
    found = []
    for number in range(1, count + 1):
        say(f"run {number} of {count}")
        found.append(_measure(bench, guarded()))
    document = baseline.record(where, found, bench.rounds)
    path.write_text(json.dumps(document, indent=2) + "\n")
    print("\n".join(tables.table(baseline.comparison_rows(baseline.load(document), found[-1]))))
    return 0


def _check(bench: Bench, path: Path) -> int:
    document = json.loads(path.read_text())
    expected = baseline.load(document)
    here = machine.describe(bench.directory)
    for key in ("cpus", "kernel", "python", "sqlite", "file system"):
        if document["machine"].get(key) != here[key]:
            print(f"note: the baseline's {key} is {document['machine'].get(key)}, here it is {here[key]}")
    found = _measure(bench, guarded())
    if again := baseline.behind(expected, found):
        say(f"behind, so once more: {', '.join(again)}")
        second = _measure(bench, guarded(baseline.workloads_of(again)))
        # One unlucky run is noise: the better of two counts.
        found |= {name: max(second.get(name, 0.0), found.get(name, 0.0)) for name in again}
    print("\n".join(tables.table(baseline.comparison_rows(expected, found))))
    return 1 if baseline.behind(expected, found) else 0


def _measure(bench: Bench, chosen: Sequence[Workload]) -> dict[str, float]:
    runs: list[Run] = []
    for workload in chosen:
        outcome = bench.run(workload)
        runs += outcome.runs
    return baseline.medians(runs)


if __name__ == "__main__":
    sys.exit(main())
