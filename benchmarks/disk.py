"""What many lives through a shallow queue leave on the disk."""

from __future__ import annotations

from benchmarks.contender import cycles, payloads
from benchmarks.single import expect_next, expect_remaining
from benchmarks.stage import Stage
from benchmarks.workload import Figures

# No more than this are in the queue at once.
SHALLOW = 100
SECONDS = 120.0


def disk(stage: Stage, count: int) -> Figures:
    """Megabytes after ``count`` lives: all of them, and without what is there for an empty queue too."""
    contender = stage.contender
    for first in range(0, count, SHALLOW):
        share = min(SHALLOW, count - first)
        contender.enqueue_many(payloads(stage.filled, share))
        stage.filled += share
        worked, _ = cycles(contender, share, SECONDS)
        expect_next(stage, worked)
    expect_remaining(stage, 0)
    return {
        "": [stage.bytes_on_disk(preallocated=False) / 1e6],
        "all": [stage.bytes_on_disk() / 1e6],
    }
