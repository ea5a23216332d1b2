"""How far an action is, and how it ended. Esc hides it, and it goes on."""

from __future__ import annotations

import time
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from duraq.actions import ACTIONS
from duraq.safe_text import safe_text
from duraq_dashboard import wording
from duraq_dashboard.dialogs import words
from duraq_dashboard.dialogs.base import Dialog
from duraq_dashboard.doing import Doing, Progress
from duraq_dashboard.orders import Selection
from duraq_dashboard.widgets.lines import Lines

_BAR = 60  # characters


class ProgressDialog(Dialog[None]):
    """Of one order that is being carried out."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "hide", id="dialog.close"),
        Binding("enter", "close_result", "close", show=False, id="dialog.done"),
        Binding("c", "stop", "stop", id="dialog.stop"),
        Binding(ACTIONS["undo"].key or "", "undo", "undo", id="dialog.undo"),
    ]

    def __init__(self, doing: Doing, progress: Progress) -> None:
        super().__init__()
        self._doing = doing
        self.progress = progress

    def compose_box(self) -> ComposeResult:
        yield Lines(id="bar")
        yield Lines(id="numbers")
        yield Lines(id="keys")

    def on_mount(self) -> None:
        self.show(self.progress)

    def show(self, progress: Progress) -> None:
        """How far it is by now."""
        self.progress = progress
        # It stays attached while it is taken away, and its parts go before it does.
        if not (self.is_mounted and self.is_running):
            return
        order = self._doing.order
        filled = (
            _BAR if not progress.count else _BAR * (progress.done + progress.passed_over) // progress.count
        )
        self.query_one("#bar", Lines).show([("#" * filled + "." * (_BAR - filled), "flow")])
        numbers, keys = self.query_one("#numbers", Lines), self.query_one("#keys", Lines)
        if progress.is_over:
            self.say_title(f"{words.WORDS[order.action.name].doing}: over")
            role = "crit" if progress.error else "warn" if progress.passed_over or progress.stopped else ""
            numbers.show([(safe_text(words.result(order, progress), 500), role)])
            undo = "U undoes it, also later within seven days.  " if self._can_be_undone else ""
            keys.show([(f"{undo}Esc or Enter closes", "note")])
        else:
            self.say_title(words.going(order, progress) + self._left(progress))
            numbers.show(words.numbers(order, progress))
            stops = "    c stops it" if self._can_be_stopped else ""
            keys.show([(f"Esc hides it, and it goes on{stops}", "note")])

    @property
    def _can_be_stopped(self) -> bool:
        """What is done to one thing is done in one step."""
        return self.progress.count > 1

    @property
    def _can_be_undone(self) -> bool:
        progress = self.progress
        return progress.is_over and progress.done > 0 and self._doing.order.action.name == "remove"

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Nothing is offered that cannot be done."""
        if action == "stop":
            return self._can_be_stopped
        if action == "undo":
            return self._can_be_undone
        return super().check_action(action, parameters)

    def _left(self, progress: Progress) -> str:
        took = time.monotonic() - self._doing.began
        if progress.done < 2 or took < 1:
            return ""
        rate = progress.done / took
        return f"   {wording.rate(rate)}/s, {wording.seconds(progress.left / rate)} left"

    def action_stop(self) -> None:
        """Do no more; what is done stays done."""
        self._doing.stop()

    def action_undo(self) -> None:
        """Ask whether what was removed here shall be brought back."""
        self.dismiss(None)
        self.dashboard.begin("undo", Selection(act=self.progress.act, number=self.progress.done))

    def action_close_result(self) -> None:
        """Close it once it is over."""
        if self.progress.is_over:
            self.dismiss(None)
