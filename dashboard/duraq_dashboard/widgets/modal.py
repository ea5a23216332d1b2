"""What is shown in front of a screen, and closed again."""

from __future__ import annotations

from typing import TypeVar

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen

T = TypeVar("T")


class Modal(ModalScreen[T]):
    """Textual's, but what is closed already closes nothing else.

    Of two quick keys the second may still reach it: Textual's own would take the screen behind it away.
    """

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        return super().dismiss(result) if self.is_active else AwaitComplete()
