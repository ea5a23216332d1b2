"""Acts: what somebody does to many dead letters at once.

An act has an id. Which dead letters it means is settled, and written down, before the first of them is
touched; then they are gone through in batches. So the number that was agreed to is the number that is meant,
and an act that was killed midway is carried out again under its id, and does nothing twice: a dead letter is
meant by its id and the token that it died under, which no later death of it has. What it needs for that is
kept in a queue of the storage's own, whose entries expire.

    <act>                 what is to be done, by whom and why; written last: where it is, the rest is too
    <act>/<plan>/<n>      dead letters that are meant, a thousand each; each who plans has a name for it
    <act>/was/<n>         one that was removed, whole, so that it can be brought back
    <act>/undone          it was undone, and must not go on
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import chain, count, islice
from typing import Any, NamedTuple

import orjson
import uuid_utils

from duraq import options, snapshot
from duraq.clock import from_timedelta, to_datetime
from duraq.entry import DEAD, READY, Entry
from duraq.errors import (
    ActNotFound,
    DuplicateEntry,
    EntryNotFound,
    InvalidOption,
    QueueError,
    QueueNotFound,
)
from duraq.model import ACTS, PROVISIONAL, check_queue_name
from duraq.operations import Enqueue, Expire, Keep, Operation, Remove, Requeue, Restore
from duraq.pauses import check_stays
from duraq.storage.base import Storage, StoredEntry

# How long an act can be carried out, and what it has removed be brought back.
KEPT = timedelta(days=7)
RETRY, REMOVE, PURGE, UNDO, EDIT, MOVE = "retry", "remove", "purge", "undo", "edit", "move"

# One group of operations: large enough to share a sync, small enough to hold no lock for long.
BATCH = 250
_BATCH_BYTES = 1 << 20  # of what is written once more
_CHUNK = 1000  # dead letters in one entry of a plan
_CHUNKS_AT_ONCE = 50
UNDONE = "/undone"  # behind an act's id
_LONGEST_ID = 100  # what belongs to it has longer ones

# A dead letter: its id, and the token that it died under.
Letter = tuple[str, int]
_Change = dict[str, list[Operation]]


@dataclass(frozen=True, slots=True)
class Act:
    """What was decided about ``count`` dead letters of a queue.

    ``verb``: retry, remove, purge, undo, edit (and retry) or move. ``where``: the filter that they were
    chosen by, if it was one. ``of``: the act that is undone. ``to``: the queue that they are moved to.
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
    plan: str = ""
    to: str = ""


class Outcome(NamedTuple):
    """What became of one entry: ``error`` says why it was passed over, if it was."""

    id: str
    error: QueueError | None = None


def new_id() -> str:
    """An id that no other act has."""
    return str(uuid_utils.uuid7())


def check_id(act_id: str) -> str:
    """The id itself; else InvalidOption."""
    if len(options.entry_id(act_id)) > _LONGEST_ID or "/" in act_id:
        raise InvalidOption(f"act {act_id!r} is longer than {_LONGEST_ID} characters, or has a / in it")
    return act_id


def check_target(queue: str, to: str, there: Collection[str]) -> None:
    """Raise unless dead letters of the one queue can go to the other; ``there``: the queues that exist."""
    if check_queue_name(to) == queue:
        raise InvalidOption(f"the dead letters of queue {queue} are there already")
    if to not in there:
        raise QueueNotFound(f"{QueueNotFound.among(to, there)}; duraq create {to} makes it")


