"""The shelf of a file storage: the indexes of sealed segments, and what was taken out of each since.

The first ready entry of all is the first of the runs' heads. A run that nobody has come to is a few numbers;
its index is read when it is its turn, and a few indexes are kept.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from heapq import heapify, heappop, heappush, heapreplace
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from duraq.entry import READY, Entry
from duraq.journal.index import BadIndex, Filter, Index, id_hash, is_changed
from duraq.journal.row_reader import RowReader
from duraq.journal.run import IS_READY, STATUS, TAKEN, WAITS, Key, Run
from duraq.model import Counts, EntryStatus
from duraq.shelf import Mislaid

if TYPE_CHECKING:
    from duraq.journal.dead_rows import DeadRows

OPEN_INDEXES = 8  # that are kept, unless they are longer than
OPEN_BYTES = 1 << 19  # so many bytes: of dead letters, all that they have been through stands in them
FILTERS = 1024  # of some 8 KB each
FEW = 2
LOOKS = 4  # indexes that are searched while others wait
SEEN = 10_000  # entries that were looked at and are kept in case they are taken next


class Runs:
    """All runs of one queue. A Shelf."""

    def __init__(
        self,
        queue: str,
        runs: Iterable[Run],
        *,
        load: Callable[[int], Index],
        load_filter: Callable[[int], tuple[Filter, int]],
        reader: RowReader,
        position: int,
    ) -> None:
        """``load`` reads the index of a segment or its filter, ``reader`` the entries that it speaks of.

        ``position``: where the journal must be durable before anything of this is handed out.
        """
        self._queue = queue
        self._load = load
        self._load_filter = load_filter
        self._reader = reader
        self._runs: dict[int, Run] = {}
        self._indexes: OrderedDict[int, Index] = OrderedDict()
        self._filters: dict[int, Filter] = {}
        self._now = 0
        # What was looked at last is taken next, as a rule.
        self._seen: dict[str, tuple[Run, int, Entry]] = {}
        self._scheduled = self._ready = self._dead = 0
        # Heaps of what comes first, with the segment. An item counts only if its run still says the same.
        self._heads: list[tuple[Key, int]] = []
        self._dues: list[tuple[int, int]] = []
        self._expiries: list[tuple[int, int]] = []
        self.finished: list[int] = []  # runs of which nothing is left
        self._position = position
        for run in runs:
            self.add(run, position)

    def add(self, run: Run, position: int, index: Index | None = None) -> None:
        """Put another run beside the others."""
        self._runs[run.segment] = run
        self._position = position
        if index is not None:
            self._keep(index)
        self._ready += run.ready
        self._scheduled += run.scheduled
        self._dead += run.dead
        for heap, first in ((self._dues, run.next_due), (self._expiries, run.expires)):
            if first is not None:
                heappush(heap, (first, run.segment))
        if run.ready and run.head_key is not None:
            heappush(self._heads, (run.head_key, run.segment))

    def imaged(self) -> list[Run]:
        """The runs, each with its image at hand."""
        for run in self._runs.values():
            # None is read for this: it happens while others wait.
            run.image(self._indexes.get(run.segment))
        return list(self._runs.values())

    @property
    def tally(self) -> Counts:
        """How many lie here in each state, as of the last ``advance``."""
        return Counts(self._scheduled, self._ready, 0, self._dead)

    @property
    def any_ready(self) -> bool:
        """Whether any of them could be delivered, as of the last ``advance``."""
        return self._ready > 0

    # -- indexes and entries ---------------------------------------------------------------------------

    def _index(self, run: Run) -> Index:
        """The run's index; from then on its rows have marks."""
        index = self._indexes.get(run.segment)
        if index is not None:
            self._indexes.move_to_end(run.segment)
        else:
            index = self._load(run.segment)
            if index.crc != run.crc:
                raise self._another(run)
            self._keep(index)
        if run.marks is None:
            if not run.fits(index):
                raise self._another(run)
            before = run.head_key
            run.activate(index)
            self._note_head(run, before)
        return index

    def _another(self, run: Run) -> Mislaid:
        return Mislaid(self._queue, f"the index of segment {run.segment} is another one")

    def _keep(self, index: Index) -> None:
        self._indexes[index.segment] = index
        # The newest is kept whatever its length is.
        while len(self._indexes) > 1 and (
            len(self._indexes) > OPEN_INDEXES
            or sum(index.length for index in self._indexes.values()) > OPEN_BYTES
        ):
            segment, _ = self._indexes.popitem(last=False)
            self._reader.forget(segment)

    def _entry(self, run: Run, number: int) -> Entry:
        return self._reader.entry(run, self._index(run), number, self._position)

    def _look(self, run: Run, number: int) -> Entry:
        entry = self._entry(run, number)
        if len(self._seen) >= SEEN:
            self._seen.clear()
        self._seen[entry.id] = run, number, entry
        return entry

    # -- time ------------------------------------------------------------------------------------------

    def advance(self, now: int) -> None:
        """Scheduled entries whose time has come are ready."""
        self._now = max(now, self._now)
        while self._dues and self._dues[0][0] <= self._now:
            due, segment = heappop(self._dues)
            run = self._runs.get(segment)
            if run is not None and run.next_due == due:
                self._make_due(run)

    def _make_due(self, run: Run) -> None:
        index, before = self._index(run), run.head_key
        count = run.make_due(index, self._now)
        self._ready += count
        self._scheduled -= count
        if run.next_due is not None:
            heappush(self._dues, (run.next_due, run.segment))
        self._note_head(run, before)

    def _note_head(self, run: Run, before: Key | None) -> None:
        if run.head_key is None or run.head_key == before:
            return
        if self._heads and self._heads[0] == (before, run.segment):
            heapreplace(self._heads, (run.head_key, run.segment))
            return
        heappush(self._heads, (run.head_key, run.segment))
        if len(self._heads) > 64 + 2 * len(self._runs):
            # A head that moves back and forth leaves an item each time.
            self._heads = list({item for item in self._heads if self._counts(*item)})
            heapify(self._heads)

    def _counts(self, key: Key, segment: int) -> bool:
        run = self._runs.get(segment)
        return run is not None and run.head_key == key

    def next_event(self) -> int | None:
        """When the next scheduled entry is ready, or earlier."""
        while self._dues:
            due, segment = self._dues[0]
            run = self._runs.get(segment)
            if run is not None and run.next_due == due:
                return due
            heappop(self._dues)
        return None

    # -- the order of delivery -------------------------------------------------------------------------

    def first(self) -> Key | None:
        """Where the first ready entry stands, or None."""
        while self._heads:
            key, segment = self._heads[0]
            run = self._runs.get(segment)
            if run is not None and run.marks is not None and run.head_key == key:
                return key
            if run is not None and run.marks is None:
                # All that was known of it is where its first row stood.
                self._index(run)
            else:
                heappop(self._heads)
        return None

    def peek(self, limit: int) -> list[Entry]:
        """The first ready entries, in the order of delivery."""
        key = self.first()
        if key is None:
            return []
        run = self._runs[self._heads[0][1]]
        self._seen.clear()
        if limit == 1:
            return [self._head(run)]
        rows = islice(self._ready_rows(), min(limit, self._ready))
        return [self._look(run, row) for run, row in rows]

    def _head(self, run: Run) -> Entry:
        entry = self._reader.head(run, self._index(run), self._position)
        self._seen[entry.id] = run, run.head, entry
        return entry

    def _ready_rows(self) -> Iterator[tuple[Run, int]]:
        self.first()
        heap = [(key, segment, -1) for key, segment in self._heads]
        begun = set()
        while heap:
            key, segment, row = heappop(heap)
            run = self._runs.get(segment)
            if run is None or (row < 0 and segment in begun):
                continue
            index = self._index(run)
            if row < 0:
                if run.head_key is None:
                    continue
                if run.head_key != key:
                    heappush(heap, (run.head_key, segment, -1))
                    continue
                begun.add(segment)
                row = run.head
            yield run, row
            following = run.next_ready(row)
            if following >= 0:
                heappush(heap, (index.key(following), segment, following))

    # -- by id -----------------------------------------------------------------------------------------

    def find(self, entry_id: str) -> Entry | None:
        """The entry of that id, or None."""
        seen = self._seen.get(entry_id)
        if seen is not None and not seen[0].is_taken(seen[1]):
            run, row, entry = seen
            entry.status = run.status(row)  # its time may have come since
            return entry
        hashed = id_hash(entry_id)
        for run in self._having(entry_id, hashed):
            for row in self._index(run).candidates(hashed):
                if not run.is_taken(row):
                    entry = self._look(run, row)
                    if entry.id == entry_id:
                        return entry
        return None

    def _having(self, entry_id: str, hashed: int) -> list[Run]:
        """The runs that may have that id."""
        found = [run for run in self._runs.values() if run.may_have(entry_id)]
        # With ids that rise with time it is one; that its index is read costs no more than its filter.
        if len(found) > FEW:
            found = [run for run in found if self._filter(run).may_have(hashed)]
        return found

    def _filter(self, run: Run) -> Filter:
        known = self._filters.get(run.segment)
        if known is None:
            index = self._indexes.get(run.segment)
            known, crc = self._load_filter(run.segment) if index is None else (index.filter, index.crc)
            if crc != run.crc:
                raise self._another(run)
            # With more runs than that, all are gone through each time: to let the oldest go would let all go.
            if len(self._filters) < FILTERS:
                self._filters[run.segment] = known
        return known

    def take(self, entry_id: str) -> Entry:
        """Take the entry off the shelf. Raises KeyError if it is not there."""
        if entry_id not in self._seen and self.first() is not None:
            # Others lease in the same order as we would.
            head = self._runs[self._heads[0][1]]
            self._head(head)
        seen = self._seen.pop(entry_id, None)
        if seen is None or seen[0].is_taken(seen[1]):
            if self.find(entry_id) is None:
                raise KeyError(entry_id)
            seen = self._seen.pop(entry_id)
        run, row, entry = seen
        entry.status = run.status(row)
        self._take(run, row)
        return entry

    def replace(self, entry_id: str, seq: int) -> None:
        """Take it off the shelf unread, if it is there."""
        # Its record may be gone already. No two entries have the same number.
        self._seen.pop(entry_id, None)
        hashed = id_hash(entry_id)
        for run in self._having(entry_id, hashed):
            index = self._index(run)
            for row in index.candidates(hashed):
                if index.row(row).order == seq and not run.is_taken(row):
                    self._take(run, row)
                    return

    def _take(self, run: Run, row: int) -> None:
        index, before = self._index(run), run.head_key
        was = run.take(index, row)
        if was == IS_READY:
            self._ready -= 1
        elif was == WAITS:
            self._scheduled -= 1
        else:
            self._dead -= 1
        self._note_head(run, before)
        if not run.left:
            del self._runs[run.segment]
            self._indexes.pop(run.segment, None)
            self._filters.pop(run.segment, None)
            self._reader.forget(run.segment)
            self.finished.append(run.segment)

    # -- expiry ----------------------------------------------------------------------------------------

    @property
    def may_expire(self) -> bool:
        """Whether any of them has a TTL."""
        return bool(self._expiries)

    def expired(self, now: int, limit: int) -> list[Entry]:
        """Entries whose TTL passed, at most ``limit``."""
        with closing(self._expired_rows(now)) as rows:
            return [self._look(run, row) for run, row in islice(rows, limit)]

    def count_expired(self, now: int) -> Counts:
        """How many those are in all, by state."""
        if not self._expiries or self._expiries[0][0] > now:
            return Counts()
        marks = [run.marks[row] for run, row in self._expired_rows(now) if run.marks is not None]
        return Counts(marks.count(WAITS), marks.count(IS_READY))

    def _expired_rows(self, now: int) -> Generator[tuple[Run, int]]:
        again = []
        try:
            while self._expiries and self._expiries[0][0] <= now:
                expires, segment = heappop(self._expiries)
                run = self._runs.get(segment)
                if run is not None and run.expires == expires:
                    again.append(run)
                    for row in run.expired(self._index(run), now):
                        yield run, row
        finally:
            for run in again:
                if run.expires is not None:
                    heappush(self._expiries, (run.expires, run.segment))

    @property
    def segments(self) -> Iterable[int]:
        """Which segments' indexes these are."""
        return self._runs.keys()

    @property
    def oldest(self) -> int:
        """No record of an entry here lies in a segment before this one."""
        return min((run.oldest for run in self._runs.values()), default=sys.maxsize)

    # -- by place --------------------------------------------------------------------------------------

    @property
    def bytes(self) -> int:
        """How long the records of all entries here are, together."""
        return sum(run.bytes for run in self._runs.values())

    def bytes_before(self, segment: int) -> int:
        """The same of the runs that were made when a segment before that one was sealed.

        All of these lie before it. So do a few of those that were leased then.
        """
        return sum(run.bytes for run in self._runs.values() if run.segment < segment)

    def before(self, segment: int, limit: int) -> list[Entry] | None:
        """Entries whose records lie in segments before that one, at most ``limit``. They stay here.

        Not all runs are looked at in one call: None if none was found in those, but there are others.
        """
        runs = [run for run in self._runs.values() if run.oldest < segment]
        for run in runs[:LOOKS]:
            rows = run.before(self._index(run), segment)
            if rows:
                return [self._look(run, row) for row in rows[:limit]]
        return None if len(runs) > LOOKS else []

    # -- dead letters ----------------------------------------------------------------------------------

    @property
    def buried(self) -> list[Run]:
        """The runs that have dead letters, the newest first."""
        return sorted((run for run in self._runs.values() if run.dead), key=lambda run: -run.segment)

    def dead_rows(self, run: Run) -> DeadRows:
        """All dead letters that the run ever had."""
        from duraq.journal.dead_rows import dead_rows  # noqa: PLC0415 - its decoder is for who asks for all

        try:
            return dead_rows(self._index(run))
        except BadIndex as error:
            raise Mislaid(self._queue, f"the index of segment {run.segment}: {error}") from error

    def row(self, segment: int, crc: int, number: int) -> Entry | None:
        """The entry of a row of that segment's index, if it is that index and the row was not taken."""
        run = self._runs.get(segment)
        if run is None or run.crc != crc:
            return None
        self._index(run)
        return None if run.is_taken(number) else self._entry(run, number)

    # -- all of them -----------------------------------------------------------------------------------

    def walk(self, status: EntryStatus | None) -> Iterator[Entry]:
        """Entries in that state (None: all): ready ones in the order of delivery, others as enqueued."""
        rows = self._ready_rows() if status is READY else self._in_order(status)
        for run, row in rows:
            yield self._entry(run, row)

    def by_age(self) -> Iterator[Entry]:
        """The ready ones, as enqueued."""
        for run, row in self._in_order(READY):
            yield self._entry(run, row)

    def behind(self, seq: int, status: EntryStatus | None = None) -> Iterator[Entry]:
        """All (in that state) that were enqueued as a later number than that, as enqueued."""
        for run, row in self._in_order(status, seq):
            yield self._entry(run, row)

    def lived(self, before: int) -> Iterator[Entry]:
        """Those that were enqueued before that number and have been leased since, in no order."""
        for run in [run for run in self._runs.values() if run.lowest < before]:
            columns = self._index(run).columns()
            assert run.marks is not None
            for row, (order, state) in enumerate(zip(columns.order, columns.state, strict=True)):
                if order < before and run.marks[row] != TAKEN and is_changed(state):
                    yield self._entry(run, row)

    def _in_order(self, status: EntryStatus | None, behind: int = 0) -> Iterator[tuple[Run, int]]:
        """Rows in the order they were enqueued in; a run is gone into when its first one may be next."""
        runs = [run for run in self._runs.values() if run.has(status)]
        if behind:
            # Nothing in a segment was enqueued as a later number than the next one's first.
            numbers = sorted(self._runs)
            following = dict(pairwise(numbers))
            runs = [run for run in runs if following.get(run.segment, behind + 2) > behind + 1]
        waiting = sorted(runs, key=lambda run: run.lowest, reverse=True)
        heap: list[tuple[int, int, int]] = []
        while waiting or heap:
            while waiting and (not heap or waiting[-1].lowest <= heap[0][0]):
                run = waiting.pop()
                index = self._index(run)
                assert run.marks is not None
                for row, mark in enumerate(run.marks):
                    if mark != TAKEN and status in {None, STATUS[mark]}:
                        order = index.key(row)[1]
                        if order > behind:
                            heap.append((order, run.segment, row))
                heapify(heap)
            if heap:
                _, segment, row = heappop(heap)
                yield self._runs[segment], row
