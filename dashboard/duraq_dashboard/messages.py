"""What the threads that read tell the screens."""

from __future__ import annotations

from textual.message import Message

from duraq_dashboard.snapshot import Snapshot


class Looked(Message):
    """The storage has changed, and this is how it is now."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot
