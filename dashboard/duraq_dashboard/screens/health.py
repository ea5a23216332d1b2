"""What needs attention, what was checked, and what the dashboard itself costs."""

from __future__ import annotations

from typing import ClassVar

from duraq_dashboard.screens.base import MainScreen
from duraq_dashboard.snapshot import Snapshot


class HealthScreen(MainScreen):
    """Nothing is shown here yet."""

    MODE: ClassVar[str] = "health"
    TITLE = "Health"

    def draw(self, snapshot: Snapshot) -> None:
        """There is nothing to show yet."""
