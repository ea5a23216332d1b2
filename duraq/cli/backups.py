"""backup and restore: a storage copied while it is worked, and brought back."""

from __future__ import annotations

import shlex

import click

from duraq.backups import Copied
from duraq.backups import backup as make_backup
from duraq.backups import restore as bring_back
from duraq.cli.failing import Code, CommandError
from duraq.cli.files_only import files_only
from duraq.cli.options import Settings, common, settings
from duraq.cli.output import show_one

COLUMNS = ("path", "queues", "records", "bytes")


@click.command()
@click.argument("directory", metavar="DIR")
@common
@files_only("backup")
def backup(directory: str) -> None:
    """Copy the storage to DIR, which is new or empty, as it is at this moment.

    It may be worked meanwhile. The copy is a storage like any other; every record in it has been read again.
    """
    said = settings()
    _show(said, make_backup(said.storage(), directory))


@click.command()
@click.argument("directory", metavar="DIR")
@click.argument("more", metavar="", nargs=-1)
@common
@files_only("restore")
def restore(directory: str, more: tuple[str, ...]) -> None:
    """Bring back the backup in DIR: copy it to the storage's directory, which is new or empty.

    DIR is only read. Any other copy of a storage will do as well, though nobody may be working it.
    """
    said = settings()
    if more:
        # As people know it of cp.
        hint = f"duraq -C {shlex.quote(more[0])} restore {shlex.quote(directory)}"
        raise CommandError(Code.USAGE, "restore takes the backup only; -C names where it goes", hint)
    _show(said, bring_back(directory, said.storage()))


def _show(said: Settings, copied: Copied) -> None:
    row = {**copied._asdict(), "queues": len(copied.queues), "names": copied.queues}
    show_one(said, "duraq.backup/1", row, COLUMNS)
