"""One entry, one handler: what becomes of the entry however the handler ends."""

from datetime import timedelta

import pytest

from duraq import Cause, Counts, EntryStatus, FixedDelay, LeaseLost, NoRetry, Queue

SECOND = timedelta(seconds=1)


class StopNowError(BaseException):
    """As a framework might define one to end its threads with."""


def raising(error):
    """A handler that ends like this."""

    def handler(entry):
        raise error

    return handler


def test_nothing_to_do(queue):
    """Without an entry no handler is called."""
    assert queue.process_next(lambda entry: pytest.fail("called")) is None
    assert queue.process_next(lambda entry: pytest.fail("called"), wait=timedelta(milliseconds=1)) is None


def test_done(queue):
    """A handler gets the leased entry, and when it returns the entry is completed, whatever it returns."""
    queue.enqueue("a")
    seen = []

    def handler(entry):
        seen.append((entry.data, entry.attempts, queue.get(entry.id).status))
        return False

    entry = queue.process_next(handler)
    assert entry.data == "a"
    assert seen == [("a", 1, EntryStatus.LEASED)]
    assert queue.counts() == Counts()


def test_one_at_a_time(queue):
    """Each call processes one entry, in the usual order."""
    queue.enqueue_many(["a", "b"])
    queue.enqueue("urgent", priority=1)
    seen = []
    while queue.process_next(lambda entry: seen.append(entry.data)):
        pass
    assert seen == ["urgent", "a", "b"]


def test_a_handlers_error(storage, clock):
    """What a handler raises is raised again, and the policy decides what becomes of the entry."""
    queue = Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=2, delay=SECOND))
    queue.enqueue("a")
    error = ValueError("no")
    with pytest.raises(ValueError, match="no") as caught:
        queue.process_next(raising(error))
    assert caught.value is error
    assert queue.counts() == Counts(scheduled=1)
    clock.advance(SECOND)
    with pytest.raises(KeyError):
        queue.process_next(raising(KeyError("x")))
    assert queue.counts() == Counts(dead=1)
    history = queue.entries()[0].errors
    assert [(attempt.cause, attempt.error.type) for attempt in history] == [
        (Cause.FAILED, "ValueError"),
        (Cause.FAILED, "KeyError"),
    ]
    assert "in handler" in history[0].error.traceback


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), StopNowError()], ids=repr
)
def test_an_end_of_the_program(storage, error):
    """What ends a program is no failure: the entry is given back, uncounted, and the program ends."""
    queue = Queue("jobs", storage, retry_policy=NoRetry())
    queue.enqueue("a")
    with pytest.raises(type(error)) as caught:
        queue.process_next(raising(error))
    assert caught.value is error
    assert queue.counts() == Counts(ready=1)
    assert queue.dequeue().attempts == 1


def test_too_late(queue, clock):
    """A handler that returns after somebody else was given its entry learns that it counts for nothing."""
    queue.enqueue("a")

    def handler(entry):
        clock.advance(timedelta(hours=1))
        assert queue.dequeue().id == entry.id

    with pytest.raises(LeaseLost):
        queue.process_next(handler)
    assert queue.counts() == Counts(leased=1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), StopNowError()], ids=repr)
def test_an_end_of_the_program_that_comes_too_late(queue, clock, error):
    """What ends a program ends it, even if the entry cannot be given back any more."""
    queue.enqueue("a")

    def handler(entry):
        clock.advance(timedelta(hours=1))
        assert queue.dequeue().id == entry.id
        raise error

    with pytest.raises(type(error)):
        queue.process_next(handler)
    assert queue.counts() == Counts(leased=1)


def test_an_error_that_comes_too_late(queue, clock):
    """The error of a handler whose lease is lost is not lost too."""
    queue.enqueue("a")

    def handler(entry):
        clock.advance(timedelta(hours=1))
        assert queue.dequeue().id == entry.id
        raise ValueError("no")

    with pytest.raises((ValueError, LeaseLost)) as caught:
        queue.process_next(handler)
    errors = [caught.value, caught.value.__context__, caught.value.__cause__]
    assert any(isinstance(error, ValueError) for error in errors)
    assert queue.counts() == Counts(leased=1)


def test_a_wait(queue, clock):
    """process_next waits as dequeue does."""
    queue.enqueue("a")
    assert queue.process_next(lambda entry: None, wait=timedelta(minutes=1)).data == "a"
