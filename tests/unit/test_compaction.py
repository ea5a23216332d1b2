"""Compaction: which segments go, what is kept of them, and what everybody sees of that."""

import errno
import fcntl
import os
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from duraq import (
    DeadLetterQueue,
    EntryStatus,
    FileStorage,
    FixedDelay,
    InvalidOption,
    LeaseLost,
    NoRetry,
    Queue,
    QueueNotFound,
    StorageDamaged,
    verify,
)
from duraq.inspector import Inspector
from duraq.journal import compaction
from duraq.journal.filesystem import RealFileSystem
from duraq.journal.lines import Follower, Lines
from duraq.journal.log import Sizes
from duraq.operations import Keep
from duraq.testing import FakeClock

TINY = Sizes(journal=16 << 10, segment=2 << 10)
SECOND = timedelta(seconds=1)


@pytest.fixture
def open_storage(open_tiny, monkeypatch):
    """Open the same storage, with segments of a dozen entries; they are compacted when a test says so."""
    monkeypatch.setattr(compaction, "is_due", lambda *_: False)
    return open_tiny


def jobs(storage, policy=None):
    return Queue("jobs", storage, retry_policy=policy or NoRetry())


def segments(tmp_path):
    return sorted((tmp_path / "queues" / "jobs" / "segments").glob("*.jsonl"))


def size(tmp_path):
    return sum(path.stat().st_size for path in segments(tmp_path))


def live(queue, count):
    """That many lives, from the beginning to the end."""
    for number in range(count):
        queue.enqueue(f"life {number}")
        queue.mark_completed(queue.dequeue())


def everything(storage):
    """All that can be seen of the queue."""
    dead = DeadLetterQueue("jobs", None, storage).list()
    return storage.counts("jobs"), storage.paused("jobs"), jobs(storage).entries(), dead


# -- what goes and what stays ------------------------------------------------------------------------------


def test_what_is_over_goes(open_storage, tmp_path):
    """Of a queue in which all is over less than a segment's bytes stay."""
    storage = open_storage()
    live(jobs(storage), 200)
    assert size(tmp_path) > 20 * TINY.segment
    assert storage.compact("jobs").freed > 20 * TINY.segment
    assert size(tmp_path) < TINY.segment
    assert storage.compact("jobs") == ("jobs", 0, 0)


@pytest.mark.parametrize("segment", [512, 1 << 10, 2 << 10])
@pytest.mark.usefixtures("one_thread")
def test_it_comes_to_an_end(tmp_path, clock, monkeypatch, segment):
    """What compactions have written themselves is no reason for the next one, however small segments are."""
    sizes, looks = Sizes(journal=16 << 10, segment=segment), 0

    def following(*arguments, real=compaction.following):
        nonlocal looks
        looks += 1
        assert looks < 1000, "it goes on for ever"
        return real(*arguments)

    monkeypatch.setattr(compaction, "following", following)
    with FileStorage(tmp_path / "queues", sizes=sizes, clock=clock, durability="process") as storage:
        live(jobs(storage), 40)
        assert storage.counts("jobs").length == 0


def test_whatever_lives_is_kept(open_storage, clock):
    """States, times, priorities, attempts, errors and payloads stay as they were, for everyone."""
    storage, other = open_storage(), open_storage()
    queue = jobs(storage)
    queue.enqueue("buried", id="buried", priority=9)
    queue.mark_failed(queue.dequeue(), error=ValueError('"},"data":"x'))
    patient = jobs(storage, FixedDelay(delay=100 * SECOND, max_attempts=3))
    patient.enqueue("failed", id="failed", ttl=9999 * SECOND)
    patient.mark_failed(patient.dequeue(), error="not yet")
    queue.enqueue("released", id="released", priority=-3)
    queue.release(queue.dequeue())
    queue.enqueue({"scheduled": ["\u2028", 1.5]}, id="scheduled", delay=500 * SECOND)
    queue.enqueue("plain", id="plain", priority=-2)
    clock.advance(SECOND)
    queue.pause("holidays", who="ann")
    queue.resume()
    live(queue, 200)
    queue.pause("holidays", who="ann")
    before = everything(storage)
    found = storage.compact("jobs")
    assert found.kept >= 5
    assert found.freed > 0
    assert everything(storage) == everything(other) == everything(open_storage()) == before


