"""Colours by what they mean.

From the Okabe-Ito set: they stay apart for every eye, and no pair is red and green. Each role is a word or a
sign as well.
"""

from __future__ import annotations

from dataclasses import replace

from textual.theme import BUILTIN_THEMES, Theme

# Roles: ok plain text, note dim, warn, crit, flow (rates), dead.
_DARK = {"warn": "#E69F00", "crit": "#FF7A3D", "flow": "#56B4E9", "dead": "#CC79A7"}
_LIGHT = {"warn": "#7A5500", "crit": "#B23F00", "flow": "#00629B", "dead": "#8F3F6C"}
_MONO = {"warn": "#FFFFFF", "crit": "#FFFFFF", "flow": "#D0D0D0", "dead": "#D0D0D0"}
# The terminal's own palette.
_ANSI = {"warn": "ansi_yellow", "crit": "ansi_red", "flow": "ansi_cyan", "dead": "ansi_magenta"}
_ANSI_LIGHT = {"warn": "ansi_red", "crit": "ansi_red", "flow": "ansi_blue", "dead": "ansi_magenta"}


def _roles(colors: dict[str, str]) -> dict[str, str]:
    return {f"role-{name}": color for name, color in colors.items()}


def _theme(
    name: str, roles: dict[str, str], text: str, grounds: tuple[str, str, str], *, dark: bool
) -> Theme:
    background, surface, panel = grounds
    return Theme(
        name=name,
        primary=roles["flow"],
        secondary=roles["dead"],
        warning=roles["warn"],
        error=roles["crit"],
        success=text,
        accent=roles["flow"],
        foreground=text,
        background=background,
        surface=surface,
        panel=panel,
        dark=dark,
        variables=_roles(roles) | {"footer-key-foreground": text},
    )


def _ansi(name: str, roles: dict[str, str]) -> Theme:
    builtin = BUILTIN_THEMES[name]
    return replace(builtin, variables=builtin.variables | _roles(roles))


THEMES = (
    _theme("duraq-dark", _DARK, "#E0E0E0", ("#101418", "#181D22", "#20262C"), dark=True),
    _theme("duraq-light", _LIGHT, "#202020", ("#FAFAF7", "#F0F0EC", "#E4E4DF"), dark=False),
    _theme("duraq-mono", _MONO, "#E0E0E0", ("#000000", "#101010", "#202020"), dark=True),
    _ansi("ansi-dark", _ANSI),
    _ansi("ansi-light", _ANSI_LIGHT),
)
# What a theme of somebody else's has for the roles.
VARIABLES = _roles(_DARK)
