"""What was done lately, to choose from it what is to be brought back."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from duraq.safe_text import safe_text
from duraq_dashboard import wording
from duraq_dashboard.acts_done import Done
from duraq_dashboard.dialogs.base import Dialog
from duraq_dashboard.rows import Cell, Column, Listed
from duraq_dashboard.widgets.lines import Lines
from duraq_dashboard.widgets.row_list import RowList

_COLUMNS = (
    Column("WHEN", 11),
    Column("WHAT", 14),
    Column("COUNT", 9, right=True),
    Column("QUEUES", 14, from_width=74),
    Column("WHO", 10, from_width=60),
    Column("REASON"),
)


class UndoDialog(Dialog[Done]):
    """Answers with what is to be undone, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "close", "cancel", show=False, id="undo.close"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._done: dict[str, Done] = {}
        self._found: list[Done] | Exception | None = None

    def compose_box(self) -> ComposeResult:
        yield RowList(*_COLUMNS, empty="\nreading ...", id="acts")
        yield Lines(id="undo-says")

    def on_mount(self) -> None:
        self.say_title("Done in the last seven days")
        # What is within the box comes into being later than the dialog.
        self.call_after_refresh(self._draw)

    def show(self, found: list[Done] | Exception) -> None:
        """Have these to choose from."""
        self._found = found
        self._draw()

    def _draw(self) -> None:
        found = self._found
        if not self.query("#acts"):
            return
        acts = self.query_one("#acts", RowList)
        acts.focus()
        if found is None:
            return
        if isinstance(found, Exception):
            acts.show(Listed(), empty=f"\n{safe_text(found, 300)}")
            return
        self._done = {done.name: done for done in found}
        nothing = "\nNothing was done to dead letters in the last seven days."
        acts.show(Listed((done.name, self._cells(done)) for done in found), empty=nothing)
        first = next((done.name for done in found if done.can_be_undone), None)
        if first is not None:
            acts.go_to(first)
        self.query_one("#undo-says", Lines).show([("Enter brings back what was removed; Esc closes", "note")])

    def _cells(self, done: Done) -> list[Cell]:
        app = self.dashboard
        what = f"{done.verb}, undone" if done.is_undone else done.verb
        role = "" if done.can_be_undone else "note"
        texts = (
            wording.brief(wording.moment(done.at, app.moment, app.times)),
            what,
            f"{done.count:,}",
            ", ".join(done.queues),
            done.who,
            done.reason,
        )
        return [(text, role) for text in texts]

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        done = self._done.get(str(message.key))
        if done is not None and done.can_be_undone:
            self.dismiss(done)
        elif done is not None:
            why = "it was undone already" if done.is_undone else f"it was a {done.verb}"
            self.query_one("#undo-says", Lines).show([(f"this cannot be undone: {why}", "warn")])
