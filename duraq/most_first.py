"""Things by how many there are of each: one order, wherever that is shown."""

from __future__ import annotations

from collections.abc import Mapping


def most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Each with its number, the largest number first; of equal ones by name."""
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))
