"""A storage moved into another one, queue by queue, while both are worked.

A queue is paused in the source first, for good, and in the target until all of it is there, so that no entry
can be claimed in both. What is leased is waited for; what is enqueued meanwhile is carried as well.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from duraq import options
from duraq.clock import to_datetime
from duraq.errors import CannotMigrate, DuraqError, InvalidOption, QueueError, StorageBusy
from duraq.migration.carrying import Carrier, Ends, Overtaken
from duraq.migration.notes import (
    OUT,
    Mark,
    is_being_filled,
    migration_of,
    new_id,
    pause_image,
    pause_of,
    reason_in_source,
    reason_in_target,
)
from duraq.model import ACTS, MIGRATIONS, Counts, EntryStatus, Pause
from duraq.operations import Adopt, PauseQueue
from duraq.queue import Queue

# How often all queues are looked at again for what was enqueued meanwhile: somebody may never stop feeding.
ROUNDS = 100
_LOOK = 0.2  # seconds between two looks at whether what is leased has come to its end


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a queue is: entries that have arrived in this run, of how many; or how many are waited for."""

    queue: str
    done: int
    count: int
    leased: int = 0


@dataclass(slots=True)
class Moved:
    """What became of a queue.

    ``entries`` and ``checksum``: of all that has arrived, in earlier runs too; ``payload_bytes``: what this
    run has sent. ``stuck``: entries that stay in the source, by id, and why. ``problem``: why it is not over.
    """

    queue: str
    entries: int = 0
    checksum: str = ""
    payload_bytes: int = 0
    stuck: dict[str, str] = field(default_factory=dict)
    problem: DuraqError | None = None


class _Counted:
    """The retry policy of nobody in particular: an attempt has ended; what follows is for whoever is next."""

    max_attempts = 1 << 31

    def should_retry(self, attempts: int, error: object | None = None) -> bool:  # noqa: ARG002 - the protocol's
        return True

    def get_retry_delay(self, attempts: int) -> timedelta:  # noqa: ARG002
        return timedelta(0)

    def should_move_to_dead_letter(self, attempts: int, error: object | None = None) -> bool:  # noqa: ARG002
        return False


