"""What is done to many dead letters at once: agreed to, carried out queue by queue, and gone on with.

The number that is shown is the number that is meant: it was written down, and what dies later is not touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import click

from duraq.acts import BATCH, PURGE, REMOVE, Act, Acts, Letter, Outcome, new_id
from duraq.cli.failing import Code, CommandError
from duraq.cli.look import missed
from duraq.cli.options import F, Settings
from duraq.cli.output import Row, conclude, show_rows
from duraq.cli.rows import DEAD_COLUMNS, ENTRY_MORE, entry_row
from duraq.errors import ActNotFound, QueueError
from duraq.model import last_failure
from duraq.options import entry_id
from duraq.safe_text import safe_text
from duraq.views import EntryView

if TYPE_CHECKING:
    from duraq.storage.base import Storage

TOP = 3  # error types that a question names
LONGEST_ID = 64
OUTCOMES = {"retry": "ready", "remove": "removed", "purge": "purged for good"}
WORDS = {"retry": "retry", "remove": "rm", "purge": "purge QUEUE"}

# The act of that id on that queue, of which nothing is written down yet.
New = Callable[[Acts, str, str], Act]


class Consent(NamedTuple):
    """What was said about going on. ``act``: the id of one that may have begun; ``to_type``: to be typed."""

    dry_run: bool
    yes: bool
    expect: int | None
    act: str | None
    to_type: str | None = None


def asking(command: F) -> F:
    """Give a command the options of everything that changes many entries at once."""
    for option in (
        click.option("--act", metavar="ID", help="Its id; if it was interrupted, go on with it."),
        click.option("--reason", default="", help="Why; kept for seven days."),
        click.option("--expect", type=click.IntRange(0), metavar="N", help="Refuse unless it is that many."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("-n", "--dry-run", is_flag=True, help="Only show what would be done."),
    ):
        command = option(command)
    return command


def check_selection(act: str | None, *given: bool, says: str) -> None:
    """Raise CommandError unless it was said in one way what is meant; an act that has begun knows it."""
    if given.count(True) > 1 or (act is None and not any(given)):
        raise CommandError(Code.USAGE, f"{says}, or --where FILTER; or --act ID to go on with one")


def carry_out(
    said: Settings,
    verb: str,
    chosen: Sequence[EntryView],
    problems: list[QueueError],
    consent: Consent,
    new: New,
) -> int:
    """Ask if need be, then do it; what somebody else was quicker with holds up nothing."""
    begun = _begun(said, verb, consent.act)
    if consent.act is not None and not begun and not chosen and not problems:
        raise ActNotFound(f"no act {consent.act!r} has begun, so it must be said what is meant by it")
    meant = _Meant(chosen, begun)
    if consent.expect not in {None, meant.count}:
        raise CommandError(
            Code.CONFLICT, f"{meant.count} are meant by this, not {consent.expect}; nothing was done"
        )
    if consent.dry_run:
        said.say(f"would {verb} {meant}")
        show_rows(said, "duraq.entries/1", DEAD_COLUMNS, map(entry_row, chosen), more=ENTRY_MORE)
        return missed(said, problems, partly=bool(chosen))
    if not meant.count:
        said.say(f"nothing to {verb}")
        return missed(said, problems, partly=False)
    if not consent.yes:
        _ask(said, verb, meant, consent.to_type)
    rows: list[Row] = [{"id": None, "queue": None, "status": None, "error": str(each)} for each in problems]
    name = consent.act or new_id()
    troubles: list[Exception] = [*problems]
    with said.open() as storage:
        acts = Acts(storage)
        # All together: whoever is killed on the way has begun with all of it or with nothing.
        planned = acts.plan(
            (new(acts, queue, _id(name, queue)), letters) for queue, letters in meant.new.items()
        )
        _announce(said, verb, name, meant.count)
        for act in [*begun.values(), *planned]:
            for outcome in _until_interrupted(
                said, acts.carry_out(act), f"duraq dlq {WORDS[verb]} --act {name}"
            ):
                error, status = outcome.error, OUTCOMES[verb] if outcome.error is None else None
                if error is not None and begun:
                    # Most of these were done by it before; nobody can tell them from the others.
                    error, status = None, "passed over"
                text = None if error is None else str(error)
                rows.append({"id": outcome.id, "queue": act.queue, "status": status, "error": text})
                troubles += [] if error is None else [error]
    return conclude(said, f"duraq.dlq.{verb}/1", rows, troubles)


class _Meant:
    """The entries that are meant: those of what has begun under that name, or else those chosen."""

    def __init__(self, chosen: Sequence[EntryView], begun: dict[str, Act]) -> None:
        self._chosen = [] if begun else list(chosen)
        self._begun = begun
        self.count = len(self._chosen) + sum(act.count for act in begun.values())

    @property
    def new(self) -> dict[str, list[Letter]]:
        """Those that no act is about yet, by queue."""
        found: dict[str, list[Letter]] = {}
        for view in self._chosen:
            found.setdefault(view.queue, []).append((view.id, view.token))
        return found

    def __str__(self) -> str:
        """The exact number, where they are, and what they died of."""
        queues = Counter(view.queue for view in self._chosen)
        queues.update({name: act.count for name, act in self._begun.items()})
        failures = (last_failure(view.history) for view in self._chosen)
        errors = Counter(last.error.type for last in failures if last is not None)
        text = "1 dead letter" if self.count == 1 else f"{self.count} dead letters"
        if queues:
            text += f" in {', '.join(f'{name} ({count})' for name, count in queues.items())}"
        if errors:
            text += f", died of {', '.join(f'{kind} ({count})' for kind, count in errors.most_common(TOP))}"
            if len(errors) > TOP:
                text += f" and {len(errors) - TOP} more"
        return text


def _begun(said: Settings, verb: str, name: str | None) -> dict[str, Act]:
    """The acts of that name that have begun, by queue."""
    if name is None:
        return {}
    if len(entry_id(name)) > LONGEST_ID:
        raise CommandError(Code.USAGE, f"--act {name!r} is longer than {LONGEST_ID} characters")
    with said.open() as storage:
        found = acts_of(storage, name)
    for act in found:
        if act.verb != verb:
            raise CommandError(Code.CONFLICT, f"act {name} is another one: {act.verb} in queue {act.queue}")
    return {act.queue: act for act in found}


def acts_of(storage: Storage, name: str) -> list[Act]:
    """What was begun under one name: an act for each queue."""
    return [act for act in Acts(storage).all() if act.id == _id(name, act.queue)]


def last_removal(storage: Storage) -> str:
    """The name of what removed any dead letters last. Raises ActNotFound."""
    for act in reversed(Acts(storage).all()):
        if act.verb == REMOVE:
            return act.id.removesuffix(_id("", act.queue))
    raise ActNotFound("no dead letters were removed in the last seven days, or they were purged")


def _id(name: str, queue: str) -> str:
    # An act is about one queue. The queue's name itself may be too long.
    return f"{name}:{blake2b(queue.encode(), digest_size=4).hexdigest()}"


def _announce(said: Settings, verb: str, name: str, count: int) -> None:
    if count > BATCH:
        said.say(f"act {name}: if it is interrupted it goes on with duraq dlq {WORDS[verb]} --act {name}")
    if verb == REMOVE:
        said.say(f"to bring them back within seven days: duraq undo {name}")


def _until_interrupted(said: Settings, outcomes: Iterator[Outcome], command: str) -> Iterator[Outcome]:
    done = 0
    try:
        for outcome in outcomes:
            yield outcome
            done += outcome.error is None
    except KeyboardInterrupt:
        said.say(f"{done} done; to go on: {command}")
        raise


def _ask(said: Settings, verb: str, meant: _Meant, to_type: str | None) -> None:
    """Return if a person agrees. Raises CommandError if not, or if there is nobody to ask."""
    if not said.can_ask:
        raise CommandError(
            Code.USAGE, f"this would {verb} {meant}; there is no terminal to ask at", "say --yes"
        )
    question = safe_text(f"{verb.capitalize()} {meant}", 400)
    if verb == PURGE:
        question += ", for good: this cannot be undone"
    if to_type is None:
        agreed = click.confirm(f"{question}?", default=False, err=True)
    else:
        typed = click.prompt(
            f"{question}. Type the queue's name to go on", default="", show_default=False, err=True
        )
        agreed = typed == to_type
    if not agreed:
        raise CommandError(Code.USAGE, "nothing was done")
