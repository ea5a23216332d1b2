"""stats, ls, peek, show, tail: looking. Nothing here takes a lock or writes a byte."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from duraq.cli.failing import Code, CommandError
from duraq.cli.options import Settings, common, settings
from duraq.cli.output import show_one, show_rows, span, when
from duraq.inspector import Inspector
from duraq.model import EntryStatus
from duraq.safe_text import ascii_json, safe_lines, safe_text
from duraq.views import EntryView, QueueView, RecordView

QUEUE_COLUMNS = ("queue", "status", "ready", "scheduled", "leased", "dead", "oldest_ready", "workers", "why")
ENTRY_COLUMNS = (
    "id",
    "status",
    "attempts",
    "priority",
    "created_at",
    "ready_at",
    "error",
    "payload",
    "queue",
)
RECORD_COLUMNS = ("at", "queue", "op", "id", "what", "place")
# Ready for longer than this with nobody there: no consumer, and not just one that is between two entries.
PATIENCE = timedelta(seconds=10)
STATES = [
    state.value for state in (EntryStatus.SCHEDULED, EntryStatus.READY, EntryStatus.LEASED, EntryStatus.DEAD)
]


@contextmanager
def inspecting(said: Settings) -> Iterator[Inspector]:
    """An inspector of the storage that the settings name."""
    with Inspector(said.storage()) as inspector:
        yield inspector


# -- queues ------------------------------------------------------------------------------------------------


@click.command()
@click.argument("queues", nargs=-1)
@common
def stats(queues: tuple[str, ...]) -> int:
    """One line for each queue, those that need attention first."""
    said = settings()
    with inspecting(said) as inspector:
        rows = [_queue_row(inspector.overview(name)) for name in queues or inspector.queues()]
    rows.sort(key=lambda row: (row["rank"], row["queue"]))
    for row in rows:
        del row["rank"]
    show_rows(said, "duraq.stats/1", QUEUE_COLUMNS, rows)
    return Code.DAMAGED if any(row["status"] == "DAMAGED" for row in rows) else Code.DONE


def _queue_row(view: QueueView) -> dict[str, Any]:
    rank, status, why = _status(view, datetime.now(UTC))
    workers = {lease.worker for lease in view.leases if lease.alive}
    return {
        "rank": rank,
        "queue": view.name,
        "status": status,
        "why": why,
        "ready": view.counts.ready,
        "scheduled": view.counts.scheduled,
        "leased": view.counts.leased,
        "dead": view.counts.dead,
        "oldest_ready": view.oldest_ready,
        "workers": len(workers) + view.waiting,
    }


def _status(view: QueueView, now: datetime) -> tuple[int, str, str]:
    """(rank, word, why): the worst that is true of the queue."""
    late = [lease for lease in view.leases if lease.late]
    waited = timedelta(0) if view.oldest_ready is None else now - view.oldest_ready
    if view.problem is not None:
        return 0, "DAMAGED", str(view.problem)
    if late:
        return 1, "STUCK", f"{len(late)} leased past the deadline, by {late[0].worker or 'no process'}"
    if view.pause is not None:
        return 2, "PAUSED", f"by {view.pause.who}: {view.pause.reason or 'no reason given'}"
    if view.counts.ready and waited > PATIENCE and not view.leases and not view.waiting:
        return 3, "NO CONSUMER", f"the oldest has been ready for {span(waited)}, and nobody is here"
    if view.counts.dead:
        return 4, "DEAD", f"{view.counts.dead} dead: duraq dlq ls {view.name}"
    return 5, "OK", ""


@click.command()
@click.argument("queue", required=False)
@click.option("--state", type=click.Choice(STATES), help="Only entries in that state.")
@click.option("-l", "--limit", type=click.IntRange(1), default=100, help="At most that many.")
@click.option("--offset", type=click.IntRange(0), default=0, help="After that many.")
@common
def ls(queue: str | None, state: str | None, limit: int, offset: int) -> None:
    """The queues, or the entries of QUEUE."""
    said = settings()
    with inspecting(said) as inspector:
        if queue is None:
            rows = [_queue_row(inspector.overview(name)) for name in inspector.queues()]
            show_rows(said, "duraq.queues/1", QUEUE_COLUMNS[:-1], rows)
            return
        status = None if state is None else EntryStatus(state)
        found = inspector.entries(queue, status, limit=limit, offset=offset)
        show_rows(said, "duraq.entries/1", ENTRY_COLUMNS, map(entry_row, found))


@click.command()
@click.argument("queue")
@click.option("-n", "count", type=click.IntRange(1), default=1, help="How many.")
@common
def peek(queue: str, count: int) -> None:
    """The entries of QUEUE that are delivered next; leases nothing."""
    said = settings()
    with inspecting(said) as inspector:
        found = inspector.entries(queue, EntryStatus.READY, limit=count)
        show_rows(said, "duraq.entries/1", ENTRY_COLUMNS, map(entry_row, found))


def entry_row(view: EntryView) -> dict[str, Any]:
    """An entry as a row; its history only as JSON shows it."""
    last = view.history[-1] if view.history else None
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
        "worker": view.worker or None,
        "deadline_at": view.deadline_at,
        "error": None if last is None else f"{last.error.type}: {last.error.message}",
        "payload": view.payload,
        "errors": [
            {
                "attempt": attempt.number,
                "cause": attempt.cause.value,
                "type": attempt.error.type,
                "message": attempt.error.message,
                "traceback": attempt.error.traceback,
                "worker": attempt.worker,
                "started_at": attempt.started_at,
                "ended_at": attempt.ended_at,
            }
            for attempt in view.history
        ],
    }


# -- one entry ---------------------------------------------------------------------------------------------


@click.command()
@click.argument("ids", nargs=-1, required=True)
@click.option("--queue", help="If several queues have an entry of this id.")
@click.option("--raw", is_flag=True, help="Only the payload's bytes.")
@click.option("--where-is", is_flag=True, help="Only file:line:byte of each of its records.")
@common
def show(ids: tuple[str, ...], queue: str | None, raw: bool, where_is: bool) -> None:
    """One entry or several: payload, attempts, life."""
    said = settings()
    with inspecting(said) as inspector:
        for entry_id in ids:
            view = inspector.get(entry_id, queue)
            if raw:
                _raw(said, view)
            elif where_is:
                for place in inspector.where_is(entry_id, view.queue):
                    click.echo(str(place))
            else:
                life = inspector.life(entry_id, view.queue)
                fields = {**entry_row(view), "life": [record_row(each) for each in life]}
                show_one(said, "duraq.entry/1", fields, describe(said, view, life))


def _raw(said: Settings, view: EntryView) -> None:
    if sys.stdout.isatty() and said.color != "always":
        # A payload can hold anything, and JSON escapes no C1 control.
        click.echo(ascii_json_bytes(view.payload))
    else:
        click.echo(view.payload)


def ascii_json_bytes(payload: bytes) -> str:
    """The payload as JSON that is safe on a terminal."""
    import orjson  # noqa: PLC0415 - only here

    return ascii_json(orjson.loads(payload))


def describe(said: Settings, view: EntryView, life: list[RecordView]) -> str:
    """An entry for people."""
    lines = [f"{view.id}  {view.status}  in {view.queue}, attempt {view.attempts}, priority {view.priority}"]
    lines.append(f"  enqueued  {when(said, view.created_at)}")
    if view.status is EntryStatus.SCHEDULED and view.ready_at is not None:
        lines.append(f"  ready     {when(said, view.ready_at)}")
    if view.expires_at is not None:
        lines.append(f"  expires   {when(said, view.expires_at)}")
    if view.worker:
        lines.append(f"  leased    by {view.worker}")
    lines.append(f"  payload   {safe_text(view.payload.decode('utf-8', 'backslashreplace'), 2000)}")
    for attempt in reversed(view.history):
        error = safe_text(f"{attempt.error.type}: {attempt.error.message}", 400)
        lines.append(f"  attempt {attempt.number}  {attempt.cause}  {when(said, attempt.ended_at)}  {error}")
        if attempt.error.traceback:
            lines += [
                f"    {line}" for line in safe_lines(attempt.error.traceback, 8000).rstrip().split("\n")
            ]
    lines.append("  on disk")
    lines += [f"    {record.op:<9} {when(said, record.at):<12}  {record.place}" for record in life]
    return "\n".join(lines)


# -- records -----------------------------------------------------------------------------------------------


@click.command()
@click.argument("queues", nargs=-1)
@click.option("-n", "count", type=click.IntRange(0), default=10, help="So many of the newest.")
@click.option("-f", "--follow", is_flag=True, help="Go on as records are written.")
@common
def tail(queues: tuple[str, ...], count: int, follow: bool) -> None:
    """The newest records of QUEUES, or of all."""
    said = settings()
    if follow and said.output == "json":
        raise CommandError(Code.USAGE, "what never ends is no single JSON value; use --jsonl")
    with inspecting(said) as inspector:
        for name in queues:
            inspector.overview(name)  # says so if there is no such queue
        if not follow:
            rows = map(record_row, inspector.records(queues or None, last=count))
            show_rows(said, "duraq.records/1", RECORD_COLUMNS, rows)
            return
        style = Settings(output=said.output or "tsv", header=False, fields=said.fields, time=said.time)
        for record in inspector.follow(queues or None, last=count):
            show_rows(style, "duraq.records/1", RECORD_COLUMNS, [record_row(record)])
            sys.stdout.flush()


def record_row(view: RecordView) -> dict[str, Any]:
    """A record as a row."""
    fields = view.fields
    hidden = {"op", "seq", "at", "id", "data", "crc", "error", "boot", "deadline"}
    what = " ".join(f"{key}={value}" for key, value in fields.items() if key not in hidden)
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
        "record": fields,
    }
