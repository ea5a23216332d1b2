"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from duraq.clock import from_datetime, from_timedelta

_NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_AN_HOUR = timedelta(hours=1)


class FakeClock:
    """Wall time and uptime of an imaginary machine; each moves only when told.

    ``advance`` lets time pass, ``jump`` is somebody setting the wall clock, ``reboot`` is a restart.
    """

    def __init__(self, now: datetime = _NOON, uptime: timedelta = _AN_HOUR) -> None:
        self._boots = 1
        self.boot_id = _boot_id(self._boots)
        self._now = 0
        self._uptime = 0
        self.set_now(now)
        self.set_uptime(uptime)

    def now(self) -> int:
        return self._now

    def uptime(self) -> int:
        return self._uptime

    def set_now(self, moment: datetime) -> None:
        """Set the wall clock, and nothing else."""
        self._now = from_datetime(moment)

    def set_uptime(self, uptime: timedelta) -> None:
        """Set the time since boot, and nothing else."""
        self._uptime = from_timedelta(uptime)

    def advance(self, duration: timedelta) -> None:
        """Let time pass: the wall clock and the uptime move together."""
        if duration < timedelta(0):
            raise ValueError(f"time does not pass backwards ({duration}); jump() sets the wall clock back")
        self._now += from_timedelta(duration)
        self._uptime += from_timedelta(duration)

    def jump(self, duration: timedelta) -> None:
        """Set the wall clock forward or back by this much; the uptime does not notice."""
        self._now += from_timedelta(duration)

    def reboot(self) -> None:
        """Restart the machine: another boot id, and the uptime begins again; the wall clock goes on."""
        self._boots += 1
        self.boot_id = _boot_id(self._boots)
        self._uptime = 0


def _boot_id(boots: int) -> str:
    """A boot id in the kernel's form, the same in every run."""
    return f"00000000-0000-4000-8000-{boots:012d}"
