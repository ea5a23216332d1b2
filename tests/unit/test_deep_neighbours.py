"""What others have done to a queue, met by a process that has not looked at it: found, and mended."""

import errno
from datetime import timedelta

import pytest

from duraq import Counts, NoRetry, NotEnqueued, Queue
from duraq.journal.recovery import Replay
from duraq.operations import Enqueue

NOON = "2026-01-01T12:00:00.000000Z"
MANY = 40  # more than a segment of the tiny ones holds


def jobs(storage, **options):
    return Queue("jobs", storage, retry_policy=NoRetry(), **options)


@pytest.fixture
def two(open_tiny):
    """The queue as two processes have it."""
    return jobs(open_tiny(history=1 << 30)), jobs(open_tiny())


def die_before_the_line(storage, entry_id):
    """Leave a frame that counts, and no line in its segment: the process was killed in between."""
    log = storage._log
    log.lock()
    tail = log.queues["jobs"].tail
    tail.follow()
    group = tail.compose([Enqueue(entry_id, b"1", fresh=True)], NOON)
    log.journal.append(group.parts, 0)
    log.unlock()


def test_a_frame_of_a_deep_queue_opens_few_files(two, monkeypatch):
    """Whoever meets the last frame of another process opens the segments it is for, not all there are."""
    deep, other = two
    Queue("others", other.storage).enqueue(1)
    for number in range(8 * MANY):
        deep.enqueue(number)
    opened = []
    open_file = other.storage._fs.open_file
    monkeypatch.setattr(
        other.storage._fs,
        "open_file",
        lambda directory, name, **options: (opened.append(name), open_file(directory, name, **options))[1],
    )
    die_before_the_line(deep.storage, "orphan")
    Queue("others", other.storage).enqueue(2)
    assert len([name for name in opened if name.endswith(".jsonl")]) < 5
    assert other.get("orphan").data == 1


def test_a_replay_that_fails_is_tried_again(two, monkeypatch):
    """If the lines of a dead process cannot be written now, no sync of others makes them pass for written."""
    first, second = two
    first.enqueue(0)
    second.enqueue(1)
    die_before_the_line(first.storage, "orphan")
    run = Replay.run

    def fail(*_):
        raise OSError(errno.EMFILE, "no descriptors")

    monkeypatch.setattr(Replay, "run", fail)
    for _ in range(2):
        with pytest.raises(NotEnqueued):
            second.enqueue("not now")
        # Another thread of that process syncs the journal meanwhile.
        second.storage._log.commits.wait_for(second.storage._log.journal.standing.end)
    monkeypatch.setattr(Replay, "run", run)
    second.enqueue(2)
    for queue in two:
        assert [entry.id == "orphan" or entry.data for entry in queue.entries()] == [0, 1, True, 2]


def test_no_descriptor_to_look_with(two, monkeypatch):
    """An entry that could not be added for want of a descriptor is certainly absent, and said to be."""
    first, second = two
    first.enqueue(0)
    second.enqueue(1)
    first.enqueue(2)

    def fail(*_):
        raise OSError(errno.EMFILE, "no descriptors")

    tail = second.storage._queues["jobs"].folded.segments.tail
    with monkeypatch.context() as patch:
        patch.setattr(tail, "follow", fail)
        with pytest.raises(NotEnqueued):
            second.enqueue(3)
    second.enqueue(4)
    assert [entry.data for entry in first.entries()] == [0, 1, 2, 4]


def test_a_death_is_noticed_after_an_enqueue(two):
    """Whoever has only enqueued lately sees, when it asks, that the holder of an entry is gone."""
    first, second = two
    first.enqueue(0)
    assert len(second) == 1
    first.dequeue()
    second.enqueue(1)
    holder = first.storage._presence
    assert second.counts() == Counts(ready=1, leased=1)
    second.enqueue(2)
    holder.close()
    second.storage._next_liveness_check.clear()
    assert second.settle_lapsed()
    assert second.counts() == Counts(ready=2, dead=1)


def test_large_entries_leave_no_space_behind(tmp_path, open_tiny):
    """A queue of large entries is small once they are over, though nothing more is written to it."""
    queue = jobs(open_tiny())
    for number in range(30):
        queue.enqueue(["x" * 1500, number])
    while (entry := queue.dequeue()) is not None:
        queue.mark_completed(entry)
    thread = queue.storage._upkeep._thread
    assert thread is not None
    thread.join()
    files = (tmp_path / "queues" / "jobs" / "segments").glob("*.jsonl")
    assert sum(file.stat().st_size for file in files) <= 2 * 4096
    assert queue.counts() == Counts()


def test_leases_that_lapse_while_somebody_only_enqueues(two, clock):
    """A deadline that passes is acted upon by whoever asks, however long it has not looked."""
    first, second = two
    first.enqueue(0)
    second.enqueue(1)
    first.dequeue()
    second.enqueue(2)
    clock.advance(timedelta(hours=1))
    assert second.settle_lapsed()
    assert second.counts().dead == 1


def test_a_newcomer_completes_what_the_dead_have_left(open_tiny):
    """Whoever opens a storage that others have open brings a dead process's last frame to all its queues."""
    first = open_tiny()
    for name in ("jobs", "others"):
        Queue(name, first).enqueue(0, id="zero")
    log = first._log
    log.lock()
    tails = [log.queues[name].tail for name in ("jobs", "others")]
    groups = [tail.compose([Enqueue("orphan", b"1", fresh=True)], NOON) for tail in tails]
    log.journal.append([part for group in groups for part in group.parts], 0)
    log.unlock()
    newcomer = open_tiny()
    Queue("jobs", newcomer).enqueue(2, id="two")
    assert [entry.id for entry in Queue("jobs", newcomer).entries()] == ["zero", "orphan", "two"]
    assert [entry.id for entry in Queue("others", newcomer).entries()] == ["zero", "orphan"]
