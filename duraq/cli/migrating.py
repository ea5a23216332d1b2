"""migrate: a storage moved into another one, while both are worked."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from shlex import quote

import click

from duraq.cli.failing import Code, CommandError, code_of
from duraq.cli.options import DURATION, Settings, common, settings
from duraq.cli.output import Row, show_rows
from duraq.cli.reports import report
from duraq.cli.stage import Terminated
from duraq.errors import NotAStorage, StorageError
from duraq.migration import Migrated, Moved, Planned, Progress, give_up, plan
from duraq.migration import migrate as move
from duraq.safe_text import safe_text
from duraq.storage.registry import again as named

COLUMNS = ("queue", "entries", "bytes", "checksum", "status")
LEFT_COLUMNS = ("queue", "arrived", "left", "status")
PLAN_COLUMNS = ("queue", "scheduled", "ready", "leased", "dead", "bytes", "status")
_REDRAWN, _SAID = 0.2, 10.0  # seconds between two times that it is shown, to a person and in a log
_BAR = 24  # characters


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST", required=False)
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be moved.")
@click.option(
    "--wait",
    type=DURATION,
    default=timedelta(minutes=10),
    metavar="DURATION",
    help="How long a queue's leases may take to end; default: 10m.",
)
@click.option("--merge", is_flag=True, help="Also into queues that have entries of their own.")
@click.option("--give-up", "giving_up", is_flag=True, help="End it in the middle: both are worked again.")
@common
def migrate(
    source: str, target: str | None, *, dry_run: bool, wait: timedelta, merge: bool, giving_up: bool
) -> int:
    """Move everything in the storage SRC to the storage DST, which is made if it is not there.

    Both are a directory, file:PATH, sqlite:PATH, lmdb:PATH or postgresql://... Workers and producers may
    go on: a queue is paused in SRC, for good; what is leased is waited for; what is enqueued meanwhile is
    carried as well. In DST the queue is paused until all of it is there. Each entry is read back, and
    compared, before it is removed from SRC.

    Interrupted, it goes on when it is run again; so does it when entries have been enqueued in SRC since.
    To end it in the middle, stop it, and run it with --give-up: what has arrived stays in DST, what has not
    in SRC, and nothing is in both. With --give-up and one storage only, what is on its way from or to it is
    worked there, whatever has become of the other one.
    """
    said = settings()
    with _told():
        if giving_up:
            if dry_run or merge:
                raise CommandError(Code.USAGE, "--give-up goes with neither --dry-run nor --merge")
            return _give_up(said, source, target)
    if target is None:
        raise CommandError(Code.USAGE, "where to? duraq migrate SRC DST")
    again = f"duraq migrate {quote(named(source))} {quote(named(target))}"
    with _told():
        if dry_run:
            return _show_plan(said, plan(source, target), merge=merge)
        try:
            with _drawn(said) as draw:
                moved = move(source, target, wait=wait, merge=merge, progress=draw)
        except (KeyboardInterrupt, Terminated):
            said.say(f"stopped; nothing is lost or there twice; to go on: {again}")
            raise
        except NotAStorage:
            raise
        except StorageError:
            said.say(f"nothing is lost or there twice; once it is mended, to go on: {again}")
            raise
    return _show(said, moved, again)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except NotAStorage as error:
        # Nothing that is said of --root helps here.
        raise CommandError(Code.NOT_FOUND, str(error)) from error


def _give_up(said: Settings, source: str, target: str | None) -> int:
    found = give_up(source, target)
    rows = [
        {
            "queue": each.queue,
            "arrived": each.arrived,
            "left": each.left,
            "status": "given up" if each.problem is None else "not yet",
            "stuck": dict(each.stuck),
            "error": None if each.problem is None else str(each.problem),
        }
        for each in found
    ]
    show_rows(said, "duraq.migrate_given_up/1", LEFT_COLUMNS, rows, more=("stuck", "error"), name="queue")
    problems = [each.problem for each in found if each.problem is not None]
    for problem in problems:
        report(said, problem)
    for each in found:
        for name, why in each.stuck.items():
            said.say(f"queue {each.queue}: entry {name} is in both: {why}")
    if problems and len(problems) == len(found):
        return code_of(problems[0])
    return Code.PARTLY if problems or any(each.stuck for each in found) else Code.DONE


# -- what was done -----------------------------------------------------------------------------------------


def _show(said: Settings, moved: Migrated, again: str) -> int:
    found = moved.queues.values()
    problems = [each.problem for each in found if each.problem is not None]
    show_rows(
        said, "duraq.migrate/1", COLUMNS, map(_row, found), more=("stuck", "known", "error"), name="queue"
    )
    for problem in problems:
        report(said, problem)
    for each in found:
        for name, why in list(each.stuck.items())[:10]:
            said.say(f"queue {each.queue}: entry {name} stays in the source: {why}")
        if len(each.stuck) > 10:
            said.say(f"queue {each.queue}: {len(each.stuck) - 10} more entries stay in the source")
        if each.known:
            names = ", ".join(each.known[:3]) + (", ..." if len(each.known) > 3 else "")
            said.say(
                f"queue {each.queue}: {len(each.known)} entries were ended in the source, for each was"
                f" enqueued in the target too, under the same key: {names}"
            )
    if moved.left:
        said.say(f"{moved.left} entries were enqueued in the source since; somebody still feeds it: {again}")
    if moved.complete:
        said.say(f"{moved.source}: all of it is in {moved.target}")
        return Code.DONE
    if problems and len(problems) == len(moved.queues):
        return code_of(problems[0])
    return Code.PARTLY


def _row(moved: Moved) -> Row:
    status = "moved"
    if moved.problem is not None:
        status = "not yet"
    elif moved.stuck:
        status = f"moved, but for {len(moved.stuck)}"
    return {
        "queue": moved.queue,
        "entries": moved.entries,
        "bytes": moved.payload_bytes,
        "checksum": moved.checksum,
        "status": status,
        "stuck": moved.stuck,
        "known": moved.known,
        "error": None if moved.problem is None else str(moved.problem),
    }


def _show_plan(said: Settings, planned: Planned, *, merge: bool) -> int:
    rows = [
        {
            "queue": name,
            "scheduled": found.counts.scheduled,
            "ready": found.counts.ready,
            "leased": found.counts.leased,
            "dead": found.counts.dead,
            "bytes": found.live_bytes,
            "status": planned.status(name, merge=merge),
        }
        for name, found in planned.queues.items()
    ]
    show_rows(said, "duraq.migration/1", PLAN_COLUMNS, rows, name="queue")
    verb = "would go on moving" if planned.begun else "would move"
    made = ", which would be made" if planned.makes_target else ""
    said.say(f"{verb} {planned.source} to {planned.target}{made}")
    for name in sorted({*planned.queues, *planned.kept}):
        why = planned.refused(name, merge=merge)
        if why is not None:
            hint = None if name in planned.kept else "with --merge those of the source are added to them"
            raise CommandError(Code.CONFLICT, f"queue {name}: {why}", hint)
    return Code.DONE


# -- how far it is -----------------------------------------------------------------------------------------


@contextmanager
def _drawn(said: Settings) -> Iterator[Callable[[Progress], None]]:
    """What shows how far it is: a bar at a terminal, else a line now and then."""
    at_terminal = sys.stderr.isatty()
    began = shown_at = time.monotonic()
    waited_for = ""

    def show(progress: Progress) -> None:
        nonlocal shown_at, waited_for
        now = time.monotonic()
        # Whoever waits is to know at once for what.
        is_news = bool(progress.leased) and progress.queue != waited_for
        is_due = now - shown_at >= (_REDRAWN if at_terminal else _SAID)
        if said.quiet or said.is_json or not (is_news or is_due):
            return
        shown_at = now
        waited_for = progress.queue if progress.leased else ""
        if at_terminal:
            click.echo(f"\r{_bar(progress)}{_words(progress)}\x1b[K", err=True, nl=False)
        else:
            said.say(_words(progress))

    try:
        yield show
    finally:
        if at_terminal and shown_at > began:
            click.echo("\r\x1b[K", err=True, nl=False)


def _bar(progress: Progress) -> str:
    done = _BAR * progress.done // progress.count if progress.count else 0
    return f"[{'#' * done}{'.' * (_BAR - done)}] "


def _words(progress: Progress) -> str:
    name = safe_text(progress.queue, 64)
    if progress.leased:
        return f"{name}: waiting for the end of {progress.leased} leases"
    return f"{name}: {progress.done:,} of {progress.count:,}"
