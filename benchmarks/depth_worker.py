"""The worker process of ``depth``: its order comes on stdin, its report goes to stdout.

It is as small as a worker can be: what it imports is in the time to its first lease.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from typing import NamedTuple

from benchmarks.contender import Lost, Opener, cycles
from benchmarks.proc import memory_bytes

CYCLE_SECONDS = 1.0


# Whose queue, and how many entries to work, in CYCLE_SECONDS at most. Plain tuples go both ways: a class
# of this module, which is ``__main__`` there, would not be found here.
Order = tuple[Opener, int]


class Report(NamedTuple):
    """``first_ns``: when the first entry was in hand, in monotonic nanoseconds."""

    first_ns: int
    worked: list[int]
    cycles_per_second: float
    memory_bytes: int


def run(order: Order) -> Report:
    opener, count = order
    with opener() as contender:
        first = contender.lease()
        first_ns = time.monotonic_ns()
        if first is None:
            raise Lost("the queue is empty")
        contender.complete()
        worked, seconds = cycles(contender, count, CYCLE_SECONDS)
        return Report(first_ns, [first, *worked], len(worked) / seconds, memory_bytes(os.getpid()))


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(tuple(run(pickle.load(sys.stdin.buffer)))))
