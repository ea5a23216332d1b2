"""The entries of a queue in one state, read page by page as somebody scrolls. Knows no Textual.

What is not read yet has its number for a key, and its id once it is; so whoever looks at an entry stays with
it, and whoever jumps to the end need not wait for all that is in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from duraq.inspector import Inspector
from duraq.model import EntryStatus, last_failure
from duraq.safe_text import safe_text
from duraq.views import EntryView
from duraq_dashboard import wording
from duraq_dashboard.rows import Cell, Cells, Column, Key
from duraq_dashboard.wording import Times

PAGE = 100  # entries
EXCERPT = 240  # characters of a payload, an error or a key

# By the keys and names of the screens, in the order in which an entry goes through them.
STATES: Mapping[str, EntryStatus] = {
    "Ready": EntryStatus.READY,
    "Scheduled": EntryStatus.SCHEDULED,
    "Leased": EntryStatus.LEASED,
    "Dead": EntryStatus.DEAD,
}
_TIMES = {
    EntryStatus.READY: "WAITS",
    EntryStatus.SCHEDULED: "DUE",
    EntryStatus.LEASED: "LEFT",
    EntryStatus.DEAD: "DEAD",
}
_MEDIUM, _WIDE = 75, 107


@dataclass(frozen=True, slots=True)
class EntryLine:
    """What a list says of an entry; its payload is not kept."""

    id: str
    created_at: datetime
    moment: datetime  # since when it is ready or dead, when it is due, until when it is leased
    priority: int
    attempts: int
    size: int
    key: str
    worker: str
    text: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, from the number ``start`` on, and how many there are in all."""

    state: EntryStatus
    start: int
    lines: Sequence[EntryLine]
    count: int


def read_pages(inspector: Inspector, queue: str, state: EntryStatus, numbers: Iterable[int]) -> list[Page]:
    """The pages that these numbers are in."""
    count = getattr(inspector.counts(queue), state.value)
    starts = sorted({number // PAGE * PAGE for number in numbers if number < count} | {0})
    return [
        Page(
            state,
            start,
            [line_of(view) for view in inspector.each_entry(queue, state, limit=PAGE, offset=start)],
            count,
        )
        for start in starts
    ]


def line_of(view: EntryView) -> EntryLine:
    """What a list says of that entry."""
    failure = last_failure(view.history)
    if view.status is EntryStatus.DEAD and failure is not None:
        text = f"{failure.error.type}: {failure.error.message[:EXCERPT]}"
    else:
        text = view.payload[:EXCERPT].decode("utf-8", "backslashreplace")
    moments = {
        EntryStatus.READY: view.ready_since,
        EntryStatus.SCHEDULED: view.ready_at,
        EntryStatus.LEASED: view.deadline_at,
    }
    return EntryLine(
        view.id,
        view.created_at,
        moments.get(view.status) or view.updated_at,
        view.priority,
        view.attempts,
        len(view.payload),
        safe_text(view.key or "", EXCERPT),
        safe_text(view.worker, EXCERPT),
        safe_text(text, EXCERPT),
    )


def columns(state: EntryStatus) -> Sequence[Column]:
    """What is told of entries in that state."""
    return (
        Column("ENQUEUED", 11),
        Column(_TIMES[state], 7, right=True),
        Column("ID", 10),
        Column("PRI", 4, right=True, from_width=_MEDIUM),
        Column("TRY", 4, right=True),
        Column("SIZE", 8, right=True, from_width=_MEDIUM),
        Column("WORKER" if state is EntryStatus.LEASED else "KEY", 16, from_width=_WIDE),
        Column("ERROR" if state is EntryStatus.DEAD else "PAYLOAD"),
    )


class EntryRows:
    """Rows of a list: as many as there are, of which some pages are known."""

    def __init__(self, count: int, pages: Iterable[Page], now: datetime, times: Times) -> None:
        self._count = count
        self._now = now
        self._times = times
        self._lines = {
            page.start + at: line
            for page in pages
            for at, line in enumerate(page.lines)
            if page.start + at < count
        }
        self._numbers = {line.id: number for number, line in self._lines.items()}

    def __len__(self) -> int:
        return self._count

    def key(self, number: int) -> Key:
        line = self._lines.get(number)
        return number if line is None else line.id

    def find(self, key: Key) -> int | None:
        if isinstance(key, int):
            return key if key < self._count else None
        return self._numbers.get(str(key))

    def still(self, keys: set[Key]) -> set[Key]:
        return {key for key in keys if self.find(key) is not None}

    def line(self, number: int) -> EntryLine | None:
        """What is known of the entry of that number."""
        return self._lines.get(number)

    def cells(self, number: int) -> Cells | None:
        line = self._lines.get(number)
        return None if line is None else self._cells(line)

    def _cells(self, line: EntryLine) -> Sequence[Cell]:
        due = line.moment - self._now
        return (
            wording.brief(wording.moment(line.created_at, self._now, self._times)),
            wording.age(abs(due)),
            f"..{line.id[-8:]}",
            str(line.priority),
            str(line.attempts),
            wording.size(line.size),
            line.worker or line.key,
            line.text,
        )
