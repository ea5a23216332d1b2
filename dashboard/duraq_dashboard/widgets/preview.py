"""An entry below a list: its payload, and beside it what went wrong, its life, or where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, cast

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from duraq.safe_text import safe_text
from duraq.views import EntryView, RecordView
from duraq_dashboard import entry_text, wording
from duraq_dashboard.copying import Copyable
from duraq_dashboard.dead_rows import error_of
from duraq_dashboard.rows import Cell
from duraq_dashboard.widgets.lines import Heading
from duraq_dashboard.widgets.text_lines import TextLines

if TYPE_CHECKING:
    from duraq_dashboard.app import Dashboard

PAYLOAD, ATTEMPTS, TIMELINE, ON_DISK = PANES = ("payload", "attempts", "timeline", "on disk")
_BESIDE = 110  # columns in which there is room for two panes


class Preview(Vertical):
    """Of one entry, or of none."""

    def __init__(self) -> None:
        super().__init__()
        self.pane = ATTEMPTS
        self._view: EntryView | None = None
        self._life: Sequence[RecordView] | None = None
        self._note = ""

    def compose(self) -> ComposeResult:
        yield Heading(id="preview-heading")
        with Horizontal():
            yield TextLines(id="preview-left", takes_focus=False)
            yield TextLines(id="preview-right", takes_focus=False)

    @property
    def needs_life(self) -> bool:
        """Whether the records of the entry are to be seen and are not known."""
        return self._view is not None and self._life is None and self.pane in {TIMELINE, ON_DISK}

    @property
    def view(self) -> EntryView | None:
        """The entry that is shown."""
        return self._view

    @property
    def life(self) -> Sequence[RecordView] | None:
        """Its records, as far as somebody wanted to see them."""
        return self._life

    def show(self, view: EntryView | None, note: str = "") -> None:
        """Show that entry; in place of one that is not there, the note."""
        if view is None or self._view is None or (view.queue, view.id) != (self._view.queue, self._view.id):
            self._life = None
        self._view, self._note = view, note
        self.draw()

    def show_life(self, life: Sequence[RecordView]) -> None:
        """These are its records."""
        self._life = life
        self.draw()

    def next_pane(self) -> None:
        """Show the next pane."""
        self.pane = PANES[(PANES.index(self.pane) + 1) % len(PANES)]
        if self.pane == PAYLOAD and self._is_wide:
            # It is there already.
            self.pane = ATTEMPTS
        self.draw()

    @property
    def _is_wide(self) -> bool:
        return self.app.size.width >= _BESIDE

    def on_resize(self) -> None:
        self.draw()

    def draw(self) -> None:
        """Show all as of now; what is the same is not drawn again."""
        view = self._view
        heading = self.query_one("#preview-heading", Heading)
        left, right = self.query("#preview-left, #preview-right").results(TextLines)
        if view is None:
            heading.show("")
            left.show([(self._note, "note")] if self._note else [])
            right.show([])
            return
        wide = self._is_wide
        beside = ATTEMPTS if self.pane == PAYLOAD else self.pane
        shown = f"{PAYLOAD} | {beside}" if wide else self.pane
        others = ", ".join(PANES) if wide else "panes"
        heading.show(f"{safe_text(view.id, 60)}  {shown}", f"Tab: {others}")
        left.show(self._lines(view, PAYLOAD if wide else self.pane))
        right.show(self._lines(view, beside) if wide else [])

    def _when(self, moment: datetime) -> str:
        app = cast("Dashboard", self.app)
        return wording.moment(moment, app.moment, app.times)

    def _lines(self, view: EntryView, pane: str) -> list[Cell]:
        when = self._when
        if pane == PAYLOAD:
            size: Cell = (f"payload, {wording.size(len(view.payload))}", "note")
            return [size, *entry_text.as_json(view.payload), *entry_text.headers(view)]
        if pane == ATTEMPTS:
            return entry_text.attempts(view, when)
        if self._life is None:
            return [("reading its records ...", "note")]
        if pane == TIMELINE:
            return entry_text.timeline(self._life, when)
        return entry_text.on_disk(view, self._life, cast("Dashboard", self.app).source.path, when)

    # -- what it offers --------------------------------------------------------------------------------

    def copies(self, path: str) -> Sequence[Copyable]:
        """What of the entry may be copied; ``path``: the storage's."""
        view = self._view
        if view is None:
            return ()
        commands = entry_text.commands(view, self._life or (), path)
        return [
            Copyable("i", "id", view.id),
            Copyable("c", "command", commands[0]),
            Copyable("e", "error", error_of(view)),
            Copyable("d", "payload", view.payload.decode("utf-8", "backslashreplace")),
            *(Copyable("p", "place", command) for command in commands[1:]),
        ]

    def pager_text(self, path: str) -> str | None:
        """All of the entry, for a pager; None if there is none."""
        if self._view is None:
            return None
        return entry_text.in_full(self._view, self._life or (), path, self._when)
