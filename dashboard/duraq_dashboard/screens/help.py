"""Every key that does something here, found by the key or by what it does. It is made from the bindings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Input, Static

from duraq.actions import ACTIONS
from duraq_dashboard.widgets.key_bar import Hint, key_name
from duraq_dashboard.widgets.lines import Lines, Piece
from duraq_dashboard.widgets.modal import Modal

_TWO_COLUMNS = 110
_KEYS, _LABEL, _ID = 12, 24, 20
MOVE, CHANGE = "MOVE", "CHANGE (asks first)"
# Which ids are listed under which heading; the first that fits. What is left looks at something.
_GROUPS = {
    "SCREENS": ("show.", "last-screen", "palette", "help", "leave", "back", "quit", "copy-or-quit"),
    "SELECT": ("list.pick", "list.range", "list.all", "list.none", "list.invert"),
    MOVE: ("list.", "text.", "queue.", "entry.", "pane."),
}
_ORDER = (MOVE, "LOOK", "SELECT", CHANGE, "SCREENS")


def group_of(hint: Hint) -> str:
    """The heading a key is listed under."""
    for heading, beginnings in _GROUPS.items():
        if hint.id.startswith(beginnings):
            return heading
    changes = any(len(key) == 1 and key.isupper() for key in hint.keys)
    return CHANGE if changes else "LOOK"


def found(hints: Sequence[Hint], text: str) -> list[Hint]:
    """Those whose key is the text, or whose name has it."""
    wanted = text.strip()
    folded = wanted.casefold()
    return [
        hint
        for hint in hints
        if not wanted
        or wanted in {*hint.keys, *map(key_name, hint.keys)}
        or folded in f"{hint.label} {hint.id}".casefold()
    ]


class HelpScreen(Modal[None]):
    """Type to search; what moves elsewhere and is no letter moves here, too; Esc closes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "back", id="help.close"),
        Binding("down", "scroll(1)", "down", show=False, id="help.down"),
        Binding("up", "scroll(-1)", "up", show=False, id="help.up"),
        # The field, which has the letters, would take these for itself.
        Binding("pagedown,ctrl+d", "page(1)", "next page", show=False, id="help.page-down", priority=True),
        Binding("pageup,ctrl+u", "page(-1)", "page before", show=False, id="help.page-up", priority=True),
        Binding("home", "end(-1)", "top", show=False, id="help.top", priority=True),
        Binding("end", "end(1)", "bottom", show=False, id="help.bottom", priority=True),
    ]

    def __init__(self, title: str, hints: Sequence[Hint]) -> None:
        super().__init__()
        self._title = title
        self._hints = hints

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide"):
            yield Static(f"Keys: {self._title}   PgUp PgDn scroll, Esc closes", classes="title", markup=False)
            field = Input(placeholder="search by key or by what it does", compact=True)
            field.cursor_blink = False
            yield field
            with VerticalScroll(can_focus=False):
                yield Lines(id="keys")

    def on_mount(self) -> None:
        # At once, and not a moment later as by focus(): the next letter is on its way.
        self.set_focus(self.query_one(Input))
        self._show()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._show()

    def on_resize(self) -> None:
        self._show()

    def action_close(self) -> None:
        """Back to the screen."""
        self.dismiss(None)

    def action_scroll(self, by: int) -> None:
        """Up or down."""
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)

    def action_page(self, pages: int) -> None:
        """As many lines as are seen."""
        scrolled = self.query_one(VerticalScroll)
        scrolled.scroll_relative(y=pages * max(1, scrolled.size.height - 1), animate=False)

    def action_end(self, which: int) -> None:
        """To the first line, or to the last."""
        scrolled = self.query_one(VerticalScroll)
        scrolled.scroll_to(y=0 if which < 0 else scrolled.max_scroll_y, animate=False)

    def _show(self) -> None:
        lines = self.lines(self.query_one(Input).value)
        if self.app.size.width >= _TWO_COLUMNS:
            half = (len(lines) + 1) // 2
            right = [*lines[half:], *([[]] * half)]
            lines = [_padded(one, 58) + other for one, other in zip(lines[:half], right, strict=False)]
        self.query_one("#keys", Lines).show(*lines)

    def lines(self, text: str) -> list[list[Piece]]:
        """What is listed for that search."""
        lines: list[list[Piece]] = []
        chosen = found(self._hints, text)
        for heading in _ORDER:
            group = [hint for hint in chosen if group_of(hint) == heading]
            if group:
                lines += [[(heading, "bold")], *map(_line, group)]
        keyless = [
            action
            for action in ACTIONS.values()
            if action.key is None and text.strip().casefold() in action.name
        ]
        lines += [[f"{action.name:<{_KEYS}}by the palette or the command line only"] for action in keyless]
        return lines or [["nothing is called that"]]


def _line(hint: Hint) -> list[Piece]:
    keys = " ".join(map(key_name, hint.keys))
    return [(f"{keys:<{_KEYS}}", "bold"), f"{hint.label:<{_LABEL}}", (f" {hint.id:<{_ID}}", "note")]


def _padded(line: list[Piece], width: int) -> list[Piece]:
    used = sum(len(piece if isinstance(piece, str) else piece[0]) for piece in line)
    return [*line, " " * max(1, width - used)]
