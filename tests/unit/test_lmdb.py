"""What is LMDB's own: an environment that the application owns and writes to."""

import asyncio
import signal
import subprocess
import sys
import threading

import lmdb
import pytest

from duraq import (
    Counts,
    InvalidOption,
    LMDBStorage,
    NoTransaction,
    NotWritten,
    Queue,
    StorageBusy,
    StorageClosed,
    StorageReadOnly,
)

NEEDED = len(LMDBStorage.required_databases)


class Refused(Exception):
    """What leaves a transaction here."""


@pytest.fixture
def env(tmp_path):
    """The application's environment."""
    with lmdb.open(str(tmp_path / "env"), max_dbs=NEEDED + 1, map_size=1 << 22) as env:
        yield env


@pytest.fixture
def orders(env):
    """A database of its own in it."""
    return env.open_db(b"orders")


@pytest.fixture
def storage(env):
    """The queues in it."""
    with LMDBStorage(env) as storage:
        yield storage


@pytest.fixture
def queue(storage):
    """One of them."""
    return Queue("jobs", storage)


def test_one_transaction(env, orders, storage, queue):
    """The application's keys and the queue's entries are committed together, or not at all."""
    with storage.transaction():
        storage.txn.put(b"a", b"1", db=orders)
        queue.enqueue("a")
    with pytest.raises(Refused), storage.transaction():
        storage.txn.put(b"b", b"2", db=orders)
        queue.enqueue("b")
        raise Refused
    with env.begin(db=orders) as txn:
        assert [key for key, _ in txn.cursor()] == [b"a"]
    assert [entry.data for entry in queue.entries()] == ["a"]


def test_savepoints(env, orders, storage, queue):
    """A savepoint takes back the application's keys as well, and only those since."""
    with storage.transaction():
        storage.txn.put(b"outer", b"", db=orders)
        queue.enqueue("outer")
        with pytest.raises(Refused), storage.transaction():
            storage.txn.put(b"inner", b"", db=orders)
            queue.enqueue("inner")
            raise Refused
        with storage.transaction():
            storage.txn.put(b"kept", b"", db=orders)
            queue.enqueue("kept")
    with env.begin(db=orders) as txn:
        assert [key for key, _ in txn.cursor()] == [b"kept", b"outer"]
    assert [entry.data for entry in queue.entries()] == ["outer", "kept"]


def test_outside_of_a_transaction(storage):
    """The environment's transaction belongs to a with-block."""
    with pytest.raises(NoTransaction):
        _ = storage.txn


def test_in_a_task(storage, queue, env, orders):
    """A task's transaction has no statements of the application's, and a thread's that it waits for has."""

    def both():
        with storage.transaction():
            storage.txn.put(b"a", b"1", db=orders)
            queue.enqueue("b")

    async def program():
        with storage.transaction(), pytest.raises(InvalidOption, match=r"asyncio\.to_thread"):
            _ = storage.txn
        await asyncio.to_thread(both)

    asyncio.run(program())
    with env.begin(db=orders) as txn:
        assert txn.get(b"a") == b"1"
    assert queue.counts() == Counts(ready=1)


def test_the_environment_stays_open(env, orders, storage, queue):
    """Closing gives up the leases and leaves the environment to its owner."""
    queue.enqueue("a")
    queue.dequeue()
    storage.close()
    with env.begin(write=True) as txn:
        txn.put(b"a", b"1", db=orders)
    with LMDBStorage(env) as again:
        assert again.counts("jobs") == Counts(ready=1)


def test_the_owner_closed_it(env, storage, queue):
    """Whoever uses queues in an environment that was closed is told so."""
    queue.enqueue("a")
    env.close()
    with pytest.raises(StorageClosed, match="environment is closed"):
        queue.enqueue("b")


