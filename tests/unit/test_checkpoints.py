"""Indexes and checkpoints: what leaves memory at a seal, and how a queue is gone on with from there."""

import errno
import itertools
import random
from datetime import timedelta
from functools import partial

import pytest

from duraq import (
    Counts,
    DeadLetterQueue,
    DuplicateEntry,
    EntryStatus,
    FileStorage,
    NoRetry,
    Queue,
    StorageDamaged,
    StorageError,
)
from duraq.entry import DEAD, READY, SCHEDULED, Entry, delivery_order
from duraq.journal import checkpoint, index, runs
from duraq.journal.index import BadIndex, Index, id_hash
from duraq.journal.log import Sizes
from duraq.journal.run import Run
from duraq.operations import Complete, Enqueue
from duraq.testing import FakeClock, MemoryFileSystem

TINY = Sizes(journal=16 << 10, segment=2 << 10)
SECOND = timedelta(seconds=1)


@pytest.fixture
def open_storage(open_tiny):
    """Open the same storage, with segments of a dozen entries that all stay, as often as wanted."""
    return partial(open_tiny, history=1 << 30)


def jobs(storage, policy=None):
    return Queue("jobs", storage, retry_policy=policy or NoRetry())


def files(tmp_path, suffix):
    return sorted((tmp_path / "queues" / "jobs" / "segments").glob(f"*{suffix}"))


def in_memory(storage):
    return len(storage._queues["jobs"].folded.state.entries)


def drain(queue):
    """Everything that is delivered, in order, each completed."""
    found = []
    while (entry := queue.dequeue()) is not None:
        found.append(entry.data)
        queue.mark_completed(entry.id)
    return found


# -- memory and opening ------------------------------------------------------------------------------------


def test_what_nobody_holds_leaves_memory(open_storage):
    """However deep a queue is, a process keeps the leased entries and those of one segment."""
    queue = jobs(storage := open_storage())
    held = [queue.enqueue(number) and queue.dequeue() for number in range(3)]
    for number in range(500):
        queue.enqueue(number)
        assert in_memory(storage) <= 3 + 20
    assert queue.counts() == Counts(ready=500, leased=3)
    for entry in held:
        queue.mark_completed(entry.id)
    assert drain(queue) == list(range(500))


def test_opening_reads_no_more_than_the_end(open_storage, tmp_path, monkeypatch):
    """Whoever opens a queue reads its newest checkpoint and the records behind it."""
    jobs(storage := open_storage()).enqueue_many(range(300))
    for number in range(20):
        jobs(storage).enqueue(number)
    storage.close()
    read = []
    real = index.Index.__init__
    monkeypatch.setattr(index.Index, "__init__", lambda *args: read.append(1) or real(*args))
    queue = jobs(storage := open_storage())
    assert queue.counts() == Counts(ready=320)
    assert not read
    assert in_memory(storage) <= 20
    assert queue.dequeue().data == 0
    assert len(read) == 1


def test_a_sleeper_goes_on_from_a_newer_checkpoint(open_storage, tmp_path):
    """A process that slept while others filled and emptied segments sees what they left."""
    sleeper, other = jobs(open_storage()), jobs(open_storage())
    other.enqueue_many(range(100))
    assert sleeper.counts() == Counts(ready=100)
    for number in range(100, 400):
        other.enqueue(number)
        entry = other.dequeue()
        other.mark_completed(entry.id)
    assert len(files(tmp_path, ".checkpoint")) == 2
    assert drain(sleeper) == list(range(300, 400))
    assert other.counts() == Counts()


def test_what_is_not_needed_is_removed(open_storage, tmp_path):
    """Two checkpoints are kept, and the indexes that they name."""
    queue = jobs(storage := open_storage())
    for number in range(1000):
        queue.enqueue(number)
        assert queue.dequeue().data == number
        queue.mark_completed(queue.entries()[0].id)
    assert len(files(tmp_path, ".checkpoint")) == 2
    named = {
        run.segment
        for number in checkpoint.numbers(storage._fs, storage._queues["jobs"].folded.segments.directory)
        for run in checkpoint.load(
            storage._fs, storage._queues["jobs"].folded.segments.directory, number, 0
        ).runs
    }
    assert {int(file.stem) for file in files(tmp_path, ".index")} <= named