class Acts:
    """The acts on the dead letters of one storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    # -- what is written down --------------------------------------------------------------------------

    def new(self, verb: str, queue: str, act_id: str | None = None, *, reason: str = "", **more: Any) -> Act:
        """An act of whoever runs this, of which nothing is written down yet.

        Raises CannotMigrate if the dead letters, or what was removed, are just going to another storage.
        """
        concerns = ACTS if verb == UNDO else queue
        check_stays(concerns, self._storage.paused(concerns))
        at = to_datetime(self._storage.clock.now())
        reason = options.text("reason", reason)
        found = Act(
            new_id() if act_id is None else check_id(act_id), verb, queue, 0, options.user(), at, reason
        )
        found = replace(found, **more)
        if verb == MOVE:
            check_target(queue, found.to, self._storage.queues())
        return found

    def get(self, act_id: str) -> Act:
        """The act of that id, also one that is too old to go on. Raises ActNotFound if there is none."""
        for stored in () if "/" in act_id else self._find(act_id):
            return read(stored.payload)
        raise _not_found(act_id)

    def all(self, queue: str | None = None) -> list[Act]:
        """The acts on that queue, or on all, oldest first."""
        found = []
        for start in count(0, 100):
            page = self._storage.entries(ACTS, READY, 100, start)
            # They have a higher priority than what belongs to them.
            found += [read(stored.payload) for stored in page if stored.priority]
            if len(page) < 100 or not page[-1].priority:
                break
        return [act for act in found if queue in {None, act.queue} and self._age(act) < KEPT]

    def plan(self, wanted: Iterable[tuple[Act, Iterable[Letter]]]) -> list[Act]:
        """Write down what is to be done to which dead letters, all of it together; returns the acts.

        An act whose id is known is that one: what it means was settled then. Raises InvalidOption if that is
        another kind of act.
        """
        acts = []
        headers: list[Operation] = []
        for act, letters in wanted:
            known = self._same(act)
            if known is None:
                known = self._write_plan(act, letters)
                headers.append(self._header(known))
            acts.append(known)
        try:
            self._storage.commit({ACTS: headers})
        except DuplicateEntry:
            # Somebody else has just begun with one of them: it means what they have written.
            return self.plan((act, ()) if self._same(act) else (act, self.letters(act)) for act in acts)
        return acts

    def _write_plan(self, act: Act, letters: Iterable[Letter]) -> Act:
        # A token below zero is one of this transaction, and another one is written when it commits.
        chosen = [(entry_id, max(token, 0)) for entry_id, token in dict(letters).items()]
        # Of its own: somebody else may be planning an act of the same id.
        planned = replace(act, count=len(chosen), plan=secrets.token_hex(4))
        chunks = [chosen[at : at + _CHUNK] for at in range(0, len(chosen), _CHUNK)]
        entries = [
            self._entry(f"{act.id}/{planned.plan}/{number}", chunk) for number, chunk in enumerate(chunks)
        ]
        for at in range(0, len(entries), _CHUNKS_AT_ONCE):
            self._storage.commit({ACTS: entries[at : at + _CHUNKS_AT_ONCE]})
        return planned

    def _header(self, act: Act) -> Enqueue:
        """The operation that writes down what is to be done."""
        return self._entry(act.id, asdict(act), priority=1)

    def _same(self, act: Act) -> Act | None:
        """The act of the same id, if there is one."""
        found = next((read(stored.payload) for stored in self._find(act.id)), None)
        if found is not None and _kind(found) != _kind(act):
            raise InvalidOption(f"act {act.id!r} is another one: {found.verb} in queue {found.queue}")
        return found

    def letters(self, act: Act) -> Iterator[Letter]:
        """The dead letters that are meant, in the order in which they are gone through."""
        for number in range(-(-act.count // _CHUNK)):
            for stored in self._find(f"{act.id}/{act.plan}/{number}"):
                yield from map(tuple, orjson.loads(stored.payload))
                break
            else:
                raise _not_found(act.id)

    def _entry(self, name: str, content: object, *, priority: int = 0, kept: timedelta = 2 * KEPT) -> Enqueue:
        # Twice as long as an act can be carried out: what it has removed at last comes back for as long.
        expires_at = self._storage.clock.now() + from_timedelta(kept)
        return Enqueue(name, orjson.dumps(content), priority, None, expires_at)

    def _find(self, name: str) -> list[StoredEntry]:
        try:
            return [self._storage.get(ACTS, name)]
        except (EntryNotFound, QueueNotFound):
            return []

    def _age(self, act: Act) -> timedelta:
        return to_datetime(self._storage.clock.now()) - act.at

    def edit(self, act: Act, entry_id: str, payload: bytes, token: int = 0) -> None:
        """Put one back with another payload. Raises EntryNotFound if it is not dead, or by another token."""
        now = self._storage.clock.now()
        stored = self.check_known(act.queue, entry_id, token)
        operations = with_other_payload(stored, payload, now, keep_attempts=act.keep_attempts)
        self._storage.commit({act.queue: operations, ACTS: [self._header(replace(act, count=1))]})

    # -- carrying out ----------------------------------------------------------------------------------

    def carry_out(self, act: Act, at_once: int | None = None) -> Iterator[Outcome]:
        """Do what was planned, batch by batch, and say what became of each dead letter.

        ``at_once``: how many are a batch, which is whole or not at all. What was done before, or what
        somebody else was quicker with, is passed over. Raises ActNotFound if the act is too old, and
        InvalidOption once it has been undone.
        """
        numbered = enumerate(self.letters(act))
        while batch := list(islice(numbered, at_once or BATCH)):
            if self._age(act) >= KEPT:
                raise _not_found(act.id)
            if self._find(f"{act.id}{UNDONE}"):
                raise InvalidOption(f"act {act.id} was undone; do it again under another id")
            yield from self._retry(act, batch) if act.verb == RETRY else self._take_away(act, batch)

    def _retry(self, act: Act, batch: Sequence[tuple[int, Letter]]) -> Iterable[Outcome]:
        changes: dict[str, _Change] = {
            entry_id: {act.queue: [Requeue(entry_id, act.keep_attempts, act.id, token)]}
            for _, (entry_id, token) in batch
        }
        try:
            self._storage.commit(_joined(changes.values()))
        except QueueError:
            # At least one was done before, or decided on by somebody else. There may be many of them.
            return self._what_is_left(act, batch, lambda _, stored: changes[stored.id])
        return map(Outcome, changes)

    def _take_away(self, act: Act, batch: Sequence[tuple[int, Letter]]) -> Iterable[Outcome]:
        if act.verb == MOVE:
            return self._what_is_left(act, batch, lambda _, stored: self._moving(act, stored))
        return self._what_is_left(act, batch, lambda number, stored: self._removal(act, number, stored))

    def _what_is_left(self, act: Act, batch: Sequence[tuple[int, Letter]], change: Any) -> Iterable[Outcome]:
        """Do to each, if it is still the dead letter that was meant, what ``change`` gives."""
        found: dict[str, Outcome] = {}
        together: dict[str, _Change] = {}
        size = 0
        for number, (entry_id, token) in batch:
            try:
                check = self.check if act.verb == RETRY else self.check_known
                stored = check(act.queue, entry_id, token)
            except QueueError as error:
                found[entry_id] = Outcome(entry_id, error)
                continue
            together[entry_id] = change(number, stored)
            size += _written(together[entry_id])
            if size > _BATCH_BYTES:
                found.update(commit_each(self._storage, together))
                together, size = {}, 0
        found.update(commit_each(self._storage, together))
        return [found[entry_id] for _, (entry_id, _) in batch]

    def check(self, queue: str, entry_id: str, token: int = 0) -> StoredEntry:
        """The dead letter, if it is one, and died under that token. Raises EntryNotFound if not."""
        stored = self._storage.get(queue, entry_id)
        if stored.status is not DEAD:
            raise EntryNotFound(f"queue {queue}: entry {entry_id} is {stored.status}, not dead")
        if token not in {0, stored.last_token}:
            raise EntryNotFound(f"queue {queue}: entry {entry_id} was put back, and died again")
        return stored

    def check_known(self, queue: str, entry_id: str, token: int = 0) -> StoredEntry:
        """The same; its numbers are to be written down. Raises InvalidOption if they are not known yet.

        An entry that a transaction has made, or leased anew, has them only when that has committed.
        """
        stored = self.check(queue, entry_id, token)
        if stored.last_token < 0 or stored.seq >= PROVISIONAL:
            raise InvalidOption(
                f"queue {queue}: entry {entry_id} died in this transaction, which must commit first"
            )
        return stored

    def remove_one(self, act: Act, entry_id: str) -> None:
        """Plan and carry out the removal of one, in one change. Raises EntryNotFound if it is not dead."""
        stored = self.check_known(act.queue, entry_id)
        planned = replace(act, count=1, plan=secrets.token_hex(4))
        changes = self._removal(planned, 0, stored)
        chunk = self._entry(f"{act.id}/{planned.plan}/0", [(entry_id, stored.last_token)])
        changes[ACTS] += [chunk, self._header(planned)]
        self._storage.commit(changes)

    def _removal(self, act: Act, number: int, stored: StoredEntry) -> _Change:
        """The operations that remove that dead letter, as the act's ``number``th, if it is still the same."""
        changes: _Change = {act.queue: [Remove(stored.id, stored.last_token)]}
        if act.verb == REMOVE:
            entry, data = snapshot.of(stored.unheld()), stored.payload.decode()
            whole = {"id": stored.id, "entry": entry, "data": data}
            changes[ACTS] = [self._entry(f"{act.id}/was/{number}", whole, kept=KEPT)]
        return changes

    def _moving(self, act: Act, stored: StoredEntry) -> _Change:
        """The operations that take a dead letter out of its queue and put it, ready, into the other one."""
        entry = _put_back(stored, self._storage.clock.now(), keep_attempts=act.keep_attempts)
        entry.ready_at = None
        return {
            act.queue: [Remove(stored.id, stored.last_token)],
            act.to: [Restore(stored.id, stored.payload, entry, changed=True)],
        }

    # -- undoing ---------------------------------------------------------------------------------------

    def undo(self, act: Act, undoing: Act, go_on: Callable[[], bool] = lambda: True) -> Iterator[Outcome]:
        """Bring back what an act has removed, as it was; ``undoing`` is the act that this is.

        ``go_on`` is asked before each batch; another undo brings back what is left. What was brought back
        before is passed over in silence. One whose id is in use again stays removed.
        """
        if act.verb != REMOVE:
            raise InvalidOption(f"act {act.id} cannot be undone: it is a {act.verb}")
        names = (f"{act.id}/was/{number}" for number in range(act.count))
        removed = (stored for name in names for stored in self._find(name))
        first = list(islice(removed, 1))
        if not first:
            if self._age(act) >= KEPT:
                raise _not_found(act.id)
            return
        begun: list[Operation] = [self._header(undoing)]
        if not self._find(f"{act.id}{UNDONE}"):
            # As long as the act itself is there.
            left = max(2 * KEPT - self._age(act), timedelta(seconds=1))
            begun.append(self._entry(f"{act.id}{UNDONE}", undoing.id, kept=left))
        try:
            self._storage.commit({ACTS: begun})
        except DuplicateEntry:
            # Somebody else has begun to undo it just now; each of its letters comes back once.
            self._storage.commit({ACTS: begun[:1]})
        together: dict[str, _Change] = {}
        size = 0
        for stored in chain(first, removed):
            restore = _restore(stored)
            together[restore.id] = {act.queue: [restore], ACTS: [Expire(stored.id)]}
            size += len(stored.payload)
            if len(together) == BATCH or size > _BATCH_BYTES:
                yield from commit_each(self._storage, together).values()
                together, size = {}, 0
                if not go_on():
                    return
        yield from commit_each(self._storage, together).values()