def test_it_is_full(env, storage, queue):
    """When the map is full nothing is written, and what ends entries makes room."""
    with pytest.raises(NotWritten, match="map_size"):
        for number in range(10_000):
            queue.enqueue("x" * 10_000, id=str(number))
    number = queue.counts().ready
    assert number > 10
    for _ in range(5):
        queue.mark_completed(queue.dequeue())
    assert queue.counts() == Counts(ready=number - 5)
    env.set_mapsize(1 << 23)
    queue.enqueue("y")
    assert queue.counts() == Counts(ready=number - 4)


LARGER = """
import sys
from duraq import LMDBStorage, Queue
with LMDBStorage.at(sys.argv[1], map_size=1 << 24) as storage:
    Queue("jobs", storage).enqueue_many(["x" * 500_000] * 15)
"""


def test_another_process_has_a_larger_map(tmp_path, env, storage, queue):
    """The map is not changed below those who read, for only the environment's owner knows of them."""
    queue.enqueue("a")
    with env.begin() as reading:
        subprocess.run([sys.executable, "-c", LARGER, tmp_path / "env"], check=True)
        with pytest.raises(NotWritten, match="set_mapsize"):
            queue.enqueue("b")
        assert reading.stat()["entries"] > 0
    env.set_mapsize(0)
    queue.enqueue("c")
    assert queue.counts() == Counts(ready=17)


def test_it_adopts_a_larger_map_of_its_own(tmp_path):
    """A storage that has the environment for itself takes the larger map over."""
    with LMDBStorage.at(tmp_path / "own", map_size=1 << 22) as storage:
        queue = Queue("jobs", storage)
        queue.enqueue("a")
        subprocess.run([sys.executable, "-c", LARGER, tmp_path / "own"], check=True)
        queue.enqueue("b")
        assert queue.counts() == Counts(ready=17)


READS_AND_IS_KILLED = """
import os, signal, sys
import lmdb
with lmdb.open(sys.argv[1], readonly=True) as env, env.begin():
    os.kill(os.getpid(), signal.SIGKILL)
"""
LOOKS = """
import sys
from duraq.inspector import Inspector
with Inspector.at(f"lmdb:{sys.argv[1]}") as inspector:
    print(inspector.queues())
"""
NOBODY = "(no active readers)\n"


def read_and_killed(env):
    """A process looks into the environment, and dies of it."""
    done = subprocess.run([sys.executable, "-c", READS_AND_IS_KILLED, env.path()], check=False)
    assert done.returncode == -signal.SIGKILL


def test_full_of_what_a_dead_reader_saw(env, orders):
    """What somebody read who was killed while he looked is used again before anybody is told it is full."""
    with LMDBStorage(env, durability="process") as storage:
        queue = Queue("jobs", storage)

        def churn(times):
            for _ in range(times):
                queue.enqueue("x" * 500_000)
                queue.mark_completed(queue.dequeue())

        churn(2)
        read_and_killed(env)
        churn(8)
        read_and_killed(env)
        with pytest.raises(NotWritten, match="begin it anew"):
            for _ in range(8):
                with storage.transaction():
                    storage.txn.put(b"a", b"1", db=orders)
                    queue.enqueue("x" * 500_000)
                queue.mark_completed(queue.dequeue())
        churn(2)
        assert queue.counts() == Counts()


def test_the_places_of_dead_readers_are_cleared(env, storage, queue, monkeypatch):
    """Who has died reading keeps no place: whoever opens a storage clears it, who works, and who looks."""
    queue.enqueue("a")
    read_and_killed(env)
    LMDBStorage(env).close()
    assert env.readers() == NOBODY
    read_and_killed(env)
    assert env.readers() != NOBODY
    monkeypatch.setattr(storage, "_clear_at", 0.0)
    queue.enqueue("b")
    assert env.readers() == NOBODY
    read_and_killed(env)
    subprocess.run([sys.executable, "-c", LOOKS, env.path()], check=True, stdout=subprocess.DEVNULL)
    assert env.readers() == NOBODY


