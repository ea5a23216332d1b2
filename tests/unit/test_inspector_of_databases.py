"""Looking at a storage in a database: as in files, at one moment, in nobody's way, and making nothing."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

import duraq
from duraq import (
    EntryNotFound,
    EntryStatus,
    InvalidOption,
    MemoryStorage,
    NotAStorage,
    Queue,
    QueueNotFound,
    StorageBusy,
    StorageDamaged,
    StorageError,
    UnsupportedVersion,
)
from duraq.errors import StorageClosed
from duraq.failures import dead_by, gather
from duraq.health import StorageHealthCheck
from duraq.inspector import Inspector
from duraq.journal.reading import ReaderFileSystem

SECOND = timedelta(seconds=1)
STATES = (None, EntryStatus.READY, EntryStatus.SCHEDULED, EntryStatus.LEASED, EntryStatus.DEAD)
KINDS = ("sqlite", "lmdb", "postgres")
every_kind = pytest.mark.parametrize("kind", KINDS)
# In one process an environment of LMDB is open once.
shared_kind = pytest.mark.parametrize("kind", ["sqlite", "postgres"])


@pytest.fixture
def url(kind, url_of):
    return url_of(kind)


def ids(entries):
    return [entry.id for entry in entries]


def filled(storage, seed):
    """A queue of entries that become ready, expire and are dead, at random; the same for a seed."""
    rng = random.Random(seed)
    queue = Queue("jobs", storage)
    for number in range(40):
        delay, ttl = rng.choice([None, rng.randint(1, 10)]), rng.choice([None, None, rng.randint(1, 12)])
        queue.enqueue(
            {"n": number},
            id=f"e{number}",
            priority=rng.randint(-2, 2),
            delay=None if delay is None else delay * SECOND,
            ttl=None if ttl is None else ttl * SECOND,
        )
    for entry in storage.claim("jobs", 6, lease_for=60_000_000, detached=True)[::2]:
        queue.mark_failed(queue.get(entry.id), dead=True)
    return queue


@every_kind
def test_time_passes(kind, url, clock):
    """What is due is ready and what is over is gone, in order, though nobody has written that down."""
    with duraq.open(url, clock=clock) as storage:
        filled(storage, 7)
    memory = MemoryStorage(clock=clock)
    expected = filled(memory, 7)
    with Inspector.at(url, clock=clock) as inspector:
        for _ in range(13 if kind == "sqlite" else 4):
            inspector.refresh()
            for state in STATES:
                found = inspector.entries("jobs", state)
                assert ids(found) == ids(expected.entries(state)), state
                assert all(view.status == expected.get(view.id).status for view in found)
            assert inspector.counts("jobs") == memory.counts("jobs")
            assert inspector.metrics("jobs").oldest_ready == memory.metrics("jobs").oldest_ready
            assert (
                inspector.entries("jobs", EntryStatus.READY, limit=2, offset=1)
                == (inspector.entries("jobs", EntryStatus.READY)[1:3])
            )
            clock.advance(SECOND if kind == "sqlite" else 3 * SECOND)
    memory.close()


@shared_kind
def test_one_moment(kind, url):
    """What is committed meanwhile is seen after a refresh; what is not committed is not, and nobody waits."""
    with duraq.open(url) as storage, duraq.open(url) as other:
        queue = Queue("jobs", storage)
        queue.enqueue(1, id="one")
        with Inspector.at(url) as inspector:
            queue.enqueue(2, id="two")
            assert ids(inspector.entries("jobs")) == ["one"]
            inspector.refresh()
            assert ids(inspector.entries("jobs")) == ["one", "two"]
            with other.transaction():
                Queue("jobs", other).enqueue(3, id="three")
                assert other.connection  # from here on nobody else writes
                inspector.refresh()
                assert ids(inspector.entries("jobs")) == ["one", "two"]
                assert inspector.overview("jobs").counts.ready == 2


@shared_kind
def test_who_works(kind, url):
    """Who holds what, and whether that one lives, is told as the storage itself would."""
    with duraq.open(url) as storage:
        queue = Queue("jobs", storage)
        queue.enqueue_many([1, 2])
        held = queue.dequeue()
        (detached,) = storage.claim("jobs", lease_for=60_000_000, detached=True)
        with Inspector.at(url) as inspector:
            mine, nobodys = inspector.leases("jobs")[::-1]
            assert (mine.id, mine.alive, mine.late, mine.pid) == (held.id, True, False, os.getpid())
            assert (nobodys.id, nobodys.alive, nobodys.worker) == (detached.id, None, "")
            (worker,) = inspector.workers()
            assert (worker.id, worker.alive, dict(worker.holds)) == (mine.worker, True, {"jobs": 1})
            assert inspector.metrics("jobs").workers == 1
            assert inspector.is_alive("4711-0a0a0a0a") is False
            assert inspector.is_alive("no worker at all") is False


def test_who_works_may_be_denied(url_of, tmp_path, monkeypatch):
    """Who may read the database and not what lies beside it is not told that a worker is dead."""
    url = url_of("sqlite")
    with duraq.open(url) as storage:
        queue = Queue("jobs", storage)
        queue.enqueue(1)
        queue.dequeue()
        opened = ReaderFileSystem.open_root

        def denied(self, path, **options):
            if path.endswith("-duraq"):
                raise PermissionError(13, "not yours")
            return opened(self, path, **options)

        monkeypatch.setattr(ReaderFileSystem, "open_root", denied)
        with Inspector.at(url) as inspector:
            (lease,) = inspector.leases()
            assert (lease.alive, lease.late) == (None, False)
            assert inspector.overview("jobs").waiting == 0


def linked(url, tmp_path):
    """Another name of the database, in a directory of its own."""
    kind, _, path = url.partition(":")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "current").symlink_to(path)
    return f"{kind}:{tmp_path}/links/current"


@pytest.mark.parametrize("kind", ["sqlite", "lmdb"])
def test_who_waits(kind, url, tmp_path):
    """Of a database file those who wait are counted, by whatever name it is opened."""
    with duraq.open(url) as storage:
        Queue("jobs", storage).enqueue(1)
    beside = next(tmp_path.glob("*-duraq")) / "queues" / "jobs" / "waiters"
    beside.mkdir(parents=True, exist_ok=True)
    os.mkfifo(beside / f"00000000000000000001-{os.getpid()}-1.fifo")
    for name in (url, linked(url, tmp_path)):
        with Inspector.at(name) as inspector:
            assert inspector.overview("jobs").waiting == 1


def test_by_a_link(url_of, tmp_path):
    """A database behind a link is shown as it is, with its workers; so is another one it leads to later."""
    url = url_of("sqlite")
    link = linked(url, tmp_path)
    with duraq.open(url) as storage, Inspector.at(link) as inspector:
        Queue("jobs", storage).enqueue(1)
        held = Queue("jobs", storage).dequeue()
        inspector.refresh()
        (worker,) = inspector.workers()
        assert (worker.id, worker.alive) == (held.worker, True)
        assert inspector.path == f"{tmp_path}/links/current"
        another = tmp_path / "another.db"
        duraq.open(f"sqlite:{another}").close()
        (tmp_path / "links" / "current").unlink()
        (tmp_path / "links" / "current").symlink_to(another)
        inspector.refresh()
        assert (inspector.queues(), inspector.workers()) == ([], [])


def test_the_room_behind_a_link(url_of, tmp_path, monkeypatch):
    """The room that a database has is that of the directory it is in, by whatever name it is opened."""
    url = url_of("sqlite")
    duraq.open(url).close()
    opened, looked_into = ReaderFileSystem.open_root, []
    monkeypatch.setattr(
        ReaderFileSystem, "open_root", lambda self, path: looked_into.append(path) or opened(self, path)
    )
    with Inspector.at(linked(url, tmp_path)) as inspector:
        found = StorageHealthCheck(inspector).check()
        assert (found.component, found.details["path"]) == ("storage", inspector.path)
        assert StorageHealthCheck(inspector).check_each() == []
    assert looked_into[-1] == str(tmp_path)


def test_by_a_link_without_leave_to_write(url_of, tmp_path, monkeypatch):
    """What was committed last is seen by those as well who may only read, and open it by a link."""
    url = url_of("sqlite")
    link = linked(url, tmp_path)
    with duraq.open(url) as storage:
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
        Queue("jobs", storage).enqueue(1, id="one")
        with Inspector.at(link) as inspector:
            assert ids(inspector.entries("jobs")) == ["one"]


@every_kind
def test_failures(kind, url):
    """What failed is told by the entries that are still there, and how many failed in all by the counters."""
    with duraq.open(url) as storage:
        queue = Queue("jobs", storage, retry_policy=duraq.FixedDelay(max_attempts=2, delay=timedelta(0)))
        queue.enqueue_many(["twice", "once", "well"])
        for error in ("no 1", "no 2"):
            queue.mark_failed(queue.dequeue(), error=ValueError(error))
        queue.mark_failed(queue.dequeue(), error=OSError("gone"))
        while (entry := queue.dequeue()) is not None:
            queue.mark_completed(entry)
    with Inspector.at(url) as inspector:
        found = gather(inspector, timedelta(hours=1))
        assert found.counted == 3
        by_error = {group.error.type: (group.count, group.dead, group.is_new) for group in found.groups}
        assert by_error == {"ValueError": (2, 2, False)}
        (died,) = dead_by(inspector)
        assert (died.count, died.error.type, dict(died.queues)) == (1, "ValueError", {"jobs": 1})


@every_kind
def test_entries_by_name(kind, url):
    """An entry is found by its id and by a part of it; what is over is not there, and that is said."""
    with duraq.open(url) as storage:
        queue = Queue("jobs", storage)
        made = queue.enqueue({"a": 1}, headers={"to": "ann"}, key="k")
        queue.enqueue(2, id="done", priority=1)
        queue.mark_completed(queue.dequeue())
    with Inspector.at(url) as inspector:
        for name in (made, made[:-2], f"..{made[-8:]}"):
            view = inspector.find(name)
            assert (view.id, view.payload, view.headers, view.key) == (made, b'{"a":1}', {"to": "ann"}, "k")
        with pytest.raises(EntryNotFound, match="keeps nothing"):
            inspector.find("done")
        with pytest.raises(QueueNotFound):
            inspector.entries("nosuch")
        assert inspector.life(made) == []


@every_kind
def test_what_only_files_have(kind, url):
    """Records, and the marks of files, are asked for in vain, and that is said."""
    duraq.open(url).close()
    with Inspector.at(url) as inspector:
        for ask in (inspector.records, lambda: next(inspector.follow()), inspector.pulse, inspector.changed):
            with pytest.raises(InvalidOption, match="keeps no records"):
                ask()
        assert inspector.queues() == []
    with pytest.raises(StorageClosed):
        inspector.queues()


@pytest.mark.parametrize("kind", ["sqlite", "lmdb"])
def test_nothing_is_made(kind, url, tmp_path):
    """A look at what is not there makes nothing, and one at what is there leaves nothing beside it."""
    with pytest.raises(NotAStorage):
        Inspector.at(url)
    assert list(tmp_path.iterdir()) == []
    with duraq.open(url) as storage:
        Queue("jobs", storage).enqueue(1)
    before = {path: path.stat().st_size for path in tmp_path.rglob("*")}
    with Inspector.at(url) as inspector:
        assert ids(inspector.entries("jobs"))
    assert {path: path.stat().st_size for path in tmp_path.rglob("*")} == before


def test_of_a_server_nothing_is_made(url_of):
    """A look at a database without queues makes no table."""
    url = url_of("postgres")
    for _ in range(2):
        with pytest.raises(NotAStorage, match="no queues of DuraQ"):
            Inspector.at(url)


def test_a_database_of_somebody_else(tmp_path):
    """A database that has no queues is said to be no storage, and stays as it is."""
    path = tmp_path / "app.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(NotAStorage, match="no queues of DuraQ"):
        Inspector.at(f"sqlite:{path}")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (before, [path])


def test_what_is_no_database(tmp_path):
    """Neither a file nor a directory passes for a database; a version that is newer is not read."""
    (tmp_path / "text").write_text("no database, but quite long enough to be read as the header of one" * 30)
    with pytest.raises(StorageDamaged, match="no SQLite database"):
        Inspector.at(f"sqlite:{tmp_path}/text")
    for url in (f"sqlite:{tmp_path}", f"lmdb:{tmp_path}"):
        with pytest.raises(NotAStorage):
            Inspector.at(url)
    (tmp_path / "data.mdb").write_bytes(b"x" * 8192)
    with pytest.raises(StorageError):
        Inspector.at(f"lmdb:{tmp_path}")
    with pytest.raises(InvalidOption):
        Inspector.at("memory:")
    duraq.open(f"sqlite:{tmp_path}/q.db").close()
    with sqlite3.connect(tmp_path / "q.db") as database:
        database.execute("UPDATE duraq_schema SET version = 9")
    database.close()
    with pytest.raises(UnsupportedVersion, match="version 9"):
        Inspector.at(f"sqlite:{tmp_path}/q.db")


def test_without_leave_to_write(tmp_path, monkeypatch):
    """A database in a directory that may not be written to can be looked at, and nothing is left there."""
    home = tmp_path / "home"
    home.mkdir()
    with duraq.open(f"sqlite:{home}/q.db") as storage:
        Queue("jobs", storage).enqueue(1, id="one")
    modes = {path: path.stat().st_mode for path in (home, home / "q.db")}
    for path in modes:
        path.chmod(path.stat().st_mode & ~0o222)
    names = sorted(path.name for path in home.iterdir())
    # Whoever is root may write all the same.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK or os.fspath(path) not in known)
    known = set(map(str, modes))
    try:
        with Inspector.at(f"sqlite:{home}/q.db") as inspector:
            assert ids(inspector.entries("jobs")) == ["one"]
        assert sorted(path.name for path in home.iterdir()) == names
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def test_written_while_it_is_read_without_a_lock(url_of, monkeypatch):
    """Who may not write reads nothing that somebody has written over, and is told to look again."""
    url = url_of("sqlite")
    with duraq.open(url) as storage:
        Queue("jobs", storage).enqueue_many(["x" * 1000] * 500)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with Inspector.at(url) as inspector:
        found = inspector.each_entry("jobs")
        next(found)
        with duraq.open(url) as storage:
            assert len(list(found)) == 499  # so far the file is as it was
            Queue("jobs", storage).enqueue_many(["y" * 1000] * 500)
            found = inspector.each_entry("jobs")
            next(found)
        for ask in (lambda: list(found), inspector.queues):
            with pytest.raises(StorageBusy, match="look again"):
                ask()
        inspector.refresh()
        assert inspector.counts("jobs").ready == 1000


PUTS = """
import sys
import duraq
with duraq.open(sys.argv[1]) as storage:
    duraq.Queue("jobs", storage).enqueue("new")
