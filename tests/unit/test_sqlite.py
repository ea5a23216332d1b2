"""What is SQLite's own: the application's tables, other programs' locks, the file."""

import asyncio
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from duraq import (
    Counts,
    InvalidOption,
    LeaseLost,
    MemoryStorage,
    NotAStorage,
    NotEnqueued,
    NoTransaction,
    NotWritten,
    Queue,
    StorageClosed,
    StorageDamaged,
    UnsupportedVersion,
    transaction,
)
from duraq.storage.sqlite import SQLiteStorage
from duraq.transaction import Transaction


class Refused(Exception):
    """What leaves a transaction here."""


@pytest.fixture
def path(tmp_path):
    """Where the database is."""
    return tmp_path / "shop.db"


@pytest.fixture
def storage(path):
    """A database with a table of the application's."""
    with SQLiteStorage(path) as storage:
        with storage.transaction():
            storage.connection.execute("CREATE TABLE orders (name TEXT)")
        yield storage


@pytest.fixture
def queue(storage):
    """A queue in it."""
    return Queue("jobs", storage)


def orders(path):
    """What another program reads in the application's table."""
    database = sqlite3.connect(path)
    try:
        return [name for (name,) in database.execute("SELECT name FROM orders ORDER BY rowid")]
    finally:
        database.close()


def order(storage, name):
    storage.connection.execute("INSERT INTO orders VALUES (?)", (name,))


def test_one_transaction(storage, queue, path):
    """The application's rows and the queue's entries are committed together."""
    with storage.transaction():
        order(storage, "a")
        queue.enqueue("a")
        assert orders(path) == []
    assert orders(path) == ["a"]
    assert queue.counts() == Counts(ready=1)


def test_undone_together(storage, queue, path):
    """What leaves the transaction by an error takes both with it."""
    queue.enqueue("before")
    with pytest.raises(Refused), storage.transaction():
        entry = queue.dequeue()
        order(storage, "a")
        queue.mark_completed(entry)
        queue.enqueue("a")
        raise Refused
    assert orders(path) == []
    assert queue.counts() == Counts(ready=1)
    assert queue.dequeue().attempts == 1


def test_leased_in_what_is_undone(storage, queue, path):
    """What was leased after the application's statements had begun was never leased, if all is undone."""
    queue.enqueue("a")
    with pytest.raises(Refused), storage.transaction():
        order(storage, "a")
        entry = queue.dequeue()
        raise Refused
    assert queue.counts() == Counts(ready=1)
    with pytest.raises(LeaseLost):
        queue.mark_completed(entry)
    assert orders(path) == []


@pytest.mark.parametrize("early", [True, False], ids=["joined before", "joined in it"])
def test_savepoints(storage, queue, path, early):
    """A savepoint takes back the application's rows as well, and only those since."""
    with storage.transaction():
        if early:
            order(storage, "outer")
        queue.enqueue("outer")
        with pytest.raises(Refused), storage.transaction():
            order(storage, "inner")
            queue.enqueue("inner")
            raise Refused
        with storage.transaction():
            order(storage, "kept")
            queue.enqueue("kept")
    assert orders(path) == ["outer"] * early + ["kept"]
    assert [entry.data for entry in queue.entries()] == ["outer", "kept"]


def test_refused_at_the_end(storage, queue, path):
    """What cannot be committed for the queue's sake undoes the application's rows."""
    queue.enqueue("a")
    with pytest.raises(LeaseLost), storage.transaction():
        order(storage, "a")
        entry = queue.dequeue()
        queue.mark_completed(entry)
        queue.mark_completed(entry)
    assert orders(path) == []
    assert queue.counts() == Counts(ready=1)


def test_an_error_of_the_statements(storage, queue, path):
    """A statement that the database refuses is the application's to see; the storage goes on."""
    with pytest.raises(sqlite3.OperationalError), storage.transaction():
        queue.enqueue("a")
        storage.connection.execute("INSERT INTO nowhere VALUES (1)")
    assert queue.counts() == Counts()
    queue.enqueue("b")
    assert queue.counts() == Counts(ready=1)


