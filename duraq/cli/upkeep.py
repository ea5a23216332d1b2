"""compact: what keeps a storage small."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from duraq.cli.completing import QUEUE
from duraq.cli.feed import existing
from duraq.cli.files_only import files_only
from duraq.cli.options import common, settings
from duraq.cli.output import show_rows
from duraq.errors import QueueNotFound
from duraq.model import OWN_QUEUES

if TYPE_CHECKING:
    from duraq.storage.compactor import Compacted
    from duraq.storage.file import FileStorage

COLUMNS = ("queue", "freed", "kept")


@click.command()
@click.argument("queues", type=QUEUE, nargs=-1)
@common
@files_only("compact")
def compact(queues: tuple[str, ...]) -> None:
    """Free the disk space of what is over in QUEUES, or in all, now.

    It happens by itself as a queue grows, and up to two segments (of 1 MiB) stay. Shows how many bytes were
    freed, and how many living entries were written again for it.
    """
    said = settings()
    with said.open_files() as storage:
        done = [storage.compact(name) for name in existing(storage, queues) or storage.queues()]
        if not queues:
            done += _compact_own(storage)
        show_rows(said, "duraq.compactions/1", COLUMNS, [each._asdict() for each in done], name="queue")


def _compact_own(storage: FileStorage) -> list[Compacted]:
    """The storage's own queues: what was removed long ago, and keys whose window has passed."""
    done = []
    for name in sorted(OWN_QUEUES):
        with suppress(QueueNotFound):
            done.append(storage.compact(name))
    return [each for each in done if each.freed]
