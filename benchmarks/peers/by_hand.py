"""A table in SQLite, as one writes it by hand: WAL, a sync at each commit, an index of what is ready."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from benchmarks.contender import Contender, Durability, Payload


class Sqlite(Contender):
    """Leasing and completing are a transaction each: between them the handler runs."""

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
        self._leased = 0

    def enqueue(self, payload: Payload) -> None:
        self._db.execute(self._INSERT, (0, orjson.dumps(payload)))

    def enqueue_many(self, payloads: Sequence[Payload]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(self._INSERT, [(0, orjson.dumps(payload)) for payload in payloads])
        self._db.execute("COMMIT")

    def lease(self) -> int | None:
        # The statement, and with it its transaction, ends when all rows are fetched.
        leased = self._db.execute(self._LEASE, (time.time(),)).fetchall()
        if not leased:
            return None
        self._leased, data = leased[0]
        return int(orjson.loads(data)["n"])

    def complete(self) -> None:
        self._db.execute("DELETE FROM jobs WHERE id = ?", (self._leased,))

    def remaining(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM jobs").fetchone()[0])

    def close(self) -> None:
        self._db.close()
