"""A storage in bad surroundings: each refusal has an error of its own, and nothing is half written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from duraq import (
    FileStorage,
    NetworkFileSystem,
    NotAStorage,
    NotEnqueued,
    NotWritten,
    QueueManager,
    StorageError,
    StorageForked,
    StorageReadOnly,
    UnsupportedVersion,
)
from duraq.inspector import Inspector
from duraq.journal import lease
from duraq.journal.log import Sizes
from duraq.journal.mounts import file_system_type, is_network

SMALL = Sizes(journal=64 << 10, segment=32 << 10)
NOBODY = 65534

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="mounting a file system, or becoming nobody, needs root"
)


def test_a_directory_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    """A directory that is neither empty nor a storage is refused, and nothing is added to it."""
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(NotAStorage, match="not empty"):
        FileStorage(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_missing_storage_is_not_made_unless_asked(tmp_path: Path) -> None:
    """With create=False a directory that is no storage is refused."""
    with pytest.raises(NotAStorage):
        FileStorage(tmp_path, create=False)


def test_a_newer_format_is_refused_untouched(tmp_path: Path) -> None:
    """A storage of a newer format is refused, and its marker stays as it was."""
    FileStorage(tmp_path / "q", sizes=SMALL).close()
    marker = tmp_path / "q" / "duraq.json"
    marker.write_text('{"format":2}\n')
    with pytest.raises(UnsupportedVersion, match="format 2"):
        FileStorage(tmp_path / "q")
    assert marker.read_text() == '{"format":2}\n'


def test_what_cannot_be_opened_leaves_nothing_open(tmp_path: Path) -> None:
    """A storage that cannot be opened keeps no descriptor, and so no lock, of what was opened by then."""
    FileStorage(tmp_path / "q", sizes=SMALL).close()
    (tmp_path / "q" / "leases").rmdir()
    (tmp_path / "q" / "leases").write_text("not a directory")
    before = list(Path("/proc/self/fd").iterdir())
    with pytest.raises(StorageError):
        FileStorage(tmp_path / "q")
    assert list(Path("/proc/self/fd").iterdir()) == before


MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:44 / /srv/share rw - nfs4 host:/share rw
31 22 0:45 / /srv/with\040space rw shared:7 - fuse.sshfs host: rw
32 30 8:2 / /srv/share/local rw - xfs /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/home/me", "ext4", False),
        ("/srv/share", "nfs4", True),
        ("/srv/share/q", "nfs4", True),
        ("/srv/shareholder", "ext4", False),
        ("/srv/with space/q", "fuse.sshfs", True),
        ("/srv/share/local/q", "xfs", False),
    ],
)
def test_the_file_system_below_a_path_is_known(path: str, kind: str, network: bool) -> None:
    """The longest mount point above a path says what it lies on."""
    assert file_system_type(path, MOUNTS) == kind
    assert is_network(kind) is network


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage on a network file system is refused before anything is written, unless it is forced."""
    monkeypatch.setattr("duraq.storage.file.file_system_type", lambda _: "nfs4")
    with pytest.raises(NetworkFileSystem, match="nfs4"):
        FileStorage(tmp_path / "q")
    assert not (tmp_path / "q").exists()
    FileStorage(tmp_path / "q", allow_network=True, sizes=SMALL).close()


@pytest.mark.parametrize(("mode", "warned"), [(0o777, True), (0o1777, False), (0o755, False)])
def test_a_parent_that_anybody_may_write_to_is_told_of(tmp_path, caplog, mode, warned):
    """A storage below a directory in which anybody may rename things is opened, and the log says so."""
    (tmp_path / "open" / "below").mkdir(parents=True)
    (tmp_path / "open").chmod(mode)
    FileStorage(tmp_path / "open" / "below" / "q", sizes=SMALL).close()
    assert (str(tmp_path / "open") in caplog.text.partition("see ")[2]) is warned


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_storage_that_others_may_write_to_is_refused(tmp_path, mode):
    """A storage with a directory that others may write to is not opened, and may be looked at."""
    with FileStorage(tmp_path / "q", sizes=SMALL) as storage:
        QueueManager(storage).queue("emails", str).enqueue("x")
    for exposed in (tmp_path / "q", tmp_path / "q" / "emails", tmp_path / "q" / "journal"):
        exposed.chmod(mode)
        with pytest.raises(NotAStorage, match="chmod -R go-w"):
            FileStorage(tmp_path / "q")
        with Inspector(tmp_path / "q") as inspector:
            assert inspector.counts("emails").ready == 1
        exposed.chmod(0o700)
    FileStorage(tmp_path / "q").close()


@needs_root
@pytest.mark.root
def test_a_directory_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """Opening another user's storage for writing raises StorageReadOnly, which names the directory."""
    FileStorage(tmp_path / "q", sizes=SMALL).close()
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and str(directory).startswith("/tmp/pytest"):
            directory.chmod(0o755)
    (tmp_path / "q").chmod(0o755)
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            FileStorage(tmp_path / "q")
        except StorageReadOnly as error:
            os._exit(0 if str(tmp_path) in str(error) else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    place.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a tmpfs here: {error}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=False)


