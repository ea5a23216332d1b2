"""Queues in an SQLite database, read. See ``duraq.storage.table_reader``."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from duraq.errors import NotAStorage, StorageDamaged, StorageError, StorageReadOnly
from duraq.storage.sql import SQLRows
from duraq.storage.table_reader import HINT, BesideReader

# How long to wait for somebody who is just recovering the database, in seconds; writers are not waited for.
_PATIENCE = 5.0
_KINDS: dict[int, tuple[type[StorageError], str]] = {
    sqlite3.SQLITE_CORRUPT: (StorageDamaged, "restore it from a backup"),
    sqlite3.SQLITE_NOTADB: (StorageDamaged, "it is no SQLite database"),
    sqlite3.SQLITE_READONLY: (StorageReadOnly, HINT),
    sqlite3.SQLITE_PERM: (StorageReadOnly, HINT),
    sqlite3.SQLITE_CANTOPEN: (StorageReadOnly, HINT),
}


class SQLiteReader(BesideReader):
    """Reads what is committed; writers go on meanwhile."""

    errors = (OSError, sqlite3.Error)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._database: sqlite3.Connection | None = None

    def _look(self) -> SQLRows:
        # Opened anew each time: there may be another file of that name by now.
        if not Path(self.path).is_file():
            raise NotAStorage("there is no such file", path=self.path)
        self._database = database = sqlite3.connect(
            f"{Path(self.path).as_uri()}?mode={self._mode()}",
            uri=True,
            timeout=_PATIENCE,
            isolation_level=None,
        )
        database.execute("PRAGMA query_only = ON")
        database.execute("BEGIN")
        found = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'duraq_schema'").fetchone()
        if found is not None:
            found = database.execute("SELECT version FROM duraq_schema").fetchone()
        self._check_version(None if found is None else found[0])
        return SQLRows(database)

    def _mode(self) -> str:
        """How to open it so that nothing is left beside it that was not there."""
        if os.path.lexists(f"{self.path}-wal"):
            return "ro"  # somebody has it open, or has died with it
        # Nobody has: SQLite makes its two files, and removes them at the end only if it may write.
        if os.access(self.path, os.W_OK) and os.access(Path(self.path).parent, os.W_OK):
            return "rw"
        return "ro&immutable=1"

    def _leave(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def refused(self, error: Exception, queue: str = "") -> StorageError:
        if not isinstance(error, sqlite3.Error):
            return super().refused(error, queue)
        kind, hint = _KINDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, (StorageError, None))
        return kind(str(error), path=self.path, hint=hint)
