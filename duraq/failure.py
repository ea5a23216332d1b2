"""What becomes of a failed attempt: its error as text, and the retry policy's verdict."""

from __future__ import annotations

import logging
import traceback

from duraq import options
from duraq.clock import from_timedelta
from duraq.model import AttemptError, Cause
from duraq.retry import DEFAULT_POLICY, RetryPolicy

log = logging.getLogger("duraq")

# A traceback is for a person to read; the beginning and the end of a longer one say what matters.
TRACEBACK_CHARACTERS = 16 * 1024
MESSAGE_CHARACTERS = 4096
NAME_CHARACTERS = 256


def verdict(
    policy: RetryPolicy, attempts: int, cause: Cause, error: BaseException | AttemptError | str | None
) -> int | None:
    """Microseconds until the next attempt, or None if there is none: the entry is dead.

    The work of a worker that died or hung is ready again at once; the policy's delay is for failures.
    """
    try:
        if policy.should_move_to_dead_letter(attempts, error) or not policy.should_retry(attempts, error):
            return None
        if cause is not Cause.FAILED:
            return 0
        return options.duration("the policy's delay", policy.get_retry_delay(attempts), zero=True)
    except Exception:
        log.exception("the retry policy failed; the default one decides")
    if DEFAULT_POLICY.should_move_to_dead_letter(attempts):
        return None
    return from_timedelta(DEFAULT_POLICY.get_retry_delay(attempts))


def max_attempts(policy: RetryPolicy) -> int | None:
    """How many attempts the policy allows; None if it does not say."""
    try:
        number: int | None = policy.max_attempts
    except Exception:  # noqa: BLE001 - a policy is the user's: whatever it raises, no entry may suffer
        return None
    return number


def as_text(error: BaseException | AttemptError | str | None) -> AttemptError:
    """An error as text, cut to what a person reads."""
    if isinstance(error, AttemptError):
        return AttemptError(
            _clip(error.type, NAME_CHARACTERS),
            _clip(error.message, MESSAGE_CHARACTERS),
            _clip(error.traceback, TRACEBACK_CHARACTERS),
        )
    if isinstance(error, BaseException):
        try:
            message = str(error)
        except Exception as broken:  # noqa: BLE001 - a __str__ that fails must not cost the record of the failure
            message = f"<str() of the error failed: {type(broken).__name__}>"
        lines = "".join(traceback.format_exception(error))
        return AttemptError(
            _clip(type(error).__name__, NAME_CHARACTERS),
            _clip(message, MESSAGE_CHARACTERS),
            _clip(lines, TRACEBACK_CHARACTERS),
        )
    return AttemptError("Error", _clip(str(error or ""), MESSAGE_CHARACTERS))


def _clip(text: str, limit: int) -> str:
    # Lone surrogates cannot be written as UTF-8; they are shown escaped.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - limit} characters left out ...\n{text[-half:]}"
