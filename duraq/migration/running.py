"""A storage moved into another one, queue by queue, while both are worked.

A queue is paused in the source first, for good, and in the target until all of it is there. What is leased is
waited for; what is enqueued meanwhile is carried as well. See the package for what makes that safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from duraq import options
from duraq.clock import to_datetime
from duraq.errors import CannotMigrate, DuraqError, InvalidOption, QueueError, StorageBusy
from duraq.migration.carrying import Apart, Carrier, Ends, Overtaken
from duraq.migration.notes import Leaving, Mark, new_id, once
from duraq.migration.stopping import Progress, Stopper, check_free, finish, in_all
from duraq.model import ACTS, MIGRATIONS, OWN_QUEUES, Pause
from duraq.operations import Adopt, Expire
from duraq.pauses import is_being_filled, migration_of, reason_in_target

# How often all queues are looked at again for what was enqueued meanwhile: somebody may never stop feeding.
ROUNDS = 100


@dataclass(slots=True)
class Moved:
    """What became of a queue.

    ``entries`` and ``checksum``: of all that has arrived, in earlier runs too; ``payload_bytes``: what this
    run has sent. ``stuck``: entries that stay in the source, by id, and why. ``known``: those that were ended
    in the source, for the target has an entry that was enqueued under the same key. ``problem``: why it is
    not over.
    """

    queue: str
    entries: int = 0
    checksum: str = ""
    payload_bytes: int = 0
    stuck: dict[str, str] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)
    problem: DuraqError | None = None


class Migration:
    """One run. ``queues``: what has become of each so far; ``left``: how many came too late for this run."""

    def __init__(self, ends: Ends, *, wait: float, merge: bool = False) -> None:
        self._ends = ends
        self._wait_for = wait
        self._merge = merge
        self._who = options.user()
        self._id = ""
        self._moved: dict[str, Moved] = {}
        self.queues: dict[str, Moved] = {}
        self.left = 0

    def check(self) -> bool:
        """Whether it goes on with one that has begun. Raises CannotMigrate if it can do neither."""
        ends = self._ends
        here, there = ends.sent_notes.read(), ends.notes.read()
        self._id = here.shared(there) or ""
        if self._id in here.taken:
            raise InvalidOption("source and target are the same storage")
        for queue in ends.source.queues():
            check_free(ends, self._id, queue, here.leaving.get(queue))
            if (self._id, queue) not in there.marks:
                self._check_target(queue)
        return bool(self._id)

    def _check_target(self, queue: str) -> None:
        count = in_all(self._ends.target.counts(queue))
        if count and not self._merge and queue not in OWN_QUEUES:
            raise CannotMigrate(
                f"queue {queue}: the target has {count} entries of its own in a queue of that name; with"
                " --merge (merge=True) those of the source are added to them"
            )

    def __iter__(self) -> Generator[Progress]:
        """Do it; ends between two pages at the earliest. Raises what keeps all of it from going on."""
        ends = self._ends
        if not self.check():
            self._begin()
        self._stopper = Stopper(ends, self._id, self._wait_for)
        self._find_apart()
        # Before anybody feeds the target, which has to know them then.
        ends.copy_keys()
        for _ in range(ROUNDS):
            carried = 0
            leaving, marks = ends.sent_notes.read().leaving, ends.notes.read().marks
            # What was done to dead letters comes last: what it was done to is there by then.
            for queue in (*ends.source.queues(), ACTS):
                if not self._has_work(queue, marks.get((self._id, queue)), leaving.get(queue)):
                    continue
                if queue in OWN_QUEUES:
                    deque(self._carry(queue), maxlen=0)  # nobody asks how far these are
                else:
                    yield from self._carry(queue)
                carried += 1
            ends.copy_keys()
            if not carried:
                break
        self.left = sum(self._is_left(queue) for queue in ends.source.queues())

    def _find_apart(self) -> None:
        """Nothing is done to a queue of which the two remember what does not go together."""
        ends, before = self._ends, self._ends.sent_notes.read()
        found = before.apart(ends.notes.read())
        after = ends.sent_notes.read() if found else before
        for queue in found:
            # Else another run is under way just now, and it is seen when it is there.
            if after.leaving.get(queue) == before.leaving.get(queue):
                self._moved[queue] = self.queues[queue] = Moved(queue, problem=Apart.of(ends, queue))

    def _begin(self) -> None:
        """Give it a name. Of two that begin at once both go by the first one's: see ``Remembered.shared``."""
        ends, found = self._ends, new_id()
        at = to_datetime(ends.source.clock.now()).isoformat()
        taken = f"in/{found}"
        ends.target.commit({MIGRATIONS: once(taken, {"at": at, "who": self._who, "from": ends.source_name})})
        if ends.sent_notes.has(taken):
            ends.target.commit({MIGRATIONS: [Expire(taken)]})
            raise InvalidOption("source and target are the same storage")
        away = {"at": at, "who": self._who, "to": ends.target_name}
        ends.source.commit({MIGRATIONS: once(f"away/{found}", away)})
        self._id = ends.sent_notes.read().shared(ends.notes.read()) or found

    def _has_work(self, queue: str, mark: Mark | None, leaving: Leaving | None) -> bool:
        moved = self._moved.get(queue)
        if moved is not None and moved.problem is not None:
            return False
        here = in_all(self._ends.source.counts(queue))
        if mark is None:
            # What another migration has emptied does not go twice.
            is_new = migration_of(self._ends.source.paused(queue)) in {None, self._id}
            return bool(here) or (is_new and queue not in OWN_QUEUES)
        is_ours = leaving is not None and leaving.migration == self._id and leaving.is_under_way
        return not mark.over or is_ours or here > (0 if moved is None else len(moved.stuck))

    def _is_left(self, queue: str) -> int:
        moved = self._moved.get(queue)
        known = moved is not None and (moved.problem is not None or moved.stuck)
        return 0 if known else in_all(self._ends.source.counts(queue))

    # -- a queue ---------------------------------------------------------------------------------------

    def _carry(self, queue: str) -> Iterator[Progress]:
        moved = self._moved.setdefault(queue, Moved(queue))
        if queue not in OWN_QUEUES:
            self.queues[queue] = moved
        while True:
            mark, leaving = self._notes_of(queue)
            if not self._has_work(queue, mark, leaving):
                break
            try:
                mark = yield from self._carry_once(queue, mark, leaving, moved)
                break
            except Overtaken:
                continue
            except (StorageBusy, CannotMigrate) as problem:
                moved.problem = problem
        if mark is not None:
            moved.entries, moved.checksum = mark.count, mark.checksum
        if moved.stuck or moved.problem:
            self.queues[queue] = moved

    def _notes_of(self, queue: str) -> tuple[Mark | None, Leaving | None]:
        return self._ends.notes.mark(self._id, queue), self._ends.sent_notes.leaving(queue)

    def _carry_once(
        self, queue: str, mark: Mark | None, leaving: Leaving | None, moved: Moved
    ) -> Generator[Progress, None, Mark]:
        ends = self._ends
        if mark is not None and leaving is not None and self._is_closed(mark, leaving):
            # Whoever did that, or gave it up without the source, has not noted it here.
            last = Carrier(ends, mark, leaving, moved.stuck)
            last.settle()
            finish(ends, last.leaving)
            raise Overtaken
        try:
            carrier = yield from self._begun(queue, mark, leaving, moved)
        except Overtaken:
            raise
        except BaseException:
            self._stopper.undo(queue)
            raise
        self._stopper.keep(queue)
        carrier.known = moved.known
        done = 0
        while True:
            # What comes later is for the next round: with a steady feed this one would not end.
            count = in_all(ends.source.counts(queue))
            for number in carrier.all(count):
                done += number
                yield Progress(queue, done, max(done, count))
            if not ends.source.counts(queue).leased:
                break
            # A transaction that had begun before the pause, and has leased what is its own.
            try:
                yield from self._stopper.wait(queue, carrier.leaving)
            except StorageBusy:
                ends.copy_keys()
                self._close_target(carrier)
                finish(ends, carrier.leaving, has_gone=False)
                raise
        moved.payload_bytes += carrier.payload_bytes
        ends.copy_keys()
        over = self._close_target(carrier)
        finish(ends, carrier.leaving)
        return over

    def _begun(
        self, queue: str, mark: Mark | None, leaving: Leaving | None, moved: Moved
    ) -> Generator[Progress, None, Carrier]:
        """It is stopped in the source, the last page is in one of the two, and the target is being filled."""
        pause = self._can_open(queue, mark)
        leaving = yield from self._stopper.stop(queue, leaving)
        if mark is not None:
            last = Carrier(self._ends, mark, leaving, moved.stuck)
            last.settle()
            mark, leaving = last.mark, last.leaving
        if mark is None or mark.over or migration_of(pause) != self._id:
            mark = self._open_target(queue, mark, leaving, pause)
        return Carrier(self._ends, mark, leaving, moved.stuck, self._check_still)

    def _is_closed(self, mark: Mark, leaving: Leaving) -> bool:
        """Whether the target's queue is worked, since it was moved the last time."""
        return leaving.migration == self._id and mark.over and leaving.has_kept(mark)

    def _check_still(self, carrier: Carrier) -> None:
        """Raise Overtaken or CannotMigrate unless the queue is paused on both sides, by this migration."""
        self._stopper.check(carrier.leaving)
        self._check_filling(carrier.mark)

    def _check_filling(self, mark: Mark) -> Pause:
        """How it is paused in the target; raises Overtaken or CannotMigrate if it is not, by this."""
        pause = self._ends.target.paused(mark.queue)
        if pause is not None and migration_of(pause) == self._id:
            return pause
        self._ends.check_last(self._id, mark.queue, mark)
        raise CannotMigrate(
            f"queue {mark.queue}: it is not paused any more in the target; do it again to go on"
        )

    def _can_open(self, queue: str, mark: Mark | None) -> Pause | None:
        """How the target's queue is paused; raises CannotMigrate if it cannot be filled now."""
        ends, target = self._ends, self._ends.target
        pause, theirs = target.paused(queue), ends.notes.leaving(queue)
        if theirs is not None and theirs.is_under_way:
            raise CannotMigrate(
                f"queue {queue}: the target is moving it to {theirs.to}; finish that first, or give it up"
                " with `duraq migrate --give-up`"
            )
        is_other = migration_of(pause) not in {None, self._id}
        if pause is not None and is_other and (in_all(target.counts(queue)) or is_being_filled(pause)):
            raise CannotMigrate(
                f"queue {queue}: the target has it in another migration: {pause.reason}; finish that one, or"
                f" give it up with `duraq migrate --give-up`, or `duraq resume {queue}` there if it is over"
            )
        if mark is None:
            ends.check_last(self._id, queue, None)
            self._check_target(queue)
        return pause

    def _open_target(self, queue: str, before: Mark | None, leaving: Leaving, pause: Pause | None) -> Mark:
        """It is there, paused, and remembers that it is being filled."""
        ends, target = self._ends, self._ends.target
        head = ends.source.head(queue)
        assert head is not None
        # What was moved away, and comes back, goes on as it is here.
        fresh = target.head(queue) is None or migration_of(pause) not in {None, self._id}
        then = leaving.before if fresh else pause or leaving.before
        mark = Mark(self._id, queue, then=then) if before is None else before.turned(then=then, over=False)
        reason = reason_in_target(self._id, ends.source_name)
        now = Pause(to_datetime(target.clock.now()), self._who, reason)
        ledger = head.ledger if fresh and queue not in OWN_QUEUES else None
        try:
            ends.write({queue: [Adopt(head.tokens, now, ledger, instead_of=(pause,))]}, mark, before)
        except QueueError:
            if target.paused(queue) != pause:
                raise Overtaken from None
            raise
        return mark

    def _close_target(self, carrier: Carrier) -> Mark:
        """All of it is there: it is paused if it was, and no token is given there that was given here."""
        self._check_still(carrier)
        try:
            return close(self._ends, carrier.mark, carrier.leaving.number, self._check_filling(carrier.mark))
        except QueueError:
            self._check_filling(carrier.mark)
            raise


def close(ends: Ends, mark: Mark, under: int, pause: Pause | None) -> Mark:
    """Have the target's queue be what it is to be, if it is paused like that; raises as ``write``.

    ``under``: the number that the source's note has now.
    """
    head = ends.source.head(mark.queue)
    tokens = 0 if head is None else head.tokens
    over = mark.turned(over=True, page=(), under=under)
    ends.write({mark.queue: [Adopt(tokens, mark.then, instead_of=(pause,))]}, over, mark)
    return over


__all__ = ["Migration", "Moved", "Progress"]
