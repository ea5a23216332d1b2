"""How often each contender really syncs, counted by strace: what its durability is worth.

A contender, with the server that it needs, runs under ``strace -f`` and does each operation a number of
times. Where they begin and end is in the trace itself: an ``fsync`` of a descriptor that does not exist. A
sync between those marks counts, whoever made it. What is not seen: a file opened with O_SYNC or O_DSYNC
(the contenders here open none), and syncs that a thread of the kernel makes for io_uring.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contender import Lost, Missing, payload, payloads
from benchmarks.floors import RecordBytes
from benchmarks.peers.registry import contenders
from benchmarks.server import program
from benchmarks.single import BATCH
from benchmarks.stage import Stage
from benchmarks.workload import Operation

CALLS = ("fsync", "fdatasync", "msync", "sync", "syncfs", "sync_file_range", "pwritev2")
# It starts writing and may wait for it, and makes neither sizes nor the disk's cache durable.
NOT_DURABLE = frozenset({"sync_file_range"})
OPERATIONS: tuple[Operation, ...] = ("enqueue", "batch", "work")
COUNTS: dict[Operation, int] = {"enqueue": 200, "batch": 2, "work": 200}
QUICK_COUNTS: dict[Operation, int] = {"enqueue": 40, "batch": 1, "work": 40}
# From this many syncs an operation on, each of them was synced: a few for every hundred are checkpoints.
EACH_ONE = 0.99
# No process has so many descriptors open.
MARK = 1_000_000
SECONDS = 120

_CALL = re.compile(r"^\d+ +(\w+)\(([^,)]*)")


@dataclass(frozen=True, slots=True)
class Syncs:
    """Calls of each kind that one operation made, on average."""

    calls: dict[str, float]

    @property
    def durable(self) -> float:
        return sum(count for call, count in self.calls.items() if call not in NOT_DURABLE)

    def __str__(self) -> str:
        return " + ".join(f"{count:.2f} {call}" for call, count in self.calls.items()) or "none"


# Of one contender.
Counted = Mapping[Operation, Syncs]


def survives_power_cut(counted: Counted, operation: Operation) -> bool:
    """Whether the operation is synced, and a single enqueue too.

    A batch may be large enough for a checkpoint each time, whose sync covers what was there before.
    """
    return all(counted[each].durable >= EACH_ONE for each in ("enqueue", operation))


def count(
    name: str, directory: Path, size: RecordBytes, counts: dict[Operation, int]
) -> dict[Operation, Syncs]:
    """Of each operation; raises Missing where nothing can be traced, with the reason."""
    strace = program("strace", "strace")
    with tempfile.TemporaryDirectory(dir=directory) as home:
        trace = Path(home) / "trace"
        # Without --seccomp-bpf every call of the process would stop it, which changes nothing but the time.
        tracer = (strace, "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-o", str(trace))
        wanted = ("-e", f"trace={','.join(CALLS)}")
        child = (sys.executable, "-m", "benchmarks.syncs", name, home, *map(str, size))
        numbers = [str(counts[operation]) for operation in OPERATIONS]
        found = subprocess.run(
            (*tracer, *wanted, *child, *numbers),
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        if found.returncode:
            lines = found.stderr.strip().splitlines() or [f"strace ended with status {found.returncode}"]
            raise Missing(lines[-1])
        return parse(trace.read_text().splitlines(), counts)


def parse(lines: Iterable[str], counts: dict[Operation, int]) -> dict[Operation, Syncs]:
    """From a trace with marks: MARK + 2i begins the i-th of OPERATIONS, MARK + 2i + 1 ends it."""
    found: dict[Operation, Counter[str]] = {}
    counting: Counter[str] | None = None
    for line in lines:
        call = _CALL.match(line)  # not "<... fsync resumed>": each call is counted where it begins
        if call is None:
            continue
        if call[1] == "fsync" and call[2].isdigit() and int(call[2]) >= MARK:
            number, ends = divmod(int(call[2]) - MARK, 2)
            counting = None if ends else found.setdefault(OPERATIONS[number], Counter())
        elif counting is not None and (call[1] != "pwritev2" or "SYNC" in line):
            counting[call[1]] += 1
    if missing := set(OPERATIONS) - found.keys():
        raise Missing(f"the trace does not show {', '.join(sorted(missing))}")
    return {
        operation: Syncs({call: number / counts[operation] for call, number in sorted(calls.items())})
        for operation, calls in found.items()
    }


def _mark(number: int) -> None:
    with suppress(OSError):  # EBADF, as it must
        os.fsync(MARK + number)


def _perform(name: str, directory: Path, size: RecordBytes, counts: Sequence[int]) -> None:
    """What is traced."""
    enqueues, batches, cycles = counts
    stage = Stage(contenders(size)[name], directory, "power")
    try:
        contender = stage.contender
        contender.enqueue(payload(0))  # the first may make files
        contender.work()
        _mark(0)
        for number in range(enqueues):
            contender.enqueue(payload(number))
        _mark(1)
        jobs = payloads(0, BATCH)
        _mark(2)
        for _ in range(batches):
            contender.enqueue_many(jobs)
        _mark(3)
        _mark(4)
        for _ in range(cycles):
            if contender.work() is None:
                raise Lost("an entry is not there")
        _mark(5)
    finally:
        stage.close()


if __name__ == "__main__":
    _, _name, _home, _enqueue, _cycle, *_counts = sys.argv
    _perform(_name, Path(_home), RecordBytes(int(_enqueue), int(_cycle)), [int(each) for each in _counts])
