"""init and create: a storage, and queues in it, before anything is put into them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from duraq import options
from duraq.cli.completing import QUEUE
from duraq.cli.failing import Code
from duraq.cli.options import common, settings
from duraq.cli.output import Row, conclude, show_one
from duraq.model import check_queue_name
from duraq.operations import PauseQueue, ResumeQueue

if TYPE_CHECKING:
    from duraq.storage.base import Storage


@click.command()
@click.argument("directory", metavar="[DIR]", required=False)
@common
def init(directory: str | None) -> int:
    """Make a storage in DIR, which is new or empty; without DIR where --root and the like say.

    One that is there already is left as it is. `put` makes one by itself.
    """
    said = settings()
    if directory is not None:
        said.root = directory
    root = said.storage()
    was_there = (root / "duraq.json").exists()
    with said.open(create=True) as storage:
        path = storage.path
    if was_there:
        said.say(f"there is one already: {path}")
    show_one(said, "duraq.init/1", {"path": path, "made": not was_there}, ("path",))
    return Code.DONE


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
    with said.open(create=Path(said.storage()).exists()) as storage:
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
