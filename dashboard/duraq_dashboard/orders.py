"""What somebody wants done to what they have chosen, as an action of ``duraq.actions`` and as a command.

Which dead letters are meant is settled before anybody is asked, so the number in the question is the number
that it is done to. Knows no Textual.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from duraq.actions import ACTIONS, Action, Target
from duraq.bulk import Meant, Pace
from duraq.inspector import Inspector
from duraq.views import EntryView, LeaseView

# Which dead letters are meant, as of now. The event, once set, ends it early.
Freeze = Callable[[Inspector, threading.Event], Meant]

# A command names no more dead letters than this one by one.
_MOST_IDS = 20


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen on a screen.

    Of dead letters: ``freeze``, and ``where``, the filter that says the same, if one does. ``queue``: of what
    concerns one as a whole. ``entry``: of what concerns only one. ``leases``: of what concerns leases.
    ``act``: the name of one that is to be undone; ``number``: how many it was about.
    """

    freeze: Freeze | None = None
    where: str = ""
    queue: str = ""
    entry: EntryView | None = None
    leases: tuple[LeaseView, ...] = ()
    act: str = ""
    number: int = 1


@dataclass(frozen=True, slots=True)
class Order:
    """An action on what is settled by now; ``at``: when that was."""

    action: Action
    path: str
    at: datetime
    meant: Meant = field(default_factory=Meant)
    where: str = ""
    queue: str = ""
    entry: EntryView | None = None
    leases: tuple[LeaseView, ...] = ()
    reason: str = ""
    pace: Pace = field(default_factory=Pace)
    to: str = ""
    payload: bytes | None = None
    act: str = ""  # the name of the act that is undone
    number: int = 1

    @property
    def count(self) -> int:
        """To how many it is done."""
        if self.action.target is Target.DEAD_LETTERS:
            return self.meant.count
        return len(self.leases) if self.action.target is Target.LEASE else self.number

    @property
    def command(self) -> str:
        """The command that does the same, to be pasted into a shell."""
        root = ("-C", self.path)
        reason = ("--reason", self.reason) if self.reason else ()
        name = self.action.name
        if self.action.target is Target.QUEUE:
            return self.action.as_typed(self.queue, *(reason if name == "pause" else ()), *root)
        if self.action.target is Target.LEASE:
            tokens = [f"{lease.queue}/{lease.id}/{lease.token}" for lease in self.leases]
            return self.action.as_typed(*tokens, *reason, *root)
        if name == "undo":
            return self.action.as_typed(*([self.act] if self.act else []), *reason, *root)
        if name == "edit":
            entry_id, queue = ("ID", "QUEUE") if self.entry is None else (self.entry.id, self.entry.queue)
            return self.action.as_typed(entry_id, "--queue", queue, *reason, *root)
        if name == "purge":
            is_all = self.where in {"", f"queue:{self.queue}"}
            where = () if is_all else ("--where", self.where)
            return self.action.as_typed(self.queue, *where, "--expect", str(self.count), *reason, *root)
        return self._of_dead_letters(*reason, *root)

    def going_on(self, act: str) -> str:
        """The command that does the rest once it was stopped; ``act``: the name that it had, if any."""
        if not act or self.action.target is not Target.DEAD_LETTERS:
            return self.command
        arguments = ["--act", act, "-C", self.path]
        if self.action.name == "move":
            return ACTIONS["retry"].as_typed("--to", self.to, *arguments)
        return self.action.as_typed(*([self.queue] if self.action.name == "purge" else []), *arguments)

    def _of_dead_letters(self, *more: str) -> str:
        # What is moved is put back into another queue.
        action = ACTIONS["retry"] if self.action.name == "move" else self.action
        arguments = list(self._letters())
        if self.action.name == "move":
            arguments += ["--to", self.to or "QUEUE"]
        if self.pace.rate is not None:
            arguments += ["--rate", f"{self.pace.rate:g}/s"]
        if self.pace.failing is not None:
            arguments += ["--stop-if-failing", f"{self.pace.failing * 100:g}"]
        return action.as_typed(*arguments, *more)

    def _letters(self) -> list[str]:
        if self.where:
            return ["--where", self.where, "--expect", str(self.count)]
        ids = [entry_id for letters in self.meant.letters.values() for entry_id, _ in letters]
        queue = [*self.meant.letters][:1] if len(self.meant.letters) == 1 else []
        if len(ids) > _MOST_IDS:
            ids = ["-"]  # on stdin
        return ids + [argument for name in queue for argument in ("--queue", name)]
