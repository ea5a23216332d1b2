"""What of health is shown, and in which words. Knows no Textual."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from duraq.errors import StorageDamaged
from duraq.safe_text import safe_text
from duraq_dashboard import wording
from duraq_dashboard.alerts import ROLES, Alert
from duraq_dashboard.cost import Cost, memory
from duraq_dashboard.rows import Cells, Column, Key
from duraq_dashboard.snapshot import QueueNow, Snapshot
from duraq_dashboard.verifying import Verified
from duraq_dashboard.wording import Times

_MEDIUM = 75
ALERT_COLUMNS = (
    Column("", 4),
    Column("STATUS", 11),
    Column("QUEUE", 16),
    Column("SINCE", 15, from_width=_MEDIUM),
    Column("WHY"),
)
CHECK_COLUMNS = (Column("", 4), Column("CHECK", 11), Column("WHAT"))
_LOUDNESS = ("crit", "warn", "note", "")
_WORDS = {"crit": "CRIT", "warn": "WARN", "": "ok", "note": "note"}
# Less than a segment that is over stays where it is anyway.
_WORTH = 1 << 20
# So far clocks of one machine never are apart; what is later was written while one was wrong.
_AHEAD = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked. ``fix``: the command that helps; ``queue``: which it is about, if one."""

    name: str
    role: str
    what: str
    fix: str = ""
    queue: str = ""

    @property
    def is_damage(self) -> bool:
        """Whether it is a matter of repairing something."""
        return " repair " in self.fix

    @property
    def key(self) -> Key:
        """Of its row: what is tried out again and again is one, whatever comes of it."""
        return (self.name, self.queue, self.what) if self.name == "verify" else (self.name, self.queue)


def alert_rows(alerts: Iterable[Alert], now: datetime, times: Times) -> list[tuple[Key, Cells]]:
    """Each as a row."""
    return [(alert.key, _alert_cells(alert, now, times)) for alert in alerts]


def _alert_cells(alert: Alert, now: datetime, times: Times) -> Cells:
    seen = alert.seen_until
    role = "note" if seen is not None else alert.role
    why = safe_text(alert.why, 400)
    if seen is not None:
        why = f"seen, until {wording.moment(seen, now, times)}: {why}"
    since = wording.moment(alert.since, now, times)
    return (
        (_WORDS[alert.role], role),
        (alert.word, role),
        alert.queue,
        f"{'over' if times is Times.RELATIVE else 'before'} {since}" if alert.is_older else since,
        (why, "note") if seen is not None else why,
    )


def check_rows(checks: Iterable[Check]) -> list[tuple[Key, Cells]]:
    """Each as a row."""
    return [
        (check.key, ((_WORDS[check.role], check.role), check.name, safe_text(check.what, 400)))
        for check in checks
    ]


# -- what is checked ---------------------------------------------------------------------------------------


def checks(snapshot: Snapshot, verified: Verified | None) -> list[Check]:
    """What was tried out, what the snapshot tells, what reading everything has found; trouble first."""
    found = [Check(each.component, ROLES[each.status], each.message) for each in snapshot.tried]
    found += _queues(snapshot)
    found.append(_clock(snapshot))
    found.append(_compaction(snapshot))
    if verified is not None:
        found += _verified(snapshot.path, verified)
    return sorted(found, key=lambda check: _LOUDNESS.index(check.role))


def of_queue(name: str, why: str) -> str:
    """The evidence, with the queue's name, if it is about one, before it unless it begins with that."""
    return why if why.startswith(name) else f"{name}: {why}"


def _queues(snapshot: Snapshot) -> list[Check]:
    unread = [queue for queue in snapshot.queues.values() if queue.view.problem is not None]
    if not unread:
        so_far = "" if snapshot.whole else ", still reading"
        return [Check("queues", "", f"{wording.plural(len(snapshot.queues), 'queue')} can be read{so_far}")]
    return [
        Check("queue", "crit", of_queue(queue.name, queue.why), _remedy(queue, snapshot.path), queue.name)
        for queue in unread
    ]


