"""How far somebody has read, kept from one look to the next."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from datetime import timedelta

import pytest

from duraq import DeadLetterQueue, FileStorage, Queue, repair
from duraq.bookmarks import FEW, Bookmarks
from duraq.inspector import Inspector
from duraq.journal import folded_by_reader
from duraq.journal.folded_by_reader import WORTH_IT
from duraq.journal.log import Sizes
from duraq.journal.record import decode
from duraq.testing import FakeClock

SIZES = Sizes(journal=1 << 13, segment=40_000)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(folded_by_reader, "WORTH_IT", 1)
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "storage"


@pytest.fixture
def storage(path, clock):
    with FileStorage(path, durability="process", sizes=SIZES, clock=clock) as storage:
        yield storage


def live(storage, clock, rng, turns):
    """Do all that can be done to a queue, at random."""
    queue = Queue("jobs", storage)
    letters = DeadLetterQueue("jobs", None, storage)
    for turn in range(turns):
        clock.advance(timedelta(seconds=rng.randrange(90)))
        queue.enqueue(turn, priority=rng.randrange(3))
        queue.enqueue("later", delay=timedelta(minutes=rng.randrange(1, 9)))
        queue.enqueue("short", ttl=timedelta(minutes=rng.randrange(1, 9)))
        for entry in queue.dequeue(limit=3):
            match rng.randrange(5):
                case 0:
                    queue.mark_failed(entry, "no", dead=True)
                case 1:
                    queue.mark_failed(entry, "not yet", retry_in=timedelta(minutes=1))
                case 2:
                    queue.release(entry)
                case 3:
                    queue.mark_completed(entry)
        for letter in letters.list(limit=1):
            rng.choice([letters.retry, letters.remove])(letter.id)
    if rng.randrange(2):
        queue.pause("incident")
    else:
        queue.resume()


def told(path, clock, bookmarks=None):
    """All that an inspector says of the queue."""
    with Inspector(path, clock=clock, bookmarks=bookmarks) as inspector:
        return inspector.look("jobs"), inspector.entries("jobs"), inspector.leases()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("seed", range(6))
def test_it_is_all_the_same(storage, path, clock, seed):
    """Whoever goes on from a bookmark says the same as one who has read everything, wherever it stands."""
    rng = random.Random(seed)
    bookmarks = {}
    for _ in range(4):
        live(storage, clock, rng, rng.randrange(1, 30))
        assert told(path, clock, bookmarks) == told(path, clock)
        assert decode_op(bookmarks["jobs"]) == "bookmark"
        clock.advance(timedelta(minutes=3))
        assert told(path, clock, bookmarks) == told(path, clock)


def decode_op(line):
    with pytest.raises(ValueError, match="bookmark"):
        decode(line)
    return "bookmark"


def test_it_spares_reading(path, clock):
    """What lies before a bookmark is not read: damage there keeps nobody from going on."""
    with FileStorage(path, clock=clock, sizes=Sizes(journal=1 << 13, segment=1 << 20)) as storage:
        queue = Queue("jobs", storage)
        for number in range(300):
            queue.enqueue(number)
            queue.mark_completed(queue.dequeue())
        bookmarks = {}
        (before, _), _, _ = told(path, clock, bookmarks)
    (segment,) = (path / "jobs" / "segments").glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"data":3,', b'"data":4,'))
    with Inspector(path, clock=clock) as inspector:
        assert inspector.overview("jobs").problem is not None
    with Inspector(path, clock=clock, bookmarks=bookmarks) as inspector:
        assert inspector.overview("jobs") == before


def test_of_something_else(storage, path, clock):
    """A bookmark whose place is not as it was, or that is damaged, is not believed."""
    live(storage, clock, random.Random(2), 20)
    bookmarks = {}
    whole = told(path, clock, bookmarks)
    line = bookmarks["jobs"]
    with FileStorage(path.parent / "other", clock=clock) as other:
        Queue("jobs", other).enqueue_many(range(100))
        there = told(path.parent / "other", clock)
        assert told(path.parent / "other", clock, {"jobs": line}) == there
    for bad in (b"", b"{}\n", line[:-30], line.replace(b'"offset":', b'"offset":9'), b"\xff" * 100, line[1:]):
        assert told(path, clock, {"jobs": bad}) == whole


def test_after_compaction(storage, path, clock):
    """A bookmark in what was compacted since is of no use, and does no harm."""
    live(storage, clock, random.Random(3), 30)
    bookmarks = {}
    told(path, clock, bookmarks)
    queue = Queue("jobs", storage)
    for turn in range(300):
        queue.enqueue(turn)
        for entry in queue.dequeue(limit=9):
            queue.mark_completed(entry)
    storage.compact("jobs")
    assert told(path, clock, bookmarks) == told(path, clock)


@pytest.mark.parametrize("size", [20_000, 1 << 20])
def test_after_a_repair(path, clock, size):
    """What was read before a repair, in memory or from a bookmark, is read anew, wherever it is."""
    with FileStorage(path, clock=clock, sizes=Sizes(journal=1 << 13, segment=size)) as storage:
        for number in range(150):
            Queue("jobs", storage).enqueue("x" * 300, id=f"entry-{number}")
    bookmarks = {}
    told(path, clock, bookmarks)
    with Inspector(path, clock=clock) as inspector:
        assert len(inspector.entries("jobs")) == inspector.counts("jobs").ready == 150
        segment = path / "jobs" / "segments" / "00000000000000000001.jsonl"
        segment.write_bytes(segment.read_bytes().replace(b'"id":"entry-5"', b'"id":"antry-5"'))
        assert len(repair(path, clock=clock).before.findings) == 1
        with FileStorage(path, clock=clock) as storage:
            Queue("jobs", storage).enqueue("new", id="new")
        inspector.refresh()
        found = inspector.look("jobs"), inspector.entries("jobs"), inspector.leases()
    assert found == told(path, clock, bookmarks) == told(path, clock)
    assert (found[0][0].counts.ready, len(found[1])) == (150, 150)


def test_in_the_cache(path, cache):
    """Many new ones are kept, for this user alone; a few are not worth it; what is none is left out."""
    first = Bookmarks(path)
    first["jobs"] = b"one\n"
    first.save()
    assert not cache.exists()
    for number in range(FEW):
        first[f"queue-{number}"] = b"%d\n" % number
    first.save()
    (file,) = (cache / "duraq" / "bookmarks").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(file.read_bytes() + b"../evil x\n\xff\xff y\n")
    again = Bookmarks(path)
    assert dict(again) == dict(first)
    del again["jobs"]
    assert len(again) == FEW
    assert len(Bookmarks(path.parent)) == 0


def test_where_nothing_can_be_kept(path, cache):
    """Where the cache cannot be written, they are not kept, and that is all."""
    cache.write_text("not a directory")
    marks = Bookmarks(path)
    for number in range(FEW):
        marks[f"queue-{number}"] = b"\n"
    marks.save()
    assert len(Bookmarks(path)) == 0


def test_commands_keep_them(path):
    """``duraq stats`` begins where the last one ended."""
    with FileStorage(path, clock=FakeClock()) as storage:
        for number in range(FEW):
            Queue(f"queue-{number}", storage).enqueue_many(range(WORTH_IT))
    stats = [sys.executable, "-m", "duraq", "-C", str(path), "stats", "--json"]
    first = subprocess.run(stats, check=False, capture_output=True)
    assert len(Bookmarks(path)) == FEW
    second = subprocess.run(stats, check=False, capture_output=True)
    assert counts(first) == counts(second)
    assert len(counts(second)) == FEW


def counts(done):
    return [(row["queue"], row["ready"], row["oldest_ready"]) for row in json.loads(done.stdout)["rows"]]
