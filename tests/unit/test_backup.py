"""Copies of storages: backups that are made while others work, and what is made of them."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from duraq import (
    FileStorage,
    NotAStorage,
    Queue,
    Sizes,
    StorageDamaged,
    backup,
    restore,
    verify,
)

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
    with pytest.raises(NotAStorage, match="not empty"):
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
