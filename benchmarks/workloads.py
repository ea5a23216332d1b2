"""What is measured, of whom, in the order in which it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks import crowd, depth, disk, fleet, single, startup, waiting
from benchmarks.peers import registry
from benchmarks.peers.registry import DURAQ, FLOORS
from benchmarks.workload import Column, Workload

SQLITE_PEERS = ("sqlite", "persist-queue", "litequeue", "huey", "localqueue")
DAEMONS = ("beanstalkd", "redis")
QUEUES = (*SQLITE_PEERS, *DAEMONS, DURAQ)
ALL = (*FLOORS, *QUEUES)
# Those whose consumers sleep until they are woken, and a table by hand, whose consumers look by the clock.
SLEEPERS = ("sqlite", *DAEMONS, DURAQ)

DEPTHS = (1_000, 100_000)
DEEP = (1_000, 100_000, 1_000_000, 10_000_000)
QUICK_DEPTHS = (1_000,)
POLLERS: Mapping[str, str] = {
    "persist-queue": "another process's entries are found at the next tick, 10 s",
    "litequeue": "its consumers poll, as often as their user likes (see sqlite)",
    "huey": "its consumers poll, every 0.1 to 10 s by default",
    "localqueue": "its consumers poll, every 0.01 to 0.25 s",
}
SLOW_TO_FILL: Mapping[str, str] = dict.fromkeys(("persist-queue", "huey"), "no batch to fill it with")
KILLED = ("beanstalkd", DURAQ)


def name_of(number: int) -> str:
    """1000 is 1k, 10000000 is 10M."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= unit and number % unit == 0:
            return f"{number // unit}{letter}"
    return str(number)


def workloads(depths: Sequence[int] = DEPTHS) -> tuple[Workload, ...]:
    return (
        Workload(
            "enqueue",
            "one durable enqueue at a time",
            "entries/s",
            single.enqueue,
            count=300,
            quick_count=50,
            slices=3,
            contenders=ALL,
            operation="enqueue",
        ),
        Workload(
            "batch",
            f"{single.BATCH} entries at once",
            "entries/s",
            single.enqueue_many,
            count=8,
            quick_count=1,
            contenders=ALL,
            operation="batch",
        ),
        Workload(
            "work",
            "dequeue + mark_completed, durable",
            "cycles/s",
            single.work,
            count=300,
            quick_count=50,
            slices=3,
            contenders=ALL,
            operation="work",
        ),
        Workload(
            "work-process",
            "dequeue + mark_completed, surviving the process only",
            "cycles/s",
            single.work,
            count=1000,
            quick_count=200,
            slices=3,
            contenders=ALL,
            durability="process",
            left_out={"persist-queue": "it has no such mode"},
        ),
        _lives(),
        _crowd(),
        _depth(depths),
        *_waiting(),
        Workload(
            "disk",
            "disk use after so many lives, never more than 100 at once",
            "MB",
            disk.disk,
            count=100_000,
            quick_count=1000,
            contenders=("sqlite", *DAEMONS, DURAQ),
            shows="columns",
            columns=(Column("", "MB beside preallocated"), Column("all", "MB in all")),
            durability="process",
            warm_up=False,
            once=True,
        ),
        Workload(
            "startup",
            "a command, from its start to its end",
            "ms",
            startup.startup,
            count=2,
            quick_count=1,
            contenders=(DURAQ,),
            shows="columns",
            columns=(
                Column("python", "python -c pass, ms"),
                Column("help", "duraq --help, ms"),
                Column("put", "duraq put, ms"),
            ),
        ),
    )


def _lives() -> Workload:
    return Workload(
        "lives",
        f"whole lives, {fleet.PRODUCERS} producers and {fleet.CONSUMERS} consumers",
        "lives/s",
        fleet.lives,
        count=1500,
        quick_count=100,
        contenders=QUEUES,
        shows="columns",
        columns=(
            Column("", "lives/s"),
            Column("lost", "lost, all rounds", summed=True),
            Column("twice", "twice, all rounds", summed=True),
        ),
        warm_up=False,
    )


def _crowd() -> Workload:
    return Workload(
        "crowd",
        f"{crowd.CROWD} threads or {crowd.CROWD} processes enqueueing durably, beside one",
        "entries/s",
        crowd.crowd,
        count=1000,
        quick_count=20,
        contenders=("sqlite", DURAQ),
        shows="columns",
        columns=(
            Column("one", "one thread"),
            Column("threads", f"{crowd.CROWD} threads"),
            Column("threads x", "x one"),
            Column("processes", f"{crowd.CROWD} processes"),
            Column("processes x", "x one"),
        ),
        warm_up=False,
    )


def _depth(depths: Sequence[int]) -> Workload:
    return Workload(
        "depth",
        "a worker process started on a deep queue",
        "cycles/s",
        depth.depth,
        count=300,
        quick_count=20,
        contenders=("sqlite", "litequeue", "localqueue", *DAEMONS, DURAQ),
        shows="columns",
        columns=(
            Column("", "cycles/s", over="x shallowest"),
            Column("start", "start to first lease, ms"),
            Column("memory", "memory (with server), MB"),
            Column("disk", "disk, MB"),
        ),
        prepare=depth.fill,
        variants=tuple((name_of(each), each) for each in depths),
        warm_up=False,
        left_out=SLOW_TO_FILL,
    )


def _waiting() -> tuple[Workload, ...]:
    return (
        Workload(
            "wake",
            "enqueue in A to entry in a sleeping B",
            "ms",
            waiting.wake,
            count=40,
            quick_count=10,
            contenders=SLEEPERS,
            shows="latency",
            left_out=POLLERS,
        ),
        Workload(
            "idle",
            "processor use of a sleeping consumer, and its server",
            "% of a core",
            waiting.idle,
            count=2,
            quick_count=1,
            contenders=SLEEPERS,
            shows="latency",
            warm_up=False,
            left_out=POLLERS,
        ),
        Workload(
            "kill",
            "SIGKILL of the holder to entry in a sleeping heir",
            "ms",
            waiting.kill,
            count=2,
            quick_count=1,
            contenders=KILLED,
            shows="latency",
            warm_up=False,
            left_out={peer.name: peer.killed for peer in registry.QUEUES if peer.name not in KILLED},
        ),
    )
