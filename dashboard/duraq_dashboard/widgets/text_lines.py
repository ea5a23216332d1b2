"""Lines of text that scroll: a payload, a traceback. Only those on the screen are laid out and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from duraq.safe_text import safe_text
from duraq_dashboard.rows import Cell

_ROLES = ("note", "warn", "crit", "flow", "dead")


class TextLines(ScrollView, can_focus=True):
    """Lines, each text or text and its role. ``wraps``: a long one goes on below; if not, it is cut."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "scroll_by(1)", "down", show=False, id="text.down"),
        Binding("up,k", "scroll_by(-1)", "up", show=False, id="text.up"),
        Binding("g,home", "scroll_home", "top", show=False, id="text.top"),
        Binding("G,end", "scroll_end", "bottom", show=False, id="text.bottom"),
        Binding("pagedown,ctrl+d", "page(1)", "next page", show=False, id="text.page-down"),
        Binding("pageup,ctrl+u", "page(-1)", "previous page", show=False, id="text.page-up"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"text-lines--{role}" for role in _ROLES}
    DEFAULT_CSS = """
    TextLines {
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-gutter: stable;
        scrollbar-size-vertical: 1;
        padding: 0 0 0 1;
        & > .text-lines--note { color: $text-muted; }
    }
    """

    def __init__(
        self,
        *,
        wraps: bool = True,
        takes_focus: bool = True,
        id: str | None = None,  # noqa: A002 - as every widget has it
    ) -> None:
        super().__init__(id=id)
        self.can_focus = takes_focus
        self._lines: tuple[Cell, ...] = ()
        self._laid_out: list[tuple[str, str]] = []
        self._width = -1
        self._wraps = wraps

    @property
    def wraps(self) -> bool:
        """Whether a long line goes on below."""
        return self._wraps

    @wraps.setter
    def wraps(self, wraps: bool) -> None:
        self._wraps = wraps
        self._lay_out()

    def show(self, lines: Sequence[Cell], *, stay: bool = False) -> None:
        """Show these. ``stay``: they are the same text as before, or more of it, so stay where one reads."""
        found = tuple(lines)
        if found == self._lines:
            return
        self._lines = found
        self._lay_out()
        if not stay:
            self.scroll_to(y=0, animate=False, force=True, immediate=True)

    def _lay_out(self) -> None:
        width = self._width = self.scrollable_content_region.width
        self._laid_out = []
        for line in self._lines:
            text, role = line if isinstance(line, tuple) else (line, "")
            self._laid_out += [(piece, role) for piece in self._pieces(safe_text(text), width)]
        self.virtual_size = Size(width, len(self._laid_out))
        self.refresh()

    def _pieces(self, text: str, width: int) -> list[str]:
        if width <= 0 or (text.isascii() and len(text) <= width):
            return [text]
        if text.isascii():
            pieces = [text[at : at + width] for at in range(0, len(text), width)]
        else:
            pieces = [text] if cell_len(text) <= width else chop_cells(text, width)
        return pieces if self._wraps else pieces[:1]

    def on_resize(self) -> None:
        if self.scrollable_content_region.width != self._width:
            self._lay_out()

    def action_scroll_by(self, lines: int) -> None:
        """A line up or down."""
        self.scroll_relative(y=lines, animate=False)

    def action_page(self, pages: int) -> None:
        """A page up or down."""
        self.scroll_relative(y=pages * max(1, self.scrollable_content_region.height - 1), animate=False)

    def render_line(self, y: int) -> Strip:
        width, number = self.scrollable_content_region.width, y + round(self.scroll_offset.y)
        text, role = self._laid_out[number] if number < len(self._laid_out) else ("", "")
        style = self.rich_style
        if role in _ROLES:
            style = self.get_component_rich_style(f"text-lines--{role}")
        return Strip([Segment(text, style)]).adjust_cell_length(width, self.rich_style)
