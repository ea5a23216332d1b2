"""Workloads of one process: entries one at a time, in batches, and worked one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import TypeVar

from benchmarks.contender import Contender, Lost, cycles, payloads
from benchmarks.stage import Stage
from benchmarks.workload import Figures

Given = TypeVar("Given")

BATCH = 1000
# Nobody is given longer in a round: a slow disk or a slow queue makes fewer operations, not a longer run.
ROUND_SECONDS = 1.5


def enqueue(stage: Stage, count: int) -> Figures:
    """Entries a second, one call each."""
    return _fill(stage, stage.contender.enqueue, payloads(0, count), 1)


def enqueue_many(stage: Stage, count: int) -> Figures:
    """Entries a second, BATCH in a call."""
    return _fill(stage, stage.contender.enqueue_many, repeat(payloads(0, BATCH), count), BATCH)


def _fill(stage: Stage, put: Callable[[Given], object], given: Iterable[Given], size: int) -> Figures:
    """Entries a second, with a call for each that is given, of ``size`` entries."""
    before = stage.contender.remaining()
    done = 0
    begin = time.perf_counter()
    for each in given:
        put(each)
        done += size
        if time.perf_counter() - begin > ROUND_SECONDS:
            break
    seconds = time.perf_counter() - begin
    expect_remaining(stage, before + done)
    return {"": [done / seconds]}


def work(stage: Stage, count: int) -> Figures:
    """Entries a second, leased and completed one after the other."""
    top_up(stage, stage.contender, count)
    worked, seconds = cycles(stage.contender, count, ROUND_SECONDS)
    expect_next(stage, worked)
    expect_remaining(stage, stage.filled - stage.worked)
    stage.contender.tidy()
    return {"": [len(worked) / seconds]}


def top_up(stage: Stage, contender: Contender, depth: int) -> None:
    """Fill it until so many entries are in it."""
    until = stage.worked + depth
    while stage.filled < until:
        count = min(BATCH, until - stage.filled)
        contender.enqueue_many(payloads(stage.filled, count))
        stage.filled += count


def expect_next(stage: Stage, worked: list[int]) -> None:
    """They are the next ones, once each and in order."""
    if not worked or worked != list(range(stage.worked, stage.worked + len(worked))):
        raise Lost(f"{len(worked)} entries were delivered, not once each and in order from {stage.worked}")
    stage.worked += len(worked)


def expect_remaining(stage: Stage, expected: int) -> None:
    remaining = stage.contender.remaining()
    if remaining != expected:
        raise Lost(f"{remaining} entries are there, not {expected}")
