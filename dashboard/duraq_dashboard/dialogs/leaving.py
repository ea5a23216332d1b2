"""Asked before the dashboard ends while something that was begun here goes on, hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from duraq.safe_text import safe_text
from duraq_dashboard.dialogs import words
from duraq_dashboard.dialogs.base import Dialog
from duraq_dashboard.doing import Progress
from duraq_dashboard.orders import Order
from duraq_dashboard.rows import Cell
from duraq_dashboard.widgets.text_lines import TextLines


class LeaveDialog(Dialog[bool]):
    """Answers whether to stop it and end. The key that brought it up, pressed once more, does not."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "leave", "stop it and quit", id="leaving.stop"),
        Binding("q", "close", "stay", show=False, id="leaving.stay"),
    ]
    DEFAULT_CSS = """
    LeaveDialog TextLines { height: 8; }
    """

    def __init__(self, going: Sequence[tuple[Order, Progress]]) -> None:
        super().__init__()
        self._going = going

    def compose_box(self) -> ComposeResult:
        yield TextLines()

    def on_mount(self) -> None:
        self.say_title("This goes on, and would be stopped:")
        lines: list[Cell] = []
        for order, progress in self._going:
            lines += [words.going(order, progress), "  what is done stays done; for the rest:"]
            lines += [(f"  {safe_text(order.going_on(progress.act), 1000)}", "flow")]
        self.query_one(TextLines).show([*lines, "", ("c stops it and quits; Esc stays", "note")])
        self.query_one(TextLines).focus()

    def action_leave(self) -> None:
        """Stop it, and end."""
        self.dismiss(True)
