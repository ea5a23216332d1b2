"""What every FileSystem does, the machine's own and the one in memory."""

import errno
from dataclasses import dataclass
from random import Random

import pytest

from duraq.journal.filesystem import FileSystem, RealFileSystem, SomethingElse
from duraq.testing import MemoryFileSystem


@dataclass
class Place:
    """A file system, the same one as another process sees it, and an open directory of each."""

    fs: FileSystem
    other: FileSystem
    path: str
    root: int
    other_root: int


@pytest.fixture(params=["real", "memory"])
def place(request, tmp_path):
    path = str(tmp_path / "root")
    if request.param == "real":
        fs, other = RealFileSystem(), RealFileSystem()
    else:
        fs = MemoryFileSystem()
        other = fs.process()
    root = fs.open_root(path, create=True)
    return Place(fs, other, path, root, other.open_root(path))


@pytest.fixture
def fs(place):
    return place.fs


@pytest.fixture
def root(place):
    return place.root


@pytest.fixture
def fd(fs, root):
    return fs.open_file(root, "file", create=True)


# Names


def test_a_missing_root_is_refused_unless_it_is_to_be_made(place):
    """Opening a root that is not there fails, and makes nothing."""
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            place.fs.open_root(place.path + "/deeper/still")


def test_a_root_is_made_with_its_parents(place):
    """A root made with its parents is the directory that a later opener finds."""
    made = place.fs.open_root(place.path + "/deeper/still", create=True)
    assert place.other.identity(place.other.open_root(place.path + "/deeper/still")) == place.fs.identity(
        made
    )


def test_an_existing_root_is_opened_as_it_is(fs, root, place):
    """Asking for an existing root to be made changes nothing in it."""
    fs.open_file(root, "file", create=True)
    assert fs.names(fs.open_root(place.path, create=True)) == ["file"]


def test_a_root_that_is_a_file_is_refused(fs, root, place):
    """A file is not opened as a root, nor made into one."""
    fs.open_file(root, "file", create=True)
    for create in (False, True):
        with pytest.raises(NotADirectoryError):
            fs.open_root(place.path + "/file", create=create)


def test_a_directory_is_made_once(fs, root):
    """Making a directory that exists opens it."""
    made = fs.open_dir(root, "directory", create=True)
    assert fs.identity(fs.open_dir(root, "directory", create=True)) == fs.identity(made)
    assert fs.identity(fs.open_dir(root, "directory")) == fs.identity(made)


def test_a_missing_directory_is_refused(fs, root):
    """Opening a directory that is not there says so."""
    with pytest.raises(FileNotFoundError):
        fs.open_dir(root, "directory")


@pytest.mark.parametrize("create", [False, True])
def test_a_file_is_no_directory(fs, root, fd, create):
    """A file is not opened as a directory, nor made into one."""
    with pytest.raises(SomethingElse, match="file"):
        fs.open_dir(root, "file", create=create)


def test_a_missing_file_is_refused(fs, root):
    """Opening a file that is not there fails, and makes nothing."""
    for writable in (True, False):
        with pytest.raises(FileNotFoundError):
            fs.open_file(root, "file", writable=writable)
    assert fs.names(root) == []


def test_a_file_that_exists_is_opened_as_it_is(fs, root, fd):
    """Asking for an existing file to be made keeps its bytes."""
    fs.pwrite(fd, b"bytes", 0)
    again = fs.open_file(root, "file", create=True)
    assert fs.pread(again, 10, 0) == b"bytes"
    assert fs.identity(again) == fs.identity(fd)


def test_an_exclusive_file_must_be_new(fs, root):
    """exclusive makes the file, and refuses one that exists."""
    fs.open_file(root, "file", exclusive=True)
    with pytest.raises(FileExistsError):
        fs.open_file(root, "file", exclusive=True)
    with pytest.raises(FileExistsError):
        fs.open_file(root, "file", create=True, exclusive=True)


def test_a_directory_is_no_file(fs, root):
    """A directory in place of a file is refused, whichever way it is opened."""
    fs.open_dir(root, "directory", create=True)
    for options in ({}, {"create": True, "writable": False}, {"writable": False}):
        with pytest.raises(SomethingElse, match="directory"):
            fs.open_file(root, "directory", **options)


def test_names_are_sorted_and_of_one_directory(fs, root):
    """names lists files and directories, sorted, and not what is inside them."""
    inner = fs.open_dir(root, "b", create=True)
    fs.open_file(inner, "x", create=True)
    for name in ("c", "a"):
        fs.open_file(root, name, create=True)
    assert fs.names(root) == ["a", "b", "c"]
    assert fs.names(root) == ["a", "b", "c"]
    assert fs.names(inner) == ["x"]


