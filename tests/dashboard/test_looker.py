"""What is known of a storage from one look to the next."""

from __future__ import annotations

import errno
import os
import shutil
from datetime import timedelta

import pytest
from duraq_dashboard.looker import Looker

from duraq import DeadLetterQueue, FileStorage, Queue
from duraq.inspector import Inspector
from duraq.journal.filesystem import RealFileSystem
from duraq.journal.log import Sizes
from duraq.testing import FakeClock

SMALL = Sizes(journal=1 << 14, segment=2000)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "storage"


@pytest.fixture
def open_storage(path, clock):
    opened = []

    def open_storage():
        opened.append(FileStorage(path, durability="process", sizes=SMALL, clock=clock))
        return opened[-1]

    yield open_storage
    for storage in opened:
        storage.close()


@pytest.fixture
def storage(open_storage):
    storage = open_storage()
    for name in "abc":
        Queue(name, storage).enqueue(1)
    return storage


@pytest.fixture
def looker(path, clock):
    looker = Looker(str(path), clock)
    yield looker
    looker.close()


def look(looker, *, thorough=True):
    """The snapshot after as many looks as it takes until there is nothing new."""
    while looker.look(thorough=thorough):
        pass
    return looker.snapshot()


def agrees(looker, path, clock):
    """Whether it is the same as somebody sees who looks for the first time."""
    with Inspector(path, clock=clock) as inspector:
        whole = {name: inspector.look(name) for name in inspector.queues()}
    seen = look(looker).queues
    assert sorted(name for name, now in seen.items() if not now.gone) == sorted(whole)
    for name, (view, _) in whole.items():
        assert seen[name].view == view
    for name, (_, metrics) in whole.items():
        assert seen[name].metrics.counters == metrics.counters
        assert seen[name].metrics.bytes_on_disk == metrics.bytes_on_disk


def test_unchanged_queues_are_the_same_objects(storage, looker):
    """A queue in which nothing has changed is the same object in the next snapshot."""
    before = look(looker)
    Queue("b", storage).enqueue(2)
    after = look(looker)
    assert after.number > before.number
    assert after.queues["a"] is before.queues["a"]
    assert after.queues["b"].view.counts.ready == 2


def test_nothing_new(storage, clock, looker):
    """As long as nothing changes there is nothing to tell, though time passes."""
    before = look(looker)
    assert not looker.beat()
    clock.advance(30 * SECOND)
    assert not looker.is_due()
    assert not looker.look(thorough=True)
    assert looker.snapshot().number == before.number


def test_a_beat_for_every_commit(storage, looker):
    """Whatever is committed makes a beat, and a look that is not thorough finds it."""
    look(looker)
    for act in (lambda q: q.enqueue(1), lambda q: q.dequeue(), lambda q: q.pause("x"), lambda q: q.resume()):
        act(Queue("b", storage))
        assert looker.beat()
        assert looker.look(thorough=False)
        assert not looker.beat()


def test_time_alone(storage, clock, looker):
    """What becomes due, or deserves a word, by time alone is seen without anything being written."""
    Queue("later", storage).enqueue(1, delay=10 * SECOND)
    look(looker)
    clock.advance(11 * SECOND)
    assert looker.is_due()
    assert look(looker, thorough=False).queues["later"].view.counts.ready == 1
    clock.advance(3 * MINUTE)
    assert looker.is_due()
    assert {now.word for now in look(looker, thorough=False).queues.values()} == {"NO CONSUMER"}
    changed_at = looker.snapshot().changed_at
    clock.advance(20 * SECOND)
    assert look(looker).changed_at == changed_at


def test_a_lease_that_passes_its_deadline(storage, clock, looker):
    """Leases are looked after, each second."""
    Queue("a", storage).dequeue()
    look(looker)
    clock.advance(10 * MINUTE)
    assert looker.is_due()
    (lease,) = look(looker, thorough=False).queues["a"].view.leases
    assert lease.late


