"""Rows drawn one by one: only those that are on the screen exist, and of them only what differs is drawn.

What ``row_list`` stands on, which has the keys, and everything that a screen needs to know of a list.
"""

from __future__ import annotations

from textwrap import wrap

from rich.style import Style
from textual.geometry import Region
from textual.scroll_view import ScrollView
from textual.strip import Strip

from duraq.safe_text import safe_text
from duraq_dashboard.fetched import Fetched
from duraq_dashboard.rows import GAP, Cells, Column, Listed, Picked, Rows, laid_out
from duraq_dashboard.widgets.strips import differing, fitted, strip_of


class DrawnRows(ScrollView):
    """A header and rows, with the cursor and what is picked among them."""

    def __init__(
        self,
        *columns: Column,
        pickable: bool = False,
        empty: str = "",
        id: str | None = None,  # noqa: A002 - as every widget has it
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.pickable = pickable
        self._columns = columns
        self._empty = empty
        self._rows: Rows = Listed()
        self._cursor = 0
        self._picked = Picked()
        self._fetched = Fetched()
        self._drawn: dict[int, object] = {}  # what stands on each line of the screen

    @property
    def _top(self) -> int:
        return round(self.scroll_offset.y)

    @property
    def _page(self) -> int:
        """How many rows there is room for, below the header."""
        return max(1, self.scrollable_content_region.height - 1)

    @property
    def _margin(self) -> int:
        """The width in front of each row: the cursor's sign, and whether it is picked."""
        return 5 if self.pickable else 2

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if y == 0:
            return self._header(width)
        number = y - 1 + self._top
        self._drawn[y] = self._state(number)
        if number < len(self._rows):
            return self._row(number, width)
        line = y - 1 if not len(self._rows) else -1
        words = self._words(width - 2)
        text = f"  {safe_text(words[line])}" if 0 <= line < len(words) else ""
        return strip_of([(text, self.rich_style)], width, self.rich_style)

    def _words(self, width: int) -> list[str]:
        """What is said where there are no rows, in lines that fit."""
        lines = (wrap(line, max(width, 1), break_on_hyphens=False) for line in self._empty.split("\n"))
        return [each for line in lines for each in line or [""]]

    def _state(self, number: int) -> object:
        """All that the look of a row follows from."""
        if number >= len(self._rows):
            return self._empty if not len(self._rows) else None
        key = self._rows.key(number)
        return key, tuple(self._cells(number)), number == self._cursor, self._picked.has(key, number)

    def _draw_what_differs(self) -> None:
        regions = []
        for y, drawn in self._drawn.items():
            now = self._state(y - 1 + self._top)
            if now != drawn:
                regions += [Region(x, y, width, 1) for x, width in self._differing(drawn, now)]
        if regions:
            self.refresh(*regions)

    def _differing(self, before: object, now: object) -> list[tuple[int, int]]:
        """Where a line differs, each place by its column and its width: what is repainted has to travel."""
        if (
            not (isinstance(before, tuple) and isinstance(now, tuple))
            or before[0] != now[0]
            or before[2:] != now[2:]
            or len(self._columns) > min(len(before[1]), len(now[1]))
        ):
            return [(0, self.size.width)]
        shown = laid_out(self._columns, self.scrollable_content_region.width - self._margin)
        return differing(before[1], now[1], shown, self._margin)

    def _cells(self, number: int) -> Cells:
        cells = self._rows.cells(number)
        if cells is not None:
            return cells
        found, is_first_missing = self._fetched.get(self._rows.key(number))
        if is_first_missing:
            # Once for all the rows of a frame.
            self.call_after_refresh(self._ask)
        return found

    def _header(self, width: int) -> Strip:
        style = self.get_component_rich_style("row-list--header")
        pieces = [(" " * self._margin, style)]
        for index, room in laid_out(self._columns, width - self._margin):
            column = self._columns[index]
            pieces += [(fitted(column.name, room, right=column.right), style), (" " * GAP, style)]
        return strip_of(pieces, width, style)

    def _row(self, number: int, width: int) -> Strip:
        key, here = self._rows.key(number), number == self._cursor
        style = self.get_component_rich_style("row-list--cursor") if here else self.rich_style
        mark = ">" if here else " "
        if self.pickable:
            mark += "[x]" if self._picked.has(key, number) else "[ ]"
        pieces = [(mark + " ", style)]
        cells, left = self._cells(number), width - self._margin
        for index, room in laid_out(self._columns, left):
            cell = cells[index] if index < len(cells) else ""
            text, role = cell if isinstance(cell, tuple) else (cell, "")
            # The last one has the room of all that there is nothing for.
            goes_on = index == len(cells) - 1 < len(self._columns) - 1
            shown = fitted(text, left if goes_on else room, right=self._columns[index].right and not goes_on)
            left -= room + GAP
            pieces += [(shown, self._in_role(style, role)), (" " * GAP, style)]
        return strip_of(pieces, width, style)

    def _in_role(self, style: Style, role: str) -> Style:
        if not role or f"row-list--{role}" not in self.COMPONENT_CLASSES:
            return style
        look = self.get_component_rich_style(f"row-list--{role}", partial=True)
        # The background stays that of the row.
        return style + Style(color=look.color, bold=look.bold, reverse=look.reverse, dim=look.dim)

    def _ask(self) -> None:
        """Ask for the cells that are missing."""
        raise NotImplementedError
