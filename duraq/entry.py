"""What the fold keeps of one live or dead entry."""

from __future__ import annotations

from typing import Any, Protocol

from duraq.model import Attempt, EntryStatus

SCHEDULED, READY, LEASED, DEAD = (
    EntryStatus.SCHEDULED,
    EntryStatus.READY,
    EntryStatus.LEASED,
    EntryStatus.DEAD,
)


class New(Protocol):
    """What is said of an entry when it is enqueued."""

    id: str
    priority: int
    ready_at: int | None
    expires_at: int | None
    key: str | None
    headers: dict[str, str] | None


class Entry:
    """A live or dead entry. ``where`` is the storage's own note of where its payload is."""

    __slots__ = (
        "attempts",
        "boot",
        "created_at",
        "deadline",
        "deadline_at",
        "expires_at",
        "headers",
        "history",
        "id",
        "key",
        "leased_at",
        "position",
        "priority",
        "queued",
        "ready_at",
        "redriven",
        "seq",
        "status",
        "token",
        "updated_at",
        "where",
        "worker",
    )

    def __init__(self, operation: New, seq: int, at: int, where: Any, position: int) -> None:
        self.id = operation.id
        self.seq = seq
        self.priority = operation.priority
        self.created_at = self.updated_at = at
        self.ready_at = operation.ready_at
        self.expires_at = operation.expires_at
        self.key = operation.key
        self.headers = operation.headers
        self.where = where
        # Up to where the journal must be synced before anybody may be given this entry.
        self.position = position
        self.status = READY
        self.attempts = self.token = 0
        self.worker = self.boot = ""
        self.deadline = self.deadline_at = self.leased_at = 0
        self.history: tuple[Attempt, ...] = ()
        self.redriven = 0  # how often it was put back from the dead letters
        # Whether an item of the ready heap stands for this entry; there is never more than one.
        self.queued = False

    @property
    def version(self) -> tuple[int, int, int]:
        """What is different once something has become of the entry, or once another one has its id."""
        return self.created_at, self.token, self.redriven

    @property
    def ready_since(self) -> int:
        """Since when it could have been leased, if it is ready."""
        ready_at, updated_at = self.ready_at, self.updated_at
        return updated_at if ready_at is None or ready_at < updated_at else ready_at

    def __lt__(self, other: Entry) -> bool:
        # Heap items of one entry can tie in all that stands before it.
        return self.seq < other.seq


def delivery_order(entry: Entry) -> tuple[int, int]:
    return (-entry.priority, entry.seq)


def enqueue_order(entry: Entry) -> int:
    return entry.seq
