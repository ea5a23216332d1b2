"""The queues that are compared. A further one is a class here and a line in CONTENDERS of ``workloads``."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import orjson

from benchmarks.contender import Contender, Durability, Lost, Payload, Syncs, WaitingContender, payload
from benchmarks.floors import RecordBytes
from duraq import FileStorage, QueueManager
from duraq.model import QueueEntry
from duraq.queue import Queue


class DuraQ(WaitingContender):
    """The full public API over a FileStorage with its defaults."""

    syncs: ClassVar[Syncs] = Syncs(enqueue=1, batch=1, work=1)

    def __init__(self, directory: Path, durability: Durability) -> None:
        self._storage = FileStorage(directory / "duraq", durability=durability)
        self._queue: Queue[Payload] = QueueManager(self._storage).queue("jobs")
        self._taken: QueueEntry[Payload] | None = None

    def enqueue(self, payload: Payload) -> None:
        self._queue.enqueue(payload)

    def enqueue_many(self, payloads: Sequence[Payload]) -> None:
        self._queue.enqueue_many(payloads)

    def work(self) -> int | None:
        entry = self._queue.dequeue()
        if entry is None:
            return None
        self._queue.mark_completed(entry)
        return int(entry.data["n"])

    def take(self, seconds: float) -> int | None:
        self._taken = self._queue.dequeue(wait=timedelta(seconds=seconds))
        return None if self._taken is None else int(self._taken.data["n"])

    def complete(self) -> None:
        if self._taken is None:
            raise Lost("nothing was taken")
        self._queue.mark_completed(self._taken)

    def remaining(self) -> int:
        return len(self._queue)

    def close(self) -> None:
        self._storage.close()


class Sqlite(Contender):
    """A table in SQLite, as one writes it by hand: WAL, a sync at each commit, an index of what is ready."""

    # Leasing and completing are a transaction each: between them the handler runs.
    syncs: ClassVar[Syncs] = Syncs(enqueue=1, batch=1, work=2)

    _SCHEMA = """
        CREATE TABLE IF NOT EXISTS jobs (
            id INTEGER PRIMARY KEY,
            priority INTEGER NOT NULL DEFAULT 0,
            state INTEGER NOT NULL DEFAULT 0,
            leased_at REAL,
            payload BLOB NOT NULL
        );
        CREATE INDEX IF NOT EXISTS ready ON jobs (priority DESC, id) WHERE state = 0;
    """
    _INSERT = "INSERT INTO jobs (priority, payload) VALUES (?, ?)"
    _LEASE = """
        UPDATE jobs SET state = 1, leased_at = ?
        WHERE id = (SELECT id FROM jobs WHERE state = 0 ORDER BY priority DESC, id LIMIT 1)
        RETURNING id, payload
    """

    def __init__(self, directory: Path, durability: Durability) -> None:
        # Without an isolation level each statement is its own transaction unless one is begun.
        self._db = sqlite3.connect(directory / "queue.sqlite", isolation_level=None, timeout=30)
        self._db.execute("PRAGMA journal_mode = WAL")
        # NORMAL syncs at checkpoints only: a commit survives the process, not the machine.
        self._db.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
        self._db.executescript(self._SCHEMA)

    def enqueue(self, payload: Payload) -> None:
        self._db.execute(self._INSERT, (0, orjson.dumps(payload)))

    def enqueue_many(self, payloads: Sequence[Payload]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(self._INSERT, [(0, orjson.dumps(payload)) for payload in payloads])
        self._db.execute("COMMIT")

    def work(self) -> int | None:
        # The statement, and with it its transaction, ends when all rows are fetched.
        leased = self._db.execute(self._LEASE, (time.time(),)).fetchall()
        if not leased:
            return None
        job, data = leased[0]
        number = orjson.loads(data)["n"]
        self._db.execute("DELETE FROM jobs WHERE id = ?", (job,))
        return int(number)

    def remaining(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM jobs").fetchone()[0])

    def close(self) -> None:
        self._db.close()


def record_bytes(directory: Path) -> RecordBytes:
    """What DuraQ appends to a segment, taken from one: the floors write as many bytes."""

    def size() -> int:
        return sum(path.stat().st_size for path in directory.glob("duraq/jobs/segments/*.jsonl"))

    with DuraQ(directory, "power") as duraq:
        duraq.enqueue(payload(0))  # the first one may bring a header with it
        empty = size()
        duraq.enqueue(payload(1))
        enqueued = size()
        duraq.work()
        worked = size()
    if not 0 < empty < enqueued < worked:
        raise Lost(f"the segments in {directory} do not grow: {empty}, {enqueued}, {worked} bytes")
    return RecordBytes(enqueue=enqueued - empty, cycle=worked - enqueued)
