"""When a failed entry is tried again, and when it is given up."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duraq import MemoryStorage, Queue
from duraq.errors import InvalidOption
from duraq.retry import DEFAULT_POLICY, ExponentialBackoff, FixedDelay, NoRetry, RetryPolicy

SECOND = timedelta(seconds=1)
# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

attempts = st.integers(1, 50) | st.integers(1, 10**400)
delays = st.timedeltas(timedelta(0), timedelta(days=3650))
built_in = [DEFAULT_POLICY, ExponentialBackoff(max_attempts=3), FixedDelay(delay=SECOND), NoRetry()]


@unhurried
@given(attempts, delays, delays, st.floats(0, 1), st.floats(0, 1, exclude_max=True))
def test_backoff_stays_within_its_bounds(
    attempt: int, base: timedelta, longest: timedelta, jitter: float, drawn: float
) -> None:
    """A delay is never negative, never beyond the longest, and at most the share of jitter below it."""
    full = ExponentialBackoff(base_delay=base, max_delay=longest, jitter=0).get_retry_delay(attempt)
    policy = ExponentialBackoff(base_delay=base, max_delay=longest, jitter=jitter, _random=lambda: drawn)
    delay = policy.get_retry_delay(attempt)
    assert timedelta(0) <= delay <= full <= longest
    assert delay >= full * (1 - jitter) - timedelta(microseconds=1)


def test_backoff_doubles_up_to_its_longest() -> None:
    """Each delay is twice the one before it until the longest is reached."""
    policy = ExponentialBackoff(base_delay=SECOND, max_delay=10 * SECOND, jitter=0)
    assert [policy.get_retry_delay(attempt) / SECOND for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_backoff_reaches_the_longest_from_the_shortest() -> None:
    """However far apart the two delays are, enough attempts reach the longest."""
    policy = ExponentialBackoff(
        base_delay=timedelta(microseconds=1), max_delay=timedelta(days=3650), jitter=0
    )
    assert policy.get_retry_delay(10**9) == timedelta(days=3650)


@unhurried
@given(st.integers(max_value=1))
def test_the_first_delay_is_the_base(attempt: int) -> None:
    """After the first attempt, and for a count that makes no sense, the delay is the base one."""
    assert ExponentialBackoff(base_delay=SECOND, jitter=0).get_retry_delay(attempt) == SECOND


def test_jitter_spreads_what_failed_together() -> None:
    """Two draws of one policy differ, without jitter they do not."""
    policy = ExponentialBackoff(base_delay=SECOND, jitter=0.5)
    assert len({policy.get_retry_delay(3) for _ in range(50)}) > 1
    steady = ExponentialBackoff(base_delay=SECOND, jitter=0)
    assert len({steady.get_retry_delay(3) for _ in range(50)}) == 1


FORKING = """
import os
from duraq.retry import DEFAULT_POLICY
for _ in range(3):
    child = os.fork()
    if child == 0:
        print([DEFAULT_POLICY.get_retry_delay(5) for _ in range(5)], flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_forked_workers_do_not_draw_the_same_delays() -> None:
    """Children forked from one process spread their delays too, although they share the policy."""
    run = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, check=True)
    assert len(set(run.stdout.splitlines())) == 3


@pytest.mark.parametrize("policy", built_in)
def test_a_policy_retries_until_its_last_attempt(policy: Any) -> None:
    """Each attempt is either followed by another or is the last, and from the last on none follows."""
    for attempt in range(1, policy.max_attempts + 3):
        again = policy.should_retry(attempt, OSError())
        assert again == (attempt < policy.max_attempts)
        assert policy.should_move_to_dead_letter(attempt, OSError()) != again
    assert policy.should_move_to_dead_letter(10**400)