def test_file_names_are_those_of_files(fs, root):
    """file_names leaves out what is no regular file."""
    fs.open_dir(root, "b", create=True)
    for name in ("c", "a"):
        fs.open_file(root, name, create=True)
    assert fs.file_names(root) == ["a", "c"]


def test_exists_is_true_of_anything_with_the_name(fs, root, fd):
    """exists tells files and directories from names that are not there."""
    fs.open_dir(root, "directory", create=True)
    assert fs.exists(root, "file")
    assert fs.exists(root, "directory")
    assert not fs.exists(root, "nothing")


def test_identities_differ_between_files_and_agree_between_processes(place, fd):
    """identity is the same through every descriptor of a file, and different for any other file."""
    there = place.other.open_file(place.other_root, "file")
    other = place.fs.open_file(place.root, "other", create=True)
    assert place.other.identity(there) == place.fs.identity(fd)
    assert len({place.fs.identity(each) for each in (fd, other, place.root)}) == 3


def test_rename_moves_a_name(fs, root, fd):
    """After a rename the file has the new name, no longer the old one, and is the same file."""
    fs.rename(root, "file", "new")
    assert fs.names(root) == ["new"]
    assert fs.identity(fs.open_file(root, "new")) == fs.identity(fd)


def test_rename_replaces(fs, root, fd):
    """A rename takes the name from the file that had it, which stays readable where it is open."""
    fs.pwrite(fd, b"old", 0)
    new = fs.open_file(root, "file.tmp", create=True)
    fs.pwrite(new, b"new", 0)
    fs.rename(root, "file.tmp", "file")
    assert fs.names(root) == ["file"]
    assert fs.pread(fs.open_file(root, "file"), 9, 0) == b"new"
    assert fs.pread(fd, 9, 0) == b"old"


def test_rename_to_itself_changes_nothing(fs, root, fd):
    """A file renamed to its own name is still there."""
    fs.rename(root, "file", "file")
    assert fs.names(root) == ["file"]


def test_rename_of_nothing_is_refused(fs, root, fd):
    """A missing file cannot be renamed, and what had the new name keeps it."""
    with pytest.raises(FileNotFoundError):
        fs.rename(root, "nothing", "file")
    assert fs.names(root) == ["file"]


def test_rename_between_a_file_and_a_directory_is_refused(fs, root, fd):
    """A file never replaces a directory, nor a directory a file or one that is not empty."""
    fs.open_dir(root, "empty", create=True)
    fs.open_file(fs.open_dir(root, "full", create=True), "x", create=True)
    with pytest.raises(IsADirectoryError):
        fs.rename(root, "file", "empty")
    with pytest.raises(NotADirectoryError):
        fs.rename(root, "empty", "file")
    with pytest.raises(OSError, match="not empty") as refused:
        fs.rename(root, "empty", "full")
    assert refused.value.errno == errno.ENOTEMPTY
    fs.rename(root, "full", "empty")
    assert fs.names(root) == ["empty", "file"]


def test_unlink_takes_the_name_and_leaves_open_descriptors(fs, root, fd):
    """An unlinked file has no name, and can be read through a descriptor opened before."""
    fs.pwrite(fd, b"bytes", 0)
    fs.unlink(root, "file")
    assert fs.names(root) == []
    assert fs.pread(fd, 9, 0) == b"bytes"
    assert fs.identity(fs.open_file(root, "file", create=True)) != fs.identity(fd)


def test_unlink_refuses_what_is_not_a_file(fs, root):
    """A missing name and a directory cannot be unlinked."""
    fs.open_dir(root, "directory", create=True)
    with pytest.raises(FileNotFoundError):
        fs.unlink(root, "nothing")
    with pytest.raises(IsADirectoryError):
        fs.unlink(root, "directory")


# Bytes


def test_bytes_are_read_where_they_were_written(place, fd):
    """Another process reads at once what was written, and no more than there is."""
    assert place.fs.pwrite(fd, b"0123456789", 0) == 10
    assert place.fs.pwrite(fd, b"ab", 4) == 2
    there = place.other.open_file(place.other_root, "file", writable=False)
    assert place.other.pread(there, 100, 0) == b"0123ab6789"
    assert place.other.pread(there, 3, 3) == b"3ab"
    assert place.other.pread(there, 3, 10) == b""
    assert place.other.size(there) == 10


