"""One call of the file system fails, or writes a part only, and what hangs on it does not fall."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from duraq.errors import NotWritten, OutcomeUnknown, StorageError
from duraq.inspector import Inspector
from duraq.journal import lease, waiters
from duraq.journal.filesystem import RealFileSystem
from duraq.journal.lines import Follower, Lines
from duraq.journal.log import Sizes
from duraq.operations import Enqueue
from duraq.storage.file import FileStorage
from duraq.testing import FakeClock, MemoryFileSystem

SIZES = Sizes(journal=8 << 10, segment=2 << 10)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, one_thread):
    monkeypatch.setattr(logging.getLogger("duraq"), "disabled", True)


@pytest.fixture
def disk():
    """An empty disk, seen by a first process."""
    return MemoryFileSystem()


def opened(fs, path="/storage"):
    return FileStorage(path, clock=FakeClock(), file_system=fs, sizes=SIZES, allow_network=True)


def put(storage, *names, size=50):
    storage.commit({"a": [Enqueue(name, b'"%s"' % (b"x" * size)) for name in names]})


def ids(storage):
    return [entry.id for entry in storage.entries("a")]


# Written in part


@pytest.mark.parametrize("short", [1, 20, -1])
def test_the_control_block_in_part(disk, short):
    """What was acknowledged stays, although the note of where the journal ends was written in part."""
    storage, other = opened(disk), opened(disk.process())
    put(storage, "1")
    disk.fail("pwrite", name="lock", short=short)
    put(storage, "2")
    put(other, "3")
    assert ids(storage) == ids(other) == ["1", "2", "3"]


@pytest.mark.parametrize("when", [2, 4])
def test_a_header_in_part(disk, when):
    """A storage whose journal's headers were written in part, while it was made, can be opened again."""
    disk.fail("pwrite", name="*.journal", short=20, when=when)
    storage = opened(disk)
    put(storage, "1")
    storage.close()
    assert ids(opened(disk.surviving(nothing=True))) == ["1"]


def test_a_header_in_part_for_ever(disk):
    """Where no header of the next journal file can be written, whoever needs it is told, and nobody waits."""
    storage, pwrite = opened(disk), disk.pwrite
    accepted = ["first"]
    put(storage, "first")  # with the first sync, for which headers are written over themselves

    def full(fd, data, offset):
        if offset >= 4096 or not disk._description(fd).path.endswith(".journal"):
            return pwrite(fd, data, offset)
        if offset == 0:
            return pwrite(fd, data[:20], 0)
        raise OSError(errno.ENOSPC, "no space")

    disk.pwrite = full
    with pytest.raises(NotWritten):  # noqa: PT012 - which one fails is not known
        for number in range(100):
            put(storage, f"{number}", size=300)
            accepted.append(f"{number}")
    disk.pwrite = pwrite
    put(storage, "afterwards")
    assert ids(storage) == [*accepted, "afterwards"]


def test_a_frame_in_part(disk):
    """A frame that was refused does not become whole by what lay behind it from before."""
    storage = opened(disk)
    put(storage, "1")
    disk.fail("pwrite", errno.ENOSPC, name="*.jsonl", short=10)
    with pytest.raises(NotWritten):
        put(storage, "2")
    disk.fail("pwrite", name="*.journal", short=-1)
    with pytest.raises(NotWritten):
        put(storage, "2")
    disk.die()
    assert ids(opened(disk.process())) == ["1"]


def test_a_copy_in_part(disk):
    """Nothing is cut off a segment before there is a whole copy of it."""
    storage = opened(disk)
    put(storage, "1")
    storage.close()
    directory = disk.open_dir(disk.open_dir(disk.open_root("/storage"), "a"), "segments")
    fd = disk.open_file(directory, f"{1:020d}.jsonl")
    disk.pwrite(fd, b"torn", end := disk.size(fd))
    opener = disk.process()
    opener.fail("pwrite", errno.ENOSPC, name="*.cut", short=2, times=None)
    with pytest.raises(StorageError):
        opened(opener)
    assert disk.pread(fd, 10, end) == b"torn"


# What the caller does not depend on


