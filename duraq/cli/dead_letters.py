"""dlq: the entries that were given up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from duraq import bulk, options
from duraq.acts import MOVE, PURGE, REMOVE, RETRY, Acts
from duraq.cli.bulk import Consent, Selected, asking, carry_out, check_selection
from duraq.cli.completing import QUEUE
from duraq.cli.failing import Code, CommandError
from duraq.cli.failures import by_option, raw_option, show_dead
from duraq.cli.feed import INPUT_LIMIT, payload_text
from duraq.cli.input import STDIN, edited, parse_json, words
from duraq.cli.letters import export, import_
from duraq.cli.look import find_entries, matching, missed, ordered, show_entries
from duraq.cli.options import DURATION, FILTER_HELP, Settings, common, filtered, in_time, settings
from duraq.cli.output import Row, conclude, show_rows
from duraq.cli.overview import inspecting
from duraq.cli.pager import paged
from duraq.cli.rows import DEAD_COLUMNS, ENTRY_MORE, entry_row
from duraq.cli.several import Several
from duraq.dead_letters import DeadLetterQueue
from duraq.errors import DuraqError, EntryNotFound, QueueNotFound
from duraq.inspector import Inspector
from duraq.model import EntryStatus
from duraq.views import EntryView

if TYPE_CHECKING:
    from duraq.where import Where


@click.group(no_args_is_help=True)
@common
def dlq() -> None:
    """Dead letters: entries that failed too often, kept until somebody decides."""


dlq.add_command(export)
dlq.add_command(import_)


@dlq.command("ls", epilog=FILTER_HELP)
@click.argument("queues", type=QUEUE, nargs=-1)
@filtered
@in_time
@click.option("--sort", metavar="[-]FIELD", help="By that column; with a minus, downwards.")
@click.option("-l", "--limit", type=click.IntRange(1), help="At most that many.")
@click.option("--offset", type=click.IntRange(0), default=0, help="After that many.")
@common
def dlq_ls(
    queues: tuple[str, ...],
    where: Where | None,
    since: datetime | None,
    until: datetime | None,
    sort: str | None,
    limit: int | None,
    offset: int,
) -> int:
    """The dead letters of QUEUES, or of all; --since and --until go by when they died."""
    said = settings()
    with inspecting(said) as inspector, paged(said):
        several = Several(inspector, queues)
        views = several.each(lambda name: matching(inspector, name, EntryStatus.DEAD, where, since, until))
        rows = ordered(map(entry_row, views), sort, (*DEAD_COLUMNS, *ENTRY_MORE), limit, offset)
        show_rows(said, "duraq.entries/1", DEAD_COLUMNS, rows, more=ENTRY_MORE)
    return several.conclude(said)


@dlq.command("show")
@click.argument("ids", nargs=-1, required=True)
@click.option("--queue", type=QUEUE, metavar="QUEUE", help="If several queues have an entry of this id.")
@common
def dlq_show(ids: tuple[str, ...], queue: str | None) -> int:
    """Dead letters in full, with every attempt's error."""
    said = settings()
    given = words(ids, "IDS")
    with inspecting(said) as inspector, paged(said):
        found, problems = _dead(inspector, given, queue)
        show_entries(said, inspector, found)
    return missed(said, problems, partly=bool(found))


@dlq.command("errors")
@click.argument("queues", type=QUEUE, nargs=-1)
@by_option
@raw_option
@common
def dlq_errors(queues: tuple[str, ...], by: str, raw: bool) -> int:
    """What the dead letters of QUEUES, or of all, died of."""
    return show_dead(settings(), queues, by, raw=raw)