# -- what is kept ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reopened", [False, True])
def test_everything_about_an_entry_is_kept(open_storage, clock, reopened):
    """Attempts, errors, times, priority and state of an entry are the same on the shelf and off it."""
    storage = open_storage()
    queue = jobs(storage)
    queue.enqueue("dead", id="dead", priority=3)
    queue.mark_failed(queue.dequeue().id, error=ValueError("no"))
    queue.enqueue("given back", id="back", ttl=900 * SECOND)
    queue.release(queue.dequeue().id)
    queue.enqueue("later", id="later", delay=60 * SECOND, priority=-2)
    queue.pause(who="ann", reason="lunch")
    before = {entry.id: entry for entry in queue.entries()}
    for number in range(40):
        queue.enqueue(number)
    if reopened:
        storage.close()
        queue = jobs(open_storage())
    after = {entry.id: entry for entry in queue.entries()}
    assert {name: after[name] for name in before} == before
    assert queue.paused.who == "ann"
    assert [entry.id for entry in DeadLetterQueue("jobs", object, queue.storage).list()] == ["dead"]
    queue.resume(who="ann")
    clock.advance(60 * SECOND)
    assert drain(queue) == ["given back", *range(40), "later"]


def test_a_lease_outlives_a_seal(open_storage):
    """Who holds an entry while its segment is sealed, and the queue is opened by others, still holds it."""
    mine = jobs(open_storage())
    mine.enqueue("held")
    held = mine.dequeue()
    for number in range(60):
        mine.enqueue(number)
    other = jobs(open_storage())
    assert other.counts() == Counts(ready=60, leased=1)
    assert other.dequeue().data == 0
    mine.mark_completed(held.id)
    assert other.counts() == Counts(ready=59, leased=1)


def test_an_id_on_the_shelf_is_taken(open_storage):
    """An id is refused as long as its entry lives, wherever it lies, and free afterwards."""
    queue = jobs(open_storage())
    queue.enqueue("first", id="mine")
    for number in range(60):
        queue.enqueue(number)
    with pytest.raises(DuplicateEntry):
        queue.enqueue("second", id="mine")
    with pytest.raises(DuplicateEntry):
        queue.enqueue_many(["x", "second"], ids=["other", "mine"])
    queue.mark_completed(queue.dequeue().id)
    queue.enqueue("third", id="mine")
    assert drain(queue) == [*range(60), "third"]


def test_more_expire_at_once_than_one_turn_ends(open_storage, clock):
    """Thousands of entries whose time has passed are all ended, none of them is delivered."""
    queue = jobs(open_storage())
    queue.enqueue_many(range(2500), ttl=SECOND)
    queue.enqueue("stays")
    clock.advance(2 * SECOND)
    assert queue.counts() == Counts(ready=1)
    assert queue.dequeue().data == "stays"
    assert queue.dequeue() is None


def test_many_are_due_at_once(open_storage, clock):
    """Entries that become due together are delivered by priority, then as they were enqueued."""
    queue = jobs(storage := open_storage())
    rng = random.Random(7)
    wanted = []
    for number in range(300):
        priority = rng.choice([0, 0, 1, -1])
        queue.enqueue(number, priority=priority, delay=timedelta(seconds=rng.randint(1, 50)))
        wanted.append((-priority, number))
    assert queue.dequeue() is None
    clock.advance(100 * SECOND)
    assert queue.counts() == Counts(ready=300)
    assert drain(queue) == [number for _, number in sorted(wanted)]
    assert in_memory(storage) == 0


def test_an_id_is_looked_for_where_it_can_be(open_storage, monkeypatch):
    """However deep a queue is, an entry is found by its id in the index that has it."""
    queue = jobs(storage := open_storage())
    ids = [queue.enqueue(number) for number in range(400)]
    storage.close()
    read = []
    real = index.Index.__init__
    monkeypatch.setattr(index.Index, "__init__", lambda *args: read.append(1) or real(*args))
    storage = open_storage()
    assert storage.get("jobs", ids[200]).id == ids[200]
    jobs(storage).enqueue("own", id="order-17")
    assert len(read) == 1


