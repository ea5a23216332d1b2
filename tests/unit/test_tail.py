"""Entries are added to the end of a queue by a process that does not know what is before it."""

from datetime import timedelta

import pytest

from duraq import Counts, DuplicateEntry, NoRetry, Queue, QueueFull, StorageDamaged
from duraq.journal import checkpoint, record
from duraq.journal.folded import Folded
from duraq.journal.segments import Segments
from duraq.operations import Enqueue
from duraq.shelf import Mislaid

# More than a segment of the tiny ones holds.
MANY = 40


def jobs(storage, **options):
    return Queue("jobs", storage, retry_policy=NoRetry(), **options)


@pytest.fixture
def two(open_tiny):
    """The queue as two processes have it that look at nothing while they enqueue."""
    return jobs(open_tiny()), jobs(open_tiny())


def take_turns(queues, count):
    for number in range(count):
        queues[number % len(queues)].enqueue(number)


def drain(queue):
    found = []
    while (entry := queue.dequeue()) is not None:
        found.append(entry.data)
        queue.mark_completed(entry)
    return found


def read_records(monkeypatch):
    """The records that are decoded from now on, as they come."""
    found = []
    decode = record.decode

    def counted(line):
        found.append(line)
        return decode(line)

    monkeypatch.setattr(record, "decode", counted)
    return found


def checkpoints(queue):
    segments = queue.storage._queues["jobs"].folded.segments
    return checkpoint.numbers(queue.storage._fs, segments.directory)


def sealed(queue):
    segments = queue.storage._queues["jobs"].folded.segments
    return [int(name[:20]) for name in queue.storage._fs.names(segments.directory) if "jsonl" in name][:-1]


def test_who_only_enqueues_reads_nothing(two, monkeypatch):
    """An enqueue behind those of others decodes none of their records, but for the seals."""
    take_turns(two, 2)
    found = read_records(monkeypatch)
    two[0].storage._upkeep.stopping = two[1].storage._upkeep.stopping = True
    take_turns(two, MANY)
    assert found
    assert all(line.startswith(b'{"op":"seal"') for line in found)
    assert two[0].storage._queues["jobs"].folded.state.entries.keys() != set()


def test_all_is_there_when_it_is_looked_at(two):
    """What was added without looking is found by both, in order and once, over several segments."""
    take_turns(two, MANY)
    assert len(sealed(two[0])) >= 2
    assert [len(queue) for queue in two] == [MANY, MANY]
    assert drain(two[1]) == list(range(MANY))
    assert two[0].counts() == Counts()


def test_batches_and_single_entries_mix(two, open_tiny):
    """Batches, single entries and leases of several processes keep the order of their turns."""
    two[0].enqueue_many(range(15))
    two[1].enqueue(15)
    entry = two[0].dequeue()
    two[1].enqueue_many(range(16, 40))
    two[0].enqueue(40)
    two[0].mark_completed(entry)
    assert drain(jobs(open_tiny())) == list(range(1, 41))


def test_a_process_that_was_killed_left_its_line_unwritten(two, open_tiny):
    """A frame whose line never reached the segment is written there before anything goes behind it."""
    take_turns(two, 2)
    log = two[0].storage._log
    log.lock()
    tail = log.queues["jobs"].tail
    tail.follow()
    group = tail.compose([Enqueue("orphan", b"1", fresh=True)], "2026-01-01T12:00:00.000000Z")
    standing = log.journal.append(group.parts, 0)
    log.unlock()
    assert standing.end > standing.start
    two[1].enqueue("behind it")
    assert drain(jobs(open_tiny())) == [0, 1, 1, "behind it"]


def test_own_ids_and_limits_look(two):
    """A taken id and a full queue are noticed even behind entries that were added without looking."""
    take_turns(two, 3)
    two[0].enqueue("mine", id="mine")
    two[1].enqueue("another")
    with pytest.raises(DuplicateEntry):
        two[1].enqueue("mine", id="mine")
    with pytest.raises(QueueFull):
        jobs(two[0].storage, max_size=5).enqueue("too many")


def test_entries_with_a_ttl_do_not_pile_up(two, clock):
    """Where nobody works, whoever enqueues with a TTL ends what is over, whoever enqueued it."""
    for number in range(10):
        two[number % 2].enqueue(number, ttl=timedelta(seconds=1))
        clock.advance(timedelta(seconds=2))
    last = two[0].enqueue("last", ttl=timedelta(seconds=1))
    folded = two[0].storage._queues["jobs"].folded
    assert [entry.id for entry in folded.state.entries.values()] == [last]


def test_a_checkpoint_is_made_all_the_same(two, open_tiny, monkeypatch):
    """Segments sealed by those who only enqueue get their checkpoints, so that opening stays quick."""
    take_turns(two, 2)
    for number in range(6 * MANY):
        two[number % 2].enqueue(number)
        thread = two[number % 2].storage._upkeep._thread
        if thread is not None:
            thread.join()
    assert checkpoints(two[0])[-1] == sealed(two[0])[-1]
    found = read_records(monkeypatch)
    assert len(jobs(open_tiny())) == 6 * MANY + 2
    assert len(found) < MANY


def test_whoever_slept_goes_on_from_the_newest_checkpoint(two, open_tiny, monkeypatch):
    """A process far behind reads no more than one that has only just opened the queue."""
    take_turns(two, 2)
    worker = jobs(open_tiny())
    for number in range(6 * MANY):
        worker.enqueue(number)
    found = read_records(monkeypatch)
    assert len(two[1]) == 6 * MANY + 2
    assert len(found) < MANY


def test_a_damaged_last_line_is_found_before_anything_is_added(two):
    """If the line that others wrote last is not whole, nothing is written behind it."""
    take_turns(two, 2)
    two[0].enqueue("damaged")
    segments = two[0].storage._queues["jobs"].folded.segments
    fd = segments._files.get(segments.segment)
    size = two[0].storage._fs.size(fd)
    two[0].storage._fs.pwrite(fd, b"#", size - 40)
    for _ in range(2):
        with pytest.raises(StorageDamaged):
            two[1].enqueue("behind it")
    assert two[0].storage._fs.size(fd) == size


def test_the_files_of_a_fold_that_sleeps_may_go(two, open_tiny):
    """Compaction may remove what a process that only enqueues has never read."""
    take_turns(two, 2)
    worker = jobs(open_tiny())
    for round_ in range(6):
        take_turns(two, MANY)
        assert len(drain(worker)) == MANY + (2 if round_ == 0 else 0)
        worker.storage.compact("jobs")
    take_turns(two, 3)
    assert [len(queue) for queue in (*two, worker)] == [3, 3, 3]
    assert drain(two[1]) == [0, 1, 2]


def test_a_seal_that_was_taken_back_gets_no_checkpoint(two):
    """The thread that folds sealed segments believes a seal only while it stands there."""
    take_turns(two, MANY)
    storage = two[0].storage
    folded = storage._queues["jobs"].folded
    segments = Segments(storage._fs, storage._log.root, "jobs", writable=False, limit=1 << 20)
    for number in checkpoints(two[0]):
        checkpoint.remove(storage._fs, segments.directory, number, [])
    apart = Folded(storage._fs, segments, give=storage._log.give)
    seal = next(seal for seal in apart.through_seals() if seal is not None)
    fd = folded.segments._files.get(seal.segment)
    storage._fs.pwrite(fd, b" " * seal.length, seal.offset)
    with pytest.raises(Mislaid):
        apart.pass_seal()
    assert checkpoints(two[0]) == []
    segments.close()
