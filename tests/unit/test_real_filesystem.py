"""The machine's own file system: modes, planted things, and a process that kills itself."""

import errno
import fcntl
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from duraq.journal.filesystem import NotOurs, RealFileSystem, SomethingElse
from duraq.testing import KillingFileSystem


@pytest.fixture
def fs():
    return RealFileSystem()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def root(fs, place):
    return fs.open_root(str(place), create=True)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def listed(path):
    return sorted(each.name for each in Path(path).iterdir())


# Modes and descriptors


@pytest.mark.parametrize("umask", [0, 0o022])
def test_only_the_owner_gets_in(fs, tmp_path, umask):
    """Directories, a root's parents included, are made 0700 and files 0600, whatever the umask is."""
    before = os.umask(umask)
    try:
        root = fs.open_root(str(tmp_path / "parent" / "root"), create=True)
        inner = fs.open_dir(root, "inner", create=True)
        fs.open_file(inner, "created", create=True)
        fs.open_file(inner, "exclusive", exclusive=True)
    finally:
        os.umask(before)
    assert mode(tmp_path / "parent") == mode(tmp_path / "parent/root") == 0o700
    assert mode(tmp_path / "parent/root/inner") == 0o700
    assert mode(tmp_path / "parent/root/inner/created") == 0o600
    assert mode(tmp_path / "parent/root/inner/exclusive") == 0o600


def test_descriptors_do_not_outlive_an_exec(fs, root):
    """Every descriptor is close-on-exec, so that no program the user starts holds our locks."""
    for fd in (root, fs.open_dir(root, "inner", create=True), fs.open_file(root, "file", create=True)):
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_names_of_a_new_root_are_synced(fs, tmp_path, monkeypatch):
    """Making a root syncs the directory of each new name; opening one that is in use syncs nothing."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    root = fs.open_root(str(tmp_path / "a" / "b"), create=True)
    assert synced == [str(tmp_path), str(tmp_path / "a")]
    synced.clear()
    fs.open_root(str(tmp_path / "a" / "b"), create=True)
    assert synced == [str(tmp_path / "a")], "whoever made an empty one may not have lived to sync its name"
    fs.open_file(root, "file", create=True)
    synced.clear()
    fs.open_root(str(tmp_path / "a" / "b"), create=True)
    assert synced == []


def test_no_descriptor_is_left_over(fs, root, place):
    """Refused files, listings and new roots close what they opened."""
    fs.open_file(root, "file", create=True)
    (place / "link").hardlink_to(place / "file")
    gc.collect()  # what other tests have left open must not be closed in the middle of this one
    before = listed("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(NotOurs):
            fs.open_file(root, "file")
        fs.names(root)
        fs.close(fs.open_root(str(place / "x" / "y"), create=True))
    assert listed("/proc/self/fd") == before


# What somebody planted


def test_a_planted_link_to_a_file_is_not_followed(fs, root, place, tmp_path):
    """A symbolic link in place of a file is refused, and what it points to is neither made nor changed."""
    (tmp_path / "victim").write_bytes(b"precious")
    (place / "file").symlink_to(tmp_path / "victim")
    (place / "dangling").symlink_to(tmp_path / "made")
    for name in ("file", "dangling"):
        for options in ({}, {"writable": False}, {"create": True}):
            with pytest.raises(SomethingElse, match=name):
                fs.open_file(root, name, **options)
        with pytest.raises(FileExistsError):
            fs.open_file(root, name, exclusive=True)
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "made").exists()


def test_a_planted_link_to_a_directory_is_not_followed(fs, root, place, tmp_path):
    """A symbolic link in place of a directory is refused, whether or not it may be made."""
    (tmp_path / "elsewhere").mkdir()
    (place / "inner").symlink_to(tmp_path / "elsewhere")
    for create in (False, True):
        with pytest.raises(SomethingElse, match="inner"):
            fs.open_dir(root, "inner", create=create)
    assert listed(tmp_path / "elsewhere") == []


@pytest.mark.timeout(5)
@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("create", [True, False])
def test_a_planted_fifo_is_refused_at_once(fs, root, place, writable, create):
    """A FIFO in place of a file is refused without waiting for its other end."""
    os.mkfifo(place / "file")
    with pytest.raises(SomethingElse, match="file"):
        fs.open_file(root, "file", writable=writable, create=create)


def test_a_planted_socket_is_refused(fs, root, place, monkeypatch):
    """A socket in place of a file cannot be opened."""
    monkeypatch.chdir(place)
    with socket.socket(socket.AF_UNIX) as planted:
        planted.bind("file")
        with pytest.raises(SomethingElse, match="file"):
            fs.open_file(root, "file")


def test_a_second_link_is_refused(fs, root, place, tmp_path):
    """A file that has another name somewhere is refused: writing to it would write to that one."""
    (tmp_path / "victim").write_bytes(b"precious")
    (place / "file").hardlink_to(tmp_path / "victim")
    for options in ({}, {"writable": False}, {"create": True}):
        with pytest.raises(NotOurs, match="second name"):
            fs.open_file(root, "file", **options)


def test_a_planted_directory_is_refused(fs, root, place):
    """A directory in place of a file is refused."""
    (place / "file").mkdir()
    for options in ({"create": True}, {"writable": False}):
        with pytest.raises(SomethingElse, match="file"):
            fs.open_file(root, "file", **options)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_somebody_elses_file_is_refused(fs, root, place):
    """A file or a directory that belongs to neither us nor root is refused."""
    (place / "file").touch(0o600)
    (place / "inner").mkdir(0o700)
    for name in ("file", "inner"):
        os.chown(place / name, 65534, 65534)
    with pytest.raises(NotOurs, match="belongs to user 65534"):
        fs.open_file(root, "file")
    with pytest.raises(NotOurs, match="belongs to user 65534"):
        fs.open_dir(root, "inner")
    with pytest.raises(NotOurs, match="belongs to user 65534"):
        fs.open_root(str(place / "inner"), create=True)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(fs, root, place, mode):
    """A directory that others may write to is refused, with the command that ends that."""
    (place / "inner").mkdir()
    (place / "inner" / "file").touch(0o600)
    (place / "inner").chmod(mode)
    for opening in (lambda: fs.open_dir(root, "inner"), lambda: fs.open_root(str(place / "inner"))):
        with pytest.raises(NotOurs, match="chmod -R go-w"):
            opening()
    with pytest.raises(NotOurs):
        fs.open_root(str(place / "inner"), create=True)
    assert mode == stat.S_IMODE((place / "inner").stat().st_mode)


def test_an_empty_directory_becomes_its_owners_alone(fs, tmp_path):
    """A directory made for a storage with a umask of 002 becomes its owner's alone; one like /tmp stays."""
    for before, after in ((0o775, 0o755), (0o1777, 0o1777), (0o777, 0o777), (0o2775, 0o2775)):
        made = tmp_path / f"{before:o}"
        made.mkdir()
        made.chmod(before)
        with nullcontext() if before == 0o775 else pytest.raises(NotOurs, match="others may write"):
            fs.open_root(str(made), create=True)
        assert mode(made) == after


