"""Queues in an SQLite database, read. See ``duraq.storage.table_reader``."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from duraq.errors import NotAStorage, StorageDamaged, StorageError, StorageReadOnly
from duraq.storage.sql import SQLRows
from duraq.storage.table_reader import HINT, BesideReader, written_meanwhile

_UNLOCKED = "ro&immutable=1"
_SOME = 100  # rows that are read between two looks at the file
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
        if not Path(self._real).is_file():
            raise NotAStorage("there is no such file", path=self.path)
        before = _as_it_is(self._real)
        mode = self._mode()
        self._database = database = sqlite3.connect(
            f"{Path(self._real).as_uri()}?mode={mode}",
            uri=True,
            timeout=_PATIENCE,
            isolation_level=None,
        )
        asked = _Alone(database, self._real, before, self.path) if mode == _UNLOCKED else database
        database.execute("PRAGMA query_only = ON")
        database.execute("BEGIN")
        found = list(asked.execute("SELECT 1 FROM sqlite_master WHERE name = 'duraq_schema'"))
        if found:
            found = list(asked.execute("SELECT version FROM duraq_schema"))
        self._check_version(found[0][0] if found else None)
        return SQLRows(asked.execute)

    def _mode(self) -> str:
        """How to open it so that nothing is left beside it that was not there."""
        if os.path.lexists(f"{self._real}-wal"):
            return "ro"  # somebody has it open, or has died with it
        # Nobody has: SQLite makes its two files, and removes them at the end only if it may write.
        if os.access(self._real, os.W_OK) and os.access(Path(self._real).parent, os.W_OK):
            return "rw"
        return _UNLOCKED

    def _leave(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def refused(self, error: Exception, queue: str = "") -> StorageError:
        if not isinstance(error, sqlite3.Error):
            return super().refused(error, queue)
        kind, hint = _KINDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, (StorageError, None))
        return kind(str(error), path=self.path, hint=hint)


class _Alone:
    """A connection that locks nothing, as SQLRows ask one: what it reads is true as long as nobody writes."""

    def __init__(self, database: sqlite3.Connection, file: str, before: object, path: str) -> None:
        """``before``: what the file was before it was opened; ``path``: how messages speak of it."""
        self._database, self._file, self._before, self._path = database, file, before, path

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Iterator[Any]:
        try:
            cursor = self._database.execute(statement, parameters)
            while True:
                rows = cursor.fetchmany(_SOME)
                self._check()
                if not rows:
                    return
                yield from rows
        except sqlite3.Error:
            self._check()
            raise

    def _check(self) -> None:
        if _as_it_is(self._file) != self._before:
            raise written_meanwhile(self._path)


def _as_it_is(file: str) -> object:
    """What is another once somebody has written the file, or put another one in its place."""
    with suppress(OSError):
        about = Path(file).stat()
        return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
    return None
