"""put, pause, resume: what goes into a queue."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import uuid_utils

from duraq import keys
from duraq.cli.completing import QUEUE
from duraq.cli.failing import Code, CommandError
from duraq.cli.input import STDIN, from_stdin, json_lines, limited, parse_json
from duraq.cli.options import DURATION, MOMENT, Settings, common, settings
from duraq.errors import CannotMigrate, PayloadTooLarge, QueueNotFound
from duraq.model import check_queue_name
from duraq.pauses import is_on_its_way
from duraq.payload import LARGEST_PAYLOAD
from duraq.queue import Queue
from duraq.safe_text import ascii_json

if TYPE_CHECKING:
    from duraq.storage.base import Storage

INPUT_LIMIT = LARGEST_PAYLOAD  # of what is brought back, which was taken before


@click.command()
@click.argument("queue", type=QUEUE)
@click.argument("payload", required=False)
@click.option("--jsonl", "lines", is_flag=True, help="Each line of stdin is an entry; all or none.")
@click.option("--text", is_flag=True, help="The payload is plain text, not JSON.")
@click.option("--id", "entry_id", metavar="ID", help="The entry's own id.")
@click.option("--priority", type=int, default=0, help="Higher is delivered first.")
@click.option("--delay", type=DURATION, help="Not before that long from now.")
@click.option("--at", type=MOMENT, help="Not before then: 2026-11-24T10:00 (local time), tomorrow, @UNIX.")
@click.option("--ttl", type=DURATION, help="Expires if nobody completed it by then.")
@click.option("--key", help="Add nothing if an entry was added under this key before, and print its id.")
@click.option("--key-window", type=DURATION, help="How long before; default 1d.")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=TEXT", help="Goes with the entry; repeatable."
)
@click.option(
    "--max-bytes",
    type=click.IntRange(1, LARGEST_PAYLOAD),
    default=1 << 20,
    show_default=False,
    help="Of a payload: 1 MiB, if not more, up to 16 MiB.",
)
@partial(common, without="--jsonl")
def put(
    queue: str,
    payload: str | None,
    lines: bool,
    text: bool,
    entry_id: str | None,
    priority: int,
    delay: timedelta | None,
    at: datetime | None,
    ttl: timedelta | None,
    key: str | None,
    key_window: timedelta | None,
    headers: tuple[str, ...],
    max_bytes: int,
) -> None:
    """Add an entry to QUEUE and print its id, once it is durable.

    PAYLOAD is one JSON value, @FILE that holds one, or - for stdin (the default in a pipe). Put -- before
    one that begins with a dash.
    """
    said = settings()
    if lines and (entry_id or key is not None or payload not in {None, STDIN}):
        raise CommandError(
            Code.USAGE, "--jsonl reads entries from stdin; it goes with neither PAYLOAD nor --id nor --key"
        )
    # Read and understood before the storage is opened: bad input leaves nothing behind.
    raw = payload_text(payload)
    options: dict[str, Any] = {"priority": priority, "delay": delay, "scheduled_for": at, "ttl": ttl}
    options["headers"] = _headers(headers)
    once = {"key": key} if key_window is None else {"key": key, "key_window": key_window}
    if lines:
        values = json_lines(raw)
    else:
        values = [
            raw.decode("utf-8", "surrogateescape")
            if text
            else parse_json(raw, hint="; --text takes it as plain text")
        ]
    check_queue_name(queue)
    added = True
    with said.open(create=True, max_payload_bytes=max_bytes) as storage:
        target: Queue[Any] = Queue(queue, storage)
        try:
            if lines:
                ids = target.enqueue_many(values, **options)
            else:
                added, name = _add(target, values[0], key, {"id": entry_id, **once, **options})
                ids = [name]
        except PayloadTooLarge as error:
            hint = "--max-bytes takes more, up to 16 MiB" if max_bytes < LARGEST_PAYLOAD else None
            raise CommandError(Code.USAGE, str(error).partition(";")[0], hint) from error
        if not added:
            said.say(f"nothing added: key {key!r} was used for {ids[0]} before")
        say_if_paused(said, target)
    if said.is_json:
        click.echo(ascii_json({"schema": "duraq.put/1", "queue": queue, "ids": ids, "added": added}))
    else:
        click.echo("".join(f"{name}\n" for name in ids), nl=False)


def _add(queue: Queue[Any], value: Any, key: str | None, options: dict[str, Any]) -> tuple[bool, str]:
    """Enqueue the value; whether it was added, and its id, or the earlier one's of the same key."""
    if key is None:
        return True, queue.enqueue(value, **options)
    # An id of one's own may be that of the earlier entry as well.
    before = keys.entry_of(queue.storage, keys.name_of(queue.name, key))
    own = options["id"] or str(uuid_utils.uuid7())
    name = queue.enqueue(value, **{**options, "id": own})
    return own == name != before, name


