"""What is kept for a full disk: who gets it, who does not, and how it comes back."""

import errno
import logging
import os
from contextlib import suppress
from copy import deepcopy
from datetime import timedelta
from functools import cache
from itertools import count as numbers
from random import Random

import pytest
from evidence import count

from duraq import DeadLetterQueue, FileStorage, FixedDelay, NotEnqueued, NotWritten, Queue
from duraq.journal import lease, record, waiters
from duraq.journal.log import Sizes
from duraq.journal.reserve import Reserve
from duraq.testing import Crashed, FakeClock, MemoryFileSystem

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SIZES = Sizes(journal=128 << 10, segment=16 << 10)
WHOLE = SIZES.reserve
CAPACITY = (8 if DEEP else 1) << 20
HUGE = record.finished(b'{"op":"reserve","bytes":1000000000')
FILE = "storage/journal/reserve"
TEXT = "x" * 600
AT_ONCE = timedelta(0)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def disk():
    """An empty disk, seen by a first process."""
    return MemoryFileSystem(capacity=CAPACITY)


class Storage(FileStorage):
    """Who works is a matter of processes, and so of a real disk whatever the storage is on."""

    def _worker(self):
        return "4711-9f3c02ab"

    def _is_alive(self, worker):
        return True


def opened(fs, clock=None, **options):
    return Storage(
        "/storage", clock=clock or FakeClock(), file_system=fs, sizes=SIZES, allow_network=True, **options
    )


def jobs(storage):
    return Queue("jobs", storage, str, retry_policy=FixedDelay(delay=AT_ONCE, max_attempts=2))


def fill(queue, *, text=TEXT):
    """Enqueue until that is refused; the ids of what was accepted."""
    accepted = []
    # Longer ones are refused before shorter ones.
    for each in (text, ""):
        with suppress(NotEnqueued):
            while True:
                accepted.append(queue.enqueue(each, id=f"{len(accepted):06d}"))
    return accepted


def kept(fs):
    """How much is kept, as the disk has it."""
    return len(fs.files().get(FILE, b""))


def complete_until_short(queue, fs):
    """Complete entries until something was given back for it; their ids."""
    done = []
    while kept(fs) == WHOLE:
        entry = queue.dequeue()
        queue.mark_completed(entry)
        done.append(entry.id)
    return done


# -- what goes on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["power", "process"])
def test_everything_but_enqueueing_goes_on(disk, durability):
    """On a full disk a queue can be worked off to its last entry, in every way there is to end one."""
    storage = opened(disk, durability=durability)
    queue, dead = jobs(storage), DeadLetterQueue("jobs", str, storage)
    left = set(fill(queue))
    assert len(left) > 500
    chance, steps = Random(1), 0
    while left or len(dead):
        steps += 1
        if not left:
            # They are to be worked off as well.
            for letter in dead.list():
                dead.retry(letter.id)
                left.add(letter.id)
        entry = queue.dequeue()
        match chance.randrange(10):
            case 0:
                queue.release(entry)
            case 1:
                queue.extend(entry)
                queue.mark_completed(entry)
                left.remove(entry.id)
            case 2:
                if queue.mark_failed(entry, "not today" * 20) == "dead":
                    left.remove(entry.id)
            case _:
                queue.mark_completed(entry)
                left.remove(entry.id)
        assert disk.used <= CAPACITY
    assert queue.dequeue() is None
    assert steps > 500
    storage.compact("jobs")
    queue.enqueue(TEXT)
    assert kept(disk) == WHOLE


def test_compaction_frees(disk):
    """Compacting a queue on a full disk, whose oldest entries are over, frees what these took."""
    storage = opened(disk)
    queue = jobs(storage)
    fill(queue)
    storage._compactor.note = lambda _folded: None  # not by itself
    entries = [queue.dequeue() for _ in range(40)]
    for number, entry in enumerate(entries):
        (queue.mark_completed if number % 10 else queue.release)(entry)
    assert kept(disk) < WHOLE
    before = disk.used
    assert storage.compact("jobs").freed > 0
    assert disk.used < before


