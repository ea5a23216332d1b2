"""Queues in an LMDB environment, read. See ``duraq.storage.table_reader``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb

from duraq.errors import NotAStorage, StorageBusy, StorageDamaged, StorageError, StorageReadOnly
from duraq.storage.lmdb_rows import DATABASES, LMDBRows
from duraq.storage.rows import Row
from duraq.storage.table_reader import HINT, BesideReader, written_meanwhile


class LMDBReader(BesideReader):
    """Reads what is committed; writers go on meanwhile, and use more of the file as long as it looks."""

    errors = (OSError, lmdb.Error)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._env: lmdb.Environment | None = None
        self._transactions: list[lmdb.Transaction] = []

    def _look(self) -> LMDBRows:
        home = Path(self._real)
        if not (home / "data.mdb").is_file():
            raise NotAStorage("there is no LMDB environment", path=self.path)
        # Without its file of locks nobody has it open. None is made for a look: it would be the looker's.
        locks = home / "lock.mdb"
        is_locked = locks.exists()
        self._env = env = lmdb.open(
            self._real, readonly=True, create=False, max_dbs=len(DATABASES), lock=is_locked
        )
        # Whoever was killed while he looked would for ever keep what he saw in use.
        env.reader_check()
        try:
            databases = [env.open_db(name.encode(), create=False) for name in DATABASES]
        except lmdb.NotFoundError:
            self._check_version(None)
            raise
        try:
            self._transactions.append(env.begin())
        except lmdb.MapResizedError:
            # Another process has opened it with a larger one, in this very moment.
            env.set_mapsize(0)
            self._transactions.append(env.begin())
        rows = (
            LMDBRows(self._transactions, *databases)
            if is_locked
            else _UnlockedRows(self.path, str(locks), self._transactions, *databases)
        )
        self._check_version(rows.version())
        return rows

    def _leave(self) -> None:
        while self._transactions:
            self._transactions.pop().abort()
        if self._env is not None:
            self._env.close()
            self._env = None

    def refused(self, error: Exception, queue: str = "") -> StorageError:
        if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError):
            return StorageDamaged(str(error), path=self.path, hint="restore it from a backup")
        if isinstance(error, lmdb.InvalidError):
            return StorageDamaged(str(error), path=self.path, hint="it is no LMDB environment")
        if isinstance(error, lmdb.ReadersFullError):
            hint = (
                "look again later; places of those who have died are free once env.reader_check() is called"
            )
            return StorageBusy(f"too many look at once: {error}", path=self.path, hint=hint)
        if "already open" in str(error):
            return StorageBusy("this process has the environment open", path=self.path)
        if "Permission denied" in str(error):
            return StorageReadOnly(
                str(error), path=self.path, hint=f"{HINT}, and write to its lock.mdb, where readers register"
            )
        return super().refused(error, queue)


class _UnlockedRows(LMDBRows):
    """Those of an environment that nobody had open, for as long as nobody has.

    Whoever opens it makes its file of locks first. From then on he writes over what is read here, for he
    cannot know of it; and LMDB ends a process that reads such.
    """

    def __init__(self, path: str, locks: str, transactions: list[lmdb.Transaction], *databases: Any) -> None:
        super().__init__(transactions, *databases)
        self._path, self._locks = path, locks

    @property
    def _txn(self) -> lmdb.Transaction:
        self._check_alone()
        return super()._txn

    def _scan(self, *where: Any, **more: Any) -> Iterator[Row]:
        for row in super()._scan(*where, **more):
            yield row
            self._check_alone()  # before the next step

    def _check_alone(self) -> None:
        if os.path.lexists(self._locks):
            raise written_meanwhile(self._path)
