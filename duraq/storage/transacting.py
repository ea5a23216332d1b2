"""Transactions over a fold: the verbs of ``Storage`` as whoever is in one sees them."""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ContextDecorator, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from duraq import transaction
from duraq.clock import Clock
from duraq.entry import LEASED, Entry
from duraq.errors import (
    DuraqError,
    InvalidOption,
    NoTransaction,
    QueueError,
)
from duraq.handling import runs_later
from duraq.laid_over import laid_over
from duraq.operations import (
    Bury,
    Complete,
    Expire,
    Extend,
    Fail,
    Lease,
    Operation,
    Release,
    Restore,
)
from duraq.state import QueueState
from duraq.storage.base import HeldLease, Limits, PlaceInLine, StoredEntry
from duraq.storage.committing import EXPIRE_AT_ONCE, CommittingStorage, are_new
from duraq.storage.fold import TryAgain, stored
from duraq.storage.within import PlaceWithin
from duraq.transaction import Transaction, any_begun

log = logging.getLogger("duraq")

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

# What is said of a lease, by its token.
LEASED_BY = (Extend, Complete, Fail, Bury, Release)


class Scope(ContextDecorator):
    """A with-block, or a function, that is a transaction; within another one, a savepoint."""

    def __init__(self, storage: TransactingStorage) -> None:
        self._storage = storage

    def __call__(self, function: Function) -> Function:
        if runs_later(function):
            # It would end before the function begins.
            raise InvalidOption(
                "a coroutine or generator cannot be decorated: write `with storage.transaction():` in it"
            )
        return super().__call__(function)

    def _recreate_cm(self) -> Scope:
        return Scope(self._storage)

    def __enter__(self) -> None:
        # Should a signal handler raise in the middle of this, or at its end, ``__exit__`` is not called.
        before = transaction.mark()
        try:
            self._storage.begin_transaction()
        except BaseException:
            transaction.reset(before)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before: transaction.Mark | None = None
        try:
            before = transaction.mark()
            if kind is None:
                self._storage.commit_transaction()
            else:
                # If it was ended within, the error that leaves the block says more.
                with suppress(NoTransaction):
                    self._storage.rollback_transaction()
        except BaseException as worse:
            # However far that came, and whatever it was: what was begun here is over.
            before = transaction.mark() if before is None else before
            transaction.reset(transaction.without_last(before, self._storage))
            if not isinstance(worse, DuraqError):
                self._storage._left_early()  # noqa: SLF001 - a part of it
            raise


class _Given(NamedTuple):
    """A lease that was given in a transaction which has committed since."""

    queue: str
    id: str
    token: int


@dataclass(frozen=True, slots=True)
class _Numbering(Limits):
    """Those of a transaction, and the tokens that its own leases get when it is written."""

    tokens: dict[int, _Given] = field(default_factory=dict)


