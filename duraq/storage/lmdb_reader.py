"""Queues in an LMDB environment, read. See ``duraq.storage.table_reader``."""

from __future__ import annotations

from pathlib import Path

import lmdb

from duraq.errors import NotAStorage, StorageBusy, StorageDamaged, StorageError, StorageReadOnly
from duraq.storage.lmdb import DATABASES, LMDBRows
from duraq.storage.table_reader import HINT, BesideReader


class LMDBReader(BesideReader):
    """Reads what is committed; writers go on meanwhile, and use more of the file as long as it looks."""

    errors = (OSError, lmdb.Error)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._env: lmdb.Environment | None = None
        self._transactions: list[lmdb.Transaction] = []

    def _look(self) -> LMDBRows:
        home = Path(self.path)
        if not (home / "data.mdb").is_file():
            raise NotAStorage("there is no LMDB environment", path=self.path)
        # Without its file of locks nobody has it open, and none is made for a look.
        self._env = env = lmdb.open(
            self.path,
            readonly=True,
            create=False,
            max_dbs=len(DATABASES),
            lock=(home / "lock.mdb").exists(),
        )
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
        rows = LMDBRows(self._transactions, *databases)
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
        if "already open" in str(error):
            return StorageBusy("this process has the environment open", path=self.path)
        if "Permission denied" in str(error):
            return StorageReadOnly(
                str(error), path=self.path, hint=f"{HINT}, and write to its lock.mdb, where readers register"
            )
        return super().refused(error, queue)
