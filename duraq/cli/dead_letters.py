"""dlq: the entries that were given up.

What is to be acted on is found first and frozen: the number that is shown is the number that is meant, and
what dies later is not touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from duraq import options
from duraq.acts import BATCH
from duraq.cli.failing import Code, CommandError
from duraq.cli.input import STDIN, words
from duraq.cli.look import find_entries, inspecting, matching, missed, show_entries
from duraq.cli.options import DURATION, FILTER_HELP, F, Settings, common, filtered, settings
from duraq.cli.output import Row, conclude, show_rows
from duraq.cli.rows import DEAD_COLUMNS, ENTRY_MORE, entry_row, last_failure
from duraq.dead_letters import DeadLetterQueue
from duraq.errors import EntryNotFound
from duraq.inspector import Inspector
from duraq.model import EntryStatus
from duraq.safe_text import safe_text
from duraq.views import EntryView

if TYPE_CHECKING:
    from duraq.where import Where

_Act = Callable[[DeadLetterQueue[Any], list[str]], object]
TOP = 3  # error types that a question names


class _Consent(NamedTuple):
    """What was said about going on."""

    dry_run: bool
    yes: bool
    expect: int | None


def _asking(command: F) -> F:
    """Give a command the options of everything that changes many entries at once."""
    for option in (
        click.option("--expect", type=click.IntRange(0), metavar="N", help="Refuse unless it is that many."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("-n", "--dry-run", is_flag=True, help="Only show what would be done."),
    ):
        command = option(command)
    return command


@click.group(no_args_is_help=True)
@common
def dlq() -> None:
    """Dead letters: entries that failed too often, kept until somebody decides."""


@dlq.command("ls", epilog=FILTER_HELP)
@click.argument("queues", nargs=-1)
@filtered
@click.option("-l", "--limit", type=click.IntRange(1), help="At most that many of each queue.")
@click.option("--offset", type=click.IntRange(0), default=0, help="After that many.")
@common
def dlq_ls(queues: tuple[str, ...], where: Where | None, limit: int | None, offset: int) -> None:
    """The dead letters of QUEUES, or of all."""
    said = settings()
    with inspecting(said) as inspector:
        rows = (
            entry_row(view)
            for name in queues or inspector.queues()
            for view in matching(inspector, name, EntryStatus.DEAD, where, limit=limit, offset=offset)
        )
        show_rows(said, "duraq.entries/1", DEAD_COLUMNS, rows, more=ENTRY_MORE)


@dlq.command("show")
@click.argument("ids", nargs=-1, required=True)
@click.option("--queue", metavar="QUEUE", help="If several queues have an entry of this id.")
@common
def dlq_show(ids: tuple[str, ...], queue: str | None) -> int:
    """Dead letters in full, with every attempt's error."""
    said = settings()
    with inspecting(said) as inspector:
        found, problems = _dead(inspector, words(ids, "IDS"), queue)
        show_entries(said, inspector, found)
    return missed(said, problems, partly=bool(found))


@dlq.command("retry", epilog=FILTER_HELP)
@click.argument("ids", nargs=-1)
@filtered
@click.option("--all", "everything", is_flag=True, help="Everything that is dead now; see --queue.")
@click.option("--queue", metavar="QUEUE", help="Only of this queue.")
@click.option("--keep-attempts", is_flag=True, help="Count on from where they died.")
@_asking
@common
def retry(
    ids: tuple[str, ...],
    where: Where | None,
    everything: bool,
    queue: str | None,
    keep_attempts: bool,
    dry_run: bool,
    yes: bool,
    expect: int | None,
) -> int:
    """Put dead letters back into their queues; - reads IDS from stdin."""
    said = settings()
    if [bool(ids), everything, where is not None].count(True) != 1:
        raise CommandError(Code.USAGE, "name IDS, or - for those on stdin, or --all, or --where FILTER")
    with inspecting(said) as inspector:
        chosen, problems = _chosen(inspector, ids, where, queue)
    # Nothing is lost by a retry, so those that were named one by one need no second thought.
    named = bool(ids) and STDIN not in ids
    consent = _Consent(dry_run, yes or named, expect)
    return _carry_out(
        said, "retry", chosen, problems, consent, partial(_retry, keep_attempts=keep_attempts), "ready"
    )


def _retry(dead: DeadLetterQueue[Any], ids: list[str], *, keep_attempts: bool) -> None:
    dead.retry_many(ids, keep_attempts=keep_attempts)


@dlq.command("rm", epilog=FILTER_HELP)
@click.argument("ids", nargs=-1)
@filtered
@click.option("--queue", metavar="QUEUE", help="Only of this queue.")
@_asking
@common
def rm(
    ids: tuple[str, ...],
    where: Where | None,
    queue: str | None,
    dry_run: bool,
    yes: bool,
    expect: int | None,
) -> int:
    """Remove dead letters for good; - reads IDS from stdin."""
    said = settings()
    if bool(ids) is (where is not None):
        raise CommandError(Code.USAGE, "name IDS, or - for those on stdin, or --where FILTER")
    with inspecting(said) as inspector:
        chosen, problems = _chosen(inspector, ids, where, queue)
    consent = _Consent(dry_run, yes, expect)
    return _carry_out(said, "remove", chosen, problems, consent, DeadLetterQueue.remove_many, "removed")


