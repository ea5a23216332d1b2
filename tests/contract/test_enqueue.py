"""Feeding a queue: what enqueue accepts, what it refuses, and that a refusal leaves no trace."""

from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, IntEnum

import pytest

from duraq import (
    Counts,
    DuplicateEntry,
    EntryStatus,
    InvalidInput,
    InvalidOption,
    InvalidPayload,
    PayloadTooLarge,
    Queue,
)

SECOND = timedelta(seconds=1)


class Urgency(int, Enum):
    """Numbers with names, as programs have them that are older than IntEnum."""

    HIGH = 7


class Level(IntEnum):
    """Numbers with names."""

    HIGH = 7


class Name(str, Enum):  # noqa: UP042 - the older form is the point
    """Texts with names, as programs have them that are older than StrEnum."""

    FIRST = "first-1"


def drain(queue):
    """The payloads in the order in which they are delivered."""
    return [entry.data for entry in queue.dequeue(limit=10_000)]


def test_a_payload_comes_back_equal(queue):
    """Whatever JSON value goes in comes out again, equal and of the same type."""
    payloads = [None, True, 0, -1, 2**63, 1.5, "", "ünï\n\0", [], [1, [2]], {}, {"a": {"b": None}}]
    for payload in payloads:
        queue.enqueue(payload)
    found = drain(queue)
    assert found == payloads
    assert [type(data) for data in found] == [type(payload) for payload in payloads]


def test_a_typed_payload_comes_back_typed(storage):
    """A queue of a type gives back values of that type."""
    queue = Queue("times", storage, datetime)
    moment = datetime(2026, 5, 1, 12, 30, 15, 250, tzinfo=timezone(timedelta(hours=2)))
    queue.enqueue(moment)
    assert queue.dequeue().data == moment


def test_the_id_it_returns_is_the_entrys(queue):
    """What enqueue returns is the id under which the entry is found and delivered."""
    entry_id = queue.enqueue("a")
    assert queue.get(entry_id).data == "a"
    assert queue.dequeue().id == entry_id


def test_ids_are_all_different(queue):
    """No two entries get the same id, whether they came one by one or together."""
    ids = [queue.enqueue(n) for n in range(50)] + queue.enqueue_many(range(50))
    assert len(set(ids)) == 100


def test_a_new_entry_says_what_it_is(queue, clock):
    """A new entry is ready, made now, never tried, and in nobody's hands."""
    entry = queue.get(queue.enqueue({"n": 1}, priority=3))
    now = datetime.fromtimestamp(clock.now() / 1e6, UTC)
    assert (entry.queue, entry.status, entry.priority) == ("jobs", EntryStatus.READY, 3)
    assert entry.created_at == entry.updated_at == now
    assert (entry.scheduled_for, entry.expires_at) == (None, None)
    assert (entry.attempts, entry.token, entry.worker, entry.lease_deadline) == (0, 0, None, None)
    assert (entry.errors, entry.error_message, entry.decode_error) == ((), None, None)
    assert not entry.is_last_attempt
    assert not entry.lease_lost


def test_delay_and_scheduled_for_mean_the_same(queue, clock):
    """A delay is a time that far from now, whatever zone that time is told in."""
    moment = datetime(2026, 1, 1, 13, 0, 10, tzinfo=timezone(timedelta(hours=1)))
    first = queue.get(queue.enqueue("a", scheduled_for=moment))
    second = queue.get(queue.enqueue("b", delay=10 * SECOND))
    assert first.scheduled_for == second.scheduled_for == moment
    assert first.status is second.status is EntryStatus.SCHEDULED
    assert first.scheduled_for.utcoffset() == timedelta(0)


def test_no_delay_is_ready_at_once(queue):
    """A delay of nothing, or a time that has passed, makes a ready entry."""
    queue.enqueue("a", delay=timedelta(0))
    queue.enqueue("b", scheduled_for=datetime(2001, 1, 1, tzinfo=UTC))
    assert queue.counts() == Counts(ready=2)
    assert drain(queue) == ["a", "b"]


