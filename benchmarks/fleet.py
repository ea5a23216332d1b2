"""Whole lives, with four producers and four consumers: how many a second, how many lost, how many twice."""

from __future__ import annotations

import time
from collections import Counter
from multiprocessing.synchronize import Event
from typing import NamedTuple

from benchmarks.contender import Contender, Lost, payload
from benchmarks.crew import PATIENCE_SECONDS, Crew, spawn
from benchmarks.stage import Stage
from benchmarks.workload import Figures

PRODUCERS = CONSUMERS = 4
# A consumer that found nothing looks again after this long.
LOOK_SECONDS = 0.001


class _Worked(NamedTuple):
    """Numbers that a consumer completed, and when the last one was (monotonic nanoseconds)."""

    numbers: list[int]
    last_ns: int


def lives(stage: Stage, count: int) -> Figures:
    """``count`` entries, enqueued one by one and worked at the same time."""
    share = count // PRODUCERS
    produced = spawn.Event()
    with Crew() as producers, Crew() as consumers:
        for first in range(0, share * PRODUCERS, share):
            producers.hire(stage.opener, _produce, first, share)
        for _ in range(CONSUMERS):
            consumers.hire(stage.opener, _consume, produced)
        consumers.go()
        begin = time.monotonic_ns()
        producers.go()
        producers.results()
        produced.set()
        worked: list[_Worked] = consumers.results()
    stage.contender.tidy()
    return figures(share * PRODUCERS, worked, begin)


def figures(count: int, worked: list[_Worked], begin_ns: int) -> Figures:
    """Lives a second, from the first call of enqueue to the last entry completed."""
    times = Counter(number for each in worked for number in each.numbers)
    if not times:
        raise Lost("no consumer completed anything")
    seconds = (max(each.last_ns for each in worked) - begin_ns) / 1e9
    lost = sum(number not in times for number in range(count))
    return {
        "": [(count - lost) / seconds],
        "lost": [lost],
        "twice": [sum(number - 1 for number in times.values())],
    }


def _produce(contender: Contender, first: int, count: int) -> None:
    for number in range(first, first + count):
        contender.enqueue(payload(number))


def _consume(contender: Contender, produced: Event) -> _Worked:
    numbers: list[int] = []
    last_ns = 0
    looked_until = time.monotonic() + PATIENCE_SECONDS / 2
    while True:
        # Before the look: what is enqueued after it is not the last.
        last_call = produced.is_set()
        number = contender.work()
        if number is not None:
            numbers.append(number)
            last_ns = time.monotonic_ns()
            looked_until = time.monotonic() + PATIENCE_SECONDS / 2
        elif (last_call and not contender.remaining()) or time.monotonic() > looked_until:
            return _Worked(numbers, last_ns)
        else:
            time.sleep(LOOK_SECONDS)
