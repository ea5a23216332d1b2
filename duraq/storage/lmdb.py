"""Queues in an LMDB environment that the application owns and keeps its own databases in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar, Self

import lmdb
import orjson

from duraq.clock import Clock, SystemClock
from duraq.errors import (
    InvalidOption,
    NotAStorage,
    NotWritten,
    OutcomeUnknown,
    StorageBusy,
    StorageClosed,
    StorageDamaged,
    StorageError,
    StorageReadOnly,
)
from duraq.journal import wording
from duraq.storage.beside import BesideStorage, absolute
from duraq.storage.rows import Head, Row
from duraq.storage.table import Durability, check_durability, check_version

VERSION = 1
MAP_SIZE = 1 << 30  # bytes; of address space, until it is filled
_VERSION_KEY = b"\0version"
DATABASES = ("duraq-queues", "duraq-entries", "duraq-payloads", "duraq-order")

_KINDS: tuple[tuple[type[lmdb.Error], type[StorageError], str], ...] = (
    (lmdb.MapFullError, NotWritten, "nothing was written; open the environment with a larger map_size"),
    (
        lmdb.MapResizedError,
        NotWritten,
        "nothing was written; another process has a larger map: call env.set_mapsize(0) while nobody reads",
    ),
    (lmdb.DiskError, NotWritten, "nothing was written"),
    (lmdb.CorruptedError, StorageDamaged, "restore it from a backup"),
    (lmdb.PageNotFoundError, StorageDamaged, "restore it from a backup"),
    (lmdb.InvalidError, StorageDamaged, "it is no LMDB environment"),
    (lmdb.ReadonlyError, StorageReadOnly, "open the environment for writing"),
)


class LMDBStorage(BesideStorage):
    """Queues in named databases of an LMDB environment, shared by the processes of one host.

    The environment is the caller's: he opens it, with ``max_dbs`` for ``required_databases`` beside his own,
    and closes it after the storage. If another process makes its map larger, calls raise NotWritten until he
    has called ``env.set_mapsize(0)``. What ``close`` gives up is the leases. ``durability``: "power" (the
    default) needs an environment that syncs; "process" takes any.

    A child that is forked must open both anew. Within one process an environment can be open once.
    Raises InvalidOption, UnsupportedVersion, StorageReadOnly or StorageDamaged.
    """

    required_databases: ClassVar[tuple[str, ...]] = DATABASES

    def __init__(
        self,
        env: lmdb.Environment,
        *,
        durability: Durability = "power",
        lock_duration: timedelta = timedelta(minutes=5),
        max_payload_bytes: int = 1 << 20,
        clock: Clock | None = None,
    ) -> None:
        check_durability(durability)
        try:
            path, flags = env.path(), env.flags()
        except lmdb.Error as error:
            raise StorageClosed("the environment is closed", hint="open it first") from error
        if flags["readonly"]:
            raise StorageReadOnly("the environment is read-only", path=path, hint="open it for writing")
        if durability == "power" and not (flags["sync"] and flags["metasync"]):
            raise InvalidOption(
                "the environment does not sync: open it with sync=True and metasync=True, "
                'or the storage with durability="process"'
            )
        super().__init__(absolute(path), clock or SystemClock(), lock_duration, max_payload_bytes)
        self.durability = durability
        self.env = env
        self._owned = False  # whether the environment was opened for this storage alone
        self._transactions: list[lmdb.Transaction] = []  # the turn's, and its savepoints'
        self._points: list[str] = []  # their names
        self._open_beside()
        try:
            self._prepare_rows(self._prepare)
        except BaseException as error:
            self._closed = True
            self._descriptors.close()
            raise self._translated(error) from error

    @classmethod
    def at(cls, path: str | os.PathLike[str], *, map_size: int = MAP_SIZE, **options: Any) -> Self:
        """Open the environment in that directory for the storage alone, which closes it.

        ``map_size``: what it may grow to, in bytes. Raises StorageBusy if this process has it open already.
        """
        try:
            env = lmdb.open(os.fspath(path), map_size=map_size, max_dbs=len(DATABASES), mode=0o600)
        except lmdb.Error as error:
            if "already open" in str(error):
                raise StorageBusy(
                    "this process has the environment open", path=path, hint="share it: LMDBStorage(env)"
                ) from error
            raise NotAStorage(str(error), path=path) from error
        try:
            storage = cls(env, **options)
        except BaseException:
            env.close()
            raise
        storage._owned = True
        return storage

    def __repr__(self) -> str:
        return f"<LMDBStorage {self.db_path!r}>"

    def _open_database(self, name: str) -> Any:
        try:
            # In a transaction that is begun already: to begin one by itself, LMDB stops all other threads,
            # and none could end the one that it waits for.
            return self.env.open_db(name.encode(), txn=self._transactions[-1])
        except lmdb.DbsFullError as error:
            raise InvalidOption(
                f"the environment has no room for the database {name!r}: "
                f"open it with max_dbs for {len(DATABASES)} more than your own"
            ) from error

    def _prepare(self) -> None:
        """Open the databases, and see that what is there is of a version that is known."""
        databases = [self._open_database(name) for name in DATABASES]
        self._rows = rows = LMDBRows(self._transactions, *databases)
        found = rows.version()
        if found is None:
            rows.set_version(VERSION)
        else:
            check_version(found, VERSION, self.db_path)

    @property
    def txn(self) -> lmdb.Transaction:
        """The caller's transaction, for what the application writes: it is part of it.

        From here to the end of the transaction nobody else writes in the environment; committing and
        aborting are not for the caller. Raises NoTransaction outside of ``with storage.transaction():``,
        and InvalidOption in a task, which does both in a thread.
        """
        self._join()
        return self._transactions[-1]

    # -- the environment's transactions ----------------------------------------------------------------

    def _begin(self, *, lasting: bool) -> None:  # noqa: ARG002 - it syncs, or it does not
        self._fs.lock(self._turn_lock)
        try:
            try:
                self._transactions.append(self.env.begin(write=True))
            except lmdb.MapResizedError:
                # Another process has opened it with a larger one. Whoever reads meanwhile reads what is no
                # longer there, which ends the process: only its owner knows that nobody does.
                if not self._owned:
                    raise
                self.env.set_mapsize(0)
                self._transactions.append(self.env.begin(write=True))
        except BaseException:
            self._fs.unlock(self._turn_lock)
            raise

    def _set_savepoint(self, name: str) -> None:
        self._transactions.append(self.env.begin(write=True, parent=self._transactions[-1]))
        self._points.append(name)

    def _release_savepoint(self, name: str) -> None:
        for inner in self._taken_off(name):
            inner.commit()

    def _roll_back_to(self, name: str) -> None:
        for inner in self._taken_off(name):
            inner.abort()

    def _taken_off(self, name: str) -> Iterator[lmdb.Transaction]:
        """Those from that savepoint on, the last one first."""
        if name not in self._points:
            raise lmdb.Error(f"there is no savepoint {name}")
        while True:
            last = self._points.pop()
            del self._transactions[len(self._points) + 2 :]  # of one that was only just being set
            yield self._transactions.pop()
            if last == name:
                return

    def _commit_rows(self) -> None:
        (only,) = self._transactions
        only.commit()
        self._transactions.clear()
        self._fs.unlock(self._turn_lock)

    def _roll_back_rows(self) -> None:
        self._points.clear()
        while self._transactions:
            with suppress(lmdb.Error):
                self._transactions.pop().abort()
        self._fs.unlock(self._turn_lock)

    def _in_our_words(self, error: BaseException, *, committing: bool) -> StorageError | None:
        if isinstance(error, OSError):
            return wording.of(error, self.db_path, NotWritten)
        if not isinstance(error, lmdb.Error):
            return None
        if "closed" in str(error):
            return StorageClosed(
                "the environment is closed", path=self.db_path, hint="close the storage first"
            )
        for kind, ours, hint in _KINDS:
            if isinstance(error, kind):
                return ours(str(error), path=self.db_path, hint=hint)
        if committing:
            return OutcomeUnknown(str(error), path=self.db_path, hint="look whether it was done")
        return NotWritten(str(error), path=self.db_path, hint="nothing was written")

    # -- closing ---------------------------------------------------------------------------------------

    def _close_database(self) -> None:
        if self._owned:
            self.env.close()

    def _abandon_database(self) -> None:
        self._transactions.clear()


def _key(queue: str, kind: bytes, *numbers: int) -> bytes:
    # In the order of the numbers, those below zero first.
    return b"%s\0%s%s" % (queue.encode(), kind, b"".join((n + (1 << 63)).to_bytes(8, "big") for n in numbers))


_READY, _READY_BY_SEQ, _SCHEDULED, _DUE, _DEAD, _LEASED, _EXPIRING = b"r", b"a", b"s", b"t", b"d", b"l", b"x"
_BY_SEQ = {"ready": _READY_BY_SEQ, "scheduled": _SCHEDULED, "dead": _DEAD, "leased": _LEASED}


def _places(queue: str, row: Row) -> list[bytes]:
    """Where the row stands in the orders that are asked for."""
    found = [_key(queue, _BY_SEQ[row.status], row.seq)]
    if row.status == "ready":
        found.append(_key(queue, _READY, -row.priority, row.seq))
    if row.status == "scheduled":
        found.append(_key(queue, _DUE, row.ready_at or 0, row.seq))
    if row.status in {"ready", "scheduled"} and row.expires_at is not None:
        found.append(_key(queue, _EXPIRING, row.expires_at, row.seq))
    return found


class LMDBRows:
    """See Rows: what a key leads to is a row as JSON, and an order's keys lead to ids."""

    def __init__(
        self, transactions: list[lmdb.Transaction], queues: Any, entries: Any, payloads: Any, order: Any
    ) -> None:
        self._transactions = transactions
        self._queues, self._entries, self._payloads, self._order = queues, entries, payloads, order

    @property
    def _txn(self) -> lmdb.Transaction:
        return self._transactions[-1]

    def version(self) -> int | None:
        found = self._txn.get(_VERSION_KEY, db=self._queues)
        return None if found is None else int(found)

    def set_version(self, version: int) -> None:
        self._txn.put(_VERSION_KEY, b"%d" % version, db=self._queues)

    # -- heads -----------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        with self._txn.cursor(db=self._queues) as cursor:
            return [bytes(key).decode() for key in cursor.iternext(values=False) if key != _VERSION_KEY]

    def head(self, queue: str) -> Head | None:
        found = self._txn.get(queue.encode(), db=self._queues)
        return None if found is None else Head(*orjson.loads(found))

    def save_head(self, queue: str, head: Head) -> None:
        values = [getattr(head, name) for name in Head.__slots__]
        self._txn.put(queue.encode(), orjson.dumps(values), db=self._queues)

    # -- entries ---------------------------------------------------------------------------------------

    def put(self, queue: str, row: Row) -> None:
        key = _name(queue, row.id)
        self._leave(queue, row.id)
        values = [row.seq, row.status, row.priority, row.ready_at, row.expires_at, row.about]
        self._txn.put(key, orjson.dumps(values), db=self._entries)
        for place in _places(queue, row):
            self._txn.put(place, row.id.encode(), db=self._order)
        if row.payload is not None:
            self._txn.put(key, row.payload, db=self._payloads)

    def delete(self, queue: str, entry_id: str) -> int:
        key = _name(queue, entry_id)
        if not self._leave(queue, entry_id):
            return 0
        self._txn.delete(key, db=self._entries)
        payload = self._txn.pop(key, db=self._payloads)
        return 0 if payload is None else len(payload)

    def _leave(self, queue: str, entry_id: str) -> bool:
        """The row no longer stands anywhere; whether there is one."""
        row = self.find(queue, entry_id)
        if row is None:
            return False
        for place in _places(queue, row):
            self._txn.delete(place, db=self._order)
        return True

    def find(self, queue: str, entry_id: str) -> Row | None:
        found = self._txn.get(_name(queue, entry_id), db=self._entries)
        return None if found is None else Row(*(entry_id, *orjson.loads(found), None))

    def some(self, queue: str, entry_ids: list[str]) -> list[Row]:
        found = [self.find(queue, entry_id) for entry_id in entry_ids]
        return [self._with_payload(queue, row) for row in found if row is not None]

    def payload(self, queue: str, entry_id: str) -> bytes:
        return bytes(self._txn.get(_name(queue, entry_id), b"", db=self._payloads))

    def _scan(
        self, queue: str, kind: bytes, until: int | None = None, behind: int | None = None
    ) -> Iterator[Row]:
        """The rows that stand in that order, from behind the one number up to the other."""
        start = _key(queue, kind)
        first = start if behind is None else _key(queue, kind, behind + 1)
        end = None if until is None else _key(queue, kind, until + 1)
        with self._txn.cursor(db=self._order) as cursor:
            if not cursor.set_range(first):
                return
            for found, entry_id in cursor:
                key = bytes(found)
                if not key.startswith(start) or (end is not None and key >= end):
                    return
                row = self.find(queue, bytes(entry_id).decode())
                assert row is not None
                yield row

    def _with_payload(self, queue: str, row: Row) -> Row:
        row.payload = self.payload(queue, row.id)
        return row

    def leased(self, queue: str) -> list[Row]:
        return list(self._scan(queue, _LEASED))

    def ready(self, queue: str, limit: int) -> list[Row]:
        found = zip(range(limit), self._scan(queue, _READY), strict=False)
        return [self._with_payload(queue, row) for _, row in found]

    def walk(self, queue: str, status: str, *, by_seq: bool, behind: int = 0) -> Iterator[Row]:
        rows = self._scan(queue, _BY_SEQ[status], behind=behind) if by_seq else self._scan(queue, _READY)
        return (self._with_payload(queue, row) for row in rows)

    def make_due(self, queue: str, now: int) -> int:
        found = list(self._scan(queue, _DUE, now))
        for row in found:
            self._leave(queue, row.id)
            row.status = "ready"
            self.put(queue, row)
        return len(found)

    def next_due(self, queue: str) -> int | None:
        row = next(self._scan(queue, _DUE), None)
        return None if row is None else row.ready_at

    def due(self, queue: str, after: int, until: int | None) -> Iterator[Row]:
        """See ReadableRows."""
        return self._scan(queue, _DUE, until, after)

    def expired(self, queue: str, now: int, limit: int) -> list[Row]:
        return [row for _, row in zip(range(limit), self._scan(queue, _EXPIRING, now), strict=False)]

    def count_expired(self, queue: str, now: int) -> tuple[int, int]:
        found = [row.status for row in self._scan(queue, _EXPIRING, now)]
        return found.count("scheduled"), found.count("ready")


def _name(queue: str, entry_id: str) -> bytes:
    return f"{queue}\0{entry_id}".encode()
