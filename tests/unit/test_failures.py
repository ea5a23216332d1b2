"""What broke: failed attempts, from the records and from what entries have been through."""

from __future__ import annotations

import random
import shutil
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from duraq import DeadLetterQueue, FileStorage, FixedDelay, Queue
from duraq import fates as fates_module
from duraq.clock import from_timedelta, to_datetime
from duraq.failure_records import FailureRecords
from duraq.failures import PARTS, By, Gatherer, dead_by, gather
from duraq.fates import Fate, Fates
from duraq.inspector import Inspector
from duraq.journal import record
from duraq.journal.log import Sizes
from duraq.model import AttemptError
from duraq.times import rfc3339

SMALL = Sizes(journal=1 << 14, segment=2000)
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
AGAIN = FixedDelay(max_attempts=2, delay=timedelta(0))


@pytest.fixture
def history():
    """For how long the storage knows what is over; by default not at all."""
    return timedelta(0)


@pytest.fixture
def storage(tmp_path, clock, history):
    options = {"durability": "process", "sizes": SMALL, "history": history}
    with FileStorage(tmp_path / "storage", clock=clock, **options) as storage:
        yield storage


@pytest.fixture
def queue(storage):
    return Queue("jobs", storage, retry_policy=AGAIN)


@pytest.fixture
def inspector(storage, clock):
    with Inspector(storage.path, clock=clock) as inspector:
        yield inspector


def fail(queue, clock, error="no", times=1):
    """The next entry fails so often, a second apart; returns its id."""
    for _ in range(times):
        entry = queue.dequeue()
        clock.advance(SECOND)
        queue.mark_failed(entry, error)
    return entry.id


def looked(inspector, window=HOUR, by=By.SIGNATURE, queues=None):
    inspector.refresh()
    return gather(inspector, window, queues, by=by)


def fates(group):
    return (group.ok, group.waiting, group.dead, group.other)


def test_grouped_by_what_is_the_same(queue, inspector, clock):
    """Failures whose messages differ in numbers only are one group, and each attempt is counted once."""
    queue.enqueue_many(range(3))
    for number in (1, 22, 333):
        fail(queue, clock, ValueError(f"row {number}"))
        queue.mark_completed(queue.dequeue())
    queue.enqueue("x")
    fail(queue, clock, KeyError("y"))
    found = looked(inspector)
    assert [(each.error.type, each.count, each.message) for each in found.groups] == [
        ("ValueError", 3, "row <n>"),
        ("KeyError", 1, "<text>"),
    ]
    assert (found.count, found.counted) == (4, 4)
    assert [sample.message for sample in found.groups[0].samples] == ["row 333", "row 22", "row 1"]
    assert [sample.type for sample in found.latest] == ["KeyError", *["ValueError"] * 3]


@pytest.mark.parametrize("history", [timedelta(days=1)])
def test_what_became_of_them(queue, storage, inspector, clock):
    """An attempt counts as done once its entry is completed, as dead or waiting while it is, or as other."""
    for name in ("done", "waiting", "dead", "removed", "again"):
        queue.enqueue(name, id=name)
        fail(queue, clock)
        if name == "done":
            queue.mark_completed(queue.dequeue())
        elif name != "waiting":
            fail(queue, clock)
        else:
            queue.dequeue()
    letters = DeadLetterQueue("jobs", None, storage)
    letters.remove("removed")
    letters.retry("again")
    (group,) = looked(inspector).groups
    assert fates(group) == (1, 3, 2, 2)
    assert group.count == 8


def test_it_keeps_up(tmp_path, clock):
    """A gatherer that goes on reading comes to what a new one comes to, across segments."""
    options = {"durability": "process", "sizes": SMALL, "clock": clock, "history": timedelta(days=1)}
    with (
        FileStorage(tmp_path / "kept", **options) as storage,
        Inspector(storage.path, clock=clock) as inspector,
    ):
        compare(Queue("jobs", storage, retry_policy=AGAIN), inspector, clock)


def compare(queue, inspector, clock):
    gatherer = Gatherer(HOUR, to_datetime(clock.now()))
    for number in range(60):
        queue.enqueue("x" * 50)
        fail(queue, clock, f"no {number}", times=1 + number % 2)
        if number % 4 == 0:
            queue.mark_completed(queue.dequeue())
        if number % 7 == 0:
            inspector.refresh()
            gatherer.read(inspector)
    inspector.refresh()
    gatherer.read(inspector)
    now = to_datetime(clock.now())
    kept, new = gatherer.report(now), looked(inspector)
    assert kept.count == new.count == 90
    assert [fates(each) for each in kept.groups] == [fates(each) for each in new.groups]
    assert kept.latest == new.latest


