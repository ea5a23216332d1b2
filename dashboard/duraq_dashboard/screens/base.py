"""What all screens have in common: the bar at the top, the keys at the bottom, and the newest snapshot."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer

from duraq_dashboard.snapshot import Snapshot
from duraq_dashboard.widgets.top_bar import TopBar


class BaseScreen(Screen[None]):
    """A screen over the storage. While another one is in front of it, it draws nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "back", "back", id="back"),
    ]

    def compose(self) -> ComposeResult:
        yield TopBar()
        yield from self.compose_content()
        yield Footer(show_command_palette=False)

    def compose_content(self) -> ComposeResult:
        """The widgets between the two bars."""
        yield from ()

    def on_mount(self) -> None:
        self.watch(self.app, "snapshot", self._looked, init=False)

    def on_screen_resume(self) -> None:
        self._looked(getattr(self.app, "snapshot", None))

    def _looked(self, snapshot: Snapshot | None) -> None:
        if snapshot is not None and self.is_current:
            self.draw(snapshot)

    def draw(self, snapshot: Snapshot) -> None:
        """Show it. Only what differs from what is shown may be touched: still means still."""
        raise NotImplementedError

    def action_back(self) -> None:
        """One level back; from a main screen, the end."""
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()
        else:
            self.app.exit()


class MainScreen(BaseScreen):
    """One of the six. ``MODE``: its name; ``TITLE``: what its tab says."""

    MODE: ClassVar[str]
