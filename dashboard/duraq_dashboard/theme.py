"""Colours by what they mean, from the Okabe-Ito set.

They stay apart for every eye, and no pair is red and green. Each role is a word or a sign as well.
"""

from __future__ import annotations

from textual.theme import Theme

# Roles: ok plain text, note dim, warn, crit, flow (rates), dead.
_DARK = {"warn": "#E69F00", "crit": "#FF7A3D", "flow": "#56B4E9", "dead": "#CC79A7"}
_LIGHT = {"warn": "#8A5F00", "crit": "#B23F00", "flow": "#00629B", "dead": "#8F3F6C"}

THEMES = (
    Theme(
        name="duraq-dark",
        primary="#56B4E9",
        secondary="#CC79A7",
        warning=_DARK["warn"],
        error=_DARK["crit"],
        success="#E0E0E0",
        accent="#56B4E9",
        foreground="#E0E0E0",
        background="#101418",
        surface="#181D22",
        panel="#20262C",
        dark=True,
        variables={f"role-{name}": color for name, color in _DARK.items()},
    ),
    Theme(
        name="duraq-light",
        primary="#00629B",
        secondary="#8F3F6C",
        warning=_LIGHT["warn"],
        error=_LIGHT["crit"],
        success="#202020",
        accent="#00629B",
        foreground="#202020",
        background="#FAFAF7",
        surface="#F0F0EC",
        panel="#E4E4DF",
        dark=False,
        variables={f"role-{name}": color for name, color in _LIGHT.items()},
    ),
)
