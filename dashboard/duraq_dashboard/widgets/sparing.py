"""Of what is repainted, not a cell more is sent to the terminal than differs.

Textual 8 sends the piece of a line that differs together with all that is to the left of it in its widget.
Over ssh, and in a list with many columns of which the last ones change, that is most of what is sent.
"""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.control import Control
from textual._compositor import ChopsUpdate


class SparingUpdate(ChopsUpdate):
    """The same update, its pieces cut at both ends."""

    def render_segments(self, console: Console) -> str:
        pieces = []
        for y, start, stop in self.spans:
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                left, right = max(x, start), min(end, stop)
                if strip is not None and left < right:
                    pieces += [
                        Control.move_to(left, y).segment.text,
                        strip.crop(left - x, right - x).render(console),
                    ]
        return "".join(pieces)


def sparing(update: RenderableType | None) -> RenderableType | None:
    """The update, made sparing if it is one of only some places."""
    if type(update) is ChopsUpdate:
        return SparingUpdate(update.chops, update.spans, update.chop_ends)
    return update
