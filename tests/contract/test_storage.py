"""The verbs of a storage that a queue does not show: groups over several queues, and leases of nobody."""

import select
from datetime import timedelta

import pytest

from duraq import (
    Cause,
    Counts,
    DuplicateEntry,
    EntryNotFound,
    LeaseLost,
    NotLeased,
    Queue,
    QueueFull,
    QueueNotFound,
    StorageClosed,
)
from duraq.operations import Complete, Enqueue, PauseQueue, Remove
from duraq.storage.base import Limits

LEASE = 1_000_000  # microseconds


def counts(storage, *names):
    """The counts of several queues."""
    return [storage.counts(name) for name in names]


@pytest.fixture
def leased(storage):
    """The id and token of an entry of the queue "a" that is leased."""
    Queue("a", storage).enqueue("first")
    entry = Queue("a", storage).dequeue()
    return entry.id, entry.token


def has_something(place, within=0):
    """Whether the descriptor of a place in the line is readable, now or soon: a server tells it by itself."""
    return bool(select.select([place], [], [], within)[0])


def test_a_place_in_the_line(storage):
    """Whoever has a place in a queue's line is woken by what is enqueued there, and by nothing elsewhere."""
    with storage.place("a") as place:
        assert place.look() > 0
        storage.commit({"b": [Enqueue("x", b"1")]})
        assert not has_something(place)
        assert not place.sleep(0)
        storage.commit({"a": [Enqueue("x", b"1")]})
        assert has_something(place, within=30)
        assert place.sleep(0)
        assert place.look() is None


def test_a_place_in_a_closed_storage(storage):
    """Whoever has a place in a line when the storage is closed is woken, and told."""
    with storage.place("a") as place:
        assert place.look() > 0
        storage.close()
        assert has_something(place)
        with pytest.raises(StorageClosed):
            place.sleep(0)
        with pytest.raises(StorageClosed):
            place.look()


def test_a_group_over_several_queues(storage, leased):
    """One commit may complete an entry of one queue and enqueue others in several."""
    storage.commit(
        {
            "a": [Complete(*leased)],
            "b": [Enqueue("x", b"1"), Enqueue("y", b"2")],
            "c": [Enqueue("x", b"3")],
        }
    )
    assert counts(storage, "a", "b", "c") == [Counts(), Counts(ready=2), Counts(ready=1)]
    assert [entry.payload for entry in storage.entries("b")] == [b"1", b"2"]
    assert storage.queues() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"b": [Enqueue("there", b"2")]}, DuplicateEntry),
        ({"b": [Enqueue("x", b"2"), Enqueue("x", b"3")]}, DuplicateEntry),
        ({"b": [Complete("there", 1)]}, LeaseLost),
        ({"b": [Remove("there")]}, EntryNotFound),
        ({"nowhere": [Complete("x", 1)]}, QueueNotFound),
        ({"b": [Enqueue(name, b"2") for name in "12345"]}, QueueFull),
    ],
    ids=["duplicate", "twice", "not leased", "not dead", "no queue", "full"],
)
@pytest.mark.parametrize("last", [True, False])
def test_a_group_is_whole_or_absent(storage, leased, wrong, error, last):
    """One operation that cannot be applied keeps all the others from being applied, in every queue."""
    Queue("b", storage).enqueue("b", id="there")
    before = counts(storage, "a", "b", "c")
    right = {"a": [Complete(*leased)], "c": [Enqueue("x", b"1")]}
    changes = right | wrong if last else wrong | right
    with pytest.raises(error):
        storage.commit(changes, Limits(max_size={"b": 5}))
    assert counts(storage, "a", "b", "c") == before
    storage.commit(right)
    assert counts(storage, "a", "c") == [Counts(), Counts(ready=1)]


@pytest.mark.needs("survives")
def test_a_group_survives_whole(open_storage):
    """A group over several queues is there again as a whole when the storage is opened again."""
    storage = open_storage()
    names = [f"q{number}" for number in range(20)]
    storage.commit({name: [Enqueue(f"{name}-{n}", b'"x"') for n in range(20)] for name in names})
    storage.close()
    storage = open_storage()
    assert storage.queues() == sorted(names)
    assert counts(storage, *names) == [Counts(ready=20)] * 20


def test_the_limit_of_one_queue_is_not_anothers(storage):
    """A limit names its queue."""
    storage.commit({"a": [Enqueue("x", b"1"), Enqueue("y", b"1")]}, Limits(max_size={"b": 1}))
    with pytest.raises(QueueFull):
        storage.commit({"a": [Enqueue("z", b"1")]}, Limits(max_size={"a": 2}))


def test_claim(storage):
    """A claim leases what is ready, in order, up to its limit, and nothing of a paused or unknown queue."""
    assert storage.claim("a") == []
    storage.commit({"a": [Enqueue("x", b"1"), Enqueue("y", b"2", priority=1), Enqueue("z", b"3")]})
    assert [(entry.id, entry.payload, entry.attempts) for entry in storage.claim("a", 2)] == [
        ("y", b"2", 1),
        ("x", b"1", 1),
    ]
    storage.commit({"a": [PauseQueue("me", "")]})
    assert storage.claim("a", 2) == []


def test_held(storage):
    """A storage knows the leases that it holds itself."""
    with pytest.raises(NotLeased):
        storage.held("a", "x")
    storage.commit({"a": [Enqueue("x", b"1")]})
    with pytest.raises(NotLeased):
        storage.held("a", "x")
    (entry,) = storage.claim("a")
    held = storage.held("a", "x")
    assert (held.token, held.attempts) == (entry.token, 1)
    storage.commit({"a": [Complete("x", held.token)]})
    with pytest.raises(NotLeased):
        storage.held("a", "x")


def test_lapsed(storage, clock):
    """What has passed its deadline is told until somebody ends it, and nothing else is."""
    assert storage.lapsed("a") == []
    storage.commit({"a": [Enqueue("x", b"1"), Enqueue("y", b"1")]})
    (first,) = storage.claim("a", lease_for=LEASE)
    storage.claim("a", lease_for=3 * LEASE)
    assert storage.lapsed("a") == []
    clock.advance(timedelta(seconds=1))
    for _ in range(2):
        (lapse,) = storage.lapsed("a")
        assert (lapse.id, lapse.token, lapse.attempts) == ("x", first.token, 1)
        assert (lapse.cause, lapse.worker) == (Cause.TIMED_OUT, first.worker)
    storage.commit({"a": [Complete("x", first.token)]})
    assert storage.lapsed("a") == []


def test_a_lease_of_nobody(storage, clock):
    """A detached lease is held by no process: whoever knows its token ends it, or else its deadline does."""
    storage.commit({"a": [Enqueue("x", b"1"), Enqueue("y", b"1")]})
    first, second = storage.claim("a", 2, lease_for=LEASE, detached=True)
    assert not first.worker
    with pytest.raises(NotLeased):
        storage.held("a", "x")
    storage.commit({"a": [Complete("x", first.token)]})
    assert storage.lapsed("a") == []
    clock.advance(timedelta(seconds=1))
    (lapse,) = storage.lapsed("a")
    assert (lapse.id, lapse.token, lapse.cause) == ("y", second.token, Cause.TIMED_OUT)
    assert Queue("a", storage).dequeue().attempts == 2


@pytest.mark.needs("survives")
def test_a_lease_of_nobody_outlives_its_storage(open_storage, clock):
    """A detached lease goes on when the storage that gave it is closed, and ends with the machine."""
    storage = open_storage()
    storage.commit({"a": [Enqueue("x", b"1"), Enqueue("y", b"1")]})
    first, _ = storage.claim("a", 2, detached=True)
    storage.close()
    storage = open_storage()
    queue = Queue("a", storage)
    assert queue.counts() == Counts(leased=2)
    assert queue.dequeue() is None
    storage.commit({"a": [Complete("x", first.token)]})
    storage.close()
    clock.reboot()
    queue = Queue("a", open_storage())
    assert queue.counts() == Counts(leased=1)
    assert queue.dequeue().id == "y"


def test_waiting_in_vain(storage):
    """A wait for nothing ends with its time."""
    assert storage.wait("a", 0.001) is False
    storage.commit({"a": [Enqueue("x", b"1")]})
    storage.claim("a")
    assert storage.wait("a", 0.001) is False


def test_waiting_for_what_is_there(storage, clock):
    """A wait for something that is there already, or overdue, does not wait."""
    storage.commit({"a": [Enqueue("x", b"1")]})
    assert storage.wait("a", 60) is True
    storage.claim("a", lease_for=LEASE)
    clock.advance(timedelta(seconds=1))
    assert storage.wait("a", 60) is True
