"""dlq export and import: dead letters as lines of JSON."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from duraq.cli.completing import QUEUE
from duraq.cli.failing import Code, CommandError
from duraq.cli.feed import INPUT_LIMIT
from duraq.cli.input import STDIN, parse_json
from duraq.cli.look import matching
from duraq.cli.making import make_queue
from duraq.cli.options import FILTER_HELP, common, filtered, in_time, settings
from duraq.cli.output import Row, conclude
from duraq.cli.overview import inspecting
from duraq.cli.several import Several
from duraq.errors import DuplicateEntry, DuraqError
from duraq.letters import Imported, bring_in, exported
from duraq.model import EntryStatus, check_queue_name
from duraq.safe_text import ascii_json

if TYPE_CHECKING:
    from duraq.where import Where

LONGEST_LINE = 8 * INPUT_LIMIT  # a payload at length, and all the errors of its attempts


@click.command("export", epilog=FILTER_HELP)
@click.argument("queues", type=QUEUE, nargs=-1)
@filtered
@in_time
@common
def export(
    queues: tuple[str, ...], where: Where | None, since: datetime | None, until: datetime | None
) -> int:
    """Print the dead letters of QUEUES, or of all: a line of JSON each, with all that they are.

    They stay where they are. `dlq import` brings them into another storage, or back into this one.
    """
    said = settings()
    count = 0
    with inspecting(said) as inspector:
        several = Several(inspector, queues)
        for view in several.each(
            lambda name: matching(inspector, name, EntryStatus.DEAD, where, since, until)
        ):
            click.echo(ascii_json(exported(view)))
            count += 1
    said.say(f"{count} exported")
    return several.conclude(said)


@click.command("import")
@click.argument("file")
@click.option(
    "--queue", type=QUEUE, metavar="QUEUE", help="Into that queue instead of those that they came from."
)
@click.option("-n", "--dry-run", is_flag=True, help="Only check the lines, and say how many there are.")
@common
def import_(file: str, queue: str | None, dry_run: bool) -> int:
    """Bring in dead letters that `dlq export` has written to FILE; - is stdin.

    Each is a dead letter again, whole, as the last one of its queue, which is made if it is missing. Every
    line is checked before the first is brought in. One whose id is in use is passed over, so that an import
    that was interrupted can be repeated.
    """
    said = settings()
    if queue is not None:
        check_queue_name(queue)
    tally: Counter[str] = Counter()
    rows: list[Row] = []
    problems: list[Exception] = []
    with ExitStack() as stack:
        lines = _opened(stack, file)
        queues = Counter(queue or letter.queue for letter in _letters(lines))
        if dry_run or not queues:
            there = ", ".join(f"{name} ({number})" for name, number in sorted(queues.items()))
            text = f"would import {queues.total()} dead letters, to {there}"
            said.say(text if queues else "nothing to import")
            return Code.DONE
        storage = stack.enter_context(said.open(create=True, max_payload_bytes=INPUT_LIMIT))
        for name in sorted(queues.keys() - set(storage.queues())):
            make_queue(storage, name)
            said.say(f"made a new queue: {name}")
        for name, outcome in bring_in(storage, _letters(lines, queue)):
            error = outcome.error
            if isinstance(error, DuplicateEntry):
                error = DuplicateEntry(f"queue {name}: {outcome.id} is there already, and was left as it is")
            if error is None:
                tally["dead"] += 1
            else:
                problems.append(error)
            if error is not None or said.output is not None:
                row: Row = {"id": outcome.id, "queue": name, "status": "dead", "error": None}
                rows.append(row if error is None else {**row, "status": None, "error": str(error)})
    if not tally and len(problems) > 1 and all(isinstance(each, DuplicateEntry) for each in problems):
        raise CommandError(Code.CONFLICT, f"nothing was imported: all {len(problems)} are there already")
    return conclude(said, "duraq.dlq.import/1", rows, problems, tally)


def _opened(stack: ExitStack, file: str) -> BinaryIO:
    """The file, to be read twice."""
    if file != STDIN:
        try:
            found: BinaryIO = stack.enter_context(Path(file).open("rb"))  # noqa: SIM115 - as below
            if found.seekable():
                return found
        except OSError as error:
            raise CommandError(Code.USAGE, f"{file}: {error.strerror}") from None
    elif sys.stdin.isatty():
        raise CommandError(Code.USAGE, "FILE is to come from stdin, which is a terminal", "see --help")
    else:
        found = sys.stdin.buffer
    copy: BinaryIO = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack is one
    shutil.copyfileobj(found, copy)
    return copy


def _letters(lines: BinaryIO, queue: str | None = None) -> Iterator[Imported]:
    """What the lines say. Raises CommandError, which names the line, if one is none of ours."""
    lines.seek(0)
    number = 0
    while line := lines.readline(LONGEST_LINE):
        number += 1
        if not line.strip():
            continue
        try:
            found = Imported.of(parse_json(line, "it"), INPUT_LIMIT)
        except (DuraqError, ValueError) as error:
            raise CommandError(Code.USAGE, f"line {number}: {error}", "nothing was imported") from None
        yield found if queue is None else found.moved_to(queue)
