"""The dead letters of all queues, filtered, grouped, and acted upon."""

from __future__ import annotations

from typing import ClassVar

from duraq_dashboard.screens.base import MainScreen
from duraq_dashboard.snapshot import Snapshot


class DeadLettersScreen(MainScreen):
    """Nothing is shown here yet."""

    MODE: ClassVar[str] = "dlq"
    TITLE = "DLQ"

    def draw(self, snapshot: Snapshot) -> None:
        """There is nothing to show yet."""
