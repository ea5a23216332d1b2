"""Copies of storages: backups that are made while others work, and what is made of them."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest

from duraq import (
    FileStorage,
    NotAStorage,
    NotEmpty,
    Queue,
    Sizes,
    StorageBusy,
    StorageDamaged,
    StorageError,
    StorageReadOnly,
    backup,
    restore,
    verify,
)
from duraq.journal.filesystem import RealFileSystem
from duraq.testing import Crashed, MemoryFileSystem

SIZES = Sizes(journal=32 << 10, segment=4 << 10)

# Enqueues the same number to two queues at once, for ever, and completes some: says each that is durable.
LOAD = """
import sys
from duraq import FileStorage, Queue, Sizes
storage = FileStorage(sys.argv[1], sizes=Sizes(journal=32 << 10, segment=4 << 10), history=int(sys.argv[2]))
left, right = Queue("left", storage), Queue("right", storage)
number = 0
while True:
    with storage.transaction():
        for queue in (left, right):
            queue.enqueue("x" * 50, id=f"n{number}")
    print(number, flush=True)
    if number % 3 == 0:
        for queue in (left, right):
            queue.mark_completed(queue.dequeue())
    if number % 50 == 49:
        storage.compact("left")
    number += 1
"""


@pytest.fixture(params=[0])
def busy(tmp_path, request):
    """A storage that another process works all the time, keeping that much history, and that process."""
    path = tmp_path / "busy"
    FileStorage(path, sizes=SIZES).close()
    command = [sys.executable, "-W", "error", "-c", LOAD, str(path), str(request.param)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield path, process
        process.kill()


def hear(process, count):
    """Wait until it has said that many numbers; returns the last."""
    for _ in range(count):
        last = process.stdout.readline()
    return int(last)


def ids(path, queue):
    with FileStorage(path) as storage:
        return [entry.id for entry in storage.entries(queue)]


def numbered(path, queue):
    return {int(name[1:]) for name in ids(path, queue)}


def test_a_backup_is_of_one_moment(busy, tmp_path):
    """Whatever goes on meanwhile, a copy has whole transactions only, and all that were durable before it."""
    path, process = busy
    for number in range(4):
        durable = hear(process, 40)
        copied = backup(path, tmp_path / f"copy{number}")
        assert copied.queues == ["left", "right"]
        left, right = (numbered(copied.path, queue) for queue in copied.queues)
        newest = max(left)
        assert newest == max(right) >= durable
        # The two are completed one after the other, so they may differ in one of those.
        assert len(left ^ right) <= 1
    assert process.poll() is None
    hear(process, 3)


def test_a_backup_is_a_storage(tmp_path):
    """A copy can be worked, with priorities, attempts and dead letters as they were, and history settings."""
    with FileStorage(tmp_path / "one", history=5_000, sizes=SIZES) as storage:
        queue = Queue("jobs", storage)
        for number in range(200):
            queue.enqueue(number, id=f"n{number}", priority=number % 3)
        queue.mark_failed(queue.dequeue(), "no", dead=True)
        queue.pause("because")
        backup(storage.path, tmp_path / "two")
        wanted = storage.entries("jobs")
    with FileStorage(tmp_path / "two") as copy:
        assert copy.entries("jobs") == wanted
        assert copy._log.history == {"bytes": 5_000}
        queue = Queue("jobs", copy)
        queue.resume()
        queue.mark_completed(queue.dequeue())
        queue.enqueue("more")
    assert verify(tmp_path / "two").sound


def test_the_owner_goes_on_meanwhile(tmp_path, monkeypatch):
    """While segments are copied, others enqueue and complete, and nothing of the copy is removed."""
    with FileStorage(tmp_path / "one", sizes=SIZES) as storage:
        queue = Queue("jobs", storage)
        for number in range(300):
            queue.enqueue(number, id=f"n{number}")
        copying, go_on = threading.Event(), threading.Event()
        from duraq.journal.copying import Copier  # noqa: PLC0415 - to stop it in the middle

        copy_queue = Copier._copy_queue
        monkeypatch.setattr(
            Copier,
            "_copy_queue",
            lambda *given: (copying.set(), go_on.wait(60), copy_queue(*given))[2],
        )
        thread = threading.Thread(target=backup, args=(storage.path, tmp_path / "two"))
        thread.start()
        assert copying.wait(60)
        while (entry := queue.dequeue()) is not None:
            queue.mark_completed(entry)
        queue.enqueue("new", id="new")
        go_on.set()
        thread.join()
        storage.compact("jobs")
    assert ids(tmp_path / "two", "jobs") == [f"n{number}" for number in range(300)]
    assert ids(tmp_path / "one", "jobs") == ["new"]


def test_restore_brings_it_back(tmp_path):
    """What was backed up is a storage again, elsewhere; the backup itself is not touched."""
    with FileStorage(tmp_path / "one") as storage:
        Queue("jobs", storage).enqueue_many(range(10), ids=[f"n{number}" for number in range(10)])
        backup(storage.path, tmp_path / "backup")
    before = {path: path.read_bytes() for path in (tmp_path / "backup").rglob("*") if path.is_file()}
    restored = restore(tmp_path / "backup", tmp_path / "again")
    assert (restored.records, restored.queues) == (10, ["jobs"])
    after = {path: path.read_bytes() for path in (tmp_path / "backup").rglob("*") if path.is_file()}
    assert after == before
    assert ids(tmp_path / "again", "jobs") == ids(tmp_path / "one", "jobs")


# While segments are removed, cp finds some of them gone, and says so.
@pytest.mark.parametrize("busy", [1 << 30], indirect=True)
def test_a_plain_copy_opens_too(busy, tmp_path):
    """A `cp -a` of a storage in use is a storage, as it was at some moment, with whole transactions only."""
    path, process = busy
    durable = hear(process, 30)
    done = subprocess.run(["cp", "-a", path, tmp_path / "copy"], check=False, capture_output=True, text=True)
    # What was made beside a segment may have got its name since cp has listed it, and of that it complains.
    assert all("checkpoint.tmp" in line or "index.tmp" in line for line in done.stderr.splitlines())
    restored = restore(tmp_path / "copy", tmp_path / "again")
    for place in (tmp_path / "copy", restored.path):
        left, right = numbered(place, "left"), numbered(place, "right")
        assert max(left) == max(right) >= durable


@pytest.mark.parametrize("make", [backup, restore])
def test_only_into_an_empty_directory(tmp_path, make):
    """A directory in which there is something is refused, and left as it is."""
    FileStorage(tmp_path / "one").close()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "letter.txt").write_text("mine")
    with pytest.raises(NotEmpty, match="not empty"):
        make(tmp_path / "one", tmp_path / "two")
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("make", [backup, restore])
def test_a_damaged_storage_is_not_passed_on(tmp_path, make):
    """Of a storage that is damaged there is no copy that could be taken for a good one."""
    with FileStorage(tmp_path / "one", sizes=SIZES) as storage:
        for _ in range(300):
            Queue("jobs", storage).enqueue("payload")
    # One that the journal knows nothing of any more.
    first = min((tmp_path / "one" / "jobs" / "segments").glob("*.jsonl"))
    first.write_bytes(first.read_bytes().replace(b"payload", b"paylaod", 1))
    with pytest.raises(StorageDamaged):
        make(tmp_path / "one", tmp_path / "two")
    with pytest.raises(NotAStorage):
        verify(tmp_path / "two" / "nothing")
    assert not (tmp_path / "two" / "duraq.json").exists()


@pytest.mark.parametrize("make", [backup, restore])
def test_what_is_no_storage(tmp_path, make):
    """A directory that is missing, or no storage, is named."""
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        with pytest.raises(NotAStorage, match=name):
            make(tmp_path / name, tmp_path / "two")
    assert not (tmp_path / "two").exists()


class Full(RealFileSystem):
    """A disk on which what is written or synced below ``place`` fits up to the so manieth call."""

    def __init__(self, place, calls):
        super().__init__()
        self.place, self.left = place, calls
        self.pwrite = self._limited(os.pwrite)
        self.sync = self._limited(os.fsync)

    def _limited(self, call):
        def limited(fd, *more):
            if Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(self.place):
                self.left -= 1
                # What is freed afterwards can be synced.
                if self.left < 0 and (call is os.pwrite or self.left == -1):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(fd, *more)

        return limited


@pytest.mark.parametrize("make", [backup, restore])
def test_a_full_disk(tmp_path, make):
    """Wherever a copy stops for want of space, the error names the place, and nothing of it stays."""
    with FileStorage(tmp_path / "one", sizes=SIZES) as storage:
        for name in ("a", "b"):
            Queue(name, storage).enqueue_many(range(100))
    two = tmp_path / "two"
    full = Full(two, sys.maxsize)
    make(tmp_path / "one", two, file_system=full)
    enough = sys.maxsize - full.left
    assert enough > 10
    for calls in range(enough):
        shutil.rmtree(two)
        with pytest.raises(StorageError, match=f"{two}: No space left on device"):
            make(tmp_path / "one", two, file_system=Full(two, calls))
        assert list(two.iterdir()) == []


class Filling(Full):
    """Somebody else puts photos there meanwhile."""

    def _limited(self, call):
        limited = super()._limited(call)

        def filled(fd, *more):
            if self.place.exists() and not (self.place / "photos").exists():
                (self.place / "photos").mkdir()
                (self.place / "link").symlink_to(self.place.parent)
                (self.place / "photos" / "a.jpg").touch()
            return limited(fd, *more)

        return filled


@pytest.mark.parametrize("make", [backup, restore])
def test_what_others_put_there_stays(tmp_path, make):
    """A copy that fails takes away what it has made, and nothing that somebody else has put there."""
    with FileStorage(tmp_path / "one", sizes=SIZES) as storage:
        Queue("jobs", storage).enqueue_many(range(100))
    two = tmp_path / "two"
    with pytest.raises(StorageError, match="No space left"):
        make(tmp_path / "one", two, file_system=Filling(two, 2))
    assert sorted(path.name for path in two.rglob("*")) == ["a.jpg", "link", "photos"]


@pytest.mark.parametrize("make", [backup, restore])
def test_only_one_copy_at_a_time(tmp_path, make):
    """While somebody makes a storage of a directory nobody else does: neither removes what the other made."""
    FileStorage(tmp_path / "one").close()
    (tmp_path / "two").mkdir()
    fs = RealFileSystem()
    somebody = fs.open_root(str(tmp_path / "two"))
    fs.lock(somebody)
    with pytest.raises(StorageBusy, match="just now"):
        make(tmp_path / "one", tmp_path / "two")
    fs.close(somebody)
    make(tmp_path / "one", tmp_path / "two")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming nobody needs root")
def test_who_may_only_read(tmp_path):
    """Who may read a storage and not hold up those who work it is told so, and what can be done."""
    with FileStorage(tmp_path / "one") as storage:
        Queue("jobs", storage).enqueue("x")
    for path in (tmp_path / "one").rglob("*"):
        path.chmod(path.stat().st_mode | 0o055)
    for path in (tmp_path / "one", tmp_path, *tmp_path.parents[:3]):
        if not path.stat().st_mode & 0o001:
            path.chmod(0o755)
    (tmp_path / "mine").mkdir()
    os.chown(tmp_path / "mine", 65534, 65534)
    os.seteuid(65534)
    try:
        with pytest.raises(
            StorageReadOnly, match=r"/one: Permission denied.*as their user, or copy the files"
        ):
            backup(tmp_path / "one", tmp_path / "mine" / "copy")
        assert not (tmp_path / "mine" / "copy").exists()
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("make", [backup, restore])
def test_a_power_cut_while_a_copy_is_removed(make):
    """Wherever a power cut comes, also while a copy that failed is removed, what has a marker is whole."""
    disk = MemoryFileSystem()
    with FileStorage("/one", file_system=disk.process(), sizes=SIZES) as storage:
        for name in ("a", "b"):
            Queue(name, storage).enqueue_many(range(3))
    rng = Random(0)
    for calls in range(1, 1000):
        machine = disk.power_cut(rng)
        process = machine.process()
        # That of the directory itself, when the marker has its name.
        process.fail("sync", name=".", when=2)
        process.crash_after(calls)
        with contextlib.suppress(StorageError, Crashed):
            make("/one", "/two", file_system=process)
            pytest.fail("a sync has failed")
        if not process.is_dead:
            break  # it was at its end before
        for after in (machine.surviving(nothing=True), *(machine.power_cut(rng) for _ in range(2))):
            if "two/duraq.json" in after.files():
                assert verify("/two", file_system=after).records == 6
    assert 20 < calls < 999
