"""One look at all dead letters: counted, put in order, filtered and grouped, for a list that stays usable.

It is made in the thread that answers questions, a slice at a time, so that what is asked in between (the rows
on the screen, the letter under the cursor) is answered in between. Knows no Textual.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from duraq.inspector import Inspector
from duraq.where import Where
from duraq_dashboard.letters import Choice, Group, Letters, Queues, Search, gather

# Groups are counted anew when so many times as many letters were found as when they were counted last.
_GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class Found:
    """What is known so far. ``looked_at`` of ``candidates``: how far the filter has got."""

    letters: Letters
    choice: Choice
    groups: tuple[Group, ...]
    looked_at: int
    candidates: int
    is_over: bool


class Survey:
    """Begun with ``begin``, then ``go_on`` until what it gives is over.

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
        letters: Letters | None = None,
        before: Letters | None = None,
    ) -> None:
        self._queues = queues
        self._where = where
        self._sort = sort
        self._now = now
        self._letters = letters
        self._before = before
        self._search: Search | None = None
        self._groups: tuple[Group, ...] = ()
        self._grouped = 0

    def begin(self, inspector: Inspector, stop: threading.Event, tell: Callable[[int], None]) -> Found | None:
        """Count what there is, and answer of it what needs no reading; None if it was stopped."""
        letters = self._letters
        if letters is None:
            letters = gather(inspector, self._queues, self._before, stop, tell)
        if letters is None or stop.is_set():
            return None
        self._letters = letters
        self._search = Search(letters, self._where, letters.in_order(self._sort))
        return self._found()

    def go_on(self, inspector: Inspector, stop: threading.Event) -> Found | None:
        """Look at some more; None if it was stopped."""
        assert self._search is not None
        self._search.step(inspector, stop)
        return None if stop.is_set() else self._found()

    def _found(self) -> Found:
        search, letters = self._search, self._letters
        assert search is not None
        assert letters is not None
        numbers = search.found
        choice = Choice(letters, numbers if search.is_over else array("I", numbers))
        if search.is_over or len(choice) > self._grouped * _GROWTH:
            self._groups, self._grouped = tuple(choice.groups(self._now)), len(choice)
        # Here, and not where a frame is drawn.
        assert len(choice.places) == len(letters)
        return Found(letters, choice, self._groups, search.looked_at, len(search.candidates), search.is_over)