def test_what_goes_is_not_kept_open(open_storage, tmp_path):
    """Nobody who has heard of it has a removed segment open: it would take space until he closes it."""
    storages = [open_storage(), open_storage()]
    for storage in storages:
        # It reads in a thread of its own, and may be in the middle of a file.
        storage._upkeep.stopping = True
    live(jobs(storages[0]), 100)
    assert len(jobs(storages[1]).entries()) == 0
    assert storages[0].compact("jobs").freed > 0
    assert len(jobs(storages[1]).entries()) == 0
    opened = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    assert [path for path in opened if path.startswith(str(tmp_path)) and path.endswith("(deleted)")] == []


@pytest.mark.parametrize("suffix", [".index", ".checkpoint", "[.ic]*[xt]"])
def test_the_rest_can_be_read_alone(open_storage, tmp_path, suffix):
    """With segments gone and what is derived lost, the records that are left say everything."""
    storage = open_storage()
    queue = jobs(storage)
    ids = queue.enqueue_many([f"entry {number}" for number in range(40)])
    queue.mark_failed(queue.dequeue(), error="no")
    for _ in range(20):
        queue.mark_completed(queue.dequeue())
    for _ in range(100):
        queue.enqueue("first of all", priority=1)
        queue.mark_completed(queue.dequeue())
    queue.pause("lunch")
    assert storage.compact("jobs").freed
    queue.resume()
    before = everything(storage)
    assert len(before[2]) == 20
    storage.close()
    for file in (tmp_path / "queues" / "jobs" / "segments").glob(f"*{suffix}"):
        file.unlink()
    again = open_storage()
    assert everything(again) == before
    assert [entry.id for entry in jobs(again).entries(EntryStatus.READY)] == ids[21:]


def test_a_token_is_never_given_again(open_storage, tmp_path):
    """A holder of long ago is told so, though every record of that time is gone."""
    storage = open_storage()
    queue = jobs(storage)
    queue.enqueue("x", id="again")
    old = queue.dequeue()
    queue.mark_completed(old)
    live(queue, 200)
    storage.compact("jobs")
    storage.close()
    for file in (tmp_path / "queues" / "jobs" / "segments").glob("*.checkpoint"):
        file.unlink()
    again = jobs(open_storage())
    again.enqueue("y", id="again")
    fresh = again.dequeue()
    assert fresh.token > old.token
    with pytest.raises(LeaseLost):
        again.mark_completed(old)


def test_a_held_entry_is_kept_with_its_lease(open_storage):
    """An entry that is leased meanwhile stays its holder's, and is completed by it."""
    storage, other = open_storage(), open_storage()
    queue = jobs(storage)
    queue.enqueue("long work", id="long")
    held = queue.dequeue()
    live(jobs(other), 200)
    assert other.compact("jobs").kept == 1
    queue.extend(held.id, 50 * SECOND)
    queue.mark_completed(held)
    assert not queue.entries()


def test_a_sleeper_wakes_up(open_storage):
    """Whoever knew only segments that are gone goes on with what is there."""
    sleeper, storage = open_storage(), open_storage()
    theirs, queue = jobs(sleeper), jobs(storage)
    theirs.enqueue("before", id="before")
    held = theirs.dequeue()
    for _ in range(5):
        live(queue, 100)
        storage.compact("jobs")
    queue.enqueue("after", id="after")
    assert [entry.id for entry in theirs.entries()] == ["before", "after"]
    theirs.mark_completed(held)
    assert theirs.dequeue().data == "after"