def test_it_ended_the_transaction_itself(storage, queue):
    """Whoever commits for himself is told, and nothing of the queue is half done."""
    with pytest.raises(NotWritten, match="ended already"), storage.transaction():
        queue.enqueue("a")
        storage.connection.execute("ROLLBACK")
    assert queue.counts() == Counts()


def test_closed_in_a_transaction(storage, queue, path):
    """A transaction in which the storage is closed was not committed, and is no more."""
    with pytest.raises(StorageClosed), storage.transaction():
        order(storage, "a")
        queue.enqueue("a")
        storage.close()
    assert orders(path) == []
    with SQLiteStorage(path) as again:
        assert again.counts("jobs") == Counts()


def test_given_back_after_something_was_undone(storage, queue, path):
    """What was leased before something else was undone is given back at the end, uncounted, all the same."""
    queue.enqueue("a")
    queue.dequeue()
    with pytest.raises(Refused), storage.transaction():
        order(storage, "a")
        queue.enqueue("b", id="b")
        raise Refused
    storage.close()
    with SQLiteStorage(path) as again:
        assert Queue("jobs", again).dequeue().attempts == 1


class Interrupted(BaseException):
    """As KeyboardInterrupt, where it comes."""


def interrupting(monkeypatch, kind, method):
    """The method is interrupted, once."""

    def interrupted(*_):
        monkeypatch.undo()
        raise Interrupted

    monkeypatch.setattr(kind, method, interrupted)


@pytest.mark.parametrize("where", [(transaction, "mark"), (transaction, "end"), (SQLiteStorage, "_begun")])
def test_a_ctrl_c_at_the_end_of_a_transaction(storage, queue, path, monkeypatch, where):
    """A transaction whose end was interrupted is over: what comes next is no part of it, and is durable."""
    with pytest.raises(Interrupted), storage.transaction():
        order(storage, "a")
        queue.enqueue("a")
        interrupting(monkeypatch, *where)
    queue.enqueue("b")
    with SQLiteStorage(path) as other:
        assert [entry.data for entry in Queue("jobs", other).entries()] == ["b"]
    assert orders(path) == []


@pytest.mark.parametrize(
    "where", [(transaction, "mark"), (SQLiteStorage, "_begun"), (Transaction, "release_savepoint")]
)
def test_a_ctrl_c_at_the_end_of_a_savepoint(storage, queue, path, monkeypatch, where):
    """Of a savepoint whose end was interrupted nothing is kept by the rest, or the rest fails with it."""
    kept = []
    with suppress(NotWritten), storage.transaction():
        order(storage, "a")
        with pytest.raises(Interrupted), storage.transaction():
            order(storage, "b")
            queue.enqueue("b")
            interrupting(monkeypatch, *where)
        queue.enqueue("c")
        kept.append("c")
    kept = kept if orders(path) else []
    assert orders(path) == ["a"] * len(kept)
    assert [entry.data for entry in queue.entries()] == kept


@pytest.mark.parametrize("around", ["_turn", "transaction"])
def test_a_ctrl_c_before_a_row_is_read(storage, queue, path, around):
    """A statement that an interrupt kept from being read keeps nothing from being committed later."""
    asked = []

    def broken_off():
        if around == "transaction":
            order(storage, "a")
        asked.append(storage._execute("INSERT INTO orders VALUES ('b'), ('c') RETURNING 1"))
        raise Interrupted

    block = storage._turn if around == "_turn" else storage.transaction()
    with pytest.raises(Interrupted), block:
        broken_off()
    with storage.transaction():
        order(storage, "d")
        with pytest.raises(Interrupted), storage.transaction():
            broken_off()
        queue.enqueue("d")
    assert orders(path) == ["d"]
    assert queue.counts() == Counts(ready=1)


