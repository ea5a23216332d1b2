"""Run the workloads, print the tables and what has become of the budgets."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from benchmarks import budgets, chart, machine, report, syncs, tables, workloads
from benchmarks.contender import PAYLOAD_BYTES, Missing
from benchmarks.floors import RecordBytes
from benchmarks.peers import registry
from benchmarks.peers.duraq_itself import record_bytes
from benchmarks.runner import Bench, Outcome, say
from benchmarks.workload import Workload

ROUNDS = 5
QUICK_ROUNDS = 1


@dataclass(frozen=True, slots=True)
class Options:
    directory: Path
    workloads: list[Workload]
    rounds: int
    quick: bool
    only: frozenset[str]
    count_syncs: bool
    json: Path | None
    chart: Path | None


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    # The servers that were started are stopped, and the directory removed, on the way out.
    signal.signal(signal.SIGTERM, _terminate)
    with tempfile.TemporaryDirectory(prefix="duraq-benchmark-", dir=options.directory) as name:
        return _run(options, Path(name).resolve())


def _run(options: Options, directory: Path) -> int:
    where = machine.describe(directory)
    size = _record_bytes(directory)
    bench = Bench(registry.contenders(size), directory, options.rounds, options.quick, options.only)
    _print_head(where, size, bench)
    counted: dict[str, Any] = {}
    outcomes: list[Outcome] = []
    try:
        if options.count_syncs:
            counted = _count_syncs(bench, size)
        for workload in options.workloads:
            outcome = bench.run(workload)
            outcomes.append(outcome)
            print("\n" + "\n".join(report.outcome_lines(outcome, bench.peers, counted)), flush=True)
    finally:
        # Whatever ends the run early, what was measured by then stands.
        runs = [run for outcome in outcomes for run in outcome.runs]
        print("\n" + "\n".join(tables.table(budgets.budget_rows(runs))), flush=True)
        found = report.document(where, bench, size, counted, outcomes)
        _write(options.json, json.dumps(found, indent=2) + "\n")
        if options.chart is not None:
            _write(options.chart, chart.draw(found))
    return 1 if any(outcome.broken for outcome in outcomes) else 0


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--dir", type=Path, default=Path(), help="where to measure (a temporary directory in it)"
    )
    known = [workload.name for workload in workloads.workloads()]
    parser.add_argument("--only", action="append", choices=known, help="this workload (may be repeated)")
    parser.add_argument("--contenders", metavar="A,B", help="these contenders only")
    parser.add_argument("--rounds", type=int, default=None, help=f"default {ROUNDS}")
    parser.add_argument("--depth", type=_depths, metavar="N,N", help="depths of the workload `depth`")
    parser.add_argument("--deep", action="store_true", help="to a depth of ten million: hours, and gigabytes")
    parser.add_argument("--quick", action="store_true", help="a smoke run: too short to judge by")
    parser.add_argument("--no-syncs", action="store_true", help="do not count syncs with strace")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the machine and every figure there")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the main comparisons there, as SVG")
    options = parser.parse_args(arguments)
    rounds = options.rounds
    if rounds is None:
        rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    kind = machine.file_system(options.dir)
    if kind in machine.IN_MEMORY:
        parser.error(f"{options.dir.resolve()} is on {kind}, where nothing is durable: give --dir on a disk")
    only = frozenset(options.contenders.split(",") if options.contenders else ())
    if unknown := only - set(workloads.ALL):
        parser.error(f"no such contender: {', '.join(sorted(unknown))}; there are {', '.join(workloads.ALL)}")
    usual = workloads.QUICK_DEPTHS if options.quick else workloads.DEPTHS
    depths = options.depth or (workloads.DEEP if options.deep else usual)
    chosen = [each for each in workloads.workloads(depths) if not options.only or each.name in options.only]
    return Options(
        directory=options.dir,
        workloads=chosen,
        rounds=rounds,
        quick=options.quick,
        only=only,
        count_syncs=not options.no_syncs and any(each.operation for each in chosen),
        json=options.json,
        chart=options.chart,
    )


def _depths(text: str) -> tuple[int, ...]:
    depths = tuple(sorted({int(part) for part in text.split(",")}))
    if depths[0] < 1:
        raise argparse.ArgumentTypeError("a depth is at least 1")
    return depths


def _record_bytes(directory: Path) -> RecordBytes:
    with tempfile.TemporaryDirectory(dir=directory) as name:
        return record_bytes(Path(name))


def _count_syncs(bench: Bench, size: RecordBytes) -> dict[str, Any]:
    """In a pass of its own: what is traced is not timed."""
    counts = syncs.QUICK_COUNTS if bench.quick else syncs.COUNTS
    found: dict[str, Any] = {}
    for name, peer in bench.peers.items():
        if not bench.wants(name):
            continue
        try:
            peer.version()
        except Missing:
            continue
        try:
            counted = syncs.count(name, bench.directory, size, counts)
        except Missing as missing:
            found[name] = f"not counted: {missing}"
            say(f"syncs: {name} {found[name]}")
        else:
            found[name] = counted
            say(f"syncs: {name} " + ", ".join(f"{operation} {each}" for operation, each in counted.items()))
    return found


def _print_head(where: Mapping[str, str], size: RecordBytes, bench: Bench) -> None:
    rounds = f"{bench.rounds}{', a smoke run: too short to judge by' if bench.quick else ''}"
    for key, value in where.items():
        print(f"{key:12} {value}")
    print(f"{'payload':12} {PAYLOAD_BYTES} B")
    print(f"{'floors write':12} {size.enqueue} B for an enqueue, {size.cycle} B for a cycle, as DuraQ does")
    print(f"{'rounds':12} {rounds}\n")
    print("\n".join(report.peer_lines(bench.peers)), flush=True)


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _terminate(*_: object) -> NoReturn:
    sys.exit("terminated")


if __name__ == "__main__":
    sys.exit(main())