def test_whoever_comes_after_it_begins_at_the_checkpoint(open_storage, caplog):
    """After a compaction in the midst of work a newcomer does not fold everything from the records."""
    storage = open_storage()
    queue = jobs(storage)
    queue.enqueue_many(range(200))
    for _ in range(100):
        queue.enqueue("urgent", priority=1)
        queue.mark_completed(queue.dequeue())
    queue.dequeue(limit=20)
    assert storage.compact("jobs").kept
    queue.dequeue(limit=20)
    newcomer = open_storage()
    assert jobs(newcomer).counts().ready == 160
    assert newcomer._queues["jobs"].folded._adopted
    assert [entry.data for entry in jobs(newcomer).dequeue(limit=3)] == [40, 41, 42]
    assert not caplog.records


def test_an_empty_segment_that_was_left_over(open_storage, tmp_path):
    """A file that was made for a seal that never came is not taken for the next segment."""
    storage = open_storage()
    live(jobs(storage), 100)
    first, second, *_ = segments(tmp_path)
    first.with_name(f"{int(second.stem) - 1:020}.jsonl").touch()
    jobs(storage).enqueue("x")
    storage.compact("jobs")
    storage.close()
    for file in (tmp_path / "queues" / "jobs" / "segments").glob("*.checkpoint"):
        file.unlink()
    assert jobs(open_storage()).dequeue().data == "x"


def test_who_looks_behind_an_empty_segment_that_was_left_over(open_storage, tmp_path):
    """Who checks a queue, or follows it, passes over a file that was made for a seal that never came."""
    live(jobs(open_storage()), 100)
    first, second, *_ = segments(tmp_path)
    fs = RealFileSystem()
    root = fs.open_root(str(tmp_path / "queues"))
    with closing(Lines(fs, root, "jobs")) as lines:
        written = len(list(Follower(lines, None).new()))
        first.with_name(f"{int(second.stem) - 1:020}.jsonl").touch()
        assert len(list(Follower(lines, None).new())) == written == 300
    fs.close(root)
    report = verify(tmp_path / "queues")
    assert report.sound
    assert not report.findings


def test_long_histories(open_storage, tmp_path):
    """Entries whose errors are longer than the largest group are kept all the same."""
    storage = FileStorage(tmp_path / "queues", sizes=TINY._replace(group=8 << 10), clock=FakeClock())
    queue = jobs(storage)
    queue.enqueue_many(["x"] * 3)
    for _ in range(5):
        for entry in queue.dequeue(limit=3):
            queue.mark_failed(entry, "e" * 3000, retry_in=timedelta(0))
    before = queue.entries()
    storage.compact("jobs")
    assert queue.entries() == before
    assert len(before[0].errors) == 5
    storage.close()


def test_a_forked_child_does_not_hold_it_up(open_storage, tmp_path, monkeypatch):
    """A child that was forked while a compaction was going on, and lives on, keeps nobody from the next."""
    storage = open_storage()
    live(jobs(storage), 100)
    children = []
    go_on, tell = os.pipe()
    real = compaction.following

    def forking(*arguments):
        if not children:
            children.append(os.fork())
            if not children[0]:
                os.close(tell)
                os.read(go_on, 1)
                os._exit(0)
        return real(*arguments)

    monkeypatch.setattr(compaction, "following", forking)
    try:
        storage.compact("jobs")
        live(jobs(storage), 100)
        assert open_storage().compact("jobs").freed
    finally:
        os.close(tell)
        os.close(go_on)
        os.waitpid(children[0], 0)


def test_one_that_finds_another_at_work_leaves_nothing_open(open_storage, tmp_path):
    """Whoever would compact by itself, and finds that somebody does, lets go of all that it opened."""
    storage = open_storage()
    live(jobs(storage), 5)
    segments_fd = os.open(tmp_path / "queues" / "jobs" / "segments", os.O_RDONLY)
    fcntl.flock(segments_fd, fcntl.LOCK_EX)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with storage._upkeep.alone("jobs", "segments", wait=False) as alone:
        assert not alone
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    os.close(segments_fd)


