"""The specification's code, in Python's manner: entries that wait for their time."""

from datetime import timedelta

from duraq.clock import to_datetime

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def now(clock):
    return to_datetime(clock.now())


def test_scheduled_execution(queue, clock):
    """An entry is not delivered before the time it was scheduled for."""
    scheduled_time = now(clock) + HOUR
    queue.enqueue("Process me later", id="scheduled-task-1", scheduled_for=scheduled_time)
    assert queue.dequeue() is None
    clock.advance(HOUR)
    assert queue.dequeue().id == "scheduled-task-1"


def test_with_priorities(queue, clock):
    """Once their time has come, scheduled entries are delivered by priority like any other."""
    queue.enqueue("low", scheduled_for=now(clock) + HOUR)
    queue.enqueue("high", scheduled_for=now(clock) + HOUR, priority=5)
    clock.advance(HOUR)
    assert [queue.dequeue().data, queue.dequeue().data] == ["high", "low"]


def test_delayed_notifications(queue, clock):
    """A reminder comes a day later."""
    queue.enqueue("Follow-up reminder email", id="reminder-1", delay=DAY)
    clock.advance(DAY - timedelta(microseconds=1))
    assert queue.dequeue() is None
    clock.advance(timedelta(microseconds=1))
    assert queue.dequeue().data == "Follow-up reminder email"


def test_scheduled_tasks(queue, clock):
    """A nightly job comes at midnight, whatever the time zone it was said in."""
    midnight_tonight = now(clock).astimezone().replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    queue.enqueue("Run nightly maintenance", id="nightly-job-1", scheduled_for=midnight_tonight)
    assert queue.dequeue() is None
    clock.advance(midnight_tonight - now(clock))
    assert queue.dequeue().id == "nightly-job-1"


def test_time_based_workflow(storage, queue, clock):
    """The steps of a workflow are enqueued as one change, and each comes in its time."""
    workflow = [
        ("step1", "Send welcome email", timedelta(0)),
        ("step2", "Send follow-up survey", 7 * DAY),
        ("step3", "Send engagement reminder", 14 * DAY),
    ]
    with storage.transaction():
        for name, data, delay in workflow:
            queue.enqueue(data, id=name, scheduled_for=now(clock) + delay)
    seen = []
    for day in range(15):
        while (step := queue.dequeue()) is not None:
            seen.append((step.id, day))
            queue.mark_completed(step)
        clock.advance(DAY)
    assert seen == [("step1", 0), ("step2", 7), ("step3", 14)]
