"""What becomes of a failed attempt: its error as text, and the retry policy's verdict."""

from __future__ import annotations

import logging
import os
import sysconfig
import traceback
from functools import cache
from pathlib import Path

from duraq import options
from duraq.clock import from_timedelta
from duraq.model import AttemptError, Cause
from duraq.retry import DEFAULT_POLICY, RetryPolicy
from duraq.signature import signature

log = logging.getLogger("duraq")

# A traceback is for a person to read; the beginning and the end of a longer one say what matters.
TRACEBACK_BYTES = 16 * 1024
MESSAGE_BYTES = 4096
FRAME_BYTES = 512
NAME_BYTES = 256


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
        return _written(error.type, error.message, error.traceback, error.frame)
    if isinstance(error, BaseException):
        try:
            message = str(error)
        except Exception as broken:  # noqa: BLE001 - a __str__ that fails must not cost the record of the failure
            message = f"<str() of the error failed: {type(broken).__name__}>"
        lines = "".join(traceback.format_exception(error))
        return _written(type(error).__name__, message, lines, _frame(error))
    return _written("Error", str(error or ""))


def _written(kind: str, message: str, lines: str = "", frame: str = "") -> AttemptError:
    kind, message = _clip(kind, NAME_BYTES), _clip(message, MESSAGE_BYTES)
    return AttemptError(
        kind,
        message,
        _clip(lines, TRACEBACK_BYTES),
        _clip(frame, FRAME_BYTES),
        signature(kind, message, frame),
        _host(),
    )


def _frame(error: BaseException) -> str:
    """Where in the application it was raised: in the last frame that is no library's, if there is one."""
    frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)
    own = [frame for frame in frames if not frame.filename.startswith(_libraries())]
    if not frames:
        return ""
    last = (own or frames)[-1]
    return f"{last.filename}:{last.lineno} in {last.name}"


@cache
def _libraries() -> tuple[str, ...]:
    here = str(Path(__file__).parent)
    return (here, "<frozen ", *(path for name, path in sysconfig.get_paths().items() if name.endswith("lib")))


@cache
def _host() -> str:
    return _clip(os.uname().nodename, NAME_BYTES)


def _clip(text: str, limit: int) -> str:
    """The text in at most so many bytes of UTF-8, and a few that say what is left out of its middle."""
    # Lone surrogates cannot be written; they are shown escaped.
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode("utf-8")
    half = limit // 2
    begin, end = data[:half].decode("utf-8", "ignore"), data[-half:].decode("utf-8", "ignore")
    return f"{begin}\n... {len(data) - 2 * half} bytes left out ...\n{end}"
