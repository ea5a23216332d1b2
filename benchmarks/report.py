"""A run as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import budgets, tables
from benchmarks.contender import PAYLOAD_BYTES, Durability, Missing
from benchmarks.figures import Run
from benchmarks.floors import RecordBytes
from benchmarks.peers.registry import Peer
from benchmarks.runner import Bench, Outcome
from benchmarks.syncs import Counted

# What each contender was seen to sync, or why that was not counted.
SyncCounts = Mapping[str, Counted | str]


def peer_lines(peers: Mapping[str, Peer]) -> list[str]:
    """Everybody's version and settings; those that are not here, with the reason."""
    rows = [["", "version", "settings of a durable run"]]
    lines = []
    for peer in peers.values():
        try:
            rows.append([peer.name, peer.version(), _settings(peer, "power")])
        except Missing as missing:
            lines.append(f"{peer.name} is left out: {missing}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return [*table, *lines]


def outcome_lines(outcome: Outcome, peers: Mapping[str, Peer], syncs: SyncCounts) -> list[str]:
    workload = outcome.workload
    lines = [f"{workload.name}: {workload.title}, {workload.unit}"]
    if outcome.measured:
        lines += _table(outcome, peers, syncs)
    if workload.durability == "process":
        lines += [
            f"  {name}: {_settings(peers[name], 'process')}" for name in outcome.measured if name in peers
        ]
    lines += [f"  {name}: not measured, {why}" for name, why in outcome.left_out.items()]
    lines += [f"  {label}: FAILED {why}" for label, why in outcome.failed.items()]
    return lines


def _table(outcome: Outcome, peers: Mapping[str, Peer], syncs: SyncCounts) -> list[str]:
    workload, runs = outcome.workload, outcome.runs
    if workload.shows == "latency":
        return tables.latency_lines(runs, workload.name, outcome.measured)
    if workload.shows == "columns":
        return tables.column_lines(
            runs, workload.name, outcome.measured, workload.columns, outcome.first_variants
        )
    if workload.operation is None:
        return tables.rate_lines(runs, workload.name, outcome.measured)
    cells = {
        name: tables.durability_cells(found, workload.operation, leases=peers[name].leases)
        for name, found in syncs.items()
    }
    return tables.rate_lines(runs, workload.name, outcome.measured, cells)


def _settings(peer: Peer, durability: Durability) -> str:
    notes = peer.notes if durability == "power" else ()
    return "; ".join((peer.settings[durability], *notes))


def document(
    where: Mapping[str, str], bench: Bench, size: RecordBytes, syncs: SyncCounts, outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    """Everything that is known of the run, for JSON."""
    runs: list[Run] = [run for outcome in outcomes for run in outcome.runs]
    return {
        "machine": dict(where),
        "payload_bytes": PAYLOAD_BYTES,
        "record_bytes": size._asdict(),
        "rounds": bench.rounds,
        "quick": bench.quick,
        "peers": {name: _describe(peer) for name, peer in bench.peers.items()},
        "syncs": {
            name: found if isinstance(found, str) else {key: each.calls for key, each in found.items()}
            for name, found in syncs.items()
        },
        "workloads": {outcome.workload.name: _summarise(outcome) for outcome in outcomes},
        "runs": [asdict(run) for run in runs],
        "budgets": [{**asdict(each), "measured": budgets.measured(each, runs)} for each in budgets.BUDGETS],
    }


def _summarise(outcome: Outcome) -> dict[str, Any]:
    workload = outcome.workload
    return {
        "title": workload.title,
        "unit": workload.unit,
        "durability": workload.durability,
        "measured": outcome.measured,
        "left_out": outcome.left_out,
        "failed": outcome.failed,
    }


def _describe(peer: Peer) -> dict[str, Any]:
    try:
        version = peer.version()
    except Missing as missing:
        return {"missing": str(missing)}
    return {
        "version": version,
        "settings": dict(peer.settings),
        "notes": list(peer.notes),
        "leases": peer.leases,
    }
