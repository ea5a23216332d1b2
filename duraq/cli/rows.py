"""Entries and records as rows, and an entry in full as text."""

from __future__ import annotations

from typing import Any

import orjson

from duraq.cli.options import Settings
from duraq.cli.output import when
from duraq.journal import record
from duraq.model import Attempt, EntryStatus, last_failure
from duraq.safe_text import ascii_json, safe_lines, safe_text
from duraq.views import EntryView, RecordView, held_by

ENTRY_COLUMNS = ("id", "status", "attempts", "created_at", "error", "payload")
DEAD_COLUMNS = ("id", "queue", "attempts", "updated_at", "error", "payload")
ENTRY_MORE = (
    "queue",
    "status",
    "priority",
    "created_at",
    "updated_at",
    "ready_at",
    "expires_at",
    "type",
    "sig",
    "key",
    "headers",
    "redriven",
    "worker",
    "token",
    "deadline_at",
    "errors",
)
# What a record's line says elsewhere in its row, or what is of no use to a person.
_HIDDEN = {"op", "seq", "at", "id", "data", "crc", "error", "boot", "deadline", "entry"}


def entry_row(view: EntryView) -> dict[str, Any]:
    """An entry as a row; its history only as JSON shows it."""
    last = last_failure(view.history)
    return {
        "id": view.id,
        "queue": view.queue,
        "status": view.status.value,
        "priority": view.priority,
        "attempts": view.attempts,
        "created_at": view.created_at,
        "updated_at": view.updated_at,
        "ready_at": view.ready_at,
        "expires_at": view.expires_at,
        "key": view.key,
        "headers": dict(view.headers),
        "redriven": view.redriven,
        "token": f"{view.queue}/{view.id}/{view.token}" if view.status is EntryStatus.LEASED else None,
        "worker": view.worker or None,
        "deadline_at": view.deadline_at,
        "error": None if last is None else f"{last.error.type}: {last.error.message}",
        "type": None if last is None else last.error.type,
        "sig": None if last is None else last.error.signature or None,
        "payload": view.payload,
        "errors": [_attempt_row(attempt) for attempt in view.history],
    }


def _attempt_row(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.number,
        "cause": attempt.cause.value,
        "type": attempt.error.type,
        "message": attempt.error.message,
        "traceback": attempt.error.traceback,
        "frame": attempt.error.frame or None,
        "signature": attempt.error.signature or None,
        "host": attempt.error.host or None,
        "pid": attempt.pid,
        "worker": attempt.worker or None,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
    }


def describe(said: Settings, view: EntryView, life: list[RecordView], alive: bool | None) -> str:
    """An entry for people, newest attempt first; ``alive``: whether its holder, if it has one, lives."""
    entry_id, queue = safe_text(view.id), view.queue
    lines = [f"{entry_id}  {view.status}  in {queue}, attempt {view.attempts}, priority {view.priority}"]
    lines.append(f"  enqueued  {when(said, view.created_at)}")
    if view.status is EntryStatus.SCHEDULED and view.ready_at is not None:
        lines.append(f"  ready     {when(said, view.ready_at)}")
    if view.redriven:
        times = "once" if view.redriven == 1 else f"{view.redriven} times"
        lines.append(f"  put back  {times} from the dead letters")
    if view.key is not None:
        lines.append(f"  key       {safe_text(view.key, 256)}")
    for name, text in view.headers.items():
        lines.append(f"  header    {safe_text(name)}: {safe_text(text, 200)}")
    if view.expires_at is not None:
        lines.append(f"  expires   {when(said, view.expires_at)}")
    if view.status is EntryStatus.LEASED and view.deadline_at is not None:
        holder = held_by(safe_text(view.worker, 60), alive)
        lines.append(f"  leased    until {when(said, view.deadline_at)}, by {holder}")
    lines.append(f"  payload   {safe_text(view.payload.decode('utf-8', 'backslashreplace'), 2000)}")
    for attempt in reversed(view.history):
        error = safe_text(f"{attempt.error.type}: {attempt.error.message}", 400)
        lines.append(f"  attempt {attempt.number}  {attempt.cause}  {when(said, attempt.ended_at)}  {error}")
        if attempt.error.frame:
            where = f"{attempt.error.frame}  (signature {attempt.error.signature})"
            lines.append(f"    at {safe_text(where, 600)}")
        if attempt.error.traceback:
            trace = safe_lines(attempt.error.traceback, 20_000).rstrip()
            lines += [f"    {line}" for line in trace.split("\n")]
    lines += ["  on disk"] if life else []
    lines += [f"    {safe_text(record.op):<9} {when(said, record.at):<12}  {record.place}" for record in life]
    return "\n".join(lines)


def record_row(view: RecordView) -> dict[str, Any]:
    """A record as a row."""
    fields = view.fields
    what = " ".join(f"{key}={value}" for key, value in fields.items() if key not in _HIDDEN)
    if "data" in fields:
        # As it is stored: somebody may have nested it deeper than it could be written again.
        what += f" {ascii_json(orjson.Fragment(record.payload(view.text)))}"
    if "error" in fields:
        what += f" {fields['error']['type']}: {fields['error']['message']}"
    return {
        "at": view.at,
        "queue": view.queue,
        "op": view.op,
        "seq": view.seq,
        "id": view.id,
        "what": what,
        "place": str(view.place),
        "record": view.text.rstrip(b"\n"),
    }