def test_words_that_pass(storage, clock, looker):
    """A word for what happened lately is gone when that is long ago."""
    queue = Queue("a", storage)
    queue.enqueue_many(range(9))
    for entry in queue.dequeue(limit=10):
        queue.mark_failed(entry, dead=True)
    assert look(looker).queues["a"].word == "ERRORS"
    clock.advance(10 * MINUTE)
    assert look(looker, thorough=False).queues["a"].word == "DLQ+"
    clock.advance(timedelta(hours=2))
    assert look(looker, thorough=False).queues["a"].word == "DEAD"


def test_a_queue_that_vanishes(storage, path, clock, looker):
    """A queue whose directory vanishes is shown as gone until that is noted, or until it is there again."""
    look(looker)
    shutil.move(path / "a", path.parent / "a")
    shutil.move(path / "b", path.parent / "b")
    seen = look(looker).queues
    assert [seen[name].word for name in "abc"] == ["GONE", "GONE", "OK"]
    assert seen["a"].view.counts.ready == 1
    looker.acknowledge("a")
    looker.acknowledge("c")
    assert list(looker.snapshot().queues) == ["b", "c"]
    shutil.move(path.parent / "a", path / "a")
    shutil.move(path.parent / "b", path / "b")
    assert [now.word for now in look(looker).queues.values()] == ["OK", "OK", "OK"]
    agrees(looker, path, clock)


def test_no_storage(path, clock, looker):
    """Where there is no storage that is a trouble, the same one at each look, until there is one."""
    looker.look(thorough=True)
    assert looker.snapshot().trouble.word == "GONE"
    assert not looker.look(thorough=True)
    with FileStorage(path, clock=clock) as storage:
        Queue("a", storage).enqueue(1)
        seen = look(looker)
        assert (seen.trouble, list(seen.queues)) == (None, ["a"])
        assert seen.live


@pytest.mark.parametrize(
    ("marker", "word"), [(b'{"format":2}\n', "NEWER"), (b"{}", "GONE")], ids=["newer", "none"]
)
@pytest.mark.usefixtures("storage")
def test_what_cannot_be_looked_at(path, looker, marker, word):
    """A storage that cannot be looked at is a trouble with a word of its own."""
    (path / "duraq.json").write_bytes(marker)
    looker.look(thorough=True)
    found = looker.snapshot()
    assert (found.trouble.word, found.live) == (word, False)


def test_made_again(storage, open_storage, path, clock, looker):
    """Of a storage that is removed and made again only the new one's queues are shown."""
    look(looker)
    storage.close()
    shutil.rmtree(path)
    assert look(looker).trouble.word == "GONE"
    Queue("new", open_storage()).enqueue(1)
    seen = look(looker)
    assert (seen.trouble, list(seen.queues)) == (None, ["new"])
    shutil.rmtree(path)
    Queue("newer", open_storage()).enqueue(1)
    assert list(look(looker).queues) == ["newer"]


