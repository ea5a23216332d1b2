"""What is PostgreSQL's own: the caller's transactions, lost sessions, a server that goes and comes back."""

import os
import shutil
import subprocess
import sys
import threading
from contextlib import ExitStack
from datetime import timedelta

import psycopg
import pytest
from pg_server import Server
from psycopg.rows import dict_row

from duraq import (
    Cause,
    Counts,
    EntryStatus,
    FixedDelay,
    InvalidOption,
    LeaseLost,
    NotEnqueued,
    NotWritten,
    OutcomeUnknown,
    PostgresStorage,
    Queue,
    StorageError,
    StorageReadOnly,
    UnsupportedVersion,
)
from duraq.storage import pg_clock, pg_connections, postgres

PATIENCE = timedelta(seconds=60)
RETRIES = FixedDelay(max_attempts=9, delay=timedelta(0))

pytestmark = pytest.mark.timeout(300)


class Refused(Exception):
    """What leaves a transaction here."""


@pytest.fixture(scope="module")
def server():
    """A server for the tests of this file."""
    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def fragile():
    """One that tests kill, and start again."""
    server = Server(durable=True)
    server.start()
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        # So that what is not synced is lost.
        connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        connection.execute("SELECT pg_reload_conf()")
    yield server
    server.stop()


@pytest.fixture
def dsn(server):
    """A schema of the test's own."""
    return with_schema(server)


def with_schema(server):
    return server.dsn(server.new_schema())


@pytest.fixture
def app(dsn):
    """The application's own connection, with a table."""
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE orders (name TEXT)")
        connection.commit()
        yield connection


@pytest.fixture
def open_queue(dsn):
    """The queue, as another process has it."""
    with ExitStack() as stack:
        yield lambda: Queue("jobs", stack.enter_context(PostgresStorage(dsn)), retry_policy=RETRIES)


@pytest.fixture
def queue(open_queue):
    """The queue."""
    return open_queue()


@pytest.fixture
def storage(queue):
    """Its storage."""
    return queue.storage


def orders(app):
    names = [name for (name,) in app.execute("SELECT name FROM orders ORDER BY name")]
    app.rollback()
    return names


# -- opening -----------------------------------------------------------------------------------------------


