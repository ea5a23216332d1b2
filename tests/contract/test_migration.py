"""A storage that is moved into another one is the same there, whatever kinds the two are of."""

import subprocess
import sys
import threading
from datetime import timedelta
from itertools import count, pairwise

import pytest
from conftest import DEEP, SMALL
from moved import fill, is_emptied, on_server, told

import duraq
from duraq import (
    CannotMigrate,
    Cause,
    DeadLetterQueue,
    FileStorage,
    FixedDelay,
    InvalidOption,
    NotAStorage,
    Queue,
    StorageBusy,
    StorageDamaged,
    migrate,
)
from duraq.migration import plan

SOON = timedelta(seconds=60)
AT_ONCE = timedelta(0)


@pytest.fixture
def source(tmp_path):
    """The URL of a storage in files with something of everything."""
    url = f"file:{tmp_path}/source"
    with duraq.open(url, durability="process") as storage:
        fill(storage)
    return url


def test_through_every_kind_and_back(source, tmp_path):
    """File, SQLite, LMDB, PostgreSQL and file again: all is equal after each move, and the source empty."""
    with duraq.open(source) as storage:
        before = told(storage)
    urls = [source, f"sqlite:{tmp_path}/b.db", f"lmdb:{tmp_path}/c", on_server(), source]
    for here, there in pairwise(urls):
        done = migrate(here, there)
        assert done.complete
        assert {name: each.entries for name, each in done.queues.items()} == {
            "empty": 0,
            "held": 2,
            "jobs": 16,
        }
        with duraq.open(here) as storage:
            assert is_emptied(storage)
            tokens = storage.head("jobs").tokens if not here.startswith("postgres") else 0  # by its clock
        with duraq.open(there) as storage:
            assert told(storage) == before
            assert storage.head("jobs").tokens >= tokens
    with duraq.open(source) as storage:
        assert [entry.id for entry in Queue("jobs", storage).dequeue(limit=100)] == before["jobs"]["order"]


def test_what_was_said_of_entries_holds(source, target):
    """In the target a key is known, a removed letter comes back, and no token is given again."""
    with duraq.open(source) as storage:
        tokens = storage.head("jobs").tokens
    migrate(source, target)
    with duraq.open(target) as storage:
        jobs, letters = Queue("jobs", storage), DeadLetterQueue("jobs", None, storage)
        assert jobs.enqueue("once", key="order-17") == "once"
        (act,) = [each for each in letters.acts() if each.verb == "remove"]
        assert letters.undo(act.id) == 1
        assert letters.retrieve("fails-1").attempts
        assert jobs.dequeue().token > tokens
    with duraq.open(source) as storage:
        # Whoever still feeds it is told as well.
        assert Queue("jobs", storage).enqueue("once", key="order-17") == "once"


def test_again_there_is_nothing_to_do(source, target):
    """Once it is moved, moving it again does nothing; what was enqueued since is carried, as the last."""
    migrate(source, target)
    with duraq.open(target) as storage:
        before = told(storage)
    assert migrate(source, target).queues == {}
    with duraq.open(target) as storage:
        assert told(storage) == before
    with duraq.open(source) as storage:
        Queue("jobs", storage).enqueue("later", id="later")
        Queue("new", storage).enqueue("new", id="new")
    assert {name: each.entries for name, each in migrate(source, target).queues.items()} == {
        "jobs": 17,
        "new": 1,
    }
    with duraq.open(target) as storage:
        assert storage.entries("jobs")[-1].id == "later"
        assert storage.paused("jobs") is None
        assert storage.paused("held") is not None
        assert [entry.data for entry in Queue("new", storage).dequeue(limit=9)] == ["new"]


def test_the_records_tell_where_an_entry_went(source, target, tmp_path):
    """The source's files say of each entry which storage it lies in now."""
    migrate(source, target)
    lines = "".join(path.read_text() for path in (tmp_path / "source/jobs/segments").glob("*.jsonl"))
    (line,) = [each for each in lines.splitlines() if '"remove"' in each and '"many-3"' in each]
    assert f'"to":"{target}"' in line


# -- what is refused ---------------------------------------------------------------------------------------


def test_a_queue_with_entries_of_its_own(source, target):
    """A target that has entries in such a queue is refused, and nothing written; merged, all are there."""
    with duraq.open(target) as storage:
        Queue("jobs", storage).enqueue("own", id="own")
    with duraq.open(source) as storage:
        before = told(storage)
    with pytest.raises(CannotMigrate, match=r"queue jobs: the target has 1 entries of its own.*with --merge"):
        migrate(source, target)
    with duraq.open(source) as storage:
        assert told(storage) == before
        assert storage.paused("jobs") is None
    assert migrate(source, target, merge=True).complete
    with duraq.open(target) as storage:
        assert [each.id for each in storage.entries("jobs")] == [
            "own",
            *(name for name, _, _ in before["jobs"]["entries"]),
        ]