def test_a_position_that_is_not_published(disk):
    """Whoever cannot tell the others what is durable is not told that his own change failed."""
    storage, other = opened(disk), opened(disk.process())
    put(storage, "1")
    put(other, "2")
    fault = disk.fail("pwrite", errno.EIO, name="lock", when=2)
    put(storage, "3")
    assert fault.hits == 1
    assert ids(other) == ["1", "2", "3"]


def test_what_is_tidied_now_and_then(disk):
    """Whoever is given an entry is not told that the storage's own queues could not be looked at."""
    storage = opened(disk)
    put(storage, "1")
    fault = disk.fail("exists", errno.EMFILE, name="_*")
    assert [entry.id for entry in storage.claim("a", 1, detached=True)] == ["1"]
    assert fault.hits == 1


def test_whoever_is_given_an_entry_knows_it(disk):
    """What is leased is handed out, even if nothing can be read any more once the lease is written."""
    storage = opened(disk)
    put(storage, "1", size=3000)  # its segment is full, so that the lease goes to the next
    pwrite = disk.pwrite

    def write_and_go_blind(fd, data, offset):
        if data.startswith(b'{"op":"lease"'):
            disk.fail("pread", errno.EIO, name="*.index", times=None)
            disk.fail("pread", errno.EIO, name="*.jsonl", times=None)
            disk.fail("open_file", errno.EMFILE, name="*.index", times=None)
        return pwrite(fd, data, offset)

    disk.pwrite = write_and_go_blind
    assert [entry.id for entry in storage.claim("a", 1, detached=True)] == ["1"]
    disk.heal()
    assert [entry.status for entry in storage.entries("a")] == ["leased"]


# What is left behind


def test_a_storage_that_could_not_be_opened(disk):
    """It holds no descriptor and no lock, whichever of its parts could not be opened."""
    disk.fail("open_dir", errno.EMFILE, name="leases", when=2)
    with pytest.raises(StorageError, match="ulimit -n"):
        opened(disk)
    assert (disk.opened, disk.locked) == ([], [])


def test_a_segment_whose_length_is_not_told(disk):
    """Whoever only looks leaves no descriptor behind where the length of a segment is refused."""
    storage = opened(disk)
    put(storage, "1")
    reader = disk.process()
    reader.fail("size", errno.EIO, name="*.jsonl")
    with Inspector("/storage", file_system=reader) as inspector:
        assert inspector.counts("a").ready == 1
    assert reader.opened == []


def test_a_directory_of_which_it_is_not_told_which(disk):
    """Whoever looks again, and is not told which directory it is, leaves no descriptor behind either."""
    put(opened(disk), "1")
    reader = disk.process()
    with Inspector("/storage", file_system=reader) as inspector:
        reader.fail("identity", errno.EIO)
        with pytest.raises(StorageError, match="error"):
            inspector.refresh()
    assert reader.opened == []


def test_the_records_of_an_entry_that_cannot_be_read(disk):
    """An entry's life is not told as if it had none."""
    put(opened(disk), "1")
    with Inspector("/storage", file_system=disk) as inspector:
        disk.fail("pread", errno.EIO, name="*.jsonl")
        with pytest.raises(StorageError, match="error"):
            inspector.life("1", "a")
        assert [view.op for view in inspector.life("1", "a")] == ["enqueue"]


def test_asking_which_queues_there_are(disk):
    """It is refused in DuraQ's words."""
    storage = opened(disk)
    put(storage, "1")
    disk.fail("names", errno.EMFILE)
    with pytest.raises(StorageError, match="ulimit -n"):
        storage.queues()
    assert storage.queues() == ["a"]


