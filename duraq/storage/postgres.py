"""Queues in a PostgreSQL database, for workers on any number of hosts."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol

import psycopg

from duraq.clock import Clock
from duraq.errors import (
    DuraqError,
    InvalidOption,
    NotWritten,
    OutcomeUnknown,
    StorageClosed,
    StorageError,
    StorageForked,
    StorageReadOnly,
    UnsupportedVersion,
)
from duraq.journal import forks
from duraq.operations import Operation
from duraq.storage.bells import BellPlace, BellStorage
from duraq.storage.committing import feeds
from duraq.storage.fold import TryAgain
from duraq.storage.joining import JoiningStorage
from duraq.storage.pg_clock import ServerClock
from duraq.storage.pg_session import CHANNEL, IS_ALIVE, LOCKS, Session, lock_number
from duraq.storage.pg_words import check_address, first_line, name_of, with_percents
from duraq.storage.sql import TABLES, VERSION, SQLRows
from duraq.storage.table import Durability, check_durability
from duraq.storage.transacting import Scope

_COMMIT = {True: "on", False: "off"}

# How often one who waits asks whether the holders of leases live, in seconds: nobody tells him when one dies.
LOOK_INTERVAL = 0.1
# How long a call waits for a server that is away, in seconds, and how often it tries.
PATIENCE, RETRY_INTERVAL = 30.0, 0.1

# In the caller's transaction, ours.
_THEIRS = "duraq_0"

# A forked child must neither use its parent's connections nor close them.
_abandoned: list[psycopg.Connection] = []


class Pool(Protocol):
    """What of a psycopg_pool.ConnectionPool is needed."""

    def getconn(self) -> psycopg.Connection: ...
    def putconn(self, connection: psycopg.Connection) -> None: ...


class PostgresStorage(BellStorage, JoiningStorage):
    """Queues in the tables ``duraq_*`` of a PostgreSQL database, which are made where they are missing.

    ``server``: a connection string, or a pool, of which it takes two connections while it is open.
    ``durability``: "power" (the default) returns when a change is durable as the server's own settings say;
    "process" when every other session sees it. Leases end with their worker's connection, or with their
    deadline by the server's clock, on whatever host it was. A call waits ``PATIENCE`` seconds for a server
    that is away.

    Raises StorageError, StorageReadOnly or UnsupportedVersion.
    """

    def __init__(
        self,
        server: str | Pool,
        *,
        durability: Durability = "power",
        lock_duration: timedelta = timedelta(minutes=5),
        max_payload_bytes: int = 1 << 20,
        clock: Clock | None = None,
    ) -> None:
        check_durability(durability)
        if isinstance(server, str):
            check_address(server)
        self._server = server
        self.durability = durability
        self._pooled: list[psycopg.Connection] = []
        self._connection: psycopg.Connection | None = None
        self._session: Session | None = None
        self._places: set[BellPlace] = set()
        self._bells = threading.Lock()
        self._forked = False
        self._theirs: psycopg.Connection | None = None  # that of the caller's own transaction
        self._closing_lock = threading.RLock()
        self._server_clock: ServerClock | None = None
        try:
            connection = self._connect()
            if clock is None:
                clock = self._server_clock = ServerClock()
                self._set_clock(connection)
        except psycopg.Error as error:
            raise StorageError(first_line(error), path=self._name, hint="is the server there?") from error
        super().__init__(clock, lock_duration, max_payload_bytes)
        self._connection = connection
        self._rows = SQLRows(self, lock=" FOR UPDATE")
        try:
            self._prepare_rows(self._prepare)
        except BaseException as error:
            self._closed = True
            self._close_connections()
            raise self._translated(error) from error
        forks.register(self)

    def __repr__(self) -> str:
        return f"<PostgresStorage {self._name!r}>"

    @property
    def _name(self) -> str:
        found = None if self._connection is None else name_of(self._connection)
        return found or "postgresql"

    def _prepare(self) -> None:
        """Make the tables, or see that they are of a version that is known."""
        # One at a time: two that make the same table at once do not get on.
        self.execute("SELECT pg_advisory_xact_lock(?, 0)", (LOCKS + 1,))
        self.execute("CREATE TABLE IF NOT EXISTS duraq_schema (version BIGINT NOT NULL, id TEXT NOT NULL)")
        found = list(self.execute("SELECT version, id FROM duraq_schema"))
        if not found:
            for statement in TABLES:
                self.execute(
                    statement.format(number="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", blob="BYTEA")
                )
            found = [(VERSION, secrets.token_hex(8))]
            self.execute("INSERT INTO duraq_schema VALUES (?, ?)", found[0])
        if found[0][0] != VERSION:
            raise UnsupportedVersion(
                f"the tables are of version {found[0][0]}, and this DuraQ knows version {VERSION}",
                path=self._name,
                hint="upgrade DuraQ",
            )
        if self._server_clock is not None:
            # Whoever works here counts by the same clock.
            self._server_clock.boot_id = f"postgres-{found[0][1]}"

    # -- connections -----------------------------------------------------------------------------------

    def _connect(self) -> psycopg.Connection:
        if isinstance(self._server, str):
            return psycopg.connect(self._server, autocommit=True, fallback_application_name="duraq")
        connection = self._server.getconn()
        self._pooled.append(connection)
        connection.autocommit = True
        return connection

    def _set_clock(self, connection: psycopg.Connection) -> None:
        if self._server_clock is not None:
            ((now,),) = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            self._server_clock.set(now)

    def _connected(self) -> psycopg.Connection:
        """The connection of our turns, a new one if that was lost; waits for a server that is away."""
        until = time.monotonic() + PATIENCE
        while self._connection is None or self._connection.closed:
            try:
                self._connection = self._connect()
                self._set_clock(self._connection)
            except psycopg.OperationalError as error:
                if time.monotonic() > until or self._closing:
                    raise self._away(error) from error
                # Of a server that comes back there is nothing to wait on.
                time.sleep(RETRY_INTERVAL)
        return self._connection

    def _away(self, error: psycopg.Error) -> NotWritten:
        return NotWritten(
            f"the server is away: {first_line(error)}", path=self._name, hint="nothing was written"
        )

    def _close_connections(self) -> None:
        for connection in (self._connection, *self._pooled):
            if connection is not None:
                with suppress(psycopg.Error):
                    connection.close()
        if not isinstance(self._server, str):
            for connection in self._pooled:
                self._server.putconn(connection)
        self._pooled.clear()

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Iterable[Any]:
        """What the rows are asked with, in the transaction of the turn."""
        connection = self._theirs or self._connection
        assert connection is not None
        return connection.execute(with_percents(statement), parameters)

    def _ask(self, statement: str, parameters: Sequence[Any]) -> list[Any]:
        """Something that belongs to no transaction of ours."""
        with self._turns.mine():
            self._check_usable()
            while True:
                try:
                    self._connected()
                    return list(self.execute(statement, parameters))
                except psycopg.Error as error:
                    if self._inside:
                        raise
                    self._lose_connection()
                    if not self._may_try_again(error):
                        raise self._translated(error) from error

    # -- the database's transactions -------------------------------------------------------------------

    def _begin(self, *, lasting: bool) -> None:
        if self._theirs is not None:
            self._set_savepoint(_THEIRS)
            return
        mode = _COMMIT[lasting and self.durability == "power"]
        while True:
            connection = self._connected()
            try:
                connection.execute("BEGIN")
                connection.execute(f"SET LOCAL synchronous_commit = {mode}")
            except psycopg.OperationalError as error:
                self._lose_connection()
                if not self._may_try_again(error):
                    raise
            else:
                return

    def _may_try_again(self, error: psycopg.Error) -> bool:
        # What the server has no words for is that it, or the way to it, is gone.
        return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))

    def _lose_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()
            if connection in self._pooled and not isinstance(self._server, str):
                self._pooled.remove(connection)
                self._server.putconn(connection)

    def _commit_rows(self) -> None:
        if self._theirs is not None:
            self._release_savepoint(_THEIRS)  # the rest is the caller's to commit
            return
        assert self._connection is not None
        try:
            ((xid,),) = self._connection.execute("SELECT pg_current_xact_id_if_assigned()::text")
        except psycopg.OperationalError as error:
            # Nobody has asked for the commit yet.
            if not self._may_try_again(error):
                raise
            self._lose_connection()
            raise TryAgain from error
        try:
            self._connection.execute("COMMIT")
        except psycopg.OperationalError as error:
            if xid is None or not self._may_try_again(error):
                raise
            self._lose_connection()
            if not self._was_committed(xid):
                raise TryAgain from error

    def _was_committed(self, xid: str) -> bool:
        """What has become of a commit whose answer was lost. Raises what it takes to be unknown."""
        until = time.monotonic() + PATIENCE
        while True:
            connection = self._connected()
            try:
                ((status,),) = connection.execute("SELECT pg_xact_status(%s::xid8)", (xid,))
            except psycopg.DataError:
                return False  # a number that the server, since it came back, has never given
            except psycopg.OperationalError:
                self._lose_connection()
                status = "in progress"
            if status != "in progress" or time.monotonic() > until:
                if status not in {"committed", "aborted"}:
                    raise psycopg.OperationalError(f"the transaction is {status}")
                return bool(status == "committed")
            time.sleep(RETRY_INTERVAL)

    def _roll_back_rows(self) -> None:
        if self._theirs is not None:
            with suppress(psycopg.Error):  # then the caller's transaction is over, and this with it
                self._roll_back_to(_THEIRS)
            return
        if self._connection is None:
            return
        try:
            if self._connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self._connection.execute("ROLLBACK")
        except psycopg.Error:
            self._lose_connection()

    def _set_savepoint(self, name: str) -> None:
        self.execute(f"SAVEPOINT {name}")

    def _release_savepoint(self, name: str) -> None:
        self.execute(f"RELEASE SAVEPOINT {name}")

    def _roll_back_to(self, name: str) -> None:
        self.execute(f"ROLLBACK TO SAVEPOINT {name}")
        self.execute(f"RELEASE SAVEPOINT {name}")

    def _in_our_words(self, error: BaseException, *, committing: bool) -> BaseException | None:
        if not isinstance(error, psycopg.Error):
            return None
        text = first_line(error)
        if isinstance(error, _AGAIN) and self._joined is None:
            return TryAgain(text)
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            return StorageReadOnly(text, path=self._name, hint="this is a standby; open the primary")
        if isinstance(error, psycopg.OperationalError) and self._may_try_again(error):
            self._lose_connection()
            if committing:
                return OutcomeUnknown(text, path=self._name, hint="look whether it was done")
            if self._joined is None:
                return TryAgain(text)
        return NotWritten(text, path=self._name, hint="nothing was written")

    # -- the caller's own transaction ------------------------------------------------------------------

    def transaction(self, connection: psycopg.Connection | None = None) -> Scope:
        """``with storage.transaction():``; see Storage.

        Given the caller's connection, it is part of the transaction there: nothing is done until the caller
        commits, and nothing if he does not.
        """
        return Scope(self) if connection is None else _TheirScope(self, connection)

    @property
    def connection(self) -> psycopg.Connection:
        """The connection, for the application's own statements: they are part of the caller's transaction.

        From here to the end of the transaction no other thread of this process writes. COMMIT and ROLLBACK
        are not for the caller. Raises NoTransaction outside of ``with storage.transaction():``.
        """
        self._join()
        connection = self._theirs or self._connection
        assert connection is not None
        return connection

    @contextmanager
    def _on(self, connection: psycopg.Connection) -> Iterator[None]:
        with self._turns.mine():
            self._theirs = connection
            try:
                yield
            finally:
                self._theirs = None

    # -- who lives -------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._forked:
            raise StorageForked("opened before a fork", path=self._name, hint="open it in the child")
        if self._closed:
            raise StorageClosed("this storage is closed", path=self._name)

    def _worker(self) -> str:
        self._check_usable()
        if self._closing:
            # What is leased has been given back already.
            raise StorageClosed("this storage is being closed", path=self._name)
        session = self._session
        if session is not None and not session.lost:
            return session.worker
        with self._turns.mine():
            if self._session is None or self._session.lost:
                self._renew_session()
            assert self._session is not None
            return self._session.worker

    def _renew_session(self) -> None:
        """Another name, under which nothing is leased yet."""
        if self._session is not None:
            self._session.close()
            self._session = None
        until = time.monotonic() + PATIENCE
        while self._session is None:
            try:
                self._session = Session(self._connect(), self._hear)
            except psycopg.OperationalError as error:
                if time.monotonic() > until:
                    raise self._away(error) from error
                time.sleep(RETRY_INTERVAL)

    def _known_worker(self) -> str | None:
        return None if self._session is None else self._session.worker

    def _is_alive(self, worker: str) -> bool:
        if worker == self._known_worker():
            return not (self._session is not None and self._session.lost)
        number = lock_number(worker.rpartition("-")[2])
        return bool(self._ask(IS_ALIVE, (LOCKS, number & 0xFFFFFFFF)))

    # -- who waits -------------------------------------------------------------------------------------

    def _write(self, changes: Mapping[str, Sequence[Operation]], *, soon: bool = False) -> int:
        position = super()._write(changes, soon=soon)
        for queue, operations in changes.items():
            if any(map(feeds, operations)):
                # Told when it commits, to whoever listens, on whatever host.
                self.execute("SELECT pg_notify(?, ?)", (CHANNEL, queue))
        return position

    @property
    def _someone_waits(self) -> bool:
        return False  # they have been told

    def _notify(self, queue: str, count: int) -> None:
        """They have been told."""

    def _hear(self, queue: str | None) -> None:
        self._ring(queue)

    def _seconds_to_sleep(self, queue: str, timeout: float) -> float | None:
        mine = self._worker()  # which listens
        holders: list[str] = []
        seconds = timeout

        def look() -> bool:
            nonlocal holders, seconds
            state = self._state(queue)
            if state is None:
                return False
            if state.has_ready(self.clock.now()) or self._any_late(state):
                return True
            holders = [worker for worker in state.leased if worker not in {mine, ""}]
            seconds = self._seconds_to_next_event(state, timeout)
            return False

        if self._in_turn(look) or not all(map(self._is_alive, holders)):
            self._next_liveness_check.pop(queue, None)
            return None
        return min(seconds, LOOK_INTERVAL) if holders else seconds

    def _count_waiting(self, queue: str) -> int:
        return self._count_places(queue)

    # -- closing ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back what is leased, uncounted, and end the connections. Idempotent."""
        with self._closing_lock:
            if self._closed or self._forked:
                return
            self._closing = True
            self._warn_if_begun()
            with suppress(DuraqError):
                # With the session the leases end all the same; only their attempts then count.
                self._give_back()
            with self._turns.mine():
                self._closed = True
            with ExitStack() as stack:
                stack.callback(self._close_connections)
                if self._session is not None:
                    stack.callback(self._session.close)
            self._ring()

    def after_fork_in_child(self) -> None:
        """The child may not use this object; its parent's connections stay open there, unused."""
        if self._closed or self._forked:
            return
        self._forked = True
        _abandoned.extend(each for each in (self._connection, *self._pooled) if each is not None)
        if self._session is not None:
            self._session.abandon(_abandoned)


# What the same turn, taken once more, does not meet again.
_AGAIN = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UniqueViolation,  # of a queue that somebody else has just made
)


class _TheirScope(Scope):
    """A with-block that is part of the caller's own transaction on that connection."""

    def __init__(self, storage: PostgresStorage, connection: psycopg.Connection) -> None:
        super().__init__(storage)
        self._postgres, self._connection = storage, connection
        self._stack = ExitStack()

    def __enter__(self) -> None:
        if self._connection.autocommit and (
            self._connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        ):
            raise InvalidOption("the connection is in autocommit mode and in no transaction: begin one first")
        super().__enter__()
        with ExitStack() as undo:
            undo.callback(self._postgres.rollback_transaction)
            self._stack.enter_context(self._postgres._on(self._connection))  # noqa: SLF001
            undo.push(self._stack)
            self._postgres._join()  # noqa: SLF001
            undo.pop_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            super().__exit__(kind, error, trace)
