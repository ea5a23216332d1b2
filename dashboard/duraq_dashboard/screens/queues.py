"""The queues, those that need attention first."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from duraq.safe_text import safe_text
from duraq_dashboard.screens.base import MainScreen
from duraq_dashboard.snapshot import Snapshot


class QueuesScreen(MainScreen):
    """Home."""

    MODE: ClassVar[str] = "queues"
    TITLE = "Queues"

    def compose_content(self) -> ComposeResult:
        yield Static(id="queues")

    def draw(self, snapshot: Snapshot) -> None:
        lines = [
            f"{now.word:<12} {now.name:<20} {now.view.counts.ready:>8} {safe_text(now.why)}"
            for now in snapshot.queues.values()
        ]
        self.query_one("#queues", Static).update(Content("\n".join(lines)))