def test_whoever_follows_a_group_that_is_taken_back(disk, monkeypatch):
    """He has read what nobody has written, and goes on with what is there in its place."""
    storage, fs = opened(disk), disk.process()

    def put_both(name):
        storage.commit({queue: [Enqueue(name, b"1"), Enqueue(f"{name}-more", b"1")] for queue in "ab"})

    def new():
        return [record.operation.id for _, record in follower.new()]

    put_both("1")
    follower = Follower(Lines(fs, fs.open_root("/storage"), "a"), None)
    pwrite, in_between = disk.pwrite, []

    def full(fd, data, offset):
        if disk._description(fd).path.startswith("b/segments"):
            in_between.extend(new())
            raise OSError(errno.ENOSPC, "no space")
        return pwrite(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "pwrite", full)
        with pytest.raises(NotWritten):
            put_both("2")
    assert in_between[:4] == ["1", "1-more", "2", "2-more"]
    put(storage, "longer", "3")
    put(storage, "4")
    assert new() == ["longer", "3", "4"]
    assert new() == []


# When a sync has failed already


@pytest.mark.parametrize(("call", "name"), [("lock", "recycle"), ("lock", "lock"), ("pread", "lock")])
def test_a_failed_sync_is_noted_whatever_comes_next(disk, call, name):
    """Whoever opens the storage later knows of a failed sync, though what was to be done about it failed."""
    storage = opened(disk)
    put(storage, "1")
    disk.fail("datasync", errno.EIO, name="*.journal")
    datasync = disk.datasync

    def fail_next(fd):
        disk.fail(call, errno.EIO, name=name)
        datasync(fd)

    disk.datasync = fail_next
    with pytest.raises(OutcomeUnknown):
        put(storage, "2")
    disk.datasync = datasync
    storage.close()
    disk.heal()
    put(opened(disk.process()), "3")
    assert ids(opened(disk.surviving(nothing=True))) == ["1", "2", "3"]


def test_a_lock_of_which_nobody_knows_whether_it_is_there(disk):
    """Whoever cannot be told whether others still find the lock is told that the outcome is unknown."""
    storage = opened(disk)
    put(storage, "1")
    fault = disk.fail("has_name", errno.EIO)
    with pytest.raises(OutcomeUnknown, match="lock"):
        put(storage, "2")
    assert fault.hits == 1
    put(storage, "3")
    assert ids(storage) == ["1", "2", "3"]


# Whom it concerns to wake, or to know alive; these are processes, on a real disk.


def descriptors():
    return sorted(Path("/proc/self/fd").iterdir())


def refused(number):
    """A function that raises this."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


def test_nobody_can_be_woken(tmp_path, monkeypatch):
    """An entry is enqueued, and its producer told so, if nobody could look for those who wait for it."""
    fs = RealFileSystem()
    with opened(fs, tmp_path) as storage:
        put(storage, "1")
        with storage._turn:
            storage._log.note_waiters(some=True)
        monkeypatch.setattr(fs, "names", refused(errno.EMFILE))
        put(storage, "2")
    with opened(RealFileSystem(), tmp_path) as storage:
        assert ids(storage) == ["1", "2"]


def test_nobody_can_be_asked_whether_he_lives(tmp_path, monkeypatch):
    """Whoever cannot find out whether the holder of a lease lives is told so in DuraQ's words."""
    with opened(None, tmp_path) as holder, opened(None, tmp_path) as other:
        put(holder, "1")
        holder.claim("a")
        monkeypatch.setattr(lease, "open_fifo", refused(errno.EMFILE))
        with pytest.raises(StorageError, match="ulimit -n"):
            other.lapsed("a")


def test_the_end_of_a_worker_that_cannot_remove_its_files(tmp_path, monkeypatch):
    """A storage that is closed holds no lease any more, even if its files stay."""
    with opened(None, tmp_path) as other:
        storage = opened(None, tmp_path)
        worker = storage._worker()
        assert other._is_alive(worker)
        monkeypatch.setattr(lease, "unlink_if_there", refused(errno.EROFS))
        storage.close()
        assert not other._is_alive(worker)


def test_a_wait_that_ends_where_nothing_can_be_removed(tmp_path, monkeypatch):
    """Whoever has waited leaves no descriptor behind, even if his FIFO stays."""
    with opened(None, tmp_path) as storage:
        put(storage, "1")
        before = descriptors()
        monkeypatch.setattr(waiters, "unlink_if_there", refused(errno.EROFS))
        with pytest.raises(StorageError), storage.place("a"):
            pass
        assert descriptors() == before
