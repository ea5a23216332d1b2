"""What people can do to queues, leases and dead letters.

One list for the commands, the dashboard, its help and its palette. An action changes something.
Whoever offers one shows what it will be done to, the exact number and its command first, and asks.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Target(StrEnum):
    """What an action is done to."""

    DEAD_LETTERS = "dead letters"
    ENTRY = "entry"
    QUEUE = "queue"
    LEASE = "lease"
    STORAGE = "storage"


@dataclass(frozen=True, slots=True)
class Action:
    """One of them.

    ``command``: how it is called on the command line, without ``duraq``. ``key``: the upper-case letter that
    begins it on a screen; None: only by its name. ``effect``: what becomes of what it is done to, for whoever
    is asked. ``undo``: the action that takes it back; None: nothing does.
    """

    name: str
    command: tuple[str, ...]
    key: str | None
    target: Target
    summary: str
    effect: str
    undo: str | None = None

    def argv(self, *arguments: str) -> list[str]:
        """The whole command."""
        return ["duraq", *self.command, *arguments]

    def as_typed(self, *arguments: str) -> str:
        """The same, to be pasted into a shell."""
        return shlex.join(self.argv(*arguments))


_ALL: Sequence[Action] = (
    Action(
        "retry",
        ("dlq", "retry"),
        "R",
        Target.DEAD_LETTERS,
        "Put dead letters back into their queue.",
        "ready again, attempts begin at 0; the history is kept",
    ),
    Action(
        "edit",
        ("dlq", "retry", "--edit"),
        "E",
        Target.ENTRY,
        "Put one dead letter back with another payload.",
        "ready again with the new payload, attempts begin at 0; the history is kept",
    ),
    Action(
        "move",
        ("move",),
        "M",
        Target.DEAD_LETTERS,
        "Put dead letters into another queue.",
        "ready in the other queue, attempts begin at 0; the history is kept",
    ),
    Action(
        "remove",
        ("dlq", "rm"),
        "X",
        Target.DEAD_LETTERS,
        "Remove dead letters.",
        "gone from the dead letters; for seven days they can be brought back",
        undo="undo",
    ),
    Action(
        "purge",
        ("dlq", "purge"),
        None,
        Target.DEAD_LETTERS,
        "Remove dead letters for good.",
        "gone for good: nothing brings them back",
    ),
    Action(
        "undo",
        ("undo",),
        "U",
        Target.STORAGE,
        "Bring back dead letters that were removed.",
        "dead letters again, as they were",
    ),
    Action(
        "pause",
        ("pause",),
        "P",
        Target.QUEUE,
        "Deliver nothing from a queue until it is resumed.",
        "nothing more is delivered; what is being worked goes on",
        undo="resume",
    ),
    Action(
        "resume",
        ("resume",),
        "P",
        Target.QUEUE,
        "Deliver again.",
        "its entries are delivered again",
        undo="pause",
    ),
    Action(
        "release",
        ("release",),
        "L",
        Target.LEASE,
        "End a lease before its time.",
        "ready again, the attempt is not counted; whoever holds it gets LeaseLost",
    ),
    Action(
        "compact",
        ("compact",),
        "C",
        Target.QUEUE,
        "Free the disk space of what is over.",
        "entries stay as they are; files that hold nothing any more go",
    ),
)

ACTIONS = {action.name: action for action in _ALL}