def test_readers_go_on(open_storage, tmp_path):
    """An inspector that has read what is gone by now still gives every entry its payload."""
    storage = open_storage()
    queue = jobs(storage)
    queue.enqueue_many([f"entry {number}" for number in range(10)])
    with Inspector(tmp_path / "queues") as inspector:
        walking = inspector.each_entry("jobs")
        first = next(walking)
        for _ in range(300):
            queue.enqueue("other", priority=1)
            queue.mark_completed(queue.dequeue())
        assert storage.compact("jobs").kept == 10
        assert [first.payload, *(view.payload for view in walking)] == [
            f'"entry {number}"'.encode() for number in range(10)
        ]
        assert inspector.get(first.id, "jobs").payload == first.payload
        inspector.refresh()
        assert inspector.counts("jobs").ready == 10


def test_what_cannot_be_read_is_not_dropped(open_storage, tmp_path):
    """A segment with a damaged living entry stays, and the entry is named."""
    storage = open_storage()
    queue = jobs(storage)
    queue.enqueue("precious" * 9, id="precious")
    for _ in range(300):
        queue.enqueue("other", priority=1)
        queue.mark_completed(queue.dequeue())
    oldest = segments(tmp_path)[0]
    oldest.write_bytes(oldest.read_bytes().replace(b"precious" * 9, b"precious" * 8 + b"pRecious"))
    with pytest.raises(StorageDamaged, match=oldest.name):
        storage.compact("jobs")
    assert oldest.exists()


# -- when --------------------------------------------------------------------------------------------------


def test_it_happens_by_itself(tmp_path):
    """A queue through which much goes stays small, whatever is buried in it."""
    with FileStorage(tmp_path / "queues", sizes=TINY, durability="process") as storage:
        queue = jobs(storage)
        queue.enqueue_many(["buried"] * 10)
        for entry in queue.dequeue(limit=10):
            queue.mark_failed(entry, error="no")
        live(queue, 1000)
    assert size(tmp_path) < 30 * TINY.segment
    with FileStorage(tmp_path / "queues", sizes=TINY) as storage:
        assert len(DeadLetterQueue("jobs", None, storage).list()) == 10


@pytest.mark.parametrize(("history", "stays"), [(timedelta(hours=1), True), (1 << 30, True), (0, False)])
def test_history_is_kept(open_storage, tmp_path, clock, history, stays):
    """Segments stay as long, or as many bytes, as was once said, whoever compacts."""
    open_storage(history=history).close()
    storage = open_storage()
    live(jobs(storage), 200)
    assert bool(storage.compact("jobs").freed) is not stays
    clock.advance(timedelta(hours=2))
    live(jobs(storage), 50)
    assert bool(storage.compact("jobs").freed) is (history != 1 << 30)


@pytest.mark.parametrize("history", [-1, True, 1.5, timedelta(-1), "1h"])
def test_history_is_checked(tmp_path, history):
    """What is no duration and no number of bytes is refused before anything is made."""
    with pytest.raises(InvalidOption, match="history"):
        FileStorage(tmp_path / "queues", history=history)
    assert not list(tmp_path.iterdir())


def test_unknown_queue(open_storage):
    """A queue that does not exist is not compacted into being."""
    with pytest.raises(QueueNotFound):
        open_storage().compact("jobs")


def test_whoever_writes_helps_when_the_thread_falls_behind(tmp_path, monkeypatch):
    """Where the thread that compacts gets no time, those who end entries write again what lives."""
    with FileStorage(tmp_path / "queues", sizes=TINY, durability="process") as storage:
        queue = jobs(storage)
        with monkeypatch.context() as patch:
            patch.setattr(storage._upkeep, "if_due", lambda: None)
            for number in range(40):
                queue.enqueue(number, priority=-1)
            live(queue, 200)
        folded = storage._queues["jobs"].folded
        assert folded.oldest > folded.segments.first
        # All that is left to the thread is to say that those segments are not needed, and to remove them.
        live(queue, 1)
        storage._upkeep._thread.join()
        assert size(tmp_path) <= 2 * folded.live_bytes + 2 * TINY.segment
        assert [entry.data for entry in queue.entries()] == list(range(40))


