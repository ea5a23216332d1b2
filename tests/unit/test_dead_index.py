"""Dead letters in a few numbers each."""

from __future__ import annotations

import threading
from array import array
from collections import Counter
from datetime import timedelta

import pytest

from duraq import DeadLetterQueue, EntryStatus, Queue
from duraq.dead_index import ErrorKind, in_order
from duraq.inspector import Inspector
from duraq.model import AttemptError

KINDS = ("KeyError", "OSError", "ValueError")


@pytest.fixture
def storage(open_tiny):
    return open_tiny(durability="process")


@pytest.fixture
def queue(storage):
    return Queue("jobs", storage)


@pytest.fixture
def inspector(storage, clock, tmp_path):
    with Inspector(tmp_path / "queues", clock=clock) as inspector:
        yield inspector


def bury(queue, clock, count, first=0):
    """So many dead letters, one a second, of three kinds in turn; and as many entries that are completed."""
    for number in range(first, first + count):
        queue.enqueue(number)
        queue.enqueue("over")
        entry, over = queue.dequeue(limit=2)
        clock.advance(timedelta(seconds=1))
        kind = KINDS[number % 3]
        queue.mark_failed(entry, AttemptError(kind, f"number {number}", signature=kind.lower()), dead=True)
        queue.mark_completed(over)


def index_of(inspector, **options):
    inspector.refresh()
    return inspector.dead_index("jobs", **options)


def numbers(inspector, index):
    return [int(view.payload) for view in inspector.letters(index, in_order(index.died, descending=True))]


def test_all_of_them(queue, clock, inspector):
    """It has every dead letter, with when and of what it died, and knows which died last."""
    bury(queue, clock, 100)
    index = index_of(inspector)
    views = {view.id: view for view in inspector.entries("jobs", EntryStatus.DEAD)}
    found = inspector.letters(index, range(len(index)))
    assert len(index) == len(views) == inspector.counts("jobs").dead == 100
    assert numbers(inspector, index) == list(reversed(range(100)))
    for place, view in enumerate(found):
        assert view == views[view.id]
        assert (index.died_at(place), index.attempts[place]) == (view.updated_at, view.attempts)
        assert index.causes[index.cause[place]].type == view.history[-1].error.type


def test_kinds(queue, clock, inspector):
    """Those that died of the same kind of error have the same number, and it is computed, not believed."""
    bury(queue, clock, 100)
    index = index_of(inspector)
    kinds = Counter(index.causes[number].type for number in index.cause)
    assert kinds == {"KeyError": 34, "OSError": 33, "ValueError": 33}
    assert ErrorKind("keyerror", "KeyError") not in index.causes


def test_what_has_changed(queue, storage, clock, inspector):
    """The next index has what died since, and not what was put back or removed."""
    bury(queue, clock, 60)
    before = index_of(inspector)
    letters = DeadLetterQueue("jobs", None, storage)
    gone = letters.list()[10:20]
    for entry in gone[:5]:
        letters.remove(entry.id)
    for entry in gone[5:]:
        letters.retry(entry.id)
    bury(queue, clock, 30, first=60)
    after = index_of(inspector, before=before)
    assert len(before) == 60
    there = [view.id for view in inspector.letters(after, range(len(after)))]
    assert sorted(there) == sorted(entry.id for entry in letters.list())
    assert {entry.id for entry in gone[:5]}.isdisjoint(there)
    assert sorted(after.orders) == sorted(index_of(inspector).orders)
    # By the index before, those that are dead no more are not shown as if they were.
    shown = inspector.letters(before, range(60))
    assert shown.count(None) >= 5
    assert {entry.id for entry in gone[:5]}.isdisjoint(view.id for view in shown if view is not None)


def test_as_it_grows(queue, clock, inspector):
    """While it is built what it has so far can be shown, and stays where it is."""
    bury(queue, clock, 60)
    inspector.refresh()
    seen = []

    def progress(index, total):
        seen.append((len(index), total, list(index.orders)))

    index = inspector.dead_index("jobs", progress=progress)
    assert len(seen) > 3
    assert {total for _, total, _ in seen} == {60}
    for count, _, orders in seen:
        assert list(index.orders[:count]) == orders
    assert seen[-1][0] == len(index) == 60


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    "values", [[], [1], [1, 2, 3], [3, 2, 1], [2, 2, 2], [1, 1, 2], [2, 1, 1], [2, 3, 1, 3]], ids=str
)
def test_in_order(values, descending):
    """Values that are in order already, or the other way round, are put in order as all others are."""
    wanted = sorted(range(len(values)), key=values.__getitem__, reverse=descending)
    assert list(in_order(array("q", values), descending=descending)) == wanted


def test_stopped(queue, clock, inspector):
    """It is given up when that is wanted."""
    bury(queue, clock, 60)
    stop = threading.Event()
    stop.set()
    assert index_of(inspector, stop=stop) is None


def test_without_any_index(queue, storage, clock, inspector, tmp_path):
    """Where what is derived is lost, or nothing was sealed yet, the letters are there all the same."""
    bury(queue, clock, 3)
    assert numbers(inspector, index_of(inspector)) == [2, 1, 0]
    bury(queue, clock, 57, first=3)
    storage.close()
    inspector.refresh()
    assert inspector.counts("jobs").dead == 60
    for file in (tmp_path / "queues" / "jobs" / "segments").glob("*.index"):
        file.unlink()
    assert numbers(inspector, inspector.dead_index("jobs")) == list(reversed(range(60)))


def test_errors_without_a_signature(queue, clock, inspector):
    """What was written without a signature is grouped by the one that it would have."""
    for number in range(60):
        queue.enqueue(number)
        queue.mark_failed(queue.dequeue(), AttemptError("KeyError", f"no key {number}"), dead=True)
    index = index_of(inspector)
    assert set(index.cause) == {0}