def test_texts(server, dsn):
    """A database that has no encoding takes every text as well; one that cannot hold some is refused."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for name in ("SQL_ASCII", "LATIN1"):
            connection.execute(
                f"CREATE DATABASE {name} ENCODING {name} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
            )
    plain, latin = (server.dsn().replace("=postgres", f"={name}") for name in ("sql_ascii", "latin1"))
    with PostgresStorage(f"{plain} client_encoding=LATIN1") as storage:
        queue = Queue("jobs", storage)
        queue.enqueue("€\0", headers={"price": "€\0"}, key="€\0")
        entry = queue.dequeue()
        assert (entry.data, entry.headers, entry.key) == ("€\0", {"price": "€\0"}, "€\0")
    with pytest.raises(StorageError, match="LATIN1"):
        PostgresStorage(latin)
    with PostgresStorage(dsn) as storage, psycopg.connect(dsn, client_encoding="LATIN1") as connection:
        connection.execute("SELECT 1")
        with pytest.raises(InvalidOption, match="client_encoding"), storage.transaction(connection):
            pass


def test_the_connection_is_lost_in_opening(dsn, monkeypatch):
    """A connection that is lost while the tables are made is made anew, like any other."""
    prepare, times = PostgresStorage._prepare, []

    def losing(storage):
        if not times:
            times.append(end_connection(dsn, storage._connections.connection))
        prepare(storage)

    monkeypatch.setattr(PostgresStorage, "_prepare", losing)
    with PostgresStorage(dsn) as storage:
        Queue("jobs", storage).enqueue("a")
    assert times


def test_a_role_that_may_make_no_tables(server, dsn, queue):
    """A role that may only use the tables works with them; where there are none it is told what it lacks."""
    queue.enqueue("a")
    schema = dsn.rpartition("=")[2]
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute("CREATE ROLE worker LOGIN")
        owner.execute(f"GRANT USAGE ON SCHEMA {schema} TO worker")
        owner.execute(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO worker",
        )
        theirs = dsn.replace("user=duraq", "user=worker")
        with PostgresStorage(theirs) as storage:
            other = Queue("jobs", storage)
            other.enqueue("b")
            for _ in range(2):
                other.mark_completed(other.dequeue())
        empty = server.new_schema()
        owner.execute(f"GRANT USAGE ON SCHEMA {empty} TO worker")
    with pytest.raises(StorageReadOnly, match="GRANT"):
        PostgresStorage(theirs.replace(schema, empty))
    assert queue.counts() == Counts()


# -- transactions ------------------------------------------------------------------------------------------


def test_statements_of_the_application(app, storage, queue):
    """The application's statements on the storage's connection are part of the transaction."""
    with storage.transaction():
        storage.connection.execute("INSERT INTO orders VALUES ('a')")
        queue.enqueue("a")
    with pytest.raises(Refused), storage.transaction():
        storage.connection.execute("INSERT INTO orders VALUES ('b')")
        queue.enqueue("b")
        raise Refused
    assert orders(app) == ["a"]
    assert [entry.data for entry in queue.entries()] == ["a"]


def test_in_the_callers_transaction(app, storage, queue):
    """On the caller's connection it is his commit that counts, and his rollback takes all of it."""
    app.execute("INSERT INTO orders VALUES ('a')")
    with storage.transaction(app):
        queue.enqueue("a")
    app.rollback()
    assert queue.counts() == Counts()
    app.execute("INSERT INTO orders VALUES ('b')")
    with storage.transaction(app):
        queue.enqueue("b")
    app.commit()
    assert orders(app) == ["b"]
    assert [entry.data for entry in queue.entries()] == ["b"]


@pytest.mark.parametrize("options", [{"row_factory": dict_row}, {"cursor_factory": psycopg.RawCursor}])
def test_a_connection_of_the_applications_own_kind(app, dsn, storage, queue, options):
    """What the caller's connection makes of rows and parameters is no matter to the queues."""
    with psycopg.connect(dsn, **options) as connection:
        connection.execute("INSERT INTO orders VALUES ('a')")
        with storage.transaction(connection):
            queue.enqueue("a")
            assert queue.dequeue().data == "a"
    assert orders(app) == ["a"]
    assert queue.counts() == Counts(leased=1)


def test_a_block_in_it_fails(app, storage, queue):
    """An error takes back what the block has done, and leaves the caller's own part to him."""
    queue.enqueue("before")
    app.execute("INSERT INTO orders VALUES ('a')")
    with pytest.raises(Refused), storage.transaction(app):
        queue.dequeue()
        queue.enqueue("b")
        raise Refused
    app.commit()
    assert orders(app) == ["a"]
    assert queue.counts() == Counts(ready=1)
    assert queue.dequeue().attempts == 1


def test_after_a_statement_that_failed(app, storage, queue):
    """In a transaction that a statement has spoilt nothing is done; a savepoint around it keeps it whole."""
    with pytest.raises(NotEnqueued, match="aborted"), storage.transaction():
        spoil(storage)
        with pytest.raises(NotWritten, match="aborted"):
            queue.counts()
        queue.enqueue("a")
    done_elsewhere(lambda: queue.enqueue("b"))
    with storage.transaction():
        with pytest.raises(NotWritten, match="aborted"), storage.transaction():
            storage.connection.execute("INSERT INTO orders VALUES ('c')")
            queue.enqueue("c")
            spoil(storage)
        storage.connection.execute("INSERT INTO orders VALUES ('d')")
        queue.enqueue("d")
    assert orders(app) == ["d"]
    assert [entry.data for entry in queue.entries()] == ["b", "d"]


def spoil(storage):
    with pytest.raises(psycopg.errors.DivisionByZero):
        storage.connection.execute("SELECT 1 / 0")


