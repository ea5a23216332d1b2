"""The specification's code, in Python's manner: first steps, types, errors, retries."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from duraq import (
    Counts,
    DuraqError,
    ExponentialBackoff,
    FileStorage,
    InvalidPayload,
    MemoryStorage,
    Queue,
    QueueManager,
)


@dataclass
class EmailMessage:
    """What an e-mail queue holds."""

    to: str
    subject: str


@dataclass
class BackgroundJob:
    """What a job queue holds."""

    name: str
    arguments: list[int]


class RetryableError(Exception):
    """Worth another attempt."""


class NonRetryableError(Exception):
    """Not worth one."""


class CustomRetryPolicy:
    """The specification's own policy: it looks at the error."""

    max_attempts = 3

    def should_retry(self, attempts, error=None):
        """Only some errors are worth it."""
        return attempts < self.max_attempts and isinstance(error, RetryableError)

    def get_retry_delay(self, attempts):
        """Longer each time."""
        return timedelta(seconds=attempts * 5)

    def should_move_to_dead_letter(self, attempts, error=None):
        """The rest is given up."""
        return attempts >= self.max_attempts or isinstance(error, NonRetryableError)


def test_quick_start(tmp_path):
    """A queue manager on a storage gives a typed queue, which is fed, worked and counted, and is closed."""
    storage = FileStorage(tmp_path / "queue")
    processed = []
    try:
        emails = QueueManager(storage).queue("emails", str)
        emails.enqueue("Welcome email to user@example.com")
        email = emails.dequeue()
        if email is not None:
            processed.append(email.data)
            emails.mark_completed(email)
        remaining = emails.length
    finally:
        storage.close()
    assert (processed, remaining) == (["Welcome email to user@example.com"], 0)


def test_a_storage_that_persists(tmp_path):
    """What was enqueued is there after the storage was closed and opened again, in order."""
    with FileStorage(tmp_path / "queue") as storage:
        QueueManager(storage).queue("jobs").enqueue_many(["first", "second"])
    with FileStorage(tmp_path / "queue") as storage:
        jobs = QueueManager(storage).queue("jobs")
        assert [jobs.dequeue().data, jobs.dequeue().data] == ["first", "second"]


def test_a_storage_whose_life_is_the_callers():
    """A manager uses a storage that it was given and never closes it: that is its maker's."""
    storage = MemoryStorage()
    manager = QueueManager(storage)
    manager.queue("jobs").enqueue("a")
    del manager
    assert QueueManager(storage).queue("jobs").length == 1
    storage.close()


def test_resource_management(tmp_path):
    """A with-block closes the storage, whatever happens in it."""

    def fail():
        with FileStorage(tmp_path / "queue") as storage:
            storages.append(storage)
            raise RetryableError

    storages = []
    with pytest.raises(RetryableError):
        fail()
    with pytest.raises(DuraqError, match="closed"):
        QueueManager(storages[0]).queue("jobs").enqueue("a")


def test_type_safety(storage):
    """Queues of one manager have types of their own, and refuse anything else."""
    manager = QueueManager(storage)
    emails = manager.queue("emails", EmailMessage)
    jobs = manager.queue("jobs", BackgroundJob)
    emails.enqueue(EmailMessage("ann@example.com", "Welcome"))
    jobs.enqueue(BackgroundJob("resize", [1, 2]))
    assert emails.dequeue().data == EmailMessage("ann@example.com", "Welcome")
    assert jobs.dequeue().data == BackgroundJob("resize", [1, 2])
    with pytest.raises(InvalidPayload):
        emails.enqueue(BackgroundJob("resize", []))


def test_error_handling(queue):
    """Whatever keeps an entry from being enqueued is a DuraqError, and then it is not there."""
    try:
        queue.enqueue(float("nan"))
    except DuraqError as error:
        refusal = error
    assert "$" in str(refusal)
    assert queue.length == 0


def test_retry_policies(storage, clock):
    """With exponential backoff an item is tried again, later each time, and then is a dead letter."""
    queue = Queue(
        "my-queue",
        storage,
        str,
        retry_policy=ExponentialBackoff(
            base_delay=timedelta(milliseconds=100), max_delay=timedelta(seconds=30), max_attempts=5
        ),
    )
    queue.enqueue("item")

    def process_item(entry):
        raise RetryableError(f"attempt {entry.attempts}")

    for _ in range(5):
        with pytest.raises(RetryableError):
            queue.process_next(process_item)
        clock.advance(timedelta(seconds=31))
    assert queue.process_next(process_item) is None
    assert queue.counts() == Counts(dead=1)


def test_custom_retry_policies(storage, clock):
    """A policy of one's own decides by the error whether, and when, an item is tried again."""
    queue = Queue("jobs", storage, str, retry_policy=CustomRetryPolicy())
    queue.enqueue_many(["retry", "give up"])
    errors = {"retry": RetryableError(), "give up": NonRetryableError()}

    def process_item(entry):
        raise errors[entry.data]

    for error in errors.values():
        with pytest.raises(type(error)):
            queue.process_next(process_item)
    assert queue.counts() == Counts(scheduled=1, dead=1)
    clock.advance(timedelta(seconds=5))
    assert queue.dequeue().data == "retry"


def test_error_handling_with_retries(queue):
    """An attempt that fails raises its error to whoever called, and the item waits for the next one."""
    queue.enqueue("item")

    def process_item(_entry):
        raise RetryableError("Processing failed, will retry")

    said = []
    try:
        queue.process_next(process_item)
    except RetryableError as error:
        said.append(f"Processing failed: {error}")
    assert said == ["Processing failed: Processing failed, will retry"]
    assert queue.length == 1


def test_basic_queue_operations(storage):
    """Items come out in the order in which they went in, until there is none."""
    queue = QueueManager(storage).queue("notifications", str)
    queue.enqueue("Notification 1")
    queue.enqueue("Notification 2")
    processed = []
    while (item := queue.dequeue()) is not None:
        processed.append(item.data)
        queue.mark_completed(item)
    assert processed == ["Notification 1", "Notification 2"]


def test_multiple_queue_types(storage):
    """One storage holds queues of several types, and knows their names."""
    manager = QueueManager(storage)
    manager.queue("emails", EmailMessage).enqueue(EmailMessage("ann@example.com", "Welcome"))
    manager.queue("jobs", BackgroundJob).enqueue(BackgroundJob("resize", []))
    assert manager.queues() == ["emails", "jobs"]
