"""How far each queue was durable when the journal was last recycled: ``journal/ends.jsonl``.

The journal covers what was written lately. A queue that was quiet for longer has no frame there, and yet a
power cut may have left bytes at its end that no frame vouches for (their own frame was torn). This file
says where its records ended, so that recovery knows what to cut. One line, with a record's checksum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import orjson

from duraq import values
from duraq.errors import StorageDamaged
from duraq.journal import record
from duraq.journal.filesystem import FileSystem
from duraq.journal.opening import write_durably
from duraq.journal.pieces import only_line
from duraq.model import is_queue_name

NAME = "ends.jsonl"


class Ends(NamedTuple):
    """Where the queues ended, and up to which position of the journal that takes its frames into account.

    Frames before ``position`` are not needed any more, whether they can still be read or not.
    """

    position: int
    queues: dict[str, End]


class End(NamedTuple):
    """The active segment of a queue, and its length in bytes."""

    segment: int
    size: int


def load(file_system: FileSystem, directory: int, *, required: bool) -> Ends:
    """What the file says; nothing if it does not exist and is not ``required`` to.

    Raises StorageDamaged if it is not readable: without it, acknowledged bytes could not be told from torn
    ones.
    """
    if not file_system.exists(directory, NAME) and not required:
        return Ends(0, {})
    try:
        fd = file_system.open_file(directory, NAME, writable=False)
        try:
            line = only_line(file_system, fd)
        finally:
            file_system.close(fd)
        record.check(line)
        content = orjson.loads(line)
        ends = {_name(queue): End(*map(values.number, end)) for queue, end in content["queues"].items()}
        return Ends(values.number(content["position"]), ends)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageDamaged(
            f"the ends of the queues cannot be read ({error})",
            path=f"journal/{NAME}",
            byte=0,
            hint="the segments were not touched; restore the file, or see duraq repair --dry-run",
        ) from None


def _name(queue: str) -> str:
    # Of a directory, which is made if it is missing.
    if not is_queue_name(queue):
        raise ValueError(f"not the name of a queue: {queue!r:.80}")
    return queue


def save(file_system: FileSystem, directory: int, ends: Ends) -> None:
    """Replace the file, durably."""
    queues = {queue: list(end) for queue, end in sorted(ends.queues.items())}
    body = orjson.dumps({"op": "ends", "position": ends.position, "queues": queues})[:-1]
    write_durably(file_system, directory, NAME, record.finished(body))


def merge(ends: dict[str, End], touched: Mapping[tuple[str, int], int]) -> None:
    """Move the ends on to where frames left the segments."""
    for (queue, segment), size in touched.items():
        ends[queue] = max(ends.get(queue, End(0, 0)), End(segment, size))
