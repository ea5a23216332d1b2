"""When what takes long may be done once more, while what it is about goes on changing. Knows no Textual."""

from __future__ import annotations

from time import monotonic

SOONEST = 2.0  # seconds between two times
SHARE = 0.1  # of the time, at most, that it takes


class Seldom:
    """Not all the time, and the longer it takes the less often."""

    def __init__(self) -> None:
        self._over_at: float | None = None
        self._took = 0.0

    @property
    def wait(self) -> float:
        """In how many seconds it may be done again; none or less: now."""
        if self._over_at is None:
            return 0.0
        return max(SOONEST, self._took / SHARE) - (monotonic() - self._over_at)

    def over(self, began: float | None = None) -> None:
        """It has just ended, or failed; it began then, by the monotonic clock."""
        self._over_at = monotonic()
        self._took = self._took if began is None else self._over_at - began
