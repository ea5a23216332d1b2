"""What an Inspector shows: queues, entries, leases and records as they were when it looked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from duraq.clock import to_datetime
from duraq.entry import Entry
from duraq.errors import StorageError
from duraq.model import Attempt, Counts, EntryStatus, Pause, pid_of


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies; ``file`` is relative to the storage, ``line`` counts from 1, ``byte`` from 0."""

    file: str
    line: int
    byte: int
    length: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.byte}"


@dataclass(frozen=True, slots=True)
class RecordView:
    """One record: what was decided, when, and where it stands. ``text`` is its line, newline included."""

    queue: str
    op: str
    seq: int
    at: datetime
    id: str | None
    place: Place
    text: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """The record as JSON has it, payload included."""
        fields: dict[str, Any] = orjson.loads(self.text)
        return fields


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A lease. ``worker`` is empty if it belongs to no process.

    ``alive``: whether the worker lives; None if there is none, or if this reader may not know.
    ``late``: past its deadline, and nobody has ended it yet.
    """

    queue: str
    id: str
    token: int
    attempt: int
    worker: str
    alive: bool | None
    late: bool
    leased_at: datetime
    deadline_at: datetime

    @property
    def pid(self) -> int | None:
        """The worker's process, as it said when it began; it may be long gone."""
        return pid_of(self.worker)


def held_by(worker: str, alive: bool | None) -> str:
    """Who holds an entry, and what comes of it if that one is dead."""
    if not worker:
        return "no process"
    return worker + (", which is dead: whoever works the queue next takes it" if alive is False else "")


@dataclass(frozen=True, slots=True)
class WorkerView:
    """An open storage of some process that has leased something, as it described itself when it began.

    ``alive``: None if this reader may not know. What it said is None or empty where it could not be read.
    """

    id: str
    alive: bool | None
    opened_at: datetime | None = None
    host: str = ""
    argv: tuple[str, ...] = ()
    unit: str | None = None
    boot_id: str = ""
    start_time: int | None = None  # of its process, in clock ticks since boot
    holds: Mapping[str, int] = field(default_factory=dict)  # leases by queue

    @property
    def pid(self) -> int | None:
        """Its process; it may be long gone, and another may have that number."""
        return pid_of(self.id)


@dataclass(frozen=True, slots=True)
class EntryView:
    """An entry. One that is over is shown with its last state, as long as its records are there."""

    queue: str
    id: str
    status: EntryStatus
    priority: int
    payload: bytes
    created_at: datetime
    updated_at: datetime
    ready_at: datetime | None
    expires_at: datetime | None
    attempts: int
    token: int
    worker: str
    leased_at: datetime | None
    deadline_at: datetime | None
    history: tuple[Attempt, ...]
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    redriven: int = 0

    @property
    def ready_since(self) -> datetime:
        """Since when it could have been leased, if it is ready."""
        return self.updated_at if self.ready_at is None else max(self.updated_at, self.ready_at)


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue: how much it holds, who works on it, and what is wrong with it.

    With a ``problem`` (damage, or no permission) the rest is what could be read before it.
    """

    name: str
    counts: Counts
    pause: Pause | None = None
    oldest_ready: datetime | None = None
    leases: tuple[LeaseView, ...] = ()
    waiting: int = 0  # consumers that block on it; in PostgreSQL that is not known
    problem: StorageError | None = None


def entry_view(queue: str, entry: Entry, payload: bytes) -> EntryView:
    """The view of an entry as the fold has it."""
    leased = entry.status is EntryStatus.LEASED
    return EntryView(
        queue=queue,
        id=entry.id,
        status=entry.status,
        priority=entry.priority,
        payload=payload,
        created_at=to_datetime(entry.created_at),
        updated_at=to_datetime(entry.updated_at),
        ready_at=None if entry.ready_at is None else to_datetime(entry.ready_at),
        expires_at=None if entry.expires_at is None else to_datetime(entry.expires_at),
        attempts=entry.attempts,
        token=entry.token,
        worker=entry.worker if leased else "",
        leased_at=to_datetime(entry.leased_at) if leased else None,
        deadline_at=to_datetime(entry.deadline_at) if leased else None,
        history=entry.history,
        key=entry.key,
        headers={**(entry.headers or {})},
        redriven=entry.redriven,
    )
