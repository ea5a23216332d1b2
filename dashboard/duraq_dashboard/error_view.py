"""What of the failures is shown, and in which words. Knows no Textual."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from duraq.failures import By, FailureGroup, Failures
from duraq.fates import Sample
from duraq.safe_text import safe_text
from duraq.sparkline import sparkline
from duraq_dashboard import wording
from duraq_dashboard.rows import Cells, Column, Key
from duraq_dashboard.wording import Times

# The name of a window, and how long it is.
WINDOWS = (
    ("5m", timedelta(minutes=5)),
    ("1h", timedelta(hours=1)),
    ("24h", timedelta(hours=24)),
    ("7d", timedelta(days=7)),
)
BYS = {By.SIGNATURE: "signature", By.TYPE: "type", By.QUEUE: "queue"}
_MEDIUM, _WIDE = 75, 107
COLUMNS = (
    Column("ATTEMPTS", 8, right=True),
    Column("/min", 6, right=True, from_width=_MEDIUM),
    Column("TREND", 16, from_width=_WIDE),
    Column("FIRST", 6, right=True, from_width=_WIDE),
    Column("LAST", 6, right=True),
    Column("QUEUES", 16, from_width=_WIDE),
    Column("OK", 6, right=True, from_width=_MEDIUM),
    Column("WAIT", 6, right=True, from_width=_MEDIUM),
    Column("DEAD", 6, right=True),
    Column("ERROR"),
)
_LONGEST = 300

SORTS: Mapping[str, Callable[[FailureGroup], float]] = {
    "count": lambda group: -group.count,
    "newest": lambda group: -group.last.timestamp(),
    "dead": lambda group: -group.dead,
    "waiting": lambda group: -group.waiting,
}
ABOUT = "One signature: one type, one function, and messages that differ in numbers, ids and the like only."


def title(group: FailureGroup) -> str:
    """What the failures of a group have in common, in a line."""
    text = f"{group.error.type}: {group.message}" if group.message else group.error.type
    return safe_text(text, _LONGEST)


def admits(group: FailureGroup, words: Sequence[str]) -> bool:
    """Whether each word is somewhere in what is said of the group."""
    said = " ".join((title(group), group.error.frame, group.key, *group.queues)).lower()
    return all(word.lower() in said for word in words)


def chosen(failures: Failures, sort: str, words: Sequence[str]) -> list[FailureGroup]:
    """The groups that are shown, in that order."""
    found = [group for group in failures.groups if admits(group, words)]
    return sorted(found, key=lambda group: (SORTS[sort](group), -group.count, group.key))


def rows(
    groups: Sequence[FailureGroup], window: timedelta, now: datetime, *, ascii_only: bool
) -> list[tuple[Key, Cells]]:
    """Each group as a row."""
    return [(group.key, _cells(group, window, now, ascii_only=ascii_only)) for group in groups]


def _cells(group: FailureGroup, window: timedelta, now: datetime, *, ascii_only: bool) -> Cells:
    per_minute = group.count / (window / timedelta(minutes=1))
    dead = wording.count(group.dead)
    text = title(group)
    return (
        wording.count(group.count),
        wording.rate(per_minute),
        (sparkline(group.trend, ascii_only=ascii_only), "flow"),
        wording.age(now - group.first),
        wording.age(now - group.last),
        ",".join(group.queues),
        wording.count(group.ok),
        wording.count(group.waiting),
        (dead, "dead") if group.dead else dead,
        (f"NEW {text}", "warn") if group.is_new else text,
    )


def totals(failures: Failures, window: str, room: int) -> str:
    """All of them in a line: the longest that there is room for."""
    ok, waiting, dead = (
        sum(getattr(each, fate) for each in failures.groups) for fate in ("ok", "waiting", "dead")
    )
    count = wording.plural(failures.count, "failed attempt")
    kinds = wording.plural(len(failures.groups), "group")
    done, waits, died = (wording.count(each) for each in (ok, waiting, dead))
    # An entry may have several attempts that failed.
    fates = f"of entries done {done}, waiting {waits}, dead {died}"
    forgotten = ""
    if failures.counted > failures.count:
        forgotten = f"   of {wording.count(failures.counted)} counted: records of the others are gone"
    lines = (
        f"last {window}   {count}, {kinds}   {fates}{forgotten}",
        f"last {window}   {count}   {fates}",
        f"{window} {count}  {fates}",
        f"{window}  {count}",
    )
    return next((line for line in lines if len(line) <= room), lines[-1])


def about(group: FailureGroup, now: datetime, times: Times) -> list[str]:
    """One group in a few lines, the most important first."""
    since = wording.moment(group.first, now, times)
    queues = ", ".join(f"{name} {wording.count(count)}" for name, count in group.queues.items())
    where = f"in {safe_text(group.error.frame, _LONGEST)}" if group.error.frame else "where is not known"
    before = f"{wording.count(group.before)} in as long a time before"
    return [
        title(group),
        f"{where}   sig {group.error.signature or '-'}   newest {wording.moment(group.last, now, times)}",
        f"{queues}   first {since}   {before}"
        + ("   NEW: it has not happened before" if group.is_new else ""),
    ]


def raw(group: FailureGroup, now: datetime, times: Times) -> list[str]:
    """The newest few with their messages as they are, a line each."""
    return [_line(each, now, times) for each in group.samples]


def feed(failures: Failures, now: datetime, times: Times) -> list[str]:
    """The newest failures of all, a line each."""
    return [_line(each, now, times) for each in failures.latest]


def _line(sample: Sample, now: datetime, times: Times) -> str:
    message = safe_text(f"{sample.type}: {sample.message}", 1000)
    return f"{wording.moment(sample.at, now, times)}  {sample.queue}  {safe_text(sample.id)}  {message}"


def where_dead(group: FailureGroup, by: By) -> str | None:
    """The filter that finds the dead letters of a group; None if none does."""
    if by is By.QUEUE:
        return f"queue:{group.key}"
    name, value = ("sig", group.key) if by is By.SIGNATURE else ("type", group.key)
    if not value or any(character in value for character in '"\\'):
        return None
    return f'{name}="{value}"'


def command(group: FailureGroup, by: By, window: str, path: str) -> str:
    """The command that shows the same."""
    queues = [group.key] if by is By.QUEUE else list(group.queues)[:5]
    return shlex.join(
        ["duraq", "-C", path, "errors", *queues, "--since", window, "--by", by.value, "--raw-messages"]
    )