def test_as_many_look_as_can(tmp_path):
    """Who finds no place to look from is told so, and what frees those of the dead."""
    with lmdb.open(str(tmp_path / "env"), max_dbs=NEEDED, max_readers=1) as env:
        LMDBStorage(env).close()
        with env.begin():
            command = [sys.executable, "-c", LOOKS, tmp_path / "env"]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "StorageBusy" in done.stderr
    assert "reader_check" in done.stderr


def test_full_of_the_applications(env, orders, storage, queue):
    """A transaction that the application has filled up is over, which is said; others go on."""
    with pytest.raises(NotWritten, match="BAD_TXN"), storage.transaction():
        with pytest.raises(lmdb.MapFullError):
            storage.txn.put(b"a", b"x" * (1 << 23), db=orders)
        with pytest.raises(NotWritten, match="BAD_TXN"):
            queue.counts()
    thread = threading.Thread(target=queue.enqueue, args=("a",), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert queue.counts() == Counts(ready=1)


def test_no_room_for_its_databases(tmp_path):
    """An environment without room for the databases is refused, with how many they are."""
    with (
        lmdb.open(str(tmp_path / "env"), max_dbs=1) as env,
        pytest.raises(InvalidOption, match=f"{NEEDED} more"),
    ):
        LMDBStorage(env)


@pytest.mark.parametrize("flags", [{"sync": False}, {"metasync": False}])
def test_one_that_does_not_sync(tmp_path, flags):
    """Nothing is promised of an environment that does not sync, unless that is wanted."""
    with lmdb.open(str(tmp_path / "env"), max_dbs=NEEDED, **flags) as env:
        with pytest.raises(InvalidOption, match="does not sync"):
            LMDBStorage(env)
        with LMDBStorage(env, durability="process") as storage:
            Queue("jobs", storage).enqueue(1)


def test_read_only(env, tmp_path):
    """One that was opened for reading only is refused."""
    env.close()
    with (
        lmdb.open(str(tmp_path / "env"), max_dbs=NEEDED, readonly=True) as reading,
        pytest.raises(StorageReadOnly),
    ):
        LMDBStorage(reading)


def test_twice_in_a_process(env, storage, tmp_path):
    """An environment that this process has open is not opened once more, but shared."""
    with pytest.raises(StorageBusy, match="share it"):
        LMDBStorage.at(tmp_path / "env")
    with LMDBStorage(env) as other:
        Queue("jobs", other).enqueue(1)
    assert storage.counts("jobs") == Counts(ready=1)


def test_closed_after_an_undoing_that_was_broken_off(env, storage, monkeypatch):
    """What a Ctrl-C has left to be undone is undone by closing: the environment is its owner's again."""

    def interrupted():
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "_discard", interrupted)
    with pytest.raises(KeyboardInterrupt), storage._turn:
        raise MemoryError
    storage.close()
    with env.begin(write=True):
        pass


OPENED_MEANWHILE = """
import sys, threading
import lmdb
from duraq import LMDBStorage

env = lmdb.open(sys.argv[1], max_dbs=len(LMDBStorage.required_databases))
storage = LMDBStorage(env)
other = threading.Thread(target=lambda: LMDBStorage(env).close())
with storage._turn:
    other.start()
    other.join(0.2)
    print("in line" if other.is_alive() else "not waited", flush=True)
other.join()
print("opened", flush=True)
"""


def test_opened_while_somebody_writes(tmp_path):
    """Whoever opens a second storage while another thread is in a turn waits for it, and holds up none."""
    command = [sys.executable, "-c", OPENED_MEANWHILE, str(tmp_path / "shared")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.split("\n") == ["in line", "opened", ""]


def test_one_of_its_own(tmp_path):
    """A storage that has opened its environment closes it."""
    for number in range(2):
        with LMDBStorage.at(tmp_path / "own") as storage:
            assert storage.counts("jobs") == Counts(ready=number)
            Queue("jobs", storage).enqueue(number)
