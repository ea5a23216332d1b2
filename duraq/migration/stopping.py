"""The source's side of a queue that is moved: it is paused, for good, and what is leased is waited for."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

from duraq import options
from duraq.clock import to_datetime
from duraq.errors import CannotMigrate, QueueError, StorageBusy
from duraq.migration.carrying import Ends, Overtaken
from duraq.migration.notes import GIVEN_UP, MOVING, OVER, STOPPING, Leaving
from duraq.model import MIGRATIONS, OWN_QUEUES, Counts, EntryStatus, Pause
from duraq.operations import Adopt, Fail, Operation
from duraq.pauses import (
    is_being_filled,
    migration_of,
    reason_when_over,
    reason_while_moving,
    reason_while_stopping,
)
from duraq.settling import settle_lapsed, why
from duraq.storage.base import Lapsed

_LOOK = 0.2  # seconds between two looks at whether what is leased has come to its end


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a queue is: entries that have arrived in this run, of how many; or how many are waited for."""

    queue: str
    done: int
    count: int
    leased: int = 0


def is_held(leaving: Leaving, migration: str | None, pause: Pause | None) -> bool:
    """Whether a migration other than this one may have entries of the queue under way.

    One that was killed while it waited, and whose pause was lifted since, has sent nothing.
    """
    if leaving.migration == migration or not leaving.is_under_way:
        return False
    return leaving.stage == MOVING or migration_of(pause) == leaving.migration


def check_free(ends: Ends, migration: str, queue: str, leaving: Leaving | None) -> None:
    """Raise CannotMigrate if a migration other than this one has not done with the queue."""
    pause = ends.source.paused(queue)
    if leaving is not None and is_held(leaving, migration, pause):
        raise CannotMigrate(
            f"queue {queue}: it is part of another migration, which is not over: {leaving.migration}, to"
            f" {leaving.to}; finish that one, or give it up with `duraq migrate --give-up`"
        )
    if pause is None or migration_of(pause) in {None, migration}:
        return
    count = in_all(ends.source.counts(queue))
    if is_being_filled(pause):
        raise CannotMigrate(
            f"queue {queue}: it is part of another migration: {pause.reason}; finish that one, or give it up"
            " with `duraq migrate --give-up`"
        )
    if count:
        raise CannotMigrate(
            f"queue {queue}: {count} of its entries stayed behind, or came too late, in"
            f" another migration: {pause.reason}; do that one again, or `duraq resume {queue}` to have them"
            " worked here, or moved to wherever you like"
        )


@dataclass(slots=True)
class _Stopped:
    """What this run has made of a queue that was paused like that ``before``: notes, each with a pause.

    Also the last one that it tried to write: who was interrupted then does not know whether he has.
    """

    before: Pause | None = None
    is_done: bool = False  # at some time
    wrote: list[tuple[Leaving, Pause]] = field(default_factory=list)


