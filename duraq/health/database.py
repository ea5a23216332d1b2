"""Whether the database that queues are kept in can be looked at, and has room."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from duraq.health.result import HealthResult, HealthStatus, worst
from duraq.health.space import Findings, check_min_free, free_in_words, judge_space
from duraq.inspector import Inspector
from duraq.journal.reading import ReaderFileSystem


class DatabaseHealthCheck:
    """Whether a look at the database succeeds, how long that takes, and whether its file system has room.

    ``min_free``: as for StorageHealthCheck. ``max_look``: how long a look may take. It writes nothing and
    takes no lock, so it does not tell whether somebody else holds that of those who write. Of a server the
    space is not known here.
    """

    component = "storage"

    def __init__(
        self,
        inspector: Inspector,
        *,
        min_free: float = 0.1,
        max_look: timedelta = timedelta(seconds=1),
    ) -> None:
        check_min_free(min_free)
        self._inspector = inspector
        self._min_free = min_free
        self._max_look = max_look

    def check(self) -> HealthResult:
        """Look now. Raises what keeps it from being looked at."""
        found: Findings = []
        begin = time.monotonic()
        self._inspector.refresh()
        took = timedelta(seconds=round(time.monotonic() - begin, 6))
        details: dict[str, Any] = {"path": self._inspector.path, "look_seconds": took.total_seconds()}
        if took > self._max_look:
            found.append((HealthStatus.DEGRADED, f"looking took {took.total_seconds():.1f} s"))
        home = _home(self._inspector.path)
        if home is not None:
            fs = ReaderFileSystem()
            directory = fs.open_root(str(home))
            try:
                judge_space(fs.space(directory), self._min_free, found, details)
            finally:
                fs.close(directory)
        says = [f"looked at in {took.total_seconds() * 1000:.1f} ms"]
        says += [] if home is None else [free_in_words(details)]
        wrong = "; ".join(text for _, text in found)
        return HealthResult(
            self.component, worst(status for status, _ in found), wrong or ", ".join(says), details
        )


def _home(path: str) -> Path | None:
    """The directory that a database file is in; None if it is a server's."""
    if not path.startswith("/"):
        return None
    real = Path(path).resolve()
    return real if real.is_dir() else real.parent
