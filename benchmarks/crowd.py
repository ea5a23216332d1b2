"""Eight at once: threads and processes that enqueue durably into one queue, beside one alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from benchmarks.contender import Contender, Opener, payload
from benchmarks.crew import Crew
from benchmarks.single import expect_remaining
from benchmarks.stage import Stage
from benchmarks.workload import Figures

CROWD = 8
# The one alone does as much as this many of the crowd: it is the measure of the others.
ALONE = 3


class _Span(NamedTuple):
    """When somebody began and ended, in monotonic nanoseconds, which all processes share."""

    begin_ns: int
    end_ns: int


def crowd(stage: Stage, count: int) -> Figures:
    """Entries a second of one thread alone, of CROWD threads and of CROWD processes, ``count`` each."""
    before = stage.contender.remaining()
    alone = _rate([_enqueue(stage.contender, count * ALONE)], count * ALONE)
    threads = _rate(_threads(stage, count), count)
    processes = _rate(_processes(stage.opener, count), count)
    expect_remaining(stage, before + count * (ALONE + 2 * CROWD))
    return {
        "one": [alone],
        "threads": [threads],
        "processes": [processes],
        "threads x": [threads / alone],
        "processes x": [processes / alone],
    }


def _threads(stage: Stage, count: int) -> list[_Span]:
    together = threading.Barrier(CROWD)

    def run(open_one: Callable[[], Contender], *, close: bool) -> _Span:
        contender = open_one()
        try:
            together.wait()
            return _enqueue(contender, count)
        finally:
            if close:
                contender.close()

    shared = stage.contender.shared_by_threads
    open_one = (lambda: stage.contender) if shared else stage.opener
    with ThreadPoolExecutor(CROWD) as pool:
        futures = [pool.submit(run, open_one, close=not shared) for _ in range(CROWD)]
        return [future.result() for future in futures]


def _processes(opener: Opener, count: int) -> list[_Span]:
    with Crew() as crew:
        for _ in range(CROWD):
            crew.hire(opener, _enqueue, count)
        crew.go()
        return crew.results()


def _enqueue(contender: Contender, count: int) -> _Span:
    begin = time.monotonic_ns()
    for number in range(count):
        contender.enqueue(payload(number))
    return _Span(begin, time.monotonic_ns())


def _rate(spans: list[_Span], count: int) -> float:
    """From the first to begin to the last to end."""
    seconds = (max(span.end_ns for span in spans) - min(span.begin_ns for span in spans)) / 1e9
    return count * len(spans) / seconds
