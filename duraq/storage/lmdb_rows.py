"""Rows in LMDB: what a key leads to is a row as JSON, and an order's keys lead to ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lmdb
import orjson

from duraq.storage.rows import Head, Row

_VERSION_KEY = b"\0version"
DATABASES = ("duraq-queues", "duraq-entries", "duraq-payloads", "duraq-order")


def _key(queue: str, kind: bytes, *numbers: int) -> bytes:
    # In the order of the numbers, those below zero first.
    return b"%s\0%s%s" % (queue.encode(), kind, b"".join((n + (1 << 63)).to_bytes(8, "big") for n in numbers))


_READY, _READY_BY_SEQ, _SCHEDULED, _DUE, _DEAD, _LEASED, _EXPIRING = b"r", b"a", b"s", b"t", b"d", b"l", b"x"
_BY_SEQ = {"ready": _READY_BY_SEQ, "scheduled": _SCHEDULED, "dead": _DEAD, "leased": _LEASED}


def _places(queue: str, row: Row) -> list[bytes]:
    """Where the row stands in the orders that are asked for."""
    found = [_key(queue, _BY_SEQ[row.status], row.seq)]
    if row.status == "ready":
        found.append(_key(queue, _READY, -row.priority, row.seq))
    if row.status == "scheduled":
        found.append(_key(queue, _DUE, row.ready_at or 0, row.seq))
    if row.status in {"ready", "scheduled"} and row.expires_at is not None:
        found.append(_key(queue, _EXPIRING, row.expires_at, row.seq))
    return found


class LMDBRows:
    """See Rows: in the last of these transactions, which is the innermost."""

    def __init__(
        self, transactions: list[lmdb.Transaction], queues: Any, entries: Any, payloads: Any, order: Any
    ) -> None:
        self._transactions = transactions
        self._queues, self._entries, self._payloads, self._order = queues, entries, payloads, order

    @property
    def _txn(self) -> lmdb.Transaction:
        return self._transactions[-1]

    def version(self) -> int | None:
        found = self._txn.get(_VERSION_KEY, db=self._queues)
        return None if found is None else int(found)

    def set_version(self, version: int) -> None:
        self._txn.put(_VERSION_KEY, b"%d" % version, db=self._queues)

    # -- heads -----------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        with self._txn.cursor(db=self._queues) as cursor:
            return [bytes(key).decode() for key in cursor.iternext(values=False) if key != _VERSION_KEY]

    def head(self, queue: str) -> Head | None:
        found = self._txn.get(queue.encode(), db=self._queues)
        return None if found is None else Head(*orjson.loads(found))

    def save_head(self, queue: str, head: Head) -> None:
        values = [getattr(head, name) for name in Head.__slots__]
        self._txn.put(queue.encode(), orjson.dumps(values), db=self._queues)

    # -- entries ---------------------------------------------------------------------------------------

    def put(self, queue: str, row: Row) -> None:
        key = _name(queue, row.id)
        self._leave(queue, row.id)
        values = [row.seq, row.status, row.priority, row.ready_at, row.expires_at, row.about]
        self._txn.put(key, orjson.dumps(values), db=self._entries)
        for place in _places(queue, row):
            self._txn.put(place, row.id.encode(), db=self._order)
        if row.payload is not None:
            self._txn.put(key, row.payload, db=self._payloads)

    def delete(self, queue: str, entry_id: str) -> int:
        key = _name(queue, entry_id)
        if not self._leave(queue, entry_id):
            return 0
        self._txn.delete(key, db=self._entries)
        payload = self._txn.pop(key, db=self._payloads)
        return 0 if payload is None else len(payload)

    def _leave(self, queue: str, entry_id: str) -> bool:
        """The row no longer stands anywhere; whether there is one."""
        row = self.find(queue, entry_id)
        if row is None:
            return False
        for place in _places(queue, row):
            self._txn.delete(place, db=self._order)
        return True

    def find(self, queue: str, entry_id: str) -> Row | None:
        found = self._txn.get(_name(queue, entry_id), db=self._entries)
        return None if found is None else Row(*(entry_id, *orjson.loads(found), None))

    def some(self, queue: str, entry_ids: list[str]) -> list[Row]:
        found = [self.find(queue, entry_id) for entry_id in entry_ids]
        return [self._with_payload(queue, row) for row in found if row is not None]

    def payload(self, queue: str, entry_id: str) -> bytes:
        return bytes(self._txn.get(_name(queue, entry_id), b"", db=self._payloads))

    def _scan(
        self, queue: str, kind: bytes, until: int | None = None, behind: int | None = None
    ) -> Iterator[Row]:
        """The rows that stand in that order, from behind the one number up to the other."""
        start = _key(queue, kind)
        first = start if behind is None else _key(queue, kind, behind + 1)
        end = None if until is None else _key(queue, kind, until + 1)
        with self._txn.cursor(db=self._order) as cursor:
            if not cursor.set_range(first):
                return
            for found, entry_id in cursor:
                key = bytes(found)
                if not key.startswith(start) or (end is not None and key >= end):
                    return
                row = self.find(queue, bytes(entry_id).decode())
                assert row is not None
                yield row

    def _with_payload(self, queue: str, row: Row) -> Row:
        row.payload = self.payload(queue, row.id)
        return row

    def leased(self, queue: str) -> list[Row]:
        return list(self._scan(queue, _LEASED))

    def ready(self, queue: str, limit: int) -> list[Row]:
        found = zip(range(limit), self._scan(queue, _READY), strict=False)
        return [self._with_payload(queue, row) for _, row in found]

    def walk(self, queue: str, status: str, *, by_seq: bool, behind: int = 0) -> Iterator[Row]:
        rows = self._scan(queue, _BY_SEQ[status], behind=behind) if by_seq else self._scan(queue, _READY)
        return (self._with_payload(queue, row) for row in rows)

    def make_due(self, queue: str, now: int) -> int:
        found = list(self._scan(queue, _DUE, now))
        for row in found:
            self._leave(queue, row.id)
            row.status = "ready"
            self.put(queue, row)
        return len(found)

    def next_due(self, queue: str) -> int | None:
        row = next(self._scan(queue, _DUE), None)
        return None if row is None else row.ready_at

    def due(self, queue: str, after: int, until: int | None) -> Iterator[Row]:
        """See ReadableRows."""
        return self._scan(queue, _DUE, until, after)

    def expired(self, queue: str, now: int, limit: int) -> list[Row]:
        return [row for _, row in zip(range(limit), self._scan(queue, _EXPIRING, now), strict=False)]

    def count_expired(self, queue: str, now: int) -> tuple[int, int]:
        found = [row.status for row in self._scan(queue, _EXPIRING, now)]
        return found.count("scheduled"), found.count("ready")


def _name(queue: str, entry_id: str) -> bytes:
    return f"{queue}\0{entry_id}".encode()
