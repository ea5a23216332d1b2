"""A storage of one's own: rows in dictionaries, in one process. STORAGES.md says what each part is for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from duraq.clock import Clock, SystemClock
from duraq.storage.bells import BellPlace, BellStorage
from duraq.storage.rows import Head, Row
from duraq.storage.table import TableStorage

WORKER = "1-00000000"  # <pid>-<eight hexadecimal digits>


class DictRows:
    """The rows. A database would have a table, and indexes for what is searched and ordered here."""

    def __init__(self) -> None:
        self.heads: dict[str, Head] = {}
        self.rows: dict[tuple[str, str], Row] = {}

    def names(self) -> list[str]:
        return list(self.heads)

    def head(self, queue: str) -> Head | None:
        # A copy: what is changed is saved when the turn ends well.
        return replace(self.heads[queue]) if queue in self.heads else None

    def save_head(self, queue: str, head: Head) -> None:
        self.heads[queue] = replace(head)

    def put(self, queue: str, row: Row) -> None:
        payload = self.payload(queue, row.id) if row.payload is None else row.payload
        self.rows[queue, row.id] = replace(row, payload=payload)

    def delete(self, queue: str, entry_id: str) -> int:
        row = self.rows.pop((queue, entry_id), None)
        return 0 if row is None else len(row.payload or b"")

    def find(self, queue: str, entry_id: str) -> Row | None:
        return self.rows.get((queue, entry_id))

    def some(self, queue: str, entry_ids: list[str]) -> list[Row]:
        return [self.rows[queue, entry_id] for entry_id in entry_ids if (queue, entry_id) in self.rows]

    def payload(self, queue: str, entry_id: str) -> bytes:
        return self.rows[queue, entry_id].payload or b""

    def _all(self, queue: str, *statuses: str) -> list[Row]:
        return [row for (name, _), row in self.rows.items() if name == queue and row.status in statuses]

    def leased(self, queue: str) -> list[Row]:
        return self._all(queue, "leased")

    def walk(self, queue: str, status: str, *, by_seq: bool, behind: int = 0) -> Iterator[Row]:
        found = [row for row in self._all(queue, status) if row.seq > behind]
        return iter(sorted(found, key=lambda row: (0 if by_seq else -row.priority, row.seq)))

    def ready(self, queue: str, limit: int) -> list[Row]:
        return list(self.walk(queue, "ready", by_seq=False))[:limit]

    def make_due(self, queue: str, now: int) -> int:
        due = [row for row in self._all(queue, "scheduled") if (row.ready_at or 0) <= now]
        for row in due:
            self.put(queue, replace(row, status="ready"))
        return len(due)

    def next_due(self, queue: str) -> int | None:
        return min((row.ready_at or 0 for row in self._all(queue, "scheduled")), default=None)

    def expired(self, queue: str, now: int, limit: int) -> list[Row]:
        found = self._all(queue, "scheduled", "ready")
        return [row for row in found if row.expires_at is not None and row.expires_at <= now][:limit]

    def count_expired(self, queue: str, now: int) -> tuple[int, int]:
        found = [row.status for row in self.expired(queue, now, len(self.rows))]
        return found.count("scheduled"), found.count("ready")


class DictStorage(BellStorage, TableStorage):
    """What is left is how a turn begins and ends, who lives, and who waits."""

    _rows: DictRows

    def __init__(
        self,
        *,
        lock_duration: timedelta = timedelta(minutes=5),
        max_payload_bytes: int = 1 << 20,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock or SystemClock(), lock_duration, max_payload_bytes)
        self._rows = DictRows()
        self._before = (self._rows.heads, self._rows.rows)
        self._places: set[BellPlace] = set()
        self._bells = threading.Lock()

    # A turn: others of this process are kept out already. A database begins its transaction, for the others.

    def _begin(self, *, lasting: bool) -> None:  # noqa: ARG002 - nothing here lasts
        self._before = (dict(self._rows.heads), dict(self._rows.rows))

    def _commit_rows(self) -> None:
        self._before = (self._rows.heads, self._rows.rows)

    def _roll_back_rows(self) -> None:
        self._rows.heads, self._rows.rows = self._before

    def _in_our_words(self, error: BaseException, *, committing: bool) -> BaseException | None:  # noqa: ARG002
        return None  # a dictionary refuses nothing

    # Who lives: there is but one worker, this process.

    @property
    def _name(self) -> str:
        return "dictionaries"

    def _worker(self) -> str:
        self._check_usable()
        return WORKER

    def _known_worker(self) -> str | None:
        return WORKER

    def _is_alive(self, worker: str) -> bool:
        return worker == WORKER

    # Who waits: BellStorage wakes those of this process.

    @property
    def _someone_waits(self) -> bool:
        return True

    def _notify(self, queue: str, count: int) -> None:  # noqa: ARG002 - all look, and see who gets one
        self._ring(queue)

    def _count_waiting(self, queue: str) -> int:
        return self._count_places(queue)

    def _bytes_on_disk(self, queue: str) -> int:  # noqa: ARG002
        return 0

    def close(self) -> None:
        """Whoever waits is told."""
        self._closed = True
        self._ring()
