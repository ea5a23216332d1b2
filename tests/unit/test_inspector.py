"""Looking at a storage from outside."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
import watchfiles

from duraq import (
    Cause,
    DeadLetterQueue,
    EntryNotFound,
    EntryStatus,
    ExponentialBackoff,
    FileStorage,
    NotAStorage,
    NotEnqueued,
    Queue,
    QueueError,
    QueueNotFound,
    StorageClosed,
    StorageDamaged,
    StorageReadOnly,
    UnsupportedVersion,
)
from duraq.inspector import Inspector
from duraq.journal.log import Sizes
from duraq.journal.reading import ReaderFileSystem
from duraq.operations import Complete, Enqueue
from duraq.testing import FakeClock, MemoryFileSystem

SMALL = Sizes(journal=1 << 14, segment=2000)
NOW = ExponentialBackoff(base_delay=timedelta(0), max_attempts=2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "storage"


@pytest.fixture
def storage(path):
    with FileStorage(path, durability="process", sizes=SMALL) as storage:
        yield storage


@pytest.fixture
def queue(storage):
    return Queue("jobs", storage, retry_policy=NOW)


@pytest.fixture
def inspector(storage, path):
    with Inspector(path) as inspector:
        yield inspector


def tree(path):
    """Every file's name, times, mode and bytes."""
    found = {}
    for each in sorted(path.rglob("*")):
        about = each.lstat()
        content = each.read_bytes() if stat.S_ISREG(about.st_mode) else None
        found[str(each)] = (about.st_mode, about.st_mtime_ns, about.st_ino, content)
    return found


def fill(queue, count):
    """Enqueue one by one, so that segments are sealed and the journal is recycled."""
    for number in range(count):
        queue.enqueue(number)


def segments(path, queue="jobs"):
    return sorted((path / queue / "segments").glob("*.jsonl"))


# -- what it sees ------------------------------------------------------------------------------------------


def test_queues_and_counts(queue, inspector):
    """It sees each queue and how many entries are in which state."""
    queue.enqueue_many(range(5))
    queue.enqueue("later", delay=timedelta(hours=1))
    queue.mark_failed(queue.dequeue(), dead=True)
    queue.dequeue()
    inspector.refresh()
    assert inspector.queues() == ["jobs"]
    assert inspector.counts("jobs") == queue.counts()
    assert inspector.counts("jobs").dead == 1


def test_entries(queue, inspector):
    """It sees entries as their queue does: payload, order, attempts, errors."""
    queue.enqueue({"n": 1})
    queue.enqueue({"n": 2}, priority=5, ttl=timedelta(hours=1))
    queue.mark_failed(queue.dequeue(), ValueError("no"), retry_in=timedelta(0))
    inspector.refresh()
    ready = inspector.entries("jobs", EntryStatus.READY)
    assert [orjson.loads(view.payload)["n"] for view in ready] == [2, 1]
    first, known = ready[0], queue.get(ready[0].id)
    assert (first.priority, first.attempts, first.history) == (5, 1, known.errors)
    assert (first.created_at, first.updated_at, first.expires_at) == (
        known.created_at,
        known.updated_at,
        known.expires_at,
    )
    assert inspector.entries("jobs", limit=1, offset=1) == inspector.entries("jobs")[1:2]
    assert inspector.get(first.id) == first
    assert inspector.get(first.id, "jobs") == first


def test_pause(queue, inspector):
    """It sees who paused a queue and why."""
    queue.pause("incident", who="ann")
    inspector.refresh()
    assert inspector.paused("jobs") == queue.paused
    assert inspector.overview("jobs").pause == queue.paused


def test_as_of_the_refresh(queue, inspector):
    """What it has told stays told until it is asked to look again; then it sees what was added since."""
    queue.enqueue(1)
    inspector.refresh()
    assert inspector.counts("jobs").ready == 1
    fill(queue, 50)
    assert inspector.counts("jobs").ready == 1
    inspector.refresh()
    assert inspector.counts("jobs").ready == 51
    assert len(segments(Path(inspector.path))) > 1


