"""Single lines of text that are drawn only if they differ from what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from textual.content import Content
from textual.widgets import Static

from duraq.safe_text import safe_text
from duraq_dashboard.wording import fit

if TYPE_CHECKING:
    from duraq_dashboard.app import Dashboard

# Text, or text and its role: note, warn, crit, flow, dead.
Piece = str | tuple[str, str]

# How a role looks within a line; a theme says which colours these are.
_LOOKS = {
    "": "",
    "plain": "",
    "bold": "bold",
    "note": "$role-note",
    "warn": "$role-warn bold",
    "crit": "$role-crit bold reverse",
    "flow": "$role-flow",
    "dead": "$role-dead",
}


def content(pieces: Sequence[Piece]) -> Content:
    """Pieces of text, made safe, in the looks of their roles. No markup is ever read from them."""
    parts = [(each, "") if isinstance(each, str) else each for each in pieces]
    return Content.assemble(*((safe_text(text), _LOOKS.get(role, "")) for text, role in parts))


class Lines(Static):
    """Some lines, each made of pieces."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, classes=classes, markup=False)
        self._shown: list[list[Piece]] = []

    def show(self, *lines: Sequence[Piece] | str) -> None:
        """Show these instead of what is shown."""
        new: list[list[Piece]] = [[line] if isinstance(line, str) else list(line) for line in lines]
        if new != self._shown:
            self._shown = new
            # Where its height does not follow from the text, nothing else need be laid out, and drawn, anew.
            self.update(Content("\n").join(map(content, new)), layout=self.styles.is_auto_height)


class Heading(Static):
    """A rule across the screen with a title at its left and a few words at its right.

    ``of``: the id of the pane below it, one of several. The one that has the keys is in brackets, as the tab
    is that one is on: colours alone would not tell everybody.
    """

    DEFAULT_CSS = "Heading { height: 1; color: $role-note; }"

    def __init__(self, title: str = "", *, of: str = "", id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, markup=False)
        self._title, self._right = title, ""
        self._of = of
        self._drawn = ""

    def on_mount(self) -> None:
        if self._of:
            self.watch(self.screen, "focused", self._draw, init=False)
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def show(self, title: str, right: str = "") -> None:
        """Say this."""
        self._title, self._right = title, right
        self._draw()

    def _draw(self) -> None:
        width = self.size.width or self.app.size.width
        rule = "-" if cast("Dashboard", self.app).ascii_only else "─"
        title = fit(safe_text(self._title), max(0, width - 8))
        if self._of and self.screen.focused is not None and self.screen.focused.id == self._of:
            title = f"[{title}]"
        left = f"{rule} {title} "
        right = f" {safe_text(self._right)} {rule}" if self._right else ""
        if len(left) + len(right) > width:
            right = ""
        text = left + rule * (width - len(left) - len(right)) + right
        if text != self._drawn:
            self._drawn = text
            self.update(Content(text), layout=False)