def done_elsewhere(call):
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_it_ended_the_transaction_itself(app, storage, queue):
    """Whoever commits for himself is told, whether or not anything was to be done to a queue."""
    with pytest.raises(NotWritten, match="ended already"), storage.transaction():
        storage.connection.execute("COMMIT")
    with pytest.raises(NotEnqueued, match="ended already"), storage.transaction():
        storage.connection.execute("ROLLBACK")
        queue.enqueue("a")
    done_elsewhere(queue.counts)
    assert queue.counts() == Counts()


@pytest.mark.parametrize("asking", [True, False], ids=["asked", "not asked"])
def test_the_connection_is_lost_in_a_transaction(app, dsn, storage, queue, asking):
    """What was done on a connection that is lost was not done, whatever is asked before the end."""
    queue.enqueue("a")
    with PostgresStorage(dsn) as other:
        held = Queue("jobs", other).dequeue()
        with pytest.raises(NotWritten), storage.transaction():
            storage.connection.execute("INSERT INTO orders VALUES ('a')")
            end_connection(dsn, storage._connections.connection)
            if asking:
                with pytest.raises(NotWritten):
                    queue.counts()
                with pytest.raises(NotWritten):
                    storage._is_alive(held.worker)
                with pytest.raises(NotWritten):
                    _ = storage.connection
    assert orders(app) == []
    done_elsewhere(lambda: queue.enqueue("b"))


def test_the_callers_connection_is_lost(app, dsn, storage, queue):
    """A transaction on a connection of the caller's that is gone is refused, or was never there."""
    mine = storage._connections.connection
    for early in (True, False):
        with psycopg.connect(dsn) as theirs:
            theirs.execute("INSERT INTO orders VALUES ('a')")
            if early:
                end_connection(dsn, theirs)
            with pytest.raises(NotWritten), storage.transaction(theirs):
                queue.enqueue("a")
                end_connection(dsn, theirs)
    assert orders(app) == []
    assert queue.counts() == Counts()
    assert storage._connections.connection is mine


def end_connection(dsn, connection):
    with psycopg.connect(dsn, autocommit=True) as another:
        another.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))


def test_within_another_transaction(app, storage, queue):
    """A transaction on the caller's connection cannot be part of another one."""
    app.execute("INSERT INTO orders VALUES ('a')")
    with storage.transaction():
        queue.enqueue("a")
        with pytest.raises(InvalidOption, match="another one"), storage.transaction(app):
            pass
    with storage.transaction(app):
        with storage.transaction():
            queue.enqueue("b")
        with pytest.raises(InvalidOption, match="another one"), storage.transaction(app):
            pass
        queue.enqueue("c")
    app.commit()
    assert [entry.data for entry in queue.entries()] == ["a", "b", "c"]


def test_another_thread_when_the_callers_block_ends(app, storage, queue, monkeypatch):
    """What another thread does next is no part of the caller's transaction."""
    other, give = Queue("other", storage), storage._turns.give
    thread = threading.Thread(target=lambda: other.enqueue("b"))

    def giving(**options):
        give(**options)
        # The other one first, as soon as it is his turn.
        if threading.current_thread() is threading.main_thread() and not storage._turns.is_mine():
            thread.join(60)

    app.execute("INSERT INTO orders VALUES ('a')")
    with storage.transaction(app):
        queue.enqueue("a")
        thread.start()
        while not storage._turns._line:
            thread.join(0.001)
        monkeypatch.setattr(storage._turns, "give", giving)
    app.rollback()
    assert queue.counts() == Counts()
    assert other.counts() == Counts(ready=1)


def test_in_no_transaction(dsn, storage):
    """A connection that commits each statement by itself is in none that could be joined."""
    with (
        psycopg.connect(dsn, autocommit=True) as connection,
        pytest.raises(InvalidOption, match="begin one"),
        storage.transaction(connection),
    ):
        pass