def test_an_id_that_the_target_has(source, target):
    """An entry whose id another one has in the target stays in the source, and is named; all others go."""
    with duraq.open(target) as storage:
        Queue("jobs", storage).enqueue("another", id="many-3")
    done = migrate(source, target, merge=True)
    assert not done.complete
    assert done.queues["jobs"].stuck == {"many-3": "there is another entry of that id in the target"}
    with duraq.open(source) as storage:
        assert [each.id for each in storage.entries("jobs")] == ["many-3"]
    with duraq.open(target) as storage:
        assert storage.get("jobs", "many-3").payload == b'"another"'
        assert storage.counts("jobs").length + storage.counts("jobs").dead == 16
    assert not migrate(source, target).complete


def test_two_names_of_one_storage(tmp_path, source):
    """A storage is not moved to itself, whatever it is called, and nothing is changed by trying."""
    (tmp_path / "link").symlink_to(tmp_path / "source")
    (tmp_path / "there").mkdir()
    for other in (source, str(tmp_path / "source"), f"file:{tmp_path}/link"):
        with pytest.raises(InvalidOption, match="the same storage"):
            migrate(source, other)
    url = on_server()
    with duraq.open(url) as storage:
        fill(storage)
        before = told(storage)
    for _ in range(2):
        with pytest.raises(InvalidOption, match="the same storage"):
            migrate(url, url.replace("duraq@/", "duraq@:5432/").replace("&port=5432", ""))
    with duraq.open(url) as storage:
        assert told(storage) == before


def test_what_is_no_storage(tmp_path, target):
    """A source that is not there is named, and not made; nor is the target; and memory is no place for it."""
    for url in (f"file:{tmp_path}/none", f"sqlite:{tmp_path}/none.db", f"lmdb:{tmp_path}/none", on_server()):
        with pytest.raises(NotAStorage, match="there is no storage"):
            migrate(url, target)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidOption, match="memory: is over"):
        migrate("memory:", target)


def test_a_damaged_source(target, tmp_path):
    """A damaged source is left alone, with what to do about it; the target is not made."""
    url = f"file:{tmp_path}/source"
    with FileStorage(tmp_path / "source", sizes=SMALL, durability="process") as storage:
        # So many that the journal has forgotten the first of them.
        for number in range(900):
            Queue("jobs", storage).enqueue("x" * 90, id=f"many-{number}")
    first = min((tmp_path / "source/jobs/segments").glob("*.jsonl"))
    first.write_bytes(first.read_bytes().replace(b'"many-3"', b'"mony-3"', 1))
    with pytest.raises(StorageDamaged, match="duraq repair"):
        migrate(url, target)
    assert not (tmp_path / "target.db").exists()


def test_a_second_migration_before_the_first_is_over(source, target, tmp_path, monkeypatch):
    """What is on its way to one storage is not moved to another one, until that is finished."""
    stop_before(monkeypatch, 12)  # that is in the midst of the queue `held`
    with pytest.raises(Stopped):
        migrate(source, target)
    monkeypatch.undo()
    with pytest.raises(CannotMigrate, match=f"another migration, which is not over: .*{target}"):
        migrate(source, f"lmdb:{tmp_path}/other")
    planned = plan(source, f"lmdb:{tmp_path}/other")
    assert planned.refused("held").startswith("another migration is not over: migration ")
    assert plan(source, target).refused("held") is None
    assert migrate(source, target).complete
    assert migrate(target, f"lmdb:{tmp_path}/other").complete


class Stopped(BaseException):
    """Whoever moved it is gone."""


def stop_before(monkeypatch, number):
    """The commit of that number, of either storage, is not made."""
    from duraq.storage.transacting import TransactingStorage  # noqa: PLC0415

    commit = TransactingStorage.commit
    left = [number]

    def counted(self, changes, limits=None):
        left[0] -= 1
        if left[0] == 0:
            raise Stopped
        commit(self, changes, limits)

    monkeypatch.setattr(TransactingStorage, "commit", counted)
    return left


# -- leases ------------------------------------------------------------------------------------------------


def test_a_lease_is_waited_for(source, target):
    """An entry that somebody works is completed where it was leased; a failed one goes with its error."""
    with duraq.open(source) as storage:
        jobs = Queue("jobs", storage, retry_policy=FixedDelay(delay=timedelta(0)))
        one, other = jobs.dequeue(limit=2)
        seen = threading.Event()
        worker = threading.Thread(
            target=lambda: (seen.wait(60), jobs.mark_completed(one), jobs.mark_failed(other, "no"))
        )
        worker.start()
        done = migrate(source, target, wait=SOON, progress=lambda each: seen.set() if each.leased else None)
        worker.join()
    assert done.queues["jobs"].entries == 15
    with duraq.open(target) as storage:
        assert [each.id for each in storage.some("jobs", [one.id, other.id])] == [other.id]
        assert storage.get("jobs", other.id).history[-1].error.message == "no"


