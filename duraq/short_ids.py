"""An entry by a part of its id, as people read it off a screen.

The first or the last eight characters or more of an id that DuraQ made; of one of your own a part may be
somebody else's whole. Or, of any id, two dots and its end, as the screens show it: ``..1f2e3d4c``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LEAST = 8  # characters
TOLD = 10  # entries that are named if several may be meant
_MADE = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
_HEX, _ANY = "[0-9a-f]", "[A-Za-z0-9._:@/+=-]"
_BEGINNING = re.compile(rf"{_HEX}{{8}}[0-9a-f-]{{0,27}}")
_END = re.compile(rf"\.\.({_ANY}{{{LEAST},127}})")


def like(part: str) -> re.Pattern[bytes] | None:
    """What the whole id is like; None if that is no part of one."""
    if ending := _END.fullmatch(part):
        return re.compile(f"{_ANY}*{re.escape(ending[1])}".encode())
    if _BEGINNING.fullmatch(part) is None:
        return None
    rest, before = (_made(_MADE[len(part) :]), _made(_MADE[: -len(part)]))
    return re.compile(f"{part}{rest}|{before}{part}".encode())


def _made(signs: str) -> str:
    return "".join("-" if sign == "-" else _HEX for sign in signs)


def too_short(part: str) -> str:
    """What to add where nothing was found, if that might be a part of an id, but says too little."""
    is_part = re.fullmatch(f"(?:\\.\\.)?{_HEX}{{1,{LEAST - 1}}}", part) is not None
    return f"; a part of an id has {LEAST} characters at least" if is_part else ""


def several(part: str, found: Sequence[str]) -> str:
    """That more than one entry may be meant."""
    named = ", ".join(found[:TOLD])
    more = ", and more" if len(found) > TOLD else ""
    return f"several entries are called {part}: {named}{more}; say more of the id"
