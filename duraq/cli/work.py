"""get, ack, nack, extend: working entries by hand, or from a script.

What ``get`` leases belongs to no process, for that one is gone when its output is read: only the deadline,
or an ack or nack with the token, ends it. A token is QUEUE/ID/NUMBER.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from datetime import timedelta

import click

from duraq import AttemptError, FileStorage, LeaseLost, Queue, QueueEntry, QueueError, QueueManager
from duraq.cli.failing import Code, CommandError
from duraq.cli.options import DURATION, Settings, common, settings
from duraq.cli.output import show_rows
from duraq.clock import from_timedelta, to_datetime
from duraq.model import check_queue_name

STDIN = "-"
COLUMNS = ("token", "attempts", "payload", "id", "queue", "priority", "created_at", "deadline_at")


@click.command()
@click.argument("queue")
@click.option("-n", "count", type=click.IntRange(1), default=1, help="Up to that many.")
@click.option("--wait", type=DURATION, default=timedelta(0), help="How long to wait for one.")
@click.option("--lease", type=DURATION, default=timedelta(minutes=5), help="How long they are yours.")
@common
def get(queue: str, count: int, wait: timedelta, lease: timedelta) -> int:
    """Lease entries of QUEUE and print them; end each with ack or nack and its token.

    Exit status 3: there was nothing to take.
    """
    said = settings()
    check_queue_name(queue)
    until = time.monotonic() + wait.total_seconds()
    with FileStorage(said.storage(), create=False) as storage:
        working: Queue[object] = QueueManager(storage).queue(queue)
        while True:
            working.settle_lapsed()
            found = storage.claim(queue, count, lease_for=from_timedelta(lease), detached=True)
            remaining = until - time.monotonic()
            if found or remaining <= 0:
                break
            storage.wait(queue, remaining)
    rows = [
        {
            "token": f"{queue}/{entry.id}/{entry.token}",
            "attempts": entry.attempts,
            "payload": entry.payload,
            "id": entry.id,
            "queue": queue,
            "priority": entry.priority,
            "created_at": to_datetime(entry.created_at),
            "deadline_at": None if entry.deadline_at is None else to_datetime(entry.deadline_at),
        }
        for entry in found
    ]
    if not rows and said.output not in {"json", "jsonl"}:
        return Code.NOTHING
    show_rows(said, "duraq.get/1", COLUMNS, rows)
    return Code.DONE if rows else Code.NOTHING


@click.command()
@click.argument("tokens", nargs=-1, required=True)
@common
def ack(tokens: tuple[str, ...]) -> int:
    """The work of these TOKENS is done; - reads them from stdin."""
    return _each(settings(), tokens, lambda queue, entry: queue.mark_completed(entry))


@click.command()
@click.argument("tokens", nargs=-1, required=True)
@click.option("--error", default="", help="What went wrong.")
@click.option("--retry-in", type=DURATION, help="When it may be tried again.")
@click.option("--dead", is_flag=True, help="Not again: to the dead letters.")
@common
def nack(tokens: tuple[str, ...], error: str, retry_in: timedelta | None, dead: bool) -> int:
    """The work of these TOKENS failed; - reads them from stdin."""
    said = settings()
    text = AttemptError("Nack", error)

    def fail(queue: Queue[object], entry: QueueEntry[object]) -> None:
        status = queue.mark_failed(entry, text, retry_in=retry_in, dead=dead)
        said.say(f"{entry.id} is {status}")

    return _each(said, tokens, fail)


@click.command()
@click.argument("tokens", nargs=-1, required=True)
@click.option("--lease", type=DURATION, default=timedelta(minutes=5), help="How long from now.")
@common
def extend(tokens: tuple[str, ...], lease: timedelta) -> int:
    """Hold the entries of these TOKENS for longer."""
    return _each(settings(), tokens, lambda queue, entry: queue.extend(entry, lease))


def _each(
    said: Settings, tokens: Iterable[str], end: Callable[[Queue[object], QueueEntry[object]], object]
) -> int:
    """Do this for each token; one whose lease has ended keeps nobody else from being dealt with."""
    parsed = [_parse(token) for token in _expand(tokens)]
    done, problems = 0, []
    with FileStorage(said.storage(), create=False) as storage:
        for name, entry_id, number in parsed:
            queue: Queue[object] = QueueManager(storage).queue(name)
            try:
                entry = queue.get(entry_id)
                if entry.token != number:
                    raise LeaseLost(f"queue {name}: lease {number} of entry {entry_id} has ended")
                end(queue, entry)
                done += 1
            except QueueError as error:
                problems.append(error)
    for problem in problems[1:] if not done else problems:
        said.say(f"duraq: {problem}")
    if problems and not done:
        raise CommandError(Code.CONFLICT, str(problems[0]))
    return Code.PARTLY if problems else Code.DONE


def _expand(tokens: Iterable[str]) -> list[str]:
    found: list[str] = []
    for token in tokens:
        found += sys.stdin.read().split() if token == STDIN else [token]
    return found


def _parse(token: str) -> tuple[str, str, int]:
    queue, _, rest = token.partition("/")
    entry_id, _, number = rest.rpartition("/")
    if not entry_id or not number.isascii() or not number.isdigit():
        raise CommandError(Code.USAGE, f"{token!r} is not a token; get prints them, QUEUE/ID/NUMBER")
    return check_queue_name(queue), entry_id, int(number)
