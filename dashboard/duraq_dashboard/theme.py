"""Colours by what they mean. They stay apart for every eye, and each role is a word or a sign as well.

Blue and purple are of the Okabe-Ito set; its orange and vermillion are too near to each other for some eyes,
so yellow and red stand for them, brown and vermillion on a light ground. Tests measure it.
"""

from __future__ import annotations

from dataclasses import replace

from textual.theme import BUILTIN_THEMES, Theme

# Roles: ok plain text, note dim, warn, crit, flow (rates), dead.
_DARK = {"note": "#9AA3AB", "warn": "#FFCC00", "crit": "#F37171", "flow": "#56B4E9", "dead": "#D98CB5"}
_LIGHT = {"note": "#595F64", "warn": "#462905", "crit": "#A54A0D", "flow": "#00629B", "dead": "#8F3F6C"}
_MONO = {"note": "#A0A0A0", "warn": "#FFFFFF", "crit": "#FFFFFF", "flow": "#D0D0D0", "dead": "#D0D0D0"}
# What the row under the cursor stands on.
CURSOR = "row-cursor"
# The terminal's own palette.
_ANSI = {
    "note": "ansi_default",
    "warn": "ansi_yellow",
    "crit": "ansi_red",
    "flow": "ansi_cyan",
    "dead": "ansi_magenta",
}
_ANSI_LIGHT = {
    "note": "ansi_default",
    "warn": "ansi_red",
    "crit": "ansi_red",
    "flow": "ansi_blue",
    "dead": "ansi_magenta",
}


def _roles(colors: dict[str, str]) -> dict[str, str]:
    return {f"role-{name}": color for name, color in colors.items()}


def _theme(
    name: str, roles: dict[str, str], text: str, grounds: tuple[str, str, str, str], *, dark: bool
) -> Theme:
    background, surface, panel, cursor = grounds
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
        variables=_roles(roles) | {CURSOR: cursor},
    )


def _ansi(name: str, roles: dict[str, str]) -> Theme:
    builtin = BUILTIN_THEMES[name]
    return replace(builtin, variables=builtin.variables | _roles(roles) | {CURSOR: "ansi_default"})


THEMES = (
    _theme("duraq-dark", _DARK, "#E0E0E0", ("#101418", "#181D22", "#20262C", "#1E3442"), dark=True),
    _theme("duraq-light", _LIGHT, "#202020", ("#FAFAF7", "#F0F0EC", "#E4E4DF", "#DCE8EC"), dark=False),
    _theme("duraq-mono", _MONO, "#E0E0E0", ("#000000", "#101010", "#202020", "#303030"), dark=True),
    _ansi("ansi-dark", _ANSI),
    _ansi("ansi-light", _ANSI_LIGHT),
)
# What a theme of somebody else's has for the roles.
VARIABLES = _roles(_DARK) | {CURSOR: "#1E3442"}