def test_overview_of_the_ready(queue, inspector):
    """The oldest ready entry is the one that could have been leased for longest, not the one made first."""
    queue.enqueue(1)
    queue.enqueue(2)
    first = queue.dequeue()
    queue.release(first)
    inspector.refresh()
    waits = [view.ready_since for view in inspector.entries("jobs", EntryStatus.READY)]
    assert inspector.overview("jobs").oldest_ready == min(waits)
    assert waits[0] > waits[1]


def test_expired_entries(path):
    """An entry whose time to live has passed is neither counted nor the oldest that waits."""
    clock = FakeClock()
    with FileStorage(path, clock=clock) as storage:
        Queue("jobs", storage).enqueue(1, ttl=timedelta(seconds=1))
    clock.advance(timedelta(seconds=2))
    with Inspector(path, clock=clock) as inspector:
        overview = inspector.overview("jobs")
        assert overview.counts.ready == 0
        assert overview.oldest_ready is None


def test_leases(queue, storage, inspector):
    """It sees who holds what since when and until when, and that the holder lives."""
    queue.enqueue(1)
    entry = queue.dequeue()
    inspector.refresh()
    (lease,) = inspector.leases()
    assert (lease.queue, lease.id, lease.token, lease.attempt) == ("jobs", entry.id, entry.token, 1)
    assert (lease.worker, lease.pid) == (entry.worker, os.getpid())
    assert (lease.alive, lease.late) == (True, False)
    assert lease.deadline_at == entry.lease_deadline
    assert inspector.leases("jobs") == [lease]