def test_what_a_backup_brought_back_is_private_again(fs, root, place):
    """A file that is opened to be there is for its owner alone afterwards, whatever it was before."""
    (place / "lock").touch()
    (place / "lock").chmod(0o644)
    fs.open_file(root, "lock", writable=False)
    assert mode(place / "lock") == 0o644
    fs.open_file(root, "lock", create=True)
    assert mode(place / "lock") == 0o600


def test_a_planted_link_exists_and_is_not_looked_through(fs, root, place):
    """A dangling link counts as an existing name."""
    (place / "file").symlink_to(place / "nothing")
    assert fs.exists(root, "file")


# Threads and locks


def test_threads_list_a_directory_through_one_descriptor(fs, root, place):
    """Threads that list the same directory at once all see every name, once."""
    names = [f"{n:03}" for n in range(200)]
    for name in names:
        (place / name).touch()
    wrong = []

    def listing():
        wrong.extend(found for found in (fs.names(root) for _ in range(100)) if found != names)

    threads = [threading.Thread(target=listing) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_lock_that_the_system_refuses_is_an_os_error(root, monkeypatch):
    """When the kernel has no locks left, the caller is told its own error."""

    def refuse(fd, flags):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    fs = RealFileSystem()
    for call in (fs.lock, fs.try_lock, fs.share_lock):
        with pytest.raises(OSError, match="No locks") as refused:
            call(root)
        assert refused.value.errno == errno.ENOLCK


@pytest.mark.timeout(20)
def test_lock_waits_for_its_holder(fs, root):
    """A waiting lock is had as soon as the other descriptor gives it up."""
    holder, waiter = (fs.open_file(root, "file", create=True) for _ in range(2))
    fs.lock(holder)
    taken = threading.Event()

    def wait():
        fs.lock(waiter)
        taken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not taken.wait(0.05)
    fs.unlock(holder)
    assert taken.wait(10)
    thread.join()


# A process that kills itself

PROGRAM = """
import sys
from duraq.testing import KillingFileSystem

path, n, at, tear = sys.argv[1:]
options = {"at": set(at.split(","))} if at else {}
fs = KillingFileSystem(int(n) or None, tear=bool(tear), **options)
root = fs.open_root(path, create=True)
directory = fs.open_dir(root, "directory", create=True)
fd = fs.open_file(directory, "file", create=True)
fs.lock(fd)
fs.pwrite(fd, b"12345678", 0)
fs.pread(fd, 8, 0)
fs.truncate(fd, 6)
fs.datasync(fd)
fs.unlock(fd)
fs.sync(directory)
fs.rename(directory, old="file", new="new")
fs.open_file(directory, "new", create=True)
fs.unlink(directory, "new")
print(fs.calls, ",".join(fs.trace))
"""
EVERY_CALL = [
    "open_root",
    "open_dir",
    "open_file",
    "lock",
    "pwrite",
    "pread",
    "truncate",
    "datasync",
    "unlock",
    "sync",
    "rename",
    "unlink",
]


def run(path, n=0, at="", tear=""):
    """Run the program over ``path``; gives its return code and what it printed."""
    command = [sys.executable, "-c", PROGRAM, str(path), str(n), at, tear]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ended.stderr == ""
    return ended.returncode, ended.stdout.strip()


def test_without_a_number_it_only_counts(place):
    """A first run tells how many places there are to be killed at, and which."""
    assert run(place) == (0, f"{len(EVERY_CALL)} {','.join(EVERY_CALL)}")


@pytest.mark.parametrize(
    ("n", "left"),
    [(1, None), (3, []), (4, [("file", b"")]), (5, [("file", b"")]), (6, [("file", b"12345678")])],
)
def test_it_kills_before_the_call(place, n, left):
    """A process killed at its n-th call has done the calls before it, and not that one."""
    assert run(place, n) == (-signal.SIGKILL, "")
    assert place.exists() is (left is not None)
    if left is not None:
        assert [(each.name, each.read_bytes()) for each in (place / "directory").iterdir()] == left


def test_it_kills_at_the_last_call_and_not_after(place):
    """The last number kills at the last call; the one after it lets the process end."""
    assert run(place, len(EVERY_CALL)) == (-signal.SIGKILL, "")
    assert listed(place / "directory") == ["new"]
    assert run(place.with_name("other"), len(EVERY_CALL) + 1)[0] == 0


def test_it_kills_in_the_middle_of_a_write(place):
    """With tear, the process dies when half of its write is in the file."""
    assert run(place, 5, tear="yes") == (-signal.SIGKILL, "")
    assert (place / "directory/file").read_bytes() == b"1234"


def test_it_counts_only_the_chosen_calls(place):
    """A sweep over some calls counts no others."""
    assert run(place, at="datasync,sync") == (0, "2 datasync,sync")
    assert run(place.with_name("other"), 2, at="datasync,sync") == (-signal.SIGKILL, "")
    assert (place.with_name("other") / "directory/file").read_bytes() == b"123456"


def test_a_sweep_that_can_never_kill_is_refused():
    """A number below one, or a call that is not counted, is a mistake in the harness."""
    with pytest.raises(ValueError, match="1st"):
        KillingFileSystem(0)
    with pytest.raises(ValueError, match="1st"):
        KillingFileSystem(1, at={"size"})


@pytest.mark.parametrize("call", ["fstat", "fchmod"])
def test_nothing_stays_open_that_could_not_be_looked_at(fs, root, place, monkeypatch, call):
    """Whatever fails after a file or a directory was opened, its descriptor is given up."""
    (place / "file").touch()
    (place / "file").chmod(0o644)
    before = descriptors()

    def fails(*_):
        raise PermissionError(errno.EACCES, "no")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fails)
        with pytest.raises(PermissionError):
            fs.open_file(root, "file", create=True)
        if call == "fstat":
            with pytest.raises(PermissionError):
                fs.open_root(str(place))
    assert descriptors() == before


def descriptors():
    return sorted(each.name for each in Path("/proc/self/fd").iterdir())
