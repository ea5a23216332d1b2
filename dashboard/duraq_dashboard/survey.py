"""One look at all dead letters: counted, put in order, filtered and grouped, for a list that stays usable.

It is made in the thread that answers questions, a slice at a time, so that what is asked in between (the rows
on the screen, the letter under the cursor) is answered in between. Knows no Textual.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from duraq.dead_index import DeadIndex
from duraq.errors import QueueError, StorageError
from duraq.inspector import Inspector
from duraq.where import Where
from duraq_dashboard.letters import Choice, Group, Letters, Queues, Search
from duraq_dashboard.memory import give_back_now

# What is known is put in order and grouped anew when it has grown so many times: together, that costs little
# more than doing it once.
_GROWTH = 4
# So long letters are counted until others may ask, in seconds: at first until there are some to be listed,
# then each time twice as long, for to begin again where it ended costs up to 20 ms.
_SOON, _COUNTING = 0.025, 0.2


@dataclass(frozen=True, slots=True)
class Found:
    """What is known so far. ``counted``: how many letters, while they are being counted; None after that.

    ``looked_at`` of ``candidates``: how far the filter has got.
    """

    letters: Letters
    choice: Choice
    groups: tuple[Group, ...]
    looked_at: int
    candidates: int
    counted: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether all is known."""
        return self.counted is None and self.looked_at >= self.candidates


class _Slice(threading.Event):
    """Set as soon as another event is, or the time is up that one may take."""

    def __init__(self, stop: threading.Event, seconds: float) -> None:
        super().__init__()
        self._stop = stop
        self._until = time.thread_time() + seconds

    def is_set(self) -> bool:
        return self._stop.is_set() or time.thread_time() > self._until


class Survey:
    """Gone on with until what it gives is over.

    ``names``: of the queues that have any (default: all; but to look into one that has none takes time, too).
    ``letters``: those that are known; without them all are counted first, reading only what is not in
    ``before``.
    """

    def __init__(
        self,
        queues: Queues,
        where: Where | None,
        sort: str,
        now: datetime,
        *,
        names: Sequence[str] | None = None,
        letters: Letters | None = None,
        before: Letters | None = None,
    ) -> None:
        self._queues = queues
        self._where = where
        self._sort = sort
        self._now = now
        self._letters = letters
        self._known = {} if before is None else {index.queue: index for index in before.indexes}
        # Of the queues that are not counted yet, in reverse.
        self._names = None if names is None else list(names)[::-1]
        self._indexes: list[DeadIndex] = []
        self._problems: dict[str, str] = {}
        self._patience = _SOON
        self._half: DeadIndex | None = None  # of the last of them, as far as it is known
        self._shown = 0
        self._found: Found | None = None
        self._search: Search | None = None
        self._groups: tuple[Group, ...] = ()
        self._grouped = 0

    def go_on(self, inspector: Inspector, stop: threading.Event, tell: Callable[[int], None]) -> Found | None:
        """Find out some more; None if it was stopped. ``tell``: how many have been counted so far."""
        if self._letters is None:
            self._count(inspector, stop, tell)
        elif self._search is None:
            self._search = Search(self._letters, self._where, self._letters.in_order(self._sort))
        else:
            self._search.step(inspector, stop)
        if stop.is_set():
            return None
        self._found = self._partly() if self._search is None else self._filtered(self._search)
        if self._found.is_over:
            # On the way there was a half of it again and again.
            self._half, self._known = None, {}
            give_back_now()
        return self._found

    # -- counting --------------------------------------------------------------------------------------

    def _count(self, inspector: Inspector, stop: threading.Event, tell: Callable[[int], None]) -> None:
        """Count some of the queues. One that cannot be read keeps only itself out, and is a problem."""
        if self._names is None:
            self._names = inspector.queues()[::-1]
        slice_ = _Slice(stop, self._patience)
        self._patience = min(2 * self._patience, _COUNTING)
        while self._names and not slice_.is_set():
            name = self._names[-1]
            try:
                index = inspector.dead_index(
                    name, stop=slice_, before=self._half or self._known.get(name), progress=self._keep
                )
            except (StorageError, QueueError) as error:
                self._problems[name] = str(error)
            else:
                if index is None:
                    break
                self._indexes.append(index)
            self._names.pop()
            self._half = None
        tell(self._counted)
        if not self._names:
            self._letters = self._so_far()
            self._search = Search(self._letters, self._where, self._letters.in_order(self._sort))

    def _keep(self, so_far: DeadIndex, _: int) -> None:
        # It is given up when the slice is over, and built on in the next.
        self._half = so_far

    @property
    def _counted(self) -> int:
        return sum(map(len, self._indexes)) + (0 if self._half is None else len(self._half))

    def _so_far(self) -> Letters:
        half = [] if self._half is None else [self._half]
        letters = Letters([*self._indexes, *half], self._queues, dict(self._problems))
        # Here, and not where a frame is drawn.
        assert len(letters.by_key) == len(letters)
        return letters

    def _partly(self) -> Found:
        """Those that are counted already, as far as nothing has to be read to filter them."""
        if self._found is None or self._counted > self._shown * _GROWTH:
            self._shown = self._counted
            letters = self._so_far()
            search = Search(letters, self._where, letters.in_order(self._sort))
            return self._filtered(search, counted=self._counted)
        return replace(self._found, counted=self._counted)

    # -- what is shown ---------------------------------------------------------------------------------

    def _filtered(self, search: Search, counted: int | None = None) -> Found:
        is_over = search.is_over
        before = None if self._found is None else self._found.choice
        if (
            self._found is not None
            and before is not None
            and before.letters is search.letters
            and not is_over
            and 1000 < len(before) * _GROWTH >= len(search)
        ):
            # It is not worth it yet to show more of them.
            return replace(self._found, looked_at=search.looked_at)
        choice = Choice(search.letters, search.found)
        if is_over or len(choice) > self._grouped * _GROWTH:
            self._groups, self._grouped = tuple(choice.groups(self._now)), len(choice)
        # Here, and not where a frame is drawn.
        assert len(choice.places) == len(search.letters)
        return Found(search.letters, choice, self._groups, search.looked_at, len(search.candidates), counted)
