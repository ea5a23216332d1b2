"""The question before a change: nothing is agreed to but by the button that says what happens, to how many.

Cancel has the focus when it opens, or the field that must be filled in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Button, Input, Label

from duraq.actions import Target
from duraq.acts import check_target
from duraq.bulk import Pace
from duraq.errors import DuraqError
from duraq.model import check_queue_name
from duraq.options import text as checked_text
from duraq.safe_text import safe_text
from duraq_dashboard import wording
from duraq_dashboard.dialogs import words
from duraq_dashboard.dialogs.base import Dialog
from duraq_dashboard.orders import Order
from duraq_dashboard.widgets.lines import Lines

_MOST = 3  # lines of one fact
_NARROW = 40  # columns, before it is known how many there are
_PUT_BACK = {"retry", "move"}
_WITH_REASON = {"retry", "move", "remove", "purge", "undo", "edit", "pause", "release"}


class ConfirmDialog(Dialog[Order]):
    """Answers with the order as it was agreed to, or None. Opens at once, also while it is being counted."""

    # Never the other button. Enter in a field agrees to nothing.
    AUTO_FOCUS = "#to, #cancel"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy_command", "copy the command", id="dialog.copy"),
        Binding("left", "app.focus_previous", show=False, id="dialog.left"),
        Binding("right", "app.focus_next", show=False, id="dialog.right"),
    ]
    DEFAULT_CSS = """
    ConfirmDialog {
        & .row { height: 1; }
        & .row Label { width: 10; color: $text-muted; }
        & Lines { height: auto; width: 1fr; }
        & Input { width: 1fr; background: $panel; }
        & Input.-short { width: 8; }
        & .row .behind { width: auto; margin: 0 1; color: $text-muted; }
        & #facts .row { height: auto; }
        & #buttons { height: 1; margin: 1 0 0 0; align: center middle; }
        & #buttons Button { min-width: 12; height: 1; border: none; margin: 0 2; background: $panel; }
        & #buttons Button:focus {
            background: $primary;
            color: $background;
            text-style: bold underline;
        }
    }
    """

    def __init__(self, order: Order, *, stop: Callable[[], None] | None = None) -> None:
        """``stop``: what is meant is still being counted, and this ends it; ``settle`` then says what."""
        super().__init__()
        self._order = order
        self._stop = stop
        self._is_settled = stop is None
        self._failed = ""

    # -- what is in it ---------------------------------------------------------------------------------

    def compose_box(self) -> ComposeResult:
        name, target = self._order.action.name, self._order.action.target
        if self._order.where:
            yield from self._fact("Filter", "where")
        if target is Target.DEAD_LETTERS:
            yield from self._fact("Exactly", "exactly")
            yield from self._fact("In", "queues")
        yield from self._fact("Effect", "effect")
        for lease in self._order.leases:
            if lease.alive:
                yield Lines(classes="alive")
        if name == "move":
            yield self._row("To", Input(compact=True, id="to", placeholder="another queue"))
        if name in _PUT_BACK:
            yield self._row(
                "Rate",
                Input(compact=True, id="rate", classes="-short", placeholder="-"),
                Label("a second", classes="behind"),
                Label("stop if more than", classes="behind"),
                Input(compact=True, id="failing", classes="-short", placeholder="-"),
                Label("% fail again", classes="behind"),
            )
        if name in _WITH_REASON:
            yield self._row("Reason", Input(compact=True, id="reason", placeholder="kept with the act"))
        if name == "purge":
            yield self._row(
                "Type",
                Input(compact=True, id="typed", placeholder=f"{self._order.queue}, to purge it for good"),
            )
        yield from self._fact("Command", "command")
        yield Lines(id="wrong")
        with Horizontal(id="buttons"):
            yield Button("Cancel", id="cancel", compact=True)
            yield Button("...", id="go", compact=True, disabled=True)

    @staticmethod
    def _row(label: str, *widgets: Input | Label | Lines) -> Horizontal:
        return Horizontal(Label(label), *widgets, classes="row")

    def _fact(self, label: str, name: str) -> ComposeResult:
        row = self._row(label, Lines(id=name))
        row.styles.height = "auto"
        yield row

    def on_mount(self) -> None:
        # What is within rows comes into being later than the dialog.
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        if not self.query("#cancel"):
            return  # it was closed again at once
        self.query(self.AUTO_FOCUS).first().focus()
        alive = (lease for lease in self._order.leases if lease.alive)
        for lease, lines in zip(alive, self.query(".alive").results(Lines), strict=True):
            lines.show([(f"pid {lease.pid} is alive: its work on {lease.id} may be done twice", "warn")])
        self._show()

    def on_resize(self) -> None:
        # How wide its lines are is known later.
        self.call_after_refresh(self._show)

    def settle(self, order: Order) -> None:
        """What is meant is known by now."""
        self._order = order
        self._is_settled = True
        self._show()

    def fail(self, problem: str) -> None:
        """It cannot be said what is meant."""
        self._failed = safe_text(problem, 400)
        self._show()

    # -- as it is filled in ----------------------------------------------------------------------------

    def _show(self) -> None:
        if not self.query("#go"):
            # It is only just coming into being.
            return
        problem = ""
        is_blank = self._order.action.name == "move" and not self._value("to")
        try:
            order = self._filled_in()
        except DuraqError as error:
            # What nobody has typed yet is no mistake.
            order, problem = self._order, "" if is_blank else safe_text(error, 200)
        self._say("where", safe_text(order.where, 300))
        self._say("effect", self._effect(order))
        self._say("command", safe_text(order.command, 1000), cut=" ... (y copies all of it)")
        button = self.query_one("#go", Button)
        if not self._is_settled:
            self.say_title(f"{words.WORDS[order.action.name].do}: counting what is meant ...")
            self._say("exactly", "" if self._failed else "being counted")
            self._say("wrong", self._failed, "warn")
            return
        self.say_title(words.title(order))
        self._say("exactly", words.exactly(order))
        self._say("queues", safe_text(words.where_they_are(order), 300))
        if not order.count:
            problem = "nothing is meant by this"
        self._say("wrong", problem, "warn")
        button.label = Content(safe_text(words.button(order), 40))
        button.disabled = bool(problem) or is_blank or not self._is_typed()

    def _say(self, name: str, text: str, role: str = "", *, cut: str = " ...") -> None:
        """``cut``: the end of what is too long, so that what is seen of a command is no shorter command."""
        for lines in self.query(f"#{name}").results(Lines):
            shown = wording.wrapped(text, lines.size.width or _NARROW, _MOST, cut)
            lines.show(*([(each, role)] for each in shown))

    @staticmethod
    def _effect(order: Order) -> str:
        undo = order.action.undo
        return order.action.effect + (f" (undo: {undo})" if undo else "")

    def _is_typed(self) -> bool:
        typed = self.query("#typed").results(Input)
        return all(each.value == self._order.queue for each in typed)

    def _value(self, name: str) -> str:
        return "".join(each.value for each in self.query(f"#{name}").results(Input)).strip()

    def _filled_in(self) -> Order:
        """The order with what was typed. Raises InvalidOption, QueueNotFound."""
        rate, failing, to = self._value("rate"), self._value("failing"), self._value("to")
        order = replace(self._order, reason=checked_text("reason", self._value("reason")))
        if rate or failing:
            pace = Pace(_number("a rate", rate), _share(failing)).check(order.action.name)
            order = replace(order, pace=pace)
        if order.action.name == "move":
            snapshot = self.dashboard.snapshot
            for queue in order.meant.queues:
                check_target(queue, to, () if snapshot is None else snapshot.queues)
            order = replace(order, to=check_queue_name(to))
        return order

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._show()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        # Enter in a field agrees to nothing; it goes on to the next.
        event.stop()
        self.focus_next()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "go" and self._is_settled and self._is_typed():
            self.dismiss(self._filled_in())
        else:
            self.action_close()

    def action_close(self) -> None:
        """Nothing is done."""
        if self._stop is not None:
            self._stop()
        self.dismiss(None)

    def action_copy_command(self) -> None:
        """The command to the terminal's clipboard."""
        self.dashboard.copied(self._command())

    def _command(self) -> str:
        try:
            return self._filled_in().command
        except DuraqError:
            return self._order.command


def _number(name: str, text: str) -> float | None:
    from duraq.errors import InvalidOption  # noqa: PLC0415

    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidOption(f"{name} is a number, not {text!r:.40}") from None


def _share(text: str) -> float | None:
    number = _number("a share of those that fail", text.removesuffix("%"))
    return None if number is None else number / 100
