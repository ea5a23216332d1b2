"""Queues in a PostgreSQL database, for workers on any number of hosts."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any

import psycopg

from duraq import forks, transaction
from duraq.clock import Clock, SystemClock
from duraq.errors import (
    DuraqError,
    InvalidOption,
    NotWritten,
    OutcomeUnknown,
    StorageError,
    StorageReadOnly,
)
from duraq.operations import Operation
from duraq.storage import pg_connections
from duraq.storage.base import Limits
from duraq.storage.bells import BellPlace, BellStorage
from duraq.storage.committing import feeds
from duraq.storage.fold import TryAgain
from duraq.storage.joining import JoiningStorage
from duraq.storage.pg_clock import ServerClock
from duraq.storage.pg_connections import Connections, Pool, execute, is_gone, server_time
from duraq.storage.pg_session import CHANNEL, IS_ALIVE, LOCKS, Session, lock_of
from duraq.storage.pg_words import first_line, with_percents
from duraq.storage.sql import TABLES, VERSION, SQLRows
from duraq.storage.table import Durability, Known, check_durability, check_version
from duraq.storage.transacting import Scope

_COMMIT = {True: "on", False: "off"}

# How often one who waits asks whether the holders of leases live, in seconds: nobody tells him when one dies.
LOOK_INTERVAL = 0.1
# How often he looks if there are none: a network may be cut so that no notice comes, and nobody is told.
IDLE_INTERVAL = 10.0

_GRANT = (
    "let a role open it once that may CREATE, and GRANT this one SELECT, INSERT, UPDATE, DELETE on duraq_*"
)

# In the caller's transaction, ours.
_THEIRS = "duraq_theirs"


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
        self.durability = durability
        self._session: Session | None = None
        self._places: set[BellPlace] = set()
        self._bells = threading.Lock()
        self._theirs: psycopg.Connection | None = None  # that of the caller's own transaction
        self._closing_lock = threading.RLock()
        self._server_clock = ServerClock() if clock is None else None
        try:
            self._connections = Connections(server, self._server_clock)
        except psycopg.Error as error:
            raise StorageError(first_line(error), path="postgresql", hint="is the server there?") from error
        super().__init__(clock or self._server_clock or SystemClock(), lock_duration, max_payload_bytes)
        self._rows = SQLRows(self._execute, lock=" FOR UPDATE")
        try:
            self._prepare_rows(self._prepare)
        except BaseException as error:
            self._closed = True
            self._connections.close()
            raise self._translated(error) from error
        forks.register(self)

    def __repr__(self) -> str:
        return f"<PostgresStorage {self._name!r}>"

    @property
    def _name(self) -> str:
        return self._connections.name

    def _prepare(self) -> None:
        """Make the tables, or see that they are of a version that is known."""
        found = self._found()
        if not found:
            self._make_tables()
            found = self._found()
        ((version, tables),) = found
        check_version(version, VERSION, self._name)
        self._connections.forget(self._connections.begun)
        if self._server_clock is not None:
            self._server_clock.belong_to(tables)

    def _found(self) -> list[Any]:
        """The tables' version and name, if they are there."""
        # Who may not make any is refused by CREATE even where they are.
        ((there,),) = self._execute(
            "SELECT to_regclass('duraq_schema') IS NOT NULL AND to_regclass('duraq_commits') IS NOT NULL"
        )
        return list(self._execute("SELECT version, id FROM duraq_schema")) if there else []

    def _make_tables(self) -> None:
        # One at a time: two that make the same table at once do not get on.
        self._execute("SELECT pg_advisory_xact_lock(?, 0)", (LOCKS + 1,))
        self._execute("CREATE TABLE IF NOT EXISTS duraq_schema (version BIGINT NOT NULL, id TEXT NOT NULL)")
        self._execute(pg_connections.COMMITS)
        if self._found():
            return
        for statement in TABLES:
            self._execute(
                statement.format(number="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", blob="BYTEA")
            )
        self._execute("INSERT INTO duraq_schema VALUES (?, ?)", (VERSION, secrets.token_hex(8)))

    # -- statements -------------------------------------------------------------------------------------

    def _execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Iterable[Any]:
        """What the rows are asked with, in the transaction of the turn."""
        return execute(self._theirs or self._connections.begun, with_percents(statement), parameters)

    def _ask(self, statement: str, parameters: Sequence[Any]) -> list[Any]:
        """Something that belongs to no transaction of ours."""
        if self._is_within():
            return self._in_turn(lambda: list(self._execute(statement, parameters)))
        with self._turns.mine():
            self._check_usable()
            while True:
                try:
                    self._connections.connected()
                    return list(self._execute(statement, parameters))
                except psycopg.Error as error:
                    if self._inside:
                        raise
                    self._connections.lose()
                    if not is_gone(error):
                        raise self._translated(error) from error

    # -- the database's transactions -------------------------------------------------------------------

    def _begin(self, *, lasting: bool) -> None:
        if self._theirs is not None:
            self._set_savepoint(_THEIRS)
            self._least_token = now = server_time(self._theirs)
            if self._server_clock is not None:
                self._server_clock.set(now)
            return
        self._connections.begin(_COMMIT[lasting and self.durability == "power"])
        self._least_token = self._connections.since

    def _commit_rows(self) -> None:
        if self._theirs is None:
            self._connections.commit()
        else:
            self._release_savepoint(_THEIRS)  # the rest is the caller's to commit

    def _roll_back_rows(self) -> None:
        if self._theirs is None:
            self._connections.roll_back()
            return
        with suppress(psycopg.Error):  # then the caller's transaction is over, and this with it
            self._roll_back_to(_THEIRS)

    def _set_savepoint(self, name: str) -> None:
        self._execute(f"SAVEPOINT {name}")

    def _release_savepoint(self, name: str) -> None:
        self._execute(f"RELEASE SAVEPOINT {name}")

    def _roll_back_to(self, name: str) -> None:
        self._execute(f"ROLLBACK TO SAVEPOINT {name}")
        self._execute(f"RELEASE SAVEPOINT {name}")

    def _in_our_words(self, error: BaseException, *, committing: bool) -> BaseException | None:
        if not isinstance(error, psycopg.Error):
            return None
        text, hint = first_line(error), "nothing was written"
        again = isinstance(error, pg_connections.AGAIN)
        if isinstance(error, psycopg.OperationalError) and is_gone(error) and self._theirs is None:
            self._connections.lose()
            if committing:
                return OutcomeUnknown(text, path=self._name, hint="look whether it was done")
            again = True
        if again and self._joined is None and self._theirs is None:
            return TryAgain(text)
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
            return StorageReadOnly(text, path=self._name, hint="this is a standby; open the primary")
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return StorageReadOnly(text, path=self._name, hint=_GRANT)
        if isinstance(error, pg_connections.ENDED):
            text, hint = (
                "the transaction was ended already",
                f"{hint}; leave COMMIT and ROLLBACK to the with-block",
            )
        return NotWritten(text, path=self._name, hint=hint)

    def _commit(self, changes: Mapping[str, Sequence[Operation]], limits: Limits | None) -> int:
        # In one order, or two who lock the same queues wait for each other until the server ends that.
        return super()._commit(dict(sorted(changes.items())), limits)

    def _look_up(self, queue: str, *, create: bool) -> Known | None:
        known = super()._look_up(queue, create=create)
        if known is not None:
            # A server that crashes may forget leases, which are not synced, and their holders live on. No
            # token of theirs is given again: it breaks off every connection, and what begins then is higher.
            known.state.tokens = max(known.state.tokens, self._least_token)
        return known

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
        are not for the caller. Raises NoTransaction outside of ``with storage.transaction():``,
        and InvalidOption in a task, which does both in a thread.
        """
        self._join()
        return self._theirs or self._connections.begun

    @contextmanager
    def _on(self, connection: psycopg.Connection) -> Iterator[None]:
        with self._turns.mine():
            self._theirs = connection
            try:
                yield
            finally:
                if self._turns.is_mine():
                    self._theirs = None

    def _let_go(self) -> None:
        self._theirs = None  # before anybody else has a turn
        super()._let_go()

    # -- who lives -------------------------------------------------------------------------------------

    def _worker(self) -> str:
        self._check_leasing()
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
        self._end_session()
        until = time.monotonic() + pg_connections.PATIENCE
        while self._session is None:
            try:
                self._session = self._connections.connect(lambda one: Session(one, self._ring))
            except psycopg.OperationalError as error:
                self._connections.wait_for(error, until)

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
            self._connections.end(session.connection)

    def _known_worker(self) -> str | None:
        return None if self._session is None else self._session.worker

    def _is_alive(self, worker: str) -> bool:
        if worker == self._known_worker():
            return not (self._session is not None and self._session.lost)
        return bool(self._ask(IS_ALIVE, lock_of(worker)))

    # -- who waits -------------------------------------------------------------------------------------

    def _write(self, changes: Mapping[str, Sequence[Operation]], *, soon: bool = False) -> int:
        position = super()._write(changes, soon=soon)
        for queue, operations in changes.items():
            if any(map(feeds, operations)):
                # Told when it commits, to whoever listens, on whatever host.
                self._execute("SELECT pg_notify(?, ?)", (CHANNEL, queue))
        return position

    @property
    def _someone_waits(self) -> bool:
        return False  # they have been told

    def _notify(self, queue: str, count: int) -> None:
        """They have been told."""

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
        return min(seconds, LOOK_INTERVAL if holders else IDLE_INTERVAL)

    def _count_waiting(self, queue: str) -> int:
        return self._count_places(queue)

    # -- closing ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back what is leased, uncounted, and end the connections. Idempotent."""
        with self._closing_lock:
            if self._closed or self._forked:
                return
            self._closing = self._connections.closing = True
            self._warn_if_begun()
            with suppress(DuraqError):
                # With the session the leases end all the same; only their attempts then count.
                self._give_back()
            with self._last_turn():
                self._closed = True
            with ExitStack() as stack:
                stack.callback(self._connections.close)
                stack.callback(self._end_session)
            self._ring()

    def after_fork_in_child(self) -> None:
        """The child may not use this object; its parent's connections stay open there, unused."""
        if self._closed or self._forked:
            return
        self._forked = True
        self._connections.abandon()
        if self._session is not None:
            self._session.abandon(pg_connections.abandoned)


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
        if self._connection.info.encoding != "utf-8":
            raise InvalidOption("the connection cannot hold every text: its client_encoding must be UTF8")
        if transaction.current(self._storage) is not None:
            raise InvalidOption("there is a transaction on this storage already, and it is another one")
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
