"""A file system laid over another one, in which a reader does what an opener would do."""

import errno

import pytest

from duraq.journal.overlay import Overlay
from duraq.testing import MemoryFileSystem


@pytest.fixture
def below():
    fs = MemoryFileSystem()
    root = fs.open_root("/storage", create=True)
    fd = fs.open_file(root, "there", create=True)
    fs.pwrite(fd, b"written below", 0)
    fs.close(fd)
    fs.close(root)
    return fs


@pytest.fixture
def overlay(below):
    return Overlay(below)


@pytest.fixture
def root(overlay):
    fd = overlay.open_root("/storage")
    yield fd
    overlay.close(fd)


def test_what_is_written_stays_here(below, overlay, root):
    """A change is seen by whoever reads through it, and by nobody else."""
    fd = overlay.open_file(root, "there")
    overlay.pwrite(fd, b"WRITTEN", 0)
    overlay.datasync(fd)
    overlay.start_writing(fd, 0, 7)
    overlay.sync(root)
    assert overlay.pread(fd, 100, 0) == b"WRITTEN below"
    assert overlay.changed
    assert below.files() == {"storage/there": b"written below"}
    overlay.close(fd)


def test_what_is_made_stays_here(below, overlay, root):
    """A file or a directory that is made is there for whoever reads through it only."""
    home = overlay.open_dir(root, "queue", create=True)
    fd = overlay.open_file(home, "new", create=True)
    overlay.pwrite(fd, b"new", 0)
    assert overlay.exists(root, "queue")
    assert overlay.exists(home, "new")
    assert not overlay.exists(home, "other")
    assert overlay.has_name(fd)
    assert overlay.mark(home, "new") is None
    assert overlay.identity(fd) != overlay.identity(home)
    with pytest.raises(FileExistsError):
        overlay.open_file(home, "new", exclusive=True)
    assert list(below.files()) == ["storage/there"]
    overlay.close(fd)
    overlay.close(home)


def test_what_is_below_is_told(below, overlay, root):
    """Of what was not changed it says what the file system below says."""
    fd = overlay.open_file(root, "there")
    here = below.open_root("/storage")
    same = below.open_file(here, "there")
    assert overlay.identity(fd) == below.identity(same)
    assert overlay.has_name(fd)
    assert overlay.space(fd) == below.space(same)
    assert overlay.mark(root, "there") == below.mark(here, "there")
    assert not overlay.changed
    for each in (same, here):
        below.close(each)
    overlay.close(fd)


def test_what_a_reader_never_does(below, overlay, root):
    """Locking, removing, renaming and making a storage are refused: a reader takes nothing."""
    fd = overlay.open_file(root, "there")
    for refused in (
        lambda: overlay.open_root("/new", create=True),
        lambda: overlay.rename(root, "there", "elsewhere"),
        lambda: overlay.unlink(root, "there"),
        lambda: overlay.lock(fd),
        lambda: overlay.unlock(fd),
        lambda: overlay.try_lock(fd),
        lambda: overlay.share_lock(fd),
    ):
        with pytest.raises(OSError, match="Read-only") as caught:
            refused()
        assert caught.value.errno == errno.EROFS
    assert list(below.files()) == ["storage/there"]
    overlay.close(fd)


def test_what_could_not_be_looked_into(overlay, root):
    """What a look could not lay over is refused in it from there on, though the file may be read again."""
    overlay.forbid("there", PermissionError(errno.EACCES, "for a moment", "there"))
    assert overlay.changed
    with pytest.raises(PermissionError, match="for a moment"):
        overlay.open_file(root, "there")
