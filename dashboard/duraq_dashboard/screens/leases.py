"""Who holds what, until when, and whether they live."""

from __future__ import annotations

from typing import ClassVar

from duraq_dashboard.screens.base import MainScreen
from duraq_dashboard.snapshot import Snapshot


class LeasesScreen(MainScreen):
    """Nothing is shown here yet."""

    MODE: ClassVar[str] = "leases"
    TITLE = "Leases"

    def draw(self, snapshot: Snapshot) -> None:
        """There is nothing to show yet."""
