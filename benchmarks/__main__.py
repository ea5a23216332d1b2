"""Run the workloads, print the tables and what has become of the budgets."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.contender import PAYLOAD_BYTES, Factory
from benchmarks.floors import RecordBytes
from benchmarks.peers import record_bytes
from benchmarks.report import Run
from benchmarks.stage import Stage
from benchmarks.workloads import WORKLOADS, Workload, contenders

ROUNDS = 5
QUICK_ROUNDS = 2


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    chosen = [workload for workload in WORKLOADS if not options.only or workload.name in options.only]
    with tempfile.TemporaryDirectory(prefix="duraq-benchmark-", dir=options.dir) as name:
        directory = Path(name)
        where = machine.describe(directory)
        size = _record_bytes(directory)
        _print_head(where, size, options)
        runs: list[Run] = []
        try:
            for workload in chosen:
                with ExitStack() as stack:
                    stages = _set_up(workload, contenders(size), directory, stack)
                    found = list(_rounds(workload, stages, options))
                _print_workload(workload, found, stages)
                runs += found
        finally:
            # Whatever ends the run early, what was measured by then stands.
            print("\n" + "\n".join(report.budget_lines(runs)), flush=True)
            if options.json:
                _write_json(options.json, where, size, runs, options)


def _parse(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--dir", type=Path, default=Path(), help="where to measure (a temporary directory in it)"
    )
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("--only", action="append", choices=names, help="this workload (may be repeated)")
    parser.add_argument("--rounds", type=int, default=None, help=f"default {ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="a smoke run: too short to judge by")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the machine and every figure there")
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    kind = machine.file_system(options.dir)
    if kind in machine.IN_MEMORY:
        parser.error(f"{options.dir.resolve()} is on {kind}, where nothing is durable: give --dir on a disk")
    return options


def _record_bytes(directory: Path) -> RecordBytes:
    with tempfile.TemporaryDirectory(dir=directory) as name:
        return record_bytes(Path(name))


def _set_up(
    workload: Workload, factories: dict[str, Factory], directory: Path, stack: ExitStack
) -> list[Stage]:
    """Its contenders, open until the stack unwinds: through all rounds, as a daemon's queue is."""
    stages = []
    for name in workload.contenders:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory)))
        opener = partial(factories[name], home, workload.durability)
        stages.append(Stage(name, opener, stack.enter_context(opener())))
    return stages


def _rounds(workload: Workload, stages: list[Stage], options: Any) -> Iterator[Run]:
    count = workload.quick_count if options.quick else workload.count
    # Round 0 warms up and does not count: SQLite's log, for one, grows until its first checkpoint.
    for number in range(options.rounds + 1):
        turn = number % len(stages)
        for stage in stages[turn:] + stages[:turn]:
            # What a predecessor left unwritten must not be written in this one's time.
            os.sync()
            run = Run(workload.name, stage.name, number, tuple(workload.measure(stage, count)))
            _progress(workload, run, options.rounds)
            if number:
                yield run


def _progress(workload: Workload, run: Run, rounds: int) -> None:
    figure = report.format_figure(report.Spread.of(run.values).median)
    stage = f"round {run.round}/{rounds}" if run.round else "warm-up"
    print(f"{workload.name}, {stage}: {run.contender} {figure} {workload.unit}", file=sys.stderr)


def _print_head(where: dict[str, str], size: RecordBytes, options: Any) -> None:
    for key, value in where.items():
        print(f"{key:12} {value}")
    print(f"{'payload':12} {PAYLOAD_BYTES} B")
    print(f"{'floors write':12} {size.enqueue} B for an enqueue, {size.cycle} B for a cycle, as DuraQ does")
    print(f"{'rounds':12} {options.rounds}{', a smoke run: too short to judge by' if options.quick else ''}")


def _print_workload(workload: Workload, runs: Sequence[Run], stages: Sequence[Stage]) -> None:
    print(f"\n{workload.name}: {workload.title}, {workload.unit}")
    if workload.unit.endswith("/s"):
        syncs = {}
        if workload.syncs:
            syncs = {stage.name: getattr(stage.contender.syncs, workload.syncs) for stage in stages}
        lines = report.rate_lines(runs, workload.name, workload.contenders, syncs)
    else:
        lines = report.latency_lines(runs, workload.name, workload.contenders)
    print("\n".join(lines), flush=True)


def _write_json(
    path: Path, where: dict[str, str], size: RecordBytes, runs: Sequence[Run], options: Any
) -> None:
    document = {
        "machine": where,
        "payload_bytes": PAYLOAD_BYTES,
        "record_bytes": size._asdict(),
        "rounds": options.rounds,
        "quick": options.quick,
        "runs": [asdict(run) for run in runs],
        "budgets": [{**asdict(each), "measured": report.measured(each, runs)} for each in report.BUDGETS],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
