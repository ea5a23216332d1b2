"""A queue is a fold over its operations; this is the fold.

``QueueState`` knows nothing of files, locks or clocks: it checks an operation, applies it, and answers what
may be delivered next. Two processes that folded the same operations hold the same state, which is all
that keeps them in step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from heapq import heapify, heappop, heappush, merge
from itertools import islice
from typing import Any

from duraq.clock import to_datetime
from duraq.entry import DEAD, LEASED, READY, SCHEDULED, Entry, delivery_order, enqueue_order
from duraq.ledger import DEAD as DIED
from duraq.ledger import ENQUEUED, EXPIRED, REMOVED, REQUEUED, RESTORED, Ledger
from duraq.model import Attempt, AttemptError, Cause, Counts, EntryStatus, Pause, with_attempt
from duraq.operations import (
    Adopt,
    Bury,
    Complete,
    Drop,
    Enqueue,
    Expire,
    Extend,
    Fail,
    Keep,
    Lease,
    Operation,
    PauseQueue,
    Release,
    Remove,
    Repair,
    Requeue,
    Restore,
    ResumeQueue,
)
from duraq.ready import Ready
from duraq.shelf import EmptyShelf, Shelf

_WAITING = (READY, SCHEDULED)
_GIVEN_BACK = AttemptError("Released", "given back; not counted")
_LONGEST = 1000  # characters of a reason that an entry keeps


def _given_back(release: Release) -> AttemptError:
    if not release.who:
        return _GIVEN_BACK
    reason = f": {release.reason[:_LONGEST]}" if release.reason else ""
    return AttemptError("Released", f"ended by {release.who}{reason}; not counted")


class QueueState:
    """The entries of one queue that are scheduled, ready, leased or dead.

    ``entries`` are those in memory, the leased ones among them; the others lie on the shelf.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.pause: Pause | None = None
        # The highest token ever given: an id may be used again, a token never is.
        self.tokens = 0
        self.leased: dict[str, dict[str, Entry]] = {}  # by worker, then id
        self.ledger = Ledger()  # what has happened so far, in numbers
        self.shelve(EmptyShelf())

    def shelve(self, shelf: Shelf) -> None:
        """Go on with this shelf, on which every entry lies that is not leased."""
        self.shelf = shelf
        self.entries: dict[str, Entry] = {e.id: e for held in self.leased.values() for e in held.values()}
        for entry in self.entries.values():
            entry.queued = False
        self._tally = dict.fromkeys((SCHEDULED, READY, LEASED, DEAD), 0)
        self._tally[LEASED] = len(self.entries)
        self._ready = Ready()
        # Heaps whose items may be stale: an item counts only if the entry still agrees with it.
        self._scheduled: list[tuple[int, int, Entry]] = []
        self._expiring = [(e.expires_at, e.seq, e) for e in self.entries.values() if e.expires_at is not None]
        heapify(self._expiring)
        self._deadlines = self._fresh_deadlines()

    def resume(self, tokens: int, pause: Pause | None, leased: Iterable[Entry]) -> None:
        """Go on from a state that was kept; ``shelve`` follows, with the entries that are not leased."""
        self.tokens, self.pause = tokens, pause
        self.leased = {}
        for entry in leased:
            self.leased.setdefault(entry.worker, {})[entry.id] = entry

    def trim(self) -> None:
        """Forget what is stale: for who keeps the states of many queues and changes few of them."""
        self.entries = dict(self.entries)
        self._ready.prune(0, spare=0)
        self._scheduled = [i for i in self._scheduled if i[2].status is SCHEDULED and i[2].ready_at == i[0]]
        self._expiring = [i for i in self._expiring if i[2].status is not EntryStatus.COMPLETED]
        heapify(self._scheduled)
        heapify(self._expiring)
        self._deadlines = self._fresh_deadlines()

    # -- asking ----------------------------------------------------------------------------------------

    def find(self, entry_id: str) -> Entry | None:
        """The entry of that id, wherever it is, or None."""
        return self.entries.get(entry_id) or self.shelf.find(entry_id)

    def counts(self, now: int) -> Counts:
        """How many entries are in each state at this time; those past their TTL no longer count."""
        self.advance(now)
        tally, over = self.tally, self.count_expired(now)
        return Counts(tally.scheduled - over.scheduled, tally.ready - over.ready, tally.leased, tally.dead)

    @property
    def tally(self) -> Counts:
        """The same as of the last ``advance``, with those past their TTL that nobody has ended yet."""
        here, shelf = self._tally, self.shelf.tally
        return Counts(
            here[SCHEDULED] + shelf.scheduled,
            here[READY] + shelf.ready,
            here[LEASED],
            here[DEAD] + shelf.dead,
        )

    def count_expired(self, now: int) -> Counts:
        """How many are past their TTL while nobody holds them, by state."""
        here, shelf = self._expired(now), self.shelf.count_expired(now)
        scheduled = sum(entry.status is SCHEDULED for entry in here)
        return Counts(scheduled + shelf.scheduled, len(here) - scheduled + shelf.ready)

    @property
    def size(self) -> int:
        """Entries still to be worked: scheduled, ready and leased."""
        return len(self.entries) - self._tally[DEAD] + self.shelf.tally.length

    def listing(
        self, status: EntryStatus | None, now: int, limit: int | None = None, offset: int = 0
    ) -> Iterator[Entry]:
        """Entries in that state (None: all): ready ones in the order of delivery, others in enqueue order."""
        self.advance(now)
        found = (entry for entry in self.all_of(status) if not self.is_over(entry, now))
        end = sys.maxsize if limit is None else offset + limit
        return islice(found, min(offset, sys.maxsize), min(end, sys.maxsize))

    def all_of(self, status: EntryStatus | None) -> Iterator[Entry]:
        """The same as of the last ``advance``, with those past their TTL."""
        order = delivery_order if status is READY else enqueue_order
        here: Iterable[Entry] = (each for each in self.entries.values() if status in {None, each.status})
        return merge(sorted(here, key=order), self.shelf.walk(status), key=order)

    def behind(self, seq: int, now: int, status: EntryStatus | None = None) -> Iterator[Entry]:
        """Those (in that state) of a later number than that, as they were enqueued, but for what is over."""
        self.advance(now)
        here = (each for each in self.entries.values() if each.seq > seq and status in {None, each.status})
        found = merge(sorted(here, key=enqueue_order), self.shelf.behind(seq, status), key=enqueue_order)
        return (entry for entry in found if not self.is_over(entry, now))

    def lived(self, before: int) -> Iterator[Entry]:
        """Those that were enqueued as a number before that one and have been leased since, in no order."""
        yield from (entry for entry in list(self.entries.values()) if entry.token and entry.seq < before)
        yield from self.shelf.lived(before)

    def next_event(self) -> int | None:
        """The wall time at which the next scheduled entry is ready, if there is one."""
        heap = self._scheduled
        while heap and not (heap[0][2].status is SCHEDULED and heap[0][2].ready_at == heap[0][0]):
            heappop(heap)
        first, shelved = heap[0][0] if heap else None, self.shelf.next_event()
        return min(first, shelved) if first is not None and shelved is not None else first or shelved

    def next_deadline(self) -> Entry | None:
        """The leased entry whose deadline comes first."""
        heap = self._deadlines
        while heap:
            deadline, _, token, entry = heap[0]
            if entry.status is LEASED and entry.token == token and entry.deadline == deadline:
                return entry
            heappop(heap)
        return None

    def may_be_late(self, uptime: int) -> bool:
        """Whether it is worth asking ``past_deadline``; changes nothing, so safe without a turn."""
        heap = self._deadlines
        return bool(heap) and heap[0][0] <= uptime

    def past_deadline(self, uptime: int, boot: str) -> list[Entry]:
        """Leased entries whose deadline, in the uptime of that boot, has passed.

        One of another boot says nothing here: its holder is dead, or lives in a container that has a boot id
        of its own.
        """
        first = self.next_deadline()
        if first is None or first.deadline > uptime:
            return []
        every = (entry for held in self.leased.values() for entry in held.values())
        return [entry for entry in every if entry.deadline <= uptime and entry.boot == boot]

    # -- choosing --------------------------------------------------------------------------------------

    def advance(self, now: int) -> None:
        """Scheduled entries whose time has come are ready. Derived from time, so not an operation."""
        heap = self._scheduled
        while heap and heap[0][0] <= now:
            ready_at, _, entry = heappop(heap)
            if entry.status is SCHEDULED and entry.ready_at == ready_at:
                self._tally[SCHEDULED] -= 1
                self._make_ready(entry)
        self.shelf.advance(now)

    @property
    def may_have_expired(self) -> bool:
        """Whether any entry has a TTL at all."""
        return bool(self._expiring) or self.shelf.may_expire

    def expired(self, now: int, limit: int) -> list[Entry]:
        """Entries whose TTL passed and that nobody holds, at most ``limit``."""
        found = self._expired(now)[:limit]
        return found + self.shelf.expired(now, limit - len(found))

    def _expired(self, now: int) -> list[Entry]:
        """Those of them that are in memory."""
        heap = self._expiring
        if not heap or heap[0][0] > now:
            return []
        found, kept = [], []
        while heap and heap[0][0] <= now:
            item = heappop(heap)
            entry = item[2]
            if entry.expires_at != item[0]:
                continue
            if entry.status in _WAITING:
                found.append(entry)
            # One that is leased is looked at again when it comes back.
            if entry.status in _WAITING or entry.status is LEASED:
                kept.append(item)
        for item in kept:
            heappush(heap, item)
        return found

    def is_over(self, entry: Entry, now: int) -> bool:
        """Whether its TTL passed while nobody held it, so that it will never be delivered."""
        return entry.expires_at is not None and entry.expires_at <= now and entry.status in _WAITING

    def likely_next(self) -> Entry | None:
        """Which entry will be taken next, as it looks now."""
        first, shelved = self._ready.first(), self.shelf.first()
        if shelved is None or (first is not None and delivery_order(first) < shelved):
            return first
        return next(iter(self.shelf.peek(1)), None)

    def take(self, limit: int) -> list[Entry]:
        """Up to ``limit`` ready entries in the order of delivery; each must then be leased or put back."""
        first = self.shelf.first()
        taken = self._ready.take(limit)
        # Nothing that is shelved comes before these.
        if first is None or (len(taken) == limit and delivery_order(taken[-1]) < first):
            return taken
        try:
            shelved = self.shelf.peek(limit)
        except BaseException:
            self.put_back(taken)
            raise
        if not taken:
            return shelved
        both = sorted([*taken, *shelved], key=delivery_order)
        self.put_back(both[limit:])
        return both[:limit]

    def put_back(self, entries: list[Entry]) -> None:
        """Undo ``take`` for entries that were not leased after all."""
        for entry in entries:
            # Not those that still lie on the shelf, nor those that went there meanwhile.
            if entry.status is READY and self.entries.get(entry.id) is entry:
                self._ready.add(entry)

    def has_ready(self, now: int) -> bool:
        """Whether something could be leased now."""
        self.advance(now)
        return self.pause is None and (self._tally[READY] > 0 or self.shelf.any_ready)

    # -- folding ---------------------------------------------------------------------------------------

    def apply(self, operation: Operation, seq: int, at: int, where: Any = None, position: int = 0) -> None:
        """Fold one operation that was checked when it was written."""
        _FOLD[type(operation)](self, operation, seq, at, where, position)

    def apply_group(
        self, operations: Sequence[Operation], seq: int, at: int, places: Sequence[Any], position: int
    ) -> None:
        """Fold operations that were written together, the first of them as number ``seq``."""
        if len(operations) == 1:
            self.apply(operations[0], seq, at, places[0], position)
            return
        entries, add, added = self.entries, self._ready.add, 0
        for operation, where in zip(operations, places, strict=True):
            if type(operation) is Enqueue and operation.ready_at is None and operation.expires_at is None:
                # As _enqueue does it; a batch is thousands of these.
                entries[operation.id] = entry = Entry(operation, seq, at, where, position)
                add(entry)
                added += 1
            else:
                self.apply(operation, seq, at, where, position)
            seq += 1
        if added:
            self.ledger.count(ENQUEUED, at, added)
            self._tally[READY] += added
            self._ready.prune(self._tally[READY])

    def _enqueue(self, operation: Enqueue, seq: int, at: int, where: Any, position: int) -> None:
        entry = Entry(operation, seq, at, where, position)
        self.entries[entry.id] = entry
        self.ledger.count(ENQUEUED, at)
        if entry.expires_at is not None:
            self._watch_expiry(entry, entry.expires_at)
        if entry.ready_at is None:
            self._make_ready(entry)
        else:
            self._schedule(entry, entry.ready_at)

    def _lease(self, operation: Lease, _seq: int, at: int, _where: Any, _position: int) -> None:
        entry = self.entries.get(operation.id) or self._unshelve(operation.id, at)
        self._tally[entry.status] -= 1
        self._tally[LEASED] += 1
        entry.status = LEASED
        self.ledger.wait.add(at - entry.ready_since)
        entry.attempts, entry.token, entry.worker = operation.attempt, operation.token, operation.worker
        entry.leased_at = entry.updated_at = at
        self.tokens = max(self.tokens, operation.token)
        self.leased.setdefault(entry.worker, {})[entry.id] = entry
        self._set_deadline(entry, operation)

    def _extend(self, operation: Extend, _seq: int, at: int, _where: Any, _position: int) -> None:
        entry = self.entries[operation.id]
        entry.updated_at = at
        self._set_deadline(entry, operation)

    def _complete(self, operation: Complete, _seq: int, at: int, _where: Any, _position: int) -> None:
        entry = self.entries[operation.id]
        self._unlease(entry)
        self.ledger.complete(entry.leased_at, at)
        self._forget(operation.id)

    def _fail(self, operation: Fail, _seq: int, at: int, _where: Any, _position: int) -> None:
        entry = self.entries[operation.id]
        self._note(entry, operation.cause, operation.error, at)
        self._unlease(entry)
        self._return(entry, operation.ready_at if operation.ready_at > at else None)

    def _bury(self, operation: Bury, _seq: int, at: int, _where: Any, _position: int) -> None:
        entry = self.entries[operation.id]
        self._note(entry, operation.cause, operation.error, at)
        self._unlease(entry)
        entry.status = DEAD
        self._tally[DEAD] += 1
        self.ledger.count(DIED, at)

    def _release(self, operation: Release, _seq: int, at: int, _where: Any, _position: int) -> None:
        entry = self.entries[operation.id]
        self._note(entry, Cause.RELEASED, _given_back(operation), at)
        self._unlease(entry)
        entry.attempts -= 1
        self._return(entry, operation.ready_at)

    def _expire(self, operation: Expire, _seq: int, at: int, _where: Any, _position: int) -> None:
        entry = self.entries.get(operation.id) or self._unshelve(operation.id, at)
        self._tally[entry.status] -= 1
        self._forget(operation.id)
        self.ledger.count(EXPIRED, at)

    def _requeue(self, operation: Requeue, _seq: int, at: int, _where: Any, position: int) -> None:
        entry = self.entries.get(operation.id) or self._unshelve(operation.id, at)
        self._tally[DEAD] -= 1
        entry.updated_at = at
        entry.redriven += 1
        entry.position = position  # with another payload it is not to be delivered before
        if not operation.keep_attempts:
            entry.attempts = 0
        # A person wants it tried, so its TTL, which may have passed while it lay dead, no longer holds.
        entry.expires_at = None
        self._return(entry, None)
        self.ledger.count(REQUEUED, at)

    def _remove(self, operation: Remove, _seq: int, at: int, _where: Any, _position: int) -> None:
        entry = self.entries.get(operation.id) or self._unshelve(operation.id, at)
        self._tally[entry.status] -= 1
        self._forget(operation.id)
        if not operation.to:
            self.ledger.count(REMOVED, at)

    def _pause(self, operation: PauseQueue, _seq: int, at: int, _where: Any, _position: int) -> None:
        self.pause = Pause(to_datetime(at), operation.who, operation.reason)

    def _resume(self, _operation: ResumeQueue, _seq: int, _at: int, _where: Any, _position: int) -> None:
        self.pause = None

    def _keep(self, operation: Keep, _seq: int, _at: int, where: Any, position: int) -> None:
        entry = self.entries.get(operation.id)
        if entry is not None:
            entry.where = where
            return
        # Nowhere at all, if what was written of it before is gone.
        self.shelf.replace(operation.id, operation.entry.seq)
        self._admit(operation.entry, where, position)

    def _restore(self, operation: Restore, seq: int, at: int, where: Any, position: int) -> None:
        # A copy: in a transaction the same operation is folded more than once.
        entry = copy(operation.entry)
        if operation.changed or operation.source:
            entry.seq = seq
        if operation.changed:
            entry.updated_at = at
        self._admit(entry, where, position)
        self.ledger.count(RESTORED, at)
        if entry.status is not DEAD and not operation.source:
            # It came from the dead letters of another queue, and was put back on the way.
            self.ledger.count(REQUEUED, at)

    def _drop_before(self, operation: Drop, _seq: int, _at: int, _where: Any, _position: int) -> None:
        self.tokens = max(self.tokens, operation.tokens)
        self.pause = operation.pause
        # Whoever begins here knows no more; a version that kept no numbers has left none to begin with.
        self.ledger = Ledger() if operation.ledger is None else operation.ledger

    def _adopt(self, operation: Adopt, _seq: int, _at: int, _where: Any, _position: int) -> None:
        self.tokens = max(self.tokens, operation.tokens)
        self.pause = operation.pause
        if operation.ledger is not None:
            # A copy, for this one goes on counting.
            self.ledger = Ledger.of(operation.ledger.image())

    def _note_repair(self, _operation: Repair, _seq: int, _at: int, _where: Any, _position: int) -> None:
        """What was lost changes nothing any more."""

    def admit(self, entry: Entry) -> None:
        """Take an entry in as it was kept, with its place and position."""
        self._admit(entry, entry.where, entry.position)

    def lay_down(self, entry_id: str) -> None:
        """The entry lies on the shelf from now on, as it has become."""
        self._tally[self.entries[entry_id].status] -= 1
        self._forget(entry_id)

    # -- pieces of the fold ----------------------------------------------------------------------------

    def _admit(self, entry: Entry, where: Any, position: int) -> None:
        """An entry that is new here, whatever it has been through."""
        # It may have stood in the line of a state that was shelved since.
        entry.queued = False
        self.entries[entry.id] = entry
        entry.where, entry.position = where, position
        self.tokens = max(self.tokens, entry.token)
        if entry.expires_at is not None:
            self._watch_expiry(entry, entry.expires_at)
        if entry.status is LEASED:
            self._tally[LEASED] += 1
            self.leased.setdefault(entry.worker, {})[entry.id] = entry
            heappush(self._deadlines, (entry.deadline, entry.seq, entry.token, entry))
        elif entry.status is DEAD:
            self._tally[DEAD] += 1
        else:
            self._return(entry, entry.ready_at)

    def _unshelve(self, entry_id: str, at: int) -> Entry:
        """An entry that is about to change, now in memory."""
        # What was ready for the one who wrote the record is to be ready here: then it is found at once.
        self.shelf.advance(at)
        entry = self.shelf.take(entry_id)
        self.entries[entry_id] = entry
        self._tally[entry.status] += 1
        if entry.expires_at is not None:
            self._watch_expiry(entry, entry.expires_at)
        return entry

    def _watch_expiry(self, entry: Entry, expires_at: int) -> None:
        heappush(self._expiring, (expires_at, entry.seq, entry))
        if len(self._expiring) > 64 + 2 * len(self.entries):
            self._expiring = [i for i in self._expiring if i[2].status is not EntryStatus.COMPLETED]
            heapify(self._expiring)

    def _make_ready(self, entry: Entry) -> None:
        entry.status = READY
        self._tally[READY] += 1
        self._ready.add(entry)
        self._ready.prune(self._tally[READY])

    def _schedule(self, entry: Entry, ready_at: int) -> None:
        entry.status = SCHEDULED
        entry.ready_at = ready_at
        self._tally[SCHEDULED] += 1
        heappush(self._scheduled, (ready_at, entry.seq, entry))
        if len(self._scheduled) > 64 + 2 * self._tally[SCHEDULED]:
            fresh = [i for i in self._scheduled if i[2].status is SCHEDULED and i[2].ready_at == i[0]]
            heapify(fresh)
            self._scheduled = fresh

    def _return(self, entry: Entry, ready_at: int | None) -> None:
        if ready_at is None:
            self._make_ready(entry)
        else:
            self._schedule(entry, ready_at)

    def _set_deadline(self, entry: Entry, operation: Lease | Extend) -> None:
        entry.deadline, entry.boot, entry.deadline_at = (
            operation.deadline,
            operation.boot,
            operation.deadline_at,
        )
        heappush(self._deadlines, (entry.deadline, entry.seq, entry.token, entry))
        if len(self._deadlines) > 64 + 4 * self._tally[LEASED]:
            # Leases end before their deadlines as a rule, so most items are stale long before they surface.
            self._deadlines = self._fresh_deadlines()

    def _fresh_deadlines(self) -> list[tuple[int, int, int, Entry]]:
        leased = (entry for held in self.leased.values() for entry in held.values())
        return sorted((e.deadline, e.seq, e.token, e) for e in leased)

    def _unlease(self, entry: Entry) -> None:
        self._tally[LEASED] -= 1
        held = self.leased[entry.worker]
        del held[entry.id]
        if not held:
            del self.leased[entry.worker]
        # The lease is over in every sense; nothing may mistake the entry for a leased one.
        entry.status = SCHEDULED

    def _note(self, entry: Entry, cause: Cause, error: AttemptError, at: int) -> None:
        attempt = Attempt(
            entry.attempts, cause, error, entry.worker, to_datetime(entry.leased_at), to_datetime(at)
        )
        entry.history = with_attempt(entry.history, attempt)
        entry.updated_at = at
        self.ledger.end(cause, entry.leased_at, at)

    def _forget(self, entry_id: str) -> None:
        entry = self.entries.pop(entry_id)
        # Heap items may still point here; this makes them stale.
        entry.status = EntryStatus.COMPLETED


_Fold = Callable[[QueueState, Any, int, int, Any, int], None]
_FOLD: dict[type[Any], _Fold] = {
    Enqueue: QueueState._enqueue,  # noqa: SLF001 - the table is part of the class
    Lease: QueueState._lease,  # noqa: SLF001
    Extend: QueueState._extend,  # noqa: SLF001
    Complete: QueueState._complete,  # noqa: SLF001
    Fail: QueueState._fail,  # noqa: SLF001
    Bury: QueueState._bury,  # noqa: SLF001
    Release: QueueState._release,  # noqa: SLF001
    Expire: QueueState._expire,  # noqa: SLF001
    Requeue: QueueState._requeue,  # noqa: SLF001
    Remove: QueueState._remove,  # noqa: SLF001
    Keep: QueueState._keep,  # noqa: SLF001
    Restore: QueueState._restore,  # noqa: SLF001
    Drop: QueueState._drop_before,  # noqa: SLF001
    Adopt: QueueState._adopt,  # noqa: SLF001
    Repair: QueueState._note_repair,  # noqa: SLF001
    PauseQueue: QueueState._pause,  # noqa: SLF001
    ResumeQueue: QueueState._resume,  # noqa: SLF001
}