def test_lease_of_a_dead_worker(path):
    """A worker that was killed is seen to be dead, whatever its file says."""
    code = (
        "import os, sys, duraq\n"
        "queue = duraq.Queue('jobs', duraq.FileStorage(sys.argv[1]))\n"
        "queue.enqueue(1)\n"
        "queue.dequeue()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert done.returncode == -signal.SIGKILL
    with Inspector(path) as inspector:
        (lease,) = inspector.leases()
        assert (lease.alive, lease.late) == (False, False)
        assert inspector.is_alive("no worker's name") is False


def test_lease_without_a_process(path):
    """A lease that belongs to no process has no worker, and is late once its deadline has passed."""
    clock = FakeClock()
    with FileStorage(path, clock=clock) as storage:
        Queue("jobs", storage).enqueue(1)
        storage.claim("jobs", detached=True)
        with Inspector(path, clock=clock) as inspector:
            (lease,) = inspector.leases()
            assert (lease.worker, lease.pid, lease.alive, lease.late) == ("", None, None, False)
            clock.advance(timedelta(minutes=10))
            assert inspector.leases()[0].late
        clock.reboot()
        with Inspector(path, clock=clock) as inspector:
            assert inspector.leases()[0].late


def test_consumers_that_wait(queue, inspector):
    """It sees how many consumers block on a queue."""
    waiting = threading.Thread(target=queue.dequeue, kwargs={"wait": timedelta(seconds=60)})
    waiting.start()
    try:
        while not inspector.queues() or inspector.overview("jobs").waiting == 0:
            inspector.refresh()
        assert inspector.overview("jobs").waiting == 1
    finally:
        queue.enqueue(1)
        waiting.join()


def test_an_entry_that_is_over(queue, inspector):
    """An entry that is completed, or expired, is shown as long as its records are there."""
    entry_id = queue.enqueue({"n": 1})
    queue.mark_failed(queue.dequeue(), "not yet", retry_in=timedelta(0))
    queue.mark_completed(queue.dequeue())
    inspector.refresh()
    view = inspector.get(entry_id)
    assert (view.status, view.attempts, view.payload) == (EntryStatus.COMPLETED, 2, b'{"n":1}')
    assert [attempt.cause for attempt in view.history] == [Cause.FAILED]
    assert view.worker == ""
    assert view.deadline_at is None


def test_a_removed_entry(queue, storage, inspector):
    """A dead letter that was removed is gone."""
    entry_id = queue.enqueue(1)
    queue.mark_failed(queue.dequeue(), dead=True)
    DeadLetterQueue("jobs", None, storage).remove(entry_id)
    inspector.refresh()
    with pytest.raises(EntryNotFound):
        inspector.get(entry_id)


def test_an_id_in_two_queues(queue, storage, inspector):
    """An id that two queues have is asked back about, not guessed."""
    queue.enqueue(1, id="twin")
    Queue("other", storage).enqueue(2, id="twin")
    inspector.refresh()
    with pytest.raises(QueueError, match="jobs, other"):
        inspector.get("twin")
    assert inspector.get("twin", "other").payload == b"2"


@pytest.mark.parametrize("name", ["nosuch", "journal", "leases", "../storage", "\x1b", "duraq.json"])
def test_unknown_queue(queue, inspector, name):
    """What is no queue is not found, whatever it is."""
    queue.enqueue(1)
    inspector.refresh()
    for ask in (inspector.counts, inspector.overview, inspector.entries, inspector.leases):
        with pytest.raises(QueueNotFound):
            ask(name)
    with pytest.raises(QueueNotFound):
        inspector.records([name])


@pytest.mark.parametrize("entry_id", ["nosuch", "", "\x1b[2J", '","op":"', "x" * 1000])
def test_unknown_entry(queue, inspector, entry_id):
    """An id that is nowhere is not found, whatever it is."""
    queue.enqueue({"id": "nosuch"})
    inspector.refresh()
    with pytest.raises(EntryNotFound):
        inspector.get(entry_id)
    assert inspector.where_is(entry_id) == []


# -- records -----------------------------------------------------------------------------------------------


def test_where_is(queue, path, inspector):
    """Every record of an entry is named by file, line and byte, and is there."""
    queue.enqueue_many(range(20))
    entry_id = queue.enqueue({"text": '"id":"decoy"'}, priority=9)
    queue.enqueue({"id": entry_id})
    queue.mark_failed(queue.dequeue(), dead=True)
    queue.enqueue_many(range(20))
    inspector.refresh()
    places = inspector.where_is(entry_id)
    assert len(places) == 3
    for place in places:
        data = (path / place.file).read_bytes()
        line = data.splitlines(keepends=True)[place.line - 1]
        assert data[place.byte : place.byte + place.length] == line
        assert orjson.loads(line)["id"] == entry_id
    assert [view.op for view in inspector.life(entry_id)] == ["enqueue", "lease", "dead"]
    assert inspector.where_is("decoy") == []


def test_records(queue, storage, inspector):
    """The newest records of all queues come in the order of time, over the bounds of segments."""
    ids = []
    for number in range(30):
        ids += Queue(f"q{number % 3}", storage).enqueue_many([number])
    inspector.refresh()
    assert [view.id for view in inspector.records(last=100)] == ids
    assert [view.id for view in inspector.records(last=5)] == ids[-5:]
    assert [view.id for view in inspector.records(["q1"], last=2)] == ids[-5::3]
    assert inspector.records(last=0) == []
    assert all(view.fields["op"] == view.op == "enqueue" for view in inspector.records())


def test_follow(queue, storage, inspector):
    """A follower gets the newest records, then each new one once, of new segments and new queues too."""
    stop = threading.Event()
    old = queue.enqueue_many(range(5))
    inspector.refresh()
    follower = inspector.follow(last=2, stop=stop)
    assert [next(follower).id for _ in range(2)] == old[-2:]
    new = []
    for number in range(60):
        new.append(queue.enqueue(number))
        new.append(Queue("younger", storage).enqueue(number))
    assert [next(follower).id for _ in new] == new
    last = queue.enqueue("last")
    stop.set()
    assert [view.id for view in follower] in ([last], [])


def test_follow_some(queue, storage, inspector):
    """A follower of some queues gets the records of no other."""
    stop = threading.Event()
    queue.enqueue(0)
    Queue("other", storage).enqueue(0)
    inspector.refresh()
    follower = inspector.follow(["jobs"], last=1, stop=stop)
    next(follower)
    Queue("other", storage).enqueue(1)
    wanted = queue.enqueue(1)
    assert next(follower).id == wanted
    stop.set()
    follower.close()


@pytest.mark.parametrize("trouble", [OSError, RuntimeError])
def test_follow_without_watching(queue, inspector, monkeypatch, trouble):
    """Where nothing can be watched a follower looks for itself."""

    def watch(*_args, **_options):
        raise trouble("no inotify instance is left")
        yield

    monkeypatch.setattr(watchfiles, "watch", watch)
    queue.enqueue(0)
    inspector.refresh()
    follower = inspector.follow(last=1)
    next(follower)
    new = [queue.enqueue(1), queue.enqueue(2)]
    assert [next(follower).id for _ in new] == new
    new = [queue.enqueue(3)]
    assert next(follower).id == new[0]
    follower.close()


# -- what it leaves alone ----------------------------------------------------------------------------------


def everything(inspector):
    inspector.refresh()
    found = [inspector.queues(), inspector.leases(), inspector.records()]
    for name in inspector.queues():
        found += [inspector.overview(name), inspector.entries(name)]
        found += [inspector.where_is(view.id) for view in inspector.entries(name)]
    return found


def test_nothing_is_written(queue, path):
    """Looking at everything leaves every file, and every time of one, as it was."""
    fill(queue, 50)
    queue.dequeue(limit=5)
    before = tree(path)
    with Inspector(path) as inspector:
        everything(inspector)
    assert tree(path) == before


def test_no_lock_is_taken(queue, path):
    """A reader gets its answers while somebody holds the storage's lock."""
    queue.enqueue_many(range(5))
    with queue.storage._turn, Inspector(path) as inspector:
        assert inspector.counts("jobs").ready == 5


def test_the_next_opener_is_not_misled(path):
    """A storage that is opened while readers look is recovered by its first opener as ever."""
    with FileStorage(path) as storage:
        Queue("jobs", storage).enqueue(1)
    with Inspector(path) as inspector:
        everything(inspector)
        # As after a reboot: what the control block says is of no worth, and only an opener that knows
        # itself to be alone finds that out.
        (path / "journal" / "lock").write_bytes(b"\xff" * 48)
        with FileStorage(path) as storage:
            assert Queue("jobs", storage).counts().ready == 1


def test_copy(queue, path, tmp_path):
    """A copy that was made while the storage was open can be looked at; its leases are held by nobody."""
    fill(queue, 50)
    queue.dequeue()
    copy = tmp_path / "copy"
    shutil.copytree(path, copy, ignore=shutil.ignore_patterns("*.fifo"))
    with Inspector(copy) as inspector:
        assert inspector.counts("jobs") == queue.counts()
        assert inspector.leases()[0].alive is False


def test_hard_links(queue, path, tmp_path):
    """A backup that consists of hard links can be looked at."""
    fill(queue, 50)
    copy = tmp_path / "copy"
    shutil.copytree(path, copy, copy_function=os.link, ignore=shutil.ignore_patterns("*.fifo"))
    with Inspector(copy) as inspector:
        assert inspector.counts("jobs").ready == 50


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_read_only_mount(queue, path, tmp_path):
    """On a read-only mount everything can be looked at, living workers included."""
    queue.enqueue_many(range(5))
    queue.dequeue()
    mount = tmp_path / "mount"
    mount.mkdir()
    bind = subprocess.run(["mount", "--bind", path, mount], check=False, capture_output=True)
    if bind.returncode:
        pytest.skip(f"mount --bind is refused here: {bind.stderr!r}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", mount], check=True)
        with Inspector(mount) as inspector:
            everything(inspector)
            assert inspector.counts("jobs") == queue.counts()
            assert inspector.leases()[0].alive is True
    finally:
        subprocess.run(["umount", mount], check=True)


