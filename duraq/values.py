"""Values that come from a file: of the type and in the range in which they were written, or refused.

A checksum says that a line is as somebody wrote it, not that it was us. What is read here goes on into lines,
tables of numbers and file names that are written again, so nothing else may get that far.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from duraq.model import PROVISIONAL, WORKER
from duraq.options import ENTRY_ID, PRIORITIES


def number(value: Any) -> int:
    """A whole number from 0 on, with room above it. Raises TypeError."""
    if type(value) is not int or not 0 <= value < PROVISIONAL:
        raise TypeError(f"not a number: {value!r:.80}")
    return value


def maybe_number(value: Any) -> int | None:
    """Raises TypeError."""
    return None if value is None else number(value)


def priority(value: Any) -> int:
    """A whole number of 32 bits. Raises TypeError."""
    if type(value) is not int or value not in PRIORITIES:
        raise TypeError(f"not a priority: {value!r:.80}")
    return value


def text(value: Any) -> str:
    """Raises TypeError."""
    if type(value) is not str:
        raise TypeError(f"not a text: {value!r:.80}")
    return value


def maybe_text(value: Any) -> str | None:
    """Raises TypeError."""
    return None if value is None else text(value)


def flag(value: Any) -> bool:
    """Raises TypeError."""
    if type(value) is not bool:
        raise TypeError(f"not true or false: {value!r:.80}")
    return value


def entry_id(value: Any) -> str:
    """Raises TypeError or ValueError."""
    if ENTRY_ID.match(value) is None:
        raise ValueError(f"not an id: {value!r:.80}")
    found: str = value
    return found


@lru_cache(256)
def worker(value: Any) -> str:
    """The id of a worker; empty for none. Raises TypeError or ValueError."""
    if value != "" and WORKER.fullmatch(value) is None:
        raise ValueError(f"not a worker: {value!r:.80}")
    found: str = value
    return found


def headers(value: Any) -> dict[str, str] | None:
    """Raises TypeError."""
    if value is None:
        return None
    if type(value) is not dict:
        raise TypeError(f"not headers: {value!r:.80}")
    for each in value.values():
        text(each)
    return value