@dlq.command("retry", epilog=FILTER_HELP)
@click.argument("ids", nargs=-1)
@filtered
@click.option("--all", "everything", is_flag=True, help="Everything that is dead now; see --queue.")
@click.option("--queue", type=QUEUE, metavar="QUEUE", help="Only of this queue.")
@click.option("--to", type=QUEUE, metavar="QUEUE", help="Into that queue instead, as the last ones there.")
@click.option("--keep-attempts", is_flag=True, help="Count on from where they died.")
@click.option("--data", metavar="JSON", help="Put one back with another payload: JSON, @FILE or - for stdin.")
@click.option("--edit", is_flag=True, help="The same, with the payload to be edited in $EDITOR.")
@asking(paced=True)
@common
def retry(
    ids: tuple[str, ...],
    where: Where | None,
    everything: bool,
    queue: str | None,
    to: str | None,
    keep_attempts: bool,
    data: str | None,
    edit: bool,
    consent: Consent,
) -> int:
    """Put dead letters back into their queues; - reads IDS from stdin."""
    said = settings()
    check_selection(
        consent.act,
        bool(ids),
        everything,
        where is not None,
        says="name IDS, or - for those on stdin, or --all",
    )
    if data is not None or edit:
        alone = len(ids) == 1 and ids[0] != STDIN and not (edit and data is not None) and to is None
        if not alone or consent.dry_run or consent.act is not None:
            raise CommandError(Code.USAGE, "--data and --edit go with one ID, and not with each other")
        return _retry_with(said, ids[0], queue, data, keep_attempts=keep_attempts, reason=consent.reason)
    if to is not None and keep_attempts:
        raise CommandError(
            Code.USAGE, "in another queue attempts begin at 0; --keep-attempts does not go with --to"
        )
    # Nothing is lost by a retry, so those that were named one by one need no second thought.
    if to is None and ids and STDIN not in ids:
        consent = consent._replace(yes=True)
    more: dict[str, Any] = {"where": str(where or ""), "keep_attempts": keep_attempts, "to": to or ""}
    selected = _select(said, ids, where, queue, consent, everything=everything)
    return carry_out(said, RETRY if to is None else MOVE, selected, consent, **more)


def _retry_with(
    said: Settings, entry_id: str, queue: str | None, data: str | None, *, keep_attempts: bool, reason: str
) -> int:
    """Put one back with another payload."""
    with inspecting(said) as inspector:
        found, problems = _dead(inspector, [entry_id], queue)
    if problems:
        raise problems[0]
    payload = _edited(said, found[0]) if data is None else parse_json(payload_text(data))
    with said.open(max_payload_bytes=INPUT_LIMIT) as storage:
        dead: DeadLetterQueue[Any] = DeadLetterQueue(found[0].queue, None, storage)
        # Not over somebody else's change: meanwhile it may have been put back, and have died again.
        token = found[0].token
        dead.retry(found[0].id, keep_attempts=keep_attempts, data=payload, token=token, reason=reason)
    row = {"id": found[0].id, "queue": found[0].queue, "status": "ready", "error": None}
    return conclude(said, "duraq.dlq.retry/1", [row], [])


def _edited(said: Settings, view: EntryView) -> Any:
    if not said.can_ask:
        raise CommandError(Code.USAGE, "--edit needs a terminal", "--data takes the payload from elsewhere")
    return parse_json(edited(view.payload))


@dlq.command("rm", epilog=FILTER_HELP)
@click.argument("ids", nargs=-1)
@filtered
@click.option("--queue", type=QUEUE, metavar="QUEUE", help="Only of this queue.")
@asking()
@common
def rm(ids: tuple[str, ...], where: Where | None, queue: str | None, consent: Consent) -> int:
    """Remove dead letters; `duraq undo` brings them back within seven days. - reads IDS from stdin."""
    said = settings()
    check_selection(consent.act, bool(ids), where is not None, says="name IDS, or - for those on stdin")
    selected = _select(said, ids, where, queue, consent)
    return carry_out(said, REMOVE, selected, consent, where=str(where or ""))


@dlq.command("purge", epilog=FILTER_HELP)
@click.argument("queue", type=QUEUE)
@filtered
@click.option("--older-than", type=DURATION, help="Only what died longer ago.")
@asking()
@common
def purge(queue: str, where: Where | None, older_than: timedelta | None, consent: Consent) -> int:
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
        selected = Selected((view for view in dead if view.updated_at <= before), [], consent)
    count = selected.meant.count
    is_all = older_than is None and where is None and consent.most is None
    if consent.yes and is_all and consent.expect is None and not consent.dry_run:
        raise CommandError(Code.USAGE, f"all {count} dead letters of {queue}: say --expect {count} as well")
    return carry_out(said, PURGE, selected, consent, to_type=queue, where=str(where or ""))


@click.command(epilog=FILTER_HELP)
@click.argument("queue", type=QUEUE)
@filtered
@click.option("--all", "everything", is_flag=True, help="All of its dead letters.")
@click.option("--to", type=QUEUE, required=True, metavar="QUEUE", help="Where to.")
@asking(paced=True)
@common
def move(queue: str, where: Where | None, everything: bool, to: str, consent: Consent) -> int:
    """Put dead letters of QUEUE into another queue, where they are ready again.

    Their payloads, headers and histories stay, attempts begin at 0, and they are the last ones there. What is
    not dead stays where it is: somebody may be about to work it.
    """
    said = settings()
    if not everything and where is None and consent.act is None:
        _check_no_entry(said, queue, to)
    check_selection(consent.act, everything, where is not None, says="say --all if that is meant")
    if where is not None and EntryStatus.DEAD not in where.states():
        raise CommandError(Code.USAGE, "only dead letters can be moved", "ack and put do it one by one")
    selected = _select(said, (), where, queue, consent, everything=everything)
    return carry_out(said, MOVE, selected, consent, where=str(where or ""), to=to)


