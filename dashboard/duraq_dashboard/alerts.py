"""What is the matter now, since when, and what of it somebody has seen already. Knows no Textual.

The rules are those of ``duraq.attention``, as for ``duraq check``. That an alert was acknowledged is known to
this dashboard only, and for an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from duraq.attention import Attention
from duraq.health import HealthStatus
from duraq_dashboard.snapshot import QueueNow, Snapshot

ACKNOWLEDGED_FOR = timedelta(hours=1)
_LOUD = ("crit", "warn")
_GONE = "GONE"
ROLES = {HealthStatus.HEALTHY: "", HealthStatus.DEGRADED: "warn", HealthStatus.UNHEALTHY: "crit"}

Key = tuple[str, str]  # a queue, or nothing, and a word


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that is the matter with one queue, or (``queue`` is empty) with the storage as a whole.

    ``since``: when it was first seen; ``is_older``: it was there already when the dashboard first looked.
    ``seen_until``: somebody has acknowledged it up to then.
    """

    queue: str
    word: str
    role: str
    why: str
    since: datetime
    is_older: bool
    seen_until: datetime | None = None

    @property
    def key(self) -> Key:
        """Stays the same as long as it is the matter."""
        return self.queue, self.word


class Alerts:
    """All of them, kept from look to look."""

    def __init__(self) -> None:
        self._found: dict[Key, Alert] = {}
        self._seen: dict[Key, datetime] = {}
        self._looked: dict[str, QueueNow] = {}
        self._is_first = self._is_untried = True

    def look(self, snapshot: Snapshot, now: datetime) -> None:
        """See how it is now. Of a storage that cannot be read nothing is learned."""
        if snapshot.trouble is not None:
            return
        found = self._of_storage(snapshot, now)
        for name, queue in snapshot.queues.items():
            if self._looked.get(name) is queue:
                found |= {key: alert for key, alert in self._found.items() if key[0] == name}
                continue
            for word, role, why in _loud(queue):
                found[name, word] = self._alert((name, word), role, why, now, is_first=self._is_first)
        self._found, self._looked = found, dict(snapshot.queues)
        # What a later part of the first look brings has not just begun either.
        self._is_first = self._is_first and not snapshot.whole
        self._seen = {key: until for key, until in self._seen.items() if key in found}

    def _of_storage(self, snapshot: Snapshot, now: datetime) -> dict[Key, Alert]:
        found: dict[Key, Alert] = {}
        for result in snapshot.tried:
            role, key = ROLES[result.status], ("", result.component.upper())
            if role:
                found[key] = self._alert(key, role, result.message, now, is_first=self._is_untried)
        self._is_untried = self._is_untried and not snapshot.tried
        return found

    def _alert(self, key: Key, role: str, why: str, now: datetime, *, is_first: bool) -> Alert:
        known = self._found.get(key)
        since, older = (now, is_first) if known is None else (known.since, known.is_older)
        return Alert(*key, role, why, since, older)

    def acknowledge(self, key: Key, now: datetime) -> None:
        """Somebody has seen it; again: not any more."""
        if self._seen.get(key, now) > now:
            del self._seen[key]
        elif key in self._found:
            self._seen[key] = now + ACKNOWLEDGED_FOR

    def all(self, now: datetime) -> list[Alert]:
        """Those that nobody has acknowledged first, the worst of them first."""
        words = {word: number for number, word in enumerate((_GONE, *Attention))}
        alerts = [_with(alert, self._seen.get(alert.key), now) for alert in self._found.values()]
        return sorted(
            alerts,
            key=lambda alert: (
                alert.seen_until is not None,
                _LOUD.index(alert.role),
                # What is the matter with the whole storage comes before what is with a queue.
                words.get(alert.word, -1),
                alert.queue,
            ),
        )


def _with(alert: Alert, until: datetime | None, now: datetime) -> Alert:
    seen = until if until is not None and until > now else None
    return Alert(alert.queue, alert.word, alert.role, alert.why, alert.since, alert.is_older, seen)


def _loud(queue: QueueNow) -> list[tuple[str, str, str]]:
    """Word, role and evidence of all that somebody should look at."""
    if queue.gone:
        return [(_GONE, "crit", queue.why)]
    return [
        (verdict.word.value, verdict.word.role, verdict.why)
        for verdict in queue.verdicts
        if verdict.word.role in _LOUD
    ]
