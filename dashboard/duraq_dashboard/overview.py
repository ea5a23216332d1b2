"""All queues of a storage together, kept from look to look: only what has changed is worked out anew.

Knows no Textual.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf

from duraq.metrics import Histogram
from duraq_dashboard import wording
from duraq_dashboard.history import ENTERED, LEFT, Durations, age, number_of, possible, rate
from duraq_dashboard.snapshot import QueueNow, Snapshot
from duraq_dashboard.view_model import AN_HOUR, NOW, SORTS, QueueRow, is_young, queue_row

# What is summed over the queues, before the buckets of how long entries waited.
_SUMS = ("ready", "leased", "scheduled", "dead", "died", "entered", "left", "waited")
_NOTHING = (0.0,) * (len(_SUMS) + len(Histogram().buckets))


@dataclass(frozen=True, slots=True)
class _Part:
    """What one queue adds to the sums; as of a minute, for rates fade."""

    queue: QueueNow
    minute: datetime
    numbers: Sequence[float]
    age: float  # in seconds


class Overview:
    """The storage at a glance, as of the last ``look``."""

    def __init__(self) -> None:
        self.durations = Durations()
        self._parts: dict[str, _Part] = {}
        self._sums = list(_NOTHING)
        self._rows: dict[str, tuple[QueueNow, datetime, QueueRow]] = {}
        self._keys: dict[str, tuple[QueueNow, str, tuple[object, ...]]] = {}

    def look(self, snapshot: Snapshot, now: datetime) -> None:
        """See how it is now."""
        minute = now.replace(second=0, microsecond=0)
        before, parts = self._parts, {}
        changed = [
            queue
            for name, queue in snapshot.queues.items()
            if name not in before or before[name].queue is not queue
        ]
        self.durations.add(changed)
        for name, queue in snapshot.queues.items():
            known = before.get(name)
            if known is None or known.queue is not queue or known.minute != minute:
                part = _Part(
                    queue,
                    minute,
                    self._numbers(queue, now),
                    0.0 if queue.metrics is None else age(queue.metrics),
                )
                self._add(part.numbers, _NOTHING if known is None else known.numbers)
                known = part
            parts[name] = known
        gone = before.keys() - parts.keys()
        for name in gone:
            self._add(_NOTHING, before[name].numbers)
            self._rows.pop(name, None)
            self._keys.pop(name, None)
        self._parts = parts

    def row(self, queue: QueueNow, now: datetime, *, ascii_only: bool) -> QueueRow:
        """The queue as a line; the same one for as long as nothing in it can have changed."""
        # Ages of less than a minute change by the second, all others by the minute.
        since = now if is_young(queue, now) else now.replace(second=0, microsecond=0)
        known = self._rows.get(queue.name)
        if known is None or known[0] is not queue or known[1] != since:
            row = queue_row(queue, self.durations, now, ascii_only=ascii_only)
            known = self._rows[queue.name] = (queue, since, row)
        return known[2]

    def in_order(self, queues: Iterable[QueueNow], sort: str) -> list[QueueNow]:
        """The queues in that order."""
        return sorted(queues, key=lambda queue: self._key(queue, sort))

    def _key(self, queue: QueueNow, sort: str) -> tuple[object, ...]:
        known = self._keys.get(queue.name)
        if known is None or known[0] is not queue or known[1] != sort:
            known = self._keys[queue.name] = (queue, sort, (*SORTS[sort](queue), queue.name))
        return known[2]

    def _numbers(self, queue: QueueNow, now: datetime) -> Sequence[float]:
        counts, metrics = queue.view.counts, queue.metrics
        held = (counts.ready, counts.leased, counts.scheduled, counts.dead)
        if metrics is None:
            return (*held, *_NOTHING[len(held) :])
        died = number_of(metrics, ("dead",), AN_HOUR, now)
        entered, left = rate(metrics, ENTERED, NOW, now), rate(metrics, LEFT, NOW, now)
        waited = self.durations.took(metrics).wait
        return (*held, died, entered, left, waited.sum, *waited.buckets)

    def _add(self, numbers: Sequence[float], instead_of: Sequence[float]) -> None:
        self._sums = [
            total + new - old for total, new, old in zip(self._sums, numbers, instead_of, strict=True)
        ]

    def lines(self) -> Sequence[str]:
        """All of it in a line: the longest first, an empty one last."""
        # Sums of fractions that come and go leave a little behind.
        sums = {name: round(total, 6) for name, total in zip(_SUMS, self._sums, strict=False)}
        count = {name: wording.count(int(total)) for name, total in sums.items()}
        flows = f"in {wording.rate(sums['entered'])}/s out {wording.rate(sums['left'])}/s"
        letters = f"DLQ {count['dead']}" + (f" (+{count['died']}/1h)" if sums["died"] else "")
        waited = Histogram(tuple(int(each) for each in self._sums[len(_SUMS) :]), sums["waited"])
        p95 = possible(waited.p95, max((part.age for part in self._parts.values()), default=inf))
        unread = sum(part.queue.metrics is None for part in self._parts.values())
        without = f"  without {wording.plural(unread, 'queue')}" if unread else ""
        now = f"ready {count['ready']}  leased {count['leased']}  scheduled {count['scheduled']}"
        return (
            f"{now}  {letters}  {flows}  p95 wait {wording.seconds(p95)}  workers {self._workers()}{without}",
            f"{now}  {letters}  {flows}{without}",
            f"ready {count['ready']}  {letters}  {flows}{without}",
            f"ready {count['ready']}  {letters}{without}",
            "",
        )

    def _workers(self) -> str:
        """How many hold something or wait for it; those that hold something and are dead apart."""
        leases = [lease for part in self._parts.values() for lease in part.queue.view.leases if lease.worker]
        alive = {lease.worker for lease in leases if lease.alive}
        waiting = sum(part.queue.view.waiting for part in self._parts.values())
        dead = len({lease.worker for lease in leases if lease.alive is False})
        return f"{len(alive) + waiting}" + (f", {dead} dead" if dead else "")
