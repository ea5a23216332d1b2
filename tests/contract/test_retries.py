"""What becomes of a failed attempt: the policy's verdict, and a history that forgets nothing."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from duraq import (
    AttemptError,
    Cause,
    Counts,
    EntryStatus,
    ExponentialBackoff,
    FixedDelay,
    LeaseLost,
    NoRetry,
    Queue,
)

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def failing(storage, policy):
    """A queue with that policy and one entry in it."""
    queue = Queue("jobs", storage, retry_policy=policy)
    queue.enqueue("a")
    return queue


class Policy:
    """A policy as a user would write one."""

    max_attempts = 3

    def __init__(self, *, retry=True, bury=False, delay=MINUTE):
        self.retry, self.bury, self.delay = retry, bury, delay
        self.asked = []

    def should_retry(self, attempts, error=None):
        self.asked.append((attempts, error))
        return self.retry

    def get_retry_delay(self, attempts):
        return self.delay

    def should_move_to_dead_letter(self, attempts, error=None):
        return self.bury


class Broken(Policy):
    """A policy with a mistake in one of its methods."""

    def __init__(self, method):
        super().__init__()
        setattr(self, method, self._fail)

    def _fail(self, *_):
        raise ZeroDivisionError("in the policy")


def test_attempts_are_counted_from_one(storage, clock):
    """Each delivery after a failure counts one more, and the last one knows that it is the last."""
    queue = failing(storage, FixedDelay(max_attempts=3, delay=SECOND))
    seen = []
    while queue.length:
        entry = queue.dequeue()
        seen.append((entry.attempts, entry.max_attempts, entry.is_last_attempt, len(entry.errors)))
        queue.mark_failed(entry, "no")
        clock.advance(SECOND)
    assert seen == [(1, 3, False, 0), (2, 3, False, 1), (3, 3, True, 2)]
    assert queue.counts() == Counts(dead=1)


def test_what_mark_failed_returns(storage, clock):
    """The answer is where the entry is now: scheduled, ready or dead."""
    queue = failing(storage, FixedDelay(max_attempts=2, delay=SECOND))
    assert queue.mark_failed(queue.dequeue()) is EntryStatus.SCHEDULED
    assert queue.counts() == Counts(scheduled=1)
    clock.advance(SECOND)
    assert queue.mark_failed(queue.dequeue()) is EntryStatus.DEAD
    assert queue.counts() == Counts(dead=1)
    queue = Queue("others", storage, retry_policy=FixedDelay(max_attempts=2, delay=timedelta(0)))
    queue.enqueue("a")
    assert queue.mark_failed(queue.dequeue()) is EntryStatus.READY
    assert queue.counts() == Counts(ready=1)


def test_the_policys_delay(storage, clock):
    """A failed entry is back when its policy says, not a microsecond earlier."""
    queue = failing(storage, ExponentialBackoff(base_delay=SECOND, max_delay=3 * SECOND, jitter=0))
    for delay in (SECOND, 2 * SECOND, 3 * SECOND, 3 * SECOND):
        entry = queue.dequeue()
        queue.mark_failed(entry, "no")
        assert queue.get(entry.id).scheduled_for == datetime.fromtimestamp(clock.now() / 1e6, UTC) + delay
        clock.advance(delay - timedelta(microseconds=1))
        assert queue.dequeue() is None
        clock.advance(timedelta(microseconds=1))
    assert queue.dequeue().is_last_attempt


def test_a_retried_entry_keeps_its_place(storage, clock):
    """What failed goes back to where it stood, before what was enqueued after it."""
    queue = Queue("jobs", storage, retry_policy=FixedDelay(delay=SECOND))
    queue.enqueue_many(["a", "b", "c"])
    queue.mark_failed(queue.dequeue())
    assert queue.dequeue().data == "b"
    clock.advance(SECOND)
    assert [entry.data for entry in queue.dequeue(limit=3)] == ["a", "c"]


def test_no_retry(storage, dead_letters):
    """With NoRetry the first failure is the last."""
    queue = failing(storage, NoRetry())
    entry = queue.dequeue()
    assert entry.is_last_attempt
    assert queue.mark_failed(entry, "no") is EntryStatus.DEAD
    assert dead_letters.list()[0].error_message == "no"


def test_the_callers_delay(storage, clock):
    """retry_in overrules the policy, its verdict included."""
    queue = failing(storage, NoRetry())
    assert queue.mark_failed(queue.dequeue(), retry_in=SECOND) is EntryStatus.SCHEDULED
    clock.advance(SECOND)
    entry = queue.dequeue()
    assert entry.attempts == 2
    assert queue.mark_failed(entry, retry_in=timedelta(0)) is EntryStatus.READY
    assert queue.dequeue().attempts == 3


def test_the_callers_verdict(storage):
    """dead overrules the policy."""
    queue = failing(storage, FixedDelay(max_attempts=99))
    assert queue.mark_failed(queue.dequeue(), dead=True) is EntryStatus.DEAD
    assert queue.counts() == Counts(dead=1)


def test_by_its_id(storage):
    """An entry may be failed by its id, and its policy still knows how many attempts there were."""
    policy = Policy(delay=timedelta(0))
    queue = failing(storage, policy)
    for _ in range(2):
        assert queue.mark_failed(queue.dequeue().id, "no") is EntryStatus.READY
    assert policy.asked == [(1, "no"), (2, "no")]


def test_the_default_policy(storage, clock):
    """Without a policy there are five attempts, with growing delays."""
    queue = failing(storage, None)
    for attempt in range(1, 6):
        entry = queue.dequeue()
        assert (entry.attempts, entry.max_attempts) == (attempt, 5)
        queue.mark_failed(entry)
        clock.advance(timedelta(hours=1))
    assert queue.counts() == Counts(dead=1)


def test_a_policy_of_ones_own(storage, clock):
    """A policy is asked with the attempts so far and the very error, and what it says is done."""
    policy = Policy(delay=MINUTE)
    queue = failing(storage, policy)
    error = ValueError("no")
    assert queue.mark_failed(queue.dequeue(), error) is EntryStatus.SCHEDULED
    assert policy.asked == [(1, error)]
    clock.advance(MINUTE)
    entry = queue.dequeue()
    assert entry.max_attempts == 3
    policy.bury = True
    assert queue.mark_failed(entry, error) is EntryStatus.DEAD


def test_a_policy_that_never_retries(storage):
    """An entry that is not to be tried again is dead: nothing is dropped."""
    queue = failing(storage, Policy(retry=False))
    assert queue.mark_failed(queue.dequeue()) is EntryStatus.DEAD


def test_a_policy_chooses_by_error(storage):
    """A policy may retry one kind of error and bury another."""

    class Choosy(Policy):
        def should_retry(self, attempts, error=None):
            return isinstance(error, TimeoutError)

    queue = Queue("jobs", storage, retry_policy=Choosy())
    queue.enqueue_many(["a", "b"])
    first, second = queue.dequeue(limit=2)
    assert queue.mark_failed(first, TimeoutError()) is EntryStatus.SCHEDULED
    assert queue.mark_failed(second, ValueError()) is EntryStatus.DEAD


@pytest.mark.parametrize("method", ["should_retry", "get_retry_delay", "should_move_to_dead_letter"])
def test_a_policy_that_raises(storage, caplog, method):
    """A mistake in a policy costs no entry: it is logged, and the default policy decides."""
    queue = failing(storage, Broken(method))
    assert queue.mark_failed(queue.dequeue(), "no") is EntryStatus.SCHEDULED
    assert "in the policy" in caplog.text
    entry = queue.entries()[0]
    assert (entry.attempts, entry.error_message) == (1, "no")
    assert SECOND * 0.9 <= entry.scheduled_for - entry.updated_at <= SECOND


@pytest.mark.parametrize("delay", [None, 5, "1s", -SECOND, timedelta.max, timedelta.min], ids=repr)
def test_a_policy_that_talks_nonsense(storage, caplog, delay):
    """A delay that is none is a mistake like any other."""
    queue = failing(storage, Policy(delay=delay))
    assert queue.mark_failed(queue.dequeue()) is EntryStatus.SCHEDULED
    assert queue.counts() == Counts(scheduled=1)
    assert "the policy's delay" in caplog.text


def test_a_policy_that_raises_gives_up_in_the_end(storage, caplog, clock):
    """An entry whose policy is broken has five attempts, as the default policy has it."""
    queue = failing(storage, Broken("should_retry"))
    for _ in range(5):
        queue.mark_failed(queue.dequeue())
        clock.advance(timedelta(hours=1))
    assert queue.counts() == Counts(dead=1)


def test_a_policy_without_a_number_of_attempts(storage, caplog):
    """A policy whose max_attempts is missing, or raises, costs no entry either."""

    class Endless(Policy):
        @property
        def max_attempts(self):
            raise ZeroDivisionError("in the policy")

    queue = failing(storage, Endless())
    entry = queue.dequeue()
    assert (entry.max_attempts, entry.is_last_attempt) == (None, False)
    queue.mark_completed(entry)


def test_a_policy_is_asked_outside_all_locks(storage):
    """A policy may itself use the queue, in its own thread or in another."""

    class Curious(Policy):
        def should_retry(self, attempts, error=None):
            threads = [threading.Thread(target=queue.counts) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return queue.counts() == Counts(leased=1)

    queue = failing(storage, Curious())
    assert queue.mark_failed(queue.dequeue()) is EntryStatus.SCHEDULED


def test_the_history(storage, dead_letters, clock):
    """Every ended attempt is kept, in order, with its cause, its error, its holder and its times."""
    queue = failing(storage, FixedDelay(max_attempts=3, delay=SECOND))
    times = []
    for number in range(1, 4):
        entry = queue.dequeue()
        clock.advance(MINUTE)
        queue.mark_failed(entry, ValueError(f"attempt {number}"))
        times.append((entry.updated_at, entry.updated_at + MINUTE))
        clock.advance(SECOND)
    (dead,) = dead_letters.list()
    assert (dead.attempts, dead.error_message) == (3, "attempt 3")
    assert [attempt.number for attempt in dead.errors] == [1, 2, 3]
    assert {attempt.cause for attempt in dead.errors} == {Cause.FAILED}
    assert {attempt.worker for attempt in dead.errors} == {entry.worker}
    assert [(attempt.started_at, attempt.ended_at) for attempt in dead.errors] == times
    assert [attempt.error.message for attempt in dead.errors] == [f"attempt {n}" for n in range(1, 4)]


def test_the_next_holder_sees_the_history(storage, clock):
    """A delivered entry brings with it what went wrong before."""
    queue = failing(storage, FixedDelay(delay=SECOND))
    queue.mark_failed(queue.dequeue(), "first")
    clock.advance(SECOND)
    entry = queue.dequeue()
    assert entry.error_message == "first"
    clock.advance(timedelta(hours=1))
    entry = queue.dequeue()
    assert [attempt.cause for attempt in entry.errors] == [Cause.FAILED, Cause.TIMED_OUT]


def test_given_back_is_no_error(storage, clock):
    """The newest error is that of the newest attempt that failed, also when it was given back since."""
    queue = failing(storage, FixedDelay(delay=SECOND))
    queue.mark_failed(queue.dequeue(), "first")
    clock.advance(SECOND)
    queue.release(queue.dequeue())
    entry = queue.dequeue()
    assert [attempt.cause for attempt in entry.errors] == [Cause.FAILED, Cause.RELEASED]
    assert entry.error_message == "first"


def test_a_given_back_attempt_is_kept(storage):
    """An attempt that was given back is in the history too, though it does not count."""
    queue = failing(storage, None)
    queue.release(queue.dequeue())
    entry = queue.dequeue()
    assert entry.attempts == 1
    assert [attempt.cause for attempt in entry.errors] == [Cause.RELEASED]


def test_an_exception_becomes_text(storage):
    """Of an exception its type, its message and its traceback are kept."""
    queue = failing(storage, NoRetry())
    with pytest.raises(LookupError) as caught:
        raise LookupError("no such thing: é\n\0")
    queue.mark_failed(queue.dequeue(), caught.value)
    error = queue.entries()[0].errors[0].error
    assert (error.type, error.message) == ("LookupError", "no such thing: é\n\0")
    assert "test_an_exception_becomes_text" in error.traceback


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (None, AttemptError("Error", "")),
        ("", AttemptError("Error", "")),
        ("no", AttemptError("Error", "no")),
        (AttemptError("Type", "message", "traceback"), AttemptError("Type", "message", "traceback")),
        ("\ud800", AttemptError("Error", "\\ud800")),
        (AttemptError("T\ud800", "m\ud800", "t\ud800"), AttemptError("T\\ud800", "m\\ud800", "t\\ud800")),
    ],
    ids=repr,
)
def test_an_error_may_be_text(storage, error, kept):
    """An error may be given as text, or not at all; what UTF-8 cannot write is shown escaped."""
    queue = failing(storage, NoRetry())
    queue.mark_failed(queue.dequeue(), error)
    # As ASCII: a report of a difference could not be written either.
    found = queue.entries()[0].errors[0].error
    assert ascii((found.type, found.message, found.traceback)) == ascii(
        (kept.type, kept.message, kept.traceback)
    )
    assert found.host


def test_an_error_that_cannot_speak(storage):
    """An exception whose text cannot be had is kept all the same."""

    class MuteError(Exception):
        def __str__(self):
            raise ZeroDivisionError

    queue = failing(storage, NoRetry())
    queue.mark_failed(queue.dequeue(), MuteError())
    error = queue.entries()[0].errors[0].error
    assert error.type == "MuteError"
    assert "ZeroDivisionError" in error.message


@pytest.mark.parametrize("make", [str, ValueError, lambda text: AttemptError(text, text, text)])
def test_an_error_of_any_length(storage, make):
    """Of a huge error the beginning and the end are kept."""
    queue = failing(storage, NoRetry())
    queue.mark_failed(queue.dequeue(), make("begin" + "x" * 1_000_000 + "end"))
    error = queue.entries()[0].errors[0].error
    assert len(error.type) + len(error.message) + len(error.traceback) < 30_000
    assert error.message.startswith("begin")
    assert error.message.endswith("end")


def test_failing_late_asks_nobody_for_nothing(storage, clock):
    """A late failure changes neither the entry nor its history."""
    queue = failing(storage, FixedDelay(max_attempts=9))
    late = queue.dequeue()
    clock.advance(timedelta(hours=1))
    queue.dequeue()
    with pytest.raises(LeaseLost):
        queue.mark_failed(late, "late")
    assert [attempt.cause for attempt in queue.entries()[0].errors] == [Cause.TIMED_OUT]


def test_an_entry_that_is_tried_for_ever(storage):
    """Of very many attempts the first and the last are kept, and all are counted."""
    queue = Queue("jobs", storage)
    queue.enqueue("stubborn")
    for number in range(1, 131):
        queue.mark_failed(queue.dequeue(), f"no {number}", retry_in=timedelta(0))
    entry = queue.dequeue()
    assert entry.attempts == 131
    assert [each.number for each in entry.errors] == [*range(1, 11), *range(41, 131)]
    assert entry.error_message == "no 130"
    queue.release(entry)
    (entry,) = queue.entries()
    assert [each.cause for each in entry.errors[-2:]] == [Cause.FAILED, Cause.RELEASED]
    assert len(entry.errors) == 100


def test_what_was_given_back_hides_no_failure(storage):
    """Of very many attempts those that were only given back are left out first."""
    queue = Queue("jobs", storage)
    queue.enqueue("not yet")
    for number in range(130):
        if number in {20, 40}:
            queue.mark_failed(queue.dequeue(), f"at {number}", retry_in=timedelta(0))
        queue.release(queue.dequeue())
    (entry,) = queue.entries()
    assert [each.error.message for each in entry.errors if each.cause is Cause.FAILED] == ["at 20", "at 40"]
    assert (len(entry.errors), entry.attempts, entry.error_message) == (100, 2, "at 40")
