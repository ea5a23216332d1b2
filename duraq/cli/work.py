"""get, ack, nack, extend: working entries by hand, or from a script.

What ``get`` leases belongs to no process, for that one is gone when its output is read: only the deadline,
or an ack or nack with the token, ends it. A token is QUEUE/ID/NUMBER.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import click

from duraq import options
from duraq.cli.completing import QUEUE
from duraq.cli.failing import Code, CommandError
from duraq.cli.feed import WAITED_FOR, say_if_paused
from duraq.cli.input import words
from duraq.cli.options import DURATION, Settings, common, settings
from duraq.cli.output import Row, conclude, show_rows
from duraq.clock import to_datetime
from duraq.errors import EntryNotFound, LeaseLost, QueueError, QueueNotFound
from duraq.model import AttemptError, EntryStatus, QueueEntry, check_queue_name
from duraq.queue import Queue
from duraq.retry import ExponentialBackoff, RetryPolicy

COLUMNS = ("token", "attempts", "payload")
MORE = ("id", "queue", "priority", "created_at", "deadline_at")
LEASE = timedelta(minutes=5)


@click.command()
@click.argument("queue", type=QUEUE)
@click.option("-n", "count", type=click.IntRange(1), default=1, help="Up to that many.")
@click.option("--wait", type=DURATION, default=timedelta(0), help="How long to wait for one.")
@click.option("--lease", type=DURATION, default=LEASE, help="How long they are yours (5m).")
@click.option(
    "--max-attempts",
    type=click.IntRange(1),
    default=sys.maxsize,
    show_default=False,
    help="To the dead letters what others have tried that often; else it is tried again.",
)
@common
def get(queue: str, count: int, wait: timedelta, lease: timedelta, max_attempts: int) -> int:
    """Lease entries of QUEUE and print them; end each with ack or nack and its token.

    What others hold that died, or are late, it gives back on the way. How many attempts there are to be only
    those know who work the queue: without --max-attempts it makes none of these a dead letter.

    Exit status 3: there was nothing to take.
    """
    said = settings()
    check_queue_name(queue)
    lease_for = options.duration("--lease", lease)
    until = time.monotonic() + options.duration("--wait", wait, zero=True) / 1e6
    with said.open() as storage:
        if queue not in (there := storage.queues()):
            missing = QueueNotFound.among(queue, there)
            if not wait:
                raise missing
            said.say(f"{missing}; {WAITED_FOR}")
        working: Queue[Any] = Queue(queue, storage, retry_policy=_up_to(max_attempts))
        # Leases are judged as far as they are known; this process has seen none yet.
        working.counts()
        is_told = False
        while True:
            working.settle_lapsed()
            found = storage.claim(queue, count, lease_for=lease_for, detached=True)
            remaining = until - time.monotonic()
            if not (found or is_told):
                is_told = True
                say_if_paused(said, working)
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
    if rows or said.output == "json":
        show_rows(said, "duraq.get/1", COLUMNS, rows, more=MORE, name="token")
    return Code.DONE if rows else Code.NOTHING


@click.command()
@click.argument("tokens", nargs=-1, required=True)
@common
def ack(tokens: tuple[str, ...]) -> int:
    """The work of these TOKENS is done; - reads them from stdin."""

    def complete(queue: Queue[Any], entry: QueueEntry[Any]) -> str:
        queue.mark_completed(entry)
        return EntryStatus.COMPLETED.value

    return _each(settings(), "ack", tokens, complete)


@click.command()
@click.argument("tokens", nargs=-1, required=True)
@click.option("--error", default="", help="What went wrong.")
@click.option("--retry-in", type=DURATION, help="When it may be tried again.")
@click.option("--dead", is_flag=True, help="Not again: to the dead letters.")
@click.option("--max-attempts", type=click.IntRange(1), default=5, help="Then to the dead letters (5).")
@common
def nack(
    tokens: tuple[str, ...], error: str, retry_in: timedelta | None, dead: bool, max_attempts: int
) -> int:
    """The work of these TOKENS failed; - reads them from stdin."""
    if dead and retry_in is not None:
        raise CommandError(Code.USAGE, "--dead and --retry-in contradict each other")
    text = AttemptError("Nack", error)

    def fail(queue: Queue[Any], entry: QueueEntry[Any]) -> str:
        return queue.mark_failed(entry, text, retry_in=retry_in, dead=dead).value

    return _each(settings(), "nack", tokens, fail, _up_to(max_attempts))


@click.command()
@click.argument("tokens", nargs=-1, required=True)
@click.option("--lease", type=DURATION, default=LEASE, help="How long from now (5m).")
@common
def extend(tokens: tuple[str, ...], lease: timedelta) -> int:
    """Hold the entries of these TOKENS for longer; - reads them from stdin."""

    def hold(queue: Queue[Any], entry: QueueEntry[Any]) -> str:
        queue.extend(entry, lease)
        return EntryStatus.LEASED.value

    return _each(settings(), "extend", tokens, hold)


def _each(
    said: Settings,
    verb: str,
    tokens: Iterable[str],
    end: Callable[[Queue[Any], QueueEntry[Any]], str],
    policy: RetryPolicy | None = None,
) -> int:
    """Do this for each token; one whose lease has ended keeps no other from being dealt with."""
    parsed = [(token, *_parse(token)) for token in words(tokens, "TOKENS")]
    rows: list[Row] = []
    problems: list[QueueError] = []
    with said.open() as storage:
        for token, name, entry_id, number in parsed:
            row = {"token": token, "queue": name, "id": entry_id, "status": None, "error": None}
            queue: Queue[Any] = Queue(name, storage, retry_policy=policy)
            try:
                # Under the lease that the token names; the storage refuses if that has ended.
                row["status"] = end(queue, replace(queue.get(entry_id), token=number))
            except QueueError as error:
                over = f"queue {name}: the lease {number} of entry {entry_id} has ended: the entry is over"
                problems.append(LeaseLost(over) if isinstance(error, EntryNotFound) else error)
                row["error"] = str(problems[-1])
            rows.append(row)
    return conclude(said, f"duraq.{verb}/1", rows, problems)


def _up_to(attempts: int) -> RetryPolicy:
    return ExponentialBackoff(max_attempts=attempts)


def _parse(token: str) -> tuple[str, str, int]:
    queue, _, rest = token.partition("/")
    entry_id, _, number = rest.rpartition("/")
    if not entry_id or not number.isascii() or not number.isdigit():
        raise CommandError(Code.USAGE, f"{token!r} is not a token; get prints them, QUEUE/ID/NUMBER")
    return check_queue_name(queue), entry_id, int(number)
