"""A text in front of a screen, to be read: what was found out of something, and which command helps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from duraq_dashboard.dialogs.base import Dialog
from duraq_dashboard.rows import Cell
from duraq_dashboard.widgets.text_lines import TextLines


class ReadingDialog(Dialog[None]):
    """Changes nothing: any key that closes closes it. ``command`` is what ``y`` copies."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,q", "close", "close", show=False, id="reading.close"),
        Binding("y", "copy_command", "copy the command", id="reading.copy"),
    ]
    DEFAULT_CSS = """
    ReadingDialog TextLines { height: 12; }
    .-short ReadingDialog TextLines { height: 8; }
    """

    def __init__(self, title: str, lines: Sequence[Cell], command: str = "") -> None:
        super().__init__()
        self._title = title
        self._lines = lines
        self._command = command

    def compose_box(self) -> ComposeResult:
        yield TextLines()

    def on_mount(self) -> None:
        self.say_title(self._title)
        self.query_one(TextLines).focus()
        self.show(self._lines)

    def show(self, lines: Sequence[Cell]) -> None:
        """Say this instead: more is known by now."""
        self._lines = lines
        more: list[Cell] = []
        if self._command:
            more = ["", (self._command, "flow"), ("y copies it; Esc closes", "note")]
        # None, if it is only just coming into being.
        for text in self.query(TextLines):
            text.show([*lines, *more])

    def action_copy_command(self) -> None:
        """Hand the command to the clipboard."""
        if self._command:
            self.dashboard.copied(self._command)