def test_a_write_beyond_the_end_leaves_zeros_before_it(fs, fd):
    """The gap before a write past the end reads as zeros."""
    fs.pwrite(fd, b"x", 3)
    assert fs.pread(fd, 9, 0) == b"\0\0\0x"


def test_a_write_takes_any_buffer(fs, fd):
    """A memoryview is written like bytes, and later changes to it are not."""
    data = bytearray(b"bytes")
    fs.pwrite(fd, memoryview(data), 0)
    data[:] = b"other"
    assert fs.pread(fd, 9, 0) == b"bytes"


def test_an_empty_write_does_nothing(fs, fd):
    """Writing no bytes past the end does not make the file longer."""
    assert fs.pwrite(fd, b"", 5) == 0
    assert fs.size(fd) == 0


def test_truncate_cuts_and_extends_with_zeros(fs, fd):
    """A cut file is shorter, and an extended one does not show what was cut."""
    fs.pwrite(fd, b"0123456789", 0)
    fs.truncate(fd, 4)
    assert fs.size(fd) == 4
    fs.truncate(fd, 6)
    assert fs.pread(fd, 9, 0) == b"0123\0\0"


def test_negative_numbers_are_refused(fs, fd):
    """No call takes a negative offset or length."""
    for call in (lambda: fs.pread(fd, 1, -1), lambda: fs.pwrite(fd, b"x", -1), lambda: fs.truncate(fd, -1)):
        with pytest.raises(OSError, match="Invalid argument") as refused:
            call()
        assert refused.value.errno == errno.EINVAL


def test_a_descriptor_for_reading_does_not_write(fs, root, fd):
    """A file opened with writable=False is neither written nor cut through that descriptor."""
    fs.pwrite(fd, b"bytes", 0)
    reader = fs.open_file(root, "file", writable=False)
    with pytest.raises(OSError, match="Bad file descriptor") as refused:
        fs.pwrite(reader, b"x", 0)
    assert refused.value.errno == errno.EBADF
    with pytest.raises(OSError, match="Invalid argument"):
        fs.truncate(reader, 0)
    assert fs.pread(reader, 9, 0) == b"bytes"


def test_files_and_directories_can_be_synced(fs, root, fd):
    """Both syncs return for a file, also through a descriptor for reading, and sync for a directory."""
    fs.pwrite(fd, b"bytes", 0)
    fs.datasync(fd)
    fs.sync(fd)
    fs.sync(fs.open_file(root, "file", writable=False))
    fs.sync(root)


def test_starting_to_write_changes_nothing(fs, fd):
    """The hint to begin writing leaves the bytes as they are, inside the file and beyond its end."""
    fs.pwrite(fd, b"bytes", 0)
    fs.start_writing(fd, 1, 3)
    fs.start_writing(fd, 100, 100)
    assert fs.pread(fd, 9, 0) == b"bytes"


def test_bytes_are_not_read_or_written_through_a_directory(fs, root):
    """A directory's descriptor is refused where a file's is needed, and the other way round."""
    with pytest.raises(IsADirectoryError):
        fs.pread(root, 1, 0)
    with pytest.raises(NotADirectoryError):
        fs.names(fs.open_file(root, "file", create=True))


def test_a_closed_descriptor_is_refused(fs, root, fd):
    """After close, reading, writing, syncing, locking and closing again fail."""
    fs.close(fd)
    for call in (
        lambda: fs.pread(fd, 1, 0),
        lambda: fs.pwrite(fd, b"x", 0),
        lambda: fs.datasync(fd),
        lambda: fs.size(fd),
        lambda: fs.lock(fd),
        lambda: fs.try_lock(fd),
        lambda: fs.share_lock(fd),
        lambda: fs.close(fd),
    ):
        with pytest.raises(OSError, match="Bad file descriptor") as refused:
            call()
        assert refused.value.errno == errno.EBADF


# Locks


@pytest.fixture
def there(place, fd):
    """The same file, opened by the other process."""
    return place.other.open_file(place.other_root, "file")


def test_an_exclusive_lock_excludes_others(place, fd, there):
    """What one holds another cannot take, until it is given up."""
    place.fs.lock(fd)
    assert not place.other.try_lock(there)
    place.fs.unlock(fd)
    assert place.other.try_lock(there)
    assert not place.fs.try_lock(fd)


def test_a_lock_belongs_to_the_open_file_and_not_to_the_process(fs, root, fd):
    """A second descriptor of the same process does not share the lock, nor does closing it end the lock."""
    second = fs.open_file(root, "file")
    third = fs.open_file(root, "file")
    fs.lock(fd)
    assert not fs.try_lock(second)
    fs.close(second)
    assert not fs.try_lock(third)


