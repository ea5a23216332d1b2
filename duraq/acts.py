"""Acts: what somebody does to many dead letters at once.

An act has an id. Which entries it means is settled, and written down, before the first of them is touched;
then they are gone through in batches. So the number that was agreed to is the number that is meant, and an
act that was killed midway is carried out again under its id, and does nothing twice. What it needs for that
is kept in a queue of the storage's own, whose entries expire after ACT_KEPT.

    <act>             what is to be done, by whom and why; written last, so that where it is, the rest is too
    <act>.<n>         ids of entries, a thousand each
    <act>.was.<n>     an entry that was removed, whole, so that it can be brought back
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import count, islice
from typing import NamedTuple

import orjson
import uuid_utils

from duraq import options, snapshot
from duraq.clock import from_timedelta
from duraq.entry import DEAD, READY, Entry
from duraq.errors import ActNotFound, DuplicateEntry, EntryNotFound, InvalidOption, QueueError, QueueNotFound
from duraq.model import ACTS
from duraq.operations import Enqueue, Expire, Operation, Remove, Requeue, Restore
from duraq.storage.base import Storage, StoredEntry

ACT_KEPT = timedelta(days=7)
RETRY, REMOVE, PURGE, UNDO = "retry", "remove", "purge", "undo"

# One group of operations: large enough to share a sync, small enough to hold no lock for long.
BATCH = 250
_BATCH_BYTES = 8 << 20  # of payloads that are written once more
_CHUNK = 1000  # ids in one entry of a plan
_CHUNKS_AT_ONCE = 50
_LONGEST_ID = 112  # what belongs to it has longer ones


@dataclass(frozen=True, slots=True)
class Act:
    """What was decided about ``count`` dead letters of a queue.

    ``verb``: retry, remove, purge or undo. ``where``: the filter that they were chosen by, if it was one.
    ``of``: the act that is undone.
    """

    id: str
    verb: str
    queue: str
    count: int
    who: str
    at: datetime
    reason: str = ""
    where: str = ""
    keep_attempts: bool = False
    of: str = ""


class Outcome(NamedTuple):
    """What became of one entry: ``error`` says why it was passed over, if it was."""

    id: str
    error: QueueError | None = None


def new_id() -> str:
    """An id that no other act has."""
    return str(uuid_utils.uuid7())


class Acts:
    """The acts on the dead letters of one storage, of the last days."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    # -- what was written down -------------------------------------------------------------------------

    def get(self, act_id: str) -> Act:
        """Raises ActNotFound if there is none of that id, or it is too old."""
        try:
            stored = self._storage.get(ACTS, act_id)
        except (EntryNotFound, QueueNotFound):
            raise ActNotFound(
                f"there is no act {act_id!r}, or it is older than {ACT_KEPT.days} days"
            ) from None
        return _act(stored)

    def all(self, queue: str | None = None) -> list[Act]:
        """The acts on that queue, or on all, oldest first."""
        found = []
        for start in count(0, 100):
            page = self._storage.entries(ACTS, READY, 100, start)
            # They have a higher priority than what belongs to them.
            found += [_act(stored) for stored in page if stored.priority]
            if len(page) < 100 or not page[-1].priority:
                break
        return [act for act in found if queue in {None, act.queue}]

    def plan(self, act: Act, ids: Iterable[str]) -> Act:
        """Write down what is to be done to which entries; returns it with their number.

        If there is an act of that id it is that one: what it means was settled then. Raises InvalidOption if
        it is another kind of act.
        """
        check_id(act.id)
        with suppress(ActNotFound):
            return self._same(act)
        chosen = list(dict.fromkeys(ids))
        whole = replace(act, count=len(chosen))
        chunks = [chosen[at : at + _CHUNK] for at in range(0, len(chosen), _CHUNK)]
        names = [f"{act.id}.{number}" for number in range(len(chunks))]
        written: list[Operation] = []
        for number, (name, chunk) in enumerate(zip(names, chunks, strict=True), start=1):
            # Of one who was killed before this was whole; nobody went by it.
            written += [Expire(name) for _ in self._find(name)]
            written.append(self._entry(name, orjson.dumps(chunk)))
            if number % _CHUNKS_AT_ONCE == 0:
                self._storage.commit({ACTS: written})
                written = []
        try:
            self._storage.commit({ACTS: [*written, self._header(whole)]})
        except DuplicateEntry:
            # Somebody else has just begun with it.
            return self._same(act)
        return whole

    def _header(self, act: Act) -> Enqueue:
        """The operation that writes down what is to be done."""
        return self._entry(act.id, orjson.dumps(asdict(act)), priority=1)

    def _same(self, act: Act) -> Act:
        found = self.get(act.id)
        if (found.verb, found.queue, found.of) != (act.verb, act.queue, act.of):
            raise InvalidOption(f"act {act.id!r} is another one: {found.verb} in queue {found.queue}")
        return found

    def ids(self, act: Act) -> Iterator[str]:
        """The entries that are meant, in the order in which they are gone through."""
        for number in range(-(-act.count // _CHUNK)):
            yield from orjson.loads(self._storage.get(ACTS, f"{act.id}.{number}").payload)

    def _entry(self, name: str, payload: bytes, *, priority: int = 0) -> Enqueue:
        return Enqueue(name, payload, priority, None, self._storage.clock.now() + from_timedelta(ACT_KEPT))

    def _find(self, name: str) -> list[StoredEntry]:
        try:
            return [self._storage.get(ACTS, name)]
        except (EntryNotFound, QueueNotFound):
            return []

    # -- carrying out ----------------------------------------------------------------------------------

    def carry_out(self, act: Act) -> Iterator[Outcome]:
        """Do what was planned, batch by batch, and say what became of each entry.

        What was done before, or what somebody else was quicker with, is passed over. Each batch is whole or
        not at all.
        """
        numbered = enumerate(self.ids(act))
        while batch := list(islice(numbered, BATCH)):
            yield from self._retry(act, batch) if act.verb == RETRY else self._remove(act, batch)

    def _retry(self, act: Act, batch: Sequence[tuple[int, str]]) -> Iterable[Outcome]:
        operations = {entry_id: Requeue(entry_id, act.keep_attempts, act.id) for _, entry_id in batch}
        try:
            self._storage.commit({act.queue: list(operations.values())})
        except QueueError:
            # At least one was done before, or decided on by somebody else. There may be many of them.
            return self._retry_what_is_left(act, operations)
        return map(Outcome, operations)

    def _retry_what_is_left(self, act: Act, operations: Mapping[str, Operation]) -> Iterable[Outcome]:
        found: dict[str, Outcome] = {}
        left: list[_Change] = []
        for entry_id, operation in operations.items():
            try:
                self.check(act.queue, entry_id, act.id)
            except QueueError as error:
                found[entry_id] = Outcome(entry_id, error)
            else:
                left.append(({act.queue: [operation]}, entry_id))
        found.update(self._each(act.queue, left))
        return [found[entry_id] for entry_id in operations]

    def check(self, queue: str, entry_id: str, act_id: str | None = None) -> StoredEntry:
        """The dead letter, if it is one, and still for that act to decide on. Raises EntryNotFound if not."""
        stored = self._storage.get(queue, entry_id)
        if stored.status is not DEAD:
            raise EntryNotFound(f"queue {queue}: entry {entry_id} is {stored.status}, not dead")
        if stored.act == act_id:
            raise EntryNotFound(f"queue {queue}: entry {entry_id} was put back already, and died again")
        return stored

    def _remove(self, act: Act, batch: Sequence[tuple[int, str]]) -> Iterable[Outcome]:
        found: dict[str, Outcome] = {}
        together: list[_Change] = []
        size = 0
        for number, entry_id in batch:
            try:
                stored = self.check(act.queue, entry_id)
            except QueueError as error:
                found[entry_id] = Outcome(entry_id, error)
                continue
            if size + len(stored.payload) > _BATCH_BYTES:
                found.update(self._each(act.queue, together))
                together, size = [], 0
            size += len(stored.payload)
            together.append((self._removal(act, number, stored), entry_id))
        found.update(self._each(act.queue, together))
        return [found[entry_id] for _, entry_id in batch]

    def remove_one(self, act: Act, entry_id: str) -> None:
        """Plan and carry out the removal of one, in one change. Raises EntryNotFound if it is not dead."""
        changes = self._removal(act, 0, self.check(act.queue, entry_id))
        changes[ACTS] += [self._entry(f"{act.id}.0", orjson.dumps([entry_id])), self._header(act)]
        self._storage.commit(changes)

    def _removal(self, act: Act, number: int, stored: StoredEntry) -> dict[str, list[Operation]]:
        """The operations that remove that dead letter, as the act's ``number``th, if it is still the same."""
        changes: dict[str, list[Operation]] = {act.queue: [Remove(stored.id, stored.last_token)]}
        if act.verb == REMOVE:
            changes[ACTS] = [self._entry(f"{act.id}.was.{number}", _whole(stored))]
        return changes

    def _each(self, queue: str, changes: Sequence[_Change]) -> dict[str, Outcome]:
        """Commit them together or, if the queue refuses one of them, fewer at once."""
        try:
            self._storage.commit(_joined(queue, [each for each, _ in changes]))
        except QueueError as error:
            if len(changes) == 1:
                return {changes[0][1]: Outcome(changes[0][1], error)}
            half = len(changes) // 2
            return self._each(queue, changes[:half]) | self._each(queue, changes[half:])
        return {entry_id: Outcome(entry_id) for _, entry_id in changes}

    # -- undoing ---------------------------------------------------------------------------------------

    def undo(self, act: Act, undoing: Act) -> Iterator[Outcome]:
        """Bring back what an act has removed, as it was; ``undoing`` is the act that this is.

        What was brought back before is passed over in silence. One whose id is in use again stays removed.
        """
        if act.verb != REMOVE:
            raise InvalidOption(f"act {act.id} cannot be undone: it is a {act.verb}")
        self._storage.commit({ACTS: [self._header(undoing)]})
        names = (f"{act.id}.was.{number}" for number in range(act.count))
        removed = (stored for name in names for stored in self._find(name))
        while batch := list(islice(removed, BATCH)):
            changes: list[_Change] = []
            for stored in batch:
                restore = _restore(stored)
                changes.append(({act.queue: [restore], ACTS: [Expire(stored.id)]}, restore.id))
            yield from self._each(act.queue, changes).values()


_Change = tuple[dict[str, list[Operation]], str]


def check_id(act_id: str) -> str:
    """The id itself; else InvalidOption."""
    if len(options.entry_id(act_id)) > _LONGEST_ID:
        raise InvalidOption(f"act {act_id!r} is longer than {_LONGEST_ID} characters")
    return act_id


def _joined(queue: str, changes: Iterable[dict[str, list[Operation]]]) -> dict[str, list[Operation]]:
    found: dict[str, list[Operation]] = {queue: []}
    for each in changes:
        for name, operations in each.items():
            found.setdefault(name, []).extend(operations)
    return found


def _act(stored: StoredEntry) -> Act:
    fields = orjson.loads(stored.payload)
    return Act(**{**fields, "at": datetime.fromisoformat(fields["at"])})


def _whole(stored: StoredEntry) -> bytes:
    """A dead letter with all that it has been through."""
    entry = Entry(stored, stored.seq, stored.created_at, None, 0)
    entry.updated_at = stored.updated_at
    entry.status, entry.token, entry.attempts = DEAD, stored.last_token, stored.attempts
    entry.redriven, entry.act, entry.history = stored.redriven, stored.act, stored.history
    found = {"id": stored.id, "entry": snapshot.of(entry), "data": stored.payload.decode()}
    return orjson.dumps(found)


def _restore(stored: StoredEntry) -> Restore:
    found = orjson.loads(stored.payload)
    return Restore(found["id"], found["data"].encode(), snapshot.restore(found["id"], found["entry"]))
