"""A box in front of a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from duraq_dashboard.widgets.lines import Lines
from duraq_dashboard.widgets.modal import Modal

if TYPE_CHECKING:
    from duraq_dashboard.app import Dashboard

T = TypeVar("T")


class Dialog(Modal[T]):
    """A title, what a dialog is about, and Esc, which leaves everything as it is."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "cancel", id="dialog.close")]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Lines(id="title", classes="title")
            yield from self.compose_box()

    def compose_box(self) -> ComposeResult:
        """What is below the title."""
        yield from ()

    @property
    def dashboard(self) -> Dashboard:
        """The app, by its own name."""
        return cast("Dashboard", self.app)

    def say_title(self, title: str) -> None:
        """What stands at the top."""
        self.query_one("#title", Lines).show([(title, "bold")])

    def action_close(self) -> None:
        """Close it; nothing is done."""
        self.dismiss(None)
