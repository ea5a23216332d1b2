"""Lines of a list as what goes to the terminal: texts that fit, in few pieces, and only where they differ."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from duraq.safe_text import safe_text
from duraq_dashboard.rows import GAP, Cells
from duraq_dashboard.wording import fit

_NEAR = 10  # cells


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """The text, made safe, in so many cells."""
    shown = safe_text(text, width)
    if shown.isascii():
        return shown.rjust(width) if right else shown.ljust(width)
    shown = fit(shown, width)
    if right:
        shown = " " * (width - cell_len(shown)) + shown
    return set_cell_size(shown, width)


def strip_of(pieces: Iterable[tuple[str, Style]], width: int, style: Style) -> Strip:
    """Pieces of text as a line."""
    line = Strip([Segment(text, look) for text, look in pieces if text])
    # Neighbours that look the same are one: each piece takes its colours along to the terminal.
    return line.adjust_cell_length(width, style).simplify()


def differing(old: Cells, new: Cells, shown: Iterable[tuple[int, int]], x: int) -> list[tuple[int, int]]:
    """Where a row differs, each place by where it begins and its width.

    ``shown``: the columns, each by its index and its width; ``x``: where the first begins.
    """
    found: list[tuple[int, int]] = []
    for index, room in shown:
        if old[index : index + 1] != new[index : index + 1]:
            if found and x - sum(found[-1]) <= _NEAR:
                # To begin anew costs more than to go on over what has not changed.
                found[-1] = (found[-1][0], x + room - found[-1][0])
            else:
                found.append((x, room))
        x += room + GAP
    return found
