"""What is done to many dead letters at once, on the command line: agreed to, watched, and gone on with.

What it means, and how it is carried out, is in ``duraq.bulk``.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any, NamedTuple

import click

from duraq import bulk
from duraq.acts import BATCH, MOVE, PURGE, REMOVE, RETRY, Act, Acts, Outcome, check_target, new_id
from duraq.bulk import BulkRun, Meant, Pace
from duraq.cli.failing import Code, CommandError
from duraq.cli.look import missed
from duraq.cli.options import PERCENT, RATE, F, Settings
from duraq.cli.output import Row, conclude, show_rows
from duraq.cli.overview import inspecting
from duraq.cli.rows import DEAD_COLUMNS, ENTRY_MORE, entry_row
from duraq.errors import ActNotFound, DuraqError
from duraq.safe_text import safe_text
from duraq.views import EntryView

OUTCOMES = {RETRY: "ready", MOVE: "moved", REMOVE: "removed", PURGE: "purged for good"}
# What it is called where it is asked for, and how it is gone on with.
WORDS = {RETRY: "retry", MOVE: "move", REMOVE: "remove", PURGE: "purge"}
COMMANDS = {RETRY: "dlq retry", MOVE: "dlq retry --to {to}", REMOVE: "dlq rm", PURGE: "dlq purge QUEUE"}
_PROGRESS = 0.2  # seconds between two lines that say how far it is


class Consent(NamedTuple):
    """What was said about going on, and how. ``act``: the name of one that may have begun."""

    dry_run: bool
    yes: bool
    expect: int | None
    most: int | None
    act: str | None
    reason: str
    rate: float | None = None
    failing: float | None = None

    def check(self, verb: str) -> None:
        """Raise InvalidOption if it cannot be done so."""
        self.pace.check(verb)

    @property
    def pace(self) -> Pace:
        """How carefully."""
        return Pace(self.rate, self.failing)


_ASKING = (
    click.option("-n", "--dry-run", is_flag=True, help="Only show what would be done."),
    click.option("-y", "--yes", is_flag=True, help="Do not ask."),
    click.option("--expect", type=click.IntRange(0), metavar="N", help="Refuse unless it is that many."),
    click.option("--max", "most", type=click.IntRange(1), metavar="N", help="Only the first N of them."),
    click.option("--act", metavar="ID", help="Its id; if it was interrupted, go on with it."),
    click.option("--reason", default="", help="Why; kept for seven days."),
)
_PACED = (
    click.option("--rate", type=RATE, metavar="N/s", help="So many a second, a minute (/m) or an hour (/h)."),
    click.option(
        "--stop-if-failing",
        "failing",
        type=PERCENT,
        metavar="PCT",
        help="With --rate: stop once more than that share of those that ended again have failed.",
    ),
)


def asking(*, paced: bool = False) -> Callable[[F], F]:
    """Give a command the options of everything that changes many entries, as its parameter ``consent``."""

    def decorate(command: F) -> F:
        @wraps(command)
        def asked(**given: Any) -> Any:
            said = {name: given.pop(name) for name in Consent._fields if name in given}
            return command(consent=Consent(**said), **given)

        for option in reversed((*_ASKING, *(_PACED if paced else ()))):
            asked = option(asked)
        return asked  # type: ignore[return-value] # a command takes what click gives it

    return decorate


def check_selection(act: str | None, *given: bool, says: str) -> None:
    """Raise CommandError unless it was said in one way what is meant; an act that has begun knows it."""
    if given.count(True) > 1 or (act is None and not any(given)):
        raise CommandError(Code.USAGE, f"{says}, or --where FILTER; or --act ID to go on with one")


class Selected:
    """What was chosen, what keeps others from it, and, for a dry run, the entries themselves."""

    def __init__(self, found: Iterable[EntryView], problems: Sequence[DuraqError], consent: Consent) -> None:
        """There may be more of the problems once all was found."""
        self.views: list[EntryView] = []
        self.meant = Meant.of(self._kept(found) if consent.dry_run else found, consent.most)
        self.problems = list(problems)

    def _kept(self, found: Iterable[EntryView]) -> Iterator[EntryView]:
        for view in found:
            self.views.append(view)
            yield view


def carry_out(
    said: Settings,
    verb: str,
    selected: Selected,
    consent: Consent,
    *,
    to_type: str | None = None,
    **more: Any,
) -> int:
    """Ask if need be, then do it; what somebody else was quicker with holds up nothing.

    ``to_type``: what somebody must type who agrees. ``more``: what the act says besides.
    """
    consent.check(verb)
    begun = _begun(said, verb, consent.act, more.get("to", ""))
    problems = selected.problems
    meant = Meant() if begun else selected.meant
    if consent.act is not None and not begun and not meant.count and not problems:
        raise ActNotFound(f"no act {consent.act!r} has begun, so it must be said what is meant by it")
    queues = {act.queue: act.count for act in begun} or meant.queues
    if more.get("to") and not begun:
        with inspecting(said) as inspector:
            for queue in queues:
                check_target(queue, more["to"], inspector.queues())
    count = sum(queues.values())
    text = bulk.in_words(queues, meant.errors)
    if consent.expect not in {None, count}:
        raise CommandError(
            Code.CONFLICT, f"{count} are meant by this, not {consent.expect}; nothing was done"
        )
    if consent.dry_run:
        said.say(f"would {WORDS[verb]} {text}")
        show_rows(said, "duraq.entries/1", DEAD_COLUMNS, map(entry_row, selected.views), more=ENTRY_MORE)
        return missed(said, problems, partly=bool(selected.views))
    if not count:
        said.say(f"nothing to {WORDS[verb]}")
        return missed(said, problems, partly=False)
    if not consent.yes:
        _ask(said, verb, text, to_type, more.get("to"))
    name = consent.act or new_id()
    with said.open() as storage:
        planned = begun or bulk.plan(Acts(storage), verb, name, meant, reason=consent.reason, **more)
        go_on = f"duraq {COMMANDS[verb].format(**more)} --act {name}"
        _announce(said, verb, name, count, go_on)
        run = BulkRun(storage, planned, consent.pace)
        return _Result(said, verb, problems, resumed=bool(begun)).of(run, go_on)


class _Result:
    """What is told of a run: rows if they were asked for, numbers if not."""

    def __init__(self, said: Settings, verb: str, problems: Sequence[DuraqError], *, resumed: bool) -> None:
        self._said = said
        self._verb = verb
        self._resumed = resumed
        self._rows: list[Row] = [
            {"id": None, "queue": None, "status": None, "error": str(each)} for each in problems
        ]
        self._troubles: list[Exception] = [*problems]
        self._tally: Counter[str] = Counter()

    def of(self, run: BulkRun, go_on: str) -> int:
        """Carry it out; the exit code."""
        try:
            for act, outcome in _shown(self._said, run):
                self._note(act, outcome)
        except KeyboardInterrupt:
            self._said.say(f"{run.done} done; to go on: {go_on}")
            raise
        code = conclude(self._said, f"duraq.dlq.{self._verb}/1", self._rows, self._troubles, self._tally)
        if run.stopped is None:
            return code
        left = run.count - run.done - run.passed_over
        hint = f"{run.done} were put back, {left} are still to be; to go on: {go_on}"
        raise CommandError(Code.PARTLY, f"stopped: {run.stopped}", hint)

    def _note(self, act: Act, outcome: Outcome) -> None:
        error = outcome.error
        status = OUTCOMES[self._verb] if error is None else None
        if error is not None and self._resumed:
            # Most of these were done by it before; nobody can tell them from the others.
            error, status = None, "passed over"
        if status is not None:
            self._tally[status] += 1
        if self._said.output is not None or error is not None:
            text = None if error is None else str(error)
            self._rows.append({"id": outcome.id, "queue": act.queue, "status": status, "error": text})
        if error is not None:
            self._troubles.append(error)


def _shown(said: Settings, run: BulkRun) -> Iterator[tuple[Act, Outcome]]:
    """The outcomes; somebody at a terminal who waits for them sees how far it is."""
    if said.quiet or said.is_json or not sys.stderr.isatty():
        yield from run
        return
    began = shown = time.monotonic()
    for each in run:
        yield each
        now = time.monotonic()
        # What is over in a second need not be watched.
        if now - began > 1 and now - shown > _PROGRESS:
            shown = now
            again = f", {run.failed} of {run.ended} failed again" if run.ended else ""
            click.echo(f"\r{run.done + run.passed_over} of {run.count}{again}\x1b[K", err=True, nl=False)
    if shown > began:
        click.echo("\r\x1b[K", err=True, nl=False)


def _begun(said: Settings, verb: str, name: str | None, to: str) -> list[Act]:
    """The acts of that name that have begun."""
    if name is None:
        return []
    bulk.check_name(name)
    with said.open() as storage:
        found = bulk.begun(Acts(storage), name)
    for act in found:
        if (act.verb, act.to) != (verb, to):
            where = f" to {act.to}" if act.to else ""
            raise CommandError(
                Code.CONFLICT, f"act {name} is another one: {act.verb}{where} in queue {act.queue}"
            )
    return found


def _announce(said: Settings, verb: str, name: str, count: int, go_on: str) -> None:
    if count > BATCH:
        said.say(f"act {name}: if it is interrupted it goes on with {go_on}")
    if verb == REMOVE:
        said.say(f"to bring them back within seven days: duraq undo {name}")


def _ask(said: Settings, verb: str, text: str, to_type: str | None, to: str | None) -> None:
    """Return if a person agrees. Raises CommandError if not, or if there is nobody to ask."""
    word = WORDS[verb]
    if not said.can_ask:
        raise CommandError(
            Code.USAGE, f"this would {word} {text}; there is no terminal to ask at", "say --yes"
        )
    question = safe_text(f"{word.capitalize()} {text}", 400)
    if verb == PURGE:
        question += ", for good: this cannot be undone"
    if to:
        question += f", to queue {to}"
    if to_type is None:
        agreed = click.confirm(f"{question}?", default=False, err=True)
    else:
        typed = click.prompt(
            f"{question}. Type the queue's name to go on", default="", show_default=False, err=True
        )
        agreed = typed == to_type
    if not agreed:
        raise CommandError(Code.USAGE, "nothing was done")
