"""The specification's code, in Python's manner: transactions."""

import pytest

from duraq import Queue, QueueManager


class ValidationError(Exception):
    """A job that may not be enqueued."""


@pytest.fixture
def manager(storage):
    return QueueManager(storage)


def test_simple(storage, queue):
    """What is done in a transaction is committed at its end."""
    with storage.transaction():
        queue.enqueue("item1")
        queue.enqueue("item2")
    assert queue.length == 2


def test_nested(storage, queue):
    """A transaction in another one is a savepoint: it can fail alone, and is committed with the outer one."""
    with storage.transaction():
        queue.enqueue("item1")
        with storage.transaction():
            queue.enqueue("item2")
        with pytest.raises(ValidationError), storage.transaction():
            queue.enqueue("item3")
            raise ValidationError
    assert [entry.data for entry in queue.entries()] == ["item1", "item2"]


@pytest.mark.parametrize("valid", [True, False])
def test_by_hand(storage, queue, valid):
    """A transaction can be begun, committed and rolled back by hand."""
    storage.begin_transaction()
    try:
        queue.enqueue("item1")
        if not valid:
            raise ValidationError
        queue.enqueue("item2")
        storage.commit_transaction()
    except ValidationError:
        storage.rollback_transaction()
    assert queue.length == (2 if valid else 0)


def test_the_methods(storage, queue):
    """A function can be a transaction, and gives back what it returns."""

    @storage.transaction()
    def both(first, second):
        return [queue.enqueue(first), queue.enqueue(second)]

    assert [entry.id for entry in queue.entries()] != both("a", "b")
    assert queue.length == 2


def test_atomic_multi_queue_operations(storage, manager):
    """Entries of several queues are there together or not at all."""
    names = ["email", "notification", "analytics"]
    with storage.transaction():
        for name in names:
            manager.queue(name).enqueue(f"{name} of a sign-up")
    with pytest.raises(ValidationError), storage.transaction():
        for name in names:
            manager.queue(name).enqueue("another")
        raise ValidationError
    assert [manager.queue(name).length for name in names] == [1, 1, 1]


def test_batch_processing_with_rollback(storage, queue):
    """One job that is not valid keeps all jobs of its transaction from being enqueued."""

    def enqueue(jobs):
        with storage.transaction():
            for job in jobs:
                if job < 0:
                    raise ValidationError
                queue.enqueue(job)

    enqueue([1, 2])
    with pytest.raises(ValidationError):
        enqueue([3, -4, 5])
    assert [entry.data for entry in queue.entries()] == [1, 2]


def test_complex_queue_operations(storage):
    """Entries go from two queues to a third in one transaction: taken, completed and enqueued at once."""
    high, normal, process = (Queue(name, storage) for name in ("high", "normal", "process"))
    high.enqueue("urgent")
    normal.enqueue("usual")
    with storage.transaction():
        for source in (high, normal):
            item = source.dequeue()
            if item is not None:
                process.enqueue(item.data)
                source.mark_completed(item)
    assert [entry.data for entry in process.entries()] == ["urgent", "usual"]
    assert (high.length, normal.length) == (0, 0)
