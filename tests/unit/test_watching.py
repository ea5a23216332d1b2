"""Noticing that a storage has changed, and where."""

from __future__ import annotations

import shutil
import threading
from datetime import timedelta

import pytest

from duraq import FileStorage, Queue
from duraq.inspector import Inspector
from duraq.journal.log import Sizes
from duraq.testing import FakeClock, MemoryFileSystem

SMALL = Sizes(journal=1 << 14, segment=2000)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "storage"


@pytest.fixture
def storage(path):
    with FileStorage(path, durability="process", sizes=SMALL) as storage:
        for name in "abc":
            Queue(name, storage).enqueue(1)
        yield storage


@pytest.fixture
def inspector(storage, path):
    with Inspector(path) as inspector:
        look(inspector)
        yield inspector


def look(inspector):
    """What has changed, once more after that nothing has."""
    inspector.refresh()
    found = inspector.changed()
    for name in found & set(inspector.queues()):
        inspector.look(name)
    while inspector.changed() & set(inspector.queues()):
        pass
    return found


@pytest.mark.parametrize("act", ["enqueue", "dequeue", "pause"])
def test_the_pulse(storage, inspector, act):
    """It is another one after every commit, whatever it was, and the same while there is none."""
    before = inspector.pulse()
    assert inspector.pulse() == before
    queue = Queue("a", storage)
    getattr(queue, act)(*["x"] * (act == "enqueue"))
    assert inspector.pulse() != before


def test_where(storage, inspector):
    """Those queues are named in which something was written, and no other."""
    Queue("b", storage).enqueue(2)
    assert inspector.changed(thorough=False) == {"b"}
    inspector.refresh()
    assert inspector.look("b")[0].counts.ready == 2
    assert inspector.changed(thorough=False) == set()


def test_over_the_end_of_a_segment(storage, inspector):
    """A queue that goes on in the next segment is noticed from then on as well."""
    queue = Queue("b", storage)
    for number in range(50):
        queue.enqueue(number)
        assert "b" in inspector.changed(thorough=False)
        inspector.refresh()
        assert inspector.look("b")[0].counts.ready == number + 2


def test_new_and_gone(storage, path, inspector):
    """A queue that comes into being is named, and so is one that is removed, and one that is there again."""
    Queue("new", storage).enqueue(1)
    assert "new" in look(inspector)
    shutil.move(path / "a", path.parent / "a")
    assert "a" in look(inspector)
    assert look(inspector) == set()
    shutil.move(path.parent / "a", path / "a")
    assert "a" in look(inspector)


def test_a_directory_that_becomes_a_queue(path, inspector):
    """A queue that is put together slowly is noticed when it is one."""
    (path / "slow").mkdir()
    assert look(inspector) == set()
    shutil.copytree(path / "a" / "segments", path / "slow" / "segments")
    assert look(inspector) == {"slow"}


def test_who_waits(storage, inspector):
    """A consumer that begins to wait commits nothing, and is noticed by a thorough look."""
    queue = Queue("empty", storage)
    queue.enqueue(1)
    queue.mark_completed(queue.dequeue())
    look(inspector)
    waiting = threading.Thread(target=queue.dequeue, kwargs={"wait": timedelta(seconds=60)})
    waiting.start()
    try:
        while inspector.look("empty")[0].waiting == 0:
            if "empty" in inspector.changed():
                inspector.refresh()
    finally:
        queue.enqueue(1)
        waiting.join()


def test_a_storage_that_nobody_has_opened(storage, path, tmp_path):
    """Without a control block there is no pulse; what has changed is noticed all the same."""
    copy = tmp_path / "copy"
    shutil.copytree(path, copy, ignore=shutil.ignore_patterns("*.fifo", "lock"))
    with Inspector(copy) as inspector:
        assert inspector.pulse() == b""
        assert look(inspector) == {"a", "b", "c"}
        with FileStorage(copy) as again:
            Queue("c", again).enqueue(1)
        assert inspector.pulse() != b""
        assert look(inspector) == {"c"}


def test_made_again(storage, path):
    """Of a storage that is removed and made again, the new one's pulse is told."""
    storage.close()
    with Inspector(path) as inspector:
        look(inspector)
        shutil.rmtree(path)
        with FileStorage(path) as again:
            Queue("z", again).enqueue(1)
            assert look(inspector) == {"a", "b", "c", "z"}
            before = inspector.pulse()
            Queue("z", again).enqueue(2)
            assert inspector.pulse() != before


def test_what_is_made_up_in_memory():
    """Of what stands in the journal only, every queue may have changed, but only once anything has."""
    disk = MemoryFileSystem()
    storage = FileStorage("/storage", file_system=disk, clock=FakeClock())
    Queue("a", storage).enqueue(1)
    with Inspector("/storage", file_system=disk.surviving(nothing=True), clock=FakeClock()) as inspector:
        assert not inspector.settled
        assert inspector.changed() == {"a"}
        assert inspector.look("a")[0].counts.ready == 1
        assert inspector.changed() == set()


def test_time_alone(path):
    """When an entry becomes ready, or may be over, is told beforehand."""
    clock = FakeClock()
    with FileStorage(path, clock=clock) as storage:
        Queue("quiet", storage).enqueue(1)
        Queue("later", storage).enqueue(1, delay=timedelta(minutes=1))
        Queue("over", storage).enqueue(1, ttl=timedelta(minutes=1))
        with Inspector(path, clock=clock) as inspector:
            assert inspector.next_change("quiet") is None
            assert inspector.next_change("later") == clock.now() + 60_000_000
            assert inspector.next_change("over") <= clock.now() + 60_000_000