# -- damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".index", ".checkpoint"])
@pytest.mark.parametrize("how", ["gone", "empty", "flipped"])
def test_what_is_derived_is_made_again(open_storage, tmp_path, suffix, how, caplog):
    """Whatever is lost beside the segments, nothing of the queue is, for those who are there and who come."""
    here = jobs(open_storage())
    here.enqueue_many(range(100))
    for number in range(100, 200):
        here.enqueue(number)
    for file in files(tmp_path, suffix):
        content = file.read_bytes()
        if how == "gone":
            file.unlink()
        else:
            middle = len(content) // 2
            flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            file.write_bytes(b"" if how == "empty" else flipped)
    comer = jobs(open_storage())
    assert [entry.data for entry in comer.entries()] == list(range(200))
    found = []
    for queue in itertools.cycle([here, comer]):
        entry = queue.dequeue()
        if entry is None:
            break
        found.append(entry.data)
        queue.mark_completed(entry.id)
    assert found == list(range(200))


def test_a_damaged_record_is_found_when_it_is_wanted(open_storage, tmp_path):
    """A line that was damaged behind the newest checkpoint's back is named, and nothing else is given out."""
    queue = jobs(storage := open_storage())
    # So many that the journal does not know the damaged line any more, which would mend it.
    for number in range(300):
        queue.enqueue(number)
    storage.close()
    segment = files(tmp_path, ".jsonl")[0]
    content = segment.read_bytes()
    second = content.index(b"\n") + 1
    segment.write_bytes(content[: second + 40] + b"~" + content[second + 41 :])
    queue = jobs(open_storage())
    assert queue.counts() == Counts(ready=300)
    first = queue.dequeue()
    assert first.data == 0
    for _ in range(2):
        with pytest.raises(StorageDamaged) as caught:
            queue.dequeue()
        assert (caught.value.path, caught.value.byte) == (f"jobs/segments/{segment.name}", second)
    queue.mark_completed(first.id)


def test_a_checkpoint_of_another_seal_is_none(open_storage, tmp_path):
    """A checkpoint whose seal is not in its segment does not count."""
    queue = jobs(storage := open_storage())
    for number in range(30):
        queue.enqueue(number)
    directory = storage._queues["jobs"].folded.segments.directory
    number = checkpoint.numbers(storage._fs, directory)[-1]
    assert checkpoint.load(storage._fs, directory, number, 0) is not None
    segment = tmp_path / "queues" / "jobs" / "segments" / f"{number:020d}.jsonl"
    content = segment.read_bytes()
    segment.write_bytes(content[:-2])
    assert checkpoint.load(storage._fs, directory, number, 0) is None
    segment.write_bytes(content)
    assert checkpoint.load(storage._fs, directory, number, 0) is not None


@pytest.mark.parametrize("suffix", ["index.tmp", "checkpoint.tmp"])
@pytest.mark.parametrize("call", ["open_file", "pwrite", "rename"])
def test_a_checkpoint_that_cannot_be_written(suffix, call, caplog):
    """When there is no room for what is derived, what was asked for is done all the same."""
    file_system = MemoryFileSystem()
    storage = FileStorage("/q", clock=FakeClock(), sizes=TINY, file_system=file_system, allow_network=True)
    file_system.fail(call, errno.ENOSPC, times=None, name=f"*.{suffix}")
    for number in range(60):
        storage.commit({"jobs": [Enqueue(f"job-{number}", b"1")]})
    assert storage.counts("jobs") == Counts(ready=60)
    assert "no checkpoint" in caplog.text
    file_system.heal()
    for number in range(60, 120):
        storage.commit({"jobs": [Enqueue(f"job-{number}", b"1")]})
    assert in_memory(storage) < 30
    names = [entry.id for entry in storage.entries("jobs")]
    assert names == [f"job-{number}" for number in range(120)]
    (first,) = storage.claim("jobs", detached=True)
    storage.commit({"jobs": [Complete(first.id, first.token)]})


