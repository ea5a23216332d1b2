"""Whether a storage could take another entry now, and keep it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from duraq import options
from duraq.clock import SystemClock
from duraq.errors import DuraqError
from duraq.health.database import DatabaseHealthCheck
from duraq.health.looking import Source, path_of
from duraq.health.result import HealthResult, HealthStatus, worst
from duraq.health.space import Findings, check_min_free, free_in_words, judge_space
from duraq.inspector import Inspector
from duraq.journal.filesystem import FileSystem
from duraq.journal.probe import Probe

_STATES = {"T": "stopped", "t": "stopped by a debugger", "D": "waiting for a disk", "Z": "dead"}
_STOPPED = ("T", "t")


class StorageHealthCheck:
    """Whether the storage can be locked, written, synced and read, and has room.

    ``min_free``: share (0.1) or bytes (1 << 30) of the file system, and share of the files that it can hold;
    a tenth, because many file systems slow down when they are fuller, and so that somebody comes in time.
    ``max_lock_wait``: the lock is held for microseconds, so whoever has it for two seconds is stopped.
    ``max_sync``: for a write, a sync and a read together; every durable enqueue waits for one, and a disk
    that takes a second is failing or overrun.
    ``write``: whether to write at all, 64 KiB into a file of its own, which is removed again.
    ``lock``: whether to have the lock, for a moment; if not, it is only seen whether its holder is stopped.

    It does not open the storage, so that it does not hang where that would. Given an Inspector of a database
    it looks at that, within ``max_sync``, and at its room; nothing is written and no lock taken. Of a storage
    that is open in memory or in a database it only tells whether it is open and answers.
    """

    component = "storage"

    def __init__(
        self,
        storage: Source,
        *,
        min_free: float = 0.1,
        max_lock_wait: timedelta = timedelta(seconds=2),
        max_sync: timedelta = timedelta(seconds=1),
        write: bool = True,
        lock: bool = True,
        file_system: FileSystem | None = None,
    ) -> None:
        check_min_free(min_free)
        self._source = storage
        self._min_free = min_free
        options.duration("max_lock_wait", max_lock_wait, zero=True)
        options.duration("max_sync", max_sync, zero=True)
        self._max_lock_wait, self._max_sync = max_lock_wait, max_sync
        self._write, self._lock = write, lock
        self._file_system = file_system
        self._clock = getattr(storage, "clock", None) or SystemClock()

    def check(self) -> HealthResult:
        """Try it out."""
        if (database := self._database()) is not None:
            return database.check()
        details: dict[str, Any] = {}
        if (path := self._path()) is None:
            return HealthResult(self.component, HealthStatus.HEALTHY, "open, and it answers")
        details["path"] = path
        each = self._each(path)
        for result in each:
            details |= result.details
        overall = worst(result.status for result in each)
        wrong = "; ".join(result.message for result in each if result.status is not HealthStatus.HEALTHY)
        return HealthResult(self.component, overall, wrong or _in_order(details), details)

    def check_each(self) -> list[HealthResult]:
        """The same by parts, as components ``marks``, ``space``, ``lock`` and ``disk``: of files only."""
        path = None if self._database() is not None else self._path()
        return [] if path is None else self._each(path)

    def _database(self) -> DatabaseHealthCheck | None:
        """The check that does instead, if it is a database that is looked at."""
        if not isinstance(self._source, Inspector) or self._source.keeps_records:
            return None
        return DatabaseHealthCheck(self._source, min_free=self._min_free, max_look=self._max_sync)

    def _path(self) -> str | None:
        queues = getattr(self._source, "queues", None)
        if queues is not None:
            queues()  # it says so itself if it is closed
        return path_of(self._source)

    def _each(self, path: str) -> list[HealthResult]:
        parts = {"marks": self._check_marks, "space": self._check_space}
        parts["lock"] = self._check_lock if self._lock else self._check_holder
        if self._write:
            parts["disk"] = self._check_write
        results = []
        with Probe(path, self._file_system) as probe:
            for component, check in parts.items():
                found: Findings = []
                details: dict[str, Any] = {}
                check(probe, found, details)
                wrong = "; ".join(says for status, says in found if status is not HealthStatus.HEALTHY)
                overall = worst(status for status, _ in found)
                results.append(HealthResult(component, overall, wrong or _SAYS[component](details), details))
        return results

    def _check_marks(self, probe: Probe, found: Findings, details: dict[str, Any]) -> None:
        details["refused"] = refused = probe.refused()
        if refused:
            found.append((HealthStatus.UNHEALTHY, f"damaged, and refused: queue {', '.join(refused)}"))
        if probe.has_failed():
            says = (
                "a sync failed and could not be made good; everybody must close the storage and open it again"
            )
            found.append((HealthStatus.UNHEALTHY, says))
        if probe.poisoned():
            # Nothing is lost: all of it was made durable elsewhere.
            found.append(
                (HealthStatus.DEGRADED, "a sync of the journal has failed: the disk cannot be trusted")
            )

    def _check_space(self, probe: Probe, found: Findings, details: dict[str, Any]) -> None:
        judge_space(probe.space(), self._min_free, found, details)

    def _check_lock(self, probe: Probe, found: Findings, details: dict[str, Any]) -> None:
        wait = probe.wait_for_lock(self._max_lock_wait.total_seconds())
        details["lock_wait_seconds"] = round(wait.seconds, 6)
        if wait.got:
            return
        says = f"the lock could not be had for {wait.seconds:.1f} s"
        if wait.others:
            found.append((HealthStatus.DEGRADED, f"{says}, though others write meanwhile"))
            return
        if (holder := probe.holder()) is not None:
            pid, state = holder
            details["lock_holder"] = pid
            says += f": process {pid} has it" + (f", which is {_STATES[state]}" if state in _STATES else "")
        found.append((HealthStatus.UNHEALTHY, f"{says}; whoever adds or takes entries waits for it"))

    def _check_holder(self, probe: Probe, found: Findings, details: dict[str, Any]) -> None:
        pid, state = probe.holder() or (0, "")
        # Waiting for a disk it may be for a moment, and nobody waited to see.
        if state in _STOPPED and probe.holder() == (pid, state):
            details["lock_holder"] = pid
            says = f"process {pid} has the lock, which is {_STATES[state]}"
            found.append((HealthStatus.UNHEALTHY, f"{says}; whoever adds or takes entries waits for it"))

    def _check_write(self, probe: Probe, found: Findings, details: dict[str, Any]) -> None:
        begin = self._clock.uptime()
        try:
            probe.write()
        except (DuraqError, OSError) as error:
            details["error"] = type(error).__name__
            says = f"writing and reading back failed: {error}"
            if isinstance(error, OSError) and error.errno in _NOT_PERMITTED:
                says += "; who may only read checks it without writing: --no-write, or write=False"
            found.append((HealthStatus.UNHEALTHY, says))
            return
        took = timedelta(microseconds=self._clock.uptime() - begin)
        details["sync_seconds"] = took.total_seconds()
        if took > self._max_sync:
            says = f"writing, syncing and reading back took {took.total_seconds():.1f} s"
            found.append((HealthStatus.DEGRADED, says))


def _waited(seconds: float | None) -> str:
    return "nobody who is stopped has it" if seconds is None else f"to be had after {seconds * 1000:.1f} ms"


_NOT_PERMITTED = {errno.EACCES, errno.EPERM}
_SAYS: dict[str, Callable[[dict[str, Any]], str]] = {
    "marks": lambda _: "no sync has failed, no queue is refused",
    "space": free_in_words,
    "lock": lambda details: _waited(details.get("lock_wait_seconds")),
    "disk": lambda details: f"written and synced in {details['sync_seconds'] * 1000:.1f} ms",
}


def _in_order(details: dict[str, Any]) -> str:
    free = f"{details['free_bytes'] >> 20} MiB free"
    took = details.get("sync_seconds")
    return free if took is None else f"{free}, written and synced in {took * 1000:.1f} ms"