def test_descriptors(queue, storage, path):
    """An inspector that is closed has given back every descriptor; closing again does nothing."""
    fill(queue, 200)
    storage.close()
    inspector = Inspector(path)
    everything(inspector)
    inspector.close()
    inspector.close()
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not any(link.readlink().is_relative_to(path) for link in links)
    with pytest.raises(StorageClosed):
        inspector.queues()


# -- what is wrong -----------------------------------------------------------------------------------------


def test_no_storage(tmp_path):
    """What is no storage is refused, and nothing is made."""
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(NotAStorage):
            Inspector(path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotAStorage):
        Inspector(tmp_path / "file")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_newer_version(storage, path):
    """A storage of a newer format is refused."""
    (path / "duraq.json").write_bytes(b'{"format":2}\n')
    with pytest.raises(UnsupportedVersion):
        Inspector(path)


def test_foreign_things(queue, path, inspector):
    """What else lies in a storage is no queue."""
    queue.enqueue(1)
    (path / "notes.txt").write_text("x")
    (path / "folder").mkdir()
    (path / "link").symlink_to(path / "jobs")
    inspector.refresh()
    assert inspector.queues() == ["jobs"]


def damage(path, at):
    # With a checkpoint its records would not be read.
    for file in (path / "jobs" / "segments").glob("*.checkpoint"):
        file.unlink()
    segment = segments(path)[0]
    data = bytearray(segment.read_bytes())
    data[at] ^= 1
    segment.write_bytes(data)


