"""What is done to dead letters of several queues, under one name: at a rate, and no longer than it helps."""

from datetime import timedelta

import pytest

from duraq import Counts, InvalidOption, Queue
from duraq.acts import Acts
from duraq.bulk import (
    ENOUGH_FAILED,
    BulkRun,
    Meant,
    Pace,
    Watch,
    begun,
    in_words,
    last_removal,
    name_of,
    plan,
)
from duraq.model import EntryStatus


class Dead:
    """A dead letter as an inspector shows one: as much of it as is asked for."""

    def __init__(self, queue, entry):
        self.queue, self.id, self.history = queue.name, entry.id, entry.errors
        self.token = Acts(queue.storage).check(queue.name, entry.id).last_token


def bury(queue, count, error="no"):
    """So many dead letters, as views."""
    ids = queue.enqueue_many(range(count))
    for entry in queue.dequeue(limit=count):
        queue.mark_failed(entry, error, dead=True)
    return [Dead(queue, queue.get(entry_id)) for entry_id in ids]


class Clockwork:
    """Waits in no time, and says for how long in all; while it does, somebody works the queue."""

    def __init__(self, monkeypatch, work=lambda: None):
        self.now = 0.0
        self._work = work
        monkeypatch.setattr("duraq.bulk.time.monotonic", lambda: self.now)

    def __call__(self, seconds):
        self.now += seconds
        self._work()


def test_what_is_meant(storage, queue):
    """It says the exact number, where they are, and what they died of; --max takes the first of them."""
    other = Queue("other", storage)
    found = [*bury(queue, 3, ValueError("x")), *bury(other, 1, KeyError("y"))]
    assert str(Meant.of(found)) == (
        "4 dead letters in jobs (3), other (1), died of ValueError (3), KeyError (1)"
    )
    assert Meant.of(found, 2).letters == {"jobs": [(each.id, each.token) for each in found[:2]]}
    assert (str(Meant()), in_words({"a": 1}, Meant().errors)) == ("0 dead letters", "1 dead letter in a (1)")


def test_one_name_for_several_queues(storage, queue):
    """What is begun under one name is found by it, in all its queues, and done in all of them."""
    other = Queue("other", storage)
    meant = Meant.of([*bury(queue, 2), *bury(other, 1)])
    acts = Acts(storage)
    planned = plan(acts, "remove", "monday", meant, reason="spam")
    assert begun(acts, "monday") == planned
    assert begun(acts, "mond") == []
    assert {name_of(act) for act in planned} == {last_removal(acts)} == {"monday"}
    run = BulkRun(storage, planned)
    assert [outcome.error for _, outcome in run] == [None] * 3
    assert (run.count, run.done, run.passed_over, run.stopped) == (3, 3, 0, None)
    again = BulkRun(storage, planned)
    assert all(outcome.error for _, outcome in again)
    assert (again.done, again.passed_over) == (0, 3)


@pytest.mark.parametrize("name", ["a b", "a/b", "x" * 65, ""])
def test_no_name(storage, queue, name):
    """What cannot be a name is refused before anything is written down."""
    with pytest.raises(InvalidOption):
        plan(Acts(storage), "retry", name, Meant.of(bury(queue, 1)))
    assert Acts(storage).all() == []


def test_at_a_rate(storage, queue, monkeypatch):
    """At a rate of 20 a second, 100 take five seconds, in small batches."""
    planned = plan(Acts(storage), "retry", "x", Meant.of(bury(queue, 100)))
    ready = []
    wait = Clockwork(monkeypatch, lambda: ready.append(queue.counts().ready))
    run = BulkRun(storage, planned, Pace(rate=20), wait=wait)
    assert sum(1 for _ in run) == 100
    assert wait.now == pytest.approx(5)
    assert ready[:3] == [5, 10, 15]


def test_what_was_done_before_takes_no_time(storage, queue, monkeypatch):
    """Whoever goes on at a rate does not wait again for what is done already."""
    planned = plan(Acts(storage), "retry", "x", Meant.of(bury(queue, 100)))
    for number, _ in enumerate(BulkRun(storage, planned, Pace(rate=1000)), 1):
        if number == 90:
            break
    wait = Clockwork(monkeypatch)
    run = BulkRun(storage, planned, Pace(rate=20), wait=wait)
    assert sum(1 for _ in run) == 100
    assert wait.now < 1