def test_a_lock_held_is_taken_again(fs, fd):
    """Locking twice through one descriptor neither waits nor needs two unlocks."""
    fs.lock(fd)
    fs.lock(fd)
    assert fs.try_lock(fd)
    fs.unlock(fd)
    fs.unlock(fd)


def test_close_gives_up_the_lock(place, fd, there):
    """Closing the descriptor frees what it had locked."""
    place.fs.lock(fd)
    place.fs.close(fd)
    assert place.other.try_lock(there)


def test_shared_locks_share(place, fd, there):
    """Two hold the shared lock at once; a third gets no exclusive one until both are gone."""
    place.fs.share_lock(fd)
    place.other.share_lock(there)
    third = place.fs.open_file(place.root, "file")
    assert not place.fs.try_lock(third)
    place.fs.unlock(fd)
    assert not place.fs.try_lock(third)
    place.other.unlock(there)
    assert place.fs.try_lock(third)


def test_a_lock_can_be_traded(place, fd, there):
    """An exclusive lock turns shared when others may share it, and exclusive again when they are gone."""
    place.fs.lock(fd)
    place.fs.share_lock(fd)
    place.other.share_lock(there)
    place.other.unlock(there)
    assert place.fs.try_lock(fd)
    assert not place.other.try_lock(there)


def test_a_trade_that_fails_costs_the_lock(place, fd, there):
    """A shared holder that tries for the exclusive lock, and is refused, holds nothing any more."""
    place.fs.share_lock(fd)
    place.other.share_lock(there)
    assert not place.fs.try_lock(fd)
    assert place.other.try_lock(there)


def test_locks_of_different_files_are_independent(fs, root, fd):
    """Holding one file's lock does not hinder another's, a directory's included."""
    other = fs.open_file(root, "other", create=True)
    fs.lock(fd)
    assert fs.try_lock(other)
    assert fs.try_lock(root)


def test_the_lock_follows_the_file_and_not_the_name(place, fd, there):
    """A lock on a replaced file says nothing about the file that has the name now."""
    place.fs.lock(fd)
    place.fs.open_file(place.root, "new", create=True)
    place.fs.rename(place.root, "new", "file")
    assert not place.other.try_lock(there)
    assert place.other.try_lock(place.other.open_file(place.other_root, "file"))


# Both at once


def story(fs, root, seed):
    """Two hundred calls chosen by the seed, and what came of each: the answer or the error."""
    rng = Random(seed)
    directories, files, told = [root, fs.open_dir(root, "directory", create=True)], [], []
    for _ in range(200):
        directory, name, new = rng.choice(directories), rng.choice("abc"), rng.choice("abc")
        fd, place, length = rng.choice(files or [root]), rng.randrange(40), rng.randrange(20)
        flags = {flag: rng.random() < 0.5 for flag in ("create", "exclusive", "writable")}
        call, arguments, options = rng.choice(
            [
                ("open_file", (directory, name), flags),
                ("open_dir", (directory, name), {"create": rng.random() < 0.2}),
                ("names", (directory,), {}),
                ("exists", (directory, name), {}),
                ("rename", (directory, name, new), {}),
                ("unlink", (directory, name), {}),
                ("sync", (fd,), {}),
                ("try_lock", (fd,), {}),
                ("unlock", (fd,), {}),
            ]
            + [
                ("pwrite", (fd, bytes([place]) * length, place), {}),
                ("pread", (fd, length, place), {}),
                ("truncate", (fd, length), {}),
                ("size", (fd,), {}),
                ("close", (fd,), {}),
            ]
            * bool(files)
        )
        try:
            answer = getattr(fs, call)(*arguments, **options)
        except OSError as error:
            told.append((call, type(error), getattr(error, "errno", None)))
            continue
        if call == "open_file":
            files.append(answer)
        elif call == "open_dir":
            fs.close(answer)
        elif call == "close":
            files.remove(fd)
        told.append((call, None if call.startswith("open_") else answer))
    for fd in files + directories:
        fs.close(fd)
    return told


@pytest.mark.parametrize("seed", range(50))
def test_the_one_in_memory_answers_like_the_real_one(tmp_path, seed):
    """Whatever is called in whatever order, both give the same answers and the same errors."""
    real, memory = RealFileSystem(), MemoryFileSystem()
    told = story(memory, memory.open_root(str(tmp_path), create=True), seed)
    assert told == story(real, real.open_root(str(tmp_path)), seed)
