"""Storages near a place where there is none: somebody may have mistyped its name. Knows no Textual."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from duraq.model import MARKER, is_users

# So many names of a directory are looked at.
MOST = 2000


def nearby(path: str) -> list[tuple[str, int]]:
    """Storages of almost that name, with how many queues they hold; the nearest first.

    Raises nothing: a place that cannot be looked into has none.
    """
    place = Path(path).absolute()
    names = [name for name in _names(place.parent) if name != place.name]
    near = get_close_matches(place.name, names, 5)
    found = [place.parent / name for name in near]
    # Or it is one level down, or up.
    found += [place / name for name in _names(place)[:20]] + list(place.parents[:1])
    return [(str(each), queues_in(each)) for each in found if _is_there(each / MARKER)][:3]


def queues_in(storage: Path) -> int:
    """How many queues it has."""
    return sum(1 for name in _names(storage) if is_users(name) and _is_there(storage / name / "segments"))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _names(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as found:
            return sorted(each.name for _, each in zip(range(MOST), found, strict=False) if each.is_dir())
    except OSError:
        return []
