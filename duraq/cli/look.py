"""stats, ls, peek, show, tail: looking. Nothing here takes a lock or writes a byte."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from duraq.attention import Attention, judge
from duraq.cli.failing import Code, CommandError
from duraq.cli.input import words
from duraq.cli.options import FILTER_HELP, Settings, common, filtered, settings
from duraq.cli.output import Stream, show_one, show_rows
from duraq.cli.reports import report
from duraq.cli.rows import ENTRY_COLUMNS, ENTRY_MORE, describe, entry_row, record_row
from duraq.errors import EntryNotFound, QueueError
from duraq.inspector import Inspector
from duraq.model import EntryStatus
from duraq.safe_text import ascii_json, safe_text
from duraq.views import EntryView

if TYPE_CHECKING:
    from duraq.where import Where

QUEUE_COLUMNS = ("status", "queue", "ready", "scheduled", "leased", "dead", "oldest_ready", "workers", "why")
QUEUES_ENTRY_COLUMNS = ("id", "queue", *ENTRY_COLUMNS[1:])  # of entries of several queues
RECORD_COLUMNS = ("at", "queue", "op", "id", "what", "place")
RECORD_WIDTHS = (8, 12, 8, 36, 40, 10)
STATES = [
    state.value for state in (EntryStatus.SCHEDULED, EntryStatus.READY, EntryStatus.LEASED, EntryStatus.DEAD)
]


def inspecting(said: Settings) -> Inspector:
    """An inspector of the storage that the settings name."""
    return Inspector(said.storage())


# -- queues ------------------------------------------------------------------------------------------------


@click.command()
@click.argument("queues", nargs=-1)
@common
def stats(queues: tuple[str, ...]) -> int:
    """One line for each queue, those that need attention first."""
    said = settings()
    now = datetime.now(UTC)
    with inspecting(said) as inspector:
        names = queues or inspector.queues()
        rows = [_queue_row(inspector, name, now) for name in names]
    rows.sort(
        key=lambda row: (list(Attention).index(row["status"]), row["oldest_ready"] or now, row["queue"])
    )
    if not rows and said.style == "table":
        said.say('No queues here yet. Make one:  duraq put emails \'{"to": "ann@example.org"}\'')
        return Code.DONE
    show_rows(said, "duraq.stats/1", QUEUE_COLUMNS, rows, more=("paused",), name="queue")
    words_met = {row["status"] for row in rows}
    if Attention.CORRUPT in words_met:
        return Code.DAMAGED
    return Code.NOT_PERMITTED if Attention.DENIED in words_met else Code.DONE


def _queue_row(inspector: Inspector, name: str, now: datetime) -> dict[str, Any]:
    view = inspector.overview(name)
    verdict = judge(view, now, metrics=None if view.problem else inspector.metrics(name))
    workers = {lease.worker for lease in view.leases if lease.alive}
    pause = view.pause
    return {
        "queue": view.name,
        "status": verdict.word.value,
        "role": verdict.word.role,
        "why": verdict.why or None,
        "ready": view.counts.ready,
        "scheduled": view.counts.scheduled,
        "leased": view.counts.leased,
        "dead": view.counts.dead,
        "oldest_ready": view.oldest_ready,
        "workers": len(workers) + view.waiting,
        "paused": None if pause is None else {"at": pause.at, "who": pause.who, "reason": pause.reason},
    }


@click.command(epilog=FILTER_HELP)
@click.argument("queue", required=False)
@click.option("--state", type=click.Choice(STATES), help="Only entries in that state.")
@filtered
@click.option("-l", "--limit", type=click.IntRange(1), help="At most that many.")
@click.option("--offset", type=click.IntRange(0), default=0, help="After that many.")
@common
def ls(queue: str | None, state: str | None, where: Where | None, limit: int | None, offset: int) -> None:
    """The queues, or the entries of QUEUE; with --where, those of all queues."""
    said = settings()
    with inspecting(said) as inspector:
        if queue is None and where is None:
            now = datetime.now(UTC)
            rows = [_queue_row(inspector, name, now) for name in inspector.queues()]
            columns = ("queue", "ready", "scheduled", "leased", "dead")
            show_rows(said, "duraq.queues/1", columns, rows, more=QUEUE_COLUMNS, name="queue")
            return
        status = None if state is None else EntryStatus(state)
        if queue is not None:
            found = matching(inspector, queue, status, where, limit=limit, offset=offset)
            show_rows(said, "duraq.entries/1", ENTRY_COLUMNS, map(entry_row, found), more=ENTRY_MORE)
            return
        each = (matching(inspector, name, status, where) for name in inspector.queues())
        found = _page(chain.from_iterable(each), limit, offset)
        show_rows(said, "duraq.entries/1", QUEUES_ENTRY_COLUMNS, map(entry_row, found), more=ENTRY_MORE)


def matching(
    inspector: Inspector,
    queue: str,
    status: EntryStatus | None,
    where: Where | None,
    *,
    limit: int | None = None,
    offset: int = 0,
) -> Iterator[EntryView]:
    """Entries of the queue in that state (default: in any) that the filter, if there is one, matches.

    A queue that the filter excludes by its name or by the state is not even read.
    """
    if where is None:
        return inspector.each_entry(queue, status, limit=limit, offset=offset)
    states = where.states() if status is None else where.states() & {status}
    if not states or not where.queues([queue]):
        return iter(())
    only = next(iter(states)) if len(states) == 1 else None
    return _page(filter(where.matches, inspector.each_entry(queue, only)), limit, offset)


def _page(found: Iterator[EntryView], limit: int | None, offset: int) -> Iterator[EntryView]:
    end = sys.maxsize if limit is None else offset + limit
    return islice(found, min(offset, sys.maxsize), min(end, sys.maxsize))


@click.command()
@click.argument("queue")
@click.option("-n", "count", type=click.IntRange(1), default=1, help="How many.")
@common
def peek(queue: str, count: int) -> None:
    """The entries of QUEUE that are delivered next; leases nothing."""
    said = settings()
    with inspecting(said) as inspector:
        found = inspector.entries(queue, EntryStatus.READY, limit=count)
        show_rows(said, "duraq.entries/1", ENTRY_COLUMNS, map(entry_row, found), more=ENTRY_MORE)


# -- one entry ---------------------------------------------------------------------------------------------


@click.command()
@click.argument("ids", nargs=-1, required=True)
@click.option("--queue", help="If several queues have an entry of this id.")
@click.option("--raw", is_flag=True, help="Only the payload's bytes; at a terminal as ASCII.")
@click.option("--where-is", is_flag=True, help="Only file:line:byte of each of its records.")
@common
def show(ids: tuple[str, ...], queue: str | None, raw: bool, where_is: bool) -> int:
    """One entry or several: payload, attempts, life."""
    said = settings()
    with inspecting(said) as inspector:
        found, problems = find_entries(inspector, words(ids, "IDS"), queue)
        if raw:
            for view in found:
                _raw(view)
        elif where_is:
            for view in found:
                for place in inspector.where_is(view.id, view.queue):
                    click.echo(safe_text(f"{inspector.path}/{place}"))
        else:
            show_entries(said, inspector, found)
    return missed(said, problems, partly=bool(found))


def find_entries(
    inspector: Inspector, ids: list[str], queue: str | None
) -> tuple[list[EntryView], list[QueueError]]:
    """Those entries, and what keeps the others from being shown."""
    found: list[EntryView] = []
    problems: list[QueueError] = []
    for entry_id in ids:
        try:
            found.append(inspector.get(entry_id, queue))
        except EntryNotFound as error:
            problems.append(error)
    return found, problems


def missed(said: Settings, problems: list[QueueError], *, partly: bool) -> int:
    """The exit code, with problems or without. Raises the first if there was nothing else."""
    if problems and not partly:
        raise problems[0]
    for problem in problems:
        report(said, problem)
    return Code.PARTLY if problems else Code.DONE


def show_entries(said: Settings, inspector: Inspector, found: list[EntryView]) -> None:
    """Entries in full. One alone is one JSON object, several are rows."""
    rows = []
    for view in found:
        life = inspector.life(view.id, view.queue)
        row = {**entry_row(view), "life": [record_row(each) for each in life]}
        if said.style == "table" and said.fields is None:
            click.echo(describe(said, view, life))
        elif len(found) == 1:
            show_one(said, "duraq.entry/1", row, ENTRY_COLUMNS)
        else:
            rows.append(row)
    if rows:
        show_rows(said, "duraq.entries/1", ENTRY_COLUMNS, rows, more=list(rows[0]))


def _raw(view: EntryView) -> None:
    if sys.stdout.isatty():
        # JSON escapes C0 controls and no others; a terminal obeys more than those.
        import orjson  # noqa: PLC0415 - for a terminal only

        click.echo(ascii_json(orjson.Fragment(view.payload)))
    else:
        click.echo(view.payload)


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
        if not follow:
            rows = map(record_row, inspector.records(queues or None, last=count))
            show_rows(said, "duraq.records/1", RECORD_COLUMNS, rows, more=("seq", "record"))
            return
        stream = Stream(said, "duraq.records/1", RECORD_COLUMNS, RECORD_WIDTHS)
        for record in inspector.follow(queues or None, last=count):
            stream.show(record_row(record))
