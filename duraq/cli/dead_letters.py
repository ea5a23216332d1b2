"""dlq: the entries that were given up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import click

from duraq import DeadLetterQueue, EntryNotFound, FileStorage
from duraq.cli.failing import Code, CommandError
from duraq.cli.look import ENTRY_COLUMNS, describe, entry_row, inspecting
from duraq.cli.options import DURATION, Settings, common, settings
from duraq.cli.output import show_one, show_rows
from duraq.dead_letters import BATCH
from duraq.inspector import Inspector
from duraq.model import EntryStatus
from duraq.views import EntryView

_Act = Callable[[DeadLetterQueue[object], list[str]], int]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def dlq() -> None:
    """Dead letters: entries that failed too often, kept until somebody decides."""


@dlq.command("ls")
@click.argument("queues", nargs=-1)
@click.option("-l", "--limit", type=click.IntRange(1), help="At most that many of each queue.")
@click.option("--offset", type=click.IntRange(0), default=0, help="After that many.")
@common
def dlq_ls(queues: tuple[str, ...], limit: int | None, offset: int) -> None:
    """The dead letters of QUEUES, or of all."""
    said = settings()
    with inspecting(said) as inspector:
        rows = [
            entry_row(view)
            for name in queues or inspector.queues()
            for view in inspector.entries(name, EntryStatus.DEAD, limit=limit, offset=offset)
        ]
    show_rows(said, "duraq.entries/1", ENTRY_COLUMNS, rows)


@dlq.command("show")
@click.argument("ids", nargs=-1, required=True)
@common
def dlq_show(ids: tuple[str, ...]) -> None:
    """Dead letters in full, with every attempt's error."""
    said = settings()
    with inspecting(said) as inspector:
        for view in _dead(inspector, ids, None):
            life = inspector.life(view.id, view.queue)
            show_one(said, "duraq.entry/1", entry_row(view), describe(said, view, life))


@dlq.command("retry")
@click.argument("ids", nargs=-1)
@click.option("--all", "queue", metavar="QUEUE", help="Everything that is dead in that queue now.")
@click.option("--queue", "only", metavar="QUEUE", help="If several queues have an entry of this id.")
@click.option("--keep-attempts", is_flag=True, help="Count on from where they died.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--expect", type=int, metavar="N", help="Refuse unless it is that many.")
@common
def retry(
    ids: tuple[str, ...],
    queue: str | None,
    only: str | None,
    keep_attempts: bool,
    dry_run: bool,
    yes: bool,
    expect: int | None,
) -> int:
    """Put dead letters back into their queues; - reads IDS from stdin."""
    said = settings()
    chosen = _choose(said, ids, queue, only)
    if not _agreed(said, "retry", chosen, dry_run=dry_run, sure=yes or queue is None, expect=expect):
        return Code.DONE
    return _act(
        said, chosen, "retried", lambda dead, each: dead.retry_many(each, keep_attempts=keep_attempts)
    )


@dlq.command("rm")
@click.argument("ids", nargs=-1, required=True)
@click.option("--queue", "only", metavar="QUEUE", help="If several queues have an entry of this id.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--expect", type=int, metavar="N", help="Refuse unless it is that many.")
@common
def rm(ids: tuple[str, ...], only: str | None, dry_run: bool, yes: bool, expect: int | None) -> int:
    """Remove dead letters for good; - reads IDS from stdin."""
    said = settings()
    chosen = _choose(said, ids, None, only)
    if not _agreed(said, "remove", chosen, dry_run=dry_run, sure=yes, expect=expect):
        return Code.DONE
    return _act(said, chosen, "removed", lambda dead, each: dead.remove_many(each))


@dlq.command("purge")
@click.argument("queue")
@click.option("--older-than", type=DURATION, default=timedelta(0), help="Only what died longer ago.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--expect", type=int, metavar="N", help="Refuse unless it is that many.")
@common
def purge(queue: str, older_than: timedelta, dry_run: bool, yes: bool, expect: int | None) -> int:
    """Remove the dead letters of QUEUE for good, all or the older ones."""
    said = settings()
    before = datetime.now(UTC) - older_than
    with inspecting(said) as inspector:
        chosen = [view for view in inspector.entries(queue, EntryStatus.DEAD) if view.updated_at <= before]
    if not _agreed(said, "remove", chosen, dry_run=dry_run, sure=yes, expect=expect):
        return Code.DONE
    return _act(said, chosen, "removed", lambda dead, each: dead.remove_many(each))


def _choose(said: Settings, ids: Iterable[str], queue: str | None, only: str | None) -> list[EntryView]:
    names: list[str] = []
    for name in ids:
        names += sys.stdin.read().split() if name == "-" else [name]
    if bool(names) == bool(queue):
        raise CommandError(Code.USAGE, "give IDS (or - for stdin), or --all QUEUE")
    with inspecting(said) as inspector:
        if queue is not None:
            return inspector.entries(queue, EntryStatus.DEAD)
        return _dead(inspector, names, only)


def _dead(inspector: Inspector, ids: Iterable[str], queue: str | None) -> list[EntryView]:
    found = [inspector.get(entry_id, queue) for entry_id in ids]
    for view in found:
        if view.status is not EntryStatus.DEAD:
            raise EntryNotFound(f"queue {view.queue}: entry {view.id} is {view.status}, not dead")
    return found


def _agreed(
    said: Settings, verb: str, chosen: list[EntryView], *, dry_run: bool, sure: bool, expect: int | None
) -> bool:
    """Whether to go on: the exact number is shown, and asked for where it cannot be taken back."""
    count = len(chosen)
    if expect is not None and count != expect:
        raise CommandError(Code.CONFLICT, f"{count} would be meant, not {expect}; nothing was done")
    if dry_run:
        said.say(f"would {verb} {count}")
        show_rows(said, "duraq.entries/1", ENTRY_COLUMNS, map(entry_row, chosen))
        return False
    if not count:
        said.say("none")
        return False
    if sure:
        return True
    if said.no_input or not sys.stdin.isatty():
        raise CommandError(Code.USAGE, f"this would {verb} {count}; say --yes to mean it")
    return click.confirm(f"{verb.capitalize()} {count} dead letters?", default=False, err=True)


def _act(said: Settings, chosen: list[EntryView], done: str, act: _Act) -> int:
    """Do it, queue by queue, in batches; what somebody else was quicker with keeps nothing else back."""
    count, problems = 0, []
    by_queue: dict[str, list[str]] = {}
    for view in chosen:
        by_queue.setdefault(view.queue, []).append(view.id)
    with FileStorage(said.storage(), create=False) as storage:
        for name, ids in by_queue.items():
            dead: DeadLetterQueue[object] = DeadLetterQueue(name, None, storage)
            for start in range(0, len(ids), BATCH):
                batch = ids[start : start + BATCH]
                try:
                    count += act(dead, batch)
                except EntryNotFound:
                    for entry_id in batch:
                        try:
                            count += act(dead, [entry_id])
                        except EntryNotFound as error:
                            problems.append(error)
    said.say(f"{done} {count}")
    for problem in problems:
        said.say(f"duraq: {problem}")
    if problems:
        return Code.PARTLY if count else Code.NOT_FOUND
    return Code.DONE
