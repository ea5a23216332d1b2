"""What of a storage is tried out now and then, whatever happens in it: its room, marks and lock."""

from __future__ import annotations

import time

from duraq.health import HealthResult, HealthStatus, StorageHealthCheck
from duraq.journal.mounts import file_system_type, is_network

OFTEN = 30.0  # seconds


class Trying:
    """For one thread. Nothing is written for it, and the lock is left alone: it goes on all day."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._next_at = 0.0
        self.found: tuple[HealthResult, ...] = ()

    def try_out(self, *, forced: bool) -> bool:
        """Do so, if it is time to or it is forced; returns whether anything is different."""
        now = time.monotonic()
        if now < self._next_at and not forced:
            return False
        self._next_at = now + OFTEN
        before = self.found
        try:
            check = StorageHealthCheck(self._path, write=False, lock=False)
            self.found = (root(self._path), *check.check_each())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what came of it
            self.found = (HealthResult("storage", HealthStatus.UNHEALTHY, str(error)),)
        return [_said(each) for each in before] != [_said(each) for each in self.found]


def root(path: str) -> HealthResult:
    """Where the storage is, and on what kind of file system; it takes a look into the system's files."""
    kind = file_system_type(path) or "a file system that is not known"
    where = "on a network, where nothing is promised" if is_network(kind) else "local"
    status = HealthStatus.DEGRADED if is_network(kind) else HealthStatus.HEALTHY
    return HealthResult("root", status, f"{path}, {kind}, {where}")


def _said(result: HealthResult) -> tuple[str, HealthStatus, str]:
    return result.component, result.status, result.message
