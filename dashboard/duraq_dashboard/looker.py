"""What is known of a storage, kept up to date at little cost.

A beat, one read, tells whether anything was committed. A look goes where something has changed. Now and then
a thorough look goes everywhere, for what nobody commits: files that vanish, workers that die, consumers that
wait. And where time alone brings a change, an entry that becomes due, a word that is deserved after some
minutes, it is known when to look again. For one thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from datetime import datetime, timedelta

from duraq.attention import DEFAULT, Thresholds, verdicts
from duraq.clock import Clock, from_datetime, to_datetime
from duraq.errors import NotAStorage, QueueNotFound, StorageDamaged, StorageError, UnsupportedVersion
from duraq.inspector import Inspector
from duraq.metrics import QueueMetrics
from duraq.model import Counts
from duraq.views import QueueView, WorkerView
from duraq_dashboard.snapshot import QueueNow, Snapshot, Trouble
from duraq_dashboard.trying import Trying

log = logging.getLogger("duraq.dashboard")

# A lease may end, and its worker die, without a record: so often its queue is looked at, in microseconds.
HELD = 1_000_000
# What has happened lately is so long ago one day; so often it is judged again.
LATELY = 10_000_000
# The evidence tells ages, to the minute as a rule; so often it is put into words anew.
OLDER = 60_000_000
_WORDS = {NotAStorage: "GONE", UnsupportedVersion: "NEWER", StorageDamaged: "CORRUPT"}


class Looker:
    """Looks at one storage, which need not be there."""

    def __init__(
        self,
        path: str,
        clock: Clock,
        bookmarks: MutableMapping[str, bytes] | None = None,
        limits: Thresholds = DEFAULT,
    ) -> None:
        self._path = path
        self._limits = limits
        self._bookmarks = bookmarks
        self._clock = clock
        self._inspector: Inspector | None = None
        self._pulse = b""
        self._trouble: Trouble | None = None
        self._queues: dict[str, QueueNow] = {}
        self._due: dict[str, int] = {}  # when to look at a queue whatever happens, microseconds since 1970
        self._workers: tuple[WorkerView, ...] = ()
        self._quiet_at = clock.now()  # when it was last known that nothing had changed
        self._changed_at = self._quiet_at
        self._lag = 0
        self._number = 0
        self._whole = False  # nothing was looked at yet
        self._worded_at = self._quiet_at
        self._trying = Trying(path)

    def close(self) -> None:
        """Give up every descriptor. Idempotent."""
        if self._inspector is not None:
            self._inspector.close()
            self._inspector = None

    @property
    def live(self) -> bool:
        """Whether a beat tells of changes; else only looks do."""
        return self._inspector is not None and bool(self._pulse)

    def beat(self) -> bool:
        """Whether anything was committed since the last look; in what cannot be read, nothing was."""
        if self._inspector is None:
            return False
        try:
            differs = self._inspector.pulse() != self._pulse
        except StorageError:
            return True  # the look will say why
        if not differs:
            self._quiet_at = self._clock.now()
        return differs

    def is_due(self) -> bool:
        """Whether time alone may have changed something."""
        now = self._clock.now()
        return any(due <= now for due in self._due.values())

    # -- looking ---------------------------------------------------------------------------------------

    def look(self, *, thorough: bool, progress: Callable[[], None] = lambda: None) -> bool:
        """Look again; returns whether anything is different. ``progress`` is called after each queue."""
        before, was_whole = (self._trouble, dict(self._queues), self._workers), self._whole
        try:
            self._look(thorough=thorough, progress=progress)
            self._trouble, self._whole = None, True
        except StorageError as error:
            self.close()
            self._trouble = _same_trouble(trouble(error), self._trouble)
            if isinstance(error, NotAStorage):
                # What comes in its place is another one.
                self._forget()
        after = (self._trouble, self._queues, self._workers)
        differs = self._whole is not was_whole or not _are_same(before, after)
        now = self._clock.now()
        if differs:
            # When exactly it happened nobody knows; not before it was last seen that nothing had.
            self._changed_at, self._lag = now, max(0, now - self._quiet_at) if self._number else 0
        if thorough and now - self._worded_at >= OLDER:
            self._worded_at = now
            differs = self._put_into_words(to_datetime(now)) or differs
        self._number += differs
        self._quiet_at = now
        return differs

    def _put_into_words(self, now: datetime) -> bool:
        """Tell ages as of now in what is the matter; returns whether any of it differs."""
        anew = {
            name: tuple(verdicts(queue.view, now, self._limits, metrics=queue.metrics))
            for name, queue in self._queues.items()
            if queue.verdicts and not queue.gone
        }
        differing = {name for name, found in anew.items() if found != self._queues[name].verdicts}
        for name in differing:
            self._queues[name] = replace(self._queues[name], verdicts=anew[name])
        return bool(differing)

    def _look(self, *, thorough: bool, progress: Callable[[], None]) -> None:
        inspector = self._inspector
        if inspector is None:
            inspector = self._inspector = Inspector(self._path, clock=self._clock, bookmarks=self._bookmarks)
            thorough = True
        # Before the files: what is committed meanwhile is then found by the next beat.
        pulse, now = inspector.pulse(), self._clock.now()
        chosen = self._changed(inspector, thorough=thorough)
        self._pulse = pulse
        chosen |= {name for name, due in self._due.items() if due <= now}
        for name in sorted(chosen):
            self._look_at(inspector, name)
            progress()
        if thorough or chosen:
            self._workers = self._workers_of(inspector)

    def _changed(self, inspector: Inspector, *, thorough: bool) -> set[str]:
        """Refresh it; returns which queues are to be looked at."""
        if not inspector.settled:
            chosen = inspector.changed()
            if chosen and inspector.refresh():
                self._forget()
            return chosen
        if inspector.refresh():
            # Another storage in the place of the one before.
            self._forget()
            thorough = True
        return inspector.changed(thorough=thorough)

    def _forget(self) -> None:
        self._queues.clear()
        self._due.clear()
        self._whole = False

    def _look_at(self, inspector: Inspector, name: str) -> None:
        before = self._queues.get(name)
        try:
            found = self._found(inspector, name, to_datetime(self._clock.now()))
        except QueueNotFound:
            self._due.pop(name, None)
            if before is not None:
                self._queues[name] = before if before.gone else replace(before, gone=True)
            return
        self._queues[name] = before if before is not None and is_same(before, found) else found
        due = self._next_look(inspector, found)
        if due is None:
            self._due.pop(name, None)
        else:
            self._due[name] = due

    def _found(self, inspector: Inspector, name: str, now: datetime) -> QueueNow:
        try:
            view, metrics = inspector.look(name)
        except QueueNotFound:
            raise
        except StorageError as error:
            # Whatever it is, the others can be read.
            view, metrics = QueueView(name, Counts(), problem=error), None
        return QueueNow(view, metrics, tuple(verdicts(view, now, self._limits, metrics=metrics)))

    def _next_look(self, inspector: Inspector, found: QueueNow) -> int | None:
        """When to look at it again if nothing happens until then."""
        now = self._clock.now()
        times: list[int | None] = []
        if found.view.leases:
            times.append(now + HELD)
        if found.view.problem is None:
            try:
                times.append(inspector.next_change(found.name))
            except StorageError:
                times.append(now + LATELY)
        oldest = found.view.oldest_ready
        if oldest is not None:
            waited = [self._limits.no_consumer_after, self._limits.max_oldest_ready]
            times += [_after(oldest + each) for each in waited if _after(oldest + each) > now]
        if any(verdict.word.role == "warn" for verdict in found.verdicts):
            times.append(now + LATELY)
        return min((time for time in times if time is not None), default=None)

    def _workers_of(self, inspector: Inspector) -> tuple[WorkerView, ...]:
        leases = [lease for queue in self._queues.values() if not queue.gone for lease in queue.view.leases]
        found = tuple(inspector.workers(leases))
        return self._workers if found == self._workers else found

    # -- telling ---------------------------------------------------------------------------------------

    def acknowledge(self, queue: str) -> None:
        """Show a queue no longer that is gone."""
        found = self._queues.get(queue)
        if found is not None and found.gone:
            del self._queues[queue]
            self._number += 1

    def try_out(self, *, forced: bool) -> bool:
        """Try out, now and then, what does not depend on the queues; returns whether that differs."""
        differs = self._inspector is not None and self._trying.try_out(forced=forced)
        self._number += differs
        return differs

    def part(self) -> Snapshot:
        """As far as it was looked at, in the middle of a look."""
        self._number += 1
        return self.snapshot()

    def snapshot(self) -> Snapshot:
        """All of it, as it was at the last look."""
        return Snapshot(
            self._path,
            self._number,
            to_datetime(self._quiet_at),
            to_datetime(self._changed_at),
            timedelta(microseconds=self._lag),
            self.live,
            self._trouble,
            dict(sorted(self._queues.items())),
            self._workers,
            self._whole,
            self._trying.found,
        )


def _after(moment: datetime) -> int:
    return from_datetime(moment) + 1


def is_same(one: QueueNow, other: QueueNow) -> bool:
    """Whether there is nothing to show of the one that was not shown of the other; ages are left out."""
    return (
        one.gone == other.gone
        and [verdict.word for verdict in one.verdicts] == [verdict.word for verdict in other.verdicts]
        and _said(one.view.problem) == _said(other.view.problem)
        and replace(one.view, problem=None) == replace(other.view, problem=None)
        and _at_once(one.metrics, other.metrics)
    )


def _at_once(one: QueueMetrics | None, other: QueueMetrics | None) -> bool:
    if one is None or other is None:
        return one is other
    return replace(one, at=other.at) == other


def _said(problem: StorageError | None) -> str:
    return "" if problem is None else f"{type(problem).__name__}: {problem}"


def _are_same(
    before: tuple[Trouble | None, dict[str, QueueNow], tuple[WorkerView, ...]],
    after: tuple[Trouble | None, dict[str, QueueNow], tuple[WorkerView, ...]],
) -> bool:
    (was, queues, workers), (now, later, then) = before, after
    return (
        was is now
        and workers is then
        and queues.keys() == later.keys()
        and all(queue is later[name] for name, queue in queues.items())
    )


def trouble(error: StorageError) -> Trouble:
    """What keeps a storage from being looked at, in a word and in words."""
    word = next((word for kind, word in _WORDS.items() if isinstance(error, kind)), "DENIED")
    return Trouble(word, str(error), error.hint or "")


def _same_trouble(found: Trouble, before: Trouble | None) -> Trouble:
    return before if before == found else found
