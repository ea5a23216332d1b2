"""Rows in SQL, as SQLite and PostgreSQL understand it both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from duraq.storage.rows import Head, Row

# The schema's version, and what makes the one before into each.
VERSION = 1

TABLES = (
    """
    CREATE TABLE duraq_queues (
        name TEXT PRIMARY KEY,
        version BIGINT NOT NULL,
        seq BIGINT NOT NULL,
        tokens BIGINT NOT NULL,
        pause TEXT,
        ledger TEXT NOT NULL,
        scheduled BIGINT NOT NULL,
        ready BIGINT NOT NULL,
        dead BIGINT NOT NULL,
        expiring BIGINT NOT NULL,
        payload_bytes BIGINT NOT NULL
    )
    """,
    """
    CREATE TABLE duraq_entries (
        number {number},
        queue TEXT NOT NULL,
        id TEXT NOT NULL,
        seq BIGINT NOT NULL,
        status TEXT NOT NULL,
        priority BIGINT NOT NULL,
        ready_at BIGINT,
        expires_at BIGINT,
        about TEXT NOT NULL,
        UNIQUE (queue, id)
    )
    """,
    "CREATE TABLE duraq_payloads (number BIGINT PRIMARY KEY, payload {blob} NOT NULL)",
    "CREATE INDEX duraq_delivery ON duraq_entries (queue, status, priority DESC, seq)",
    "CREATE INDEX duraq_order ON duraq_entries (queue, status, seq)",
    "CREATE INDEX duraq_due ON duraq_entries (queue, ready_at) WHERE status = 'scheduled'",
    "CREATE INDEX duraq_expiring ON duraq_entries (queue, expires_at) WHERE expires_at IS NOT NULL",
)

_HEAD = "version, seq, tokens, pause, ledger, scheduled, ready, dead, expiring, payload_bytes"
_COLUMNS = "id, seq, status, priority, ready_at, expires_at, about"
_OVER = "queue = ? AND expires_at <= ? AND status IN ('scheduled', 'ready')"

_MOST = 1 << 62  # rows; what a database takes as a limit
_SOME = 100  # rows that are asked for at once


class Execute(Protocol):
    """What of a database is needed: one statement, and an iterable of what it returns."""

    def __call__(self, statement: str, parameters: Sequence[Any] = (), /) -> Iterable[Any]: ...


class SQLRows:
    """See Rows. ``lock`` is what a SELECT ends with that keeps others from the row until the turn's end."""

    def __init__(self, execute: Execute, lock: str = "") -> None:
        self._execute = execute
        self._lock = lock

    def _one(self, statement: str, *parameters: Any) -> Any:
        # To its end: SQLite commits nothing while a statement that writes has more to say.
        return next(iter(list(self._execute(statement, parameters))), None)

    def _rows(self, condition: str, *parameters: Any) -> Iterator[Row]:
        return self._each(
            f"SELECT {_COLUMNS}, NULL FROM duraq_entries WHERE {condition}",  # noqa: S608 - names of our own
            parameters,
        )

    def _whole_rows(self, condition: str, *parameters: Any) -> Iterator[Row]:
        return self._each(
            f"SELECT {_COLUMNS}, payload FROM duraq_entries JOIN duraq_payloads USING (number)"  # noqa: S608
            f" WHERE {condition}",
            parameters,
        )

    def _each(self, statement: str, parameters: Sequence[Any]) -> Iterator[Row]:
        return (Row(*each) for each in self._execute(statement, parameters))

    # -- heads -----------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return [name for (name,) in self._execute("SELECT name FROM duraq_queues")]

    def head(self, queue: str) -> Head | None:
        found = self._one(f"SELECT {_HEAD} FROM duraq_queues WHERE name = ?{self._lock}", queue)  # noqa: S608
        return None if found is None else Head(*found)

    def save_head(self, queue: str, head: Head) -> None:
        values = (
            *(head.version, head.seq, head.tokens, head.pause, head.ledger),
            *(head.scheduled, head.ready, head.dead, head.expiring, head.payload_bytes),
        )
        changed = ", ".join(f"{name} = ?" for name in _HEAD.split(", "))
        found = self._one(f"UPDATE duraq_queues SET {changed} WHERE name = ? RETURNING 1", *values, queue)  # noqa: S608
        if found is None:
            self._execute(
                f"INSERT INTO duraq_queues (name, {_HEAD}) VALUES (?{', ?' * len(values)})",  # noqa: S608
                (queue, *values),
            )

    # -- entries ---------------------------------------------------------------------------------------

    def put(self, queue: str, row: Row) -> None:
        values = (row.seq, row.status, row.priority, row.ready_at, row.expires_at, row.about)
        if row.payload is None:
            self._execute(
                "UPDATE duraq_entries SET seq = ?, status = ?, priority = ?, ready_at = ?, expires_at = ?,"
                " about = ? WHERE queue = ? AND id = ?",
                (*values, queue, row.id),
            )
            return
        (number,) = self._one(
            "INSERT INTO duraq_entries (queue, id, seq, status, priority, ready_at, expires_at, about)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
            *(queue, row.id, *values),
        )
        self._execute("INSERT INTO duraq_payloads (number, payload) VALUES (?, ?)", (number, row.payload))

    def delete(self, queue: str, entry_id: str) -> int:
        found = self._one(
            "DELETE FROM duraq_entries WHERE queue = ? AND id = ? RETURNING number", queue, entry_id
        )
        if found is None:
            return 0
        (length,) = self._one("DELETE FROM duraq_payloads WHERE number = ? RETURNING length(payload)", *found)
        return int(length)

    def find(self, queue: str, entry_id: str) -> Row | None:
        return next(self._rows("queue = ? AND id = ?", queue, entry_id), None)

    def some(self, queue: str, entry_ids: list[str]) -> list[Row]:
        if not entry_ids:
            return []
        marks = ", ".join("?" * len(entry_ids))
        return list(self._whole_rows(f"queue = ? AND id IN ({marks})", queue, *entry_ids))

    def payload(self, queue: str, entry_id: str) -> bytes:
        return next(self._whole_rows("queue = ? AND id = ?", queue, entry_id)).payload or b""

    def leased(self, queue: str) -> list[Row]:
        return list(self._rows("queue = ? AND status = 'leased'", queue))

    def ready(self, queue: str, limit: int) -> list[Row]:
        return list(
            self._whole_rows(
                "queue = ? AND status = 'ready' ORDER BY priority DESC, seq LIMIT ?", queue, min(limit, _MOST)
            )
        )

    def walk(self, queue: str, status: str, *, by_seq: bool, behind: int = 0) -> Iterator[Row]:
        if not by_seq:
            return self._whole_rows("queue = ? AND status = ? ORDER BY priority DESC, seq", queue, status)
        return self._by_seq(queue, status, behind)

    def _by_seq(self, queue: str, status: str, behind: int) -> Iterator[Row]:
        condition = "queue = ? AND status = ? AND seq > ? ORDER BY seq LIMIT ?"
        while True:
            # Some at a time, for a server sends all that it is asked for.
            found = list(self._whole_rows(condition, queue, status, behind, _SOME))
            yield from found
            if len(found) < _SOME:
                return
            behind = found[-1].seq

    def make_due(self, queue: str, now: int) -> int:
        found = self._execute(
            "UPDATE duraq_entries SET status = 'ready'"
            " WHERE queue = ? AND status = 'scheduled' AND ready_at <= ? RETURNING 1",
            (queue, now),
        )
        return sum(1 for _ in found)

    def next_due(self, queue: str) -> int | None:
        (found,) = self._one(
            "SELECT min(ready_at) FROM duraq_entries WHERE queue = ? AND status = 'scheduled'", queue
        )
        return None if found is None else int(found)

    def due(self, queue: str, after: int, until: int | None) -> Iterator[Row]:
        """See ReadableRows."""
        return self._rows(
            "queue = ? AND status = 'scheduled' AND ready_at > ? AND ready_at <= ? ORDER BY ready_at",
            *(queue, after, _MOST if until is None else until),
        )

    def expired(self, queue: str, now: int, limit: int) -> list[Row]:
        return list(self._rows(f"{_OVER} ORDER BY expires_at, seq LIMIT ?", queue, now, min(limit, _MOST)))

    def count_expired(self, queue: str, now: int) -> tuple[int, int]:
        found = dict(
            self._execute(
                f"SELECT status, count(*) FROM duraq_entries WHERE {_OVER} GROUP BY status",  # noqa: S608
                (queue, now),
            )
        )
        return found.get("scheduled", 0), found.get("ready", 0)
