"""Dead letters, and groups of them, as rows of a list. Knows no Textual."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from duraq.dead_index import ErrorKind
from duraq.model import last_failure
from duraq.safe_text import safe_text
from duraq.signature import normalised
from duraq.sparkline import sparkline
from duraq.views import EntryView
from duraq_dashboard import wording
from duraq_dashboard.history import number_of
from duraq_dashboard.letters import Group
from duraq_dashboard.rows import Cell, Cells, Column, Key
from duraq_dashboard.snapshot import Snapshot
from duraq_dashboard.view_model import AN_HOUR

_MEDIUM, _WIDE = 68, 96
LETTER_COLUMNS = (
    Column("DIED", 11),
    Column("QUEUE", 12, from_width=50),
    Column("ID", 10, from_width=_MEDIUM),
    Column("TRY", 3, right=True),
    Column("SIZE", 8, right=True, from_width=_WIDE),
    Column("ERROR"),
)
GROUP_COLUMNS = (Column("COUNT", 7, right=True), Column("LAST", 6, right=True), Column("SIGNATURE"))
EXCERPT = 240  # characters of an error
When = Callable[[datetime], str]


@dataclass(frozen=True, slots=True)
class LetterLine:
    """What a list says of a dead letter; its payload is not kept."""

    died: datetime
    queue: str
    id: str
    attempts: int
    size: int
    error: str

    @classmethod
    def of(cls, view: EntryView) -> Self:
        """Of that letter."""
        return cls(view.updated_at, view.queue, view.id, view.attempts, len(view.payload), error_of(view))

    def cells(self, when: When) -> Cells:
        """The same as a row."""
        return (
            wording.brief(when(self.died)),
            self.queue,
            f"..{self.id[-8:]}",
            str(self.attempts),
            wording.size(self.size),
            self.error,
        )


def error_of(view: EntryView) -> str:
    """What it died of, in a line."""
    last = last_failure(view.history)
    if last is None:
        return wording.NOTHING
    return safe_text(f"{last.error.type}: {last.error.message[:EXCERPT]}", EXCERPT)


def name_of(view: EntryView) -> str:
    """What all errors of its kind have in common, in a line."""
    last = last_failure(view.history)
    if last is None:
        return wording.NOTHING
    return safe_text(f"{last.error.type} {normalised(last.error.message)}", EXCERPT)


class GroupRows:
    """Groups of dead letters. ``names``: of those of which one letter was read already."""

    def __init__(self, groups: Sequence[Group], names: Mapping[ErrorKind, str], now: datetime) -> None:
        self.groups = groups
        self._names = names
        self._now = now
        self._numbers = {group.cause: number for number, group in enumerate(groups)}

    def __len__(self) -> int:
        return len(self.groups)

    def key(self, number: int) -> Key:
        return self.groups[number].cause

    def find(self, key: Key) -> int | None:
        return self._numbers.get(key)  # type: ignore[call-overload, no-any-return] # a key of any list

    def still(self, keys: set[Key]) -> set[Key]:
        return keys & self._numbers.keys()

    def cells(self, number: int) -> Cells:
        group = self.groups[number]
        name = self._names.get(group.cause) or group.cause.type or wording.NOTHING
        return wording.count(group.letters), wording.age(self._now - group.last), name

    def unnamed(self, numbers: range) -> list[Group]:
        """Those of them whose name is not known."""
        return [self.groups[number] for number in numbers if self.groups[number].cause not in self._names]


def group_lines(
    group: Group, total: int, when: When, *, ascii_only: bool, keys: Sequence[Sequence[Cell]] = ()
) -> list[Sequence[Cell]]:
    """More of one group. ``keys``: what they do with it just now."""
    bars = sparkline(group.hours or [0] * 24, ascii_only=ascii_only)
    return [
        [("24h ", "note"), (bars, "flow"), f" 0..{max(group.hours, default=0)}/h"],
        # As wide on one day as on another.
        f"first {wording.brief(when(group.first)):<11}   last {wording.brief(when(group.last))}",
        f"{wording.count(group.letters)} of {wording.count(total)}",
        *keys,
    ]


def group_keys(group: Group, *, narrowed: bool, acts: bool) -> Sequence[Sequence[Cell]]:
    """What keys do with the group while the list of groups has them.

    ``narrowed``: only its letters are listed. ``acts``: what changes something is done to it, not to letters
    that are picked.
    """
    found: list[Sequence[Cell]] = [
        [("Enter", "bold"), "  all again" if narrowed else "  only these, Esc all again"]
    ]
    if acts:
        found.append([("R", "bold"), f"  retry all {wording.count(group.letters)} (asks first)"])
    return found


def totals(snapshot: Snapshot, now: datetime, told: Cell, picked: int) -> list[Cell]:
    """How many there are, how many died lately, how far the counting is, and how many are selected."""
    queues = snapshot.queues.values()
    metrics = [queue.metrics for queue in queues if queue.metrics is not None]
    died = sum(number_of(each, ("dead",), AN_HOUR, now) for each in metrics)
    text, role = (told, "") if isinstance(told, str) else told
    return [
        (f" DLQ {wording.count(sum(queue.view.counts.dead for queue in queues))}", "dead"),
        f"  +{wording.count(died)} last hour",
        (f"  {text}" if text else "", role),
        f"  {wording.count(picked)} selected" if picked else "",
    ]