def test_dead_letters_are_purged(disk):
    """On a full disk dead letters can be purged, and put back, many at once; what is removed has no room."""
    storage = opened(disk)
    queue, dead = jobs(storage), DeadLetterQueue("jobs", str, storage)
    fill(queue)
    for entry in queue.dequeue(limit=30):
        queue.mark_failed(entry, "never", dead=True)
    complete_until_short(queue, disk)
    assert dead.retry_all() == 30
    for entry in queue.dequeue(limit=30):
        queue.mark_failed(entry, "never", dead=True)
    with pytest.raises(NotEnqueued):
        dead.remove_all()
    storage.clock.advance(timedelta(days=1))
    assert dead.purge_older_than(timedelta(hours=1)) == 30
    assert dead.list() == []


def test_pausing_goes_on(disk):
    """A queue can be paused and resumed on a full disk."""
    queue = jobs(opened(disk))
    fill(queue)
    for _ in range(100):
        queue.pause("full")
        queue.resume()
    assert queue.dequeue() is not None


def test_expired_entries_end(disk):
    """What has expired goes on a full disk as well, and with it comes room for new entries."""
    clock = FakeClock()
    queue = jobs(opened(disk, clock))
    with suppress(NotEnqueued):
        for _ in numbers():
            queue.enqueue_many([TEXT] * 20, ttl=timedelta(hours=1))
    clock.advance(timedelta(hours=2))
    assert queue.dequeue() is None
    queue.storage.compact("jobs")
    queue.enqueue(TEXT)
    assert len(queue) == 1


# -- what does not -----------------------------------------------------------------------------------------


def test_nobody_enqueues_what_was_given_back(disk):
    """Once something was given back every process is refused an entry, although the disk has room for it."""
    queue, other = jobs(opened(disk)), jobs(opened(disk.process()))
    fill(queue)
    complete_until_short(queue, disk)
    assert disk.capacity - disk.used > 1000
    before = disk.used
    for each in (queue, other):
        with pytest.raises(NotEnqueued, match=r"jobs.*disk is full.*free some space"):
            each.enqueue("")
        with pytest.raises(NotEnqueued):
            each.enqueue_many(["", ""])
    assert disk.used == before
    entry = other.dequeue()
    other.mark_completed(entry)


def test_a_new_queue_is_not_begun(disk):
    """Where entries are refused, a queue that would begin with one is not made."""
    storage = opened(disk)
    fill(jobs(storage))
    complete_until_short(jobs(storage), disk)
    with pytest.raises(NotEnqueued):
        Queue("another", storage).enqueue("")
    assert storage.queues() == ["jobs"]


def test_a_transaction_that_enqueues_is_refused(disk):
    """What completes an entry and enqueues another, together, is an enqueue; nothing of it is done."""
    storage = opened(disk)
    queue = jobs(storage)
    fill(queue)
    complete_until_short(queue, disk)
    entry = queue.dequeue()
    with pytest.raises(NotEnqueued), storage.transaction():  # noqa: PT012 - its end is what raises
        queue.mark_completed(entry)
        Queue("another", storage).enqueue("next")
    assert queue.counts().leased == 1
    with storage.transaction():
        queue.mark_completed(entry)
    assert queue.counts().leased == 0


def test_what_is_kept_is_used_up_in_the_end(disk):
    """Where ending entries frees nothing it is refused once all is used up; that is said, nothing is lost."""
    storage = opened(disk)
    queue = jobs(storage)
    ids = fill(queue)
    storage._compactor.note = lambda _folded: None  # nobody frees anything
    done = []
    with pytest.raises(NotWritten, match=r"jobs.*disk is full"):  # noqa: PT012 - which one fails is not known
        for _ in ids:
            entry = queue.dequeue()
            queue.mark_completed(entry)
            done.append(entry.id)
    assert kept(disk) < WHOLE // 2
    assert len(done) > 50
    again = opened(disk.process())
    assert {entry.id for entry in again.entries("jobs")} == set(ids) - set(done)
    # What removes segments has its share.
    assert again.compact("jobs").freed > 0
    assert jobs(again).dequeue() is not None
    disk.capacity *= 2
    assert jobs(again).dequeue() is not None
    jobs(again).enqueue("")


