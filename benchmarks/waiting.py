"""Workloads of consumers that sleep: how soon they wake, what sleeping costs, who inherits from the dead."""

from __future__ import annotations

import os
import random
import time
from multiprocessing.connection import Connection
from typing import NamedTuple, Self

from benchmarks import packages
from benchmarks.contender import Lost, Opener, payload
from benchmarks.crew import PATIENCE_SECONDS, spawn
from benchmarks.proc import cpu_seconds
from benchmarks.stage import Stage
from benchmarks.workload import Figures

# Long enough that a consumer told to take an entry sleeps by then, and never the same: one that looks by
# the clock must not be met at the same point of its sleep each time.
SETTLE_SECONDS = 0.01
SETTLE_JITTER = 0.02


class _Order(NamedTuple):
    """Take one entry, waiting so long for it."""

    seconds: float
    complete: bool


class _Taken(NamedTuple):
    """The entry's number (None: none came), when it was in hand, and what waiting for it cost."""

    number: int | None
    at_ns: int
    cpu_seconds: float


class _Consumer:
    """A process that takes one entry of the contender whenever it is told to."""

    def __init__(self, stage: Stage) -> None:
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_consume, args=(stage.opener, theirs), daemon=True)
        with packages.hidden():
            self._process.start()
        theirs.close()
        self._receive()  # it is ready

    def order(self, seconds: float = PATIENCE_SECONDS, *, complete: bool = True) -> None:
        self._pipe.send(_Order(seconds, complete))
        time.sleep(SETTLE_SECONDS + random.uniform(0, SETTLE_JITTER))

    def taken(self) -> _Taken:
        taken = self._receive()
        if not isinstance(taken, _Taken):
            raise TypeError(f"the consumer answered {taken!r}")
        return taken

    def kill(self) -> None:
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pipe.close()  # it leaves when it reads the end
        self._process.join(1)
        if self._process.is_alive():
            self.kill()
            self._process.join()

    def _receive(self) -> object:
        if not self._pipe.poll(PATIENCE_SECONDS):
            raise Lost(f"a consumer said nothing for {PATIENCE_SECONDS:.0f} s")
        try:
            return self._pipe.recv()
        except EOFError:
            raise Lost("a consumer died of the error that it printed") from None


def _consume(opener: Opener, pipe: Connection) -> None:
    with opener() as contender:
        pipe.send("ready")
        while True:
            try:
                order = pipe.recv()
            except EOFError:
                return
            cpu = cpu_seconds(os.getpid())
            number = contender.lease_within(order.seconds)
            taken = _Taken(number, time.monotonic_ns(), cpu_seconds(os.getpid()) - cpu)
            if order.complete and number is not None:
                contender.complete()
            pipe.send(taken)


def wake(stage: Stage, count: int) -> Figures:
    """Milliseconds from the call of enqueue here to the entry in the hands of a process that sleeps."""
    latencies = []
    with _Consumer(stage) as consumer:
        for number in range(count):
            consumer.order()
            begin = time.monotonic_ns()
            stage.contender.enqueue(payload(number))
            latencies.append(_elapsed_ms(begin, consumer.taken(), number))
    _expect_empty(stage)
    return {"": latencies}


def idle(stage: Stage, count: int) -> Figures:
    """Percent of a core that a consumer uses, and its server with it, while nothing comes.

    ``count`` is how many seconds long.
    """
    with _Consumer(stage) as consumer:
        consumer.order(SETTLE_SECONDS)  # what the first call alone costs is not idling
        consumer.taken()
        before = _server_cpu(stage)
        consumer.order(count)
        taken = consumer.taken()
        if taken.number is not None:
            raise Lost(f"entry {taken.number} came from an empty queue")
        return {"": [100 * (taken.cpu_seconds + _server_cpu(stage) - before) / count]}


def kill(stage: Stage, count: int) -> Figures:
    """Milliseconds from the SIGKILL of an entry's holder to the entry in the hands of one that sleeps."""
    latencies = []
    with _Consumer(stage) as heir:
        for number in range(count):
            stage.contender.enqueue(payload(number))
            with _Consumer(stage) as holder:
                holder.order(complete=False)
                if holder.taken().number != number:
                    raise Lost(f"the holder did not get entry {number}")
                heir.order()
                begin = time.monotonic_ns()
                holder.kill()
                latencies.append(_elapsed_ms(begin, heir.taken(), number))
    _expect_empty(stage)
    return {"": latencies}


def _server_cpu(stage: Stage) -> float:
    return 0.0 if stage.server_pid is None else cpu_seconds(stage.server_pid)


def _elapsed_ms(begin_ns: int, taken: _Taken, number: int) -> float:
    if taken.number != number:
        raise Lost(f"entry {number} was awaited, {taken.number} came")
    return (taken.at_ns - begin_ns) / 1e6


def _expect_empty(stage: Stage) -> None:
    if remaining := stage.contender.remaining():
        raise Lost(f"{remaining} entries remain, all were completed")