def test_a_lease_that_does_not_end(source, target):
    """A queue that is still worked when time is up stays as it was, who holds what is told, and others go."""
    with duraq.open(source) as storage:
        before = storage.head("held").pause, told(storage)["jobs"]["entries"]
        jobs = Queue("jobs", storage)
        held = jobs.dequeue()
        done = migrate(source, target, wait=AT_ONCE)
        assert not done.complete
        problem = done.queues["jobs"].problem
        assert isinstance(problem, StorageBusy)
        assert f"1 entries are still leased: {held.id} by " in str(problem)
        assert storage.paused("jobs") is None
        assert storage.counts("held").length == 0
        jobs.release(held)
    assert migrate(source, target).complete
    with duraq.open(target) as storage:
        assert storage.head("held").pause == before[0]
        assert len(told(storage)["jobs"]["entries"]) == len(before[1])


def test_a_paused_queue_that_is_worked_stays_paused(tmp_path, target):
    """A pause that somebody has made is there again, with who and why, when a queue could not be moved."""
    url = f"file:{tmp_path}/source"
    with duraq.open(url) as storage:
        jobs = Queue("jobs", storage)
        jobs.enqueue("a")
        jobs.dequeue()
        jobs.pause("till Monday", who="ann")
        before = storage.paused("jobs")
        migrate(url, target, wait=AT_ONCE)
        assert storage.paused("jobs") == before


def test_a_dead_worker_is_not_waited_for(source, target, tmp_path):
    """What a worker held that is gone is counted as an attempt that it has not survived, and goes."""
    code = "import duraq, os, sys; from duraq import Queue; s = duraq.open(sys.argv[1]);"
    code += "print(Queue('jobs', s).dequeue().id, flush=True); os._exit(1)"
    held = subprocess.run(
        [sys.executable, "-c", code, source], capture_output=True, text=True, check=False
    ).stdout
    assert migrate(source, target, wait=AT_ONCE).complete
    with duraq.open(target) as storage:
        entry = storage.get("jobs", held.strip())
        assert entry.history[-1].cause is Cause.WORKER_DIED
        assert entry.attempts == entry.history[-1].number


# -- what others do meanwhile ------------------------------------------------------------------------------


def test_two_runs_at_once(tmp_path, monkeypatch):
    """If another run does all of it at any moment of this one, it is as if there had been one."""
    from duraq.storage.transacting import TransactingStorage  # noqa: PLC0415

    commit = TransactingStorage.commit
    for number in count(3, 1 if DEEP else 2):
        source, target = f"file:{tmp_path}/{number}", f"sqlite:{tmp_path}/{number}.db"
        with FileStorage(tmp_path / str(number), durability="process", sizes=SMALL) as storage:
            fill(storage)
            before = told(storage)
        left = [number]

        def counted(self, changes, limits=None, left=left, pair=(source, target)):
            left[0] -= 1
            if left[0] == 0:
                assert migrate(*pair).complete
            commit(self, changes, limits)

        monkeypatch.setattr(TransactingStorage, "commit", counted)
        assert migrate(source, target).complete
        monkeypatch.undo()
        with duraq.open(target) as storage:
            assert told(storage) == before
        with duraq.open(source) as storage:
            assert is_emptied(storage)
        if left[0] > 0:
            break  # it has made fewer
    assert number > 15


def test_what_is_not_read_as_it_was_written(source, target, monkeypatch):
    """If the target does not hold what was sent, nothing is removed from the source."""
    from duraq.storage.sql import SQLRows  # noqa: PLC0415

    put = SQLRows.put

    def forgetful(self, queue, row):
        if row.id == "many-3" and row.payload is not None:
            row.payload = b'"other"'
        put(self, queue, row)

    monkeypatch.setattr(SQLRows, "put", forgetful)
    with pytest.raises(StorageDamaged, match="entry many-3 is not read as it was written"):
        migrate(source, target)
    with duraq.open(source) as storage:
        assert storage.counts("jobs").length + storage.counts("jobs").dead == 16


# -- only looking ------------------------------------------------------------------------------------------


def test_a_plan_changes_nothing(source, target, tmp_path):
    """A plan tells each queue's counts, and whether it is refused; source and target are as they were."""
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    planned = plan(source, target)
    assert planned.makes_target
    assert planned.queues["jobs"].counts.dead == 1
    assert planned.status("jobs") == "moves"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    with duraq.open(target) as storage:
        Queue("jobs", storage).enqueue("own")
    assert plan(source, target).status("jobs") == "refused"
    assert plan(source, target).refused("jobs") == "the target has 1 entries of its own"
    assert plan(source, target).status("jobs", merge=True) == "moves"
    migrate(source, target, merge=True)
    with duraq.open(source) as storage:
        Queue("jobs", storage).enqueue("later")
    planned = plan(source, target)
    assert planned.status("jobs") == "goes on"
    assert planned.queues["jobs"].counts.ready == 1
