"""errors, and dlq errors: what broke, grouped by what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from duraq.cli.completing import QUEUE
from duraq.cli.failing import Code, CommandError, code_of, code_of_several
from duraq.cli.look import missed
from duraq.cli.options import PAST, Settings, common, settings
from duraq.cli.output import Row, show_rows
from duraq.cli.overview import inspecting
from duraq.cli.reports import report
from duraq.errors import StorageError
from duraq.failures import By, FailureGroup, Failures, dead_by, gather
from duraq.sparkline import sparkline
from duraq.times import span

COLUMNS = (
    "attempts",
    "per_minute",
    "trend",
    "first",
    "last",
    "queues",
    "ok",
    "waiting",
    "dead",
    "signature",
    "error",
)
DEAD_COLUMNS = ("count", "first", "last", "queues", "signature", "error")
MORE = ("count", "key", "new", "before", "other", "type", "message", "frame", "signature", "samples")
RAW_COLUMNS = ("count", "at", "queue", "id", "error")


def by_option(command: Any) -> Any:
    """Give a command the option that says what failures are grouped by."""
    return click.option(
        "--by",
        type=click.Choice([each.value for each in By]),
        default=By.SIGNATURE.value,
        help="Together by signature, type or queue.",
    )(command)


def raw_option(command: Any) -> Any:
    """Give a command the option that shows messages as they are."""
    return click.option(
        "--raw-messages", "raw", is_flag=True, help="The newest few of each, with their messages as they are."
    )(command)


@click.command()
@click.argument("queues", type=QUEUE, nargs=-1)
@click.option(
    "--since",
    type=PAST,
    default="1h",
    metavar="T",
    help="From then on (1h): -1h, 90m, today, 2026-11-24 10:00.",
)
@by_option
@raw_option
@common
def errors(queues: tuple[str, ...], since: datetime, by: str, raw: bool) -> int:
    """Attempts that failed in QUEUES, or in all, grouped by what made them fail.

    Two failures have one signature if they are of one type, were raised in one function, and their messages
    differ in numbers, ids, addresses, paths and quoted texts only. OK, WAITING and DEAD: how many of these
    attempts, of which an entry has several, are of entries that were done since, will be tried again, are
    dead letters. NEW: it has not happened before, in twice that time.

    An attempt is known as far as records are kept: if an entry was completed and its records were compacted,
    nothing tells how it failed before. How many failed in all is always known, and said below.
    """
    said = settings()
    window = datetime.now(UTC) - since
    if window <= timedelta(0):
        raise CommandError(Code.USAGE, f"--since {since.isoformat()} is not in the past")
    with inspecting(said) as inspector:
        found = gather(inspector, window, queues or None, by=By(by))
    if found.problems and not found.groups:
        # That nothing failed is not known.
        return missed(said, list(found.problems.values()), partly=False)
    if raw:
        _show_raw(said, found.groups)
    else:
        rows = (_row(said, group, found.until - found.since) for group in found.groups)
        show_rows(said, "duraq.errors/1", COLUMNS, rows, more=MORE, name="key", whole="error")
    for line in _summary(found, window):
        said.say(line)
    for problem in found.problems.values():
        report(said, problem)
    return max((code_of(problem) for problem in found.problems.values()), default=Code.DONE)


def show_dead(said: Settings, queues: tuple[str, ...], by: str, *, raw: bool) -> int:
    """What the dead letters of these queues, or of all, died of."""
    with inspecting(said) as inspector:
        for name in queues:
            inspector.check_queue(name)
        problems: dict[str, StorageError] = {}
        groups = dead_by(inspector, queues or None, by=By(by), problems=problems)
    if problems and not groups:
        raise next(iter(problems.values()))
    if raw:
        _show_raw(said, groups)
    else:
        rows = (_row(said, group, None) for group in groups)
        show_rows(
            said, "duraq.dlq.errors/1", DEAD_COLUMNS, rows, more=("dead", *MORE), name="key", whole="error"
        )
    for problem in problems.values():
        report(said, problem)
    return code_of_several(problems.values())


def _row(said: Settings, group: FailureGroup, window: timedelta | None) -> Row:
    text = f"{group.error.type}: {group.message}" if group.message else group.error.type
    trend: Any = group.trend
    if said.style == "table":
        trend, text = sparkline(group.trend, ascii_only=said.ascii), f"NEW {text}" if group.is_new else text
    return {
        "key": group.key,
        "count": group.count,
        "attempts": group.count,
        "per_minute": None if window is None else round(group.count / (window / timedelta(minutes=1)), 2),
        "trend": trend,
        "before": group.before,
        "new": group.is_new,
        "first": group.first,
        "last": group.last,
        "queues": ",".join(group.queues) if said.style == "table" else group.queues,
        "ok": group.ok,
        "waiting": group.waiting,
        "dead": group.dead,
        "other": group.other,
        "error": text,
        "type": group.error.type,
        "message": group.message,
        "frame": group.error.frame or None,
        "signature": group.error.signature or None,
        "samples": [
            {"queue": each.queue, "id": each.id, "at": each.at, "type": each.type, "message": each.message}
            for each in group.samples
        ],
    }


def _show_raw(said: Settings, groups: Iterable[FailureGroup]) -> None:
    rows = (
        {
            "key": group.key,
            "count": group.count,
            "at": each.at,
            "queue": each.queue,
            "id": each.id,
            "error": f"{each.type}: {each.message}",
        }
        for group in groups
        for each in group.samples
    )
    show_rows(said, "duraq.errors.raw/1", RAW_COLUMNS, rows, more=("key",))


def _summary(found: Failures, window: timedelta) -> Iterator[str]:
    ok, waiting, dead = (
        sum(getattr(each, fate) for each in found.groups) for fate in ("ok", "waiting", "dead")
    )
    yield (
        f"{found.count:,} failed attempts in the last {span(window)}: {ok:,} of entries done since,"
        f" {waiting:,} of entries that wait, {dead:,} of dead letters"
    )
    if found.counted > found.count:
        yield f"{found.counted:,} were counted; of the others the records are no longer there"