# -- the index itself --------------------------------------------------------------------------------------


def entries(count, seed):
    rng = random.Random(seed)
    for seq in range(1, count + 1):
        ready_at = rng.choice([None, None, rng.randint(1, 50)])
        expires_at = rng.choice([None, None, None, rng.randint(40, 90)])
        operation = Enqueue(f"id-{seq}", b"", rng.randint(-1, 1), ready_at, expires_at)
        entry = Entry(operation, seq, 0, (1, seq * 10, 10), 0)
        entry.status = rng.choice([DEAD, READY if ready_at is None else SCHEDULED])
        yield entry


@pytest.mark.parametrize("seed", range(5))
def test_an_index_has_its_entries_in_order(seed):
    """What was put into an index comes out of it: order, times, ids."""
    rows = list(entries(60, seed))
    found = Index(index.build(1, rows))
    waiting = sorted((entry for entry in rows if entry.status is not DEAD), key=delivery_order)
    dead = [entry for entry in rows if entry.status is DEAD]
    assert [found.row(number).order for number in range(60)] == [entry.seq for entry in [*waiting, *dead]]
    for number, entry in enumerate([*waiting, *dead]):
        assert number in list(found.candidates(id_hash(entry.id)))
        assert found.key(number) == delivery_order(entry)
    assert list(found.candidates(id_hash("foreign"))) == []
    due = sorted((entry.ready_at, number) for number, entry in enumerate(waiting) if entry.ready_at)
    assert list(zip(found.due.times, found.due.rows, strict=True)) == due


