"""What broke: failed attempts, gathered and put together by what made them fail.

They come from the records, as far as these are kept, and from what entries that are still there have been
through. So of an entry that failed and was completed all the same nothing may be left, once its records were
compacted; what the queues have *counted* is the whole number, and ``Failures.counted`` has it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from heapq import nlargest

from duraq.clock import from_datetime, from_timedelta, to_datetime
from duraq.dead_index import DeadIndex, ErrorKind
from duraq.errors import StorageError
from duraq.failure_records import FailureHistories, FailureRecords
from duraq.fates import Fate, Kind, Sample
from duraq.inspector import Inspector
from duraq.metrics import QueueMetrics, history
from duraq.model import AttemptError, last_failure
from duraq.most_first import most_first
from duraq.options import LONGEST
from duraq.shelf import Mislaid
from duraq.signature import normalised
from duraq.views import EntryView

PARTS = 16  # of a window, in a trend
_FINE = 4  # stretches of time in each of these
_STRETCHES = PARTS * _FINE
_SAMPLES = 5
_LATEST = 20
_AT_ONCE = 200  # letters that are fetched together


class By(StrEnum):
    """What puts failures together."""

    SIGNATURE = "sig"
    TYPE = "type"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed attempts that have something in common.

    ``key``: their signature, type or queue. ``error``: the newest one's; ``message`` is that without what
    differs each time. ``before``: how many there were in as long a time before. ``trend``: how many in each
    sixteenth of the time, oldest first. ``first``: the earliest that was come across, however long ago.
    ``is_new``: they began in this time, though it is known what was before it.
    """

    key: str
    error: AttemptError
    count: int
    first: datetime
    last: datetime
    queues: Mapping[str, int]
    before: int = 0
    trend: tuple[int, ...] = ()
    ok: int = 0
    waiting: int = 0
    dead: int = 0
    other: int = 0  # removed or expired since, or too many to be followed
    samples: tuple[Sample, ...] = ()  # the newest first
    is_new: bool = False

    @property
    def message(self) -> str:
        """What all of them say."""
        return normalised(self.error.message)