def test_damage(queue, storage, path):
    """A damaged queue says where; what lies before the damage is seen, and other queues are."""
    Queue("other", storage).enqueue(1)
    first = queue.enqueue(1)
    size = segments(path)[0].stat().st_size
    # So many that the journal does not know the damaged line any more, which would mend it.
    fill(queue, 300)
    storage.close()
    damage(path, size + 40)
    with Inspector(path) as inspector:
        with pytest.raises(StorageDamaged) as caught:
            inspector.counts("jobs")
        assert (caught.value.line, caught.value.byte) == (2, size)
        assert inspector.overview("jobs").problem is caught.value
        assert inspector.overview("jobs").counts.ready == 1
        assert inspector.get(first).payload == b"1"
        assert inspector.counts("other").ready == 1
        assert inspector.queues() == ["jobs", "other"]


def test_mended(queue, storage, path, inspector):
    """A queue that is damaged is read anew at every refresh, so that a repair is seen."""
    fill(queue, 50)
    whole = segments(path)[0].read_bytes()
    damage(path, 40)
    inspector.refresh()
    with pytest.raises(StorageDamaged):
        inspector.counts("jobs")
    segments(path)[0].write_bytes(whole)
    inspector.refresh()
    assert inspector.counts("jobs").ready == 50


def test_damage_that_a_checkpoint_passes_over(queue, storage, path):
    """Damage in what need not be read keeps nobody from looking; whoever comes to it is told the place."""
    fill(queue, 300)
    storage.close()
    segment = segments(path)[0]
    segment.write_bytes(segment.read_bytes().replace(b'"data":3,', b'"data":4,'))
    with Inspector(path) as inspector:
        assert inspector.counts("jobs").ready == 300
        with pytest.raises(StorageDamaged) as caught:
            inspector.entries("jobs")
        assert caught.value.path == f"jobs/segments/{segment.name}"
        assert [view.payload for view in inspector.entries("jobs", limit=3)] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("lost", ["*.index", "*.checkpoint"])
def test_derived_files_that_are_lost(queue, path, inspector, lost):
    """What is derived from the records may be removed at any time, and all is seen as before."""
    fill(queue, 100)
    inspector.refresh()
    before = inspector.counts("jobs")
    for file in (path / "jobs" / "segments").glob(lost):
        file.unlink()
    assert inspector.counts("jobs") == before
    assert [view.payload for view in inspector.entries("jobs")] == [b"%d" % n for n in range(100)]


@pytest.mark.parametrize("told", [False, True])
def test_listing_while_it_is_compacted(queue, storage, path, inspector, told):
    """Whoever lists entries while what they lie in is removed misses none and sees none twice."""
    fill(queue, 100)
    inspector.refresh()
    listed = inspector.each_entry("jobs")
    seen = [next(listed).payload for _ in range(10)]
    for entry in queue.dequeue(limit=80):
        queue.mark_completed(entry)
    storage.compact("jobs")
    assert segments(path)[0].name > f"{1:020d}.jsonl"
    if told:
        inspector.refresh()
        assert inspector.counts("jobs").ready == 20
    numbers = [int(payload) for payload in seen + [view.payload for view in listed]]
    assert numbers == sorted(set(numbers))
    assert numbers[-20:] == list(range(80, 100))


