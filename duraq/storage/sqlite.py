"""Queues in an SQLite database, beside the application's own tables."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from duraq.clock import Clock, SystemClock
from duraq.errors import (
    InvalidOption,
    NotAStorage,
    NotWritten,
    OutcomeUnknown,
    StorageDamaged,
    StorageError,
    StorageReadOnly,
)
from duraq.journal import wording
from duraq.storage.beside import BesideStorage, absolute
from duraq.storage.sql import TABLES, VERSION, SQLRows
from duraq.storage.table import Durability, check_durability, check_version

T = TypeVar("T")

_SYNCHRONOUS = {True: "FULL", False: "NORMAL"}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_KINDS: dict[int, tuple[type[StorageError], str]] = {
    sqlite3.SQLITE_CORRUPT: (StorageDamaged, "restore it from a backup"),
    sqlite3.SQLITE_NOTADB: (StorageDamaged, "it is no SQLite database"),
    sqlite3.SQLITE_READONLY: (StorageReadOnly, "the file must be writable by this user"),
    sqlite3.SQLITE_FULL: (NotWritten, "nothing was written; free some space and try again"),
}
# How long SQLite itself waits for an application's own transaction before it is asked again, in seconds.
_PATIENCE = 1.0

# A forked child must neither use its parent's connections nor close them.
_abandoned: list[sqlite3.Connection] = []


class SQLiteStorage(BesideStorage):
    """Queues in the tables ``duraq_*`` of an SQLite database, shared by the processes of one host.

    The database and its tables are made where they are missing; it is kept in WAL mode. ``durability``:
    "power" (the default) returns when a change survives a power cut, "process" when it survives the death of
    any process. Nobody is ever told that the database is locked: whoever comes later waits.

    Raises NotAStorage, UnsupportedVersion, StorageReadOnly or StorageDamaged.
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str],
        *,
        durability: Durability = "power",
        lock_duration: timedelta = timedelta(minutes=5),
        max_payload_bytes: int = 1 << 20,
        create: bool = True,
        clock: Clock | None = None,
    ) -> None:
        check_durability(durability)
        if str(db_path) in {"", ":memory:"}:
            raise InvalidOption("an SQLiteStorage is a file; for queues in memory there is MemoryStorage")
        super().__init__(absolute(db_path), clock or SystemClock(), lock_duration, max_payload_bytes)
        self.durability = durability
        self._synchronous = ""
        self._asked: sqlite3.Cursor | None = None  # the last statement of ours
        is_new = _made(self.db_path, create=create)
        self._open_beside()
        try:
            self._database = sqlite3.connect(
                self.db_path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            self._closed = True
            self._descriptors.close()
            raise NotAStorage(str(error), path=self.db_path) from error
        try:
            self._rows = SQLRows(self._execute)
            self._patiently(lambda: self._database.execute("PRAGMA journal_mode = WAL"))
            self._prepare_rows(self._prepare)
            if is_new:
                # The file's name as well: SQLite syncs what is in it.
                _sync_directory(Path(self.db_path).parent)
        except BaseException as error:
            self._closed = True
            self._database.close()
            self._descriptors.close()
            raise self._translated(error) from error

    def __repr__(self) -> str:
        return f"<SQLiteStorage {self.db_path!r}>"

    @property
    def connection(self) -> sqlite3.Connection:
        """The database, for the application's own statements: they are part of the caller's transaction.

        From here to the end of the transaction nobody else writes. COMMIT and ROLLBACK are not for the
        caller. Raises NoTransaction outside of ``with storage.transaction():``,
        and InvalidOption in a task, which does both in a thread.
        """
        self._join()
        return self._database

    def _prepare(self) -> None:
        """Make the tables, or see that they are of a version that is known."""
        self._execute("CREATE TABLE IF NOT EXISTS duraq_schema (version BIGINT NOT NULL)")
        found = self._execute("SELECT version FROM duraq_schema").fetchone()
        if found is None:
            for statement in TABLES:
                self._execute(statement.format(number="INTEGER PRIMARY KEY", blob="BLOB"))
            self._execute("INSERT INTO duraq_schema VALUES (?)", (VERSION,))
        else:
            check_version(found[0], VERSION, self.db_path)

    def _execute(self, statement: str, parameters: Sequence[Any] = (), /) -> sqlite3.Cursor:
        """What the rows are asked with, in the transaction of the turn."""
        cursor = self._asked = self._database.cursor()
        # Whatever the application has its own rows made into.
        cursor.row_factory = None
        return cursor.execute(statement, parameters)

    # -- the database's transactions -------------------------------------------------------------------

    def _begin(self, *, lasting: bool) -> None:
        # First in line among DuraQ's processes: SQLite's own lock is polled for, and nobody's turn.
        self._fs.lock(self._turn_lock)
        try:
            # An application may have set another one in its transaction.
            self._database.text_factory = str
            synchronous = _SYNCHRONOUS[lasting and self.durability == "power"]
            if synchronous != self._synchronous:
                self._patiently(lambda: self._database.execute(f"PRAGMA synchronous = {synchronous}"))
                self._synchronous = synchronous
            self._patiently(lambda: self._database.execute("BEGIN IMMEDIATE"))
        except BaseException:
            self._fs.unlock(self._turn_lock)
            raise

    def _patiently(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY:
                    raise

    def _set_savepoint(self, name: str) -> None:
        # Outside of a transaction it would begin one, that its release commits.
        self._check_begun()
        self._database.execute(f"SAVEPOINT {name}")

    def _release_savepoint(self, name: str) -> None:
        self._check_begun()
        self._database.execute(f"RELEASE {name}")

    def _roll_back_to(self, name: str) -> None:
        self._break_off()
        self._database.execute(f"ROLLBACK TO {name}")
        self._database.execute(f"RELEASE {name}")

    def _check_begun(self) -> None:
        if not self._database.in_transaction:
            raise NotWritten(
                "the database's transaction was ended already",
                path=self.db_path,
                hint="nothing was written; leave COMMIT and ROLLBACK to the with-block",
            )

    def _commit_rows(self) -> None:
        self._check_begun()
        self._database.execute("COMMIT")
        self._fs.unlock(self._turn_lock)

    def _roll_back_rows(self) -> None:
        with suppress(sqlite3.Error):
            self._break_off()
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
        self._fs.unlock(self._turn_lock)

    def _break_off(self) -> None:
        # A statement that returns rows, and was interrupted before they were read, keeps whatever comes next
        # from being committed for as long as somebody has its cursor, as a traceback may.
        if self._asked is not None:
            self._asked.close()

    def _in_our_words(self, error: BaseException, *, committing: bool) -> StorageError | None:
        if isinstance(error, OSError):
            return wording.of(error, self.db_path, NotWritten)
        if not isinstance(error, sqlite3.Error):
            return None
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        # A commit that was refused for want of space, or for a statement that was not read to its end, is
        # rolled back; of any other nobody knows.
        is_known = not committing or code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}
        kind, hint = _KINDS.get(code, (NotWritten, "nothing was written"))
        if kind is NotWritten and not is_known:
            kind, hint = OutcomeUnknown, "look whether it was done"
        return kind(str(error), path=self.db_path, hint=hint)

    # -- closing ---------------------------------------------------------------------------------------

    def _close_database(self) -> None:
        self._database.close()

    def _abandon_database(self) -> None:
        _abandoned.append(self._database)


def _made(path: str, *, create: bool) -> bool:
    """Make the file if it is missing, for its owner alone; whether it was."""
    try:
        if not create:
            if not Path(path).is_file():
                raise NotAStorage("there is no such file", path=path)
            return False
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise wording.of(error, path) from error
    return True


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
