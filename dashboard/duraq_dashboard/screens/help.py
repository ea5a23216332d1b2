"""Every key that does something here, found by the key or by what it does. It is made from the bindings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Input, Static

from duraq.actions import ACTIONS
from duraq_dashboard.widgets.key_bar import Hint, key_name
from duraq_dashboard.widgets.lines import Lines, Piece
from duraq_dashboard.widgets.modal import Modal

_TWO_COLUMNS = 110
_KEYS, _LABEL, _ID = 14, 24, 18
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
    """Type to search; Esc closes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "back", id="help.close"),
        Binding("down", "scroll(1)", "down", show=False, id="help.down"),
        Binding("up", "scroll(-1)", "up", show=False, id="help.up"),
    ]

    def __init__(self, title: str, hints: Sequence[Hint]) -> None:
        super().__init__()
        self._title = title
        self._hints = hints

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide"):
            yield Static(f"Keys: {self._title}", classes="title", markup=False)
            field = Input(placeholder="search by key or by what it does", compact=True)
            field.cursor_blink = False
            yield field
            with VerticalScroll(can_focus=False):
                yield Lines(id="keys")

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self._show()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._show()

    def on_resize(self, _event: events.Resize) -> None:
        self._show()

    def action_close(self) -> None:
        """Back to the screen."""
        self.dismiss(None)

    def action_scroll(self, by: int) -> None:
        """Up or down."""
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)

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
