"""put, pause, resume: what goes into a queue."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click
import orjson

from duraq import FileStorage, InvalidPayload, Queue, QueueManager
from duraq.cli.failing import Code, CommandError
from duraq.cli.options import DURATION, MOMENT, common, settings
from duraq.safe_text import ascii_json

INPUT_LIMIT = 16 << 20


@click.command()
@click.argument("queue")
@click.argument("payload", required=False)
@click.option("--jsonl", "lines", is_flag=True, help="Each line of stdin is an entry; all or none.")
@click.option("--text", is_flag=True, help="The payload is plain text, not JSON.")
@click.option("--id", "entry_id", metavar="ID", help="The entry's own id.")
@click.option("--priority", type=int, default=0, help="Higher is delivered first.")
@click.option("--delay", type=DURATION, help="Not before that long from now.")
@click.option("--at", type=MOMENT, help="Not before then.")
@click.option("--ttl", type=DURATION, help="Expires if nobody completed it by then.")
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
) -> None:
    """Add an entry to QUEUE and print its id, once it is durable.

    PAYLOAD is one JSON value, @FILE that holds one, or - for stdin (the default in a pipe).
    """
    said = settings()
    if lines and (entry_id or payload not in {None, "-"}):
        raise CommandError(
            Code.USAGE, "--jsonl reads entries from stdin; it goes with neither PAYLOAD nor --id"
        )
    # Read and understood before the storage is opened: bad input leaves nothing behind.
    raw = _read(payload)
    values = _json_lines(raw) if lines else [raw.decode("utf-8", "surrogateescape") if text else _json(raw)]
    options: dict[str, Any] = {"priority": priority, "delay": delay, "scheduled_for": at, "ttl": ttl}
    with FileStorage(said.storage(), max_payload_bytes=INPUT_LIMIT) as storage:
        target: Queue[Any] = QueueManager(storage).queue(queue)
        if lines:
            ids = target.enqueue_many(values, **options)
        else:
            ids = [target.enqueue(values[0], id=entry_id, **options)]
    if said.output in {"json", "jsonl"}:
        click.echo(ascii_json({"schema": "duraq.put/1", "queue": queue, "ids": ids}))
    else:
        for name in ids:
            click.echo(name)


def _read(payload: str | None) -> bytes:
    if payload is not None and payload.startswith("@"):
        content = Path(payload[1:]).read_bytes()
    elif payload in {None, "-"}:
        if sys.stdin.isatty():
            raise CommandError(Code.USAGE, "no PAYLOAD, and stdin is a terminal", "duraq put --help")
        content = sys.stdin.buffer.read()
    else:
        content = str(payload).encode("utf-8", "surrogateescape")
    return content


def _json(raw: bytes, where: str = "the payload") -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidPayload(f"{where} is not JSON: {error}") from None


def _json_lines(raw: bytes) -> list[Any]:
    return [
        _json(line, f"line {number}") for number, line in enumerate(raw.splitlines(), start=1) if line.strip()
    ]


@click.command()
@click.argument("queues", nargs=-1, required=True)
@click.option("--reason", default="", help="Why; shown by stats.")
@common
def pause(queues: tuple[str, ...], reason: str) -> None:
    """Deliver nothing from QUEUES until they are resumed; what is leased goes on."""
    said = settings()
    with FileStorage(said.storage(), create=False) as storage:
        for name in _existing(storage, queues):
            QueueManager(storage).queue(name).pause(reason)
            said.say(f"{name} is paused")


@click.command()
@click.argument("queues", nargs=-1, required=True)
@common
def resume(queues: tuple[str, ...]) -> None:
    """Deliver from QUEUES again."""
    said = settings()
    with FileStorage(said.storage(), create=False) as storage:
        for name in _existing(storage, queues):
            QueueManager(storage).queue(name).resume()
            said.say(f"{name} is resumed")


def _existing(storage: FileStorage, names: tuple[str, ...]) -> tuple[str, ...]:
    known = set(storage.queues())
    for name in names:
        if name not in known:
            raise CommandError(Code.NOT_FOUND, f"there is no queue {name!r}")
    return names
