"""An entry as JSON: what an index and a checkpoint keep of one that is no longer as it was enqueued."""

from __future__ import annotations

from typing import Any

from duraq.clock import from_datetime, to_datetime
from duraq.entry import Entry
from duraq.model import Attempt, AttemptError, Cause, EntryStatus
from duraq.operations import Enqueue

Snapshot = dict[str, Any]

_NUMBERS = (
    "seq",
    "priority",
    "created_at",
    "updated_at",
    "ready_at",
    "expires_at",
    "attempts",
    "token",
    "worker",
    "boot",
    "deadline",
    "deadline_at",
    "leased_at",
)


def of(entry: Entry) -> Snapshot:
    """The entry as JSON values."""
    return {
        "id": entry.id,
        "status": entry.status.value,
        "where": list(entry.where),
        **{name: getattr(entry, name) for name in _NUMBERS},
        "history": [_attempt(attempt) for attempt in entry.history],
    }


def restore(found: Snapshot, position: int) -> Entry:
    """The entry again; ``position`` is where the journal must be durable before it is handed out.

    Raises KeyError, TypeError or ValueError if it is not what ``of`` made.
    """
    entry = Entry(Enqueue(found["id"], b""), found["seq"], 0, tuple(found["where"]), position)
    for name in _NUMBERS:
        setattr(entry, name, found[name])
    entry.status = EntryStatus(found["status"])
    entry.history = tuple(_restore_attempt(attempt) for attempt in found["history"])
    return entry


def _attempt(attempt: Attempt) -> list[Any]:
    error = attempt.error
    return [
        attempt.number,
        attempt.cause.value,
        [error.type, error.message, error.traceback],
        attempt.worker,
        from_datetime(attempt.started_at),
        from_datetime(attempt.ended_at),
    ]


def _restore_attempt(found: list[Any]) -> Attempt:
    number, cause, error, worker, started, ended = found
    return Attempt(
        number, Cause(cause), AttemptError(*error), worker, to_datetime(started), to_datetime(ended)
    )
