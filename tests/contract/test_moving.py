"""Dead letters that are moved into another queue: whole, once, and as the last ones there."""

from datetime import timedelta

import pytest

from duraq import (
    Counts,
    DeadLetterQueue,
    DuplicateEntry,
    EntryNotFound,
    EntryStatus,
    InvalidOption,
    InvalidQueueName,
    Queue,
    QueueNotFound,
)
from duraq.acts import BATCH, Acts

DAY = timedelta(days=1)


@pytest.fixture
def other(storage):
    """The queue that they are moved to; one entry is in it already."""
    queue = Queue("other", storage)
    queue.enqueue("there already")
    return queue


def bury(queue, *payloads, **options):
    """Make dead letters of new entries; returns their ids."""
    ids = queue.enqueue_many(payloads, **options)
    for entry in queue.dequeue(limit=max(1, len(ids))):
        queue.mark_failed(entry, f"{entry.data} failed", dead=True)
    return ids


def begin(storage, ids=None, act=None, to="other"):
    """Have it written down that these, or all that are dead, are to be moved; returns a call that does it."""
    acts = Acts(storage)
    dead = [entry.id for entry in DeadLetterQueue("jobs", None, storage).list()]
    letters = [(each, acts.check("jobs", each).last_token) for each in (dead if ids is None else ids)]
    (planned,) = acts.plan([(acts.new("move", "jobs", act, to=to), letters)])
    return lambda: list(acts.carry_out(planned))


def test_a_move(storage, queue, other, clock):
    """It is ready in the other queue, behind what is there, with its whole history, and gone from its own."""
    queue.enqueue({"n": 1}, headers={"data": "h"}, key="k", ttl=DAY, delay=timedelta(seconds=1))
    clock.advance(timedelta(seconds=2))
    before = queue.dequeue()
    queue.mark_failed(before, ValueError("é"), dead=True)
    clock.advance(timedelta(seconds=5))
    (outcome,) = begin(storage)()
    assert (outcome.id, outcome.error) == (before.id, None)
    assert queue.entries() == []
    assert [entry.data for entry in other.peek(5)] == ["there already", {"n": 1}]
    other.mark_completed(other.dequeue())
    entry = other.dequeue()
    assert (entry.id, entry.attempts, entry.redriven, entry.expires_at) == (before.id, 1, 1, None)
    assert (entry.headers, entry.key, entry.created_at) == ({"data": "h"}, "k", before.created_at)
    assert [attempt.error.message for attempt in entry.errors] == ["é"]
    assert entry.token > before.token
    other.mark_completed(entry)
    assert (queue.counts(), other.counts()) == (Counts(), Counts())


def test_a_move_wakes_who_waits(storage, queue, other):
    """Somebody who waits for the other queue is given what is moved there."""
    (entry_id,) = bury(queue, "a")
    other.mark_completed(other.dequeue())
    with storage.place("other") as place:
        assert place.look(60) is not None
        begin(storage)()
        assert place.sleep(60)
    assert other.dequeue().id == entry_id


def test_priorities_are_kept(storage, queue, other):
    """One with a higher priority comes before what is there already."""
    bury(queue, "high", priority=5)
    bury(queue, "low", priority=-5)
    begin(storage)()
    assert [entry.data for entry in other.dequeue(limit=5)] == ["high", "there already", "low"]


def test_a_move_goes_on(storage, queue, other):
    """A move that was left in the middle is finished by beginning it again, and moves nothing twice."""
    ids = bury(queue, *range(BATCH + 10))
    acts = Acts(storage)
    move = begin(storage, act="x")
    outcomes = acts.carry_out(acts.get("x"))
    next(outcomes)
    outcomes.close()
    assert len(other) == BATCH + 1
    died = other.dequeue(limit=2)[1]
    other.mark_failed(died, "again", dead=True)
    found = move()
    assert [outcome.error is None for outcome in found] == [False] * BATCH + [True] * 10
    assert [entry.id for entry in other.entries()][1:] == ids
    assert other.get(died.id).status is EntryStatus.DEAD
    assert queue.entries() == []


def test_there_and_back(storage, queue, other):
    """One that has died there as well can be moved back; the first move, begun again, leaves it alone."""
    (entry_id,) = bury(queue, "a")
    move = begin(storage, act="x")
    move()
    other.mark_completed(other.dequeue())
    other.mark_failed(other.dequeue(), "there", dead=True)
    acts = Acts(storage)
    token = acts.check("other", entry_id).last_token
    (back,) = acts.plan([(acts.new("move", "other", to="jobs"), [(entry_id, token)])])
    assert [outcome.error for outcome in acts.carry_out(back)] == [None]
    entry = queue.dequeue()
    assert ([each.error.message for each in entry.errors], entry.redriven) == (["a failed", "there"], 2)
    queue.mark_failed(entry, "here", dead=True)
    (outcome,) = move()
    assert isinstance(outcome.error, EntryNotFound)
    assert queue.get(entry_id).status is EntryStatus.DEAD