def test_the_longest_and_the_shortest_are_accepted(queue):
    """The ends of every range belong to it."""
    queue.enqueue("a", delay=timedelta(days=3650), ttl=timedelta(days=3650))
    queue.enqueue("b", ttl=timedelta(microseconds=1), delay=timedelta(microseconds=1))
    queue.enqueue("c", priority=2**31 - 1)
    queue.enqueue("d", priority=-(2**31))
    queue.enqueue("e", id="A" * 128)
    queue.enqueue("f", id="0._:@/+=-")
    assert queue.length == 6


def test_an_own_id_is_kept(queue):
    """The caller may name an entry."""
    assert queue.enqueue("a", id="invoice/2026-1@x") == "invoice/2026-1@x"
    assert queue.dequeue().id == "invoice/2026-1@x"


@pytest.mark.parametrize("urgency", [Urgency.HIGH, Level.HIGH], ids=repr)
def test_a_priority_with_a_name_is_its_number(queue, open_storage, backend, urgency):
    """An enumeration's member is written as the number it stands for, for whoever reads it later too."""
    queue.enqueue("a", priority=urgency)
    queue.enqueue_many(["b"], priority=urgency)
    readers = [queue, Queue("jobs", open_storage())] if "shared" in backend.abilities else [queue]
    for reader in readers:
        assert [(entry.data, entry.priority) for entry in reader.peek(9)] == [("a", 7), ("b", 7)]


def test_an_id_with_a_name_is_its_text(queue, open_storage, backend):
    """An enumeration's member is written as the text it stands for, for whoever reads it later too."""
    entry_id = queue.enqueue("a", id=Name.FIRST)
    assert str.__str__(entry_id) == "first-1"
    readers = [queue, Queue("jobs", open_storage())] if "shared" in backend.abilities else [queue]
    for reader in readers:
        assert [str.__str__(entry.id) for entry in reader.peek(9)] == ["first-1"]
        assert reader.get("first-1").data == "a"


def test_an_id_in_use_is_refused(queue):
    """Two live entries never share an id, and the first one stays as it was."""
    queue.enqueue("a", id="x", priority=2)
    with pytest.raises(DuplicateEntry):
        queue.enqueue("b", id="x")
    assert [(entry.data, entry.priority) for entry in queue.entries()] == [("a", 2)]


def test_an_id_in_use_is_refused_in_every_state(queue, clock):
    """Scheduled, leased and dead entries hold their ids as ready ones do."""
    queue.enqueue("leased", id="leased")
    queue.dequeue()
    queue.enqueue("dead", id="dead")
    queue.mark_failed(queue.dequeue(), dead=True)
    queue.enqueue("scheduled", id="scheduled", delay=SECOND)
    for entry_id in ("leased", "dead", "scheduled"):
        with pytest.raises(DuplicateEntry):
            queue.enqueue("again", id=entry_id)
    assert queue.counts() == Counts(scheduled=1, leased=1, dead=1)


def test_an_id_is_free_again_when_its_entry_is_over(queue, dead_letters, clock):
    """A completed, a removed and an expired entry each leave their id to others."""
    queue.enqueue("completed", id="x")
    queue.mark_completed(queue.dequeue())
    queue.enqueue("removed", id="x")
    queue.mark_failed(queue.dequeue(), dead=True)
    dead_letters.remove("x")
    queue.enqueue("expired", id="x", ttl=SECOND)
    clock.advance(2 * SECOND)
    queue.enqueue("last", id="x")
    assert drain(queue) == ["last"]


def test_the_same_id_in_two_queues(storage):
    """An id is the business of one queue."""
    first, second = Queue("first", storage), Queue("second", storage)
    first.enqueue("a", id="x")
    second.enqueue("b", id="x")
    assert (first.get("x").data, second.get("x").data) == ("a", "b")


def test_many_at_once(queue):
    """A batch keeps its order, and each entry has the options that were given."""
    ids = queue.enqueue_many((n for n in range(5)), priority=4, ttl=SECOND, delay=timedelta(0))
    entries = queue.dequeue(limit=9)
    assert [entry.id for entry in entries] == ids
    assert [(entry.data, entry.priority) for entry in entries] == [(n, 4) for n in range(5)]
    assert {entry.expires_at - entry.created_at for entry in entries} == {SECOND}


