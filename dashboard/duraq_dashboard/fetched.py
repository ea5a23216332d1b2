"""Rows of a list that are read when they are on the screen: which are known, and which are to be asked for.

Knows no Textual.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from duraq_dashboard.rows import Cells, Key

_KEPT = 4000  # rows
NOT_YET: Cells = ()


class Fetched:
    """What rows say, by key. What is old is shown until the same is known anew."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Cells] = OrderedDict()
        self._fresh: set[Key] = set()  # of those kept, which are as of the rows that are shown
        self._asked: set[Key] = set()
        self._missing: list[Key] = []

    def get(self, key: Key) -> tuple[Cells, bool]:
        """What that row says; and whether it is the first that is missing since the last were ``taken``."""
        is_missing = key not in self._fresh and key not in self._asked
        is_first = is_missing and not self._missing
        if is_missing:
            self._asked.add(key)
            self._missing.append(key)
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key, NOT_YET), is_first

    def taken(self) -> list[Key]:
        """Those that are missing: somebody reads them now."""
        keys, self._missing = self._missing, []
        return keys

    def add(self, cells: Mapping[Key, Cells]) -> None:
        """Here are some that were missing."""
        self._kept.update(cells)
        self._fresh.update(cells)
        self._asked.difference_update(cells)
        while len(self._kept) > _KEPT:
            self._fresh.discard(self._kept.popitem(last=False)[0])

    def are_old(self) -> None:
        """There are other rows now: each is asked for once more."""
        self._fresh.clear()
        self._asked.clear()

    def forget(self) -> None:
        """None of them is of use: there are other columns."""
        self._kept.clear()
