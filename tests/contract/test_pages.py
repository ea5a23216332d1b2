"""What moving a storage needs of it: entries page by page, by many ids, and a queue besides its entries."""

from datetime import UTC, datetime, timedelta

import pytest

from duraq import CannotMigrate, Counts, EntryNotFound, EntryStatus, FixedDelay, Queue
from duraq.migration.notes import Sent
from duraq.model import Pause
from duraq.operations import Adopt, Remove, Restore

LEASED, DEAD = EntryStatus.LEASED, EntryStatus.DEAD
HOUR = timedelta(hours=1)
NAMES = [f"e{number:02}" for number in range(60)]
PAUSE = Pause(datetime(2026, 1, 1, 12, tzinfo=UTC), "ann", "till Monday")


@pytest.fixture
def filled(storage):
    """A queue whose entries are in every state, over several segments where there are any."""
    queue = Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=1, delay=timedelta(0)))
    for name in NAMES:
        queue.enqueue("x" * 300, id=name, priority=int(name[1:]) % 3, delay=HOUR if name > "e49" else None)
    for number, entry in enumerate(queue.dequeue(limit=12)):
        if number % 3 == 0:
            queue.mark_completed(entry)
        elif number % 3 == 1:
            queue.mark_failed(entry, "no")
    return queue


def test_pages_have_all_in_order(filled, storage):
    """Page by page come all that there are, leased and dead ones too, in enqueue order."""
    every = [entry.id for entry in storage.entries("jobs")]
    for limit in (1, 7, 100):
        found, behind = [], 0
        while page := storage.page("jobs", behind, limit, 1 << 20):
            assert len(page) <= limit
            found += page
            behind = page[-1].seq
        assert [entry.id for entry in found] == every
        assert all(entry.payload == b'"' + b"x" * 300 + b'"' for entry in found)
    dead = storage.page("jobs", 0, 100, 1 << 20, DEAD)
    assert [entry.id for entry in dead] == [entry.id for entry in storage.entries("jobs", DEAD)] != []
    assert storage.page("jobs", dead[0].seq, 1, 1, DEAD) == dead[1:2]
    assert len(storage.page("jobs", 0, 100, 1000)) == 4  # of 302 bytes each
    assert storage.page("none", 0, 1, 1) == []


def test_many_by_their_ids(filled, storage):
    """Of many ids those come that are there, each as it comes alone."""
    there = [entry.id for entry in storage.entries("jobs")]
    found = {entry.id: entry for entry in storage.some("jobs", [*NAMES, "none"])}
    assert sorted(found) == sorted(there)
    assert all(found[name] == storage.get("jobs", name) for name in there)
    assert storage.some("jobs", []) == storage.some("none", ["a"]) == []


def test_an_entry_leaves_as_it_was(filled, storage):
    """An entry that nobody holds leaves if it is of that version; whatever has become of it keeps it here."""
    leased, other = (
        next(each for each in storage.entries("jobs") if (each.status is LEASED) is held)
        for held in (True, False)
    )
    version = (other.created_at, other.last_token, other.redriven + 1)
    with pytest.raises(EntryNotFound, match="is not as it was"):
        storage.commit({"jobs": [Remove(other.id, to="elsewhere", version=version)]})
    with pytest.raises(EntryNotFound, match="is leased, not"):
        storage.commit({"jobs": [_leaving(leased)]})
    here = [each for each in storage.entries("jobs") if each.status is not LEASED]
    storage.commit({"jobs": [_leaving(each) for each in here]})
    assert storage.counts("jobs") == Counts(leased=4)
    # It is not counted as a dead letter that somebody did not want.
    assert storage.metrics("jobs").counters.removed == 0


def _leaving(stored):
    return Remove(stored.id, to="elsewhere", version=Sent.of(stored).version)


def test_an_entry_arrives_as_it_was(filled, storage):
    """An entry of another storage takes the last place, and is else as it was there."""
    Queue("other", storage).enqueue("first")
    here = [each for each in storage.entries("jobs") if each.status is not LEASED]
    storage.commit(
        {"other": [Restore(each.id, each.payload, each.unheld(), source="elsewhere") for each in here]}
    )
    _, *found = storage.entries("other")
    assert [Sent.of(each) for each in found] == [Sent.of(each) for each in here]
    assert [each.status for each in found] == [each.status for each in here]
    numbers = storage.metrics("other").counters
    assert (numbers.restored, numbers.requeued) == (len(here), 0)


def test_a_queue_goes_on_as_another_one(filled, storage):
    """A queue that adopts the head of another one has its pause and numbers, and gives none of its tokens."""
    head = storage.head("jobs")
    assert storage.head("none") is None
    storage.commit({"other": [Adopt(head.tokens + 50, PAUSE, head.ledger)]})
    assert storage.paused("other") == PAUSE
    assert storage.metrics("other").counters == storage.metrics("jobs").counters
    other = Queue("other", storage)
    other.enqueue("a")
    assert other.dequeue() is None
    storage.commit({"other": [Adopt(0, None)]})
    assert other.dequeue().token > head.tokens + 50
    assert storage.metrics("other").counters.enqueued == len(NAMES) + 1
    # The one it came from counts for itself.
    assert storage.head("jobs").ledger.totals().enqueued == len(NAMES)


def test_a_head_is_adopted_instead_of_that_pause(filled, storage):
    """What is to be adopted only instead of a pause is refused once that is another one."""
    for before, after in ((None, PAUSE), (PAUSE, None)):
        with pytest.raises(CannotMigrate, match="queue jobs: it was paused or resumed by others meanwhile"):
            storage.commit({"jobs": [Adopt(0, None, instead_of=(after,))]})
        assert storage.paused("jobs") == before
        storage.commit({"jobs": [Adopt(0, after, instead_of=(before,))]})
    assert storage.paused("jobs") is None


def test_a_page_is_no_longer_than_its_histories(storage):
    """Errors in the histories of entries count like payloads."""
    queue = Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=1, delay=timedelta(0)))
    queue.enqueue_many(["x"] * 4)
    for entry in queue.dequeue(limit=4):
        queue.mark_failed(entry, "no" * 500)
    assert len(storage.page("jobs", 0, 10, 2500)) == 3


@pytest.mark.needs("survives")
def test_all_of_this_is_kept(filled, storage, open_storage):
    """What has left, arrived and been adopted is so for whoever opens the storage next."""
    head = storage.head("jobs")
    here = [each for each in storage.entries("jobs") if each.status is not LEASED]
    arriving = [Restore(each.id, each.payload, each.unheld(), source="elsewhere") for each in here]
    storage.commit({"other": [Adopt(head.tokens, PAUSE, head.ledger), *arriving]})
    storage.commit({"jobs": [_leaving(each) for each in here]})
    again = open_storage()
    for name in ("jobs", "other"):
        assert again.entries(name) == storage.entries(name)
        found, known = again.head(name), storage.head(name)
        assert (found.pause, found.ledger) == (known.pause, known.ledger)
        assert found.tokens >= head.tokens
    assert len(again.entries("other")) == len(here)