@dataclass(frozen=True, slots=True)
class Failures:
    """The failed attempts of some time, the most frequent group first.

    ``counted``: how many attempts failed in that time as the queues have counted them; more than ``count`` if
    records of them are gone. ``problems``: what kept a queue from being read.
    """

    since: datetime
    until: datetime
    groups: tuple[FailureGroup, ...] = ()
    latest: tuple[Sample, ...] = ()  # the newest first
    counted: int = 0
    problems: Mapping[str, StorageError] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many are known one by one."""
        return sum(group.count for group in self.groups)


class Gatherer:
    """Gathers the failures of the last ``window`` and keeps up with them: each reading goes on from the last.

    For one thread at a time, as the Inspector that it is given. It reads what happened in twice the window,
    so that what is new can be told from what has always been there. Once time has passed since it was made,
    the window's beginning is only as exact as a sixty-fourth of it.
    """

    def __init__(self, window: timedelta, now: datetime) -> None:
        self.window = window
        self._width = max(from_timedelta(window) // _STRETCHES, 1)
        self._origin = from_datetime(now) - self._width * _STRETCHES
        self._queues: dict[str, FailureRecords | FailureHistories] = {}
        self._problems: dict[str, StorageError] = {}
        self._counted: dict[str, QueueMetrics] = {}

    def read(
        self,
        inspector: Inspector,
        queues: Iterable[str] | None = None,
        stop: threading.Event | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> bool:
        """Read what was added in these queues, or in all; False if it was stopped on the way.

        ``progress`` is told now and then how many were read, and of how many. It may ask for a report.
        """
        there = inspector.queues()
        wanted = there if queues is None else [name for name in queues if name in there]
        for known in (self._queues, self._problems, self._counted):
            for gone in known.keys() - set(there):
                del known[gone]
        for number, name in enumerate(wanted):
            if stop is not None and stop.is_set():
                return False
            told = None if progress is None else partial(progress, number, len(wanted))
            if told is not None:
                told()
            self._problems.pop(name, None)
            try:
                self._read(inspector, name, stop, told)
            except Mislaid:
                # What it had lain in was removed while it was read; the next reading begins anew.
                self._queues.pop(name, None)
                inspector.reader.mislay(name)
            except StorageError as error:
                self._problems[name] = error
            except inspector.reader.errors as error:
                self._problems[name] = inspector.reader.refused(error, name)
        return stop is None or not stop.is_set()

    def _read(
        self,
        inspector: Inspector,
        name: str,
        stop: threading.Event | None,
        told: Callable[[], None] | None,
    ) -> None:
        folded = inspector.reader.fold(name)
        if folded.problem is not None:
            self._problems[name] = folded.problem
        ledger, now = folded.state.ledger, inspector.clock.now()
        self._counted[name] = QueueMetrics(name, to_datetime(now), history=history(ledger))
        known = self._queues.get(name)
        if known is None:
            # What came from another storage has been through was counted there.
            may_be_imported = inspector.keeps_records and ledger.totals().restored
            if not (_failed(self._counted[name], 2 * self.window) or may_be_imported):
                return  # as in most queues; they need not be read
            kind = FailureRecords if inspector.keeps_records else FailureHistories
            known = self._queues[name] = kind(name, self._origin, self._width, self._horizon(now))
        if isinstance(known, FailureRecords):
            known.catch_up(inspector.files, folded.state, stop, told)
        else:
            known.catch_up(folded.state, now, stop)

    def _last(self, now: int) -> int:
        """The stretch of time that is not over yet."""
        return (now - self._origin - 1) // self._width

    def _horizon(self, now: int) -> int:
        return self._last(now) - 2 * _STRETCHES + 1

    def report(self, now: datetime, by: By = By.SIGNATURE) -> Failures:
        """What is known as of now."""
        last = self._last(from_datetime(now))
        for known in self._queues.values():
            known.show()
            known.fates.forget_before(last - 2 * _STRETCHES + 1)
        made: dict[str, _Group] = {}
        for name, known in self._queues.items():
            for signature, kind in known.fates.kinds.items():
                key = {By.SIGNATURE: signature, By.TYPE: kind.error.type, By.QUEUE: name}[by]
                made.setdefault(key, _Group(last)).add(name, kind)
        begin = to_datetime(self._origin + (last - _STRETCHES + 1) * self._width)
        reached = {
            name for name, known in self._queues.items() if to_datetime(known.reach) <= begin - self.window
        }
        groups = [group.finished(key, begin, reached) for key, group in made.items() if group.count]
        latest = [each for known in self._queues.values() for each in known.fates.latest if each.at > begin]
        return Failures(
            begin,
            now,
            tuple(sorted(groups, key=lambda group: (-group.count, group.key))),
            tuple(sorted(latest, key=_newness, reverse=True)[:_LATEST]),
            round(sum(_failed(each, self.window) for each in self._counted.values())),
            dict(self._problems),
        )


def _failed(metrics: QueueMetrics, window: timedelta) -> float:
    """How many attempts failed in that time, as they were counted."""
    window = min(window, LONGEST)
    rates = (metrics.rate(each, window) for each in ("failed", "timed_out", "worker_died"))
    return sum(rates) * window.total_seconds()


class _Group:
    """A group in the making."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._first_stretch = last - _STRETCHES + 1
        self.count = self._before = 0
        self._by_fate = [0] * len(Fate)
        self._trend = [0] * PARTS
        self._queues = Counter[str]()
        self._kinds: list[Kind] = []

    def add(self, queue: str, kind: Kind) -> None:
        """These belong to it."""
        self._kinds.append(kind)
        for stretch, cell in kind.cells.items():
            times = sum(cell)
            if stretch < self._first_stretch:
                self._before += times
                continue
            self.count += times
            self._queues[queue] += times
            # What others wrote when their clocks were ahead has happened by now.
            self._trend[min(stretch - self._first_stretch, _STRETCHES - 1) // _FINE] += times
            for fate, number in enumerate(cell):
                self._by_fate[fate] += number

    def finished(self, key: str, begin: datetime, reached: set[str]) -> FailureGroup:
        """The group; ``reached`` are the queues of which it is known what was long before ``begin``."""
        newest = max(self._kinds, key=lambda kind: kind.last)
        first = to_datetime(min(kind.first for kind in self._kinds))
        samples = sorted((s for kind in self._kinds for s in kind.samples), key=_newness, reverse=True)
        return FailureGroup(
            key,
            newest.error,
            self.count,
            first,
            to_datetime(newest.last),
            dict(most_first(self._queues)),
            self._before,
            tuple(self._trend),
            **{fate.name.lower(): self._by_fate[fate] for fate in Fate},
            samples=tuple(samples[:_SAMPLES]),
            is_new=not self._before and first > begin and not reached.isdisjoint(self._queues),
        )


def gather(
    inspector: Inspector,
    window: timedelta,
    queues: Sequence[str] | None = None,
    *,
    by: By = By.SIGNATURE,
    stop: threading.Event | None = None,
) -> Failures:
    """The failures of the last ``window``, in these queues or in all. Raises QueueNotFound."""
    for name in queues or ():
        inspector.check_queue(name)
    now = to_datetime(inspector.clock.now())
    gatherer = Gatherer(window, now)
    gatherer.read(inspector, queues, stop)
    return gatherer.report(now, by)


# -- dead letters ------------------------------------------------------------------------------------------


def _newness(sample: Sample) -> tuple[datetime, str, str]:
    """When it was; of several at once the order is always the same."""
    return sample.at, sample.queue, sample.id


def dead_by(
    inspector: Inspector,
    queues: Sequence[str] | None = None,
    *,
    by: By = By.SIGNATURE,
    problems: dict[str, StorageError] | None = None,
) -> tuple[FailureGroup, ...]:
    """The dead letters that are there now, by what they died of; ``trend`` is left out.

    What keeps a queue from being read is raised, or put into ``problems``.
    """
    made: dict[str, _Deaths] = {}
    for name in inspector.queues() if queues is None else queues:
        try:
            index = inspector.dead_index(name)
            assert index is not None
            for cause, places in _by_cause(index).items():
                made.setdefault(_key(by, name, cause), _Deaths()).add(inspector, index, places)
        except StorageError as error:
            if problems is None:
                raise
            problems[name] = error
    groups = [deaths.finished(key) for key, deaths in made.items()]
    return tuple(sorted(groups, key=lambda group: (-group.count, group.key)))


def dead_of(
    inspector: Inspector, key: str, by: By, stop: threading.Event | None = None
) -> Iterator[EntryView]:
    """The dead letters of one of these groups, until it is stopped."""
    for name in inspector.queues():
        index = inspector.dead_index(name, stop=stop)
        if index is None:
            return
        causes = [_key(by, name, cause) == key for cause in index.causes]
        places = [place for place in range(len(index)) if causes[index.cause[place]]]
        for start in range(0, len(places), _AT_ONCE):
            if stop is not None and stop.is_set():
                return
            found = inspector.letters(index, places[start : start + _AT_ONCE])
            yield from (view for view in found if view is not None)


def _key(by: By, queue: str, cause: ErrorKind) -> str:
    return {By.SIGNATURE: cause.signature, By.TYPE: cause.type, By.QUEUE: queue}[by]


def _by_cause(index: DeadIndex) -> dict[ErrorKind, list[int]]:
    """The places of the letters of each cause."""
    found: list[list[int]] = [[] for _ in index.causes]
    for place, cause in enumerate(index.cause):
        found[cause].append(place)
    return {cause: places for cause, places in zip(index.causes, found, strict=True) if places}


class _Deaths:
    """Dead letters that died of the same."""

    def __init__(self) -> None:
        self._queues = Counter[str]()
        self._samples: list[tuple[Sample, AttemptError]] = []
        self._died: list[datetime] = []  # when the first of each queue did

    def add(self, inspector: Inspector, index: DeadIndex, places: Sequence[int]) -> None:
        """Those at these places as well."""
        self._queues[index.queue] += len(places)
        self._died.append(index.died_at(min(places, key=index.died.__getitem__)))
        for view in inspector.letters(index, nlargest(_SAMPLES, places, key=index.died.__getitem__)):
            failure = None if view is None else last_failure(view.history)
            if view is not None and failure is not None:
                error = failure.error
                sample = Sample(index.queue, view.id, view.updated_at, error.type, error.message)
                self._samples.append((sample, error))

    def finished(self, key: str) -> FailureGroup:
        """The group."""
        self._samples.sort(key=lambda each: _newness(each[0]), reverse=True)
        count = self._queues.total()
        error = self._samples[0][1] if self._samples else AttemptError("", "")
        last = self._samples[0][0].at if self._samples else max(self._died)
        return FailureGroup(
            key,
            error,
            count,
            min(self._died),
            last,
            dict(most_first(self._queues)),
            dead=count,
            samples=tuple(sample for sample, _ in self._samples[:_SAMPLES]),
        )
