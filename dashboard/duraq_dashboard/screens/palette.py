"""Everything that can be done here, by name: type a few letters, and Enter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from duraq.actions import ACTIONS
from duraq.safe_text import safe_text
from duraq_dashboard.commands import Command, matching
from duraq_dashboard.screens.base import BaseScreen
from duraq_dashboard.screens.help import MOVE, group_of
from duraq_dashboard.widgets.choices import Choices
from duraq_dashboard.widgets.key_bar import hints, key_name
from duraq_dashboard.widgets.modal import Modal
from duraq_dashboard.wording import fit

if TYPE_CHECKING:
    from duraq_dashboard.app import Dashboard

MOST = 100  # that are listed at once
_WIDEST, _KEY = 66, 8


def commands_of(app: Dashboard) -> list[Command]:
    """What can be done, what is looked at, where one can go, and then how one gets about."""
    screen = app.screen
    offered = [hint for hint in hints(screen) if not hint.id.startswith(("show.", "palette", "act."))]
    # As if the key had been pressed: whatever the focus is on has a say.
    found = [
        (group_of(hint), Command(hint.title, key_name(hint.keys[0]), partial(app.simulate_key, hint.keys[0])))
        for hint in offered
    ]
    screens = [
        Command(f"Go to {title}", str(number), partial(app.action_show, mode))
        for number, (mode, title) in enumerate(app.main_screens(), 1)
    ]
    queues = [
        Command(f"Go to queue {name}", "", partial(app.open_queue, name))
        for name in (app.snapshot.queues if app.snapshot is not None else ())
    ]
    actions = []
    if isinstance(screen, BaseScreen) and not app.read_only:
        actions = [
            Command(f"{name}: {action.summary}", action.key or "", partial(screen.action_act, name))
            for name, action in ACTIONS.items()
        ]
    looks = [command for group, command in found if group != MOVE]
    moves = [command for group, command in found if group == MOVE]
    return actions + looks + screens + queues + moves


class PaletteScreen(Modal[Command | None]):
    """Ends with what is to be done, or with None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "back", id="palette.close"),
        Binding("down", "move('down')", "next", show=False, id="palette.down"),
        Binding("up", "move('up')", "previous", show=False, id="palette.up"),
    ]

    def __init__(self, commands: Sequence[Command]) -> None:
        super().__init__()
        self._commands = commands
        self._listed: Sequence[Command] = ()

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Command palette", classes="title", markup=False)
            field = Input(placeholder="what is to be done", compact=True)
            field.cursor_blink = False
            yield field
            yield Choices()

    def on_mount(self) -> None:
        # At once, and not a moment later as by focus(): the next letter is on its way.
        self.set_focus(self.query_one(Input))
        self._show("")

    def on_resize(self) -> None:
        self._show(self.query_one(Input).value)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._show(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        at = self.query_one(Choices).highlighted
        if at is not None:
            self.dismiss(self._listed[at])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._listed[event.option_index])

    def action_close(self) -> None:
        """Do nothing."""
        self.dismiss(None)

    def action_move(self, direction: str) -> None:
        """To the next one, or to the one before."""
        listed = self.query_one(Choices)
        if direction == "down":
            listed.action_cursor_down()
        else:
            listed.action_cursor_up()

    def _show(self, text: str) -> None:
        self._listed = matching(self._commands, text)[:MOST]
        options = self.query_one(Choices)
        options.clear_options()
        width = max(0, min(_WIDEST, self.app.size.width - _KEY - 10))
        options.add_options(Option(_prompt(command, width)) for command in self._listed)
        options.highlighted = 0 if self._listed else None


def _prompt(command: Command, width: int) -> Content:
    title = fit(safe_text(command.title, _WIDEST), width)
    return Content.assemble(f"{title:<{width}}", (f"{command.key:>{_KEY}}", "bold"))
