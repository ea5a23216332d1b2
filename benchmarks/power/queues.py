"""The queues that are put through the cuts, each through its documented calls.

Of each its defaults and, where it has one, its most durable setting. A further one is a function that opens
it, and a line in _SETTINGS.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.packages import library, version
from duraq import FileStorage, Queue
from duraq.storage.file import Durability

OURS = "DuraQ"
BY_HAND = ("append", "table in SQLite")  # no packages


@dataclass(frozen=True, slots=True)
class Opened:
    """A queue that is open: ``put`` keeps a text, ``read`` gives out all there is."""

    put: Callable[[str], object]
    read: Callable[[], Iterable[object]]
    close: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class Tried:
    """A queue in one of its settings, before it is opened in a directory."""

    name: str
    setting: str
    open: Callable[[Path], Opened]

    @property
    def title(self) -> str:
        return f"{self.name}: {self.setting}"

    def version(self) -> str:
        """Of its package; raises Missing if that is not installed."""
        return "-" if self.name in BY_HAND else version(self.name).removeprefix(f"{self.name} ")


def loop(directory: Path, *, synced: bool) -> Opened:
    file = (directory / "lines").open("ab", buffering=0)

    def put(text: str) -> None:
        file.write(text.encode() + b"\n")
        if synced:
            os.fdatasync(file)

    # One without a newline is one that was not written to its end.
    def read() -> list[str]:
        return (directory / "lines").read_bytes().decode(errors="replace").split("\n")[:-1]

    return Opened(put, read, file.close)


def sqlite_by_hand(directory: Path, *, synchronous: str) -> Opened:
    db = sqlite3.connect(directory / "queue.sqlite", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute("CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)")
    return Opened(
        lambda text: db.execute("INSERT INTO jobs (payload) VALUES (?)", (text,)),
        lambda: (payload for (payload,) in db.execute("SELECT payload FROM jobs ORDER BY id")),
        db.close,
    )


def persist_queue(directory: Path) -> Opened:
    persistqueue = library("persistqueue")
    # It says each time that it keeps its temporary files beside the queue, as it should.
    logging.getLogger("persistqueue").setLevel(logging.ERROR)
    queue = persistqueue.Queue(str(directory))
    return Opened(queue.put, lambda: _until(persistqueue.Empty, partial(queue.get, block=False)))


def persist_ack_queue(directory: Path) -> Opened:
    persistqueue = library("persistqueue")
    queue = persistqueue.SQLiteAckQueue(str(directory))
    return Opened(queue.put, lambda: _until(persistqueue.Empty, partial(queue.get, block=False)), queue.close)


def huey_files(directory: Path) -> Opened:
    return _huey(library("huey.storage").FileStorage("jobs", str(directory)))


def huey_sqlite(directory: Path, **setting: Any) -> Opened:
    storage = library("huey.storage").SqliteStorage("jobs", str(directory / "huey.sqlite"), **setting)
    return _huey(storage, storage.close)


def _huey(storage: Any, close: Callable[[], object] = lambda: None) -> Opened:
    return Opened(
        lambda text: storage.enqueue(text.encode()),
        lambda: (bytes(data).decode(errors="replace") for data in storage.enqueued_items()),
        close,
    )


def disk_cache(directory: Path, **setting: Any) -> Opened:
    diskcache = library("diskcache")
    # What Deque does by itself with a directory.
    cache = diskcache.Cache(str(directory), eviction_policy="none", **setting)
    deque = diskcache.Deque.fromcache(cache)
    return Opened(deque.append, lambda: deque, cache.close)


def local_queue(directory: Path, *, mode: str) -> Opened:
    localqueue = library("localqueue")
    queue = localqueue.SimpleQueue(str(directory / "localqueue"), durability=localqueue.DurabilityMode[mode])

    def read() -> Iterator[object]:
        return (job.data for job in _until(localqueue.Empty, partial(queue.get, block=False)))

    return Opened(queue.put, read, queue.close)


def dirq(directory: Path) -> Opened:
    queue = library("dirq.QueueSimple").QueueSimple(str(directory))

    def read() -> Iterator[str]:
        for name in queue:
            if queue.lock(name):
                yield queue.get(name).decode(errors="replace")

    return Opened(queue.add, read)


def duraq(directory: Path, *, durability: Durability) -> Opened:
    storage = FileStorage(directory / "storage", durability=durability)
    queue: Queue[str] = Queue("jobs", storage, str)
    return Opened(queue.enqueue, lambda: (entry.data for entry in queue.entries()), storage.close)


def _until(empty: type[Exception], get: Callable[[], object]) -> Iterator[Any]:
    with suppress(empty):
        while True:
            yield get()


_SETTINGS: dict[str, dict[str, Callable[[Path], Opened]]] = {
    "append": {"write": partial(loop, synced=False), "write + fdatasync": partial(loop, synced=True)},
    "table in SQLite": {
        "WAL, synchronous=NORMAL": partial(sqlite_by_hand, synchronous="NORMAL"),
        "WAL, synchronous=FULL": partial(sqlite_by_hand, synchronous="FULL"),
    },
    "persist-queue": {"Queue": persist_queue, "SQLiteAckQueue": persist_ack_queue},
    "huey": {
        "FileStorage": huey_files,
        "SqliteStorage": huey_sqlite,
        "SqliteStorage, fsync=False": partial(huey_sqlite, fsync=False),
        "SqliteStorage, fsync=True": partial(huey_sqlite, fsync=True),
    },
    "diskcache": {
        "Deque": disk_cache,
        "Deque, sqlite_synchronous=2": partial(disk_cache, sqlite_synchronous=2),
    },
    "localqueue": {
        "RELAXED, the default": partial(local_queue, mode="RELAXED"),
        "DURABLE": partial(local_queue, mode="DURABLE"),
    },
    "dirq": {"QueueSimple": dirq},
    OURS: {
        "process": partial(duraq, durability="process"),
        "batched": partial(duraq, durability="batched"),
        "power, the default": partial(duraq, durability="power"),
    },
}
QUEUES = [
    Tried(name, setting, opener)
    for name, settings in _SETTINGS.items()
    for setting, opener in settings.items()
]
