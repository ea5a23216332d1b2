"""A row of bars, each one character wide. They begin at zero: half as much is half as high."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.:-=+*#"


def sparkline(values: Sequence[float], *, peak: float | None = None, ascii_only: bool = False) -> str:
    """A bar for each value, ``peak`` (default: the greatest of them) as high as can be.

    The lowest bar is for nothing at all, and for that only: what is little is still seen.
    """
    bars = ASCII if ascii_only else BLOCKS
    most = max(values, default=0.0) if peak is None else peak
    if most <= 0:
        return bars[0] * len(values)
    steps = len(bars) - 1
    return "".join(bars[min(steps, ceil(max(0.0, value) * steps / most))] for value in values)