def test_a_caller_is_not_told_that_helping_failed(open_storage, monkeypatch, caplog):
    """What goes wrong while it helps is nothing to whoever has just written something."""
    storage = open_storage()
    queue = jobs(storage)
    queue.enqueue(1)

    def fail(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(storage._compactor, "_write_again", fail)
    storage._compactor.late.add("jobs")
    queue.enqueue(2)
    assert not storage._compactor.late
    assert "longer than it should be" in caplog.text


def test_an_entry_that_came_back_is_delivered_after_it_was_kept(open_storage):
    """An entry that was given back, and is kept by the write that seals its segment, stays in the line."""
    storage = open_storage()
    queue = jobs(storage)
    queue.enqueue("first")
    queue.release(queue.dequeue())
    folded = storage._queues["jobs"].folded
    entry = next(iter(folded.state.entries.values()))
    with storage._turn:
        storage._state("jobs")
        storage._write({"jobs": [Keep(entry.id, b'"first"', entry)]}, seal=True)
    assert queue.counts().ready == 1
    assert queue.dequeue().data == "first"


def test_small_segments_become_large_ones(open_storage, tmp_path):
    """Many small segments, as compaction itself leaves them, are worked through together and become few."""
    with FileStorage(tmp_path / "queues", sizes=Sizes(journal=16 << 10, segment=200)) as storage:
        for number in range(40):
            jobs(storage).enqueue(f"stays {number}", priority=-1)
            live(jobs(storage), 2)
    small = len(segments(tmp_path))
    assert small > 40
    storage = open_storage()
    before = everything(storage)
    storage.compact("jobs")
    assert len(segments(tmp_path)) < small // 4
    assert everything(storage) == before


# -- the storage's own queues ------------------------------------------------------------------------------


def removed_long_ago(tmp_path, clock):
    """A storage in which much was removed, and something done under a key, longer ago than it is kept."""
    with FileStorage(tmp_path / "queues", sizes=TINY, clock=clock) as storage:
        queue = jobs(storage)
        for number in range(20):
            queue.enqueue("x" * 500, key=f"key {number}")
            queue.mark_failed(queue.dequeue(), dead=True)
            DeadLetterQueue("jobs", None, storage).remove_all()
    clock.advance(timedelta(days=15))


def bytes_of(tmp_path, queue):
    return sum(path.stat().st_size for path in (tmp_path / "queues" / queue / "segments").glob("*.jsonl"))


@pytest.mark.parametrize("queue", ["_acts", "_keys"])
def test_what_was_removed_leaves_the_disk(tmp_path, clock, queue):
    """What was removed, and keys, are gone from the disk once their time is over and somebody compacts."""
    removed_long_ago(tmp_path, clock)
    before = bytes_of(tmp_path, queue)
    with FileStorage(tmp_path / "queues", sizes=TINY, clock=clock) as storage:
        storage.compact(queue)
    assert bytes_of(tmp_path, queue) < before / 2
    assert bytes_of(tmp_path, queue) < 2 * TINY.segment


def test_whoever_works_ends_what_is_over(tmp_path, clock, monkeypatch):
    """Now and then whoever works a queue has ended what has expired in the queues that nobody works."""
    removed_long_ago(tmp_path, clock)
    with FileStorage(tmp_path / "queues", sizes=TINY, clock=clock) as storage:
        jobs(storage).enqueue("y")
        jobs(storage).dequeue()
        storage._upkeep._thread.join()
        for queue in ("_acts", "_keys"):
            with storage._turn:
                assert storage._state(queue).tally.length == 0