def test_the_same_queues_in_another_order(dsn, storage, monkeypatch):
    """Those who change the same queues do it in one order, so that none waits for another in a circle."""
    order = []
    look_up = PostgresStorage._look_up
    monkeypatch.setattr(
        PostgresStorage,
        "_look_up",
        lambda storage, queue, **options: order.append(queue) or look_up(storage, queue, **options),
    )
    with storage.transaction():
        for name in ("b", "a", "c"):
            Queue(name, storage).enqueue("x")
    assert list(dict.fromkeys(order)) == ["a", "b", "c"]


# -- sessions ----------------------------------------------------------------------------------------------


def end_session(dsn, storage):
    """As a network does that is cut."""
    session = storage._session
    end_connection(dsn, session.connection)
    session._listener.join()


def test_a_lost_session_ends_its_leases(dsn, queue, open_queue):
    """What a worker held whose connection is gone is another's at once, and he is told when he ends it."""
    queue.enqueue("a")
    entry = queue.dequeue()
    end_session(dsn, queue.storage)
    again = open_queue().dequeue(wait=PATIENCE)
    assert (again.id, again.attempts, again.errors[0].cause) == (entry.id, 2, Cause.WORKER_DIED)
    with pytest.raises(LeaseLost):
        queue.mark_completed(entry)


def test_it_goes_on_under_another_name(dsn, queue):
    """A worker whose session was lost leases again, as another one."""
    queue.enqueue_many(["a", "b"])
    first = queue.dequeue()
    end_session(dsn, queue.storage)
    second = queue.dequeue(wait=PATIENCE)
    assert second.worker != first.worker
    queue.mark_completed(second)


def test_a_lost_connection(storage, queue):
    """The connection of a storage's own turns may be lost between two calls: the next one makes another."""
    queue.enqueue("a")
    end_connection(storage._connections._address, storage._connections.connection)
    queue.enqueue("b")
    assert queue.counts() == Counts(ready=2)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_answer_to_a_commit_is_lost(storage, queue, monkeypatch, when):
    """Whether a commit came through whose answer did not is found out, and it is done once."""
    queue.enqueue("a")
    execute, lost = psycopg.Connection.execute, []

    def losing(connection, query, *more, **options):
        if query != "COMMIT" or lost:
            return execute(connection, query, *more, **options)
        lost.append(query)
        if when == "after":
            execute(connection, query)
        connection.close()
        raise psycopg.OperationalError("the connection is closed")

    monkeypatch.setattr(psycopg.Connection, "execute", losing)
    queue.enqueue("b", id="b")
    assert lost
    assert [entry.data for entry in queue.entries()] == ["a", "b"]


class Pool:
    """Two connections at a time, as a psycopg_pool.ConnectionPool has them."""

    def __init__(self, dsn):
        self._dsn = dsn
        self.out = []

    def getconn(self):
        if len(self.out) == 2:
            raise psycopg.OperationalError("couldn't get a connection")
        self.out.append(psycopg.connect(self._dsn))
        return self.out[-1]

    def putconn(self, connection):
        self.out.remove(connection)
        assert connection.closed


def test_a_pool(dsn, monkeypatch):
    """Two connections of a pool are enough, whichever of them is lost, and however; it gets them back."""
    monkeypatch.setattr(pg_connections, "PATIENCE", 0.0)
    pool = Pool(dsn)
    with PostgresStorage(pool) as storage:
        queue = Queue("jobs", storage, retry_policy=RETRIES)
        queue.enqueue_many(["a", "b", "c"])
        assert queue.dequeue().data == "a"
        end_session(dsn, storage)
        assert queue.dequeue().attempts == 2
        end_connection(dsn, storage._connections.connection)
        queue.enqueue("d")
        storage._connections.connection.close()
        assert queue.dequeue().data == "b"
        assert len(pool.out) == 2
    assert pool.out == []


def test_a_notice_that_does_not_come(queue, open_queue, monkeypatch):
    """Whoever waits finds what he was not told of: a network that is cut drops notices, and says nothing."""
    monkeypatch.setattr(postgres, "IDLE_INTERVAL", 0.1)
    monkeypatch.setattr(queue.storage, "_ring", lambda queue=None: None)
    timer = threading.Timer(0.3, open_queue().enqueue, args=("a",))
    timer.start()
    assert queue.dequeue(wait=PATIENCE).data == "a"
    timer.join()


