"""compact: what keeps a storage small."""

from __future__ import annotations

import click

from duraq.cli.feed import existing
from duraq.cli.options import common, settings
from duraq.cli.output import show_rows

COLUMNS = ("queue", "freed", "kept")


@click.command()
@click.argument("queues", nargs=-1)
@common
def compact(queues: tuple[str, ...]) -> None:
    """Free the disk space of what is over in QUEUES, or in all, now.

    It happens by itself as a queue grows, and up to two segments (of 1 MiB) stay. Shows how many bytes were
    freed, and how many living entries were written again for it.
    """
    said = settings()
    with said.open() as storage:
        names = existing(storage, queues) or storage.queues()
        rows = (storage.compact(name)._asdict() for name in names)
        show_rows(said, "duraq.compactions/1", COLUMNS, rows, name="queue")
