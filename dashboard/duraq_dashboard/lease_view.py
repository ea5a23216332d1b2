"""What of leases and workers is shown, and in which words. Knows no Textual."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from duraq.safe_text import safe_text
from duraq.views import LeaseView, WorkerView
from duraq_dashboard import wording
from duraq_dashboard.rows import Cells, Column, Key
from duraq_dashboard.snapshot import Snapshot

_MEDIUM, _WIDE = 75, 107
LEASE_COLUMNS = (
    Column("LEFT", 8, right=True),
    Column("AGE", 7, right=True, from_width=_MEDIUM),
    Column("QUEUE", 14),
    Column("ENTRY", 12, from_width=_MEDIUM),
    Column("TRY", 4, right=True, from_width=_MEDIUM),
    Column("PID", 8, right=True),
    Column("HOLDER", 10),
    Column("NOTE"),
)
WORKER_COLUMNS = (
    Column("PID", 8, right=True),
    Column("STATE", 7),
    Column("HOLDS", 6, right=True),
    Column("UP", 7, right=True),
    Column("RSS", 8, right=True, from_width=_WIDE),
    Column("QUEUES", 16, from_width=_MEDIUM),
    Column("UNIT", 20, from_width=_WIDE),
    Column("COMMAND"),
)
_SHORT = 8  # characters of an id
_ALIVE = {True: "lives", False: "DEAD", None: "unknown"}

SORTS = ("time left", "age", "queue")


def leases(snapshot: Snapshot, sort: str, words: Sequence[str]) -> list[LeaseView]:
    """The leases of all queues, in that order; those of which each word says something."""
    found = [lease for queue in snapshot.queues.values() for lease in queue.view.leases]
    if words:
        found = [lease for lease in found if _says(lease, words)]
    if sort == "age":
        return sorted(found, key=lambda lease: (lease.leased_at, lease.queue, lease.id))
    if sort == "queue":
        return sorted(found, key=lambda lease: (lease.queue, lease.deadline_at, lease.id))
    return sorted(found, key=lambda lease: (lease.deadline_at, lease.queue, lease.id))


def _says(lease: LeaseView, words: Sequence[str]) -> bool:
    said = f"{lease.queue} {lease.id} {lease.worker} {note(lease)} {_holder(lease)[0]}".lower()
    return all(word.lower() in said for word in words)


def key(lease: LeaseView) -> Key:
    """Stays the same as long as there is that lease."""
    return lease.queue, lease.id, lease.token


def lease_rows(found: Iterable[LeaseView], now: datetime) -> list[tuple[Key, Cells]]:
    """Each as a row."""
    return [(key(lease), _lease_cells(lease, now)) for lease in found]


def _lease_cells(lease: LeaseView, now: datetime) -> Cells:
    left = lease.deadline_at - now
    late = lease.late or left <= timedelta(0)
    return (
        ("EXPIRED", "warn") if late else wording.age(left),
        wording.age(now - lease.leased_at),
        lease.queue,
        short(lease.id),
        str(lease.attempt),
        "-" if lease.pid is None else str(lease.pid),
        _holder(lease),
        note(lease),
    )


def short(entry_id: str) -> str:
    """The end of an id, which tells it from the others."""
    shown = safe_text(entry_id)
    return shown if len(shown) <= _SHORT + 2 else f"..{shown[-_SHORT:]}"


def _holder(lease: LeaseView) -> tuple[str, str]:
    if not lease.worker:
        return "no process", "note"
    return _ALIVE[lease.alive], "crit" if lease.alive is False else ""


def note(lease: LeaseView) -> str:
    """What is the matter with it; empty if nothing is."""
    if lease.worker and lease.alive is False:
        return "its worker is dead: whoever works the queue next ends it"
    if lease.late and lease.alive:
        return "past its deadline, its worker lives: hung, or too slow"
    if lease.late:
        return "past its deadline: whoever works the queue next ends it"
    return "" if lease.worker else "leased by hand (duraq get)"


def totals(snapshot: Snapshot, room: int) -> str:
    """All of them in a line: the longest that there is room for."""
    found = leases(snapshot, "queue", ())
    late = sum(lease.late for lease in found)
    dead = sum(worker.alive is False for worker in snapshot.workers)
    held = wording.plural(len(found), "lease")
    living = wording.plural(len(snapshot.workers) - dead, "living worker")
    lines = (
        f"{held}   {late} past their deadline   {living}, {dead} dead",
        f"{held}  {late} late  {living}, {dead} dead",
        f"{held}  {late} late",
    )
    return next((line for line in lines if len(line) <= room), lines[-1])


# -- workers -----------------------------------------------------------------------------------------------


def worker_rows(workers: Iterable[WorkerView], now: datetime) -> list[tuple[Key, Cells]]:
    """Each as a row."""
    return [(worker.id, _worker_cells(worker, now)) for worker in workers]


def _worker_cells(worker: WorkerView, now: datetime) -> Cells:
    holds = sum(worker.holds.values())
    up = wording.age(now - worker.opened_at) if worker.opened_at is not None and worker.alive else "-"
    memory = _memory(worker) if worker.alive else None
    return (
        "-" if worker.pid is None else str(worker.pid),
        (_ALIVE[worker.alive], "crit") if worker.alive is False and holds else (_ALIVE[worker.alive], ""),
        wording.count(holds),
        up,
        "-" if memory is None else f"{memory} MB",
        ",".join(worker.holds) or "-",
        worker.unit or "-",
        command(worker) or "-",
    )


def worker_lines(worker: WorkerView, now: datetime) -> list[str]:
    """All that is known of it but how its program was called, which may be long."""
    pid, state, _, up, memory, *_ = (
        cell if isinstance(cell, str) else cell[0] for cell in _worker_cells(worker, now)
    )
    held = ", ".join(f"{number:,} of {queue}" for queue, number in worker.holds.items())
    facts = [f"pid {pid} on {worker.host or 'a host that is not known'}", state]
    facts += [f"up {up}"] if up != wording.NOTHING else []
    facts += [f"{memory} in memory"] if memory != wording.NOTHING else []
    return [
        ", ".join(facts),
        f"holds {held or 'nothing'}",
        f"unit {worker.unit or 'none that is known'}",
    ]


def command(worker: WorkerView) -> str:
    """How its program was called."""
    return shlex.join(worker.argv)


def _memory(worker: WorkerView) -> int | None:
    """Megabytes that its process has in memory; None if that is not known, or it is another host's.

    The number of a process says nothing, but together with when it began it is no other one's.
    """
    try:
        with open(f"/proc/{worker.pid}/stat", "rb") as file:  # noqa: PTH123 - one of many, while a frame is made
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return None
    # Fields are counted behind the command's name; the third is the first here.
    if len(fields) < 22 or int(fields[22 - 3]) != worker.start_time or worker.host != os.uname().nodename:
        return None
    return int(fields[24 - 3]) * os.sysconf("SC_PAGESIZE") >> 20