def test_without_space_wanting_nothing_is_given_back(disk):
    """Where there is space, and files cannot be written for want of something else, nothing is given back."""
    queue = jobs(opened(disk))
    queue.enqueue("1")
    entry = queue.dequeue()
    disk.fail("pwrite", errno.ENOSPC, name="*.jsonl")
    with pytest.raises(NotWritten):
        queue.mark_completed(entry)
    assert kept(disk) == WHOLE
    queue.mark_completed(entry)


def test_a_quota(disk):
    """Where a quota is used up entries can be ended, for what is kept counts in it as well."""
    queue = jobs(opened(disk))
    queue.enqueue("1")
    entry = queue.dequeue()
    disk.fail("pwrite", errno.EDQUOT, name="*.jsonl")
    queue.mark_completed(entry)
    assert kept(disk) < WHOLE
    queue.enqueue("2")
    assert kept(disk) == WHOLE


# -- coming back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["same", "other", "later"])
def test_enqueueing_goes_on_by_itself(disk, which):
    """Once there is space, whoever enqueues next is not refused, and what is kept is whole again."""
    queue, other = jobs(opened(disk)), jobs(opened(disk.process()))
    accepted = fill(queue)
    done = complete_until_short(queue, disk)
    with pytest.raises(NotEnqueued):
        other.enqueue("")
    disk.capacity += 2 * WHOLE
    if which == "later":
        queue.storage.close()
        other.storage.close()
        other = jobs(opened(disk.process()))
        assert kept(disk) == WHOLE
    (queue if which == "same" else other).enqueue(TEXT, id="new")
    assert kept(disk) == WHOLE
    assert [entry.id for entry in other.entries()] == [each for each in accepted if each not in done] + [
        "new"
    ]


def test_there_must_be_some_to_spare(disk):
    """It is not filled up with the last of what came free: it would be given back at once."""
    queue = jobs(opened(disk))
    fill(queue)
    complete_until_short(queue, disk)
    disk.capacity = disk.used + WHOLE - kept(disk)
    with pytest.raises(NotEnqueued):
        queue.enqueue("")
    disk.capacity += WHOLE // 4 - 1
    with pytest.raises(NotEnqueued):
        queue.enqueue("")
    disk.capacity += 1
    queue.enqueue("")


def test_it_is_filled_up_where_nobody_enqueues(disk):
    """Whoever ends entries fills it up as well, before others take what came free."""
    queue = jobs(opened(disk))
    fill(queue)
    complete_until_short(queue, disk)
    queue.storage._log.reserve._look_again_at = 0.0
    disk.capacity += 2 * WHOLE
    queue.mark_completed(queue.dequeue())
    assert kept(disk) == WHOLE


def test_nothing_is_asked_while_all_is_well(disk, monkeypatch):
    """As long as there is space, nobody looks at what is kept."""
    queue = jobs(opened(disk))

    def look(*_, **__):
        raise AssertionError

    for name in ("_opened", "give", "lacks", "refill"):
        monkeypatch.setattr(Reserve, name, look)
    for _ in range(50):
        queue.enqueue(TEXT)
    while (entry := queue.dequeue()) is not None:
        queue.mark_completed(entry)


# -- having it ---------------------------------------------------------------------------------------------


def test_an_older_storage_gets_one(disk):
    """A storage that has none is given one when it is opened, if there is room for it."""
    storage = opened(disk)
    jobs(storage).enqueue("")
    directory = storage._log.directory
    disk.unlink(directory, "reserve")
    storage.close()
    storage = opened(disk)
    assert kept(disk) == WHOLE
    assert len(jobs(storage)) == 1


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b'{"op":"reserve","bytes":9', HUGE, b"\xff" * 9000])
def test_one_that_says_nothing_is_made_again(disk, content):
    """Whatever stands where it should say how long it is to be: it is made again, and nobody is refused."""
    storage = opened(disk)
    fd = disk.open_file(storage._log.directory, "reserve")
    disk.truncate(fd, 0)
    disk.pwrite(fd, content, 0)
    jobs(storage).enqueue("")
    other = opened(disk.process())
    assert kept(disk) == WHOLE
    jobs(other).enqueue("")


