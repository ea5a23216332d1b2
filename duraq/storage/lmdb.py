"""Queues in an LMDB environment that the application owns and keeps its own databases in."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar, Self

import lmdb

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
from duraq.storage.fold import TryAgain
from duraq.storage.lmdb_rows import DATABASES, LMDBRows
from duraq.storage.table import Durability, check_durability, check_version

VERSION = 1
MAP_SIZE = 1 << 30  # bytes; of address space, until it is filled
# How often the places of readers that have died are cleared, in seconds: each keeps whatever it read in use.
CLEARING_INTERVAL = 60.0

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
        self._clear_at = 0.0  # monotonic
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
            now = time.monotonic()
            if now >= self._clear_at:
                self._clear_at = now + CLEARING_INTERVAL
                self.env.reader_check()
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

    def _in_our_words(self, error: BaseException, *, committing: bool) -> BaseException | None:
        if isinstance(error, OSError):
            return wording.of(error, self.db_path, NotWritten)
        if not isinstance(error, lmdb.Error):
            return None
        if "closed" in str(error):
            return StorageClosed(
                "the environment is closed", path=self.db_path, hint="close the storage first"
            )
        if isinstance(error, lmdb.MapFullError) and self.env.reader_check():
            # Full of what somebody read who has died with it.
            hint = "nothing was written; begin it anew"
            return NotWritten(str(error), path=self.db_path, hint=hint) if self._joined else TryAgain()
        ours: type[StorageError] = OutcomeUnknown if committing else NotWritten
        hint = "look whether it was done" if committing else "nothing was written"
        for kind, known, way_out in _KINDS:
            if isinstance(error, kind):
                ours, hint = known, way_out
                break
        return ours(str(error), path=self.db_path, hint=hint)

    # -- closing ---------------------------------------------------------------------------------------

    def _close_database(self) -> None:
        if self._owned:
            self.env.close()

    def _abandon_database(self) -> None:
        self._transactions.clear()