@pytest.mark.parametrize("policy", built_in)
def test_built_in_policies_are_policies(policy: Any) -> None:
    """Built-in policies follow the protocol, and can be compared, hashed, copied and pickled."""
    assert isinstance(policy, RetryPolicy)
    assert isinstance(policy.get_retry_delay(1), timedelta)
    assert copy.deepcopy(policy) == policy == pickle.loads(pickle.dumps(policy))
    assert hash(copy.copy(policy)) == hash(policy)
    assert "random" not in repr(policy)


def test_a_fixed_delay_is_fixed() -> None:
    """The delay is the same after every attempt."""
    policy = FixedDelay(delay=7 * SECOND)
    assert {policy.get_retry_delay(attempt) for attempt in (1, 2, 10**9)} == {7 * SECOND}


def test_no_retry_is_one_attempt() -> None:
    """A policy without retries has one attempt, and cannot be given more."""
    assert NoRetry().max_attempts == 1
    with pytest.raises(TypeError):
        NoRetry(max_attempts=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("policy", [ExponentialBackoff, FixedDelay])
@pytest.mark.parametrize("number", [0, -1, True, 2.0, "3", None])
def test_bad_numbers_of_attempts_are_refused(policy: Any, number: Any) -> None:
    """The number of attempts is a whole number of at least one."""
    with pytest.raises(InvalidOption, match="max_attempts"):
        policy(max_attempts=number)


@pytest.mark.parametrize("delay", [-SECOND, timedelta(days=3651), timedelta.max, 5, 1.5, None, "1s"])
@pytest.mark.parametrize(
    ("policy", "name"),
    [(ExponentialBackoff, "base_delay"), (ExponentialBackoff, "max_delay"), (FixedDelay, "delay")],
)
def test_bad_delays_are_refused(policy: Any, name: str, delay: Any) -> None:
    """A delay is a timedelta from nothing to ten years, and the error names the option."""
    with pytest.raises(InvalidOption, match=name):
        policy(**{name: delay})


@pytest.mark.parametrize("jitter", [-0.1, 1.1, float("nan"), float("inf"), "0.1", None, SECOND])
def test_bad_jitter_is_refused(jitter: Any) -> None:
    """Jitter is a share between nothing and all."""
    with pytest.raises(InvalidOption, match="jitter"):
        ExponentialBackoff(jitter=jitter)


class RetryableError(Exception):
    pass


class HopelessError(Exception):
    pass


class Custom:
    """A user's own policy: no base class, no state."""

    max_attempts = 3

    def should_retry(self, attempts: int, error: object | None = None) -> bool:
        return attempts < self.max_attempts and isinstance(error, RetryableError)

    def get_retry_delay(self, attempts: int) -> timedelta:
        return timedelta(seconds=attempts * 5)

    def should_move_to_dead_letter(self, attempts: int, error: object | None = None) -> bool:
        return attempts >= self.max_attempts or isinstance(error, HopelessError)


def test_a_policy_of_ones_own_needs_no_base_class() -> None:
    """Any object with the protocol's methods is a policy, and decides by attempts and by error."""
    policy: RetryPolicy = Custom()
    assert isinstance(policy, RetryPolicy)
    assert not isinstance(object(), RetryPolicy)
    assert policy.should_retry(1, RetryableError())
    assert not policy.should_retry(1, HopelessError())
    assert not policy.should_retry(3, RetryableError())
    assert policy.should_move_to_dead_letter(1, HopelessError())
    assert not policy.should_move_to_dead_letter(1, RetryableError())
    assert policy.get_retry_delay(2) == timedelta(seconds=10)


@pytest.mark.parametrize("policy", [NoRetry, FixedDelay, 3, "always"], ids=repr)
def test_what_is_no_policy(policy):
    """A queue refuses what is no policy, a policy's class among it, before an entry fails by it."""
    with MemoryStorage() as storage, pytest.raises(InvalidOption, match="retry_policy"):
        Queue("jobs", storage, retry_policy=policy)


def test_options_by_name():
    """A policy's options are given by name: a bare number could mean attempts or seconds."""
    with pytest.raises(TypeError):
        FixedDelay(5)
