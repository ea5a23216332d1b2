"""migrate on the command line."""

from __future__ import annotations

import json
import shlex
import signal
import sqlite3

import pytest
from moved import Stopped, before_commit, fill, removes, stop

from duraq import FileStorage, Queue
from duraq import migrate as move
from duraq import open as open_storage
from duraq.cli import migrating
from duraq.cli.failing import Code
from duraq.migration import Migrated
from duraq.storage.registry import taken_apart


@pytest.fixture
def source(root):
    """A storage with something of everything; nobody has it open."""
    with FileStorage(root, durability="process") as storage:
        fill(storage)
    return str(root)


@pytest.fixture
def target(tmp_path):
    """The URL of a database that is not there yet."""
    return f"sqlite:{tmp_path}/target.db"


def test_moving(duraq, source, target):
    """Each queue is told with its entries, bytes and checksum; then what has become of all of it."""
    done = duraq("migrate", source, target)
    assert done.exit_code == Code.DONE
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["queue", "entries", "bytes", "checksum", "status"]
    assert [(row[0], row[1], row[4]) for row in rows] == [
        ("empty", "0", "moved"),
        ("held", "2", "moved"),
        ("jobs", "16", "moved"),
    ]
    assert f"file:{source}: all of it is in {target}" in done.stderr
    with open_storage(target) as storage:
        assert storage.counts("jobs").dead == 1
    again = duraq.json("migrate", source, target)
    assert again == {"schema": "duraq.migrate/1", "rows": []}


def test_a_dry_run(duraq, source, target, tmp_path):
    """A dry run tells what would be moved, and what would be made, and changes and makes nothing."""
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = duraq("--json", "migrate", "--dry-run", source, target)
    assert done.exit_code == Code.DONE
    rows = {row["queue"]: row for row in json.loads(done.stdout)["rows"]}
    assert (rows["jobs"]["ready"], rows["jobs"]["scheduled"], rows["jobs"]["dead"]) == (14, 1, 1)
    assert rows["jobs"]["bytes"] > 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    said = duraq("migrate", "-n", source, target).stderr
    assert f"would move file:{source} to {target}, which would be made" in said


def test_what_the_target_has_already(duraq, source, target):
    """A target with entries of its own is a conflict, in a dry run too, and --merge is the way out."""
    with open_storage(target) as storage:
        Queue("jobs", storage).enqueue("own", id="many-3")
    for more in ((), ("-n",)):
        refused = duraq("migrate", *more, source, target)
        assert refused.exit_code == Code.CONFLICT
        assert "merge" in refused.stderr
    done = duraq("migrate", "--merge", source, target)
    assert done.exit_code == Code.PARTLY
    assert "queue jobs: entry many-3 stays in the source: there is another entry of that id" in done.stderr


def test_what_is_not_there(duraq, source, target, tmp_path):
    """What is not there, is no URL, is the same, or is gone with the process, is named; nothing is made."""
    missing = duraq("migrate", str(tmp_path / "none"), target)
    assert missing.exit_code == Code.NOT_FOUND
    assert f"there is no storage: file:{tmp_path}/none" in missing.stderr
    assert "named by" not in missing.stderr
    for here, there, said in (
        ("redis:x", target, "is no storage's URL"),
        (source, "memory:", "memory: is over"),
        (source, source, "the same storage"),
    ):
        refused = duraq("migrate", here, there)
        assert refused.exit_code == Code.USAGE
        assert said in refused.stderr
    assert not (tmp_path / "target.db").exists()
    assert not (tmp_path / "none").exists()


def test_an_application_without_queues(duraq, source, tmp_path):
    """A database that has no queues is no storage to move from, and one to move to."""
    with sqlite3.connect(tmp_path / "app.db") as database:
        database.execute("CREATE TABLE orders (id)")
    url = f"sqlite:{tmp_path}/app.db"
    assert duraq("migrate", url, source).exit_code == Code.NOT_FOUND
    assert "which would be made" in duraq("migrate", "-n", source, url).stderr
    assert [name for (name,) in database.execute("SELECT name FROM sqlite_master")] == ["orders"]
    assert duraq("migrate", source, url).exit_code == Code.DONE


def test_what_is_in_the_way(duraq, source, tmp_path):
    """A file where a directory would be made, or the other way round, is named, in a dry run too."""
    (tmp_path / "file").write_text("mine")
    for url in (f"lmdb:{tmp_path}/file", f"file:{tmp_path}/file", f"sqlite:{tmp_path}"):
        for more in ((), ("-n",)):
            refused = duraq("migrate", *more, source, url)
            assert refused.exit_code == Code.NOT_FOUND
            assert f"there can be no storage: {url} is a" in refused.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_only_late_entries(duraq, source, target, monkeypatch):
    """If nothing had to be moved, and something came too late, it is said, and how to go on."""
    monkeypatch.setattr(migrating, "move", lambda here, there, **_: Migrated(here, there, {}, 1))
    done = duraq("migrate", source, target)
    assert done.exit_code == Code.PARTLY
    assert "1 entries were enqueued in the source since; somebody still feeds it" in done.stderr


