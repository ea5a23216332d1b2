"""Time, as the engine sees it: whole microseconds, from a clock that tests can replace."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """What the engine asks of a clock.

    ``now`` is wall time, for schedules, TTLs and people. ``uptime`` counts from boot, suspend included,
    and cannot be set: lease deadlines use it, together with ``boot_id``.
    """

    boot_id: str

    def now(self) -> int:
        """Wall time in microseconds since 1970 UTC."""

    def uptime(self) -> int:
        """Microseconds since boot (CLOCK_BOOTTIME)."""


class SystemClock:
    """The machine's own clock."""

    def __init__(self) -> None:
        self.boot_id = _boot_id()

    def now(self) -> int:
        return time.time_ns() // 1000

    def uptime(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def to_datetime(microseconds: int) -> datetime:
    """The aware UTC datetime of a time in microseconds since 1970."""
    return _EPOCH + timedelta(0, 0, microseconds)


def from_datetime(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (moment - _EPOCH) // _MICROSECOND


def from_timedelta(duration: timedelta) -> int:
    """Whole microseconds of a duration."""
    return duration // _MICROSECOND