def test_a_denied_queue(storage, clock, path, looker, monkeypatch):
    """A queue that may not be read is shown as such, and keeps no other from being seen."""
    look(looker)

    def deny(original):
        def denying(self, parent, name, *args, **options):
            if name == "a" or name.startswith("a/"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
            return original(self, parent, name, *args, **options)

        return denying

    with monkeypatch.context() as patched:
        for call in ("open_dir", "mark"):
            patched.setattr(RealFileSystem, call, deny(getattr(RealFileSystem, call)))
        Queue("b", storage).enqueue(1)
        seen = look(looker).queues
        assert [now.word for now in seen.values()] == ["DENIED", "OK", "OK"]
        assert seen["b"].view.counts.ready == 2
        assert not looker.look(thorough=True)
    assert look(looker).queues["a"].word == "OK"


def test_a_damaged_queue(storage, path, clock, looker):
    """A damaged queue is shown as such, no other is affected, and a repair is seen."""
    queue = Queue("a", storage)
    for number in range(300):
        queue.enqueue(number)
    storage.close()
    directory = path / "a" / "segments"
    for file in directory.glob("*.checkpoint"):
        file.unlink()
    segment = min(directory.glob("*.jsonl"))
    whole = segment.read_bytes()
    segment.write_bytes(whole.replace(b'"data":3,', b'"data":4,'))
    seen = look(looker).queues
    assert [now.word for now in seen.values()] == ["CORRUPT", "OK", "OK"]
    assert not looker.look(thorough=True)
    segment.write_bytes(whole)
    assert [now.word for now in look(looker).queues.values()] == ["OK", "OK", "OK"]


def test_whatever_happens(storage, path, clock, looker):
    """After bursts, compaction, queues that are renamed, copied in and made again, it is all seen."""
    look(looker)
    queue = Queue("a", storage)
    for turn in range(10):
        queue.enqueue_many(range(100))
        looker.look(thorough=False)
        for entry in queue.dequeue(limit=90):
            queue.mark_completed(entry) if turn % 3 else queue.mark_failed(entry, "no", dead=True)
        clock.advance(SECOND)
        looker.look(thorough=turn % 2 == 0)
    letters = DeadLetterQueue("a", None, storage)
    for entry in letters.list()[:50]:
        letters.remove(entry.id)
    storage.compact("a")
    agrees(looker, path, clock)
    # As those see it who have it open; whoever opens it next has more to go by, the journal.
    shutil.copytree(path / "a", path / "copied", ignore=shutil.ignore_patterns("*.fifo"))
    shutil.move(path / "b", path / "renamed")
    shutil.rmtree(path / "c")
    seen = look(looker).queues
    assert seen["copied"].view.counts == seen["a"].view.counts
    assert seen["renamed"].view.counts.ready == 1
    assert [now.name for now in seen.values() if now.gone] == ["b", "c"]
    shutil.copytree(path / "renamed", path / "c", ignore=shutil.ignore_patterns("*.fifo"))
    assert not look(looker).queues["c"].gone


def test_how_late(storage, clock, looker):
    """How late a change was seen is never said to be less than it may have been."""
    look(looker)
    looker.beat()
    seen = clock.now()
    clock.advance(timedelta(milliseconds=300))
    Queue("a", storage).enqueue(1)
    looker.look(thorough=False)
    found = looker.snapshot()
    assert found.lag == timedelta(milliseconds=300)
    assert (clock.now() - seen) == 300_000


def test_a_copy_is_not_live(storage, path, tmp_path):
    """Where there is no control block to tell of changes, that is said."""
    shutil.copytree(path, tmp_path / "copy", ignore=shutil.ignore_patterns("*.fifo", "lock"))
    looker = Looker(str(tmp_path / "copy"), FakeClock())
    assert not look(looker).live
    looker.close()


def test_it_can_be_stopped(storage, looker):
    """What is raised as a look goes on ends it, and the next one begins where it was."""

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        looker.look(thorough=True, progress=stop)
    assert len(look(looker).queues) == 3


def test_parts_of_the_first_look(storage, path, clock, looker):
    """What is told as the first look goes on is not the whole; once all was looked at it is, and stays so."""
    parts = []
    looker.look(thorough=True, progress=lambda: parts.append(looker.part()))
    assert [(len(part.queues), part.whole) for part in parts] == [(1, False), (2, False), (3, False)]
    assert looker.snapshot().whole
    later = []
    Queue("a", storage).enqueue(1)
    looker.look(thorough=True, progress=lambda: later.append(looker.part().whole))
    assert all(later)


def test_ages_in_the_evidence(storage, looker, clock):
    """The evidence tells ages as of now, though nothing happens, and that is no change in the storage."""
    look(looker)
    clock.advance(6 * MINUTE)
    before = look(looker)
    assert "6m" in before.queues["a"].why
    clock.advance(10 * MINUTE)
    assert looker.look(thorough=True)
    after = looker.snapshot()
    assert "16m" in after.queues["a"].why
    assert after.number > before.number
    assert after.changed_at == before.changed_at
    clock.advance(SECOND)
    assert not looker.look(thorough=True)


def test_an_empty_storage_is_told_of(tmp_path):
    """That there is no queue is something new, once it is known."""
    with FileStorage(tmp_path / "empty"):
        looker = Looker(str(tmp_path / "empty"), FakeClock())
        assert not looker.snapshot().whole
        assert looker.look(thorough=True)
        assert looker.snapshot().whole
        assert not looker.look(thorough=True)
        looker.close()
