"""Rows as they are at a moment, for somebody who may only read them.

Scheduled entries become ready by time alone, and in a database whoever takes a turn writes that down. Who
only reads cannot: here it is remembered up to when they are due, and they are shown as if it were written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from heapq import merge
from itertools import islice
from typing import NoReturn, Protocol

from duraq.storage.rows import Head, Row, Rows

_NEVER = -1


class ReadableRows(Rows, Protocol):
    """Rows that can also be asked for what is due."""

    def due(self, queue: str, after: int, until: int | None) -> Iterator[Row]:
        """Scheduled ones that are ready later than ``after``, up to ``until``, without their payloads.

        The next one first; None: whenever that is.
        """


class RowsAsOf:
    """See Rows. Nothing can be changed through these."""

    def __init__(self, rows: ReadableRows) -> None:
        self._rows = rows
        self._times: dict[str, int] = {}  # up to when what was scheduled is ready

    # -- time ------------------------------------------------------------------------------------------

    def make_due(self, queue: str, now: int) -> int:
        before, self._times[queue] = self._time(queue), now
        return sum(1 for _ in self._rows.due(queue, before, now))

    def next_due(self, queue: str) -> int | None:
        row = next(self._rows.due(queue, self._time(queue), None), None)
        return None if row is None else row.ready_at

    def _time(self, queue: str) -> int:
        return self._times.get(queue, _NEVER)

    def _is_due(self, queue: str, row: Row) -> bool:
        return row.status == "scheduled" and (row.ready_at or 0) <= self._time(queue)

    def _now(self, queue: str, row: Row) -> Row:
        """The row as it is by now."""
        return replace(row, status="ready") if self._is_due(queue, row) else row

    def _due_in_order(self, queue: str, *, by_seq: bool) -> Iterator[Row]:
        """Those that are ready by time alone. Of what may be many only the places are in memory."""
        found = self._rows.due(queue, _NEVER, self._time(queue)) if queue in self._times else iter(())
        places = sorted((0 if by_seq else -row.priority, row.seq, row.id) for row in found)
        for _, _, entry_id in places:
            row = self._rows.find(queue, entry_id)
            assert row is not None  # as of the same moment
            yield replace(row, status="ready", payload=self._rows.payload(queue, entry_id))

    # -- asking ----------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return self._rows.names()

    def head(self, queue: str) -> Head | None:
        return self._rows.head(queue)

    def find(self, queue: str, entry_id: str) -> Row | None:
        row = self._rows.find(queue, entry_id)
        return None if row is None else self._now(queue, row)

    def some(self, queue: str, entry_ids: list[str]) -> list[Row]:
        return [self._now(queue, row) for row in self._rows.some(queue, entry_ids)]

    def payload(self, queue: str, entry_id: str) -> bytes:
        return self._rows.payload(queue, entry_id)

    def leased(self, queue: str) -> list[Row]:
        return self._rows.leased(queue)

    def ready(self, queue: str, limit: int) -> list[Row]:
        found: Iterable[Row] = self._rows.ready(queue, limit)
        due = self._due_in_order(queue, by_seq=False)
        return list(islice(merge(found, due, key=_delivery), limit))

    def walk(self, queue: str, status: str, *, by_seq: bool, behind: int = 0) -> Iterator[Row]:
        found = self._rows.walk(queue, status, by_seq=by_seq, behind=behind)
        if status == "scheduled":
            return (row for row in found if not self._is_due(queue, row))
        if status == "ready":
            due = (row for row in self._due_in_order(queue, by_seq=by_seq) if row.seq > behind)
            return merge(found, due, key=_number if by_seq else _delivery)
        return found

    def expired(self, queue: str, now: int, limit: int) -> list[Row]:
        return [self._now(queue, row) for row in self._rows.expired(queue, now, limit)]

    def count_expired(self, queue: str, now: int) -> tuple[int, int]:
        scheduled, ready = self._rows.count_expired(queue, now)
        if scheduled and queue in self._times:
            due = self._rows.due(queue, _NEVER, self._time(queue))
            over = sum(1 for row in due if row.expires_at is not None and row.expires_at <= now)
            scheduled, ready = scheduled - over, ready + over
        return scheduled, ready

    # -- changing --------------------------------------------------------------------------------------

    def put(self, queue: str, row: Row) -> NoReturn:
        raise NotImplementedError(f"queue {queue} is only read; {row.id}")

    def save_head(self, queue: str, head: Head) -> NoReturn:
        raise NotImplementedError(f"queue {queue} is only read; {head.seq}")

    def delete(self, queue: str, entry_id: str) -> NoReturn:
        raise NotImplementedError(f"queue {queue} is only read; {entry_id}")


def _delivery(row: Row) -> tuple[int, int]:
    return -row.priority, row.seq


def _number(row: Row) -> int:
    return row.seq
