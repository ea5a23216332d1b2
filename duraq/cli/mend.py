"""verify and repair: whether a storage is as it was written, and what to do if it is not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from duraq.cli.completing import QUEUE
from duraq.cli.failing import Code, CommandError
from duraq.cli.files_only import files_only
from duraq.cli.options import Settings, common, settings
from duraq.cli.output import Row, show_rows
from duraq.examining import Finding, Report
from duraq.examining import verify as examine
from duraq.mending import repair as mend
from duraq.safe_text import safe_text

COLUMNS = ("queue", "place", "records", "what")
MORE = ("ids", "path", "line", "byte", "length", "damage")


@click.command()
@click.argument("queues", type=QUEUE, nargs=-1)
@common
@files_only("verify")
def verify(queues: tuple[str, ...]) -> int:
    """Read every record of QUEUES, or of all, and the journal, and check it.

    Shows what is not as it was written: file, line and byte, how many records are lost by it, and which
    entries it concerns. Writes nothing, holds up nobody, and may run while the storage is worked. Ends with 7
    if anything is damaged.
    """
    said = settings()
    report = examine(said.storage(), queues or None)
    _show(said, report, () if report.sound else ["duraq repair --dry-run says what can be done"])
    return Code.DONE if report.sound else Code.DAMAGED


@click.command()
@click.argument("queues", type=QUEUE, nargs=-1)
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common
@files_only("repair")
def repair(queues: tuple[str, ...], *, dry_run: bool, yes: bool) -> int:
    """Set aside what is damaged in QUEUES, or in all, and make the rest usable.

    Each file that is changed is copied to a directory quarantine/ first. Nobody else may have the storage
    open. If it is interrupted, run it again.
    """
    said, names = settings(), queues or None
    planned = mend(said.storage(), names, dry_run=True)
    if planned.before.sound:
        _show(said, planned.before, ())
        return Code.DONE
    if not dry_run:
        if not yes:
            _ask(said, planned.before, planned.steps)
        planned = mend(said.storage(), names)
    _show(said, planned.before, [("would do: " if dry_run else "done: ") + step for step in planned.steps])
    if not dry_run:
        said.say("the storage is whole again; what was set aside is kept until you remove it")
    return Code.DONE


def _show(said: Settings, report: Report, steps: Iterable[str]) -> None:
    show_rows(
        said, "duraq.verify/1", COLUMNS, map(_row, report.findings), more=MORE, name="path", whole="what"
    )
    for line in (*_summary(report), *steps):
        said.say(line)


def _row(finding: Finding) -> Row:
    place = finding.path
    if finding.line is not None:
        place += f", line {finding.line}"
    if finding.byte is not None:
        place += f", byte {finding.byte}"
    return {
        **finding._asdict(),
        "place": place,
        "ids": list(finding.ids),
        "status": "damaged" if finding.damage else "note",
        "role": "crit" if finding.damage else "note",
    }


def _summary(report: Report) -> Iterator[str]:
    queues = "1 queue" if len(report.queues) == 1 else f"{len(report.queues)} queues"
    state = "all sound" if report.sound else "damaged"
    yield f"{queues}, {report.records:,} records, {report.bytes:,} bytes: {state}"
    for queue, ids in report.lost.items():
        yield f"queue {queue}: lost, with nothing left of them: {_some(ids)}"
    for queue, ids in report.doubtful.items():
        yield f"queue {queue}: there, but perhaps as they were some time ago: {_some(ids)}"


def _some(ids: list[str], most: int = 20) -> str:
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return safe_text(", ".join(ids[:most]), 4000) + more


def _ask(said: Settings, before: Report, steps: list[str]) -> None:
    """Return if a person agrees. Raises CommandError if not, or if there is nobody to ask."""
    if not said.can_ask:
        raise CommandError(Code.USAGE, "there is no terminal to ask at", "see --dry-run, then say --yes")
    _show(said, before, [f"would do: {step}" for step in steps])
    if not click.confirm("Repair it?", default=False, err=True):
        raise CommandError(Code.USAGE, "nothing was done")