def _remedy(queue: QueueNow, path: str) -> str:
    if isinstance(queue.view.problem, StorageDamaged):
        return shlex.join(["duraq", "-C", path, "repair", queue.name, "--dry-run"])
    return shlex.join(["ls", "-ld", f"{path}/{queue.name}"])


def _clock(snapshot: Snapshot) -> Check:
    limit = snapshot.looked_at + _AHEAD
    ahead = [
        queue.name
        for queue in snapshot.queues.values()
        if queue.metrics is not None and queue.metrics.history and queue.metrics.history[-1].start > limit
    ]
    if ahead:
        return Check(
            "clock", "warn", f"of the future, so a clock was or is wrong: records of {', '.join(ahead)}"
        )
    return Check("clock", "", "no record is of the future")


def over(queue: QueueNow) -> int:
    """How many bytes of it compacting would free now, about."""
    metrics = queue.metrics
    if metrics is None:
        return 0
    bytes_over = metrics.bytes_on_disk - metrics.live_bytes
    return bytes_over if bytes_over > max(_WORTH, metrics.live_bytes // 10) else 0


def _compaction(snapshot: Snapshot) -> Check:
    by_queue = {queue.name: over(queue) for queue in snapshot.queues.values()}
    due = [name for name, size in by_queue.items() if size]
    if not due:
        return Check("compaction", "", "nothing to be freed")
    largest = max(due, key=lambda name: by_queue[name])
    size = wording.size(sum(by_queue.values()))
    what = f"about {size} of {wording.plural(len(due), 'queue')} could be freed, most of it of {largest}"
    return Check(
        "compaction", "", what, shlex.join(["duraq", "-C", snapshot.path, "compact", largest]), largest
    )


def _verified(path: str, verified: Verified) -> list[Check]:
    found = [
        Check(
            "verify",
            "crit" if finding.damage else "note",
            _place(finding.path, finding.line, finding.byte) + f": {finding.what}",
            shlex.join(
                ["duraq", "-C", path, "repair", *([finding.queue] if finding.queue else []), "--dry-run"]
            )
            if finding.damage
            else "",
            finding.queue or "",
        )
        for finding in verified.findings
    ]
    return found or [Check("verify", "crit" if verified.error else "", verified_text(verified))]


def _place(path: str, line: int | None, byte: int | None) -> str:
    return path + ("" if line is None else f" line {line}") + ("" if byte is None else f" byte {byte:,}")


def verified_text(verified: Verified) -> str:
    """How far a full reading is, or what came of it."""
    read = f"{verified.records:,} records, {wording.size(verified.bytes)}"
    if verified.error:
        return f"it could not be read: {safe_text(verified.error, 300)}"
    if verified.ended_at is None:
        return f"reading, {verified.queues} of {wording.plural(verified.of, 'queue')}, {read}"
    state = f"{wording.plural(len(verified.damaged), 'place')} damaged" if verified.damaged else "all sound"
    part = (
        f", stopped after {verified.queues} of {wording.plural(verified.of, 'queue')}"
        if verified.stopped
        else ""
    )
    return f"{state}: {read}{part}"


# -- this dashboard ----------------------------------------------------------------------------------------


def this_dashboard(before: Cost, after: Cost, *, read_only: bool, began_at: datetime, times: Times) -> str:
    """What it costs, on whose behalf it runs, and since when."""
    lived = max(after.lived - before.lived, 1e-6)
    cpu = (after.cpu - before.cpu) / lived
    written = (after.written - before.written) / lived
    mode = "read-only" if read_only else "read-write"
    since = wording.moment(began_at, began_at, times)
    return (
        f"cpu {wording.share(cpu)}%  rss {wording.size(memory())}  writes {wording.size(written)}/s"
        f"  {mode}  {_whose()}  since {since}"
    )


def _whose() -> str:
    try:
        terminal = os.ttyname(0).removeprefix("/dev/")
    except OSError:
        terminal = "no terminal"
    over_ssh = " (ssh)" if os.environ.get("SSH_CONNECTION") else ""
    return safe_text(f"{os.environ.get('USER') or os.getuid()}@{terminal}{over_ssh}", 60)