class Migration:
    """One run. ``queues``: what has become of each so far; ``left``: how many came too late for this run."""

    def __init__(self, ends: Ends, *, wait: float, merge: bool = False) -> None:
        self._ends = ends
        self._wait_for = wait
        self._merge = merge
        self._who = options.user()
        self._id = ""
        self.queues: dict[str, Moved] = {}
        self.left = 0

    def check(self) -> bool:
        """Whether it goes on with one that has begun. Raises CannotMigrate if it can do neither."""
        ends = self._ends
        out = ends.sent_notes.find(OUT)
        if out is not None and ends.notes.find(f"in/{out['id']}") is not None:
            if ends.sent_notes.find(f"in/{out['id']}") is not None:
                raise InvalidOption("source and target are the same storage")
            self._id = out["id"]
        begun = ends.notes.marks(self._id) if self._id else {}
        for queue in ends.source.queues():
            self._check_free(queue, ends.source.paused(queue))
            if queue not in begun and not self._merge:
                self._check_target(queue)
        return bool(self._id)

    def _check_target(self, queue: str) -> None:
        count = _all(self._ends.target.counts(queue))
        if count:
            raise CannotMigrate(
                f"queue {queue}: the target has {count} entries of its own in a queue of that name; with"
                " merge those of the source are added to them"
            )

    def _check_free(self, queue: str, pause: Pause | None) -> None:
        """Raise CannotMigrate if another migration has not done with it."""
        is_other = migration_of(pause) not in {None, self._id}
        if pause is not None and is_other and _all(self._ends.source.counts(queue)):
            raise CannotMigrate(
                f"queue {queue}: it is part of another migration, which is not over: {pause.reason}; finish"
                f" that one, or give it up with `duraq resume {queue}`"
            )

    def __iter__(self) -> Generator[Progress]:
        """Do it; ends between two pages at the earliest. Raises what keeps all of it from going on."""
        if not self.check():
            self._begin()
        for _ in range(ROUNDS):
            carried, marks = 0, self._ends.notes.marks(self._id)
            for queue in self._ends.source.queues():
                mark = marks.get(queue)
                if self._has_work(queue, mark):
                    yield from self._carry(queue, mark)
                    carried += 1
            carried += self._carry_acts()
            self._ends.copy_keys()
            if not carried:
                break
        self.left = sum(self._is_left(queue) for queue in self._ends.source.queues())

    def _begin(self) -> None:
        ends, found = self._ends, new_id()
        at = to_datetime(ends.source.clock.now()).isoformat()
        about = {"id": found, "at": at, "who": self._who}
        ends.source.commit({MIGRATIONS: ends.sent_notes.put(OUT, {**about, "to": ends.target_name})})
        if (ends.notes.find(OUT) or {}).get("id") == found:
            ends.source.commit({MIGRATIONS: ends.sent_notes.drop(OUT)})
            raise InvalidOption("source and target are the same storage")
        ends.target.commit({MIGRATIONS: ends.notes.put(f"in/{found}", {**about, "from": ends.source_name})})
        self._id = found

    def _has_work(self, queue: str, mark: Mark | None) -> bool:
        moved = self.queues.get(queue)
        if moved is not None and moved.problem is not None:
            return False
        here = _all(self._ends.source.counts(queue))
        if mark is None:
            # What another migration has emptied does not go twice.
            return bool(here) or migration_of(self._ends.source.paused(queue)) in {None, self._id}
        return not mark.over or here > (0 if moved is None else len(moved.stuck))

    def _is_left(self, queue: str) -> int:
        moved = self.queues.get(queue)
        known = moved is not None and (moved.problem is not None or moved.stuck)
        return 0 if known else _all(self._ends.source.counts(queue))

    # -- a queue ---------------------------------------------------------------------------------------

    def _carry(self, queue: str, mark: Mark | None) -> Iterator[Progress]:
        moved = self.queues.setdefault(queue, Moved(queue))
        while True:
            try:
                yield from self._carry_once(queue, mark, moved)
            except Overtaken:
                mark = self._ends.notes.mark(self._id, queue)
                continue
            except StorageBusy as busy:
                moved.problem = busy
            return

    def _carry_once(self, queue: str, mark: Mark | None, moved: Moved) -> Iterator[Progress]:
        ends = self._ends
        yield from self._stop_source(queue, mark)
        if mark is None or mark.over:
            mark = self._open_target(queue, mark)
        carrier = Carrier(ends, mark, moved.stuck)
        done = 0
        while True:
            count = done + _all(ends.source.counts(queue))
            for number in carrier.all():
                done += number
                yield Progress(queue, done, max(done, count))
            if not ends.source.counts(queue).leased:
                break
            # A transaction that had begun before the pause, and has leased what is its own.
            yield from self._wait(queue)
        ends.copy_keys()
        mark = self._close_target(carrier.mark)
        moved.entries, moved.checksum = mark.count, mark.checksum
        moved.payload_bytes += carrier.payload_bytes

    def _stop_source(self, queue: str, mark: Mark | None) -> Iterator[Progress]:
        """Nothing is leased from it any more, and nothing is leased."""
        source, notes, note = self._ends.source, self._ends.sent_notes, f"{OUT}/{queue}"
        pause = source.paused(queue)
        if migration_of(pause) != self._id:
            self._check_free(queue, pause)
            reason = reason_in_source(self._id, self._ends.target_name)
            noted = notes.put(note, pause_image(pause))
            try:
                source.commit({queue: [PauseQueue(self._who, reason)], MIGRATIONS: noted})
            except QueueError:
                # Another run has written that note, and paused it.
                if migration_of(source.paused(queue)) != self._id:
                    raise
        try:
            yield from self._wait(queue)
        except BaseException:
            if mark is None:
                # Nothing of it has gone, so it is what it was.
                before = pause_of(notes.find(note))
                source.commit({queue: [Adopt(0, before)], MIGRATIONS: notes.drop(note)})
            raise

    def _wait(self, queue: str) -> Iterator[Progress]:
        """Until nothing is leased; whose worker is gone, or late, is ended. Raises StorageBusy."""
        source = self._ends.source
        holders = Queue[object](queue, source, retry_policy=_Counted())
        until = time.monotonic() + self._wait_for
        while True:
            holders.settle_lapsed()
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

    def _open_target(self, queue: str, before: Mark | None) -> Mark:
        """It is there, paused, and remembers that it is being filled."""
        ends, source, target = self._ends, self._ends.source, self._ends.target
        head, here = source.head(queue), target.head(queue)
        assert head is not None
        pause = None if here is None else here.pause
        is_other = migration_of(pause) not in {None, self._id}
        count = _all(target.counts(queue))
        if is_other and (count or is_being_filled(pause)):
            assert pause is not None
            raise CannotMigrate(f"queue {queue}: the target has it in another migration: {pause.reason}")
        fresh = here is None or is_other  # what was moved away, and comes back, goes on as it is here
        if before is None and count and not self._merge:
            ends.check_last(Mark(self._id, queue), None)
            raise CannotMigrate(f"queue {queue}: the target has got {count} entries of its own meanwhile")
        was = pause_of(ends.sent_notes.find(f"{OUT}/{queue}"))
        then = was if fresh else pause or (was if before is None else None)
        mark = Mark(self._id, queue, then=then) if before is None else before.turned(then=then, over=False)
        reason = reason_in_target(self._id, self._ends.source_name)
        now = Pause(to_datetime(target.clock.now()), self._who, reason)
        ends.write([Adopt(head.tokens, now, head.ledger if fresh else None)], mark, before)
        return mark

    def _close_target(self, mark: Mark) -> Mark:
        """All of it is there: it is paused if it was, and no token is given there that was given here."""
        head = self._ends.source.head(mark.queue)
        assert head is not None
        over = mark.turned(over=True)
        self._ends.write([Adopt(head.tokens, mark.then)], over, mark)
        return over

    def _carry_acts(self) -> int:
        """What was done to dead letters, so that it can be undone there; how much of it."""
        ends = self._ends
        moved = self.queues.get(ACTS) or Moved(ACTS)
        if _all(ends.source.counts(ACTS)) <= len(moved.stuck):
            return 0
        mark = ends.notes.mark(self._id, ACTS)
        try:
            if mark is None:
                mark = Mark(self._id, ACTS)
                ends.write([], mark, None)
            carried = sum(Carrier(ends, mark, moved.stuck).all())
        except Overtaken:
            return 1  # there may be more; the next round looks
        if moved.stuck:
            self.queues[ACTS] = moved
        return carried


def _all(counts: Counts) -> int:
    return counts.length + counts.dead


__all__ = ["Migration", "Moved", "Progress"]