def test_refused_and_mended(queue, path, inspector):
    """A queue that is still marked as damaged, and is whole again, can be read before anybody opens it."""
    queue.enqueue(1)
    (path / "jobs" / "damaged.json").write_bytes(b"{}")
    inspector.refresh()
    assert inspector.counts("jobs").ready == 1


def test_unfinished_line(queue, path, inspector):
    """A line that is being written is not there yet, and no damage."""
    queue.enqueue(1)
    with segments(path)[-1].open("ab") as segment:
        segment.write(b'{"op":"enqueue","seq":2')
    inspector.refresh()
    assert inspector.counts("jobs").ready == 1
    assert len(inspector.records()) == 1


class Denying(ReaderFileSystem):
    """A disk on which the queue "jobs" is somebody else's."""

    def open_dir(self, parent, name, *, create=False):
        if name == "jobs":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        return super().open_dir(parent, name, create=create)


def test_denied(queue, storage, path):
    """A queue that may not be read is there all the same, and the others can be read."""
    queue.enqueue(1)
    Queue("other", storage).enqueue(1)
    with Inspector(path, file_system=Denying()) as inspector:
        assert inspector.queues() == ["jobs", "other"]
        assert isinstance(inspector.overview("jobs").problem, StorageReadOnly)
        with pytest.raises(StorageReadOnly, match="Permission denied"):
            inspector.counts("jobs")
        assert inspector.counts("other").ready == 1
        assert inspector.get(inspector.entries("other")[0].id).payload == b"1"
        assert inspector.where_is("nosuch") == []


def test_gone_and_made_again(queue, storage, path, inspector):
    """A storage that is removed is missed, and one that is made in its place is seen."""
    queue.enqueue_many(range(5))
    inspector.refresh()
    assert inspector.counts("jobs").ready == 5
    storage.close()
    shutil.rmtree(path)
    with pytest.raises(NotAStorage):
        inspector.refresh()
    with FileStorage(path) as again:
        Queue("jobs", again).enqueue(1)
        inspector.refresh()
        assert inspector.counts("jobs").ready == 1


def test_queue_made_again(queue, storage, path, inspector):
    """A queue that is removed and made again is read anew."""
    queue.enqueue_many(range(5))
    inspector.refresh()
    assert inspector.counts("jobs").ready == 5
    shutil.copytree(path / "jobs", path / "copy", ignore=shutil.ignore_patterns("*.fifo"))
    shutil.rmtree(path / "jobs")
    inspector.refresh()
    with pytest.raises(QueueNotFound):
        inspector.counts("jobs")
    (path / "copy").rename(path / "jobs")
    inspector.refresh()
    assert inspector.counts("jobs").ready == 5


# -- after a power cut -------------------------------------------------------------------------------------


def drive(file_system, rng):
    """Enqueue to and complete from two queues, small enough to seal and recycle now and then."""
    storage = FileStorage(
        "/storage",
        file_system=file_system,
        durability=rng.choice(["power", "process"]),
        clock=FakeClock(),
        sizes=SMALL,
    )
    for _ in range(rng.randint(1, 60)):
        name = rng.choice("ab")
        match rng.randrange(4):
            case 0:
                Queue(name, storage).enqueue({"x": rng.random()})
            case 1:
                Queue(name, storage).enqueue_many(range(rng.randint(1, 10)))
            case _:
                for entry in storage.claim(name, 2, detached=True):
                    storage.commit({name: [Complete(entry.id, entry.token)]})


def told(source):
    """What an inspector or a storage says of everything, or that it refuses."""
    found = {}
    for name in source.queues():
        try:
            entries = [(entry.id, entry.status, entry.payload) for entry in source.entries(name)]
            found[name] = (source.counts(name), entries)
        except StorageDamaged:
            found[name] = "damaged"
    return found


def inspected(image):
    try:
        with Inspector("/storage", file_system=image.process(), clock=FakeClock()) as inspector:
            return told(inspector)
    except (StorageDamaged, NotAStorage) as error:
        return type(error)


