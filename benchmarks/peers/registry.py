"""All that are compared, in the order of the tables: their versions, their settings, what to know of them.

A further one is a class in a module beside this one, and a line here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import packages
from benchmarks.contender import Contender, Durability
from benchmarks.floors import FloorA, FloorB, RecordBytes
from benchmarks.peers import daemons
from benchmarks.peers.beanstalk import Beanstalk
from benchmarks.peers.by_hand import Sqlite
from benchmarks.peers.duraq_itself import DuraQ
from benchmarks.peers.libraries import Huey, LiteQueue, LocalQueue, PersistQueue
from benchmarks.peers.redis_streams import RedisStream
from benchmarks.server import Server

FLOOR_A, FLOOR_B = FLOORS = ("floor A", "floor B")
DURAQ = "duraq"
# A failure of one of these is a failure of the run; a peer's is a line of the tables.
OURS = (*FLOORS, DURAQ)


@dataclass(frozen=True, slots=True)
class Peer:
    """A contender before it is opened.

    ``settings`` are those of each durability; one that is not in them is one that it does not have.
    ``connect`` opens it from a directory and a durability or, where ``serve`` makes a server, from the
    server's address. ``killed`` says what becomes of an entry whose worker is killed. ``preallocated`` are
    globs below its directory: files that are as large when the queue is empty. Without ``leases`` an entry
    is deleted when it is taken.
    """

    name: str
    version: Callable[[], str]
    settings: Mapping[Durability, str]
    connect: Callable[..., Contender]
    serve: Callable[[Path, Durability], Server] | None = None
    notes: tuple[str, ...] = ()
    killed: str = ""
    preallocated: tuple[str, ...] = ()
    leases: bool = True


def contenders(size: RecordBytes) -> dict[str, Peer]:
    """By name; the floors write as many bytes as DuraQ does."""
    return {peer.name: peer for peer in (*_floors(size), *QUEUES)}


def _floors(size: RecordBytes) -> tuple[Peer, Peer]:
    def floor(name: str, how: str, connect: Callable[..., Contender]) -> Peer:
        settings: dict[Durability, str] = {"power": f"{how} + fdatasync", "process": how}
        return Peer(name, lambda: "a bare loop", settings, connect)

    return (
        floor(FLOOR_A, "append write", partial(FloorA, size=size)),
        floor(FLOOR_B, "pwrite into preallocated space", partial(FloorB, size=size)),
    )


_BY_HAND = Peer(
    "sqlite",
    lambda: f"a table by hand, SQLite {sqlite3.sqlite_version}",
    {"power": "WAL, synchronous=FULL", "process": "WAL, synchronous=NORMAL"},
    Sqlite,
    killed="leased until a timeout, which its user writes",
)

_LIBRARIES = (
    Peer(
        "persist-queue",
        lambda: f"{packages.version('persist-queue')}, SQLite {sqlite3.sqlite_version}",
        {"power": "SQLiteAckQueue, its defaults (WAL)"},
        PersistQueue,
        notes=("a batch is 1000 calls", "acked rows are removed between rounds, not timed"),
        killed="leased until some process opens the queue with auto_resume",
    ),
    Peer(
        "litequeue",
        lambda: f"{packages.version('litequeue')}, SQLite {sqlite3.sqlite_version}",
        {"power": "its only mode (WAL, synchronous=NORMAL)", "process": "WAL, synchronous=NORMAL"},
        LiteQueue,
        notes=("done rows are removed between rounds, not timed",),
        killed="locked until its user calls retry",
    ),
    Peer(
        "huey",
        lambda: f"{packages.version('huey')}, SQLite {sqlite3.sqlite_version}",
        {"power": "SqliteStorage, WAL, fsync=True", "process": "SqliteStorage, WAL, fsync=False"},
        Huey,
        notes=("no lease: taking an entry deletes it", "a batch is 1000 calls"),
        killed="lost: taking it deleted it",
        leases=False,
    ),
    Peer(
        "localqueue",
        lambda: packages.version("localqueue"),
        {"power": "DurabilityMode.DURABLE", "process": "DurabilityMode.RELAXED"},
        LocalQueue,
        notes=("acked rows are removed between rounds, not timed",),
        killed="leased until lease_seconds (60 by default) are over",
    ),
)

_DAEMONS = (
    Peer(
        "beanstalkd",
        lambda: f"{daemons.beanstalkd_version()}, {packages.version('greenstalk')}",
        {"power": "-b DIR -f0", "process": "-b DIR -F"},
        Beanstalk,
        daemons.serve_beanstalkd,
        notes=("a batch is 1000 pipelined puts",),
        killed="ready again when its worker's connection closes",
    ),
    Peer(
        "redis",
        lambda: f"{daemons.redis_version()}, {packages.version('redis')}",
        {
            "power": "stream, appendonly, appendfsync=always",
            "process": "stream, appendonly, appendfsync=everysec",
        },
        RedisStream,
        daemons.serve_redis,
        notes=("a batch is a MULTI of 1000 XADD",),
        killed="pending until somebody claims it after a time",
    ),
)

_DURAQ = Peer(
    DURAQ,
    lambda: packages.version("duraq"),
    {"power": 'durability="power"', "process": 'durability="process"'},
    DuraQ,
    killed="ready again when the kernel says that its worker is dead",
    preallocated=("duraq/journal/*",),
)

QUEUES = (_BY_HAND, *_LIBRARIES, *_DAEMONS, _DURAQ)
