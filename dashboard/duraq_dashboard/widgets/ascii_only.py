"""Nothing but ASCII goes to the terminal: the last thing that is done to each line before it is drawn."""

from __future__ import annotations

from functools import lru_cache

from rich.cells import get_character_cell_size
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

# Lines and corners of boxes, bars, and what scrolls; by how they look.
_LIKE = {
    **dict.fromkeys("─━═▁▔╌╍┄┅", "-"),
    **dict.fromkeys("│┃║▏▕▎▌▐╎╏┆┇", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯╔╗╚╝┏┓┗┛┣┫┳┻╋", "+"),
    **dict.fromkeys("▂▃▄▅▆▇█▀■▪●", "#"),
    **dict.fromkeys("•·", "*"),
    "…": ".",
    "\N{NO-BREAK SPACE}": " ",
}
UNKNOWN = "?"


class AsciiOnly(LineFilter):
    """Each character takes as many cells as before."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002
        return [
            segment
            if segment.text.isascii()
            else Segment(_ascii(segment.text), segment.style, segment.control)
            for segment in segments
        ]


@lru_cache(1024)
def _ascii(text: str) -> str:
    return "".join(each if each.isascii() else _like(each) for each in text)


def _like(character: str) -> str:
    return _LIKE.get(character) or UNKNOWN * get_character_cell_size(character)
