"""Storages in a database: a turn is one of its transactions, and what the fold has changed is rows in it.

A subclass supplies the database: how a transaction begins and ends in it, its ``Rows``, who lives, who waits.
"""

from __future__ import annotations

import logging
import secrets
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Literal

import orjson

from duraq import stack
from duraq.clock import Clock, from_datetime, to_datetime
from duraq.entry import LEASED, Entry
from duraq.errors import (
    DuraqError,
    InvalidOption,
    StorageClosed,
    StorageFailed,
    StorageForked,
    UnsupportedVersion,
)
from duraq.ledger import Ledger
from duraq.model import Pause, is_users
from duraq.operations import Enqueue, Operation, Restore, WithoutEntry
from duraq.state import QueueState
from duraq.storage.base import Limits, StoredEntry
from duraq.storage.committing import only_extend_leases
from duraq.storage.fold import TryAgain, found_again
from duraq.storage.rows import Head, Rows, RowShelf, entry_of, row_of
from duraq.storage.transacting import TransactingStorage
from duraq.storage.turns import Turns

log = logging.getLogger("duraq")

Durability = Literal["power", "process"]

# Before these there is no entry of that id.
_NEW = (Enqueue, Restore)


def check_durability(durability: str) -> None:
    """Raise InvalidOption if it is none that a database has."""
    if durability not in {"power", "process"}:
        raise InvalidOption(f'durability is "power" or "process", not {durability!r}')


def check_version(found: int, known: int, place: str) -> None:
    """Raise UnsupportedVersion if what is there is of another version than this one knows."""
    if found != known:
        older = "use the DuraQ that made them, whose `duraq migrate` moves what is there"
        raise UnsupportedVersion(
            f"the tables are of version {found}, and this DuraQ knows version {known}",
            path=place,
            hint="upgrade DuraQ" if found > known else older,
        )


class Known:
    """What is in memory of one queue: good while its head in the database has the same version."""

    __slots__ = ("changed", "head", "shelf", "state")

    def __init__(self, queue: str, head: Head, rows: Rows) -> None:
        self.head = head
        self.shelf = RowShelf(rows, queue, head)
        self.state = QueueState(queue)
        self.changed = False
        pause = None
        if head.pause is not None:
            at, who, reason = orjson.loads(head.pause)
            pause = Pause(to_datetime(at), who, reason)
        self.state.resume(head.tokens, pause, map(entry_of, rows.leased(queue)))
        self.state.shelve(self.shelf)
        if head.ledger:
            self.state.ledger = Ledger.of(orjson.loads(head.ledger))

    def note(self) -> None:
        """The head says what the state has become."""
        head, pause = self.head, self.state.pause
        # Never one that there was: a transaction that was undone leaves none behind.
        head.version = secrets.randbits(62)
        head.tokens = self.state.tokens
        head.pause = (
            None
            if pause is None
            else orjson.dumps([from_datetime(pause.at), pause.who, pause.reason]).decode()
        )
        head.ledger = orjson.dumps(self.state.ledger.image()).decode()


class _Turn:
    """A turn, as a with-block."""

    def __init__(self, storage: TableStorage) -> None:
        self._storage = storage

    def __enter__(self) -> None:
        self._storage._begin_turn(stack.caller_of_caller())  # noqa: SLF001 - a part of it

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._storage._end_turn(error)  # noqa: SLF001


