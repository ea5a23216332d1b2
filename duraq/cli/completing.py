"""What a shell is offered when somebody presses Tab: names of queues, fields and events.

It must be there at once: queues are directories, and are listed as such, or rows of a database file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from duraq.cli.failing import CommandError
from duraq.cli.options import Settings
from duraq.errors import DuraqError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class QueueName(click.ParamType[str]):
    """The name of a queue; whether there is one is for the command to say."""

    name = "queue"

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> str:
        return str(value)

    def shell_complete(
        self, ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The queues of the storage that the line names so far."""
        said = ctx.ensure_object(Settings)
        try:
            names = _queues(*said.place())
        except (OSError, CommandError, DuraqError):
            return []
        return offered(names, incomplete)


def _queues(kind: str, where: str) -> list[str]:
    if kind == "file":
        with os.scandir(where) as found:
            return sorted(each.name for each in found if _is_queue(each))
    if kind == "postgres":
        return []  # a server may be a long way off
    from duraq.inspector import Inspector  # noqa: PLC0415 - a directory needs none of it

    with Inspector.at(where) as inspector:
        return inspector.queues()


def _is_queue(found: os.DirEntry[str]) -> bool:
    # Not imported before somebody presses Tab.
    from duraq.model import RESERVED_NAMES, is_users  # noqa: PLC0415

    return (
        is_users(found.name)
        and found.name not in RESERVED_NAMES
        and found.is_dir(follow_symlinks=False)
        and os.path.isdir(os.path.join(found.path, "segments"))  # noqa: PTH112, PTH118 - a Path for each costs
    )


def offered(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Those of the names that go on from there."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - when somebody presses Tab

    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def last_of_many(incomplete: str, separator: str, names: Iterable[str]) -> list[CompletionItem]:
    """What the last of several words that are separated so may be, behind those before it."""
    before, found, last = incomplete.rpartition(separator)
    given = set(before.split(separator))
    return offered([before + found + name for name in names if name not in given or name == last], incomplete)


QUEUE = QueueName()
