"""Files that somebody removes, moves or makes again while a storage is open: nobody is misled for long."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from evidence import count

from duraq import (
    Cause,
    Counts,
    FileStorage,
    FixedDelay,
    LeaseLost,
    OutcomeUnknown,
    Queue,
    StorageDamaged,
    StorageFailed,
)

PATIENCE = timedelta(minutes=1)
RETRIES = FixedDelay(max_attempts=9, delay=timedelta(0))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "storage"


@pytest.fixture
def open_queue(path):
    """The queue, as another process has it; everything is closed in the end."""
    opened = []

    def open_queue():
        opened.append(FileStorage(path))
        return Queue("jobs", opened[-1], retry_policy=RETRIES)

    yield open_queue
    for storage in opened:
        storage.close()


def ids(queue):
    return [entry.id for entry in queue.entries()]


@pytest.mark.parametrize("made_again", [False, True])
def test_the_lock_was_removed(path, open_queue, made_again):
    """There are never two locks: whoever comes is refused, and who is there, until all have closed it."""
    first, second = open_queue(), open_queue()
    known = [first.enqueue(1), second.enqueue(2)]
    (path / "journal" / "lock").unlink()
    if made_again:
        (path / "journal" / "lock").touch(0o600)
    for _ in range(2):
        with pytest.raises(StorageFailed, match="removed"):
            FileStorage(path)
    with pytest.raises(OutcomeUnknown):
        first.enqueue(3)
    for queue in (first, second):
        with pytest.raises(StorageFailed):
            queue.counts()
        queue.storage.close()
    last = open_queue()
    assert ids(last)[:2] == known
    assert len(ids(last)) <= 3
    known = [*ids(last), last.enqueue(4)]
    assert ids(open_queue()) == known
    count("processes")


@pytest.mark.parametrize("before", ["a new storage", "a lock that was removed"])
def test_the_first_opener_dies(path, open_queue, before):
    """However many wait behind a first opener who dies before he has written to the lock: they open it."""
    queue = open_queue()
    known = [queue.enqueue(1)]
    queue.storage.close()
    (path / "journal" / "lock").unlink()
    if before == "a new storage":
        (path / "journal" / "presence").write_bytes(b"")
    # The first one, who has just begun; and one who waits behind him, and is slow.
    with (path / "journal" / "presence").open("r+b") as first, (path / "journal" / "presence").open() as slow:
        fcntl.flock(first, fcntl.LOCK_EX)
        os.truncate(first.fileno(), 0)
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(open_queue)
            fcntl.flock(first, fcntl.LOCK_SH)
            fcntl.flock(slow, fcntl.LOCK_SH)
            first.close()
            queue = waits.result()
        known.append(queue.enqueue(2))
        assert ids(queue) == ids(open_queue()) == known
    count("processes")


def test_the_storage_was_removed(path, open_queue):
    """Who has a storage open that was removed, and made anew, is not told that anything is durable."""
    old = open_queue()
    old.enqueue(1)
    shutil.rmtree(path)
    new = open_queue()
    known = [new.enqueue(2)]
    with pytest.raises(OutcomeUnknown):
        old.enqueue(3)
    with pytest.raises(StorageFailed):
        old.enqueue(4)
    known.append(new.enqueue(5))
    assert ids(new) == ids(open_queue()) == known
    count("processes")


def test_the_storage_was_moved(path, open_queue, tmp_path):
    """A storage that was moved while it was open is the same one to all, wherever they come to it."""
    old = open_queue()
    known = [old.enqueue(1)]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    new = open_queue()
    known += [new.enqueue(2), old.enqueue(3)]
    held = old.dequeue()
    assert [entry.id for entry in new.dequeue(limit=3)] == known[1:]
    old.mark_completed(held)
    assert ids(new) == ids(old) == known[1:]
    count("processes")


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_queue_was_removed(path, open_queue, how):
    """Who waits at a queue that was removed is told before long, and nobody makes it anew beside others."""
    queue = open_queue()
    queue.enqueue(1)
    queue.mark_completed(queue.dequeue())
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(queue.dequeue, wait=PATIENCE)
        while not list((path / "jobs" / "waiters").iterdir()):
            threading.Event().wait(0.001)
        if how == "removed":
            shutil.rmtree(path / "jobs")
        else:
            (path / "jobs").rename(path / "others")
        with pytest.raises(StorageDamaged, match="removed"):
            waiting.result()
    for each in (queue, open_queue()):
        with pytest.raises(StorageDamaged, match="removed"):
            each.enqueue(2)
    count("processes")


@pytest.mark.parametrize("kind", ["json", "fifo"])
@pytest.mark.parametrize("made_again", [False, True])
def test_the_files_of_a_worker_were_removed(path, open_queue, kind, made_again):
    """Who is taken for dead has lost what it held, and completes nothing; another completes it, once."""
    mine, others = open_queue(), open_queue()
    others.enqueue(1)
    held = mine.dequeue()
    (file,) = path.glob(f"leases/*.{kind}")
    file.unlink()
    if made_again:
        os.mkfifo(file, 0o600) if kind == "fifo" else file.touch(0o600)
    entry = others.dequeue(wait=PATIENCE)
    assert (entry.id, entry.errors[0].cause) == (held.id, Cause.WORKER_DIED)
    with pytest.raises(LeaseLost):
        mine.mark_completed(held)
    others.mark_completed(entry)
    assert others.counts() == Counts()
    assert others.metrics().counters.completed == 1
    count("processes")
