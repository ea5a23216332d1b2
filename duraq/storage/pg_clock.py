"""The server's clock, for workers on several hosts: none of them trusts another's."""

from __future__ import annotations

from duraq.clock import Clock, SystemClock

# The server's time, in SQL: microseconds since 1970.
NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


class ServerClock:
    """The time as the server tells it; between two looks this machine counts on.

    Leases end by it, so ``uptime`` is the server's time too, and all workers of a server are of one boot.
    """

    def __init__(self) -> None:
        self.boot_id = ""
        self._here: Clock = SystemClock()
        self._ahead = 0

    def set(self, server: int) -> None:
        """The server's time is that now, in microseconds since 1970."""
        self._ahead = server - self._here.uptime()

    def belong_to(self, tables: str) -> None:
        """Count for the tables of that name: whoever works there has the same clock."""
        self.boot_id = f"postgres-{tables}"

    def now(self) -> int:
        return self._here.uptime() + self._ahead

    def uptime(self) -> int:
        return self.now()
