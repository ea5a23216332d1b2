"""The specification's code, in Python's manner: the dead-letter queue."""

from collections import Counter
from datetime import timedelta

import pytest

from duraq import Counts, DeadLetterQueue, ExponentialBackoff, Queue


class ProcessingError(Exception):
    """What a handler raises."""


@pytest.fixture
def queue(storage):
    policy = ExponentialBackoff(base_delay=timedelta(seconds=1), max_attempts=3)
    return Queue("my-queue", storage, str, retry_policy=policy)


@pytest.fixture
def dlq(storage):
    return DeadLetterQueue("my-queue", str, storage)


@pytest.fixture
def give_up(queue, clock):
    """Enqueue items and fail them until they are dead letters."""

    def giving_up(*items):
        queue.enqueue_many(items)

        def process_item(entry):
            raise ProcessingError(f"Failed to process {entry.data}")

        while queue.length:
            with pytest.raises(ProcessingError):
                queue.process_next(process_item)
            clock.advance(timedelta(minutes=1))

    return giving_up


def test_automatic_failed_entry_movement(queue, give_up):
    """After its last attempt an entry is a dead letter."""
    give_up("item")
    assert queue.counts() == Counts(dead=1)


def test_management(dlq, give_up):
    """Dead letters are counted and listed in pages, with data, error and attempts."""
    give_up(*(f"item {number}" for number in range(12)))
    entries = dlq.list(limit=10, offset=0)
    assert [entry.data for entry in entries] == [f"item {number}" for number in range(10)]
    assert entries[0].error_message == "Failed to process item 0"
    assert entries[0].attempts == 3
    assert len(dlq) == 12
    assert len(dlq.list(limit=10, offset=10)) == 2


def test_entry_recovery(queue, dlq, give_up):
    """A dead letter is put back into its queue, or removed."""
    give_up("first", "second")
    dead_letter = dlq.retrieve()
    if dead_letter is not None:
        dlq.retry(dead_letter.id)
    assert queue.dequeue().data == "first"
    dlq.remove(dlq.retrieve().id)
    assert dlq.retrieve() is None


def test_cleanup_and_maintenance(dlq, give_up, clock):
    """Old dead letters are purged, and how many is said."""
    give_up("old")
    clock.advance(timedelta(days=7))
    give_up("new")
    assert dlq.purge_older_than(timedelta(days=7)) == 1
    assert [entry.data for entry in dlq.list()] == ["new"]


def test_regular_monitoring(dlq, give_up):
    """How many dead letters there are can be asked at any time."""
    alerts = []
    give_up("item")
    count = len(dlq)
    if count > 0:
        alerts.append(f"Dead letter queue has {count} entries")
    assert alerts == ["Dead letter queue has 1 entries"]


def test_cleanup_strategy(dlq, give_up, clock):
    """A job of every day that keeps dead letters for thirty days purges each in time."""
    purged = []
    give_up("item")
    for _ in range(40):
        purged.append(dlq.purge_older_than(timedelta(days=30)))
        clock.advance(timedelta(days=1))
    assert (sum(purged), purged.index(1)) == (1, 30)


def test_error_analysis(dlq, give_up):
    """Dead letters can be counted by error, also by the signature that similar errors share."""
    give_up("12", "345")
    messages = Counter(entry.error_message or "Unknown" for entry in dlq.list())
    signatures = Counter(entry.errors[-1].error.signature for entry in dlq.list())
    assert messages == {"Failed to process 12": 1, "Failed to process 345": 1}
    assert list(signatures.values()) == [2]


def test_retry_strategy(queue, dlq, give_up):
    """Which dead letters are retried and which are removed can be decided by message and attempts."""
    give_up("Temporary failure", "few attempts")
    for entry in dlq.list():
        if "Temporary failure" in (entry.error_message or "") or entry.attempts < 3:
            dlq.retry(entry.id)
        else:
            dlq.remove(entry.id)
    assert queue.counts() == Counts(ready=1)
    assert queue.dequeue().data == "Temporary failure"