class TableStorage(TransactingStorage):
    """A storage whose queues are rows of a database."""

    _rows: Rows

    def __init__(self, clock: Clock, lock_duration: timedelta, max_payload_bytes: int) -> None:
        super().__init__(clock, lock_duration, max_payload_bytes)
        self._turn = _Turn(self)
        self._turns = Turns()
        self._inside = 0  # how often its owner is in it
        self._call: FrameType | None = None  # whose turn it is, unless that lasts longer than a call
        self._is_unended = False  # the database may have a transaction of a turn's, going on or broken off
        self._known: dict[str, Known | None] = {}  # None: to be read anew
        self._seen: dict[str, Known] = {}  # in this turn
        self._own = threading.local()  # ``passing``: what this thread's turns change may be lost
        self._closed = self._closing = self._forked = False

    # -- what a subclass supplies ----------------------------------------------------------------------

    @abstractmethod
    def _begin(self, *, lasting: bool) -> None:
        """Begin a transaction of the database; only ``lasting`` ones are to be durable when they end."""

    @abstractmethod
    def _commit_rows(self) -> None:
        """Commit it."""

    @abstractmethod
    def _roll_back_rows(self) -> None:
        """Roll it back, if there is still one; raises nothing."""

    @abstractmethod
    def _in_our_words(self, error: BaseException, *, committing: bool) -> BaseException | None:
        """What the database has refused; None if it is none of its errors. TryAgain, where that helps."""

    @property
    @abstractmethod
    def _name(self) -> str:
        """How messages speak of the database."""

    @abstractmethod
    def _known_worker(self) -> str | None:
        """The name under which it holds leases, if it ever held one."""

    @found_again
    def _prepare_rows(self, prepare: Callable[[], None]) -> None:
        """Have a transaction of the database see to it that there is what the rows are kept in."""
        with self._turns.mine():
            try:
                self._begin(lasting=True)
                prepare()
                self._commit_rows()
            except Exception as error:
                raise self._translated(error) from error
            finally:
                self._roll_back_rows()

    # -- turns -----------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._forked:
            raise StorageForked("opened before a fork", path=self._name, hint="open it in the child")
        if self._closed:
            raise StorageClosed("this storage is closed", path=self._name)

    def _check_leasing(self) -> None:
        self._check_usable()
        if self._closing:
            # What is leased has been given back already.
            raise StorageClosed("this storage is being closed", path=self._name)

    def _begin_turn(self, call: FrameType | None = None) -> None:
        """``call``: the one that will end it, if that is the one which begins it."""
        if self._is_within():
            self._turns.take()
            self._inside += 1
            try:
                self._begin_within()
            except BaseException as error:
                self._inside -= 1
                self._turns.give()
                raise self._translated(error) from error
            return
        if self._turns.is_mine() and stack.is_running(self._call):
            raise StorageFailed(
                "this call comes from a signal handler in the middle of another one",
                hint="set a flag in the handler instead",
            )
        self._turns.take(anew=True)
        self._call = call
        try:
            if self._is_unended:
                # An interrupt came between a turn's beginning and its with-block, or before its end.
                self._inside = 0
                self._discard()
            self._check_usable()
            self._is_unended = True
            self._begin(lasting=not getattr(self._own, "passing", False))
            self._inside = 1
        except BaseException as error:
            self._inside = 0
            if not isinstance(error, DuraqError):
                # It may have begun all the same, should this be an interrupt.
                self._roll_back_rows()
            self._is_unended, self._call = False, None
            self._turns.give()
            raise self._translated(error) from error

    def _end_turn(self, error: BaseException | None) -> None:
        try:
            self._inside -= 1
            if self._inside:
                self._end_within(error)
                return
            self._call = None
            # What was written before somebody was refused stays: entries that were over have ended.
            if error is None or isinstance(error, (DuraqError, TryAgain)):
                self._keep()
            else:
                self._discard()
                raise self._translated(error) from error
        finally:
            self._turns.give()

    def _is_within(self) -> bool:
        """Whether the caller has a turn already, in which others may begin and end."""
        return False

    def _begin_within(self) -> None:
        """A turn begins in the one that its owner has already."""

    def _end_within(self, error: BaseException | None) -> None:
        """It ends there."""

    def _keep(self, *, always: bool = False) -> None:
        """Commit what this turn has changed; ``always``: even if that is nothing of ours."""
        committing = False
        try:
            if self._save_heads() or always:
                committing = True
                self._commit_rows()
            else:
                self._roll_back_rows()
        except BaseException as error:
            self._discard()
            raise self._translated(error, committing=committing) from error
        self._seen, self._is_unended = {}, False

    def _save_heads(self) -> bool:
        """Write the heads of the queues that have changed; whether there are any."""
        found = False
        for queue, known in self._seen.items():
            if known.changed or known.shelf.changed:
                known.note()
                self._rows.save_head(queue, known.head)
                known.changed = known.shelf.changed = False
                found = True
        return found

    def _discard(self) -> None:
        """Nothing of this turn has happened."""
        self._roll_back_rows()
        self._forget_seen()
        self._is_unended = False

    def _forget_seen(self) -> None:
        """What is known of the queues of this turn is to be read anew."""
        seen, self._seen = self._seen, {}
        for queue in seen:
            self._known[queue] = None

    def _translated(self, error: BaseException, *, committing: bool = False) -> BaseException:
        return self._in_our_words(error, committing=committing) or error

    @contextmanager
    def _passing(self) -> Iterator[None]:
        """Turns in which nothing is changed that a power cut must not take: leases, and the ends of time."""
        self._own.passing = True
        try:
            yield
        finally:
            self._own.passing = False

    # -- the fold --------------------------------------------------------------------------------------

    def _state(self, queue: str, *, create: bool = False) -> QueueState | None:
        known = self._seen.get(queue) or self._look_up(queue, create=create)
        return None if known is None else known.state

    def _look_up(self, queue: str, *, create: bool) -> Known | None:
        head = self._rows.head(queue)
        known = self._known.get(queue)
        if head is None:
            self._known.pop(queue, None)
            if not create:
                return None
            known = Known(queue, Head(), self._rows)
            known.changed = True
        elif known is None or known.head.version != head.version:
            known = Known(queue, head, self._rows)
        self._known[queue] = self._seen[queue] = known
        return known

    def _known_state(self, queue: str, *, whole: bool = False) -> QueueState | None:
        if whole:
            return None  # what others have done since is in the database only
        known = self._known.get(queue)
        if known is not None:
            return known.state
        return self._in_turn(lambda: self._state(queue))

    def _write(self, changes: Mapping[str, Sequence[Operation]], *, soon: bool = False) -> int:  # noqa: ARG002
        now = self.clock.now()
        for queue, operations in changes.items():
            self._state(queue, create=True)
            self._fold(self._seen[queue], operations, now)
        return 0

    def _fold(self, known: Known, operations: Sequence[Operation], now: int) -> None:
        state, head = known.state, known.head
        touched: dict[str, bytes | None] = {}
        known.changed = True
        for operation in operations:
            head.seq += 1
            payload: bytes | None = getattr(operation, "payload", None)
            state.apply(operation, head.seq, now, payload)
            if isinstance(operation, WithoutEntry):
                continue
            if payload is not None and (operation.id in touched or not isinstance(operation, _NEW)):
                # It takes the place of a row of that id.
                head.payload_bytes -= self._rows.delete(state.name, operation.id)
            touched[operation.id] = payload or touched.get(operation.id)
        for entry_id, payload in touched.items():
            entry = state.entries.get(entry_id)
            if entry is None:
                head.payload_bytes -= self._rows.delete(state.name, entry_id)
                continue
            entry.where = None
            self._rows.put(state.name, row_of(entry, payload))
            head.payload_bytes += len(payload or b"")
            if entry.status is not LEASED:
                known.shelf.lay_down(entry)
                state.lay_down(entry_id)

    def _payload(self, queue: str, entry: Entry) -> bytes:
        return entry.where if isinstance(entry.where, bytes) else self._rows.payload(queue, entry.id)

    def _make_room(self, *, enqueuing: bool) -> None:
        """A database grows by itself."""

    def _settle(self, position: int) -> None:
        """What a turn has changed is durable at its end."""

    def _settle_to_read(self, position: int) -> int:  # noqa: ARG002 - nobody sees what is not durable
        return 0

    def commit(self, changes: Mapping[str, Sequence[Operation]], limits: Limits | None = None) -> None:
        """Apply all operations, or none; see Storage."""
        if only_extend_leases(changes):
            with self._passing():
                super().commit(changes, limits)
        else:
            super().commit(changes, limits)

    def claim(
        self, queue: str, limit: int = 1, *, lease_for: int | None = None, detached: bool = False
    ) -> list[StoredEntry]:
        """Lease ready entries; see Storage."""
        # After a power cut there is nobody left to hold them.
        with self._passing():
            return super().claim(queue, limit, lease_for=lease_for, detached=detached)

    # -- the rest --------------------------------------------------------------------------------------

    def _find_some(self, state: QueueState, entry_ids: Iterable[str]) -> Iterator[tuple[Entry, bytes]]:
        # All at once: one by one they would be as many statements.
        for row in self._rows.some(state.name, list(entry_ids)):
            yield entry_of(row), row.payload or b""

    @found_again
    def queues(self) -> list[str]:
        """Names of the queues that exist, sorted; see Storage."""
        with self._turn:
            return sorted(filter(is_users, self._rows.names()))

    def _live_bytes(self, state: QueueState) -> int:
        return self._seen[state.name].head.payload_bytes

    def _bytes_on_disk(self, queue: str) -> int:
        known = self._known.get(queue)
        return 0 if known is None else known.head.payload_bytes

    def _give_back(self) -> None:
        """Give back, uncounted, what this open storage holds."""
        mine = self._known_worker()
        if mine is None:
            return
        for queue in list(self._known):
            state = self._known_state(queue)
            if state is not None:
                self._release_each(queue, state.leased.get(mine, {}).values())