"""


def test_opened_while_it_is_read_without_a_lock(url_of, tmp_path):
    """Of an environment without a file of locks nothing is read once somebody has opened it."""
    url = url_of("lmdb")
    with duraq.open(url) as storage:
        Queue("jobs", storage).enqueue_many(range(5))
    (tmp_path / "env" / "lock.mdb").unlink()
    with Inspector.at(url) as inspector:
        found = inspector.each_entry("jobs")
        next(found)
        assert inspector.counts("jobs").ready == 5
        subprocess.run([sys.executable, "-c", PUTS, url], check=True)
        for ask in (lambda: next(found), inspector.queues):
            with pytest.raises(StorageBusy, match="look again"):
                ask()
        inspector.refresh()
        assert inspector.counts("jobs").ready == 6


def test_among_writers(tmp_path):
    """A look while others write, and while the last of them closes the database, is of one moment each."""
    url = f"sqlite:{tmp_path}/q.db"
    duraq.open(url, durability="process").close()
    done = threading.Event()

    def write():
        for start in range(0, 40, 4):
            with duraq.open(url, durability="process") as storage, storage.transaction():
                for number in range(start, start + 4):
                    Queue("jobs", storage).enqueue(number)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not done.is_set() or len(seen) < 3:
        with Inspector.at(url) as inspector:
            if inspector.queues():
                found = [int(view.payload) for view in inspector.entries("jobs")]
                assert found == list(range(len(found)))
                seen.append(len(found))
    writer.join()
    assert all(count % 4 == 0 for count in seen)
    assert seen == sorted(seen)