def test_one_that_is_too_short_is_filled_up(disk):
    """Whatever has made it shorter: nobody enqueues before it is whole, and whoever opens it sees to that."""
    storage = opened(disk)
    fill(jobs(storage))
    fd = disk.open_file(storage._log.directory, "reserve")
    disk.truncate(fd, WHOLE // 2)
    with pytest.raises(NotEnqueued):
        jobs(opened(disk.process())).enqueue("")
    with pytest.raises(NotEnqueued):
        jobs(storage).enqueue("")
    disk.capacity += WHOLE
    opened(disk.process())
    assert kept(disk) == WHOLE
    jobs(storage).enqueue("")


def test_on_a_disk_that_is_full_already(disk, caplog):
    """Where there is no room for one the storage is opened and worked all the same; the log says so."""
    storage = opened(disk)
    disk.unlink(storage._log.directory, "reserve")
    ids = fill(jobs(storage))
    storage.close()
    with caplog.at_level(logging.WARNING, "duraq"):
        storage = opened(disk)
    assert "no space is kept" in caplog.text
    assert [entry.id for entry in jobs(storage).entries()] == ids
    disk.capacity += 4000
    assert jobs(storage).dequeue().id == ids[0]


def test_on_a_small_disk(caplog):
    """On a small disk less is kept, no more than a sixteenth of it, and the log says how much."""
    disk = MemoryFileSystem(capacity=8 * WHOLE)
    with caplog.at_level(logging.WARNING, "duraq"):
        queue = jobs(opened(disk))
    assert kept(disk) == WHOLE // 2
    assert f"only {WHOLE // 2} bytes" in caplog.text
    fill(queue)
    for _ in range(20):
        queue.mark_completed(queue.dequeue())


@pytest.mark.parametrize("call", ["open_file", "pread", "size", "space", "truncate", "pwrite", "sync"])
def test_it_cannot_be_made(disk, call, caplog):
    """Whatever fails in making one, the storage is opened, and the next opener makes it."""
    if call == "space":
        disk.fail(call, errno.EIO)
    else:
        disk.fail(call, errno.EIO, name="reserve", times=None)
    storage = opened(disk)
    assert "no space is kept" in caplog.text
    jobs(storage).enqueue("")
    disk.heal()
    other = opened(disk.process())
    assert kept(disk) == WHOLE
    assert len(jobs(other)) == 1


# -- when a process dies, or the power goes ----------------------------------------------------------------


@cache
def full():
    """A full disk, and what is in its queue."""
    fs = MemoryFileSystem(capacity=CAPACITY // 2)
    storage = opened(fs)
    ids = fill(jobs(storage))
    fs.capacity = fs.used
    storage.close()
    return fs, ids


def worked():
    """That disk, two processes, and an entry that one of them has; nothing was given back yet."""
    made, ids = full()
    fs = MemoryFileSystem(disk=deepcopy(made._disk))
    storage, other = opened(fs), opened(fs.process())
    fs.capacity += 4000
    entry = jobs(storage).dequeue()
    fs.capacity = fs.used
    assert kept(fs) > 0
    return fs, storage, other, set(ids), entry.id


def short():
    """The same when something was given back, and there is room again."""
    fs, storage, other, ids, entry_id = worked()
    before = kept(fs)
    jobs(storage).mark_completed(entry_id)
    assert kept(fs) < before
    fs.capacity += 2 * WHOLE
    return fs, storage, other, ids - {entry_id}, entry_id


def end(storage, entry_id):
    jobs(storage).mark_completed(entry_id)


def put(storage, _):
    jobs(storage).enqueue("", id="late")


def check(fs, *allowed):
    """Entries can be ended, whatever is left; with space new ones go in, and what is kept is whole again."""
    storage = opened(fs)
    queue = jobs(storage)
    found = {entry.id for entry in queue.entries()}
    assert found in allowed
    for entry in queue.dequeue(limit=5):
        queue.mark_completed(entry)
        found.remove(entry.id)
    fs.capacity += 2 * CAPACITY
    queue.enqueue("", id="new")
    assert {entry.id for entry in queue.entries()} == found | {"new"}
    assert not storage._log.journal.standing.short
    assert not storage._log.reserve.is_short()


@pytest.mark.parametrize("tear", [False, True], ids=["", "torn"])
@pytest.mark.parametrize(("begin", "act"), [(worked, end), (short, put)], ids=["given back", "filled up"])
def test_death_at_every_call(begin, act, tear):
    """Whoever gives back or fills up may die at any call, or lose power: others go on, it is done or not."""
    tried = 0
    for point in numbers(1):
        fs, storage, other, ids, entry_id = begin()
        after = ids - {entry_id} if act is end else ids | {"late"}
        fs.crash_after(point, tear=tear)
        try:
            act(storage, entry_id)
            done = True
        except Crashed:
            done = False
        allowed = [after] if done else [ids, after]
        cuts = [fs.surviving(nothing=True), fs.surviving(everything=True), fs.power_cut(Random(point))]
        for image in cuts:
            check(image, *allowed)
        fs.die()
        assert {entry.id for entry in other.entries("jobs")} in allowed
        other.close()
        check(fs.process(), *allowed)
        tried += len(cuts) + 1
        if done:
            break
    assert tried > 20
    count("simulated", tried)


def die_before_its_lines(fs, storage, entry_id):
    """End an entry, and die when its frame is written and its line is not."""
    pwrite = fs.pwrite

    def die(fd, data, offset):
        if fs._description(fd).path.endswith(".jsonl"):
            fs.die()
        return pwrite(fd, data, offset)

    fs.pwrite = die
    with pytest.raises(Crashed):
        end(storage, entry_id)


def test_what_a_dead_process_has_left_is_completed():
    """On a full disk a process may die between a frame and its lines: the next one writes them."""
    fs, storage, other, ids, entry_id = worked()
    die_before_its_lines(fs, storage, entry_id)
    assert {entry.id for entry in other.entries("jobs")} == ids - {entry_id}
    with pytest.raises(NotEnqueued):
        put(other, None)
    other.close()
    check(fs.process(), ids - {entry_id})


def test_a_storage_is_opened_on_a_full_disk():
    """What a recovery writes has room as well, and whoever opens the storage then may not enqueue."""
    fs, storage, other, ids, entry_id = worked()
    other.close()
    die_before_its_lines(fs, storage, entry_id)
    for _ in range(2):
        storage = opened(fs.process())
        assert {entry.id for entry in storage.entries("jobs")} == ids - {entry_id}
        with pytest.raises(NotEnqueued):
            put(storage, None)
        storage.close()


# -- names -------------------------------------------------------------------------------------------------


def refusing_once(call):
    """The same call, which finds no room the first time."""
    refused = []

    def instead(*args, **options):
        if not refused:
            refused.append(1)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return call(*args, **options)

    return instead


def test_names_take_space(tmp_path, monkeypatch):
    """Where there is no room for a worker's name, or for one who waits, something is given back for it."""
    with FileStorage(tmp_path / "storage", sizes=SIZES) as storage:
        queue = Queue("jobs", storage)
        file = tmp_path / "storage" / "journal" / "reserve"
        sizes = [file.stat().st_size]
        monkeypatch.setattr(lease._files, "open_file", refusing_once(lease._files.open_file))
        assert queue.dequeue() is None
        sizes.append(file.stat().st_size)
        monkeypatch.setattr(waiters, "make_fifo", refusing_once(waiters.make_fifo))
        assert queue.dequeue(wait=timedelta(milliseconds=1)) is None
        sizes.append(file.stat().st_size)
        assert sizes == sorted(set(sizes), reverse=True)
        queue.enqueue("")
        assert file.stat().st_size == sizes[0]
