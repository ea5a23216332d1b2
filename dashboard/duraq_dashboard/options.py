"""How a dashboard is to be. Knows no Textual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from duraq_dashboard.remembered import Remembered

# By name; ``theme`` has what they look like.
THEMES = ("duraq-dark", "duraq-light", "duraq-mono", "ansi-dark", "ansi-light")


@dataclass(frozen=True)
class Options:
    """What is chosen when it is begun.

    ``fps``: how often a second what is new is drawn, at most; keys are answered at once.
    ``start``: the screen, queue or entry to open at, as it was typed. ``rule``: what named the storage.
    ``remembered``: None: nothing is remembered. ``served``: whoever looks is at the other end of a
    socket, so no program is started for him here.
    """

    theme: str | None = None
    ascii_only: bool = False
    fps: float = 10
    start: str | None = None
    dead_letters: bool = False
    rule: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    remembered: Remembered | None = None
    without_color: bool = False
    served: bool = False
