"""A migration given up in the middle: what has arrived stays in the target, what has not in the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from duraq.errors import CannotMigrate, DuraqError, QueueError, StorageDamaged
from duraq.migration.carrying import AT_ONCE, BYTES, Apart, Carrier, Ends, Overtaken
from duraq.migration.notes import GIVEN_UP, Leaving, Mark, Notes, Remembered, Sent
from duraq.migration.running import close
from duraq.model import MIGRATIONS, Counts
from duraq.operations import Adopt, Operation, Remove
from duraq.pauses import migration_of
from duraq.storage.transacting import TransactingStorage


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What became of a queue that was under way.

    ``arrived``: entries that have come to the target in all; ``left``: those that are in the source.
    ``stuck``: entries that are in both, by id, and why. ``problem``: why it could not be given up.
    """

    queue: str
    arrived: int
    left: int
    stuck: Mapping[str, str] = field(default_factory=dict)
    problem: DuraqError | None = None


def give_up_between(ends: Ends) -> list[GivenUp]:
    """See that of each queue that is under way nothing is between the two, and have both worked again.

    Raises what the storages raise.
    """
    here, there = ends.sent_notes.read(), ends.notes.read()
    migration = here.shared(there)
    queues = {
        each.queue for each in here.leaving.values() if each.is_under_way and each.migration == migration
    }
    queues |= {queue for (of, queue), mark in there.marks.items() if of == migration and not mark.over}
    found = [_give_up(ends, migration or "", queue) for queue in sorted(queues)]
    # What one of them knows of the other, and that one does not: it was made anew since.
    lost = [each for each in _to(here, ends.target_name) if each.migration not in there.taken]
    found += [_release(ends.source, ends.sent_notes, each) for each in lost]
    alone = [each for each in _from(there, ends.source_name) if each.migration not in here.away]
    found += [_open(ends.target, ends.notes, each) for each in alone]
    return found


def give_up_here(storage: TransactingStorage, name: str, to: str | None = None) -> list[GivenUp]:
    """The same for whatever is under way from a storage (``to`` that one), whatever has become of the target.

    What has arrived there is as good as gone; should the target come back, the last page is taken from it.
    """
    notes = Notes(storage, name)
    return [_release(storage, notes, each) for each in _to(notes.read(), to)]


def give_up_there(storage: TransactingStorage, name: str, source: str | None = None) -> list[GivenUp]:
    """The same for whatever is under way into a storage (from that ``source``), whatever has become of that.

    What has not arrived is as good as gone; should the source come back, the last page is removed from it.
    """
    notes = Notes(storage, name)
    return [_open(storage, notes, each) for each in _from(notes.read(), source)]


def _to(remembered: Remembered, target: str | None) -> list[Leaving]:
    return [each for each in remembered.leaving.values() if each.is_under_way and target in {None, each.to}]


def _from(remembered: Remembered, source: str | None) -> list[Mark]:
    return [
        mark
        for (migration, _), mark in remembered.marks.items()
        if not mark.over and source in {None, remembered.taken.get(migration)}
    ]


def _give_up(ends: Ends, migration: str, queue: str) -> GivenUp:
    stuck: dict[str, str] = {}
    while True:
        mark, leaving = ends.notes.mark(migration, queue), ends.sent_notes.leaving(queue)
        try:
            arrived = _end_there(ends, migration, queue, mark, leaving, stuck)
            if leaving is None or leaving.migration != migration or not leaving.is_under_way:
                return GivenUp(queue, arrived, _all(ends.source.counts(queue)), stuck)
            # Settling has written notes.
            now = ends.sent_notes.leaving(queue) or leaving
            return replace(_release(ends.source, ends.sent_notes, now), arrived=arrived, stuck=stuck)
        except Overtaken:
            continue
        except (StorageDamaged, CannotMigrate) as problem:
            left = _all(ends.source.counts(queue))
            return GivenUp(queue, 0 if mark is None else mark.count, left, stuck, problem)


def _end_there(
    ends: Ends, migration: str, queue: str, mark: Mark | None, leaving: Leaving | None, stuck: dict[str, str]
) -> int:
    """The last page is in one of the two, and the target is worked; how many have arrived in all.

    Whoever was about to send some cannot any more.
    """
    if mark is None:
        ends.write({}, Mark(migration, queue, over=True), None)
        return 0
    if leaving is not None and leaving.migration == migration:
        carrier = Carrier(ends, mark, leaving, stuck)
        try:
            carrier.settle()
        except Apart:
            _put_together(ends, carrier, stuck)
        mark, leaving = carrier.mark, carrier.leaving
    if mark.over:
        ends.write({}, mark.turned(), mark)
        return mark.count
    pause = ends.target.paused(queue)
    mark = replace(mark, then=mark.then if migration_of(pause) == migration else pause)
    if leaving is None:
        leaving = Leaving(queue, 0, migration, ends.target_name, None, GIVEN_UP)
    return close(ends, mark, leaving, pause).count


def _put_together(ends: Ends, carrier: Carrier, stuck: dict[str, str]) -> None:
    """One of them is an older copy: what the target has as it is in the source is the target's.

    What it has worked since it was copied nobody can tell; that is worked in the source once more.
    """
    source, target, queue, behind = ends.source, ends.target, carrier.queue, 0
    now = carrier.leaving.turned(carrier.leaving.stage, settled=carrier.mark.last)
    try:
        while page := source.page(queue, behind, AT_ONCE, BYTES):
            behind = page[-1].seq
            there = {each.id: Sent.of(each) for each in target.some(queue, [each.id for each in page])}
            both = [each for each in map(Sent.of, page) if each.id in there]
            same = [each for each in both if each.is_same(there[each.id])]
            removals = [Remove(each.id, to=ends.target_name, version=each.version) for each in same]
            if removals:
                source.commit({queue: removals})
            stuck.update({each.id: "it has changed in one of them" for each in both if each not in same})
        source.commit({MIGRATIONS: now.written()})
    except QueueError:
        raise Overtaken from None
    carrier.leaving = now


def _release(source: TransactingStorage, notes: Notes, leaving: Leaving) -> GivenUp:
    """It is worked again in the source, if it was before; how it is paused by others is left as it is."""
    queue, migration = leaving.queue, leaving.migration
    while leaving.is_under_way and leaving.migration == migration:
        pause = source.paused(queue)
        changes: dict[str, list[Operation]] = {MIGRATIONS: leaving.turned(GIVEN_UP).written()}
        if migration_of(pause) == leaving.migration:
            changes[queue] = [Adopt(0, leaving.before, instead_of=(pause,))]
        try:
            source.commit(changes)
            break
        except QueueError:
            found = notes.leaving(queue)
            if found is None or (found == leaving and source.paused(queue) == pause):
                raise
            leaving = found
    return GivenUp(queue, 0, _all(source.counts(queue)))


def _open(target: TransactingStorage, notes: Notes, mark: Mark) -> GivenUp:
    """It is worked in the target; the page that came last is still known, should the source come back."""
    while not mark.over:
        pause = target.paused(mark.queue)
        then = mark.then if migration_of(pause) == mark.migration else pause
        over = mark.turned(then=then, over=True)
        try:
            target.commit({mark.queue: [Adopt(0, then, instead_of=(pause,))], MIGRATIONS: over.written()})
            break
        except QueueError:
            found = notes.mark(mark.migration, mark.queue)
            if found is None or (found == mark and target.paused(mark.queue) == pause):
                raise
            mark = found
    return GivenUp(mark.queue, mark.count, 0)


def _all(counts: Counts) -> int:
    return counts.length + counts.dead