def test_the_servers_clock_is_set(app, storage, queue, monkeypatch):
    """The time is the server's as it is when a turn begins, and not as it was when it was connected to."""
    queue.enqueue_many(["a", "b"], delay=timedelta(minutes=10))
    assert queue.dequeue() is None
    monkeypatch.setattr(pg_connections, "NOW", f"{pg_clock.NOW} + 601 * 1000000")
    assert queue.dequeue().data == "a"
    monkeypatch.undo()
    assert queue.counts() == Counts(ready=1, leased=1)
    queue.enqueue("c", delay=timedelta(minutes=10), id="c")
    monkeypatch.setattr(pg_connections, "NOW", f"{pg_clock.NOW} + 1201 * 1000000")
    app.execute("SELECT 1")
    with storage.transaction(app):
        assert {entry.data for entry in queue.entries(EntryStatus.READY)} >= {"b", "c"}
    app.rollback()


# -- the server --------------------------------------------------------------------------------------------


def test_no_server(tmp_path):
    """Where there is no server, that is said."""
    with pytest.raises(StorageError, match="is the server there"):
        PostgresStorage(f"host={tmp_path} user=duraq dbname=postgres")


def test_a_later_version(app, dsn, storage):
    """Tables of a version that is not known are refused, and left alone."""
    app.execute("UPDATE duraq_schema SET version = 99")
    app.commit()
    with pytest.raises(UnsupportedVersion, match="99"):
        PostgresStorage(dsn)


def test_a_server_that_is_away(fragile, monkeypatch):
    """A call waits for a server that is away, and says so if it does not come back; later it goes on."""
    monkeypatch.setattr(pg_connections, "PATIENCE", 0.5)
    with PostgresStorage(with_schema(fragile)) as storage:
        queue = Queue("jobs", storage)
        queue.enqueue("a")
        fragile.kill()
        with pytest.raises(NotEnqueued, match="away"):
            queue.enqueue("b")
        fragile.start()
        queue.enqueue("c")
        assert [entry.data for entry in queue.entries()] == ["a", "c"]


def test_a_lease_that_the_server_forgot(fragile):
    """Whoever holds a lease that a crash took from the server cannot end the one that came after it."""
    dsn = with_schema(fragile)
    with PostgresStorage(dsn) as storage, ExitStack() as stack:
        queue = Queue("jobs", storage)
        queue.enqueue("a")
        entry = queue.dequeue()
        fragile.kill()
        fragile.start()
        other = Queue("jobs", stack.enter_context(PostgresStorage(dsn)), retry_policy=RETRIES)
        again = other.dequeue(wait=PATIENCE)
        assert (again.id, again.attempts) == (entry.id, 1)
        with pytest.raises(LeaseLost):
            queue.mark_completed(entry)
        other.mark_completed(again)


def test_a_server_that_goes_away_in_a_commit(fragile, monkeypatch):
    """If nobody can be asked what became of a commit, that is said, and not that nothing was written."""
    with PostgresStorage(with_schema(fragile)) as storage:
        queue = Queue("jobs", storage)
        queue.enqueue("a")
        monkeypatch.setattr(pg_connections, "PATIENCE", 0.5)
        storage._connections.connection = _DiesAtCommit(storage, fragile)
        with pytest.raises(OutcomeUnknown, match="during a commit"):
            queue.enqueue("b")
        fragile.start()
        monkeypatch.setattr(pg_connections, "PATIENCE", 30.0)
        # It died before it heard of it.
        assert [entry.data for entry in queue.entries()] == ["a"]


def test_somebody_else_gets_the_number_of_a_commit_that_was_lost(fragile):
    """A commit that a crash took is done again, though the server says of its number that it is committed."""
    dsn = with_schema(fragile)

    def comes_back():
        fragile.start()
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE others (name TEXT)")
            for _ in range(50):
                connection.execute("INSERT INTO others VALUES ('a')")

    with PostgresStorage(dsn) as storage:
        queue = Queue("jobs", storage)
        queue.enqueue("a")
        storage._connections.connection = _DiesAtCommit(storage, fragile, comes_back)
        queue.enqueue("b")
        assert [entry.data for entry in queue.entries()] == ["a", "b"]


