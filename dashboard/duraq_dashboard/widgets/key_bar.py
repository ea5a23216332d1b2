"""The line at the bottom: what can be done here, and by which key.

What it shows are the bindings themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual import events
from textual.binding import Binding
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

GAP = "  "
# Whatever else there is no room for.
LAST = ("leave", "help")

_NAMES = {
    "enter": "Enter",
    "escape": "Esc",
    "space": "Space",
    "tab": "Tab",
    "shift+tab": "S-Tab",
    "up": "Up",
    "down": "Down",
    "left": "Left",
    "right": "Right",
    "home": "Home",
    "end": "End",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "slash": "/",
    "question_mark": "?",
    "exclamation_mark": "!",
    "colon": ":",
    "comma": ",",
    "minus": "-",
    "asterisk": "*",
    "plus": "+",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "full_stop": ".",
    "equals_sign": "=",
}


def key_name(key: str) -> str:
    """A key as people call it: Enter, /, ^p."""
    if key in _NAMES:
        return _NAMES[key]
    return f"^{key.removeprefix('ctrl+')}" if key.startswith("ctrl+") else key


@dataclass(frozen=True)
class Hint:
    """A binding with all of its keys."""

    keys: tuple[str, ...]
    label: str
    action: str
    id: str
    shown: bool

    @property
    def title(self) -> str:
        """What it does, as the beginning of a sentence."""
        return self.label[:1].upper() + self.label[1:]

    @property
    def text(self) -> str:
        """Keys and label, as they stand in the bar."""
        return f"{' '.join(map(key_name, self.keys))} {self.label}"


def hints(screen: Screen[object]) -> list[Hint]:
    """All that can be done on the screen as it is now; several keys for one thing are one hint."""
    found: dict[tuple[str, str], list[Binding]] = {}
    # A modal screen has none: there, keys never do anything else than they say.
    label_of = getattr(screen, "label_of", _description)
    for active in screen.active_bindings.values():
        # Textual's own bindings have no id: keys for scrolling sideways, for instance, where nothing does.
        if active.enabled and active.binding.id and active.binding.description:
            binding = active.binding
            found.setdefault((binding.action, label_of(binding)), []).append(binding)
    return [
        Hint(
            tuple(dict.fromkeys(each.key_display or each.key for each in every)),
            label,
            action,
            every[0].id or "",
            any(each.show for each in every),
        )
        for (action, label), every in found.items()
    ]


def _description(binding: Binding) -> str:
    return binding.description


def fitting(every: Iterable[Hint], width: int) -> list[Hint]:
    """As many of the hints that are to be shown as there is room for, each whole."""
    shown = [hint for hint in every if hint.shown]
    last = [hint for name in LAST for hint in shown if hint.id == name]
    first = [hint for hint in shown if hint not in last]
    room = width - sum(len(hint.text) + len(GAP) for hint in last)
    kept = []
    for hint in first:
        # A longer one that does not fit gives way to a shorter one behind it.
        if len(hint.text) + len(GAP) <= room:
            room -= len(hint.text) + len(GAP)
            kept.append(hint)
    return kept + last


class KeyBar(Static):
    """Keys that do something here. A click does the same."""

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._shown: list[tuple[int, Hint]] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._show)
        self._show(self.screen)

    def on_resize(self) -> None:
        self._show(self.screen)

    def on_click(self, event: events.Click) -> None:
        for at, hint in self._shown:
            if at <= event.x < at + len(hint.text):
                self.app.simulate_key(hint.keys[0])

    def _show(self, screen: Screen[object]) -> None:
        if not self.is_attached or not screen.is_current:
            return
        at, shown = 0, []
        pieces: list[tuple[str, str]] = []
        for hint in fitting(hints(screen), self.app.size.width):
            shown.append((at, hint))
            keys = " ".join(map(key_name, hint.keys))
            pieces += [(keys, "bold"), (f" {hint.label}{GAP}", "")]
            at += len(hint.text) + len(GAP)
        if shown != self._shown:
            self._shown = shown
            self.update(Content.assemble(*pieces), layout=False)