def test_many_with_own_ids(queue):
    """Ids may come from any iterable, one for each item."""
    assert queue.enqueue_many(["a", "b"], ids=(name for name in ("x", "y"))) == ["x", "y"]
    assert [(entry.id, entry.data) for entry in queue.peek(9)] == [("x", "a"), ("y", "b")]


@pytest.mark.parametrize("ids", [[], ["x"], ["x", "y", "z"]], ids=len)
def test_as_many_ids_as_items(queue, ids):
    """A batch whose ids are more or fewer than its items is refused."""
    with pytest.raises(InvalidOption):
        queue.enqueue_many(["a", "b"], ids=ids)
    assert queue.length == 0


def test_none_at_all(queue, storage):
    """An empty batch is no error and does nothing."""
    assert queue.enqueue_many([]) == []
    assert storage.queues() == []


def test_an_id_twice_in_a_batch(queue):
    """A batch that names an id twice is refused whole."""
    with pytest.raises(DuplicateEntry):
        queue.enqueue_many(["a", "b", "c"], ids=["x", "y", "x"])
    assert queue.entries() == []
    assert drain(queue) == []


def test_a_batch_is_whole_or_absent(queue):
    """One item that cannot be enqueued keeps all of its batch out, whatever is wrong with it."""
    queue.enqueue("first", id="x")
    with pytest.raises(DuplicateEntry):
        queue.enqueue_many(["a", "b"], ids=["w", "x"])
    with pytest.raises(InvalidPayload, match=r"\$") as caught:
        queue.enqueue_many(["a", float("nan"), "c"])
    assert "item 1" in "".join(caught.value.__notes__)
    with pytest.raises(InvalidOption):
        queue.enqueue_many(["a", "b"], ids=["fine", "not fine"])
    assert drain(queue) == ["first"]


def test_what_the_items_raise_is_raised(queue):
    """An iterator of items that fails takes the batch with it, and its error is not disguised."""

    def items():
        yield "a"
        raise OSError("the disk of the items")

    with pytest.raises(OSError, match="the disk of the items"):
        queue.enqueue_many(items())
    assert queue.length == 0


def test_a_payload_that_would_not_come_back(queue):
    """What JSON cannot bring back equal is refused, with nothing written."""
    for payload in (float("inf"), {1: 2}, "\ud800", 2**64, object(), b"bytes", (1, 2)):
        with pytest.raises(InvalidPayload) as caught:
            queue.enqueue(payload)
        assert isinstance(caught.value, InvalidInput)
        assert isinstance(caught.value, ValueError)
    assert queue.length == 0


def test_a_payload_that_is_too_large(open_storage):
    """The storage's limit holds for each payload, its last byte included."""
    queue = Queue("jobs", open_storage(max_payload_bytes=100))
    queue.enqueue("x" * 98)
    with pytest.raises(PayloadTooLarge):
        queue.enqueue("x" * 99)
    with pytest.raises(PayloadTooLarge):
        queue.enqueue_many(["fine", "x" * 99])
    assert drain(queue) == ["x" * 98]


def test_a_large_payload(queue):
    """A payload may be larger than a segment and than the journal."""
    payload = "x" * 500_000
    for _ in range(3):
        queue.enqueue(payload)
    assert drain(queue) == [payload] * 3


def test_a_large_batch(queue):
    """A batch may be larger than a segment and than the journal."""
    queue.enqueue_many([{"n": n} for n in range(3000)])
    assert drain(queue) == [{"n": n} for n in range(3000)]


def test_a_refused_first_entry_makes_no_queue(queue, storage):
    """A queue comes into being with its first entry, not with the attempt to add one."""
    with pytest.raises(DuplicateEntry):
        queue.enqueue_many(["a", "b"], ids=["x", "x"])
    with pytest.raises(InvalidOption):
        queue.enqueue("a", priority=2**31)
    assert storage.queues() == []


@pytest.mark.parametrize("items", ["abc", b"abc", {"to": "ann", "subject": "hello"}])
def test_one_payload_is_not_many(queue, items):
    """A text or an object is refused where several payloads are meant: it would be taken apart."""
    with pytest.raises(InvalidOption):
        queue.enqueue_many(items)
    assert queue.counts() == Counts()