def test_the_id_is_in_use_there(storage, queue, other):
    """One whose id the other queue has stays where it is, and hinders none of the rest."""
    bury(queue, "a", "b", "c", ids=["x", "y", "z"])
    other.enqueue("another", id="y")
    errors = {outcome.id: outcome.error for outcome in begin(storage)()}
    assert (errors["x"], errors["z"]) == (None, None)
    assert isinstance(errors["y"], DuplicateEntry)
    assert [entry.id for entry in queue.entries(EntryStatus.DEAD)] == ["y"]
    assert [entry.data for entry in other.dequeue(limit=5)] == ["there already", "another", "a", "c"]


@pytest.mark.parametrize(
    ("to", "kind"), [("nosuch", QueueNotFound), ("jobs", InvalidOption), ("No", InvalidQueueName)]
)
def test_nowhere(storage, queue, to, kind):
    """To a queue that there is not, or to their own, nothing is moved, and none is made."""
    bury(queue, "a")
    with pytest.raises(kind):
        begin(storage, to=to)
    assert (queue.counts(), storage.queues()) == (Counts(dead=1), ["jobs"])


def test_one_id_one_move(storage, queue, other):
    """Under the id of a move nothing can be moved to somewhere else, or put back."""
    bury(queue, "a")
    Queue("third", storage).enqueue(1)
    begin(storage, act="x")
    with pytest.raises(InvalidOption, match="x"):
        begin(storage, act="x", to="third")
    with pytest.raises(InvalidOption, match="x"):
        DeadLetterQueue("jobs", None, storage).retry_all(act="x")


def test_in_numbers(storage, queue, other):
    """What was moved is counted as removed here, and as come and put back there, so that sums still agree."""
    bury(queue, "a", "b")
    begin(storage)()
    here, there = queue.metrics().counters, other.metrics().counters
    assert (here.dead, here.removed) == (2, 2)
    assert (there.enqueued, there.restored, there.requeued) == (1, 2, 2)


def test_in_a_transaction(storage, queue, other):
    """A move in a transaction happens with it or not at all, and what is moved in it can be worked in it."""
    (entry_id,) = bury(queue, "a")
    other.mark_completed(other.dequeue())

    class Stop(Exception):
        pass

    def undone():
        with storage.transaction():
            begin(storage)()
            raise Stop

    with pytest.raises(Stop):
        undone()
    assert (queue.counts(), other.counts()) == (Counts(dead=1), Counts())
    token = Acts(storage).check("jobs", entry_id).last_token
    with storage.transaction():
        begin(storage)()
        entry = other.dequeue()
        other.mark_failed(entry, "no", dead=True)
    assert Acts(storage).check("other", entry_id).last_token > token


@pytest.mark.needs("survives")
@pytest.mark.needs("files")
def test_what_was_moved_survives(tmp_path, storage, queue, other, open_storage):
    """What was moved survives seals, compaction, lost checkpoints and another process's opening."""
    ids = bury(queue, *(f"{number} {'x' * 300}" for number in range(60)))
    assert all(outcome.error is None for outcome in begin(storage)())
    for _ in range(20):
        other.enqueue_many(["y" * 400] * 30)
        taken = other.dequeue(limit=200)
        other.mark_completed_many([entry for entry in taken if entry.data.startswith(("y", "there"))])
        for entry in taken:
            if entry.data[0] not in "yt":
                other.release(entry)
    storage.compact("other")
    seen = [(entry.id, entry.data, entry.redriven) for entry in other.entries()]
    assert [entry_id for entry_id, _, _ in seen] == ids
    storage.close()
    for suffix in ("checkpoint", "index"):
        for path in tmp_path.rglob(f"*.{suffix}"):
            path.unlink()
    again = Queue("other", open_storage())
    assert [(entry.id, entry.data, entry.redriven) for entry in again.entries()] == seen
    assert [entry.id for entry in again.dequeue(limit=100)] == ids


@pytest.mark.needs("shared")
def test_whoever_has_it_open_sees_it(storage, queue, other, open_storage):
    """A process that has both queues open finds what another one has moved, in the same place."""
    theirs = open_storage()
    here, there = Queue("jobs", theirs), Queue("other", theirs)
    ids = bury(queue, "a", "b")
    assert (here.counts(), there.counts()) == (Counts(dead=2), Counts(ready=1))
    begin(storage)()
    other.enqueue("later")
    assert here.counts() == Counts()
    assert [entry.data for entry in there.entries()] == ["there already", "a", "b", "later"]
    tokens = [entry.token for entry in there.dequeue(limit=3)]
    assert tokens == sorted(set(tokens))
    assert [entry.data for entry in other.dequeue(limit=3)] == ["later"]
    assert {entry.redriven for entry in other.entries() if entry.id in ids} == {1}
