"""init and create: a storage, and queues in it, before anything is put into them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from duraq import options
from duraq.cli.completing import QUEUE
from duraq.cli.failing import Code
from duraq.cli.options import Settings, common, settings
from duraq.cli.output import Row, conclude, show_one
from duraq.model import MARKER, check_queue_name
from duraq.operations import PauseQueue, ResumeQueue
from duraq.safe_text import without_password

if TYPE_CHECKING:
    from duraq.storage.base import Storage


@click.command()
@click.argument("directory", metavar="[DIR|URL]", required=False)
@common
def init(directory: str | None) -> int:
    """Make a storage in DIR, which is new or empty, or in the database of a URL.

    Without either, where --root and the like say. One that is there already is left as it is. `put` makes one
    by itself.
    """
    said = settings()
    if directory is not None:
        said.root = directory
    was_there, path = _is_there(said), without_password(said.url())
    said.open(create=True).close()
    if was_there:
        said.say(f"there is one already: {path}")
    show_one(said, "duraq.init/1", {"path": path, "made": not was_there}, ("path",))
    return Code.DONE


def _is_there(said: Settings) -> bool:
    kind, where = said.place()
    if kind == "file":
        return (Path(where) / MARKER).exists()
    from duraq.cli.databases import is_there  # noqa: PLC0415 - a directory needs none of it

    return is_there(where)


@click.command()
@click.argument("queues", type=QUEUE, nargs=-1, required=True)
@common
def create(queues: tuple[str, ...]) -> int:
    """Have QUEUES there, with nothing in them yet; one that is there already is left as it is.

    How often entries are tried, and for how long they are leased, is said by whoever works a queue: nothing
    of that is kept in it. `put` makes a queue by itself.
    """
    said = settings()
    for name in queues:
        check_queue_name(name)
    rows: list[Row] = []
    kind, where = said.place()
    with said.open(create=kind == "file" and Path(where).exists()) as storage:
        there = set(storage.queues())
        for name in queues:
            if name not in there:
                make_queue(storage, name)
            status = "there already" if name in there else "created"
            rows.append({"id": None, "queue": name, "status": status, "error": None})
    return conclude(said, "duraq.create/1", rows, [])


def make_queue(storage: Storage, name: str) -> None:
    """Have a queue there that nothing was ever put into."""
    # A queue begins with its first records. These say who wanted it, and leave it as it would be without
    # them; only somebody who paused it in this very moment would find it resumed.
    who = options.user()
    storage.commit({name: (PauseQueue(who, "made"), ResumeQueue(who))})