def test_any_damage_of_an_index_is_seen():
    """A bit that is changed anywhere, or a byte that is missing or added, is noticed."""
    content = index.build(1, list(entries(12, 1)))
    for at in range(len(content)):
        with pytest.raises(BadIndex):
            Index(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        with pytest.raises(BadIndex):
            Index(content[:at])
    with pytest.raises(BadIndex):
        Index(content + b"x")


@pytest.mark.parametrize("count", [1, 3, 500, 5000])
def test_a_filter_knows_its_ids(count):
    """It lets every id of its index pass, and hardly any other; alone it is what it is in the index."""
    content = index.build(1, [Entry(Enqueue(f"id-{n}", b""), n, 0, (1, n, 1), 0) for n in range(count)])
    bits = content[index.HEADER_BYTES :][: index.filter_size(content)]
    alone, crc = index.filter_of(content, bits)
    assert crc == Index(content).crc
    for found in (alone, Index(content).filter):
        assert all(found.may_have(id_hash(f"id-{n}")) for n in range(count))
        assert sum(found.may_have(id_hash(f"other-{n}")) for n in range(10_000)) < 50


def test_a_damaged_filter_is_seen():
    """A bit of it that is changed, or a header that is none, is noticed without the rest of the index."""
    content = index.build(1, list(entries(12, 1)))
    bits = content[index.HEADER_BYTES :][: index.filter_size(content)]
    for at in range(len(bits)):
        with pytest.raises(BadIndex):
            index.filter_of(content, bits[:at] + bytes([bits[at] ^ 16]) + bits[at + 1 :])
    with pytest.raises(BadIndex):
        index.filter_size(content[: index.HEADER_BYTES - 1])
    with pytest.raises(BadIndex):
        index.filter_size(b"x" + content[1:])


def ids_in_no_order(count, seed):
    rng = random.Random(seed)
    return [f"{rng.getrandbits(64):x}" for _ in range(count)]


def enqueue_as(queue, names):
    """Entries under these ids, which are their payloads as well."""
    for name in names:
        queue.enqueue(name, id=name)


def test_own_ids_in_no_order(open_storage, monkeypatch):
    """A new id of one's own is found not to be there without an index being read, however many there are."""
    names = ids_in_no_order(300, seed=1)
    enqueue_as(jobs(open_storage()), names)
    read = []
    load_index = checkpoint.load_index
    monkeypatch.setattr(
        checkpoint,
        "load_index",
        lambda fs, directory, number: (read.append(number), load_index(fs, directory, number))[1],
    )
    queue = jobs(open_storage())
    enqueue_as(queue, ids_in_no_order(200, seed=3))
    assert len(read) < 20
    for name in names[::7]:
        with pytest.raises(DuplicateEntry):
            queue.enqueue("again", id=name)
    assert queue.get(names[50]).data == names[50]


def test_a_lost_filter(open_storage, tmp_path):
    """An index whose filter is damaged is made again when an id is looked for."""
    names = ids_in_no_order(200, seed=2)
    enqueue_as(jobs(open_storage()), names)
    queue = jobs(open_storage())
    assert len(queue) == 200
    for file in files(tmp_path, ".index"):
        content = bytearray(file.read_bytes())
        content[index.HEADER_BYTES + 1] ^= 1
        file.write_bytes(content)
    with pytest.raises(DuplicateEntry):
        queue.enqueue("again", id=names[20])
    queue.enqueue("new", id="new")
    assert drain(queue) == [*names, "new"]


@pytest.mark.parametrize("seed", range(5))
def test_a_run_is_the_same_after_it_was_kept(seed):
    """A run made from its image has the same rows left, the same first one, the same times."""
    rng = random.Random(seed)
    rows = list(entries(60, seed))
    found = Index(index.build(1, rows))
    run = Run.whole(found, ("id-1", "id-9"))
    run.activate(found)
    for number in rng.sample(range(60), 40):
        run.take(found, number)
        again = Run(run.image(rng.choice([found, None])))
        again.activate(found)
        now = rng.randint(0, 60)
        again.make_due(found, now)
        expected = Run.whole(found, ("id-1", "id-9"))
        expected.activate(found)
        for other, mark in enumerate(run.marks):
            if mark == 2:
                expected.take(found, other)
        expected.make_due(found, now)
        assert (again.marks, again.head, again.left) == (expected.marks, expected.head, expected.left)
        assert (again.ready, again.scheduled, again.dead) == (
            expected.ready,
            expected.scheduled,
            expected.dead,
        )
        assert list(again.expired(found, 70)) == list(expected.expired(found, 70))


def test_listing_by_state(open_storage, clock):
    """Each state is listed by itself, in its order, in pages, whether entries lie on the shelf or not."""
    queue = jobs(open_storage())
    for number in range(120):
        queue.enqueue(number, priority=number % 3, delay=timedelta(hours=1) if number % 4 == 0 else None)
        if number % 10 == 9:
            queue.mark_failed(queue.dequeue().id, error=ValueError("no"))
    everything = queue.entries()
    assert [entry.data for entry in everything] == list(range(120))
    for status in (EntryStatus.READY, EntryStatus.SCHEDULED, EntryStatus.DEAD):
        wanted = [entry for entry in everything if entry.status is status]
        if status is EntryStatus.READY:
            wanted.sort(key=lambda entry: (-entry.priority, entry.data))
        assert queue.entries(status) == wanted
        assert queue.entries(status, limit=7, offset=5) == wanted[5:12]


# -- misfortunes -------------------------------------------------------------------------------------------


def test_an_index_is_lost_while_a_dequeue_seals(open_storage, tmp_path, clock):
    """When the expiry that a dequeue begins with finds an index gone, nothing that is over is delivered."""
    storage = open_storage()
    queue = jobs(storage)
    for number in range(64):
        queue.enqueue("x" * 400, priority=9 if number % 4 == 0 else 0)
    held = queue.dequeue(limit=12)  # one or more of each run
    queue.enqueue("dies", priority=100, ttl=SECOND)
    folded = storage._queues["jobs"].folded
    while folded.segments.size < TINY.segment:
        queue.extend(held[0])
    for file in files(tmp_path, ".index"):
        file.unlink()
    folded.state.shelf._indexes.clear()
    clock.advance(2 * SECOND)
    assert queue.dequeue().data != "dies"
    assert queue.counts() == Counts(ready=51, leased=13)
    storage.close()
    assert jobs(open_storage()).counts() == Counts(ready=64)


def test_an_error_while_another_s_lease_is_read(open_storage, monkeypatch):
    """A record that could not be folded for want of descriptors is read again: nothing is leased twice."""
    mine, other = jobs(first := open_storage()), jobs(second := open_storage())
    mine.enqueue_many(range(60))
    mine.resume(who="ann")
    assert other.counts() == mine.counts() == Counts(ready=60)
    held = mine.dequeue()
    shelf = second._queues["jobs"].folded.state.shelf
    shelf._indexes.clear()

    def without_descriptors(number):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(shelf, "_load", without_descriptors)
    with pytest.raises(StorageError):
        other.dequeue()
    taken = other.dequeue()
    assert (held.data, taken.data) == (0, 1)
    assert first.counts("jobs") == Counts(ready=58, leased=2)


@pytest.mark.parametrize("suffix", [".index", ".checkpoint"])
def test_something_else_is_in_the_place_of_a_derived_file(open_storage, tmp_path, suffix):
    """A directory where an index or a checkpoint should be does not keep a queue from being used."""
    jobs(storage := open_storage()).enqueue_many(range(60))
    jobs(storage).resume(who="ann")
    storage.close()
    (file,) = files(tmp_path, suffix)
    file.unlink()
    file.mkdir()
    assert drain(jobs(open_storage())) == list(range(60))


def test_a_checkpoint_under_another_name(open_storage, tmp_path):
    """A checkpoint that was put in the place of another is not taken for it."""
    queue = jobs(storage := open_storage())
    for number in range(60):
        queue.enqueue(number)
    storage.close()
    older, newer = files(tmp_path, ".checkpoint")
    newer.write_bytes(older.read_bytes())
    assert drain(jobs(open_storage())) == list(range(60))


def test_the_state_that_time_brought(open_storage, clock):
    """An entry that was looked at before it was due is shown as ready afterwards."""
    queue = jobs(open_storage())
    queue.enqueue("later", id="a", delay=10 * SECOND)
    for number in range(40):
        queue.enqueue(number)
    assert queue.get("a").status is EntryStatus.SCHEDULED
    clock.advance(10 * SECOND)
    assert queue.get("a").status is EntryStatus.READY


def test_leases_of_others_are_folded_without_a_search(open_storage, clock, monkeypatch):
    """What another process takes, by time and priority, is found at the head of the order here too."""
    mine, other = jobs(open_storage()), jobs(second := open_storage())
    rng = random.Random(3)
    for number in range(300):
        mine.enqueue(number, delay=timedelta(seconds=rng.randint(1, 100)), priority=rng.randint(0, 2))
    assert other.counts() == Counts(scheduled=300)
    clock.advance(50 * SECOND)
    taken = mine.dequeue(limit=40)
    searched = []
    shelf = second._queues["jobs"].folded.state.shelf
    real = shelf.find
    monkeypatch.setattr(shelf, "find", lambda entry_id: searched.append(entry_id) or real(entry_id))
    assert other.counts().leased == len(taken) == 40
    assert not searched


def test_heads_that_move_back_and_forth_are_not_kept(open_storage, clock):
    """However often the first entry of a run changes, what is remembered of it stays bounded."""
    queue = jobs(storage := open_storage())
    rng = random.Random(5)
    for number in range(400):
        queue.enqueue(number, delay=timedelta(seconds=rng.randint(1, 400)))
    shelf = storage._queues["jobs"].folded.state.shelf
    for _ in range(400):
        clock.advance(SECOND)
        if (entry := queue.dequeue()) is not None:
            queue.mark_completed(entry)
        assert len(shelf._heads) <= 64 + 2 * len(shelf._runs)


def test_long_indexes_are_not_kept(open_storage, monkeypatch):
    """However long the indexes of dead letters are, no more than so many bytes of them stay in memory."""
    monkeypatch.setattr(runs, "OPEN_BYTES", 8_000)
    queue = jobs(storage := open_storage())
    for number in range(200):
        queue.enqueue(number)
        queue.mark_failed(queue.dequeue(), "x" * 500)
    assert [entry.data for entry in queue.entries()] == list(range(200))
    shelf = storage._queues["jobs"].folded.state.shelf
    lengths = [index.length for index in shelf._indexes.values()]
    assert len(shelf._runs) > len(lengths) >= 1
    assert sum(lengths) <= 8_000
