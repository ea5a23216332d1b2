"""A short list to choose from, in front of a screen."""

from __future__ import annotations

from textual.widgets import OptionList


class Choices(OptionList):
    """Textual's, which fails if it is paged before it was laid out, or where there is no room for it."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Without a size there are no pages."""
        return bool(self.size) or not action.startswith("page_")
