"""The line at the top: which storage, which screen, and how old what is shown is."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static


class TopBar(Static):
    """Where one is, and whether what is seen is still so."""

    def on_mount(self) -> None:
        self.watch(self.app, "snapshot", self._show)
        self.watch(self.app, "frozen", self._show)

    def _show(self) -> None:
        snapshot = getattr(self.app, "snapshot", None)
        where = "" if snapshot is None else snapshot.path
        # Content, not a string: a string would be read as markup.
        self.update(Content(f"duraq  {where}  {self.screen.TITLE or ''}"))
