"""What can be copied here, each by a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from duraq.safe_text import safe_text
from duraq_dashboard.copying import Copyable
from duraq_dashboard.widgets.choices import Choices
from duraq_dashboard.widgets.modal import Modal

if TYPE_CHECKING:
    from duraq_dashboard.app import Dashboard

_WIDEST = 54  # characters that are shown of a text


class CopyMenu(Modal[None]):
    """Press the letter, or choose and press Enter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss_none", "back", id="copy.back"),
    ]

    def __init__(self, offered: Sequence[Copyable]) -> None:
        super().__init__()
        self._offered = offered

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Copy", classes="title", markup=False)
            yield Choices()

    def on_resize(self) -> None:
        room = max(1, min(_WIDEST, self.app.size.width - 26))
        options = self.query_one(Choices)
        options.clear_options()
        options.add_options(Option(_prompt(each, room), each.key) for each in self._offered)
        options.highlighted = 0

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self._copy(event.option.id or "")

    def on_key(self, event: events.Key) -> None:
        if event.character in {each.key for each in self._offered}:
            event.stop()
            self._copy(event.character or "")

    def action_dismiss_none(self) -> None:
        """Copy nothing."""
        self.dismiss(None)

    def _copy(self, key: str) -> None:
        text = next(each.text for each in self._offered if each.key == key)
        self.dismiss(None)
        cast("Dashboard", self.app).copied(text)


def _prompt(each: Copyable, room: int) -> Content:
    return Content.assemble((f"{each.key}  ", "bold"), f"{each.label:<14}", safe_text(each.text, room))