def worked(queue, clock, fails):
    """Work all that is ready; every so-manieth fails."""

    def work():
        for number, entry in enumerate(queue.dequeue(limit=1000)):
            if number % fails == 0:
                queue.mark_failed(entry, "again", dead=number % 2 == 0, retry_in=None)
            else:
                queue.mark_completed(entry)
        clock.advance(timedelta(seconds=1))

    return work


def test_it_stops_if_it_does_not_help(storage, queue, clock, monkeypatch):
    """Once enough have ended, and more than the given share of them has failed again, it stops."""
    planned = plan(Acts(storage), "retry", "x", Meant.of(bury(queue, 200)))
    wait = Clockwork(monkeypatch, worked(queue, clock, 2))
    run = BulkRun(storage, planned, Pace(rate=20, failing=0.4), wait=wait)
    done = sum(1 for _ in run)
    assert ENOUGH_FAILED <= done < 30
    assert (run.done, run.failed / run.ended) == (done, pytest.approx(0.6))
    assert f"{run.failed} of {run.ended}" in run.stopped
    assert queue.counts().dead >= 200 - done


def test_it_stops_soon_if_nothing_helps(storage, queue, clock, monkeypatch):
    """Where a worker that pauses after failures ends only few, and all of these fail, few are enough."""
    planned = plan(Acts(storage), "retry", "x", Meant.of(bury(queue, 200)))

    def work():
        clock.advance(timedelta(seconds=1))
        queue.mark_failed(queue.dequeue(), "again", dead=True)

    run = BulkRun(storage, planned, Pace(rate=20, failing=0.5), wait=Clockwork(monkeypatch, work))
    assert sum(1 for _ in run) == 5 * ENOUGH_FAILED
    assert (run.failed, run.ended) == (ENOUGH_FAILED, ENOUGH_FAILED)


def test_it_goes_on_if_it_helps(storage, queue, clock, monkeypatch):
    """As long as no more than that share fails, all are put back."""
    planned = plan(Acts(storage), "retry", "x", Meant.of(bury(queue, 200)))
    wait = Clockwork(monkeypatch, worked(queue, clock, 5))
    run = BulkRun(storage, planned, Pace(rate=20, failing=0.4), wait=wait)
    assert sum(1 for _ in run) == 200
    assert (run.stopped, run.ended) == (None, 200)


def test_who_has_failed_again(storage, queue, clock):
    """Of what was put back it is told what has failed since; what waits, or was given back, has not ended."""
    dead = [each.id for each in bury(queue, 5)]
    since = clock.now()
    acts = Acts(storage)
    planned = plan(acts, "retry", "x", Meant.of([Dead(queue, queue.get(each)) for each in dead]))
    assert all(outcome.error is None for _, outcome in BulkRun(storage, planned))
    clock.advance(timedelta(seconds=1))
    watch = Watch(storage)
    watch.add("jobs", since, dead)
    assert watch.look() == (0, 0)
    first, second, third, fourth = queue.dequeue(limit=4)
    queue.release(fourth)
    assert watch.look() == (0, 0)
    queue.mark_completed(first)
    queue.mark_failed(second, "again", retry_in=timedelta(hours=1))
    queue.mark_failed(third, "again", dead=True)
    assert watch.look() == (2, 3)
    assert watch.look() == (2, 3)
    assert queue.get(fourth.id).status is EntryStatus.READY


@pytest.mark.parametrize(
    ("verb", "pace"),
    [
        ("retry", Pace(rate=0)),
        ("retry", Pace(rate=-1)),
        ("retry", Pace(failing=0.5)),
        ("retry", Pace(rate=1, failing=1.5)),
        ("remove", Pace(rate=1, failing=0.5)),
    ],
)
def test_no_such_pace(storage, queue, verb, pace):
    """What makes no sense is refused before anything is done."""
    planned = plan(Acts(storage), verb, "x", Meant.of(bury(queue, 1)))
    with pytest.raises(InvalidOption):
        BulkRun(storage, planned, pace)
    assert queue.counts() == Counts(dead=1)