def test_the_window(queue, inspector, clock):
    """What failed before the window is told apart from what failed in it; what was long before is not."""
    for ago in (150, 90, 30, 10):
        queue.enqueue(ago)
        queue.mark_failed(queue.dequeue(), "no", dead=True)
        clock.advance(timedelta(minutes=60 if ago > 60 else 20 if ago == 30 else 10))
    (group,) = looked(inspector).groups
    assert (group.count, group.before) == (2, 1)
    assert sum(group.trend) == 2
    assert len(group.trend) == PARTS
    assert group.trend[PARTS // 2 - 1] == 1
    assert group.last - group.first >= 80 * MINUTE


def test_new(queue, inspector, clock):
    """New is what began in the window if it is known what was before, and only then."""
    queue.enqueue_many(range(3))
    fail(queue, clock, ValueError("old"))
    assert not looked(inspector).groups[0].is_new
    clock.advance(3 * HOUR)
    fail(queue, clock, KeyError("new"))
    (group,) = looked(inspector).groups
    assert group.is_new
    clock.advance(HOUR)
    fail(queue, clock, KeyError("new"))
    (group,) = looked(inspector).groups
    assert not group.is_new
    assert group.before == 1


@pytest.mark.parametrize("by", list(By))
def test_by(storage, inspector, clock, by):
    """Failures are put together by signature, by type or by queue."""
    for name in ("a", "b"):
        queue = Queue(name, storage)
        for error in (ValueError("no"), ValueError("other"), KeyError("k")):
            queue.enqueue(1)
            queue.mark_failed(queue.dequeue(), error, dead=True)
    clock.advance(SECOND)
    found = looked(inspector, by=by)
    numbers = {By.SIGNATURE: [2, 2, 2], By.TYPE: [4, 2], By.QUEUE: [3, 3]}[by]
    assert [each.count for each in found.groups] == numbers
    if by is By.QUEUE:
        assert [each.key for each in found.groups] == ["a", "b"]
    else:
        assert found.groups[0].queues == {"a": numbers[0] // 2, "b": numbers[0] // 2}
    assert looked(inspector, by=by, queues=["a"]).count == 3


def test_after_compaction(queue, storage, inspector, clock):
    """Of entries that are there every failure is known after compaction too; of the others the number."""
    queue.enqueue("stays", id="stays", delay=SECOND)
    clock.advance(SECOND)
    fail(queue, clock, ValueError("stays"))
    for number in range(40):
        queue.enqueue("x" * 100, priority=1)
        fail(queue, clock, f"gone {number}")
        queue.mark_completed(queue.dequeue())
    storage.compact("jobs")
    queue.enqueue("x")
    storage.compact("jobs")
    assert looked(inspector).counted == 41
    found = looked(inspector)
    assert 1 <= found.count < 41
    (stays,) = [each for each in found.groups if each.error.type == "ValueError"]
    assert (stays.count, fates(stays)) == (1, (0, 1, 0, 0))
    assert stays.samples[0].id == "stays"


@pytest.mark.parametrize("count", [1, 60])
def test_a_queue_made_again(queue, storage, inspector, clock, count):
    """Of a queue whose directory was removed and made again, only what is there now counts."""
    queue.enqueue_many(["x" * 100] * count)
    gatherer = Gatherer(HOUR, to_datetime(clock.now()))
    fail(queue, clock, ValueError("before"))
    inspector.refresh()
    gatherer.read(inspector)
    storage.close()
    shutil.rmtree(storage.path)
    (gone,) = gatherer.report(to_datetime(clock.now())).groups
    assert gone.error.type == "ValueError"
    with FileStorage(storage.path, durability="process", sizes=SMALL, clock=clock) as anew:
        jobs = Queue("jobs", anew)
        jobs.enqueue(1)
        fail(jobs, clock, KeyError("after"))
        with Inspector(storage.path, clock=clock) as other:
            gatherer.read(other)
    (group,) = gatherer.report(to_datetime(clock.now())).groups
    assert group.error.type == "KeyError"


def test_stopped(queue, inspector, clock):
    """A reading that is stopped says so, and the next one goes on."""
    queue.enqueue(1)
    fail(queue, clock)
    inspector.refresh()
    gatherer, stop = Gatherer(HOUR, to_datetime(clock.now())), threading.Event()
    stop.set()
    assert not gatherer.read(inspector, stop=stop)
    assert gatherer.report(to_datetime(clock.now())).count == 0
    assert gatherer.read(inspector)
    assert gatherer.report(to_datetime(clock.now())).count == 1


def test_a_damaged_queue(queue, storage, inspector, clock):
    """What keeps a queue from being read is told, and hides nothing of another one."""
    queue.enqueue(1)
    fail(queue, clock)
    other = Queue("other", storage)
    other.enqueue(1)
    fail(other, clock)
    segment = next((Path(inspector.path) / "other" / "segments").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'"op":"enqueue"', b'"op":"enqueux"'))
    found = looked(inspector)
    assert set(found.problems) == {"other"}
    assert found.groups[0].queues["jobs"] == 1


def test_dead_letters(queue, inspector, clock):
    """The dead letters are put together by the failure that they died of, the newest samples first."""
    for number in range(7):
        queue.enqueue(number, id=f"e{number}")
        fail(queue, clock, f"no {number}")
        fail(queue, clock, f"never {number}")
    inspector.refresh()
    (group,) = dead_by(inspector)
    assert (group.message, group.count, group.dead) == ("never <n>", 7, 7)
    assert [each.id for each in group.samples] == ["e6", "e5", "e4", "e3", "e2"]
    assert group.last - group.first == 12 * SECOND


def test_brought_back(queue, storage, inspector, clock):
    """A dead letter that was removed and is brought back is counted as dead again; and then, as any other."""
    queue.enqueue_many(["a", "b"], ids=["a", "b"])
    fail(queue, clock, "no", times=2)
    dead = DeadLetterQueue("jobs", None, storage)
    act = dead.remove("a")
    (group,) = looked(inspector).groups
    assert fates(group) == (0, 0, 0, 2)
    dead.undo(act)
    (group,) = looked(inspector).groups
    assert fates(group) == (0, 0, 2, 0)
    dead.retry("a")
    (group,) = looked(inspector).groups
    assert fates(group) == (0, 2, 0, 0)


@pytest.mark.parametrize("seed", range(2))
def test_beside_compaction(queue, storage, inspector, clock, seed):
    """However a queue is worked and compacted between two readings, each known attempt is in one place."""
    chance = random.Random(seed)
    gatherer, read_at = Gatherer(HOUR, to_datetime(clock.now())), 0
    for step in range(60):
        queue.enqueue("x" * chance.randrange(200), priority=chance.randrange(2))
        for entry in queue.dequeue(limit=2):
            clock.advance(SECOND)
            if chance.random() < 0.5:
                queue.mark_failed(entry, f"no {step}", dead=chance.random() < 0.1)
            else:
                queue.mark_completed(entry)
        if chance.random() < 0.1:
            storage.compact("jobs")
        if chance.random() < 0.1:
            inspector.refresh()
            gatherer.read(inspector)
            read_at = step
    inspector.refresh()
    gatherer.read(inspector)
    assert read_at
    kept, new = gatherer.report(to_datetime(clock.now())), looked(inspector)
    counts = inspector.counts("jobs")
    for found in (kept, new):
        assert found.count <= found.counted
        for group in found.groups:
            assert sum(fates(group)) == group.count == sum(group.trend)
        # Each dead letter has died of one attempt at least, all of which are known from its history.
        assert sum(group.dead for group in found.groups) >= counts.dead
    failed = {view.id for view in inspector.entries("jobs") if view.history and view.status != "dead"}
    assert sum(group.waiting for group in new.groups) == sum(
        len(inspector.get(entry_id).history) for entry_id in failed
    )
    assert kept.count >= new.count


# -- the fold ----------------------------------------------------------------------------------------------


def error(kind):
    return AttemptError(kind, "no", signature=kind)


def fold(found, *failures):
    """These failures: whose, when, of which kind, and whether it was the last."""
    for name, at, kind, dead in failures:
        found.fail(name, at, kind, error(kind), dead=dead)
    return found


def test_too_many_kinds(monkeypatch):
    """Kinds beyond the limit are counted as one."""
    monkeypatch.setattr(fates_module, "MOST_KINDS", 2)
    found = fold(Fates("jobs", 0, 10, 0), *((str(n), n + 1, f"E{n}", False) for n in range(5)))
    found.show(lambda _: error("?"))
    assert {key: sum(map(sum, kind.cells.values())) for key, kind in found.kinds.items()} == {
        "E0": 1,
        "E1": 1,
        "": 3,
    }
    assert [kind.error.type for kind in found.kinds.values()] == ["E0", "E1", "(more)"]
    assert [sample.type for sample in found.kinds[""].samples] == ["E2", "E3", "E4"]


def test_too_many_entries(monkeypatch):
    """Entries beyond the limit are counted, and not followed."""
    monkeypatch.setattr(fates_module, "MOST_OPEN", 1)
    found = fold(Fates("jobs", 0, 10, 0), *((name, 1, "E", name == "c") for name in "abc"))
    assert [found.follows(name) for name in "abc"] == [True, False, False]
    found.end("a", Fate.OK)
    assert found.kinds["E"].cells == {0: [1, 0, 1, 1]}


def test_forgetting():
    """What is forgotten no longer counts, and its entries are no longer followed."""
    found = fold(Fates("jobs", 0, 10, 0), ("a", 5, "E", False), ("b", 15, "E", False), ("c", 5, "F", False))
    found.forget_before(1)
    assert set(found.kinds) == {"E"}
    assert set(found.kinds["E"].cells) == {1}
    assert [found.follows(name) for name in "abc"] == [False, True, False]
    fold(found, ("a", 5, "E", False)).show(lambda _: error("?"))
    assert set(found.kinds["E"].cells) == {1}


def test_what_is_shown():
    """The newest few are shown, of each kind and of all, and only their records are read."""
    read = []
    found = Fates("jobs", 0, 1000, 0)
    for number in range(100):
        found.fail(f"e{number}", number + 1, f"E{number % 2}", b"%d" % number, dead=False)
    found.show(lambda line: (read.append(int(line)), error("read"))[1])
    assert [sample.id for sample in found.kinds["E1"].samples] == ["e95", "e97", "e99"]
    assert [sample.id for sample in found.latest] == [f"e{number}" for number in range(80, 100)]
    assert min(read) == 80
    found.fail("later", 101, "E1", error("E1"), dead=False)
    found.show(lambda _: error("?"))
    assert [sample.id for sample in found.kinds["E1"].samples] == ["e97", "e99", "later"]
    assert found.latest[-1].id == "later"


def test_stretches():
    """A stretch ends with its boundary."""
    found = Fates("jobs", 100, 10, 0)
    assert [found.stretch(at) for at in (100, 101, 110, 111)] == [-1, 0, 0, 1]


def test_partial_reports(queue, inspector, clock):
    """While it reads it says how far it is, and what it knows by then can be had."""
    queue.enqueue_many(range(3))
    for number in range(3):
        fail(queue, clock, f"no {number}")
    inspector.refresh()
    gatherer = Gatherer(HOUR, to_datetime(clock.now()))
    told = []

    def progress(done, of):
        told.append((done, of, gatherer.report(to_datetime(clock.now())).count))

    assert gatherer.read(inspector, progress=progress)
    assert told[0] == (0, 1, 0)
    assert told[-1] == (0, 1, 3)


def test_what_is_not_ours(clock):
    """A record that has a right checksum, and is not as we write it, is counted at most."""
    at = rfc3339(clock.now())
    said = [
        f'"at":"{at}","id":"x","token":1,"error":{{"type":1,"signature":"0123abcd"}}',
        f'"at":"{at}","id":"x","token":1,"error":7',
        f'"at":"{at[:-1]}{"9" * 400}Z","id":"x","error":{{"type":1,"signature":"0123abcd"}}',
        '"at":"2026-99-99T99:99:99.999999Z","id":"x","error":{"type":1,"signature":"0123abcd"}',
    ]
    lines = [record.finished(b'{"op":"fail","seq":9,' + text.encode()) for text in said]
    known = FailureRecords("jobs", 0, from_timedelta(HOUR), 0)
    known._fold(b"\n" + b"".join(lines))
    known.show()
    assert [(key, kind.error.type) for key, kind in known.fates.kinds.items()] == [
        ("0123abcd", "(unreadable)")
    ]


def test_forged(queue, inspector, clock):
    """What looks like a signature within a message is none."""
    queue.enqueue(1)
    fail(queue, clock, 'no ,"signature":"00000000"')
    (group,) = looked(inspector).groups
    assert group.key == group.error.signature != "00000000"