class TransactingStorage(CommittingStorage):
    """A fold storage whose verbs belong to the transaction that the caller is in, if it is in one."""

    def __init__(self, clock: Clock, lock_duration: timedelta, max_payload_bytes: int) -> None:
        super().__init__(clock, lock_duration, max_payload_bytes)
        # An entry that a transaction has made, and leases, has no token before it commits: one that is undone
        # must never have the token of another lease. Until then it goes by a number below zero, of which no
        # other storage has the same.
        self._provisional = itertools.count(-secrets.randbits(52) - 1, -1)
        self._real_tokens: dict[int, _Given] = {}
        self._noting = threading.RLock()

    # -- beginning and ending --------------------------------------------------------------------------

    def transaction(self) -> Scope:
        """``with storage.transaction():``, or a decorator; see Storage."""
        return Scope(self)

    def begin_transaction(self) -> None:
        """Begin one, or set a savepoint in the one that this thread or task is in; see Storage."""
        self._check_usable()
        begun = transaction.current(self)
        if begun is None:
            transaction.begin(self)
        else:
            begun.save()

    def commit_transaction(self) -> None:
        """Commit what was done since the transaction began, or give up its last savepoint; see Storage."""
        begun = self._begun()
        if begun.is_nested:
            begun.release_savepoint()
            return
        transaction.end(begun)
        changes = begun.changes
        try:
            self._check_usable()
            if changes:
                limits = _Numbering(begun.max_size)
                self._commit_now(changes, limits)
                self._note_tokens(limits.tokens)
        except BaseException:
            self._give_up(begun.roll_back())
            raise

    def rollback_transaction(self) -> None:
        """Undo what was done since the transaction began, or since its last savepoint; see Storage."""
        begun = self._begun()
        if not begun.is_nested:
            transaction.end(begun)
        self._give_up(begun.roll_back())

    def _left_early(self) -> None:
        """The end of a block was broken off, by a Ctrl-C perhaps."""

    def _warn_if_begun(self) -> None:
        """Say so, if the storage is closed within a transaction: of that, nothing was ever written."""
        begun = transaction.current(self)
        if begun is not None:
            log.warning("%r is closed within a transaction, which was not committed", self)

    def _begun(self) -> Transaction:
        begun = transaction.current(self)
        if begun is None:
            raise NoTransaction("this thread or task is in no transaction on this storage")
        return begun

    def _give_up(self, leases: Sequence[tuple[str, Release]]) -> None:
        """Give back, uncounted, what was leased in what is rolled back."""
        for queue, release in reversed(leases):
            try:
                self._commit_now({queue: (release,)})
            except QueueError:
                pass  # it has ended otherwise
            except DuraqError as error:
                # What made the transaction fail goes before; the lease ends with its deadline, or with us.
                log.warning("queue %s: entry %s was not given back: %s", queue, release.id, error)

    def _release_each(self, queue: str, held: Iterable[Entry]) -> None:
        """Give these leases back, uncounted."""
        # As of now: once caught up, the same entries may show the leases of others.
        for release in [Release(entry.id, entry.token) for entry in held]:
            # One by one: a lease that was lost meanwhile must not keep the others from being given back.
            with suppress(QueueError):
                self._commit_now({queue: (release,)})

    # -- changing --------------------------------------------------------------------------------------

    def commit(self, changes: Mapping[str, Sequence[Operation]], limits: Limits | None = None) -> None:
        """Apply all operations, or none; in a transaction, once that commits. See Storage."""
        if not any_begun() and not self._real_tokens:
            super().commit(changes, limits)
            return
        begun = transaction.current(self)
        if self._real_tokens:
            changes = {queue: self._with_real_tokens(each) for queue, each in changes.items()}
        if begun is None or (limits is not None and limits.still_late):
            super().commit(changes, limits)
            return
        for queue, operations in changes.items():
            if operations and isinstance(operations[0], Extend) and not begun.touches(queue, operations):
                # Time has passed whatever becomes of the transaction.
                self._commit_now({queue: operations}, limits)
                return
        self._check_usable()
        sizes = {} if limits is None else limits.max_size
        for queue, operations in changes.items():
            if queue in sizes or not are_new(operations):
                self._in_turn(partial(self._check_with, begun, queue, operations, sizes.get(queue)))
        for queue, operations in changes.items():
            begun.add(queue, operations, sizes.get(queue))

    def _with_real_tokens(self, operations: Sequence[Operation]) -> Sequence[Operation]:
        """The same, of leases that were given in a transaction that has committed."""
        real = self._real_tokens
        return [
            replace(each, token=real[each.token].token)
            if isinstance(each, LEASED_BY) and each.token in real
            else each
            for each in operations
        ]

    def _note_tokens(self, tokens: Mapping[int, _Given]) -> None:
        if not tokens:
            return
        with self._noting:
            held = {key: given for key, given in self._real_tokens.items() if self._is_held(given)}
            self._real_tokens = held | dict(tokens)

    def _is_held(self, given: _Given) -> bool:
        state = self._known_state(given.queue)
        entry = None if state is None else state.entries.get(given.id)
        return entry is not None and entry.status is LEASED and entry.token == given.token

    def _final(
        self, changes: Mapping[str, Sequence[Operation]], limits: Limits
    ) -> Mapping[str, Sequence[Operation]]:
        if not isinstance(limits, _Numbering):
            return changes
        return {queue: self._numbered(queue, each, limits.tokens) for queue, each in changes.items()}

    def _numbered(
        self, queue: str, operations: Sequence[Operation], tokens: dict[int, _Given]
    ) -> Sequence[Operation]:
        state = self._state(queue)
        last = 0 if state is None else state.tokens
        found: list[Operation] = []
        for each in operations:
            if isinstance(each, Restore):
                # One of another queue may have had a higher one there; no later lease of it has that again.
                last = max(last, each.entry.token)
            if isinstance(each, Lease):
                last += 1
                tokens[each.token] = _Given(queue, each.id, last)
            if isinstance(each, (Lease, *LEASED_BY)) and each.token in tokens:
                found.append(replace(each, token=tokens[each.token].token))
            else:
                found.append(each)
        return found

    def _commit_now(self, changes: Mapping[str, Sequence[Operation]], limits: Limits | None = None) -> None:
        """Whatever transaction the caller is in."""
        super().commit(changes, limits)

    def _check_with(
        self, begun: Transaction, queue: str, operations: Sequence[Operation], max_size: int | None
    ) -> None:
        """Whether they could be committed now, with what was decided before."""
        before = begun.operations(queue)
        if self._state(queue) is None:
            # What is only asked makes no queue.
            self._check_beginning(queue, [*before, *operations], max_size)
            return
        if before and (max_size is not None or begun.touches(queue, operations)):
            self._end_expired_in(begun, queue)
            operations = [*begun.operations(queue), *operations]
        self._check(queue, operations, None if max_size is None else Limits({queue: max_size}))

    # -- claiming --------------------------------------------------------------------------------------

    def claim(
        self, queue: str, limit: int = 1, *, lease_for: int | None = None, detached: bool = False
    ) -> list[StoredEntry]:
        """Lease ready entries, those that the transaction has made among them; see Storage."""
        begun = transaction.current(self) if any_begun() else None
        if begun is None:
            return super().claim(queue, limit, lease_for=lease_for, detached=detached)
        if not begun.concerns(queue):
            claimed = super().claim(queue, limit, lease_for=lease_for, detached=detached)
            for entry in claimed:
                begun.add_lease(queue, entry.id, entry.token)
            return claimed
        length = lease_for or self.lock_duration
        claimed, position = self._in_turn(
            lambda: self._claim_with(begun, queue, limit, length, detached=detached)
        )
        return self._given(queue, claimed, position, length)

    def _claim_with(
        self, begun: Transaction, queue: str, limit: int, length: int, *, detached: bool
    ) -> tuple[list[StoredEntry], int]:
        worker = "" if detached else self._worker()
        below = self._state(queue)
        uptime, now = self.clock.uptime(), self.clock.now()
        if below is not None:
            if below.may_be_late(uptime) and self._any_late(below):
                return [], 0  # they come first; see _claim
            if self._end_expired(below):
                raise TryAgain  # there may be more of them, and they may stand in front
        over = self._end_expired_in(begun, queue)
        if over.pause is not None:
            return [], 0
        taken = [entry for entry in over.take(limit) if not over.is_over(entry, now)]
        theirs = [entry for entry in taken if entry.id not in over.entries]
        claimed: dict[str, StoredEntry] = {}
        position = 0
        if theirs:
            assert below is not None
            handed, position = self._hand_out(below, theirs, worker, uptime + length, now + length)
            for each in handed:
                claimed[each.id] = each
                begun.add_lease(queue, each.id, each.token)
        # Those that are new here, or came back here, are leased when it commits.
        for entry in taken:
            if entry.id not in claimed:
                lease = Lease(
                    entry.id,
                    next(self._provisional),
                    entry.attempts + 1,
                    worker,
                    uptime + length,
                    self.clock.boot_id,
                    now + length,
                )
                payload = self._seen_payload(queue, entry)
                over.apply(lease, entry.seq, now)
                begun.add(queue, (lease,))
                claimed[entry.id] = stored(entry, payload)
        return [claimed[entry.id] for entry in taken], position

    def held(self, queue: str, entry_id: str) -> HeldLease:
        """The lease this open storage holds on the entry; see Storage."""
        begun = transaction.current(self)
        if begun is None or not begun.concerns(queue):
            return super().held(queue, entry_id)
        return self._in_turn(lambda: self._held(queue, entry_id, self._laid_over(begun, queue)))

    # -- asking ----------------------------------------------------------------------------------------

    def _laid_over(self, begun: Transaction, queue: str) -> QueueState:
        """The queue as it would be if the transaction committed now; in a turn, and good until its end."""
        below = self._state(queue)
        below = QueueState(queue) if below is None else below
        return laid_over(below, begun.operations(queue), self.clock.now())

    def _end_expired_in(self, begun: Transaction, queue: str) -> QueueState:
        """The same, with what came back past its TTL in the transaction over; see ``_end_expired``."""
        over = self._laid_over(begun, queue)
        now = self.clock.now()
        over.advance(now)
        late = [Expire(entry.id) for entry in over.expired(now, EXPIRE_AT_ONCE) if entry.id in over.entries]
        for each in late:
            over.apply(each, 0, now)
        begun.add(queue, late)
        return over

    def place(self, queue: str) -> PlaceInLine:
        """What ``wait`` waits with; see Storage."""
        begun = transaction.current(self) if any_begun() else None
        if begun is None or not begun.concerns(queue):
            return self._line(queue)
        is_paused = partial(self._in_turn, lambda: self._laid_over(begun, queue).pause is not None)
        return PlaceWithin(self._line(queue), partial(self._look_within, begun, queue), is_paused)

    def _look_within(
        self, begun: Transaction, queue: str, seconds: float | None, timeout: float
    ) -> float | None:
        """How long to sleep if one would sleep so long without the transaction; None if not at all."""

        def look() -> float | None:
            over = self._laid_over(begun, queue)
            now = self.clock.now()
            if over.pause is not None:
                return timeout
            if seconds is None or over.has_ready(now):
                return None
            due = over.next_event()
            return seconds if due is None else max(0.0, min(seconds, (due - now) / 1e6))

        return self._in_turn(look)

    def _seen_state(self, queue: str) -> QueueState | None:
        begun = transaction.current(self)
        if begun is None or not begun.concerns(queue):
            return self._state(queue)
        return self._laid_over(begun, queue)

    def _seen_payload(self, queue: str, entry: Entry) -> bytes:
        # That of one that is new stands in its place.
        return entry.where if isinstance(entry.where, bytes) else self._payload(queue, entry)
