"""ls, peek, show, tail: looking. Nothing here takes a lock or writes a byte."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from duraq.cli.completing import QUEUE, last_of_many
from duraq.cli.failing import Code, CommandError, code_of_several
from duraq.cli.files_only import files_only, refuse_database
from duraq.cli.input import words
from duraq.cli.options import FILTER_HELP, Settings, common, filtered, in_time, settings
from duraq.cli.output import Row, Stream, show_one, show_rows
from duraq.cli.overview import NUMBERS, QUEUE_COLUMNS, QUEUE_MORE, inspecting, queue_row
from duraq.cli.pager import paged
from duraq.cli.reports import report
from duraq.cli.rows import ENTRY_COLUMNS, ENTRY_MORE, describe, entry_row, record_row
from duraq.cli.several import Several
from duraq.errors import DuraqError, EntryNotFound, StorageDamaged
from duraq.events import EVENTS, following, newest, wanted
from duraq.inspector import Inspector
from duraq.model import EntryStatus
from duraq.safe_text import ascii_json, safe_text
from duraq.views import EntryView

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from duraq.where import Where

T = TypeVar("T")

LS_COLUMNS = ("queue", "ready", "scheduled", "leased", "dead")
QUEUES_ENTRY_COLUMNS: tuple[str, ...] = ("id", "queue", *ENTRY_COLUMNS[1:])  # of entries of several queues
RECORD_COLUMNS = ("at", "queue", "op", "id", "what", "place")
RECORD_WIDTHS = (8, 12, 8, 36, 40, 10)
STATES = [
    state.value for state in (EntryStatus.SCHEDULED, EntryStatus.READY, EntryStatus.LEASED, EntryStatus.DEAD)
]
# What has no order, or none that is of use.
UNSORTED = {"payload", "headers", "errors", "role"}


# -- queues and entries ------------------------------------------------------------------------------------


def _sortable(
    ctx: click.Context,  # noqa: ARG001 - click's signature
    param: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[CompletionItem]:
    minus = "-" if incomplete.startswith("-") else ""
    names = dict.fromkeys((*ENTRY_COLUMNS, *ENTRY_MORE))
    return last_of_many(incomplete, ",", [minus + name for name in names if name not in UNSORTED])


@click.command(epilog=FILTER_HELP)
@click.argument("queue", type=QUEUE, required=False)
@click.option("--state", type=click.Choice(STATES), help="Only entries in that state.")
@filtered
@in_time
@click.option(
    "--sort",
    shell_complete=_sortable,
    metavar="[-]FIELD",
    help="By that column; with a minus, the other way round.",
)
@click.option("-l", "--limit", type=click.IntRange(1), help="At most that many.")
@click.option("--offset", type=click.IntRange(0), default=0, help="After that many.")
@common
def ls(
    queue: str | None,
    state: str | None,
    where: Where | None,
    since: datetime | None,
    until: datetime | None,
    sort: str | None,
    limit: int | None,
    offset: int,
) -> int:
    """The queues, or the entries of QUEUE; with --where, those of all queues.

    --since and --until go by when an entry was last changed.
    """
    said = settings()
    with inspecting(said) as inspector, paged(said):
        if queue is None and where is None:
            now = datetime.now(UTC)
            queues = (queue_row(said, inspector, name, now) for name in inspector.queues())
            rows = ordered(queues, sort, (*LS_COLUMNS, *QUEUE_COLUMNS, *NUMBERS), limit, offset)
            show_rows(
                said, "duraq.queues/1", LS_COLUMNS, rows, more=(*QUEUE_COLUMNS, *QUEUE_MORE), name="queue"
            )
            return Code.DONE
        status = None if state is None else EntryStatus(state)
        several = Several(inspector, () if queue is None else (queue,))
        columns = QUEUES_ENTRY_COLUMNS if queue is None else ENTRY_COLUMNS
        if status is EntryStatus.SCHEDULED:
            # Of these one wants to know when they will be ready.
            columns = tuple("ready_at" if name == "created_at" else name for name in columns)
        views = several.each(lambda name: matching(inspector, name, status, where, since, until))
        rows = ordered(map(entry_row, views), sort, (*columns, *ENTRY_MORE), limit, offset)
        show_rows(said, "duraq.entries/1", columns, rows, more=ENTRY_MORE)
    return several.conclude(said)


def ordered(
    rows: Iterable[Row], sort: str | None, known: Sequence[str], limit: int | None, offset: int
) -> Iterable[Row]:
    """So many of the rows, after so many; by a column, if one is named. What has nothing there comes last."""
    if sort is not None:
        name = sort.removeprefix("-")
        if name not in known or name in UNSORTED:
            there = ", ".join(each for each in dict.fromkeys(known) if each not in UNSORTED)
            raise CommandError(Code.USAGE, f"nothing can be sorted by {name!r}", f"there are {there}")
        found = list(rows)
        nothing = [row for row in found if row[name] is None]
        there_is = [row for row in found if row[name] is not None]
        there_is.sort(key=lambda row: row[name], reverse=sort.startswith("-"))
        rows = [*there_is, *nothing]
    return page(iter(rows), limit, offset)


def matching(
    inspector: Inspector,
    queue: str,
    status: EntryStatus | None,
    where: Where | None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[EntryView]:
    """Entries of the queue in that state (default: in any) that the filter, if there is one, matches.

    ``since``, ``until``: only those that were last changed in between. A queue that the filter excludes by
    its name or by the state is not even read.
    """
    if where is not None:
        states = where.states() if status is None else where.states() & {status}
        if not states or not where.queues([queue]):
            return iter(())
        status = next(iter(states)) if len(states) == 1 else None
    # Here, and not when the first is asked for: what keeps the queue from being read is said before all else.
    found = inspector.each_entry(queue, status)
    return (
        view
        for view in found
        if (since is None or view.updated_at >= since)
        and (until is None or view.updated_at <= until)
        and (where is None or where.matches(view))
    )


def page(found: Iterator[T], limit: int | None, offset: int) -> Iterator[T]:
    """So many of them, after so many."""
    end = sys.maxsize if limit is None else offset + limit
    return islice(found, min(offset, sys.maxsize), min(end, sys.maxsize))


@click.command()
@click.argument("queue", type=QUEUE)
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
@click.option("--queue", type=QUEUE, help="If several queues have an entry of this id.")
@click.option("--raw", is_flag=True, help="Only the payload's bytes; at a terminal as ASCII.")
@click.option("--where-is", is_flag=True, help="Only file:line:byte of each of its records.")
@common
def show(ids: tuple[str, ...], queue: str | None, raw: bool, where_is: bool) -> int:
    """One entry or several: payload, attempts, life.

    An id that DuraQ made may be cut to its first or last eight characters or more, and any id to its end, as
    screens show it (..1f2e3d4c), as long as no other entry is called so.
    """
    said = settings()
    given = words(ids, "IDS")
    if where_is:
        refuse_database("show --where-is")
    with inspecting(said) as inspector, nullcontext() if raw else paged(said):
        found, problems = find_entries(inspector, given, queue)
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
) -> tuple[list[EntryView], list[DuraqError]]:
    """Those entries, and what keeps the others from being shown."""
    found: list[EntryView] = []
    problems: list[DuraqError] = []
    for entry_id in ids:
        try:
            view = inspector.find(entry_id, queue)
        except (EntryNotFound, StorageDamaged) as error:
            problems.append(error)
            continue
        found.append(view)
        if view.id != entry_id:
            settings().say(safe_text(f"{entry_id} is {view.queue}/{view.id}"))
    return found, problems


def missed(said: Settings, problems: Sequence[Exception], *, partly: bool) -> int:
    """The exit code, with problems or without. Raises the first if there was nothing else."""
    if problems and not partly:
        raise problems[0]
    for problem in problems:
        report(said, problem)
    return code_of_several(problems)


def show_entries(said: Settings, inspector: Inspector, found: list[EntryView]) -> None:
    """Entries in full: as text, unless rows or JSON were asked for. One alone is one JSON object."""
    rows = []
    if said.time is None and not said.at_terminal:
        said.time = "utc"
    for view in found:
        life = inspector.life(view.id, view.queue)
        row = {**entry_row(view), "life": [record_row(each) for each in life]}
        if said.output in {None, "table"} and said.fields is None:
            click.echo(describe(said, view, life, inspector.is_alive(view.worker) if view.worker else None))
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


class _Events(click.ParamType[tuple[str, ...]]):
    """lease,fail,dead: what happened."""

    name = "events"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = tuple(value.split(","))
        for name in names:
            if name not in EVENTS:
                near = get_close_matches(name, EVENTS, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(EVENTS)}"
                self.fail(f"there is no event {name!r}; {hint}", param, ctx)
        return names

    def shell_complete(
        self, _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return last_of_many(incomplete, ",", EVENTS)


@click.command(epilog=FILTER_HELP)
@click.argument("queues", type=QUEUE, nargs=-1)
@click.option("-n", "count", type=click.IntRange(0), help="So many of the newest (10; with --since, all).")
@click.option("-f", "--follow", is_flag=True, help="Go on as records are written.")
@filtered
@click.option(
    "--event", "events", type=_Events(), default=(), metavar="A,B", help="Only these: lease,fail,dead."
)
@in_time
@common
@files_only("tail")
def tail(
    queues: tuple[str, ...],
    count: int | None,
    follow: bool,
    where: Where | None,
    events: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
) -> None:
    """The newest records of QUEUES, or of all.

    A FILTER asks what the record itself says: a lease has no payload. Its age is that of the record.
    """
    said = settings()
    if follow and said.output == "json":
        raise CommandError(Code.USAGE, "what never ends is no single JSON value; use --jsonl")
    if count is None and since is None:
        count = 10
    is_wanted = wanted(where=where, events=events, since=since, until=until)
    with inspecting(said) as inspector:
        names = queues or None
        if not follow:
            with paged(said):
                rows = map(record_row, newest(inspector, names, count, is_wanted, since))
                show_rows(said, "duraq.records/1", RECORD_COLUMNS, rows, more=("seq", "record"))
            return
        stream = Stream(said, "duraq.records/1", RECORD_COLUMNS, RECORD_WIDTHS)
        for record in following(inspector, names, count, is_wanted, since):
            stream.show(record_row(record))