def test_what_is_known_of_commits(dsn, storage, queue):
    """What is kept for those whose answers are lost is one row for each that is open."""
    for _ in range(2):
        with PostgresStorage(dsn) as other:
            Queue("jobs", other).enqueue("a")
            queue.enqueue("b")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM duraq_commits").fetchone() == (1,)
        connection.execute("UPDATE duraq_commits SET at = now() - interval '2 days'")
        connection.execute("INSERT INTO duraq_commits VALUES ('of one who was killed', 7, now())")
        connection.commit()
        with PostgresStorage(dsn):
            found = connection.execute("SELECT count(*) FROM duraq_commits").fetchone()
        assert found == (2,)
    queue.enqueue("c")


class _DiesAtCommit:
    """A connection whose server is killed as soon as it is to commit."""

    def __init__(self, storage, server, comes_back=lambda: None):
        self._connection, self._server = storage._connections.connection, server
        self._comes_back = comes_back

    def execute(self, statement, *parameters):
        if statement == "COMMIT":
            self._server.kill()
            self._comes_back()
        return self._connection.execute(statement, *parameters)

    def __getattr__(self, name):
        return getattr(self._connection, name)


WORKER = """
import sys
from datetime import timedelta
from duraq import FixedDelay, LeaseLost, PostgresStorage, Queue

with PostgresStorage(sys.argv[1]) as storage:
    queue = Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=9, delay=timedelta(0)))
    print("ready", flush=True)
    while True:
        entry = queue.dequeue(wait=timedelta(minutes=1))
        if entry.data == "stop":
            queue.mark_completed(entry)
            break
        print("given", entry.data, entry.attempts, flush=True)
        try:
            queue.mark_completed(entry)
        except LeaseLost:
            print("lost", entry.data, flush=True)
        else:
            print("done", entry.data, flush=True)
"""
ENTRIES, HOSTS = 300, 2
# As far apart as two hosts: no network in common, and the same pids.
APART = ["unshare", "--net", "--uts", "--pid", "--fork", "--kill-child"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces of their own")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_two_hosts_and_a_server_that_is_killed():
    """Workers on two hosts lose nothing when the server is killed and comes back, nor do anything twice."""
    server = Server(durable=True)
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        queue = Queue("jobs", stack.enter_context(PostgresStorage(server.dsn())), retry_policy=RETRIES)
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [*APART, sys.executable, "-c", WORKER, server.dsn()], stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(HOSTS)
        ]
        for worker in workers:
            stack.callback(worker.kill)
            assert worker.stdout.readline() == "ready\n"
        told = [[] for _ in workers]
        readers = [
            threading.Thread(target=lambda lines, out: lines.extend(out), args=(lines, worker.stdout))
            for lines, worker in zip(told, workers, strict=True)
        ]
        for reader in readers:
            reader.start()
        for number in range(ENTRIES):
            if number in {ENTRIES // 3, 2 * ENTRIES // 3}:
                server.kill()
                threading.Timer(0.2, server.start).start()
            queue.enqueue(number, id=str(number))
        for _ in workers:
            queue.enqueue("stop", priority=-1)
        for worker in workers:
            assert worker.wait() == 0
        for reader in readers:
            reader.join()
        assert queue.counts() == Counts()
    lines = [line.split() for each in told for line in each]
    done = [number for what, number, *_ in lines if what == "done"]
    assert sorted(done, key=int) == [str(number) for number in range(ENTRIES)]
    # Delivered again is only what was held by a session that has ended.
    again = [int(attempts) for what, _, *attempts_ in lines if what == "given" for attempts in attempts_]
    assert sum(attempts > 1 for attempts in again) <= 2 * HOSTS
    assert all(any(what == "done" for what, *_ in map(str.split, each)) for each in told)
