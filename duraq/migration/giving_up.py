"""A migration given up in the middle: what has arrived stays in the target, what has not in the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from duraq.errors import CannotMigrate, DuraqError, QueueError, StorageDamaged
from duraq.migration.carrying import AT_ONCE, BYTES, Apart, Carrier, Ends, Overtaken
from duraq.migration.keyed import departure
from duraq.migration.notes import GIVEN_UP, Leaving, Mark, Notes, Remembered, Sent
from duraq.migration.running import close
from duraq.migration.stopping import in_all
from duraq.model import MIGRATIONS
from duraq.operations import Adopt, Operation
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
    # The target notes a migration first and the source its queues first: so what is then missing was lost.
    first, here, there = ends.notes.read(), ends.sent_notes.read(), ends.notes.read()
    migration = here.shared(there)
    queues = {
        each.queue for each in here.leaving.values() if each.is_under_way and each.migration == migration
    }
    queues |= {queue for (of, queue), mark in there.marks.items() if of == migration and not mark.over}
    queues |= here.apart(there)
    found = [_Ending(ends, migration or "", queue).done() for queue in sorted(queues)]
    # What one of them knows of the other, and that one does not: it was made anew since.
    lost = [each for each in _to(here, ends.target_name) if each.migration not in there.taken]
    found += [_release(ends.source, ends.sent_notes, each) for each in lost]
    alone = [each for each in _from(first, ends.source_name) if each.migration not in here.away]
    found += [_Ending(ends, each.migration, each.queue, is_known=False).done() for each in alone]
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


class _Ending:
    """The end of one queue that is on its way, whose other end is there.

    ``is_known``: the source remembers the migration; else it was made anew, or is a copy from before.
    """

    def __init__(self, ends: Ends, migration: str, queue: str, *, is_known: bool = True) -> None:
        self._ends, self._is_known = ends, is_known
        self._migration, self._queue = migration, queue
        self._stuck: dict[str, str] = {}

    def done(self) -> GivenUp:
        """It is worked in both; or what keeps it from that."""
        ends, queue = self._ends, self._queue
        while True:
            mark, leaving = ends.notes.mark(self._migration, queue), ends.sent_notes.leaving(queue)
            arrived, problem = 0 if mark is None else mark.count, None
            try:
                arrived = self._close(mark, leaving)
                # Settling has written notes.
                now = ends.sent_notes.leaving(queue)
                if now is not None and now.migration == self._migration:
                    _release(ends.source, ends.sent_notes, now)
            except Overtaken:
                continue
            except (StorageDamaged, CannotMigrate) as found:
                problem = found
            return GivenUp(queue, arrived, in_all(ends.source.counts(queue)), self._stuck, problem)

    def _close(self, mark: Mark | None, leaving: Leaving | None) -> int:
        """The last page is in one of the two, and the target is worked; how many have arrived in all.

        Whoever was about to send some cannot any more.
        """
        ends = self._ends
        if mark is None:
            ends.write({}, Mark(self._migration, self._queue, over=True), None)
            if leaving is not None and leaving.seen_by(self._migration).settled:
                raise Overtaken  # it was another target once; now there is a mark to put it together with
            return 0
        if leaving is None or not self._is_known:
            if mark.last:
                self._put_together(mark, leaving)
            number = 0
        else:
            mark, number = self._settle(mark, leaving)
        if mark.over:
            ends.write({}, mark.turned(), mark)
            return mark.count
        # Whoever does not know whether he has enqueued something may ask either of them from now on.
        ends.copy_keys()
        pause = ends.target.paused(self._queue)
        mark = replace(mark, then=mark.then if migration_of(pause) == self._migration else pause)
        return close(ends, mark, number, pause).count

    def _settle(self, mark: Mark, leaving: Leaving) -> tuple[Mark, int]:
        """The mark then, and the number of the source's note."""
        carrier = Carrier(self._ends, mark, leaving, self._stuck)
        try:
            carrier.settle()
        except Apart:
            self._put_together(carrier.mark, self._ends.sent_notes.leaving(self._queue))
            raise Overtaken from None
        return carrier.mark, carrier.leaving.number

    def _put_together(self, mark: Mark, leaving: Leaving | None) -> None:
        """One of them is an older copy: what the target has as it is in the source is the target's.

        What it has worked since it was copied nobody can tell; that is worked in the source once more.
        """
        source, target, queue = self._ends.source, self._ends.target, self._queue
        if leaving is None:
            to = self._ends.target_name
            now = Leaving(queue, 0, self._migration, to, None, GIVEN_UP, settled=mark.last)
        else:
            now = leaving.put_together(mark)
        behind = 0
        try:
            while page := source.page(queue, behind, AT_ONCE, BYTES):
                behind = page[-1].seq
                there = {each.id: Sent.of(each) for each in target.some(queue, [each.id for each in page])}
                both = [each for each in page if each.id in there]
                same = [each for each in both if Sent.of(each).is_same(there[each.id])]
                if same:
                    source.commit(departure(source, queue, same, self._ends.target_name))
                changed = {each.id for each in both} - {each.id for each in same}
                self._stuck.update(dict.fromkeys(changed, "it has changed in one of them"))
            if self._is_known:
                source.commit({MIGRATIONS: now.written()})
        except QueueError:
            raise Overtaken from None


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
    return GivenUp(queue, 0, in_all(source.counts(queue)))


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
