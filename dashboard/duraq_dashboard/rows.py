"""Rows of a list, by number and by key: what is listed, which columns fit, and which rows are picked.

A list may have a million rows, so nobody ever asks for all of them. A row's key stays the same for as long as
there is that row; its number is where it stands at the moment. Knows no Textual.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

Key = Hashable
# Text, or text and its role (note, warn, crit, flow, dead). It may be anything: it is made safe when drawn.
Cell = str | tuple[str, str]
Cells = Sequence[Cell]

GAP = 1  # between two columns
_NEAR = 100  # rows on each side among which one that is still there is looked for


@dataclass(frozen=True, slots=True)
class Column:
    """A column. ``width`` 0: it takes what the others leave.

    ``right``: a number, set flush right. ``from_width``: only shown in a list that is so wide or wider.
    """

    name: str
    width: int = 0
    right: bool = False
    from_width: int = 0


class Rows(Protocol):
    """The rows of a list at one moment: what has been shown does not change any more.

    ``cells`` has one for each column, shown or not; of fewer the last one goes on to the right edge. None if
    they must be fetched first. None of these may take long: all are called while a frame is drawn.
    """

    def __len__(self) -> int: ...

    def key(self, number: int) -> Key:
        """Of the row of that number, from 0."""

    def find(self, key: Key) -> int | None:
        """Where that row stands; None if it is not there."""

    def cells(self, number: int) -> Cells | None:
        """What the row says."""

    def still(self, keys: set[Key]) -> set[Key]:
        """Those of the keys that are there."""


class Listed:
    """Rows that are all in memory."""

    def __init__(self, rows: Iterable[tuple[Key, Cells]] = ()) -> None:
        self._rows = list(rows)
        self._numbers = {key: number for number, (key, _) in enumerate(self._rows)}

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, number: int) -> Key:
        return self._rows[number][0]

    def find(self, key: Key) -> int | None:
        return self._numbers.get(key)

    def cells(self, number: int) -> Cells | None:
        return self._rows[number][1]

    def still(self, keys: set[Key]) -> set[Key]:
        return keys & self._numbers.keys()


def laid_out(columns: Sequence[Column], width: int) -> list[tuple[int, int]]:
    """The columns that are shown in a list of that width, each by its index, and how wide each is."""
    shown = [(index, column) for index, column in enumerate(columns) if column.from_width <= width]
    rest = width - sum(column.width for _, column in shown) - GAP * (len(shown) - 1)
    return [(index, column.width or max(rest, 1)) for index, column in shown]


def follow(before: Rows, number: int, after: Rows) -> int:
    """Where the row of that number stands now; if it is gone, the next one to it that is still there."""
    if not len(before):
        return 0
    found = after.find(before.key(number))
    if found is not None:
        return found
    near = range(max(0, number - _NEAR), min(len(before), number + _NEAR))
    there = after.still({before.key(each) for each in near})
    for each in sorted(near, key=lambda each: (abs(each - number), -each)):
        if before.key(each) in there:
            return after.find(before.key(each)) or 0
    return max(0, min(number, len(after) - 1))


class Picked:
    """Which rows are picked, by their keys. While a range is open, all between its two ends are, too."""

    def __init__(self) -> None:
        self._keys: set[Key] = set()
        self._from: Key | None = None
        self._range = range(0)

    @property
    def is_open(self) -> bool:
        """Whether a range is."""
        return self._from is not None

    def of(self, rows: Rows) -> frozenset[Key]:
        """Which of the rows are shown as picked."""
        return frozenset(self._keys.union(map(rows.key, self._range)))

    @property
    def extent(self) -> tuple[int, range]:
        """What tells at no cost that rows have gone, or that the open range has others."""
        return len(self._keys), self._range

    def has(self, key: Key, number: int) -> bool:
        """Whether that row is shown as picked."""
        return number in self._range or key in self._keys

    def toggle(self, key: Key) -> None:
        """Pick it, or no longer."""
        self._keys ^= {key}

    def replace(self, keys: Iterable[Key]) -> None:
        """Have these picked and no others."""
        self._keys = set(keys)
        self.drop()

    def open(self, key: Key, number: int) -> None:
        """Let a range begin at that row."""
        self._from, self._range = key, range(number, number + 1)

    def reach(self, rows: Rows, number: int) -> None:
        """Let the open range, if there is one, go to that row."""
        start = None if self._from is None else rows.find(self._from)
        if start is None:
            self.drop()
        else:
            self._range = range(min(start, number), max(start, number) + 1)

    def close(self, rows: Rows) -> None:
        """Pick all that are in the range."""
        self._keys.update(map(rows.key, self._range))
        self.drop()

    def drop(self) -> None:
        """Forget the open range."""
        self._from, self._range = None, range(0)

    def stay(self, rows: Rows, number: int) -> None:
        """Forget what is no longer there; an open range then goes to that row."""
        self._keys = rows.still(self._keys)
        self.reach(rows, number)