def _headers(given: tuple[str, ...]) -> dict[str, str] | None:
    found = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals:
            raise CommandError(Code.USAGE, f"--header {each!r}: NAME=TEXT is needed")
        found[name] = text
    return found or None


def payload_text(payload: str | None) -> bytes:
    """The JSON text that an argument stands for: itself, the content of @FILE, or stdin."""
    if payload is None or payload == STDIN:
        return from_stdin("PAYLOAD")
    if payload.startswith("@"):
        try:
            with Path(payload[1:]).open("rb") as file:
                return limited(file, payload)
        except OSError as error:
            raise CommandError(Code.USAGE, f"{payload}: {error.strerror}") from None
    return payload.encode("utf-8", "surrogateescape")


@click.command()
@click.argument("queues", type=QUEUE, nargs=-1, required=True)
@click.option("--reason", default="", help="Why; shown by stats.")
@common
def pause(queues: tuple[str, ...], reason: str) -> None:
    """Deliver nothing from QUEUES until they are resumed; what is leased goes on."""
    said = settings()
    with said.open() as storage:
        _each(said, existing(storage, queues), lambda name: Queue[Any](name, storage).pause(reason), "paused")


@click.command()
@click.argument("queues", type=QUEUE, nargs=-1, required=True)
@common
def resume(queues: tuple[str, ...]) -> None:
    """Deliver from QUEUES again."""
    said = settings()
    with said.open() as storage:
        _each(said, existing(storage, queues), lambda name: Queue[Any](name, storage).resume(), "resumed")


def _each(said: Settings, names: tuple[str, ...], act: Callable[[str], None], done: str) -> None:
    """One that refuses, for it is being moved, keeps no other one from it; the first such error is raised."""
    refused: list[CannotMigrate] = []
    for name in names:
        try:
            act(name)
        except CannotMigrate as error:
            refused.append(error)
        else:
            said.say(f"{name} is {done}")
    if refused:
        raise refused[0]


# Whoever waits is to be found by whoever adds an entry, in the queue's directory.
WAITED_FOR = "it is made, empty, and waited for (`duraq help files` has how to remove one)"


def say_if_paused(said: Settings, queue: Queue[Any]) -> None:
    """Say it to whoever may wonder why nothing happens to an entry, or why none comes."""
    pause = queue.paused
    if pause is not None:
        reason = f" ({pause.reason})" if pause.reason else ""
        again = f"duraq resume {queue.name} has it delivered again"
        if is_on_its_way(pause):
            again = "duraq migrate, once more or with --give-up, has it delivered again"
        said.say(f"{queue.name} is paused by {pause.who}{reason}: {again}")


def existing(storage: Storage, names: tuple[str, ...]) -> tuple[str, ...]:
    """These queues, for they exist. Raises QueueNotFound."""
    known = storage.queues()
    for name in names:
        if name not in known:
            raise QueueNotFound.among(name, known)
    return names
