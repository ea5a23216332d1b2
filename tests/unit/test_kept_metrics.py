"""What a queue has been through outlives processes, files that are derived, and the records themselves."""

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta

import orjson
import pytest

from duraq import FileStorage, FixedDelay, NoRetry, Queue
from duraq.inspector import Inspector
from duraq.journal import compaction, record
from duraq.ledger import LEVELS, Counters
from duraq.operations import Drop
from duraq.testing import FakeClock

SECOND = timedelta(seconds=1)


@pytest.fixture
def open_storage(open_tiny, monkeypatch):
    """Open the same storage, with segments of a dozen entries; they are compacted when a test says so."""
    monkeypatch.setattr(compaction, "is_due", lambda *_: False)
    return open_tiny


def jobs(storage):
    return Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=2, delay=5 * SECOND))


def live(queue, clock, times):
    """Lives of every kind, many segments long; what they count."""
    for number in range(times):
        queue.enqueue_many([number] * 4)
        queue.enqueue("expires", ttl=SECOND, priority=-1)
        clock.advance(7 * SECOND)
        queue.mark_completed(queue.dequeue())
        queue.release(queue.dequeue())
        queue.mark_failed(queue.dequeue(), dead=True)
        queue.mark_failed(queue.dequeue(), retry_in=timedelta(0))
        clock.advance(3 * SECOND)
        queue.mark_completed_many(queue.dequeue(limit=2))


def derived(tmp_path):
    return list((tmp_path / "queues" / "jobs" / "segments").glob("*.[ic]*"))


def told(metrics):
    """What depends on the records alone."""
    return metrics.counters, metrics.wait, metrics.run, metrics.last_completed, metrics.history


def test_it_outlives_whoever_counted(open_storage, clock):
    """Opened again, and again, a queue tells the same as before."""
    storage = open_storage()
    live(jobs(storage), clock, 20)
    before = jobs(storage).metrics()
    assert before.counters == Counters(
        enqueued=100, completed=60, failed=40, dead=20, released=20, expired=20
    )
    storage.close()
    again = open_storage()
    assert jobs(again).metrics() == before
    live(jobs(again), clock, 1)
    assert jobs(again).metrics().counters.enqueued == 105


def test_it_outlives_what_is_derived(open_storage, tmp_path, clock):
    """With every index and checkpoint gone the records give the same numbers."""
    storage = open_storage()
    live(jobs(storage), clock, 20)
    before = jobs(storage).metrics()
    storage.close()
    assert len(derived(tmp_path)) > 4
    for file in derived(tmp_path):
        file.unlink()
    assert told(jobs(open_storage()).metrics()) == told(before)


@pytest.mark.parametrize("lost", [False, True])
def test_it_outlives_the_records(open_storage, tmp_path, clock, lost):
    """With the records gone that were counted the numbers stay, for those who were there and for others."""
    storage, sleeper = open_storage(), open_storage()
    sleeper.metrics("jobs")
    queue = jobs(storage)
    queue.enqueue("lives", delay=timedelta(hours=1))
    live(queue, clock, 30)
    before = queue.metrics()
    assert storage.compact("jobs").freed > before.bytes_on_disk / 2
    assert told(queue.metrics()) == told(before)
    live(queue, clock, 1)
    now = queue.metrics()
    assert now.counters.enqueued == before.counters.enqueued + 5
    assert told(jobs(sleeper).metrics()) == told(now)
    if lost:
        storage.close()
        sleeper.close()
        for file in derived(tmp_path):
            file.unlink()
    assert told(jobs(open_storage()).metrics()) == told(now)
    with Inspector(tmp_path / "queues", clock=clock) as inspector:
        assert told(inspector.metrics("jobs")) == told(now)


def test_a_drop_of_before(open_storage, tmp_path, clock, monkeypatch):
    """Behind a drop that says nothing of it everybody begins to count at zero, those who were there too."""
    storage = open_storage()
    queue = jobs(storage)
    live(queue, clock, 30)
    with monkeypatch.context() as patched:
        written = record._ENCODE[Drop]
        patched.setitem(
            record._ENCODE, Drop, lambda drop: written(Drop(drop.first, drop.bytes, drop.tokens, drop.pause))
        )
        storage.compact("jobs")
    storage.close()
    for file in derived(tmp_path):
        file.unlink()
    storage = open_storage()
    queue = jobs(storage)
    before = queue.metrics()
    assert before.counters.enqueued == 0
    live(queue, clock, 1)
    assert queue.metrics().counters.enqueued == 5
    assert told(jobs(open_storage()).metrics()) == told(queue.metrics())


def test_a_checkpoint_of_before(open_storage, tmp_path, clock):
    """One that says nothing of it is not used, and what it would have spared is read."""
    storage = open_storage()
    live(jobs(storage), clock, 20)
    before = jobs(storage).metrics()
    storage.close()
    for file in derived(tmp_path):
        if file.suffix == ".checkpoint":
            fields = orjson.loads(file.read_bytes())
            del fields["ledger"], fields["crc"]
            fields["format"] = 2
            file.write_bytes(record.finished(orjson.dumps(fields)[:-1]))
    assert told(jobs(open_storage()).metrics()) == told(before)


