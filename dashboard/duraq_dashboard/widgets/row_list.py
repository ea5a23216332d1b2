"""A list of any length: only the rows that are on the screen exist, and of them only what differs is drawn.

    class Fruit(MainScreen):
        def compose_content(self):
            yield RowList(Column("NAME"), Column("COUNT", 9, right=True), empty="No fruit yet.", id="fruit")

        def draw(self, snapshot):
            rows = Listed((name, (name, (f"{count:,}", "warn"))) for name, count in snapshot.fruit)
            self.query_one(RowList).show(rows)

        def on_row_list_chosen(self, message):
            self.app.push_screen(FruitScreen(message.key))

``show`` may be called with each snapshot: the cursor and what is picked stay with their rows, by key, and
the row under the cursor stays where it is on the screen. Text is shown as it is, made safe; it is no markup.

Rows that are too many for memory have ``cells`` that give None. The list then posts ``Wanted`` with the keys
that it lacks, once; whoever has read them calls ``arrived``. Until then a row is shown as it was before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message

from duraq_dashboard.rows import Cells, Column, Key, Rows, follow
from duraq_dashboard.widgets.drawn_rows import DrawnRows

_DOUBLE = 2  # clicks


class RowList(DrawnRows, can_focus=True):
    """A header and rows. ``pickable``: Space and the like pick rows. ``empty``: said where there are none."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "open", id="list.open"),
        Binding("down,j", "move(1)", "next row", show=False, id="list.down"),
        Binding("up,k", "move(-1)", "previous row", show=False, id="list.up"),
        Binding("g,home", "go(0)", "first row", show=False, id="list.first"),
        Binding("G,end", "go(-1)", "last row", show=False, id="list.last"),
        Binding("pagedown", "page(1)", "next page", show=False, id="list.page-down"),
        Binding("pageup", "page(-1)", "previous page", show=False, id="list.page-up"),
        Binding("ctrl+d", "page(0.5)", "half a page down", show=False, id="list.half-down"),
        Binding("ctrl+u", "page(-0.5)", "half a page up", show=False, id="list.half-up"),
        Binding("space", "pick", "select", id="list.pick"),
        Binding("v", "range", "select a range", show=False, id="list.range"),
        Binding("a", "pick_all", "select all", show=False, id="list.all"),
        Binding("minus", "pick_none", "select none", show=False, id="list.none"),
        Binding("asterisk", "invert", "invert the selection", show=False, id="list.invert"),
        Binding("escape", "leave_range", "no range", show=False, id="list.leave-range"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "row-list--header",
        "row-list--cursor",
        "row-list--note",
        "row-list--warn",
        "row-list--crit",
        "row-list--flow",
        "row-list--dead",
    }
    DEFAULT_CSS = """
    RowList {
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-gutter: stable;
        scrollbar-size-vertical: 1;
        background: $background;
        & > .row-list--header { color: $text-muted; text-style: bold; }
        & > .row-list--cursor { background: $panel; }
        &:focus > .row-list--cursor { background: $primary 30%; text-style: bold; }
        & > .row-list--note { color: $text-muted; }
    }
    """

    class Moved(Message):
        """The cursor is on another row; None: there is none."""

        def __init__(self, row_list: RowList, key: Key | None) -> None:
            super().__init__()
            self.row_list, self.key = row_list, key

        @property
        def control(self) -> RowList:
            return self.row_list

    class Chosen(Moved):
        """Enter on a row, or a double click."""

    class PicksChanged(Message):
        """Other rows are picked than before."""

        def __init__(self, row_list: RowList) -> None:
            super().__init__()
            self.row_list = row_list

        @property
        def control(self) -> RowList:
            return self.row_list

    class Wanted(Message):
        """These rows are on the screen and their cells are not known, or not as of now."""

        def __init__(self, row_list: RowList, keys: list[Key]) -> None:
            super().__init__()
            self.row_list, self.keys = row_list, keys

        @property
        def control(self) -> RowList:
            return self.row_list

    # -- what is shown ---------------------------------------------------------------------------------

    @property
    def rows(self) -> Rows:
        """What is listed."""
        return self._rows

    @property
    def cursor_key(self) -> Key | None:
        """Of the row under the cursor; None if there is no row."""
        return self._rows.key(self._cursor) if len(self._rows) else None

    @property
    def cursor_number(self) -> int:
        """Where that row stands, from 0."""
        return self._cursor

    @property
    def picked(self) -> frozenset[Key]:
        """Which rows are picked."""
        return self._picked.of(self._rows)

    @property
    def in_view(self) -> range:
        """The numbers of the rows that are on the screen."""
        return range(self._top, min(self._top + self._page, len(self._rows)))

    def show(self, rows: Rows, *, empty: str | None = None) -> None:
        """List these from now on."""
        before, key = self._rows, self.cursor_key
        picked = self._picked.extent
        on_screen = self._cursor in self.in_view
        held = self._cursor if on_screen else self._top
        line = held - self._top
        self._rows = rows
        if empty is not None:
            self._empty = empty
        self._cursor = follow(before, self._cursor, rows)
        top = (self._cursor if on_screen else follow(before, held, rows)) - line
        self._picked.stay(rows, self._cursor)
        self._fetched.are_old()
        self._resize()
        self._put_top(top)
        self._draw_what_differs()
        if self.cursor_key != key:
            self.post_message(self.Moved(self, self.cursor_key))
        if self._picked.extent != picked:
            self.post_message(self.PicksChanged(self))

    def set_columns(self, *columns: Column) -> None:
        """Have these columns from now on; the next rows must have cells for them."""
        if columns != self._columns:
            self._columns = columns
            self._fetched.forget()
            self.refresh()

    def arrived(self, cells: Mapping[Key, Cells]) -> None:
        """Here is what some of the rows say that were wanted."""
        self._fetched.add(cells)
        self._draw_what_differs()

    def go_to(self, key: Key) -> bool:
        """Put the cursor on that row; whether it is there."""
        number = self._rows.find(key)
        if number is not None:
            self._go(number)
        return number is not None

    def pick(self, keys: Iterable[Key]) -> None:
        """Have these rows picked and no others."""
        self._picked.replace(keys)
        self._picks_changed()

    # -- keys and mouse --------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Keys that mean nothing here are left to the screen."""
        if action == "leave_range":
            return self._picked.is_open
        return self.pickable or action not in {"pick", "range", "pick_all", "pick_none", "invert"}

    def action_choose(self) -> None:
        """Open the row under the cursor."""
        if self.cursor_key is not None:
            self.post_message(self.Chosen(self, self.cursor_key))

    def action_move(self, by: int) -> None:
        """The cursor, by some rows."""
        self._go(self._cursor + by)

    def action_go(self, number: int) -> None:
        """The cursor to the first row, or (-1) to the last."""
        self._go(number if number >= 0 else len(self._rows) + number)

    def action_page(self, pages: float) -> None:
        """The cursor by as many rows as are on the screen, and the view with it."""
        by = round(pages * max(1, self._page - 1)) or (1 if pages > 0 else -1)
        to = self._clamped(self._cursor + by)
        self._put_top(self._top + to - self._cursor)
        self._go(to)

    def action_pick(self) -> None:
        """Pick the row under the cursor, or no longer; it ends an open range with all that is in it."""
        if self.cursor_key is None:
            return
        if self._picked.is_open:
            self._picked.close(self._rows)
        else:
            self._picked.toggle(self.cursor_key)
            self._go(self._cursor + 1)
        self._picks_changed()

    def action_range(self) -> None:
        """Begin a range at the cursor, or pick all that is in the open one."""
        if self._picked.is_open:
            self._picked.close(self._rows)
        elif self.cursor_key is not None:
            self._picked.open(self.cursor_key, self._cursor)
        self._picks_changed()

    def action_leave_range(self) -> None:
        """Pick nothing of the open range."""
        self._picked.drop()
        self._picks_changed()

    def action_pick_all(self) -> None:
        """Every row that is listed, on the screen or not."""
        self.pick(map(self._rows.key, range(len(self._rows))))

    def action_pick_none(self) -> None:
        """No row any more."""
        self.pick(())

    def action_invert(self) -> None:
        """Those that are not picked, and no longer those that are."""
        picked = self.picked
        keys = map(self._rows.key, range(len(self._rows)))
        self.pick(key for key in keys if key not in picked)

    def on_click(self, event: events.Click) -> None:
        """The cursor goes where the mouse is; in front of a row it picks it, twice it opens it."""
        number = event.y - 1 + self._top
        if event.y < 1 or number not in self.in_view:
            return
        event.stop()
        self._go(number)
        if self.pickable and event.x < self._margin:
            self._picked.toggle(self._rows.key(number))
            self._picks_changed()
        elif event.chain == _DOUBLE:
            self.action_choose()

    def _picks_changed(self) -> None:
        self.refresh_bindings()
        self._draw_what_differs()
        self.post_message(self.PicksChanged(self))

    # -- where it is -----------------------------------------------------------------------------------

    def _clamped(self, number: int) -> int:
        return max(0, min(number, len(self._rows) - 1))

    def _go(self, number: int) -> None:
        number = self._clamped(number)
        moved = number != self._cursor
        self._cursor = number
        self._picked.reach(self._rows, number)
        top = self._top
        self._put_top(min(max(top, number - self._page + 1), number))
        self._draw_what_differs()
        if moved:
            self.post_message(self.Moved(self, self.cursor_key))
            if self._picked.is_open:
                self.post_message(self.PicksChanged(self))

    def _put_top(self, top: int) -> None:
        top = max(0, min(top, len(self._rows) - self._page))
        if top != self._top:
            self.scroll_to(y=top, animate=False, force=True, immediate=True)

    def _resize(self) -> None:
        size = Size(self.scrollable_content_region.width, len(self._rows) + 1)
        if size != self.virtual_size:
            self.virtual_size = size

    def on_resize(self) -> None:
        self._resize()
        if self._cursor not in self.in_view:
            self._go(self._cursor)

    def _ask(self) -> None:
        keys = self._fetched.taken()
        if keys:
            self.post_message(self.Wanted(self, keys))