def _check_no_entry(said: Settings, name: str, to: str) -> None:
    """Raise CommandError if that is no queue: `dlq retry` takes entries, and many an id might be a name."""
    with inspecting(said) as inspector:
        if name not in inspector.queues():
            hint = f"move takes a queue; if that is an entry: duraq move QUEUE --where id={name} --to {to}"
            raise CommandError(Code.NOT_FOUND, str(QueueNotFound.among(name, inspector.queues())), hint)


@dlq.command("acts")
@common
def dlq_acts() -> None:
    """What was done to dead letters in the last seven days, oldest first."""
    _show_acts(settings(), undoable=False)


def _show_acts(said: Settings, *, undoable: bool) -> None:
    """What was done lately or, of that, only what can be undone."""
    with said.open() as storage:
        found = [act for act in Acts(storage).all() if act.verb == REMOVE or not undoable]
    rows = [
        {
            "act": bulk.name_of(act),
            "at": act.at,
            "verb": act.verb,
            "queue": act.queue,
            "count": act.count,
            "who": act.who,
            "reason": act.reason,
            "where": act.where,
            "of": act.of.removesuffix(bulk.act_id("", act.queue)) or None,
            "to": act.to or None,
        }
        for act in found
    ]
    columns = ("act", "at", "verb", "queue", "count", "who", "reason")
    show_rows(said, "duraq.dlq.acts/1", columns, rows, more=("where", "of", "to"), name="act")


@click.command()
@click.argument("act", required=False)
@click.option("--list", "listing", is_flag=True, help="Only list what can be brought back, oldest first.")
@click.option("--reason", default="", help="Why; kept for seven days.")
@click.option("-y", "--yes", is_flag=True, expose_value=False, help="As elsewhere; this never asks.")
@common
def undo(act: str | None, listing: bool, reason: str) -> int:
    """Bring back the dead letters that ACT has removed, or what was removed last.

    Each is a dead letter again, as it was. `duraq dlq acts` lists all that was done.
    """
    said = settings()
    if listing:
        _show_acts(said, undoable=True)
        return Code.DONE
    rows: list[Row] = []
    problems: list[Exception] = []
    with said.open() as storage:
        acts = Acts(storage)
        name = bulk.last_removal(acts) if act is None else act
        undone = bulk.begun(acts, name) or [acts.get(name)]
        for each in undone:
            dead: DeadLetterQueue[Any] = DeadLetterQueue(each.queue, None, storage)
            for outcome in dead.undoing(each.id, reason=reason):
                text = None if outcome.error is None else str(outcome.error)
                status = "dead" if text is None else None
                rows.append({"id": outcome.id, "queue": each.queue, "status": status, "error": text})
                problems += [] if outcome.error is None else [outcome.error]
    if not rows:
        said.say(f"nothing to bring back of act {name}")
    return conclude(said, "duraq.undo/1", rows, problems)


def _select(
    said: Settings,
    ids: tuple[str, ...],
    where: Where | None,
    queue: str | None,
    consent: Consent,
    *,
    everything: bool = False,
) -> Selected:
    """The dead letters that are meant: those named, else those that match, else all."""
    with inspecting(said) as inspector:
        found: Iterable[EntryView] = ()  # what an act that has begun is about is written down
        problems: Sequence[DuraqError] = ()
        if ids:
            found, problems = _dead(inspector, words(ids, "IDS"), queue)
        elif where is not None or everything:
            several = Several(inspector, () if queue is None else (queue,))
            found = several.each(lambda name: matching(inspector, name, EntryStatus.DEAD, where))
            problems = several.problems
        return Selected(found, problems, consent)


def _dead(
    inspector: Inspector, ids: list[str], queue: str | None
) -> tuple[list[EntryView], list[DuraqError]]:
    """Those of them that are dead, and what is the matter with the others."""
    found, problems = find_entries(inspector, ids, queue)
    dead = [view for view in found if view.status is EntryStatus.DEAD]
    problems += [
        EntryNotFound(f"queue {view.queue}: entry {view.id} is {view.status}, not dead")
        for view in found
        if view.status is not EntryStatus.DEAD
    ]
    return dead, problems