def test_what_to_call_again(duraq, tmp_path, target, monkeypatch):
    """The command to go on names the same storage, whatever characters are in its path."""
    path = tmp_path / "old%20 queues"
    FileStorage(path).close()
    again = []
    monkeypatch.setattr(migrating, "_show", lambda _, __, command: again.append(command) or Code.DONE)
    duraq("migrate", str(path), target)
    (command,) = again
    _, _, here, there = shlex.split(command)
    assert taken_apart(here) == ("file", str(path))
    assert there == target


def test_a_key_in_both(duraq, source, target):
    """What was ended in the source, for the target had its key, is told."""
    duraq("migrate", source, target)
    for url in (source, target):
        with open_storage(url) as storage:
            Queue("jobs", storage).enqueue("work", id=f"k-{url[0]}", key="k")
    done = duraq("migrate", source, target)
    assert done.exit_code == Code.DONE
    assert "queue jobs: 1 entries were ended in the source, for each was enqueued in the" in done.stderr
    assert done.stderr.count("under the same key: k-/") == 1


def test_giving_up(duraq, source, target, monkeypatch):
    """A migration that is given up in the middle is told by queue; without one it is a conflict."""
    refused = duraq("migrate", "--give-up", source, target)
    assert refused.exit_code == Code.CONFLICT
    assert duraq("migrate", "--give-up", "--merge", source, target).exit_code == Code.USAGE
    with monkeypatch.context() as patched:
        before_commit(patched, removes("jobs"), stop)
        with pytest.raises(Stopped):
            move(source, target)
    tried = duraq("--root", target, "resume", "jobs")
    assert tried.exit_code == Code.CONFLICT
    assert "give that up with `duraq migrate --give-up`" in tried.stderr
    done = duraq("migrate", "--give-up", source, target)
    assert done.exit_code == Code.DONE
    assert [line.split("\t") for line in done.stdout.splitlines()] == [
        ["queue", "arrived", "left", "status"],
        ["jobs", "16", "0", "given up"],
    ]
    for url in (source, target):
        with open_storage(url) as storage:
            assert storage.paused("jobs") is None


def test_a_queue_that_is_worked(duraq, source, target):
    """A queue whose leases do not end in time is told, with who holds what: `busy`, or `partly` done."""
    with FileStorage(source) as storage:
        held = Queue("jobs", storage).dequeue()
        done = duraq("migrate", "--wait", "0", source, target)
        assert done.exit_code == Code.PARTLY
        assert f"queue jobs: 1 entries are still leased: {held.id} by " in done.stderr
        assert duraq("migrate", "--wait", "0", source, target).exit_code == Code.BUSY
    assert duraq("migrate", source, target).exit_code == Code.DONE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_while_it_waits(duraq, source, target, number):
    """Whoever stops it is told how to go on; a queue of which nothing has gone is worked again."""
    with FileStorage(source) as storage:
        jobs = Queue("jobs", storage)
        jobs.dequeue()
        process = duraq.start("migrate", source, target)
        assert b"jobs: waiting for the end of 1 leases" in process.stderr.readline()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == (Code.TERMINATED if number == signal.SIGTERM else Code.INTERRUPTED)
        assert f"to go on: duraq migrate file:{source} {target}" in said.decode()
        assert jobs.dequeue() is not None


def test_at_a_terminal(duraq, source, target):
    """At a terminal there is a bar while it waits, and it is gone in the end."""
    with FileStorage(source) as storage:
        Queue("jobs", storage).dequeue()
        code, screen = duraq.at_terminal("migrate", "--wait", "100ms", source, target)
    assert code == Code.PARTLY
    assert "\r[........................] jobs: waiting for the end of 1 leases\x1b[K" in screen
    assert screen.index("\r\x1b[K") < screen.index("QUEUE")


def test_a_password_is_not_told(duraq, source):
    """The password in a server's URL stands in no message."""
    url = "postgresql://ann:secret-4711@127.0.0.1:1/none?connect_timeout=1"
    for pair in ((source, url), (url, source)):
        done = duraq("migrate", *pair)
        assert done.exit_code == Code.UNEXPECTED
        assert "connection failed" in done.stderr
        assert "4711" not in done.stderr


def test_pausing_several_of_which_one_is_moved(duraq, source, target, monkeypatch):
    """A queue that is on its way refuses to be paused and resumed, and keeps no other one from it."""
    with open_storage(source) as storage:
        Queue("other", storage).enqueue("x")
    with monkeypatch.context() as patched:
        before_commit(patched, removes("jobs"), stop)
        with pytest.raises(Stopped):
            move(source, target)
    for verb, done in (("pause", "paused"), ("resume", "resumed")):
        tried = duraq("--root", source, verb, "jobs", "other")
        assert tried.exit_code == Code.CONFLICT
        assert f"other is {done}" in tried.stderr
        assert "queue jobs: migration" in tried.stderr


def test_giving_up_one_storage(duraq, source, target, monkeypatch):
    """With one storage only what is on its way from it is worked there; else there are two to name."""
    assert "where to?" in duraq("migrate", source).stderr
    with monkeypatch.context() as patched:
        before_commit(patched, removes("jobs"), stop)
        with pytest.raises(Stopped):
            move(source, target)
    done = duraq("migrate", "--give-up", source)
    assert done.exit_code == Code.DONE
    assert "jobs\t0\t16\tgiven up" in done.stdout
