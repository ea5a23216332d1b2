"""What fails, grouped by its signature."""

from __future__ import annotations

from typing import ClassVar

from duraq_dashboard.screens.base import MainScreen
from duraq_dashboard.snapshot import Snapshot


class ErrorsScreen(MainScreen):
    """Nothing is shown here yet."""

    MODE: ClassVar[str] = "errors"
    TITLE = "Errors"

    def draw(self, snapshot: Snapshot) -> None:
        """There is nothing to show yet."""
