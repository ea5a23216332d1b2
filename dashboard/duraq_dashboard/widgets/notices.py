"""What stands in place of a screen: why there is nothing to see."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.content import Content
from textual.widgets import Static

from duraq.safe_text import safe_text
from duraq_dashboard.snapshot import Snapshot, Trouble
from duraq_dashboard.wording import plural

if TYPE_CHECKING:
    from duraq_dashboard.app import Dashboard


class TooSmall(Static):
    """The terminal has no room for any screen."""

    def __init__(self) -> None:
        super().__init__("duraq needs 60 columns and 16 lines", markup=False)


class TroubleNotice(Static):
    """The storage cannot be read: what happened, and the way out."""

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._lines: list[str] = []

    def on_mount(self) -> None:
        self.watch(self.app, "snapshot", self._show)

    def _show(self, snapshot: Snapshot | None) -> None:
        if snapshot is None or snapshot.trouble is None:
            return
        lines = _lines(cast("Dashboard", self.app), snapshot.trouble)
        if lines != self._lines:
            self._lines = lines
            self.update(Content("\n".join(safe_text(line) for line in lines)))


def _lines(app: Dashboard, trouble: Trouble) -> list[str]:
    lines = ["", f"! {trouble.word}: {trouble.message}", ""]
    if trouble.hint and trouble.hint not in trouble.message:
        lines += [f"  {trouble.hint}", ""]
    if app.meant_nearby is not None:
        path, queues = app.meant_nearby
        lines += [f"  Did you mean {path} ({plural(queues, 'queue')})?  Enter opens it", ""]
    lines += ["  It opens by itself as soon as it can be read."]
    if app.options.rule:
        lines += [f"  Where it is: {app.source.path}, named by {app.options.rule}"]
    return lines
