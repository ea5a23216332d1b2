"""Idempotency keys: an entry that is enqueued again under its key is there once."""

from datetime import timedelta

import pytest

from duraq import Counts, DuplicateEntry, EntryNotFound, InvalidOption, Queue, QueueFull

DAY = timedelta(days=1)


def test_once_under_a_key(queue):
    """Enqueued again under its key, an entry is not added; its id is returned."""
    first = queue.enqueue("a", key="order 17, café")
    assert queue.enqueue("b", key="order 17, café") == first
    assert [entry.data for entry in queue.entries()] == ["a"]
    assert queue.get(first).key == "order 17, café"


def test_whatever_has_become_of_it(queue):
    """A key stands for its entry although that was leased, completed or is dead."""
    first = queue.enqueue("a", key="k")
    entry = queue.dequeue()
    assert queue.enqueue("b", key="k") == first
    queue.mark_completed(entry)
    assert queue.enqueue("b", key="k") == first
    assert queue.counts() == Counts()
    other = queue.enqueue("c", key="l")
    queue.mark_failed(queue.dequeue(), dead=True)
    assert queue.enqueue("d", key="l") == other


def test_another_key_and_none(queue):
    """Another key, or none, is another entry."""
    assert len({queue.enqueue("a", key="k"), queue.enqueue("a", key="l"), queue.enqueue("a")}) == 3


def test_another_queue(storage):
    """The same key in another queue is another key."""
    queues = [Queue(name, storage) for name in ("one", "two")]
    assert len({queue.enqueue("a", key="k") for queue in queues}) == 2
    assert storage.queues() == ["one", "two"]


def test_after_the_window(queue, clock):
    """Once its window has passed a key is free; enqueuing under it does not make the window longer."""
    first = queue.enqueue("a", key="k", key_window=DAY)
    clock.advance(DAY - timedelta(microseconds=1))
    assert queue.enqueue("b", key="k", key_window=DAY) == first
    clock.advance(timedelta(microseconds=1))
    second = queue.enqueue("c", key="k", key_window=DAY)
    assert second != first
    assert queue.enqueue("d", key="k") == second


def test_many_keys_whose_window_has_passed(queue, clock):
    """A key is free after its window although thousands of others are over with it."""
    for number in range(2500):
        queue.enqueue(number, key=f"k{number}", key_window=DAY)
    clock.advance(DAY)
    assert queue.enqueue("again", key="k2499") == queue.entries()[-1].id
    assert len(queue) == 2501


def test_an_own_id_with_a_key(queue):
    """With an id and a key the second call returns the id of the first; without the key it is refused."""
    assert queue.enqueue("a", id="order-1", key="k") == "order-1"
    assert queue.enqueue("a", id="order-1", key="k") == "order-1"
    assert queue.enqueue("a", id="order-2", key="k") == "order-1"
    with pytest.raises(DuplicateEntry):
        queue.enqueue("a", id="order-1", key="other")
    # The other key was not used up by that.
    assert queue.enqueue("a", id="order-3", key="other") == "order-3"


def test_in_a_full_queue(storage):
    """A known key is known in a full queue too; an unknown one is refused, and not used up."""
    queue = Queue("jobs", storage, max_size=1)
    first = queue.enqueue("a", key="k")
    assert queue.enqueue("a", key="k") == first
    with pytest.raises(QueueFull):
        queue.enqueue("b", key="l")
    queue.mark_completed(queue.dequeue())
    assert queue.enqueue("b", key="l") != first


def test_in_a_transaction(storage):
    """A key that was used in a transaction is known in it, and free again when it is rolled back."""
    queue = Queue("jobs", storage)
    with storage.transaction():
        first = queue.enqueue("a", key="k")
        assert queue.enqueue("b", key="k") == first
    assert queue.enqueue("c", key="k") == first

    class Stop(Exception):
        pass

    def undone():
        with storage.transaction():
            queue.enqueue("d", key="l")
            raise Stop

    with pytest.raises(Stop):
        undone()
    second = queue.enqueue("e", key="l")
    assert queue.get(second).data == "e"


@pytest.mark.needs("survives")
def test_after_reopening(backend, queue, open_storage):
    """Keys are as durable as entries."""
    first = queue.enqueue("a", key="k")
    queue.mark_completed(queue.dequeue())
    other = Queue("jobs", open_storage())
    assert other.enqueue("b", key="k") == first
    with pytest.raises(EntryNotFound):
        other.get(first)


@pytest.mark.parametrize("key", ["", "k" * 257, 1, b"k", None.__class__, "\ud800"])
def test_no_key(queue, key):
    """What is no text of 1 to 256 characters is refused before anything is written."""
    with pytest.raises(InvalidOption, match="key"):
        queue.enqueue("a", key=key)
    assert len(queue) == 0


@pytest.mark.parametrize("window", [timedelta(0), timedelta(days=4000), 60])
def test_no_window(queue, window):
    """What is no length of time is refused before anything is written."""
    with pytest.raises(InvalidOption, match="key_window"):
        queue.enqueue("a", key="k", key_window=window)
    assert len(queue) == 0