@needs_root
@pytest.mark.root
def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    """A full disk refuses entries whole, loses nothing, and takes entries again once there is space."""
    with small_disk(tmp_path / "disk", "1m") as disk, FileStorage(disk / "q", sizes=SMALL) as storage:
        queue = QueueManager(storage).queue("emails", str)
        accepted = []
        with pytest.raises(NotEnqueued, match="disk is full"):  # noqa: PT012 - which one fails is not known
            for number in range(1000):
                queue.enqueue("x" * 4000, id=f"e{number}")
                accepted.append(f"e{number}")
        with pytest.raises(NotEnqueued):
            queue.enqueue_many(["y" * 4000] * 10)
        assert [entry.id for entry in queue.entries()] == accepted
        with FileStorage(disk / "q", create=False) as other:
            assert [entry.id for entry in QueueManager(other).queue("emails", str).entries()] == accepted
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        queue.enqueue("x" * 4000, id="afterwards")
        assert [entry.id for entry in queue.entries()] == [*accepted, "afterwards"]


def test_a_worker_that_cannot_appear(tmp_path, monkeypatch):
    """Where a worker's files cannot be made, dequeuing says so in our words, and leases nothing."""
    with FileStorage(tmp_path / "q", sizes=SMALL) as storage:
        queue = QueueManager(storage).queue("emails", str)
        queue.enqueue("x")

        def refuse(*_, **__):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "4711.new")

        monkeypatch.setattr(lease._files, "open_file", refuse)
        with pytest.raises(NotWritten, match=r"leases.*disk is full"):
            queue.dequeue()
        monkeypatch.undo()
        assert queue.dequeue().data == "x"


def test_no_file_descriptors_left(tmp_path: Path) -> None:
    """Without descriptors a call fails clearly, before anything is written, and works again with some."""
    program = f"""
import os, resource
from duraq import FileStorage, QueueManager, NotEnqueued, StorageError
from duraq.journal.log import Sizes
storage = FileStorage({str(tmp_path / "q")!r}, sizes=Sizes(journal=1 << 20, segment=2000))
manager = QueueManager(storage)
queue = manager.queue("emails", str)
queue.enqueue("first")
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
accepted = 1
try:
    while True:  # until a new segment is due
        queue.enqueue("x" * 200)
        accepted += 1
except NotEnqueued as error:
    assert "ulimit -n" in str(error), error
try:
    manager.queue("another", str).enqueue("x")
    raise SystemExit("a queue was made without descriptors")
except StorageError as error:
    assert "ulimit -n" in str(error), error
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
queue.enqueue("last")
assert len(queue) == accepted + 1, (len(queue), accepted)
manager.queue("another", str).enqueue("x")
storage.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with FileStorage(tmp_path / "q") as storage:
        assert len(QueueManager(storage).queue("another", str)) == 1


def test_a_file_size_limit_is_a_refusal(tmp_path: Path) -> None:
    """A segment that may not grow (RLIMIT_FSIZE) refuses the entry whole, and goes on when it may."""
    program = f"""
import resource, signal
from duraq import FileStorage, QueueManager, NotEnqueued
from duraq.journal.log import Sizes
storage = FileStorage({str(tmp_path / "q")!r}, sizes=Sizes(journal=8192, segment=1 << 20))
queue = QueueManager(storage).queue("emails", str)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))
accepted = 0
try:
    while accepted < 1000:
        queue.enqueue("x" * 500)
        accepted += 1
    raise SystemExit("the limit was not met")
except NotEnqueued:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
queue.enqueue("last")
assert len(queue) == accepted + 1
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_storage_used_after_fork_says_so(tmp_path: Path) -> None:
    """In a forked child every call on the parent's storage raises StorageForked, and the parent goes on."""
    with FileStorage(tmp_path / "q", sizes=SMALL) as storage:
        queue = QueueManager(storage).queue("emails", str)
        queue.enqueue("one")
        held = queue.dequeue()
        assert held is not None
        pid = os.fork()
        if pid == 0:
            code = 0
            for call in (
                lambda: queue.enqueue("x"),
                queue.dequeue,
                queue.counts,
                queue.entries,
                lambda: queue.mark_completed(held),
                storage.queues,
            ):
                try:
                    call()
                    code = 1
                except StorageForked:
                    pass
            storage.close()
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        queue.mark_completed(held)
        queue.enqueue("two")
        assert len(queue) == 1


def test_the_directories_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Every directory is 0700 and every file 0600, whatever the umask: who can open a lock can hold it."""
    before = os.umask(0)
    try:
        with FileStorage(tmp_path / "q", sizes=SMALL) as storage:
            queue = QueueManager(storage).queue("emails", str)
            queue.enqueue("one")
            queue.dequeue()
            for path in (tmp_path / "q", *(tmp_path / "q").rglob("*")):
                assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    finally:
        os.umask(before)
