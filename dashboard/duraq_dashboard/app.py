"""The app: one storage, six screens over it, and the newest snapshot, which all of them watch."""

from __future__ import annotations

from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.reactive import reactive

from duraq_dashboard.messages import Looked
from duraq_dashboard.screens import MAIN_SCREENS
from duraq_dashboard.snapshot import Snapshot
from duraq_dashboard.source import Source
from duraq_dashboard.theme import THEMES


class Dashboard(App[None]):
    """What ``duraq-dashboard`` shows. ``read_only``: it offers nothing that changes anything."""

    TITLE = "duraq"
    CSS_PATH = "dashboard.tcss"
    MODES: ClassVar = {screen.MODE: screen for screen in MAIN_SCREENS}
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-small"), (80, "-medium"), (120, "-wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(
                str(number),
                f"show('{screen.MODE}')",
                screen.TITLE or "",
                show=False,
                id=f"show.{screen.MODE}",
            )
            for number, screen in enumerate(MAIN_SCREENS, 1)
        ),
        Binding("colon", "command_palette", "palette", show=False, id="palette"),
        Binding("p", "freeze", "freeze", id="freeze"),
        Binding("ctrl+q", "quit", "quit", show=False, id="quit", priority=True),
    ]

    snapshot: reactive[Snapshot | None] = reactive(None, layout=False, always_update=True)
    frozen = reactive(False)

    def __init__(self, source: Source, *, read_only: bool = False) -> None:
        super().__init__()
        self.source = source
        self.read_only = read_only
        self._behind: Snapshot | None = None  # the newest one, while the screens are frozen
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name

    def on_mount(self) -> None:
        self.switch_mode(MAIN_SCREENS[0].MODE)
        # post_message is safe to call from another thread.
        self.source.start(self._tell)

    def _tell(self, snapshot: Snapshot) -> None:
        self.post_message(Looked(snapshot))

    def on_unmount(self) -> None:
        self.source.stop()

    def on_looked(self, message: Looked) -> None:
        if self.frozen:
            self._behind = message.snapshot
            return
        with self.batch_update():
            self.snapshot = message.snapshot

    def action_show(self, mode: str) -> None:
        """Go to one of the six screens."""
        self.switch_mode(mode)

    def action_freeze(self) -> None:
        """Leave everything as it is, or go on with how things are now."""
        self.frozen = not self.frozen
        behind, self._behind = self._behind, None
        if not self.frozen and behind is not None:
            self.snapshot = behind
