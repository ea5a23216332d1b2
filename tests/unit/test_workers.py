"""What workers say of themselves, read by somebody who trusts none of it."""

from __future__ import annotations

import os

import orjson
import pytest

from duraq import FileStorage, Queue
from duraq.inspector import Inspector

HOSTILE = [
    b"",
    b"[]",
    b"not json",
    b"\xff\xfe",
    b'{"argv":7,"host":[],"unit":{},"opened_at":1,"start_time":"x","boot_id":null}',
    b'{"argv":[1,null,{}],"opened_at":"2026-01-01","start_time":-1}',
    b'{"opened_at":"9999-99-99T99:99:99.999999Z","start_time":1e400}',
    b"[" * 70_000,
]


@pytest.fixture
def storage(tmp_path):
    with FileStorage(tmp_path / "storage", durability="process") as storage:
        yield storage


@pytest.fixture
def leases(storage, tmp_path):
    Queue("jobs", storage).enqueue(1)
    return tmp_path / "storage" / "leases"


def workers(storage):
    with Inspector(storage.path) as inspector:
        return inspector.workers()


def test_a_living_worker(storage):
    """A worker that holds something is seen with its process, what it holds and how it was called."""
    assert workers(storage) == []
    for name in ("jobs", "mail"):
        queue = Queue(name, storage)
        queue.enqueue_many([1, 2])
        queue.dequeue()
    queue.dequeue()
    (found,) = workers(storage)
    assert (found.pid, found.alive, found.holds) == (os.getpid(), True, {"jobs": 1, "mail": 2})
    assert found.opened_at is not None
    assert found.argv
    assert found.start_time


def test_one_that_left_no_file(storage, leases):
    """A worker whose files are gone is dead, and what it held is told."""
    Queue("jobs", storage).dequeue()
    for file in leases.iterdir():
        file.unlink()
    (found,) = workers(storage)
    assert (found.alive, found.holds, found.argv, found.opened_at) == (False, {"jobs": 1}, (), None)


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_files(storage, leases, content):
    """Whatever stands in a worker's file, it is seen with what of that makes sense."""
    (leases / "4711-0123abcd.json").write_bytes(content)
    (found,) = workers(storage)
    assert (found.id, found.pid, found.alive) == ("4711-0123abcd", 4711, False)
    assert (found.argv, found.host, found.unit, found.opened_at, found.start_time) == (
        (),
        "",
        None,
        None,
        None,
    )


def test_other_files(storage, leases):
    """What has no worker's name is no worker; what is no file of its own says nothing."""
    (leases / "notes.json").write_text("{}")
    (leases / "1-0123abcd.json").mkdir()
    os.mkfifo(leases / "2-0123abcd.json")
    (leases / "3-0123abcd.json").symlink_to("/etc/hostname")
    assert {each.pid for each in workers(storage)} == {1, 2, 3}
    assert all(each.argv == () and each.alive is not True for each in workers(storage))


def test_long_arguments(storage, leases):
    """Of what is too long only the beginning is kept."""
    said = {"argv": ["x" * 2000] * 30, "host": "h" * 5000}
    (leases / "4711-0123abcd.json").write_bytes(orjson.dumps(said))
    (found,) = workers(storage)
    assert max(map(len, found.argv)) == 1024
    assert len(found.host) == 1024


def test_their_order(storage, leases):
    """Those that live come first, those that have been there for longest before the others."""
    for name, at in (("3-0123abcd", "03"), ("2-0123abcd", "01"), ("4-0123abcd", "02")):
        said = {"opened_at": f"2026-01-{at}T12:00:00.000000Z"}
        (leases / f"{name}.json").write_bytes(orjson.dumps(said))
    Queue("jobs", storage).dequeue()
    assert [each.pid for each in workers(storage)] == [os.getpid(), 2, 4, 3]
