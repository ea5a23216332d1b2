"""Counting syncs in a trace of strace."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import syncs
from benchmarks.contender import Missing
from benchmarks.floors import RecordBytes
from benchmarks.syncs import MARK, Syncs
from benchmarks.workload import Operation

COUNTS: dict[Operation, int] = {"enqueue": 2, "batch": 1, "work": 4}
SIZE = RecordBytes(enqueue=340, cycle=410)


def marked(*between: list[str]) -> list[str]:
    lines = ["10 fsync(3)                          = 0"]  # before the first mark: opening
    for number, calls in enumerate(between):
        lines.append(f"10 fsync({MARK + 2 * number}) = -1 EBADF (Bad file descriptor)")
        lines += calls
        lines.append(f"10 fsync({MARK + 2 * number + 1}) = -1 EBADF (Bad file descriptor)")
        lines.append("10 fdatasync(3)                      = 0")  # between the operations
    return lines


def test_calls_between_the_marks_are_counted() -> None:
    """What happens between an operation's marks counts, by call and for each operation."""
    trace = marked(["10 fdatasync(4) = 0", "10 fdatasync(4) = 0"], ["10 fsync(4) = 0"], [])
    assert syncs.parse(trace, COUNTS) == {
        "enqueue": Syncs({"fdatasync": 1.0}),
        "batch": Syncs({"fsync": 1.0}),
        "work": Syncs({}),
    }


def test_call_of_another_process_counts_once() -> None:
    """A call that strace prints in two parts, because another process came between, is one call."""
    trace = marked(
        [],
        [],
        [
            "10 sync_file_range(4, 0, 0, 0) = 0",
            "11 fdatasync(7 <unfinished ...>",
            "10 fsync(4)                          = 0",
            "11 <... fdatasync resumed>)          = 0",
            "11 +++ exited with 0 +++",
        ],
    )
    found = syncs.parse(trace, COUNTS)["work"]
    assert found == Syncs({"fdatasync": 0.25, "fsync": 0.25, "sync_file_range": 0.25})
    assert found.durable == 0.5


def test_writes_that_sync_are_syncs() -> None:
    """A pwritev2 counts if it was told to sync, and else not."""
    trace = marked(
        [
            '10 pwritev2(4, [{iov_base="x", iov_len=1}], 1, 0, RWF_DSYNC) = 1',
            '10 pwritev2(4, [{iov_base="x", iov_len=1}], 1, 0, 0) = 1',
        ],
        [],
        [],
    )
    assert syncs.parse(trace, COUNTS)["enqueue"] == Syncs({"pwritev2": 0.5})


def test_trace_that_breaks_off_counts_nothing() -> None:
    """Without all the marks there is no count, rather than one that is too small."""
    with pytest.raises(Missing, match="does not show batch, work"):
        syncs.parse(marked([]), COUNTS)


def test_without_strace_nothing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where strace is not installed, the reason says so."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match="strace is not on the PATH"):
        syncs.count("floor A", tmp_path, SIZE, COUNTS)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("name", ["floor A", "duraq"])
def test_durable_operations_sync_once(name: str, tmp_path: Path) -> None:
    """A floor's operation and DuraQ's alike make one fdatasync each."""
    try:
        found = syncs.count(name, tmp_path, SIZE, COUNTS)
    except Missing as missing:  # a container may forbid it
        pytest.skip(f"strace cannot trace here: {missing}")
    assert found == {operation: Syncs({"fdatasync": 1.0}) for operation in COUNTS}
