"""What is shown in front of a screen, and closed again."""

from __future__ import annotations

from typing import TypeVar

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen

from duraq_dashboard.widgets.notices import TooSmall

T = TypeVar("T")


class Modal(ModalScreen[T]):
    """Textual's, but what is closed already closes nothing else.

    Of two quick keys the second may still reach it: Textual's own would take the screen behind it away.
    """

    def on_mount(self) -> None:
        self.mount(TooSmall())

    def on_resize(self) -> None:
        # While there was no room for it, nothing had the focus.
        if self.focused is None:
            self.call_after_refresh(self._focus_again)

    def _focus_again(self) -> None:
        if self.focused is None:
            for widget in self.query(self.AUTO_FOCUS or "*"):
                if widget.focusable:
                    widget.focus()
                    break

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        return super().dismiss(result) if self.is_active else AwaitComplete()
