"""What happens in all queues, record by record."""

from __future__ import annotations

from typing import ClassVar

from duraq_dashboard.screens.base import MainScreen
from duraq_dashboard.snapshot import Snapshot


class EventsScreen(MainScreen):
    """Nothing is shown here yet."""

    MODE: ClassVar[str] = "events"
    TITLE = "Events"

    def draw(self, snapshot: Snapshot) -> None:
        """There is nothing to show yet."""
