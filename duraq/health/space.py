"""How much room there is left where a storage lies."""

from __future__ import annotations

from typing import Any

from duraq.errors import InvalidOption
from duraq.health.result import HealthStatus
from duraq.journal.filesystem import Space

# A journal whose sync failed goes on in a new file, of 4 MiB, while segments grow. With less than this left,
# enqueueing is about to be refused.
_LEAST = 16 << 20
# What was found: how bad it is, and what it is.
Findings = list[tuple[HealthStatus, str]]


def check_min_free(min_free: float) -> None:
    """Raise InvalidOption unless it is a share or a number of bytes."""
    if min_free < 0 or (min_free > 1 and not isinstance(min_free, int)):
        raise InvalidOption(f"min_free is a share from 0 to 1 or a number of bytes, not {min_free!r}")


def judge_space(space: Space, min_free: float, found: Findings, details: dict[str, Any]) -> None:
    """What is the matter with it, if ``min_free`` is wanted: a share, or bytes."""
    details["free_bytes"], details["total_bytes"] = space.free, space.total
    share = space.free / space.total if space.total else 1.0
    says = f"{space.free >> 20} MiB free ({share:.0%})"
    if space.free < _LEAST:
        found.append((HealthStatus.UNHEALTHY, f"the disk is full: {says}"))
    # A whole number is one of bytes; but nobody means a single byte, or wants all of a disk free.
    elif (space.free if min_free > 1 else share) < min_free:
        found.append((HealthStatus.DEGRADED, f"the disk is filling up: {says}"))
    if space.files:
        details["free_files"] = space.free_files
        share = space.free_files / space.files
        if not space.free_files:
            found.append((HealthStatus.UNHEALTHY, "the file system can hold no more files"))
        elif min_free <= 1 and share < min_free:
            found.append((HealthStatus.DEGRADED, f"the file system has room for {space.free_files} files"))


def free_in_words(details: dict[str, Any]) -> str:
    """How much is free, and how much of all that is."""
    total = details["total_bytes"]
    share = f" ({details['free_bytes'] / total:.0%})" if total else ""
    return f"{details['free_bytes'] >> 20} MiB free{share}"