@dlq.command("purge", epilog=FILTER_HELP)
@click.argument("queue")
@filtered
@click.option("--older-than", type=DURATION, help="Only what died longer ago.")
@_asking
@common
def purge(
    queue: str,
    where: Where | None,
    older_than: timedelta | None,
    dry_run: bool,
    yes: bool,
    expect: int | None,
) -> int:
    """Remove the dead letters of QUEUE for good: all, or the older ones, or those that match.

    Asks for the queue's name to be typed. Without a terminal: --yes, and --expect N if it is all of them.
    """
    said = settings()
    before = datetime.now(UTC)
    if older_than is not None:
        options.duration("--older-than", older_than, zero=True)
        before -= older_than
    with inspecting(said) as inspector:
        dead = matching(inspector, queue, EntryStatus.DEAD, where)
        chosen = [view for view in dead if view.updated_at <= before]
    if yes and older_than is None and where is None and expect is None and not dry_run:
        raise CommandError(
            Code.USAGE, f"all {len(chosen)} dead letters of {queue}: say --expect {len(chosen)} as well"
        )
    consent = _Consent(dry_run, yes, expect)
    return _carry_out(
        said, "purge", chosen, [], consent, DeadLetterQueue.remove_many, "removed", to_type=queue
    )


def _chosen(
    inspector: Inspector, ids: tuple[str, ...], where: Where | None, queue: str | None
) -> tuple[list[EntryView], list[EntryNotFound]]:
    """The dead letters that are meant: those named, else those that match, else all."""
    if ids:
        return _dead(inspector, words(ids, "IDS"), queue)
    names = inspector.queues() if queue is None else [queue]
    return [view for name in names for view in matching(inspector, name, EntryStatus.DEAD, where)], []


def _dead(
    inspector: Inspector, ids: list[str], queue: str | None
) -> tuple[list[EntryView], list[EntryNotFound]]:
    """Those of them that are dead, and what is the matter with the others."""
    found, problems = find_entries(inspector, ids, queue)
    dead = [view for view in found if view.status is EntryStatus.DEAD]
    problems += [
        EntryNotFound(f"queue {view.queue}: entry {view.id} is {view.status}, not dead")
        for view in found
        if view.status is not EntryStatus.DEAD
    ]
    return dead, problems


def _carry_out(
    said: Settings,
    verb: str,
    chosen: Sequence[EntryView],
    problems: list[EntryNotFound],
    consent: _Consent,
    act: _Act,
    outcome: str,
    *,
    to_type: str | None = None,
) -> int:
    """Ask if need be, then do it, queue by queue; what somebody else was quicker with holds up nothing."""
    if consent.expect is not None and consent.expect != len(chosen):
        raise CommandError(
            Code.CONFLICT, f"{len(chosen)} are meant by this, not {consent.expect}; nothing was done"
        )
    if consent.dry_run:
        said.say(f"would {verb} {_summary(chosen)}")
        show_rows(said, "duraq.entries/1", DEAD_COLUMNS, map(entry_row, chosen), more=ENTRY_MORE)
        return missed(said, problems, partly=bool(chosen))
    if not chosen:
        said.say(f"nothing to {verb}")
        return missed(said, problems, partly=False)
    if not consent.yes:
        _ask(said, verb, chosen, to_type)
    rows: list[Row] = [{"id": None, "queue": None, "status": None, "error": str(each)} for each in problems]
    by_queue: dict[str, list[str]] = {}
    for view in chosen:
        by_queue.setdefault(view.queue, []).append(view.id)
    with said.open() as storage:
        for name, ids in by_queue.items():
            dead: DeadLetterQueue[Any] = DeadLetterQueue(name, None, storage)
            for start in range(0, len(ids), BATCH):
                for entry_id, error in _one_batch(dead, ids[start : start + BATCH], act):
                    status = outcome if error is None else None
                    text = None if error is None else str(error)
                    rows.append({"id": entry_id, "queue": name, "status": status, "error": text})
                    problems += [] if error is None else [error]
    return conclude(said, f"duraq.dlq.{verb}/1", rows, problems)


def _one_batch(
    dead: DeadLetterQueue[Any], ids: list[str], act: _Act
) -> list[tuple[str, EntryNotFound | None]]:
    try:
        act(dead, ids)
    except EntryNotFound as error:
        if len(ids) == 1:
            return [(ids[0], error)]
        # The batch is whole or not at all, and one of them is gone: one by one, then.
        return [result for entry_id in ids for result in _one_batch(dead, [entry_id], act)]
    return [(entry_id, None) for entry_id in ids]


def _ask(said: Settings, verb: str, chosen: Sequence[EntryView], to_type: str | None) -> None:
    """Return if a person agrees. Raises CommandError if not, or if there is nobody to ask."""
    if not said.can_ask:
        raise CommandError(
            Code.USAGE, f"this would {verb} {_summary(chosen)}; there is no terminal to ask at", "say --yes"
        )
    question = safe_text(f"{verb.capitalize()} {_summary(chosen)}")
    if to_type is None:
        agreed = click.confirm(f"{question}?", default=False, err=True)
    else:
        typed = click.prompt(
            f"{question}. Type the queue's name to go on", default="", show_default=False, err=True
        )
        agreed = typed == to_type
    if not agreed:
        raise CommandError(Code.USAGE, "nothing was done")


def _summary(chosen: Sequence[EntryView]) -> str:
    """The exact number, where they are, and what they died of."""
    queues = Counter(view.queue for view in chosen)
    errors = Counter(last.error.type for last in map(last_failure, chosen) if last is not None)
    noun = "dead letter" if len(chosen) == 1 else "dead letters"
    text = f"{len(chosen)} {noun}"
    if queues:
        text += f" in {', '.join(f'{name} ({count})' for name, count in queues.items())}"
    if errors:
        text += f", died of {', '.join(f'{kind} ({count})' for kind, count in errors.most_common(TOP))}"
        if len(errors) > TOP:
            text += f" and {len(errors) - TOP} more"
    return text
