"""An entry as JSON: in a keep record, in a checkpoint, in an index if it is no longer as its record says."""

from __future__ import annotations

from typing import Any

from duraq.clock import from_datetime, to_datetime
from duraq.entry import DEAD, LEASED, READY, Entry
from duraq.journal.times import microseconds, rfc3339
from duraq.model import Attempt, AttemptError, Cause
from duraq.operations import Enqueue

Snapshot = dict[str, Any]


def of(entry: Entry) -> Snapshot:
    """The entry as JSON values, without its id and its payload.

    Of one that waits it does not say whether its time has come: that depends on who asks.
    """
    found: Snapshot = {
        "order": entry.seq,
        "priority": entry.priority,
        "created_at": rfc3339(entry.created_at),
    }
    if entry.ready_at is not None:
        found["ready_at"] = rfc3339(entry.ready_at)
    if entry.expires_at is not None:
        found["expires_at"] = rfc3339(entry.expires_at)
    if not entry.token:
        return found
    found["updated_at"] = rfc3339(entry.updated_at)
    found["token"] = entry.token
    found["attempts"] = entry.attempts
    if entry.status is DEAD:
        found["dead"] = True
    if entry.status is LEASED:
        found["lease"] = {
            "worker": entry.worker,
            "leased_at": rfc3339(entry.leased_at),
            "deadline_at": rfc3339(entry.deadline_at),
            "deadline": entry.deadline,
            "boot": entry.boot,
        }
    if entry.history:
        found["history"] = [_attempt(attempt) for attempt in entry.history]
    return found


def restore(entry_id: str, found: Snapshot, where: Any = None, position: int = 0) -> Entry:
    """The entry again; one that waits is ready. The rest is for the one who keeps it.

    Raises KeyError, TypeError or ValueError if it is not what ``of`` made.
    """
    ready_at, expires_at = found.get("ready_at"), found.get("expires_at")
    operation = Enqueue(
        entry_id,
        b"",
        found["priority"],
        None if ready_at is None else microseconds(ready_at),
        None if expires_at is None else microseconds(expires_at),
    )
    entry = Entry(operation, found["order"], microseconds(found["created_at"]), where, position)
    if "token" not in found:
        return entry
    entry.updated_at = microseconds(found["updated_at"])
    entry.token, entry.attempts = found["token"], found["attempts"]
    entry.status = DEAD if found.get("dead") else READY
    entry.history = tuple(_restore_attempt(attempt) for attempt in found.get("history", ()))
    lease = found.get("lease")
    if lease is not None:
        entry.status = LEASED
        entry.worker, entry.boot, entry.deadline = lease["worker"], lease["boot"], lease["deadline"]
        entry.leased_at, entry.deadline_at = (
            microseconds(lease["leased_at"]),
            microseconds(lease["deadline_at"]),
        )
    return entry


def of_error(error: AttemptError) -> dict[str, str]:
    """An attempt's error as JSON values."""
    return {"type": error.type, "message": error.message, "traceback": error.traceback}


def restore_error(found: dict[str, str]) -> AttemptError:
    """It again."""
    return AttemptError(found["type"], found["message"], found["traceback"])


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.number,
        "cause": attempt.cause.value,
        "worker": attempt.worker,
        "started_at": rfc3339(from_datetime(attempt.started_at)),
        "ended_at": rfc3339(from_datetime(attempt.ended_at)),
        "error": of_error(attempt.error),
    }


def _restore_attempt(found: dict[str, Any]) -> Attempt:
    return Attempt(
        found["attempt"],
        Cause(found["cause"]),
        restore_error(found["error"]),
        found["worker"],
        to_datetime(microseconds(found["started_at"])),
        to_datetime(microseconds(found["ended_at"])),
    )
