"""Time, as the engine sees it: whole microseconds, from a clock that tests can replace."""

from __future__ import annotations

import time
from contextlib import suppress
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
        self._shift = _shift_of_boottime()

    def now(self) -> int:
        return time.time_ns() // 1000

    def uptime(self) -> int:
        return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self._shift) // 1000


@cache
def _shift_of_boottime() -> int:
    """By how many nanoseconds CLOCK_BOOTTIME is ahead here of what it is outside of all containers.

    A container may have a time namespace of its own, and share a storage with who has not.
    """
    with suppress(FileNotFoundError):  # a kernel without time namespaces
        for line in Path("/proc/self/timens_offsets").read_text("ascii").splitlines():
            clock, seconds, nanoseconds = line.split()
            if clock == "boottime":
                return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return 0


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
