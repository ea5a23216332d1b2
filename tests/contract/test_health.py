"""Whether queues get worked, told at the edge of each rule."""

from datetime import timedelta

import pytest

from duraq import (
    DeadLetterQueue,
    FixedDelay,
    HealthCheckAggregator,
    HealthStatus,
    InvalidOption,
    MetricsHealthCheck,
    NoRetry,
    Queue,
    QueueHealthCheck,
    StorageHealthCheck,
)

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
HEALTHY, DEGRADED, UNHEALTHY = HealthStatus
# Tried again so often that nothing dies.
PATIENT = FixedDelay(max_attempts=1000, delay=timedelta(0))


def status(storage, **limits):
    return QueueHealthCheck(storage, "jobs", **limits).check().status


def end(queue, count, *, failing):
    """End so many attempts."""
    for entry in queue.dequeue(limit=count):
        if failing:
            queue.mark_failed(entry)
        else:
            queue.mark_completed(entry)


def test_the_specification(storage, queue, capsys):
    """The example of the specification, in Python's manner, tells how all components are."""
    health_checks = HealthCheckAggregator(
        [
            StorageHealthCheck(storage, min_free=0),
            MetricsHealthCheck(storage),
            QueueHealthCheck(storage, error_rate_window=timedelta(minutes=5), max_error_rate=0.1),
        ]
    )
    queue.enqueue("x")

    status = health_checks.overall_status()
    if status == HealthStatus.HEALTHY:
        print("All systems operational")

    results = health_checks.check_all()
    for result in results.values():
        print(f"{result.component}: {result.status}")
        print(f"Message: {result.message}")
        print(f"Details: {result.details}")

    assert list(results) == ["storage", "metrics", "queues"]
    told = capsys.readouterr().out
    for line in ("All systems operational", "storage: healthy", "metrics: healthy", "queues: healthy"):
        assert line in told.splitlines()


def test_no_consumer(storage, queue, clock):
    """Ready entries that nobody takes for two minutes are unhealthy, unless somebody works on others."""
    queue.enqueue_many(range(2))
    clock.advance(2 * MINUTE)
    assert status(storage) is HEALTHY
    clock.advance(SECOND)
    assert status(storage) is UNHEALTHY
    assert status(storage, no_consumer_after=3 * MINUTE) is HEALTHY
    queue.dequeue()
    assert status(storage) is HEALTHY


def test_the_oldest_waits_too_long(storage, queue, clock):
    """An entry that is ready for a quarter of an hour is unhealthy, though somebody works."""
    queue.enqueue("first", priority=-1)
    queue.enqueue("second")
    entry = queue.dequeue()
    clock.advance(4 * MINUTE)
    for _ in range(3):
        queue.extend(entry)
        clock.advance(11 * MINUTE / 3)
    assert status(storage) is HEALTHY
    clock.advance(SECOND)
    assert status(storage) is UNHEALTHY
    assert status(storage, max_oldest_ready=16 * MINUTE) is HEALTHY


def test_a_pause_is_no_trouble(storage, queue, clock):
    """A queue that somebody paused is well however long its entries wait, and the message says who."""
    queue.enqueue("x")
    queue.pause("incident", who="ann")
    clock.advance(60 * MINUTE)
    result = QueueHealthCheck(storage, "jobs").check()
    assert result.status is HEALTHY
    assert "ann" in result.message


def test_a_stuck_lease(storage, queue, clock):
    """A lease that nobody ends for half a minute after its deadline is degraded, and names its entry."""
    entry_id = queue.enqueue("x")
    queue.dequeue()
    clock.advance(5 * MINUTE + 30 * SECOND)
    assert status(storage) is HEALTHY
    clock.advance(SECOND)
    result = QueueHealthCheck(storage, "jobs").check()
    assert result.status is DEGRADED
    assert entry_id in result.message
    assert status(storage, stuck_after=MINUTE) is HEALTHY
    queue.settle_lapsed()
    assert status(storage) is HEALTHY


