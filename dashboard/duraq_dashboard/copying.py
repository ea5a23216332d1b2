"""What a screen offers to copy, and to open in a pager. Knows no Textual."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from duraq.cli.foreground import left_to_program


@dataclass(frozen=True, slots=True)
class Copyable:
    """Something that can be copied: the key that does it in the menu, what it is, and the text itself."""

    key: str
    label: str
    text: str


def pager() -> Sequence[str]:
    """The command that shows a text that is longer than the screen."""
    return shlex.split(os.environ.get("PAGER") or "less")


def show_in_pager(text: str) -> None:
    """Show the text, until whoever reads it leaves. OSError, ValueError: there is no such program."""
    with left_to_program():
        subprocess.run(  # noqa: S603 - the pager is what the user named
            pager(), input=text, encoding="utf-8", errors="backslashreplace", check=False
        )
