"""Making a damaged storage whole again: what is damaged is put aside, and all that is sound goes on.

Nothing is thrown away: every file that is changed is copied to a ``quarantine/`` directory first. A repair
that is interrupted, at whatever point, is completed by the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from duraq import examining
from duraq.clock import Clock, SystemClock
from duraq.errors import NotAStorage, StorageBusy, StorageDamaged
from duraq.examining import Report
from duraq.journal import ends, opening, reading, refusal, renewal, segment
from duraq.journal.ends import End
from duraq.journal.filesystem import FileSystem, RealFileSystem, SomethingElse, opened
from duraq.journal.log import Log, Sizes
from duraq.journal.overlay import Overlay
from duraq.journal.reading import ReaderFileSystem, View
from duraq.journal.refusal import QUARANTINE
from duraq.journal.repair import Plan, carry_out, stamp
from duraq.journal.salvage import Salvage
from duraq.journal.survey import Survey
from duraq.model import MARKER, is_queue_name


@dataclass
class Repaired:
    """What was wrong with a storage, and what was done about it, or would be, in words."""

    before: Report
    steps: list[str] = field(default_factory=list)


def repair(
    path: str | os.PathLike[str],
    queues: Iterable[str] | None = None,
    *,
    dry_run: bool = False,
    clock: Clock | None = None,
    file_system: FileSystem | None = None,
) -> Repaired:
    """Put aside what is damaged in these queues, or in all, and in the journal, and make the rest usable.

    All of it is durable on return. With ``dry_run`` nothing is changed. Does nothing to a storage that is
    sound. Nobody else may have it open. Raises StorageBusy, NotAStorage, QueueNotFound, UnsupportedVersion,
    StorageDamaged if it could not be made whole, or OSError; it may be called again after any of them.
    """
    where, now = str(Path(path).absolute()), (clock or SystemClock()).now()
    names = None if queues is None else list(queues)
    reader = ReaderFileSystem() if file_system is None else file_system
    done = Repaired(examining.verify(where, names, file_system=reader))
    if done.before.sound:
        return done
    if dry_run:
        done.steps += _planned(reader, where, names, done.before, now)
        return done
    fs = file_system or RealFileSystem()
    done.steps += _mend_journal(fs, where, done.before, stamp(now))
    done.steps += _mend_queues(fs, where, names, now)
    after = examining.verify(where, names, file_system=reader)
    if not after.sound:
        first = next(finding for finding in after.findings if finding.damage)
        raise StorageDamaged(
            f"it was repaired, and is still damaged: {first.what}",
            path=first.path,
            line=first.line,
            byte=first.byte,
            hint="what was there before is in quarantine/; please report this",
        )
    return done


def _planned(fs: FileSystem, path: str, names: list[str] | None, before: Report, now: int) -> Iterator[str]:
    root = examining.open_root(fs, path)
    try:
        yield from _journal_steps(before, stamp(now))
        try:
            view = reading.look(fs, root)
        except StorageDamaged:
            view = View(fs, root, settled=True, damaged={})
        for queue in examining.chosen(view, names):
            with examining.examined(view, queue) as found:
                yield from _steps(_plan(view, queue, found, now))
    finally:
        fs.close(root)


def _plan(view: View, queue: str, found: tuple[Survey, Salvage, set[int]], now: int) -> Plan:
    return Plan(*found, examining.known_end(view, queue), now, refused=queue in view.damaged)


def _steps(plan: Plan) -> Iterator[str]:
    for rewrite in plan.rewrites() if plan.needed else ():
        name = segment.path_of(plan.queue, rewrite.segment)
        if rewrite.aside:
            yield f"{name}: written anew; as it was it is in {plan.queue}/{QUARANTINE}/{rewrite.aside}"
        else:
            yield f"{name}: made, for it is missing"
    if plan.needed:
        yield f"{plan.queue}/{QUARANTINE}/{plan.note_name}: what was lost, and why"


# -- the journal -------------------------------------------------------------------------------------------


def _journal_steps(before: Report, at: str) -> Iterator[str]:
    for finding in before.findings:
        if finding.damage and finding.queue is None:
            if finding.path == MARKER:
                yield f"{MARKER}: written anew, without what it said of a history to keep"
            else:
                yield (
                    "journal: made anew, with what its frames still hold and what the segments have; "
                    f"as it was it is in journal/{QUARANTINE}/*.{at}"
                )


def _mend_journal(fs: FileSystem, path: str, before: Report, at: str) -> list[str]:
    steps = list(_journal_steps(before, at))
    if not steps:
        return []
    with ExitStack() as opened:
        root = fs.open_root(path)
        opened.callback(fs.close, root)
        directory = fs.open_dir(root, "journal", create=True)
        opened.callback(fs.close, directory)
        presence = fs.open_file(directory, "presence", create=True)
        opened.callback(fs.close, presence)
        if not fs.try_lock(presence):
            raise StorageBusy("somebody has the storage open", path=path, hint="stop whatever works on it")
        if any(finding.queue is None and finding.path != MARKER for finding in before.findings):
            renewal.renew(fs, root, directory, Sizes().journal, at)
        try:
            opening.check_marker(fs, root, path)
        except (NotAStorage, FileNotFoundError):
            opening.write_marker(fs, root)
    return steps


# -- queues ------------------------------------------------------------------------------------------------


def _mend_queues(fs: FileSystem, path: str, names: list[str] | None, now: int) -> list[str]:
    steps: list[str] = []
    with closing(Log(fs, path, Sizes(), create=False)) as log:
        # What is written now is not where the journal's frames would have it.
        log.come_to_rest()
        # What is planned is planned in memory; only the steps that come of it touch the disk.
        overlay = Overlay(fs)
        view = View(overlay, overlay.adopt(log.root), settled=False, damaged=dict(_refused(fs, log)))
        for queue in examining.chosen(view, names):
            with examining.examined(view, queue) as found:
                plan = _plan(view, queue, found, now)
                if plan.needed:
                    steps += _steps(plan)
                    _carry_out(log, plan)
    return steps


def _refused(fs: FileSystem, log: Log) -> Iterator[tuple[str, StorageDamaged]]:
    for queue in filter(is_queue_name, fs.names(log.root)):
        try:
            with opened(fs, log.root, queue) as home:
                refusal.check(fs, home, queue)
        except SomethingElse:
            continue
        except StorageDamaged as error:
            yield queue, error


def _carry_out(log: Log, plan: Plan) -> None:
    def note(end: End) -> None:
        found = ends.load(log.fs, log.directory, required=False)
        found.queues[plan.queue] = end
        ends.save(log.fs, log.directory, found)

    carry_out(log.fs, log.root, plan, note)