def test_a_copy_of_which_a_page_is_missing(open_storage, tmp_path, clock):
    """A checkpoint whose numbers are no numbers is not believed."""
    storage = open_storage()
    live(jobs(storage), clock, 20)
    before = jobs(storage).metrics()
    storage.close()
    for file in derived(tmp_path):
        if file.suffix == ".checkpoint":
            fields = orjson.loads(file.read_bytes())
            del fields["crc"]
            fields["ledger"]["minutes"] = [["x"]]
            file.write_bytes(record.finished(orjson.dumps(fields)[:-1]))
    assert told(jobs(open_storage()).metrics()) == told(before)


@pytest.mark.usefixtures("one_thread")
def test_drops_stay_short_after_a_busy_week(open_tiny, tmp_path):
    """What a drop repeats is bounded, and never makes a queue compact again because it has compacted."""
    clock = FakeClock()
    storage = open_tiny(clock=clock, durability="process")
    queue = Queue("jobs", storage)
    for minutes in [61] * 200 + [11] * 200 + [1] * 100:
        # In one thread that would go on for ever.
        queue.enqueue("x" * 100)
        queue.mark_completed(queue.dequeue())
        clock.advance(timedelta(minutes=minutes))
    before = queue.metrics()
    assert len(before.history) == sum(most for _, _, most in LEVELS)
    files = sorted((tmp_path / "queues/jobs/segments").glob("*.jsonl"))
    lines = [line for file in files for line in file.read_bytes().splitlines()]
    drops = [line for line in lines if line.startswith(b'{"op":"drop"')]
    assert 0 < max(map(len, drops)) < 16_000
    assert len(drops) < 10
    assert told(jobs(open_tiny(clock=clock)).metrics()) == told(before)


@pytest.mark.usefixtures("one_thread")
def test_short_segments_are_not_replaced_by_short_ones(open_tiny, tmp_path, clock):
    """Entries that live in many segments come to lie in few, though each compaction ends a segment early."""
    queue = Queue("jobs", open_tiny(durability="process"), retry_policy=NoRetry())
    for number in range(60):
        # In one thread that would go on for ever.
        queue.enqueue(f"lives {number}", delay=timedelta(days=1))
        for _ in range(10):
            queue.enqueue("is soon over")
            queue.mark_completed(queue.dequeue())
    found = queue.metrics()
    files = list((tmp_path / "queues/jobs/segments").glob("*.jsonl"))
    assert found.counts.scheduled == 60
    assert found.counters == Counters(enqueued=660, completed=600)
    assert sum(file.stat().st_size for file in files) < 2 * found.live_bytes + 8 * 1024


READ = """
import json, sys
from duraq import FileStorage
with FileStorage(sys.argv[1]) as storage:
    found = storage.metrics("jobs")
print(json.dumps([found.counters, found.wait.buckets, found.wait.sum, found.run.buckets, found.run.sum]))
"""
DIE = """
import os, sys
from duraq import FileStorage, Queue
storage = FileStorage(sys.argv[1])
queue = Queue("jobs", storage)
queue.mark_completed(queue.dequeue())
queue.dequeue()
print("held", flush=True)
sys.stdin.read()
"""


def run(program, path, **options):
    return subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
    )


def test_another_process(tmp_path):
    """A process that has only read counts what others did, and the death of one of them."""
    path = tmp_path / "queues"
    with FileStorage(path) as storage:
        queue = Queue("jobs", storage)
        queue.enqueue_many(range(3))
        with run(DIE, path) as worker:
            assert worker.stdout.readline() == b"held\n"
            assert queue.metrics().workers == 1
            os.kill(worker.pid, signal.SIGKILL)
        assert queue.settle_lapsed()
        found = queue.metrics()
        assert found.counters == Counters(enqueued=3, completed=1, worker_died=1)
        assert (found.workers, found.wait.count, found.run.count) == (0, 2, 1)
        with run(READ, path) as reader:
            out, _ = reader.communicate(b"")
    told = [found.counters, found.wait.buckets, found.wait.sum, found.run.buckets, found.run.sum]
    assert json.loads(out) == json.loads(json.dumps(told))


def test_whoever_only_enqueues_counts_nothing(open_storage):
    """New entries are written without reading the queue, and are counted when somebody asks."""
    feeder, worker = open_storage(), open_storage()
    jobs(feeder).enqueue(1)
    jobs(worker).enqueue(2)
    jobs(feeder).enqueue(3)
    assert feeder._queues["jobs"].folded.state.ledger.totals().enqueued < 3
    assert jobs(feeder).metrics().counters.enqueued == 3