def opened(image):
    try:
        # Not closed: its image is not needed any more, and on a disk in memory there are no workers.
        storage = FileStorage(
            "/storage", file_system=image.process(), clock=FakeClock(), sizes=SMALL, create=False
        )
        return told(storage)
    except (StorageDamaged, NotAStorage) as error:
        return type(error)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("seed", range(20))
def test_after_a_power_cut(seed, caplog):
    """Whatever a power cut leaves, a reader sees what the next opener will see, and writes nothing."""
    rng = random.Random(seed)
    file_system = MemoryFileSystem()
    drive(file_system, rng)
    images = [file_system.power_cut(rng) for _ in range(3)]
    images += [file_system.surviving(nothing=True), file_system.surviving(everything=True)]
    for image in images:
        before = image.files()
        caplog.clear()
        seen = inspected(image)
        assert image.files() == before
        assert not caplog.records
        assert seen == opened(image)


def test_what_is_taken_back(monkeypatch):
    """An entry of a group for which there was no room is shown no longer, nor for the one in its place."""
    disk, clock = MemoryFileSystem(), FakeClock()
    storage = FileStorage("/storage", clock=clock, file_system=disk, allow_network=True)

    def put(name, *queues):
        storage.commit({queue: [Enqueue(name, b"1")] for queue in queues})

    def seen():
        inspector.refresh()
        return [entry.id for entry in inspector.entries("a")]

    put("one", "a", "b")
    inspector = Inspector("/storage", clock=clock, file_system=disk.process(), bookmarks={})
    pwrite, in_between = disk.pwrite, []

    def full(fd, data, offset):
        if disk._description(fd).path.startswith("b/segments"):
            in_between.extend(seen())
            raise OSError(errno.ENOSPC, "no space")
        return pwrite(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "pwrite", full)
        with pytest.raises(NotEnqueued):
            put("two", "a", "b")
    assert (in_between[:2], seen()) == (["one", "two"], ["one"])
    put("six", "a")
    assert seen() == ["one", "six"]


def test_frames_without_lines(path):
    """What is in the journal and not in the segments is seen before anybody has opened the storage."""
    with FileStorage(path) as storage:
        Queue("jobs", storage).enqueue_many(range(5))
    shutil.rmtree(path / "jobs")
    before = tree(path)
    with Inspector(path) as inspector:
        assert inspector.queues() == ["jobs"]
        assert [view.payload for view in inspector.entries("jobs")] == [b"0", b"1", b"2", b"3", b"4"]
        assert len(inspector.records()) == 5
        assert tree(path) == before
        with FileStorage(path) as storage:
            Queue("jobs", storage).enqueue(5)
            inspector.refresh()
            assert inspector.counts("jobs").ready == 6


def problems_of(inspector):
    overviews = [inspector.overview(name) for name in inspector.queues()]
    return [overview.problem for overview in overviews if overview.problem is not None]


def test_among_writers(path):
    """A reader among busy writers never takes a change in the making for damage."""
    code = (
        "import sys, duraq\n"
        "from duraq.journal.log import Sizes\n"
        "small = Sizes(journal=1 << 14, segment=2000)\n"
        "storage = duraq.FileStorage(sys.argv[1], durability=sys.argv[2], sizes=small)\n"
        "queue = duraq.Queue(sys.argv[3], storage)\n"
        "for turn in range(300):\n"
        "    queue.enqueue_many(range(turn % 7))\n"
        "    for entry in queue.dequeue(limit=5): queue.mark_completed(entry)\n"
        "print(queue.counts().ready)\n"
    )
    FileStorage(path, sizes=SMALL).close()
    writers = {
        (name, durability): subprocess.Popen(
            [sys.executable, "-c", code, path, durability, name], stdout=subprocess.PIPE
        )
        for name, durability in [("a", "process"), ("b", "power"), ("c", "process")]
    }
    with Inspector(path) as inspector:
        while any(writer.poll() is None for writer in writers.values()):
            inspector.refresh()
            assert problems_of(inspector) == []
            with Inspector(path) as another:
                assert problems_of(another) == []
        inspector.refresh()
        for (name, _), writer in writers.items():
            assert inspector.counts(name).ready == int(writer.communicate()[0])
