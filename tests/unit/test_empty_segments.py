"""Segments that were made for a write that was then refused: empty, and passed over by the records."""

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest

from duraq import FileStorage, NotWritten, Queue, Sizes, backup, restore, verify
from duraq.journal import compaction, segment
from duraq.journal.filesystem import RealFileSystem
from duraq.journal.lines import Follower, Lines

SIZES = Sizes(journal=16 << 10, segment=2 << 10)


class Full(RealFileSystem):
    """A disk that has no room for the first bytes of a new segment, once it is ``full``."""

    def __init__(self):
        super().__init__()
        self.full = False
        self.pwrite = self._pwrite

    def _pwrite(self, fd, data, offset):
        if self.full and offset == 0 and Path(f"/proc/self/fd/{fd}").readlink().suffix == segment.SUFFIX:
            raise OSError(errno.ENOSPC, "no space left on the device")
        return os.pwrite(fd, data, offset)


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """A storage in which a compaction was refused the new segment that it wanted to go on in."""
    monkeypatch.setattr(compaction, "is_due", lambda *_: False)
    fs = Full()
    with FileStorage(tmp_path / "queues", sizes=SIZES, file_system=fs) as storage:
        queue = Queue("jobs", storage)
        for number in range(40):
            queue.enqueue(f"life {number}")
            queue.mark_completed(queue.dequeue())
        queue.enqueue("waiting", id="waiting")
        fs.full = True
        with pytest.raises(NotWritten):
            storage.compact("jobs")
        fs.full = False
        assert empty(storage.path)
        yield storage


def segments(path):
    return sorted(Path(path, "jobs", "segments").glob(f"*{segment.SUFFIX}"))


def empty(path):
    """Segments that have nothing in them."""
    return [each for each in segments(path) if not each.stat().st_size]


def pass_over(storage):
    """Write until the records have numbers that are higher than the name of the empty segment."""
    queue = Queue("jobs", storage)
    for number in range(60):
        queue.enqueue(f"later {number}", id=f"later-{number}")
    assert empty(storage.path)


def ids(path):
    with FileStorage(path) as storage:
        return [entry.id for entry in storage.entries("jobs")]


@pytest.mark.parametrize("passed", [False, True])
def test_it_is_no_damage(storage, passed):
    """Nothing was in it, so nothing is lost: with or without what is derived, the storage is sound."""
    if passed:
        pass_over(storage)
    assert verify(storage.path).sound
    before = [entry.id for entry in storage.entries("jobs")]
    storage.close()
    for each in set(Path(storage.path, "jobs", "segments").iterdir()) - set(segments(storage.path)):
        each.unlink()
    assert verify(storage.path).sound
    assert ids(storage.path) == before


def test_an_emptied_segment_is_damage(storage):
    """A segment whose records are gone is not taken for one that never had any."""
    queue = Queue("jobs", storage)
    for number in range(400):  # more than the journal holds, which could bring it back
        queue.enqueue(f"later {number}")
    storage.close()
    (never,) = empty(storage.path)
    inner = [each for each in segments(storage.path) if each > never][2]
    os.truncate(inner, 0)
    findings = [finding for finding in verify(storage.path).findings if finding.damage]
    assert [finding.path for finding in findings] == [f"jobs/segments/{inner.name}"]
    assert findings[0].records > 1


@pytest.mark.parametrize("passed", [False, True])
def test_a_copy_is_without_it(storage, tmp_path, passed):
    """A backup, and what is made of one, ends where the records end, and goes on from there."""
    if passed:
        pass_over(storage)
    before = [entry.id for entry in storage.entries("jobs")]
    first = backup(storage.path, tmp_path / "backup")
    second = restore(first.path, tmp_path / "restored")
    for copy in (first, second):
        assert not empty(copy.path)
        with FileStorage(copy.path, sizes=SIZES) as copied:
            Queue("jobs", copied).enqueue("new", id="new")
        assert ids(copy.path) == [*before, "new"]
        assert verify(copy.path).sound


def test_whoever_follows_passes_it_too(storage):
    """Every record comes to whoever follows the queue, though a file lies between that has none."""
    fs = RealFileSystem()
    root = fs.open_root(storage.path)
    try:
        with closing(Lines(fs, root, "jobs")) as lines:
            follower = Follower(lines, None)
            heard = list(follower.new())
            pass_over(storage)
            heard += follower.new()
        seqs = [record.seq for _, record in heard]
        assert len(heard) > 100
        # A seal has a number as well, and is no news.
        assert [getattr(record.operation, "id", "") for _, record in heard[-60:]] == [
            f"later-{number}" for number in range(60)
        ]
        assert seqs == sorted(set(seqs))
    finally:
        fs.close(root)


def test_what_may_still_grow(storage):
    """It is none of the two segments of which one may be growing, for nothing is written to it."""
    fs = RealFileSystem()
    root = fs.open_root(storage.path)
    try:
        with closing(Lines(fs, root, "jobs")) as lines:
            numbers = [number for number in lines.segments() if lines.length(number)]
        home = fs.open_dir(root, "jobs")
        directory = fs.open_dir(home, "segments")
        found = segment.growing(fs, directory)
        fs.close(directory)
        fs.close(home)
        assert [number for number, length in found.items() if length] == numbers[:-3:-1]
    finally:
        fs.close(root)
