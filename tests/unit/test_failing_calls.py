"""One call of the file system fails, or writes a part only, and what hangs on it does not fall."""

from __future__ import annotations

import errno
import logging

import pytest

from duraq.errors import NotWritten, StorageError
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

    def full(fd, data, offset):
        if offset >= 4096 or not disk._description(fd).path.endswith(".journal"):
            return pwrite(fd, data, offset)
        if offset == 0:
            return pwrite(fd, data[:20], 0)
        raise OSError(errno.ENOSPC, "no space")

    disk.pwrite = full
    accepted = []
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