def test_rows_that_the_application_leaves(storage, queue, path):
    """If a statement of its own is not read to its end, it is told that nothing was written."""
    with pytest.raises(NotWritten, match="statements in progress"), storage.transaction():
        queue.enqueue("a")
        unread = storage.connection.execute("INSERT INTO orders VALUES ('a'), ('b'), ('c') RETURNING 1")
    unread.close()
    assert orders(path) == []
    assert queue.counts() == Counts()


def test_asked_after_it_ended_the_transaction(storage, queue):
    """What is asked in a transaction that the application has ended is refused, and others go on."""
    with storage.transaction():
        storage.connection.execute("COMMIT")
        with pytest.raises(NotWritten, match="ended already"):
            queue.counts()
        storage.rollback_transaction()
        storage.begin_transaction()
    thread = threading.Thread(target=queue.enqueue, args=("a",), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert queue.counts() == Counts(ready=1)


def test_another_one_in_its_place(storage, queue, path):
    """What the application has begun in the transaction's place is not taken for it."""
    with pytest.raises(NotWritten, match="no such savepoint"), storage.transaction():
        order(storage, "a")
        storage.connection.execute("ROLLBACK")
        storage.connection.execute("BEGIN")
        order(storage, "b")
    assert orders(path) == []


def test_full_in_a_transaction(storage, queue, path):
    """A database that is full is refused in DuraQ's words, beside the application's statements as well."""
    (pages,) = storage._database.execute("PRAGMA page_count").fetchone()
    storage._database.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(NotEnqueued, match="full"), storage.transaction():
        order(storage, "a")
        queue.enqueue("x" * 100_000)
    assert orders(path) == []
    assert queue.counts() == Counts()


def test_rows_of_the_applications_own_kind(storage, queue):
    """What the application has its rows and texts made into is no matter to the queues."""
    with storage.transaction():
        storage.connection.row_factory = lambda cursor, row: {"columns": len(row)}
        assert storage.connection.execute("SELECT 1, 2").fetchone() == {"columns": 2}
        queue.enqueue("a")
        assert queue.dequeue().data == "a"
        storage.connection.text_factory = bytes
    assert queue.counts() == Counts(leased=1)
    queue.enqueue("b")
    assert queue.dequeue().data == "b"


def test_outside_of_a_transaction(storage):
    """The connection belongs to a transaction."""
    with pytest.raises(NoTransaction):
        _ = storage.connection


def test_the_only_way_in(storage):
    """What a storage shows of its database is the connection that is part of the caller's transaction."""
    shared = set(dir(MemoryStorage())) - {"after_fork_in_child"}
    own = {name for name in dir(storage) if not name.startswith("_")} - shared
    assert own == {"connection", "db_path", "durability", "after_fork_in_child"}


def test_in_a_task(storage, queue, path):
    """A task's transaction has no statements of the application's, and a thread's that it waits for has."""

    def both():
        with storage.transaction():
            order(storage, "a")
            queue.enqueue("b")

    async def program():
        with storage.transaction(), pytest.raises(InvalidOption, match=r"asyncio\.to_thread"):
            _ = storage.connection
        await asyncio.to_thread(both)

    asyncio.run(program())
    assert orders(path) == ["a"]
    assert queue.counts() == Counts(ready=1)


def test_two_threads(storage, queue, path):
    """While one thread's statements are under way, another one's call waits for their end."""
    joined, done = threading.Event(), threading.Event()

    def other():
        joined.wait()
        queue.enqueue("theirs")
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with storage.transaction():
        order(storage, "a")
        queue.enqueue("ours")
        joined.set()
        assert not done.wait(0.1)
    thread.join()
    assert [entry.data for entry in queue.entries()] == ["ours", "theirs"]


LOCKS = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
database.execute("INSERT INTO orders VALUES ('theirs')")
print("locked", flush=True)
sys.stdin.readline()
database.execute("COMMIT")
"""


def test_another_program_writes(storage, queue, path):
    """A program that holds the database's lock for long delays a call, and makes none fail."""
    command = [sys.executable, "-c", LOCKS, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        thread = threading.Thread(target=queue.enqueue, args=("a",))
        thread.start()
        # Longer than SQLite itself waits.
        thread.join(1.5)
        assert thread.is_alive()
        process.communicate("\n")
        thread.join()
    assert queue.counts() == Counts(ready=1)
    assert orders(path) == ["theirs"]


KILLED = """
import os, signal, sys
from duraq import Queue
from duraq.storage.sqlite import SQLiteStorage
storage = SQLiteStorage(sys.argv[1])
with storage.transaction():
    storage.connection.execute("INSERT INTO orders VALUES ('theirs')")
    Queue("jobs", storage).enqueue("theirs")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_in_a_transaction(storage, queue, path):
    """Of a process that dies in the middle of one, neither its rows nor its entries are there."""
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert done.returncode == -signal.SIGKILL
    queue.enqueue("ours")
    assert orders(path) == []
    assert [entry.data for entry in queue.entries()] == ["ours"]


def test_who_may_read_it(storage, path):
    """A new database is its owner's alone, whatever the umask is, and so is what lies beside it."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((path.parent / "shop.db-duraq").stat().st_mode) == 0o700


def test_full_syncs(storage):
    """Under "power" each change is synced by SQLite, and only leases are not."""
    queue = Queue("jobs", storage)
    queue.enqueue("a")
    assert storage._database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert storage._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    queue.dequeue()
    assert storage._database.execute("PRAGMA synchronous").fetchone() == (1,)
    queue.enqueue("b")
    assert storage._database.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_later_version(storage, path):
    """Tables of a version that is not known are refused, and left alone."""
    with storage.transaction():
        storage.connection.execute("UPDATE duraq_schema SET version = 99")
    with pytest.raises(UnsupportedVersion, match=r"99.*upgrade DuraQ"):
        SQLiteStorage(path)


def test_an_earlier_version(storage, path):
    """Of tables that are older than what is known it is not said that an upgrade would help."""
    with storage.transaction():
        storage.connection.execute("UPDATE duraq_schema SET version = 0")
    with pytest.raises(UnsupportedVersion, match="use the DuraQ that made them"):
        SQLiteStorage(path)


def test_no_database(tmp_path):
    """A file that is something else is refused, and is as it was."""
    (tmp_path / "letter.txt").write_text("Dear Sir,\n" * 1000)
    with pytest.raises(StorageDamaged, match="not a database"):
        SQLiteStorage(tmp_path / "letter.txt")
    assert (tmp_path / "letter.txt").read_text() == "Dear Sir,\n" * 1000


def test_a_directory(tmp_path):
    """A directory is no database, which is said in DuraQ's words."""
    with pytest.raises(NotAStorage, match="unable to open"):
        SQLiteStorage(tmp_path)


def test_under_another_name(storage, queue, path):
    """Whoever opens the database by a link to it sees that its workers live."""
    (path.parent / "another.db").symlink_to(path.name)
    queue.enqueue("a")
    entry = queue.dequeue()
    with SQLiteStorage(path.parent / "another.db") as other:
        assert Queue("jobs", other).dequeue() is None
    queue.mark_completed(entry)


def test_it_is_not_there(path):
    """One that is not to be made is not made."""
    with pytest.raises(NotAStorage):
        SQLiteStorage(path, create=False)
    assert not path.exists()


@pytest.mark.parametrize("options", [{"durability": "batched"}, {"db_path": ":memory:"}])
def test_what_it_cannot_be(path, options):
    """What SQLite cannot promise is refused before anything is made."""
    with pytest.raises(InvalidOption):
        SQLiteStorage(**{"db_path": path} | options)
    assert list(path.parent.iterdir()) == []
