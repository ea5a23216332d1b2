"""Where a filter is typed: it is applied while it is typed, and what is wrong with it stands beside it."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from duraq.safe_text import safe_text


class FilterBar(Horizontal):
    """Shown while there is a filter or one is being typed. ``open`` begins; Enter ends; Esc clears."""

    DEFAULT_CSS = """
    FilterBar { height: auto; display: none; }
    FilterBar.-open { display: block; }
    FilterBar > .sign { width: 2; }
    FilterBar > Input { width: 1fr; height: 1; border: none; padding: 0; background: $panel; }
    FilterBar > .says { width: auto; max-width: 60%; height: auto; padding: 0 1; color: $role-warn; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        # Elsewhere Ctrl+C ends the program; whoever types wants no more than out of here.
        Binding("escape,ctrl+c", "clear", "clear the filter", id="filter.clear"),
    ]

    class Changed(Message):
        """Another filter is wanted; empty: none."""

        def __init__(self, bar: FilterBar, text: str) -> None:
            super().__init__()
            self.bar, self.text = bar, text

        @property
        def control(self) -> FilterBar:
            return self.bar

    class Left(Message):
        """Whoever typed is done with it: the list wants the keys again."""

    def __init__(self) -> None:
        super().__init__()
        self._complaint = ""

    def compose(self) -> ComposeResult:
        yield Static("/ ", classes="sign", markup=False)
        field = Input(compact=True, id="filter")
        field.cursor_blink = field.can_focus = False
        yield field
        yield Static(classes="says", markup=False)

    @property
    def text(self) -> str:
        """What is typed."""
        return self.query_one(Input).value

    def open(self) -> None:
        """Let a filter be typed."""
        self._open_or_close(is_open=True)
        # At once, and not a moment later as by focus(): the next letter is on its way.
        self.screen.set_focus(self.query_one(Input))

    def put(self, text: str) -> None:
        """Have this as the filter."""
        self.query_one(Input).value = text
        self._open_or_close(is_open=bool(text))

    def _open_or_close(self, *, is_open: bool) -> None:
        self.set_class(is_open, "-open")
        # What is not to be seen must not be typed into.
        self.query_one(Input).can_focus = is_open

    @property
    def is_in_doubt(self) -> bool:
        """Whether something is wrong with what is typed: then it means nothing."""
        return bool(self._complaint)

    def complain(self, reason: str) -> None:
        """Say what is wrong with what is typed; nothing, if that is empty."""
        self._complaint = reason
        self.query_one(".says", Static).update(Content(safe_text(reason, 200)))

    def clear(self) -> bool:
        """Have no filter; whether there was one."""
        had = bool(self.text) or self.has_class("-open")
        self.put("")
        self.complain("")
        return had

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(self, event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._open_or_close(is_open=bool(self.text))
        self.post_message(self.Left())

    def on_descendant_blur(self, _event: events.DescendantBlur) -> None:
        self._open_or_close(is_open=bool(self.text))

    def action_clear(self) -> None:
        """Have no filter, and go back to the list."""
        self.clear()
        self.post_message(self.Left())
