"""One entry, one handler: what becomes of the entry however the handler ends."""

import functools
from datetime import timedelta
from unittest.mock import Mock

import pytest

from duraq import (
    Cause,
    Counts,
    EntryStatus,
    FixedDelay,
    InvalidInput,
    InvalidOption,
    LeaseLost,
    NoRetry,
    Queue,
    Worker,
)

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


class Later:
    """Called like a function, it returns what is still to be run."""

    def __call__(self, entry):
        return self.send(entry)

    async def send(self, entry):
        raise AssertionError


def generator(entry):
    """Runs when somebody asks for what it yields."""
    yield entry


async def coroutine(entry):
    """Runs when somebody awaits it."""


@pytest.mark.parametrize("handler", [coroutine, generator, None, lambda: 1, lambda entry, more: 1])
def test_what_is_no_handler(queue, handler):
    """What a call of does not do the work is refused before an entry is taken."""
    queue.enqueue("a")
    with pytest.raises(InvalidOption):
        queue.process_next(handler)
    with pytest.raises(InvalidOption):
        Worker(queue, handler)
    assert queue.counts() == Counts(ready=1)


def hands_on(to):
    """Returns what another function returns."""
    return lambda entry: to(entry)  # noqa: PLW0108 - by which nobody sees what that is


@pytest.mark.parametrize("handler", [Later(), hands_on(coroutine), hands_on(generator)])
def test_a_handler_that_has_done_nothing(storage, handler):
    """That a handler returns what nobody runs is its failure: the entry is not completed."""
    queue = Queue("jobs", storage, retry_policy=NoRetry())
    queue.enqueue_many([*"ab"])
    with pytest.raises(InvalidInput, match="nobody runs"):
        queue.process_next(handler)
    Worker(queue, handler).run(drain=True)
    assert queue.counts() == Counts(dead=2)


def test_a_handler_that_leaves_a_transaction(storage):
    """What a handler has begun and not ended is undone, and its failure: nothing is done in it afterwards."""
    queue, others = Queue("jobs", storage, retry_policy=NoRetry()), Queue("others", storage)

    def handler(entry):
        if entry.data != "good":
            storage.begin_transaction()
        others.enqueue(entry.data)
        if entry.data == "worse":
            raise KeyError

    for transactional in (False, True):
        queue.enqueue_many(["bad", "worse", "good"])
        stats = Worker(queue, handler, transactional=transactional).run(drain=True)
        assert (stats.completed, stats.dead) == (1, 2)
        queue.enqueue_many(["bad", "worse"])
        for error in (InvalidInput, KeyError):
            with pytest.raises(error):
                queue.process_next(handler, transactional=transactional)
    assert queue.counts() == Counts(dead=8)
    assert [entry.data for entry in others.entries()] == ["good", "good"]


def with_connection(function):
    """Hands it one thing more."""

    @functools.wraps(function)
    def call(entry):
        return function(entry, "connection")

    return call


class Remote:
    """Stands for what is somewhere else: it has every attribute."""

    def __getattr__(self, name):
        return Remote()

    def __call__(self, entry):
        return None


@pytest.mark.parametrize(
    "handler",
    [with_connection(lambda entry, connection: None), Remote(), Mock(return_value=None), print, str],
)
def test_what_is_a_handler(queue, handler):
    """Whatever can be called with an entry is a handler, however it came to be."""
    queue.enqueue("a")
    queue.process_next(handler)
    queue.enqueue("b")
    assert Worker(queue, handler).run(drain=True).completed == 1


def test_what_has_run_already(queue):
    """A handler may return what was to be awaited, and has run to its end."""
    queue.enqueue("a")

    def handler(entry):
        begun = coroutine(entry)
        with pytest.raises(StopIteration):
            begun.send(None)
        return begun

    assert queue.process_next(handler) is not None
    assert queue.counts() == Counts()


def test_a_handler_that_ends_the_transaction(storage):
    """One that commits by steps is in another one at its end; who ends the one it is in has failed."""
    queue, others = Queue("jobs", storage, retry_policy=NoRetry()), Queue("others", storage)

    def by_steps(entry):
        for step in range(3):
            others.enqueue(step)
            storage.commit_transaction()
            storage.begin_transaction()

    def ends(entry):
        others.enqueue("x")
        storage.rollback_transaction()

    queue.enqueue("a")
    queue.process_next(by_steps, transactional=True)
    assert [entry.data for entry in others.entries()] == [0, 1, 2]
    queue.enqueue_many(["b", "c"])
    with pytest.raises(InvalidInput, match="has ended"):
        queue.process_next(ends, transactional=True)
    stats = Worker(queue, ends, transactional=True).run(drain=True)
    assert stats.dead == 1
    assert queue.counts() == Counts(dead=2)
    assert len(others) == 3
