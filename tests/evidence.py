"""What the deep runs have tried and found sound, counted: ``make evidence`` prints it.

A test adds to a count only what it has checked, so whatever stands here was seen to hold: nothing that was
acknowledged lost or altered, no error that is not one of ours, nothing that hung.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

FILE = Path(__file__).parent.parent / ".evidence.jsonl"

# What is counted: what it is called, and how many there are to be.
KINDS = {
    "simulated": ("crash states of a simulated disk", 1_000_000),
    "sequences": ("sequences of up to three operations, cut at each call", 1_000),
    "traced": ("crash states of traced system calls", 100_000),
    "killed": ("system calls at which a process was killed", 2_000),
    "killed at random": ("kills at random, under load", 2_000),
    "migrated": ("kills of who moves a storage into another one", 60),
    "cut ext4": ("power cuts, ext4", 500),
    "cut xfs": ("power cuts, XFS", 200),
    "cut ext4, sqlite": ("power cuts, ext4, with SQLiteStorage", 100),
    "cut ext4, lmdb": ("power cuts, ext4, with LMDBStorage", 100),
    "cut xfs, sqlite": ("power cuts, XFS, with SQLiteStorage", 100),
    "cut xfs, lmdb": ("power cuts, XFS, with LMDBStorage", 100),
    "flipped": ("bits flipped, one at a time", 524_288),
    "damaged": ("other damage: cut, zeroed, swapped, repeated, pasted, deleted", 65_536),
    "failed calls": ("calls that failed, simulated", 1_000),
    "failed system calls": ("system calls that failed", 200),
    "interrupted": ("interrupts, at lines and at allocations", 1_000),
    "processes": ("forks, stops, clock jumps and other trouble between processes", 500),
    "fuzzed": ("inputs made up by a fuzzer", 1_000_000),
    "ablated": ("safety steps taken out, and missed by some test", 8),
}


def count(kind: str, number: int = 1) -> None:
    """Add to what was checked; in deep runs only."""
    assert kind in KINDS, kind
    if os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}:
        line = json.dumps({"kind": kind, "number": number}) + "\n"
        # One write to the end of the file, so that tests that run at once do not mix theirs.
        fd = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)


def table() -> str:
    """All counts, beside how many there are to be."""
    found: Counter[str] = Counter()
    if FILE.exists():
        for line in FILE.read_text("utf-8").splitlines():
            each = json.loads(line)
            found[each["kind"]] += each["number"]
    rows = [("checked, and sound", "number", "at least")]
    rows += [(name, f"{found[kind]:,}", f"{least:,}") for kind, (name, least) in KINDS.items()]
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:<{width}}  {number:>12}  {least:>12}" for name, number, least in rows)


if __name__ == "__main__":
    print(table())  # noqa: T201 - that is what it is for
