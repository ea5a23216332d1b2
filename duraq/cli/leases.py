"""leases, workers, release: who holds what, and ending a lease before its time."""

from __future__ import annotations

import shlex
from typing import Any

import click

from duraq.cli.completing import QUEUE
from duraq.cli.failing import Code, CommandError
from duraq.cli.input import words
from duraq.cli.look import find_entries
from duraq.cli.options import Settings, common, settings
from duraq.cli.output import Row, conclude, show_rows
from duraq.cli.overview import inspecting
from duraq.errors import DuraqError, LeaseLost, QueueError
from duraq.inspector import Inspector
from duraq.model import EntryStatus, is_users
from duraq.queue import Queue
from duraq.safe_text import safe_text
from duraq.views import LeaseView, WorkerView

COLUMNS = ("queue", "id", "attempt", "holder", "worker", "leased_at", "deadline_at")
MORE = ("token", "pid", "alive", "late")
WORKER_COLUMNS = ("worker", "state", "leases", "opened_at", "host", "unit", "command")
WORKER_MORE = ("pid", "alive", "holds", "argv", "boot_id", "start_time")
_ALIVE = {True: "alive", False: "dead", None: "unknown"}


@click.command()
@click.argument("queues", type=QUEUE, nargs=-1)
@click.option("--expired", is_flag=True, help="Only those past their deadline, or whose holder is dead.")
@common
def leases(queues: tuple[str, ...], expired: bool) -> None:
    """What is being worked in QUEUES, or in all: who holds it, since when, and until when.

    The next deadline first. What is past it, or held by a worker that is dead, is ended by whoever works the
    queue next.
    """
    said = settings()
    with inspecting(said) as inspector:
        names = queues or inspector.queues()
        found = [lease for name in dict.fromkeys(names) for lease in inspector.leases(name)]
        found.sort(key=lambda lease: (lease.deadline_at, lease.queue, lease.id))
        rows = [_lease_row(lease) for lease in found if not expired or lease.late or lease.alive is False]
    show_rows(said, "duraq.leases/1", COLUMNS, rows, more=MORE, name="token")


def holder(lease: LeaseView) -> str:
    """How its holder is, in a word or two."""
    return _ALIVE[lease.alive] if lease.worker else "no process"


def _lease_row(lease: LeaseView) -> Row:
    return {
        "queue": lease.queue,
        "id": lease.id,
        "token": f"{lease.queue}/{lease.id}/{lease.token}",
        "attempt": lease.attempt,
        "holder": holder(lease),
        "worker": lease.worker or None,
        "pid": lease.pid,
        "alive": lease.alive,
        "late": lease.late,
        "leased_at": lease.leased_at,
        "deadline_at": lease.deadline_at,
    }


@click.command()
@common
def workers() -> None:
    """Who works here: processes that have leased something and still have the storage open.

    Those that died stay in the list until another worker clears them away.
    """
    said = settings()
    with inspecting(said) as inspector:
        rows = [_worker_row(worker) for worker in inspector.workers()]
    show_rows(said, "duraq.workers/1", WORKER_COLUMNS, rows, more=WORKER_MORE, name="worker")


def _worker_row(worker: WorkerView) -> Row:
    return {
        "worker": worker.id,
        "pid": worker.pid,
        "state": _ALIVE[worker.alive],
        "alive": worker.alive,
        "leases": sum(worker.holds.values()),
        "holds": dict(worker.holds),
        "opened_at": worker.opened_at,
        "host": worker.host or None,
        "unit": worker.unit,
        "command": shlex.join(worker.argv) or None,
        "argv": list(worker.argv),
        "boot_id": worker.boot_id or None,
        "start_time": worker.start_time,
    }


# -- ending one --------------------------------------------------------------------------------------------


@click.command()
@click.argument("tokens", nargs=-1, required=True, metavar="TOKEN|ID...")
@click.option("--queue", type=QUEUE, metavar="QUEUE", help="If several queues have an entry of this id.")
@click.option("--reason", default="", help="Why; kept with the entry.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@common
def release(tokens: tuple[str, ...], queue: str | None, reason: str, yes: bool) -> int:
    """End leases before their time: by TOKEN (QUEUE/ID/NUMBER, as `duraq leases -o ids` prints them) or ID.

    The entries are ready again at once, and the attempts do not count. If a holder lives it goes on until it
    notices, so that the work may be done twice: this asks first. - reads TOKENS from stdin.
    """
    said = settings()
    with inspecting(said) as inspector:
        found, problems = _leases(inspector, words(tokens, "TOKENS"), queue)
    held = [lease for lease in found if lease.alive is not False]
    if held and not yes:
        _ask(said, held)
    rows: list[Row] = [{"id": None, "queue": None, "status": None, "error": str(each)} for each in problems]
    if found:
        with said.open() as storage:
            for lease in found:
                row: dict[str, Any] = {"id": lease.id, "queue": lease.queue, "status": "ready", "error": None}
                try:
                    working: Queue[Any] = Queue(lease.queue, storage)
                    working.end_lease(lease.id, lease.token, reason=reason)
                except QueueError as error:
                    problems.append(error)
                    row |= {"status": None, "error": str(error)}
                rows.append(row)
    return conclude(said, "duraq.release/1", rows, problems)


def _leases(
    inspector: Inspector, given: list[str], queue: str | None
) -> tuple[list[LeaseView], list[DuraqError]]:
    """The leases that are meant, and what is the matter with the others."""
    found: list[LeaseView] = []
    problems: list[DuraqError] = []
    for word in given:
        name, entry_id, token = _parse(inspector, word) or (queue, word, None)
        entries, trouble = find_entries(inspector, [entry_id], name)
        problems += trouble
        for view in entries:
            if view.status is not EntryStatus.LEASED or token not in {None, view.token}:
                what = f"the lease {token} of entry {view.id} has ended" if token else f"entry {view.id} is"
                problems.append(LeaseLost(f"queue {view.queue}: {what}" + _now(view.status, token)))
                continue
            found += [lease for lease in inspector.leases(view.queue) if lease.id == view.id]
    return found, problems


def _now(status: EntryStatus, token: int | None) -> str:
    if token is None:
        return f" {status}, not leased"
    return "; it is leased again" if status is EntryStatus.LEASED else f"; it is {status}"


def _parse(inspector: Inspector, word: str) -> tuple[str, str, int] | None:
    """The parts of a token; None if it is none: an id may have slashes as well."""
    queue, _, rest = word.partition("/")
    entry_id, _, number = rest.rpartition("/")
    if not entry_id or not (number.isascii() and number.isdecimal()) or not is_users(queue):
        return None
    return (queue, entry_id, int(number)) if queue in inspector.queues() else None


def _ask(said: Settings, held: list[LeaseView]) -> None:
    """Return if a person agrees. Raises CommandError if not, or if there is nobody to ask."""
    whose = [f"{lease.queue}/{lease.id}, held by {_whose(lease)}" for lease in held[:5]]
    more = f" and {len(held) - 5} more" if len(held) > 5 else ""
    text = f"{'; '.join(whose)}{more}: whoever holds it may be at work on it, which may then be done twice"
    if not said.can_ask:
        raise CommandError(Code.USAGE, f"{text}; there is no terminal to ask at", "say --yes")
    if not click.confirm(f"{safe_text(text, 1000)}. End the lease?", default=False, err=True):
        raise CommandError(Code.USAGE, "nothing was done")


def _whose(lease: LeaseView) -> str:
    return f"worker {lease.worker}, which lives" if lease.alive else lease.worker or "no process"
