"""When a failed entry is tried again, and when it is given up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, runtime_checkable

from duraq.errors import InvalidOption

_LONGEST = timedelta(days=3650)


@runtime_checkable
class RetryPolicy(Protocol):
    """What a queue asks after a failed attempt. ``attempts`` counts deliveries so far, this one included.

    ``error`` is the exception that ended the attempt, or an AttemptError when a worker died or timed out.
    A policy is called outside all locks. If it raises, the error is logged and DEFAULT_POLICY decides, so
    that a mistake in a policy never costs an entry.
    """

    @property
    def max_attempts(self) -> int: ...

    def should_retry(self, attempts: int, error: object | None = None) -> bool: ...

    def get_retry_delay(self, attempts: int) -> timedelta: ...

    def should_move_to_dead_letter(self, attempts: int, error: object | None = None) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class _Counted:
    """What every built-in policy shares: a number of attempts, then the dead-letter queue."""

    max_attempts: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.max_attempts, int) or isinstance(self.max_attempts, bool):
            raise InvalidOption(f"max_attempts must be a whole number, not {self.max_attempts!r}")
        if self.max_attempts < 1:
            raise InvalidOption(f"max_attempts must be at least 1, not {self.max_attempts}")

    def should_retry(self, attempts: int, error: object | None = None) -> bool:  # noqa: ARG002 - the protocol's
        """Whether another attempt follows this one."""
        return attempts < self.max_attempts

    def should_move_to_dead_letter(self, attempts: int, error: object | None = None) -> bool:  # noqa: ARG002 - the protocol's
        """Whether the entry is given up."""
        return attempts >= self.max_attempts


def _check_delay(name: str, delay: timedelta) -> None:
    if not isinstance(delay, timedelta):
        raise InvalidOption(f"{name} must be a timedelta, not {delay!r}")
    if not timedelta(0) <= delay <= _LONGEST:
        raise InvalidOption(f"{name} must be between 0 and {_LONGEST.days} days, not {delay}")


@dataclass(frozen=True, kw_only=True)
class ExponentialBackoff(_Counted):
    """Doubles the delay after each attempt, up to ``max_delay``.

    ``jitter`` is the share of the delay that is drawn by chance (0.1: between 90 % and 100 % of it), so
    that entries which failed together do not all come back together.
    """

    base_delay: timedelta = timedelta(seconds=1)
    max_delay: timedelta = timedelta(minutes=5)
    jitter: float = 0.1
    # The module's generator is seeded anew in a forked child; an own one would give all workers that were
    # forked from one process the same delays.
    _random: Callable[[], float] = field(default=random.random, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_delay("base_delay", self.base_delay)
        _check_delay("max_delay", self.max_delay)
        if not isinstance(self.jitter, int | float) or not 0 <= self.jitter <= 1:
            raise InvalidOption(f"jitter must be between 0 and 1, not {self.jitter!r}")

    def get_retry_delay(self, attempts: int) -> timedelta:
        """How long after this attempt the next may begin."""
        # Bounded exponent: the delay is capped anyway, and 2 ** 10000 would overflow on the way there.
        doubled = self.base_delay.total_seconds() * 2.0 ** min(max(attempts - 1, 0), 64)
        delay = min(doubled, self.max_delay.total_seconds())
        return timedelta(seconds=delay * (1 - self.jitter * self._random()))


@dataclass(frozen=True, kw_only=True)
class FixedDelay(_Counted):
    """The same delay after every attempt."""

    delay: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_delay("delay", self.delay)

    def get_retry_delay(self, attempts: int) -> timedelta:  # noqa: ARG002 - the protocol's
        """How long after this attempt the next may begin."""
        return self.delay


@dataclass(frozen=True, kw_only=True)
class NoRetry(_Counted):
    """One attempt, then the dead-letter queue; also if its worker died in it."""

    max_attempts: int = field(default=1, init=False)

    def get_retry_delay(self, attempts: int) -> timedelta:  # noqa: ARG002 - the protocol's
        """Never asked for in practice: there is no second attempt."""
        return timedelta(0)


DEFAULT_POLICY = ExponentialBackoff()


def check_policy(policy: RetryPolicy | None) -> RetryPolicy:
    """The policy itself, or the default one; InvalidOption if it is none."""
    if policy is None:
        return DEFAULT_POLICY
    # A class has the methods too, and would only fail with the first entry that does.
    methods = ("should_retry", "get_retry_delay", "should_move_to_dead_letter")
    if isinstance(policy, type) or not all(callable(getattr(policy, name, None)) for name in methods):
        raise InvalidOption(f"retry_policy must be a RetryPolicy such as NoRetry(), not {policy!r}")
    return policy
