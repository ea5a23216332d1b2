"""What the cuts have shown, as text and as the table of a document."""

from __future__ import annotations

import platform
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.power.trial import LONGEST, SHORTEST, Figures

HEAD = ("queue", "version", "acknowledged", "lost", "altered", "unreadable")
TITLES = {"ext4": "ext4", "xfs": "XFS"}
BEGIN, END = "<!-- make power-cuts writes this -->", "<!-- up to here -->"
METHOD = f"""\
Each queue is made on a file system of its own in a loop device and given one entry, and all of that is
synced. A process then enqueues texts of up to 600 bytes for {SHORTEST} to {LONGEST} s, and says which calls
have returned; it is stopped, the kernel is told by `FS_IOC_SHUTDOWN` to write nothing more, and the file
system is mounted again. *Acknowledged* is what was said before that; *lost* is what another process then does
not read of it; *altered* is what it reads though nobody has enqueued it so; *unreadable* counts the cuts
after which opening or reading ends in an error."""


@dataclass
class Outcome:
    """The figures of each queue, with its version, on that kind of file system, and why others have none."""

    kind: str
    cuts: int
    figures: list[tuple[str, str, Figures]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{TITLES[self.kind]}, {self.cuts} cuts each"

    def rows(self) -> list[tuple[str, ...]]:
        return [
            (title, version, *(f"{getattr(found, name):,}" for name in HEAD[2:]))
            for title, version, found in self.figures
        ]

    def notes(self) -> list[str]:
        """What the table cannot say."""
        met = [
            f"{title}, where it was unreadable: {found.error}"
            for title, _, found in self.figures
            if found.error
        ]
        return met + [f"{title} is left out: {why}" for title, why in self.left_out]


def as_text(outcome: Outcome) -> str:
    rows = [HEAD, *outcome.rows()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([outcome.title, *lines, *outcome.notes()])


def as_markdown(outcomes: Sequence[Outcome], command: str) -> str:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    where = f"Linux {platform.release()}, {python}, SQLite {sqlite3.sqlite_version}"
    parts = [METHOD, f"By `{command}`, on {where}:"]
    for outcome in outcomes:
        rows = [HEAD, ("---", "---", "---:", "---:", "---:", "---:"), *outcome.rows()]
        parts.append(f"**{outcome.title}**")
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
        parts += ["\n".join(f"- {note}" for note in outcome.notes())] if outcome.notes() else []
    return "\n\n".join(parts)


def write_into(page: Path, text: str) -> None:
    """Put the text between the two marks of that page."""
    before = page.read_text()
    after, found = re.subn(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}",
        lambda _: f"{BEGIN}\n\n{text}\n\n{END}",
        before,
        flags=re.DOTALL,
    )
    if found != 1:
        raise ValueError(f"{page} has {found} places for the table")
    page.write_text(after)
