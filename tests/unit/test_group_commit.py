"""One sync for many threads: who syncs, who need not, and what an interrupt or a close leaves behind."""

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from queue import SimpleQueue

import pytest

from duraq import FileStorage, OutcomeUnknown, Queue
from duraq.journal.group_commit import GroupCommit
from duraq.operations import Enqueue
from duraq.storage import flusher
from duraq.testing import MemoryFileSystem

SOON = 30  # seconds; only so that a failing test ends


class Journal:
    """Syncs only when it is let, and up to where it was written when the sync began."""

    def __init__(self):
        self.commits = GroupCommit(self.sync)
        self.written = 0
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.syncs = []
        self.error = None

    def sync(self):
        reached = self.written
        self.syncs.append(reached)
        self.begun.release()
        assert self.let.acquire(timeout=SOON)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return reached

    def has_begun(self):
        assert self.begun.acquire(timeout=SOON)


@pytest.fixture
def journal():
    return Journal()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as executor:
        yield executor


def test_one_sync_serves_all_who_waited(journal, pool):
    """Those whose frames were written while a sync ran share the next one."""
    journal.written = 1
    first = pool.submit(journal.commits.wait_for, 1)
    journal.has_begun()
    journal.written = 4
    others = [pool.submit(journal.commits.wait_for, position) for position in (2, 3, 4)]
    journal.let.release(2)
    for future in (first, *others):
        future.result(SOON)
    assert journal.syncs == [1, 4]


def test_what_another_process_has_synced(journal):
    """A position that is known to be durable needs no sync, and is never taken back."""
    journal.commits.learn(5)
    journal.commits.learn(3)
    journal.commits.wait_for(5)
    assert journal.syncs == []


def test_a_sync_that_fails(journal, pool):
    """The error is that of the thread that synced; the next one tries for itself."""
    journal.written = 2
    first = pool.submit(journal.commits.wait_for, 1)
    journal.has_begun()
    second = pool.submit(journal.commits.wait_for, 2)
    journal.error = OutcomeUnknown("no")
    journal.let.release(2)
    with pytest.raises(OutcomeUnknown):
        first.result(SOON)
    second.result(SOON)


def test_an_interrupted_sync(journal, pool):
    """A Ctrl-C in the middle of a sync, or at its end, holds up nobody."""
    journal.written = 2
    journal.error = KeyboardInterrupt()
    journal.let.release()
    with pytest.raises(KeyboardInterrupt):
        journal.commits.wait_for(1)
    journal.let.release()
    pool.submit(journal.commits.wait_for, 2).result(SOON)


def test_a_handler_that_syncs(journal):
    """A signal handler that comes in the middle of its own thread's sync does not wait for it."""
    journal.written = 1
    sync, depth = journal.sync, []

    def interrupted():
        if not depth:
            depth.append(1)
            journal.commits.wait_for(1)
        return sync()

    journal.commits = GroupCommit(interrupted)
    journal.let.release(2)
    journal.commits.wait_for(1)
    assert journal.syncs == [1, 1]


def test_closing(journal, pool):
    """Closing waits for the sync that runs; whoever still waits is told that nobody knows."""
    journal.written = 2
    first = pool.submit(journal.commits.wait_for, 1)
    journal.has_begun()
    journal.written = 3
    late = pool.submit(journal.commits.wait_for, 3)
    closing = pool.submit(journal.commits.close)
    while not journal.commits._closed:
        threading.Event().wait(0.001)
    journal.let.release()
    first.result(SOON)
    assert closing.result(SOON)
    with pytest.raises(OutcomeUnknown, match="closed"):
        late.result(SOON)
    assert journal.syncs == [2]


def test_closing_while_the_disk_does_not_answer(journal, pool, monkeypatch):
    """Closing says so if the sync that runs does not end."""
    monkeypatch.setattr("duraq.journal.group_commit._PATIENCE", 0.01)
    journal.written = 1
    first = pool.submit(journal.commits.wait_for, 1)
    journal.has_begun()
    assert pool.submit(journal.commits.close).result(SOON) is False
    journal.let.release()
    first.result(SOON)


def test_no_memory_to_sync_with(tmp_path, monkeypatch):
    """The thread that syncs for durability="batched" does so a window later if there was no memory for it."""
    with FileStorage(
        tmp_path / "queues", durability="batched", batch_window=timedelta(milliseconds=1)
    ) as storage:
        settle, refused, synced = storage._log.settle, [], threading.Event()

        def without_memory(position):
            if not refused:
                refused.append(position)
                raise MemoryError
            settle(position)
            synced.set()

        monkeypatch.setattr(storage._log, "settle", without_memory)
        Queue("jobs", storage).enqueue(1)
        assert synced.wait(SOON)


def test_a_sync_that_could_not_be_begun(monkeypatch):
    """The thread that syncs for durability="batched" tries again if what it is to sync could not be read."""
    monkeypatch.setattr(flusher, "_PAUSE", 0.001)
    disk = MemoryFileSystem()
    FileStorage("/queues", file_system=disk, allow_network=True).close()
    fs = disk.process()
    window = timedelta(milliseconds=1)
    with FileStorage(
        "/queues", file_system=fs, allow_network=True, durability="batched", batch_window=window
    ) as storage:
        settle, ended, faults = storage._log.settle, SimpleQueue(), []

        def noted(position):
            if not faults:
                faults.append(fs.fail("pread", errno.EIO, name="0.journal"))
            try:
                settle(position)
            except OutcomeUnknown as error:
                ended.put(error)
                raise
            ended.put(None)

        monkeypatch.setattr(storage._log, "settle", noted)
        storage.commit({"jobs": [Enqueue("one", b"1")]})
        assert isinstance(ended.get(timeout=SOON), OutcomeUnknown)
        assert ended.get(timeout=SOON) is None
