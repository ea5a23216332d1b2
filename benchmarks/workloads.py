"""What is measured, of whom. A workload is a function from a stage and a count to figures of one unit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from benchmarks import waiting
from benchmarks.contender import Contender, Durability, Factory, Lost, payload
from benchmarks.floors import FloorA, FloorB, RecordBytes
from benchmarks.peers import DuraQ, Sqlite
from benchmarks.stage import Stage

BATCH = 1000


@dataclass(frozen=True, slots=True)
class Workload:
    """``count`` is what each contender does in a round: enough of it to be a figure."""

    name: str
    title: str
    unit: str
    measure: Callable[[Stage, int], list[float]]
    count: int
    quick_count: int
    contenders: tuple[str, ...]
    syncs: Literal["enqueue", "batch", "work"] | None = None
    durability: Durability = "power"


def contenders(size: RecordBytes) -> dict[str, Factory]:
    return {
        "floor A": partial(FloorA, size=size),
        "floor B": partial(FloorB, size=size),
        "sqlite": Sqlite,
        "duraq": DuraQ,
    }


def enqueue(stage: Stage, count: int) -> list[float]:
    """Entries a second, one call each."""
    contender = stage.contender
    payloads = [payload(number) for number in range(count)]
    before = contender.remaining()
    begin = time.perf_counter()
    for each in payloads:
        contender.enqueue(each)
    seconds = time.perf_counter() - begin
    _expect_remaining(stage, before + count)
    return [count / seconds]


def enqueue_many(stage: Stage, count: int) -> list[float]:
    """Entries a second, BATCH in a call."""
    contender = stage.contender
    payloads = [payload(number) for number in range(BATCH)]
    before = contender.remaining()
    begin = time.perf_counter()
    for _ in range(count):
        contender.enqueue_many(payloads)
    seconds = time.perf_counter() - begin
    _expect_remaining(stage, before + count * BATCH)
    return [count * BATCH / seconds]


def work(stage: Stage, count: int) -> list[float]:
    """Entries a second, leased and completed one after the other."""
    contender = stage.contender
    _fill(contender, count)
    begin = time.perf_counter()
    worked = [contender.work() for _ in range(count)]
    seconds = time.perf_counter() - begin
    _expect_remaining(stage, 0)
    # A floor counts through all rounds, a queue returns the numbers of this one: both in order.
    first = worked[0] or 0
    if worked != list(range(first, first + count)):
        raise Lost(f"{stage.name} did not deliver its {count} entries once each and in order")
    return [count / seconds]


def _fill(contender: Contender, count: int) -> None:
    for first in range(0, count, BATCH):
        contender.enqueue_many([payload(number) for number in range(first, min(first + BATCH, count))])


def _expect_remaining(stage: Stage, expected: int) -> None:
    remaining = stage.contender.remaining()
    if remaining != expected:
        raise Lost(f"{stage.name} holds {remaining} entries, not {expected}")


ALL = ("floor A", "floor B", "sqlite", "duraq")
# SQLite has nothing to sleep on: its consumers poll, and a dead one is noticed by a timeout.
WAITING = ("duraq",)

WORKLOADS = (
    Workload(
        "enqueue", "one durable enqueue at a time", "entries/s", enqueue, 2000, 100, ALL, syncs="enqueue"
    ),
    Workload("batch", f"{BATCH} entries with one sync", "entries/s", enqueue_many, 20, 3, ALL, syncs="batch"),
    Workload("work", "dequeue + mark_completed, durable", "cycles/s", work, 2000, 100, ALL, syncs="work"),
    Workload(
        "work-process",
        "dequeue + mark_completed, surviving the process only",
        "cycles/s",
        work,
        5000,
        500,
        ALL,
        durability="process",
    ),
    Workload("wake", "enqueue in A to entry in a sleeping B", "ms", waiting.wake, 60, 10, WAITING),
    Workload("idle", "processor use of a sleeping consumer", "% of a core", waiting.idle, 1, 1, WAITING),
    Workload("kill", "SIGKILL of the holder to entry in a sleeping heir", "ms", waiting.kill, 4, 1, WAITING),
)