def test_the_error_rate(storage, clock):
    """A tenth of failing attempts is allowed, more is degraded, and five minutes later it is forgotten."""
    queue = Queue("jobs", storage, retry_policy=PATIENT)
    queue.enqueue_many(range(30))
    end(queue, 9, failing=False)
    end(queue, 1, failing=True)
    assert status(storage) is HEALTHY
    end(queue, 1, failing=True)
    result = QueueHealthCheck(storage, "jobs").check()
    assert result.status is DEGRADED
    assert result.details["error_rate"] == pytest.approx(2 / 11, abs=1e-4)
    assert result.details["attempts"] == 11
    assert status(storage, max_error_rate=0.5) is HEALTHY
    clock.advance(6 * MINUTE)
    assert status(storage, no_consumer_after=10 * MINUTE) is HEALTHY
    assert status(storage, no_consumer_after=10 * MINUTE, error_rate_window=10 * MINUTE) is DEGRADED


def test_a_few_attempts_say_nothing(storage):
    """Until ten attempts have ended no share of them is too large."""
    queue = Queue("jobs", storage, retry_policy=PATIENT)
    queue.enqueue_many(range(20))
    end(queue, 9, failing=True)
    assert status(storage) is HEALTHY
    assert status(storage, min_attempts=9) is DEGRADED
    end(queue, 1, failing=True)
    assert status(storage) is DEGRADED


def test_dead_letters(storage, clock):
    """More than five deaths in an hour are degraded; how many may lie there is as the caller says."""
    queue = Queue("jobs", storage, retry_policy=NoRetry())
    queue.enqueue_many(range(6))
    end(queue, 5, failing=True)
    assert status(storage) is HEALTHY
    end(queue, 1, failing=True)
    assert status(storage) is DEGRADED
    clock.advance(61 * MINUTE)
    assert status(storage) is HEALTHY
    assert status(storage, max_dead=6) is HEALTHY
    assert status(storage, max_dead=5) is DEGRADED
    DeadLetterQueue("jobs", None, storage).purge_older_than(MINUTE)
    assert status(storage, max_dead=0) is HEALTHY


def test_all_queues(storage, queue, clock):
    """Without a name all queues are checked, the worst counts, and each is told of."""
    queue.enqueue("waits")
    clock.advance(3 * MINUTE)
    Queue("other", storage).enqueue("new")
    result = QueueHealthCheck(storage).check()
    assert (result.component, result.status) == ("queues", UNHEALTHY)
    assert "jobs" in result.message
    assert "other" not in result.message
    assert {name: each["status"] for name, each in result.details["queues"].items()} == {
        "jobs": "unhealthy",
        "other": "healthy",
    }
    assert QueueHealthCheck(storage, ["other"]).check().status is HEALTHY


def test_a_queue_that_nobody_made_yet(storage):
    """Before its first entry nothing is wrong with a queue, and asking does not make it."""
    assert status(storage) is HEALTHY
    assert QueueHealthCheck(storage).check().status is HEALTHY
    assert storage.queues() == []


def test_a_closed_storage(storage):
    """A storage that was closed is unhealthy, and says so."""
    storage.close()
    result = HealthCheckAggregator([StorageHealthCheck(storage)]).check_all()["storage"]
    assert result.status is UNHEALTHY
    assert "closed" in result.message


def test_the_metrics_add_up(storage, clock):
    """Whatever happens to entries, the numbers of their queue do not contradict each other."""
    queue = Queue("jobs", storage, retry_policy=NoRetry())
    queue.enqueue_many(range(20))
    queue.enqueue("expires", ttl=SECOND, priority=-1)
    end(queue, 5, failing=True)
    end(queue, 5, failing=False)
    queue.release(queue.dequeue())
    queue.dequeue(limit=2)
    dead = DeadLetterQueue("jobs", None, storage)
    first, second, *_ = dead.list()
    dead.retry(first.id)
    dead.remove(second.id)
    clock.advance(6 * MINUTE)
    queue.settle_lapsed()
    result = MetricsHealthCheck(storage).check()
    assert (result.status, result.details["wrong"]) == (HEALTHY, {})


@pytest.mark.parametrize(
    "limits",
    [
        {"max_error_rate": 1.1},
        {"max_error_rate": -0.1},
        {"error_rate_window": timedelta(0)},
        {"max_oldest_ready": -SECOND},
        {"min_attempts": -1},
        {"max_dead": -1},
    ],
)
def test_wrong_thresholds(storage, limits):
    """A threshold that can mean nothing is refused when the check is made."""
    with pytest.raises(InvalidOption, match=next(iter(limits))):
        QueueHealthCheck(storage, **limits)
