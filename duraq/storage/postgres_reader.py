"""Queues in a PostgreSQL database, read. See ``duraq.storage.table_reader``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import psycopg

from duraq.errors import StorageError
from duraq.journal.described import Description
from duraq.safe_text import without_password
from duraq.storage.pg_clock import NOW, ServerClock
from duraq.storage.pg_session import IS_ALIVE, lock_of
from duraq.storage.pg_words import check_address, first_line, name_of, with_percents
from duraq.storage.rows import Row
from duraq.storage.sql import SQLRows
from duraq.storage.table_reader import TableReader

_names = count(1)


class PostgresReader(TableReader):
    """Reads what is committed, in a read-only transaction; it locks no row."""

    errors = (psycopg.Error,)

    def __init__(self, url: str) -> None:
        check_address(url)
        super().__init__(without_password(url))
        self._url = url
        self._connection: psycopg.Connection | None = None
        self.clock = self._clock = ServerClock()

    def _look(self) -> SQLRows:
        connection = self._connection
        if connection is not None and not connection.closed:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
        if connection is None or connection.closed:
            self._connection = connection = psycopg.connect(
                self._url, autocommit=True, fallback_application_name="duraq"
            )
            self.path = name_of(connection) or self.path
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        ((there, now),) = connection.execute(f"SELECT to_regclass('duraq_schema') IS NOT NULL, {NOW}")
        found = connection.execute("SELECT version, id FROM duraq_schema").fetchone() if there else None
        self._check_version(None if found is None else found[0])
        assert found is not None
        self._clock.belong_to(found[1])
        self._clock.set(now)
        return _StreamedRows(connection)

    def close(self) -> None:
        self._seen.clear()
        self._rows = None
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def is_alive(self, worker: str) -> bool | None:
        assert self._connection is not None
        try:
            lock = lock_of(worker)
        except ValueError:
            return False
        found = self._connection.execute(with_percents(IS_ALIVE), lock)
        return found.fetchone() is not None

    def described(self) -> Mapping[str, Description]:
        """The server knows their locks and not their names: those are known who hold something."""
        return {}

    def waiting(self, queue: str) -> int:  # noqa: ARG002 - whichever it is
        """Who waits is told by the server, which does not say who that is."""
        return 0

    def refused(self, error: Exception, queue: str = "") -> StorageError:  # noqa: ARG002 - all are in one place
        is_away = isinstance(error, psycopg.OperationalError)
        return StorageError(
            without_password(first_line(error)),
            path=self.path,
            hint="is the server there?" if is_away else None,
        )


class _Executing:
    """A connection, as SQLRows ask one."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Iterable[Any]:
        return self._connection.execute(with_percents(statement), parameters)

    def streamed(self, statement: str, parameters: Sequence[Any]) -> Iterator[Any]:
        """What it returns, piece by piece: the whole of it may be larger than memory."""
        with self._connection.cursor(f"duraq_{next(_names)}") as cursor:
            cursor.execute(with_percents(statement), parameters)
            yield from cursor


class _StreamedRows(SQLRows):
    """Many rows come in pieces."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._streaming = _Executing(connection)
        super().__init__(self._streaming.execute)

    def _each(self, statement: str, parameters: Sequence[Any]) -> Iterator[Row]:
        return (Row(*each) for each in self._streaming.streamed(statement, parameters))
