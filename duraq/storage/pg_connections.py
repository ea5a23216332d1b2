"""The way to a PostgreSQL server: its connections, and what to do when one is lost or it is away."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg.rows import tuple_row

from duraq.errors import NotWritten, OutcomeUnknown, StorageError
from duraq.storage.fold import TryAgain
from duraq.storage.pg_clock import NOW, ServerClock
from duraq.storage.pg_words import check_address, first_line, name_of

T = TypeVar("T")

# How long a call waits for a server that is away, in seconds, and how often it tries.
PATIENCE, RETRY_INTERVAL = 30.0, 0.1

# What the same turn, taken once more, does not meet again.
AGAIN = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,  # of a queue that somebody else has just made, or of an entry in it
)

# What is said of a savepoint whose transaction is over.
ENDED = (psycopg.errors.NoActiveSqlTransaction, psycopg.errors.InvalidSavepointSpecification)

# What each storage has committed last, so that it can be asked for when an answer was lost. A number of the
# server's own would not do: after a crash it may give the same one to somebody else.
COMMITS = (
    "CREATE TABLE IF NOT EXISTS duraq_commits"
    " (id TEXT PRIMARY KEY, number BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL)"
)
_NOTE = (
    "INSERT INTO duraq_commits VALUES (%s, %s, now())"
    " ON CONFLICT (id) DO UPDATE SET number = excluded.number, at = excluded.at"
)
# It waits for the transaction that was to write it, and leaves it as it is.
_ASK = (
    "INSERT INTO duraq_commits VALUES (%s, 0, now())"
    " ON CONFLICT (id) DO UPDATE SET number = duraq_commits.number RETURNING number"
)
# Not what somebody else is about to write.
_FORGET = (
    "DELETE FROM duraq_commits WHERE id IN (SELECT id FROM duraq_commits"
    " WHERE id = %s OR at < now() - interval '1 day' FOR UPDATE SKIP LOCKED)"
)

# A forked child must neither use its parent's connections nor close them.
abandoned: list[psycopg.Connection] = []


class Pool(Protocol):
    """What of a psycopg_pool.ConnectionPool is needed."""

    def getconn(self) -> psycopg.Connection: ...
    def putconn(self, connection: psycopg.Connection) -> None: ...


class Connections:
    """Those of one storage to a server that is reached by a connection string or through a pool.

    ``name``: how messages speak of it. ``connection``: that of its turns, or None while it is lost, and
    ``since``: when it began by the server's clock, in microseconds since 1970. ``closing``: nobody waits.
    """

    def __init__(self, address: str | Pool, clock: ServerClock | None) -> None:
        """Raises InvalidOption if it is no address."""
        if isinstance(address, str):
            check_address(address)
        self._address = address
        self._clock = clock
        self._pooled: list[psycopg.Connection] = []
        self.connection: psycopg.Connection | None = None
        self.closing = False
        self.name, self.since = "postgresql", 0
        self._id, self._number = secrets.token_hex(8), 0  # of the last commit
        self.connection = self.connect(self._take_turns)

    @property
    def begun(self) -> psycopg.Connection:
        """That of the turn that is going on. Raises NotWritten if it was lost in it."""
        if self.connection is None:
            raise NotWritten("the connection was lost", path=self.name, hint="nothing was written")
        return self.connection

    # -- having connections ----------------------------------------------------------------------------

    def connect(self, use: Callable[[psycopg.Connection], T]) -> T:
        """What is made of another one, which ends if that fails. Raises psycopg.Error."""
        if isinstance(self._address, str):
            connection = psycopg.connect(self._address, fallback_application_name="duraq")
        else:
            connection = self._address.getconn()
            self._pooled.append(connection)
        try:
            connection.autocommit = True
            # This host may go without a word, in the middle of a turn that others wait for.
            connection.execute(
                "SET client_encoding TO 'UTF8'; SET tcp_user_timeout TO '60s';"
                " SET tcp_keepalives_idle TO '30s'; SET tcp_keepalives_interval TO '10s'"
            )
            return use(connection)
        except BaseException:
            self.end(connection)
            raise

    def _take_turns(self, connection: psycopg.Connection) -> psycopg.Connection:
        info = connection.info
        self.name = name_of(connection) or self.name
        encoding = info.parameter_status("server_encoding")
        if encoding not in {"UTF8", "SQL_ASCII"}:
            hint = "make one with ENCODING 'UTF8'"
            raise StorageError(
                f"the database cannot hold every text: it is in {encoding}", path=self.name, hint=hint
            )
        self.since = server_time(connection)
        if self._clock is not None:
            self._clock.set(self.since)
        return connection

    def connected(self) -> psycopg.Connection:
        """The connection of the turns, a new one if that was lost. Raises NotWritten after ``PATIENCE``."""
        until = time.monotonic() + PATIENCE
        while self.connection is None or self.connection.closed:
            self.lose()
            try:
                self.connection = self.connect(self._take_turns)
            except psycopg.OperationalError as error:
                self.wait_for(error, until)
        return self.connection

    def wait_for(self, error: psycopg.Error, until: float) -> None:
        """It was away; try again after this. Raises NotWritten once that is too late."""
        if self.closing or time.monotonic() > until:
            raise NotWritten(
                f"the server is away: {first_line(error)}", path=self.name, hint="nothing was written"
            ) from error
        # Of a server that comes back there is nothing to wait on.
        time.sleep(RETRY_INTERVAL)

    def lose(self) -> None:
        """The connection of the turns is of no more use."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self.end(connection)

    def end(self, connection: psycopg.Connection) -> None:
        """That one is of no more use."""
        with suppress(psycopg.Error):
            connection.close()
        if connection in self._pooled and not isinstance(self._address, str):
            self._pooled.remove(connection)
            self._address.putconn(connection)  # which makes another one, for it is closed

    def close(self) -> None:
        """End all of them, or give them back to the pool."""
        if self.connection is not None:
            with suppress(psycopg.Error):
                self.forget(self.connection)
        self.lose()
        for connection in list(self._pooled):
            self.end(connection)

    def abandon(self) -> None:
        """In a forked child: they are the parent's, and stay open there, unused."""
        abandoned.extend(each for each in (self.connection, *self._pooled) if each is not None)

    # -- the transactions of the turns -----------------------------------------------------------------

    def begin(self, synchronous_commit: str) -> None:
        """Begin one, on a new connection if need be; by then the clock is right."""
        while True:
            connection = self.connected()
            try:
                now = _begun(connection, synchronous_commit)
            except psycopg.OperationalError as error:
                self.lose()
                if not is_gone(error):
                    raise
            else:
                if self._clock is not None:
                    # It may have been set, and this machine's own does not count as fast.
                    self._clock.set(now)
                return

    def commit(self) -> None:
        """Commit it. Raises TryAgain if the connection was lost and it was not."""
        try:
            connection = self.begun
            self._number += 1
            execute(connection, _NOTE, (self._id, self._number))
        except psycopg.OperationalError as error:
            # Nobody has asked for the commit yet.
            if not is_gone(error):
                raise
            self.lose()
            raise TryAgain from error
        try:
            connection.execute("COMMIT")
        except psycopg.OperationalError as error:
            if not is_gone(error):
                raise
            self.lose()
            if not self._was_committed():
                raise TryAgain from error

    def _was_committed(self) -> bool:
        """What has become of a commit whose answer was lost. Raises OutcomeUnknown if that cannot be told."""
        while True:
            try:
                connection = self.connected()
                with connection.transaction():
                    connection.execute(f"SET LOCAL lock_timeout = '{PATIENCE}s'")
                    ((number,),) = execute(connection, _ASK, (self._id,))
            except psycopg.errors.UndefinedTable:
                return False  # it was to be made by that
            except (NotWritten, psycopg.errors.LockNotAvailable) as error:
                # Nothing was written of what would have been asked now; of the commit nobody knows.
                raise OutcomeUnknown(
                    "the server went away during a commit", path=self.name, hint="look whether it was done"
                ) from error
            except psycopg.OperationalError as error:
                self.lose()
                if not is_gone(error):
                    raise
            else:
                return bool(number == self._number)

    def forget(self, connection: psycopg.Connection) -> None:
        """Nothing will be asked any more of this one's commits, nor of those of others that are long gone."""
        execute(connection, _FORGET, (self._id,))

    def roll_back(self) -> None:
        """Roll it back, if there is still one; raises nothing."""
        if self.connection is None:
            return
        try:
            if self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self.connection.execute("ROLLBACK")
        except psycopg.Error:
            self.lose()


def execute(
    connection: psycopg.Connection, statement: str, parameters: Sequence[Any] = ()
) -> psycopg.Cursor[tuple[Any, ...]]:
    """With rows that are tuples, whatever the application has its own made into."""
    return psycopg.Cursor(connection, row_factory=tuple_row).execute(statement, parameters)


def _begun(connection: psycopg.Connection, synchronous_commit: str) -> int:
    """Begin a transaction, on one way there and back; the server's time, in microseconds since 1970."""
    cursor = psycopg.Cursor(connection, row_factory=tuple_row)
    cursor.execute(f"BEGIN; SET LOCAL synchronous_commit = {synchronous_commit}; SELECT {NOW}", prepare=False)
    while cursor.nextset():
        pass  # to the last one
    ((now,),) = cursor
    return int(now)


def server_time(connection: psycopg.Connection) -> int:
    """Microseconds since 1970, by the server's clock."""
    ((now,),) = execute(connection, f"SELECT {NOW}")
    return int(now)


def is_gone(error: psycopg.Error) -> bool:
    """Whether it says that the server, or the way to it, is gone: for that itself it has no words."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