class Stopper:
    """Stops the queues of a source, for one run of a migration, which has that id."""

    def __init__(self, ends: Ends, migration: str, wait: float) -> None:
        self._ends = ends
        self._id = migration
        self._wait_for = wait
        self._stopped: dict[str, _Stopped] = {}

    def stop(self, queue: str, leaving: Leaving | None) -> Generator[Progress, None, Leaving]:
        """Nothing is leased from it any more, and nothing is leased; ends with what is noted of it then.

        Raises StorageBusy, CannotMigrate, Overtaken. Whatever comes of it, ``undo`` makes it what it was.
        """
        noted = self._pause(queue, leaving)
        yield from self.wait(queue, noted)
        return noted if noted.stage == MOVING else self._begin(noted)

    def _pause(self, queue: str, leaving: Leaving | None) -> Leaving:
        """Pause it; returns the note.

        Whoever comes while it is waited for notes that too: the other run may be gone, or leave it alone now.
        """
        source, notes = self._ends.source, self._ends.sent_notes
        while True:
            pause = source.paused(queue)
            check_free(self._ends, self._id, queue, leaving)
            holds = migration_of(pause) == self._id
            if leaving is not None and leaving.migration == self._id:
                self._check_wanted(leaving, holds=holds)
                if leaving.stage == MOVING and holds:
                    return leaving
            reason = reason_while_stopping(self._id, self._ends.target_name)
            now = Pause(to_datetime(source.clock.now()), options.user(), reason)
            noted = self._noted(queue, leaving, pause)
            found = self._stopped.setdefault(queue, _Stopped())
            found.before = noted.before if leaving is not None and leaving.is_under_way else pause
            found.wrote.append((noted, now))
            try:
                source.commit({queue: [Adopt(0, now, instead_of=(pause,))], MIGRATIONS: noted.written()})
            except QueueError:
                found.wrote.pop()
                other = notes.leaving(queue)
                if other == leaving and source.paused(queue) == pause:
                    raise
                leaving = other
            else:
                found.is_done = True
                return noted

    def _noted(self, queue: str, leaving: Leaving | None, pause: Pause | None) -> Leaving:
        """What is to be noted of a queue that is to be stopped, and is paused like that."""
        name = self._ends.target_name
        before = pause if migration_of(pause) is None else None
        if leaving is None:
            return Leaving(queue, 0, self._id, name, before, STOPPING)
        if leaving.migration != self._id:
            return leaving.of_migration(self._id, STOPPING, to=name, before=before)
        if leaving.is_under_way and migration_of(pause) == self._id:
            before = leaving.before
        return leaving.turned(STOPPING, to=name, before=before)

    def _check_wanted(self, leaving: Leaving, *, holds: bool) -> None:
        """Raise CannotMigrate if this run has stopped it, and others have decided otherwise since."""
        stopped = self._stopped.get(leaving.queue)
        if stopped is not None and stopped.is_done and not holds and leaving.stage != OVER:
            raise _lifted(leaving)

    def check(self, leaving: Leaving) -> Pause:
        """How it is paused; raises Overtaken or CannotMigrate if it is not, by this migration."""
        if not leaving.is_under_way:
            raise Overtaken
        pause = self._ends.source.paused(leaving.queue)
        if pause is not None and migration_of(pause) == self._id:
            return pause
        found = self._ends.sent_notes.leaving(leaving.queue)
        if found is None or found.number != leaving.number:
            raise Overtaken
        raise _lifted(found)

    def _begin(self, noted: Leaving) -> Leaving:
        """From now on entries of it may be in the target, so that nobody else does anything to them."""
        queue, pause = noted.queue, self.check(noted)
        moving = noted.turned(MOVING)
        now = replace(pause, reason=reason_while_moving(self._id, self._ends.target_name))
        self._stopped[queue].wrote.append((moving, now))
        try:
            self._ends.source.commit(
                {queue: [Adopt(0, now, instead_of=(pause,))], MIGRATIONS: moving.written()}
            )
        except QueueError:
            self.check(noted)
            raise Overtaken from None
        return moving

    def keep(self, queue: str) -> None:
        """The target is being filled: it cannot just go back to what it was."""
        self._stopped[queue] = _Stopped(is_done=True)

    def undo(self, queue: str) -> None:
        """Nothing of it has gone, so it is what it was; unless another run goes on with it."""
        source, stopped = self._ends.source, self._stopped.get(queue, _Stopped())
        found, pause = self._ends.sent_notes.leaving(queue), source.paused(queue)
        for noted, made in stopped.wrote:
            if noted == found:
                over: dict[str, list[Operation]] = {MIGRATIONS: noted.turned(OVER).written()}
                # How others have paused it since is no business of ours.
                if pause == made:
                    over[queue] = [Adopt(0, stopped.before, instead_of=(made,))]
                with suppress(QueueError):
                    source.commit(over)

    def _counted(self, lease: Lapsed) -> Fail:
        """The attempt has ended; what follows is for whoever is next, who has a policy."""
        return Fail(lease.id, lease.token, lease.cause, why(lease), self._ends.source.clock.now())

    def wait(self, queue: str, leaving: Leaving) -> Iterator[Progress]:
        """Until nothing is leased; whose worker is gone, or late, is ended. Raises StorageBusy.

        Raises Overtaken or CannotMigrate as soon as it is not paused any more by this migration.
        """
        source = self._ends.source
        until = time.monotonic() + self._wait_for
        while True:
            self.check(leaving)
            if source.counts(queue).leased:
                settle_lapsed(source, queue, self._counted)
            leased = source.counts(queue).leased
            if not leased:
                return
            left = until - time.monotonic()
            if left <= 0:
                raise StorageBusy(
                    f"queue {queue}: {leased} entries are still leased: {self._held(queue)}",
                    hint="let their workers come to an end, or `duraq release` them, and do it again",
                )
            yield Progress(queue, 0, 0, leased)
            source.wait(queue, min(left, _LOOK))

    def _held(self, queue: str, most: int = 3) -> str:
        held = self._ends.source.entries(queue, EntryStatus.LEASED, most)
        ends = [f"{to_datetime(each.deadline_at or 0):%H:%M:%S} UTC" for each in held]
        return ", ".join(
            f"{each.id} by {each.worker or 'no process'} until {end}"
            for each, end in zip(held, ends, strict=True)
        )


def _lifted(leaving: Leaving) -> CannotMigrate:
    if leaving.stage == GIVEN_UP:
        return CannotMigrate(f"queue {leaving.queue}: its migration was given up meanwhile")
    return CannotMigrate(
        f"queue {leaving.queue}: it was paused or resumed in the source by others while it was moved; what"
        " has not gone is still there: do it again to go on, or give it up with --give-up"
    )


def finish(ends: Ends, leaving: Leaving, *, has_gone: bool = True) -> None:
    """Note that nothing of it is between the two any more; unless another run has gone on.

    Whoever still feeds it is to find it paused; unless not all of it ``has_gone``: then it is what it was.
    """
    queue, pause = leaving.queue, ends.source.paused(leaving.queue)
    changes: dict[str, list[Operation]] = {MIGRATIONS: leaving.turned(OVER).written()}
    if pause is not None and migration_of(pause) == leaving.migration:
        kept = replace(pause, reason=reason_when_over(leaving.migration, leaving.to))
        # Nobody works the storage's own.
        now = kept if has_gone and queue not in OWN_QUEUES else leaving.before
        changes[queue] = [Adopt(0, now, instead_of=(pause,))]
    with suppress(QueueError):
        ends.source.commit(changes)


def in_all(counts: Counts) -> int:
    """How many entries that are, dead ones among them."""
    return counts.length + counts.dead
