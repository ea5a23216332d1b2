"""What a caller may ask for: ids, priorities, durations and moments, checked before anything is written."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from duraq.clock import from_datetime, from_timedelta
from duraq.errors import InvalidOption
from duraq.model import EntryStatus
from duraq.payload import LARGEST_PAYLOAD

ENTRY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}\Z")
LONGEST = timedelta(days=3650)
HEADER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
TRACE = frozenset({"traceparent", "tracestate"})  # headers that come by themselves, besides the others
LONGEST_KEY = 256
MOST_HEADERS, LONGEST_HEADER = 32, 1024
PRIORITIES = range(-(2**31), 2**31)


def entry_id(name: str) -> str:
    if not isinstance(name, str) or not ENTRY_ID.match(name):
        raise InvalidOption(
            f"id {name!r:.200} is outside [A-Za-z0-9][A-Za-z0-9._:@/+=-]{{0,127}}:"
            " it must be safe to grep and to print"
        )
    # Of the exact type: a name that an enumeration gives would be written instead.
    return str.__str__(name)


def key(value: str) -> str:
    """An idempotency key: text of 1 to 256 characters; else InvalidOption."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_KEY:
        raise InvalidOption(f"key must be text of 1 to {LONGEST_KEY} characters, not {value!r:.80}")
    return str.__str__(text("key", value))


def headers(value: Mapping[str, str]) -> dict[str, str] | None:
    """An entry's headers: a few short texts, by name; else InvalidOption. None if there are none."""
    if not isinstance(value, Mapping):
        raise InvalidOption(f"headers must be a mapping of names to texts, not {value!r:.80}")
    if len(value.keys() - TRACE) > MOST_HEADERS:
        raise InvalidOption(f"an entry has at most {MOST_HEADERS} headers, not {len(value)}")
    found = {}
    for name, content in value.items():
        if not isinstance(name, str) or not HEADER_NAME.match(name):
            raise InvalidOption(f"header name {name!r:.80} is outside [A-Za-z0-9][A-Za-z0-9._-]{{0,63}}")
        if not isinstance(content, str) or len(content) > LONGEST_HEADER:
            raise InvalidOption(
                f"header {name!r} must be text of at most {LONGEST_HEADER} characters, not {content!r:.80}"
            )
        found[str.__str__(name)] = str.__str__(text(f"header {name!r}", content))
    return found or None


def duration(name: str, value: timedelta, *, zero: bool = False) -> int:
    """Microseconds of a duration in range; else InvalidOption."""
    if not isinstance(value, timedelta):
        raise InvalidOption(f"{name} must be a timedelta, not {value!r}")
    if value > LONGEST or value < timedelta(0) or (not value and not zero):
        raise InvalidOption(
            f"{name} must be {'0' if zero else 'more than 0'} to {LONGEST.days} days,"
            f" not {value.total_seconds():g} s"
        )
    return from_timedelta(value)


def history(value: timedelta | int | None) -> dict[str, int] | None:
    """How long, or how many bytes, to keep of what is over; in whole seconds."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        return {"seconds": -(-duration("history", value, zero=True) // 1_000_000)}
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidOption(f"history must be a timedelta, or a number of bytes from 0 on, not {value!r}")
    return {"bytes": value}


def moment(name: str, value: datetime, now: int) -> int:
    if not isinstance(value, datetime):
        raise InvalidOption(f"{name} must be a datetime, not {value!r}")
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidOption(f"{name} must say its time zone: {value!r} is naive")
    moment = from_datetime(value)
    if moment < 0 or moment - now > from_timedelta(LONGEST):
        raise InvalidOption(f"{name} must be after 1970 and at most {LONGEST.days} days ahead, not {value}")
    return moment


def positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidOption(f"{name} must be a whole number of at least 1, not {value!r}")
    return value


def priority(value: int) -> int:
    """A whole number of 32 bits; else InvalidOption."""
    if isinstance(value, bool) or not isinstance(value, int) or int(value) not in PRIORITIES:
        raise InvalidOption(f"priority must be a whole number of 32 bits, not {value!r}")
    # Of the exact type: a number with a name would be written as its name.
    return int(value)


def offset(value: int) -> int:
    """A whole number of 0 or more; else InvalidOption."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidOption(f"offset must be a whole number of at least 0, not {value!r}")
    return value


def text(name: str, value: str) -> str:
    """Text that can be written as UTF-8; else InvalidOption."""
    try:
        value.encode("utf-8")
    except (AttributeError, UnicodeEncodeError):
        raise InvalidOption(f"{name} must be text that can be written as UTF-8, not {value!r:.80}") from None
    return value


def payload_limit(value: int) -> int:
    """A whole number of bytes from 1 to 16 MiB; else InvalidOption."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_PAYLOAD:
        raise InvalidOption(f"max_payload_bytes must be between 1 and {LARGEST_PAYLOAD}, not {value!r}")
    return value


def status(value: EntryStatus | str | None) -> EntryStatus | None:
    """A state that entries of a queue can be in, or None for any; else InvalidOption."""
    try:
        return None if value is None else EntryStatus(value)
    except (ValueError, TypeError):
        raise InvalidOption(f"status must be a state of an entry, not {value!r}") from None


def user() -> str:
    """Who runs this, as it is written down."""
    try:
        # From the environment, where it may be anything.
        return os.fsencode(getpass.getuser()).decode("utf-8", "backslashreplace")
    except (KeyError, OSError):
        # A user without a name, as in many containers.
        return f"uid {os.getuid()}"
