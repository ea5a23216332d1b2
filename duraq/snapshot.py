"""An entry as JSON: in a keep record, in a checkpoint, in an index if it is no longer as its record says.

Also what an error is in JSON, and what its user says of an entry.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from duraq import values
from duraq.clock import from_datetime, to_datetime
from duraq.entry import DEAD, LEASED, READY, Entry
from duraq.model import Attempt, AttemptError, Cause
from duraq.operations import Enqueue
from duraq.times import microseconds, rfc3339

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
    if entry.key is not None:
        found["key"] = entry.key
    if entry.headers is not None:
        found["headers"] = of_headers(entry.headers)
    if not entry.token:
        return found
    return found | _lived(entry)


def _lived(entry: Entry) -> Snapshot:
    """What has become of it since it was first leased."""
    found: Snapshot = {
        "updated_at": rfc3339(entry.updated_at),
        "token": entry.token,
        "attempts": entry.attempts,
    }
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
    if entry.redriven:
        found["redriven"] = entry.redriven
    if entry.history:
        found["history"] = [_attempt(attempt) for attempt in entry.history]
    return found


def restore(entry_id: str, found: Snapshot, where: Any = None, position: int = 0) -> Entry:
    """The entry again; one that waits is ready. The rest is for the one who keeps it.

    Raises KeyError, TypeError or ValueError if it is not what ``of`` made.
    """
    ready_at, expires_at = found.get("ready_at"), found.get("expires_at")
    operation = Enqueue(
        values.entry_id(entry_id),
        b"",
        values.priority(found["priority"]),
        None if ready_at is None else microseconds(ready_at),
        None if expires_at is None else microseconds(expires_at),
        key=values.maybe_text(found.get("key")),
        headers=values.headers(found.get("headers")),
    )
    order = values.number(found["order"])
    entry = Entry(operation, order, microseconds(found["created_at"]), where, position)
    if "token" not in found:
        return entry
    entry.updated_at = microseconds(found["updated_at"])
    entry.token, entry.attempts = values.number(found["token"]), values.number(found["attempts"])
    if not entry.token:
        raise ValueError("nothing has become of an entry that no lease was given of")
    entry.redriven = values.number(found.get("redriven", 0))
    entry.status = DEAD if found.get("dead") else READY
    entry.history = tuple(_restore_attempt(attempt) for attempt in found.get("history", ()))
    lease = found.get("lease")
    if lease is not None:
        entry.status = LEASED
        entry.worker, entry.boot = values.worker(lease["worker"]), values.text(lease["boot"])
        entry.deadline = values.number(lease["deadline"])
        entry.leased_at, entry.deadline_at = (
            microseconds(lease["leased_at"]),
            microseconds(lease["deadline_at"]),
        )
    return entry


def of_error(error: AttemptError) -> dict[str, str]:
    """An attempt's error as JSON values."""
    found = {"type": error.type, "message": error.message, "traceback": error.traceback}
    more = (("frame", error.frame), ("signature", error.signature), ("host", error.host))
    return found | {name: text for name, text in more if text}


def restore_error(found: dict[str, str]) -> AttemptError:
    """It again. Raises KeyError or TypeError."""
    return _error(
        values.text(found["type"]),
        values.text(found["message"]),
        values.text(found["traceback"]),
        values.text(found.get("frame", "")),
        values.text(found.get("signature", "")),
        values.text(found.get("host", "")),
    )


# Those of a queue are alike, mostly, and each dead letter has several.
_error = lru_cache(64)(AttemptError)


def of_headers(headers: dict[str, str]) -> dict[str, str]:
    """An entry's headers as they are written.

    One of the name ``data`` comes first: then no record has a ``,"data":`` before the one of its payload.
    """
    return {"data": headers["data"], **headers} if "data" in headers else headers


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
        values.number(found["attempt"]),
        Cause(found["cause"]),
        restore_error(found["error"]),
        values.text(found["worker"]),  # of whatever storage it was
        to_datetime(microseconds(found["started_at"])),
        to_datetime(microseconds(found["ended_at"])),
    )
