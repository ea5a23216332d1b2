"""dlq: the entries that were given up."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
import orjson

from duraq import options
from duraq.acts import PURGE, REMOVE, RETRY, Act, Acts
from duraq.cli.bulk import Consent, acts_of, asking, carry_out, check_selection, last_removal
from duraq.cli.failing import Code, CommandError
from duraq.cli.feed import INPUT_LIMIT, payload_text
from duraq.cli.input import STDIN, parse_json, words
from duraq.cli.look import find_entries, inspecting, matching, missed, show_entries
from duraq.cli.options import DURATION, FILTER_HELP, Settings, common, filtered, settings
from duraq.cli.output import Row, conclude, show_rows
from duraq.cli.rows import DEAD_COLUMNS, ENTRY_MORE, entry_row
from duraq.dead_letters import DeadLetterQueue
from duraq.errors import EntryNotFound, QueueError
from duraq.inspector import Inspector
from duraq.model import EntryStatus
from duraq.views import EntryView

if TYPE_CHECKING:
    from duraq.where import Where


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
@click.option("--data", metavar="JSON", help="Put one back with another payload: JSON, @FILE or - for stdin.")
@click.option("--edit", is_flag=True, help="The same, with the payload to be edited in $EDITOR.")
@asking
@common
def retry(
    ids: tuple[str, ...],
    where: Where | None,
    everything: bool,
    queue: str | None,
    keep_attempts: bool,
    data: str | None,
    edit: bool,
    dry_run: bool,
    yes: bool,
    expect: int | None,
    reason: str,
    act: str | None,
) -> int:
    """Put dead letters back into their queues; - reads IDS from stdin."""
    said = settings()
    check_selection(
        act, bool(ids), everything, where is not None, says="name IDS, or - for those on stdin, or --all"
    )
    if data is not None or edit:
        if len(ids) != 1 or ids[0] == STDIN or (edit and data is not None) or dry_run or act is not None:
            raise CommandError(Code.USAGE, "--data and --edit go with one ID, and not with each other")
        return _retry_with(said, ids[0], queue, data, keep_attempts=keep_attempts, reason=reason)
    with inspecting(said) as inspector:
        chosen, problems = _chosen(inspector, ids, where, queue, everything=everything)

    def new(acts: Acts, queue: str, act_id: str) -> Act:
        more = {"where": str(where or ""), "keep_attempts": keep_attempts}
        return acts.new(RETRY, queue, act_id, reason=reason, **more)

    # Nothing is lost by a retry, so those that were named one by one need no second thought.
    named = bool(ids) and STDIN not in ids
    return carry_out(said, RETRY, chosen, problems, Consent(dry_run, yes or named, expect, act), new)


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
        dead.retry(entry_id, keep_attempts=keep_attempts, data=payload, reason=reason)
    row = {"id": entry_id, "queue": found[0].queue, "status": "ready", "error": None}
    return conclude(said, "duraq.dlq.retry/1", [row], [])


def _edited(said: Settings, view: EntryView) -> Any:
    if not said.can_ask:
        raise CommandError(Code.USAGE, "--edit needs a terminal", "--data takes the payload from elsewhere")
    # Escapes stay escapes: what strangers wrote must not reach the editor's terminal as it is.
    before = json.dumps(orjson.loads(view.payload), indent=2).replace("\x7f", "\\u007f")
    after = click.edit(before, extension=".json")
    if after is None or after.strip() == before.strip():
        raise CommandError(Code.USAGE, "the payload was not changed; nothing was done")
    return parse_json(after.encode("utf-8", "surrogateescape"))


@dlq.command("rm", epilog=FILTER_HELP)
@click.argument("ids", nargs=-1)
@filtered
@click.option("--queue", metavar="QUEUE", help="Only of this queue.")
@asking
@common
def rm(
    ids: tuple[str, ...],
    where: Where | None,
    queue: str | None,
    dry_run: bool,
    yes: bool,
    expect: int | None,
    reason: str,
    act: str | None,
) -> int:
    """Remove dead letters; `duraq undo` brings them back within seven days. - reads IDS from stdin."""
    said = settings()
    check_selection(act, bool(ids), where is not None, says="name IDS, or - for those on stdin")
    with inspecting(said) as inspector:
        chosen, problems = _chosen(inspector, ids, where, queue)

    def new(acts: Acts, queue: str, act_id: str) -> Act:
        return acts.new(REMOVE, queue, act_id, reason=reason, where=str(where or ""))

    return carry_out(said, REMOVE, chosen, problems, Consent(dry_run, yes, expect, act), new)


@dlq.command("purge", epilog=FILTER_HELP)
@click.argument("queue")
@filtered
@click.option("--older-than", type=DURATION, help="Only what died longer ago.")
@asking
@common
def purge(
    queue: str,
    where: Where | None,
    older_than: timedelta | None,
    dry_run: bool,
    yes: bool,
    expect: int | None,
    reason: str,
    act: str | None,
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

    def new(acts: Acts, queue: str, act_id: str) -> Act:
        return acts.new(PURGE, queue, act_id, reason=reason, where=str(where or ""))

    return carry_out(said, PURGE, chosen, [], Consent(dry_run, yes, expect, act, to_type=queue), new)


@dlq.command("acts")
@common
def dlq_acts() -> None:
    """What was done to dead letters in the last seven days, oldest first."""
    said = settings()
    with said.open() as storage:
        rows = [
            {
                "act": act.id.rpartition(":")[0] or act.id,
                "at": act.at,
                "verb": act.verb,
                "queue": act.queue,
                "count": act.count,
                "who": act.who,
                "reason": act.reason,
                "where": act.where,
                "of": act.of.rpartition(":")[0] or act.of or None,
            }
            for act in Acts(storage).all()
        ]
    columns = ("act", "at", "verb", "queue", "count", "who", "reason")
    show_rows(said, "duraq.dlq.acts/1", columns, rows, more=("where", "of"), name="act")


@click.command()
@click.argument("act", required=False)
@click.option("--reason", default="", help="Why; kept for seven days.")
@common
def undo(act: str | None, reason: str) -> int:
    """Bring back the dead letters that ACT has removed, or what was removed last.

    Each is a dead letter again, as it was. `duraq dlq acts` lists what was done.
    """
    said = settings()
    rows: list[Row] = []
    problems: list[Exception] = []
    with said.open() as storage:
        name = last_removal(storage) if act is None else act
        undone = acts_of(storage, name) or [Acts(storage).get(name)]
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


def _chosen(
    inspector: Inspector,
    ids: tuple[str, ...],
    where: Where | None,
    queue: str | None,
    *,
    everything: bool = False,
) -> tuple[list[EntryView], list[QueueError]]:
    """The dead letters that are meant: those named, else those that match, else all."""
    if ids:
        return _dead(inspector, words(ids, "IDS"), queue)
    if where is None and not everything:
        return [], []  # what an act that has begun is about is written down
    names = inspector.queues() if queue is None else [queue]
    return [view for name in names for view in matching(inspector, name, EntryStatus.DEAD, where)], []


def _dead(
    inspector: Inspector, ids: list[str], queue: str | None
) -> tuple[list[EntryView], list[QueueError]]:
    """Those of them that are dead, and what is the matter with the others."""
    found, problems = find_entries(inspector, ids, queue)
    dead = [view for view in found if view.status is EntryStatus.DEAD]
    problems += [
        EntryNotFound(f"queue {view.queue}: entry {view.id} is {view.status}, not dead")
        for view in found
        if view.status is not EntryStatus.DEAD
    ]
    return dead, problems
