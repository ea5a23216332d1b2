"""A migration given up in the middle: what has arrived stays in the target, what has not in the source."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from duraq.errors import CannotMigrate, QueueError
from duraq.migration.carrying import Carrier, Ends, Overtaken
from duraq.migration.notes import GIVEN_UP, Leaving, Notes
from duraq.migration.running import close
from duraq.model import MIGRATIONS, OWN_QUEUES
from duraq.operations import Adopt
from duraq.pauses import migration_of
from duraq.storage.transacting import TransactingStorage


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What became of a queue that was under way.

    ``arrived``: entries that have come to the target in all; ``left``: those that are in the source.
    ``stuck``: entries that are in both, by id, and why.
    """

    queue: str
    arrived: int
    left: int
    stuck: Mapping[str, str] = field(default_factory=dict)


def give_up(ends: Ends) -> list[GivenUp]:
    """See that of each queue that is under way nothing is between the two, and have both worked again.

    Raises CannotMigrate if nothing is under way from one to the other, StorageDamaged if what has arrived
    last cannot be read back, and what the storages raise.
    """
    here = ends.sent_notes.read()
    migration = here.shared(ends.notes.read())
    found = [each for each in here.leaving.values() if each.is_under_way and each.migration == migration]
    if not found:
        raise _nothing(ends.source_name, ends.target_name)
    return _users([_give_up(ends, each) for each in found])


def give_up_without_target(source: TransactingStorage, source_name: str, target_name: str) -> list[GivenUp]:
    """The same, of a target that is no more: what has arrived there is gone with it."""
    notes = Notes(source, source_name)
    found = [each for each in notes.read().leaving.values() if each.is_under_way and each.to == target_name]
    if not found:
        raise _nothing(source_name, target_name)
    for each in found:
        _release(source, notes, each)
    return _users([GivenUp(each.queue, 0, _count(source, each.queue)) for each in found])


def give_up_without_source(target: TransactingStorage, source_name: str, target_name: str) -> list[GivenUp]:
    """The same, from a source that is no more: what has not arrived is gone with it."""
    remembered = Notes(target, target_name).read()
    found = [
        mark
        for (migration, queue), mark in remembered.marks.items()
        if remembered.taken.get(migration) == source_name and not mark.over and queue not in OWN_QUEUES
    ]
    if not found:
        raise _nothing(source_name, target_name)
    for mark in found:
        pause = target.paused(mark.queue)
        then = mark.then if migration_of(pause) == mark.migration else pause
        over = mark.turned(then=then, over=True)
        target.commit({mark.queue: [Adopt(0, then, instead_of=(pause,))], MIGRATIONS: over.written()})
    return [GivenUp(mark.queue, mark.count, 0) for mark in found]


def _give_up(ends: Ends, leaving: Leaving) -> GivenUp:
    while True:
        with suppress(Overtaken):
            return _give_up_now(ends, leaving)
        leaving = ends.sent_notes.leaving(leaving.queue) or leaving


def _give_up_now(ends: Ends, leaving: Leaving) -> GivenUp:
    queue = leaving.queue
    mark = ends.notes.mark(leaving.migration, queue)
    stuck: dict[str, str] = {}
    arrived = 0
    if mark is not None:
        carrier = Carrier(ends, mark, leaving, stuck)
        carrier.settle()
        mark, leaving = carrier.mark, carrier.leaving
        pause = ends.target.paused(queue)
        if not mark.over and queue not in OWN_QUEUES:
            then = mark.then if migration_of(pause) == leaving.migration else pause
            mark = close(ends, replace(mark, then=then), pause)
        arrived = mark.count
    _release(ends.source, ends.sent_notes, leaving)
    return GivenUp(queue, arrived, _count(ends.source, queue), stuck)


def _release(source: TransactingStorage, notes: Notes, leaving: Leaving) -> None:
    """It is worked again in the source, if it was before; how it is paused by others is left as it is."""
    while leaving.is_under_way:
        pause = source.paused(leaving.queue)
        changes = {MIGRATIONS: leaving.turned(stage=GIVEN_UP).written()}
        if migration_of(pause) == leaving.migration:
            changes[leaving.queue] = [Adopt(0, leaving.before, instead_of=(pause,))]
        try:
            source.commit(changes)
        except QueueError:
            found = notes.leaving(leaving.queue)
            if found == leaving and source.paused(leaving.queue) == pause:
                raise
            if found is None or found.settled != leaving.settled:
                raise Overtaken from None
            leaving = found
        else:
            return


def _users(found: list[GivenUp]) -> list[GivenUp]:
    """Without what is a storage's own."""
    return [each for each in found if each.queue not in OWN_QUEUES]


def _count(source: TransactingStorage, queue: str) -> int:
    counts = source.counts(queue)
    return counts.length + counts.dead


def _nothing(source: str, target: str) -> CannotMigrate:
    return CannotMigrate(f"no queue is on its way from {source} to {target}: there is nothing to give up")