def commit_each(storage: Storage, changes: dict[str, _Change]) -> dict[str, Outcome]:
    """Commit these changes together or, if one of them is refused, or they are too many, fewer at once.

    Each has a name, by which what became of it is told.
    """
    if not changes:
        return {}
    try:
        storage.commit(_joined(changes.values()))
    except QueueError as error:
        if len(changes) == 1:
            return {name: Outcome(name, error) for name in changes}
        items, half = list(changes.items()), len(changes) // 2
        return commit_each(storage, dict(items[:half])) | commit_each(storage, dict(items[half:]))
    return {name: Outcome(name) for name in changes}


def with_other_payload(
    stored: StoredEntry, payload: bytes, now: int, *, keep_attempts: bool
) -> list[Operation]:
    """The operations that put a dead letter back with another payload.

    A requeue, and the entry as it is then, written once more: a record that has all of it, as whoever reads
    on from there needs it when the others are gone.
    """
    entry = _put_back(stored, now, keep_attempts=keep_attempts)
    requeue = Requeue(stored.id, keep_attempts, token=stored.last_token)
    return [requeue, Keep(stored.id, payload, entry, changed=True)]


def _put_back(stored: StoredEntry, now: int, *, keep_attempts: bool) -> Entry:
    """A dead letter as it is once it is put back."""
    entry = stored.unheld()
    entry.status, entry.expires_at, entry.updated_at = READY, None, now
    entry.redriven += 1
    entry.attempts = stored.attempts if keep_attempts else 0
    return entry


def _written(change: _Change) -> int:
    """How long the payloads are that it writes once more."""
    operations = chain.from_iterable(change.values())
    return sum(len(each.payload) for each in operations if isinstance(each, (Enqueue, Keep)))


def _kind(act: Act) -> tuple[str, ...]:
    """What the acts of one id have in common."""
    return act.verb, act.queue, act.of, act.to


def _not_found(act_id: str) -> ActNotFound:
    return ActNotFound(f"there is no act {act_id!r}, or it is older than {KEPT.days} days")


def _joined(changes: Iterable[_Change]) -> _Change:
    found: _Change = {}
    for each in changes:
        for name, operations in each.items():
            found.setdefault(name, []).extend(operations)
    return found


def read(payload: bytes) -> Act:
    """The act that was written down so."""
    fields = orjson.loads(payload)
    return Act(**{**fields, "at": datetime.fromisoformat(fields["at"])})


def _restore(stored: StoredEntry) -> Restore:
    found = orjson.loads(stored.payload)
    return Restore(found["id"], found["data"].encode(), snapshot.restore(found["id"], found["entry"]))
