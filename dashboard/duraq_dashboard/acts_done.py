"""What was done to dead letters in the last seven days, as it was written down. Knows no Textual."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from duraq import acts, bulk
from duraq.acts import KEPT, REMOVE, UNDO
from duraq.clock import to_datetime
from duraq.errors import QueueNotFound
from duraq.inspector import Inspector
from duraq.model import ACTS, EntryStatus


@dataclass(frozen=True, slots=True)
class Done:
    """Acts of one name, one for each queue. ``is_undone``: what it removed was brought back."""

    name: str
    verb: str
    at: datetime
    count: int
    queues: tuple[str, ...]
    who: str
    reason: str
    is_undone: bool = False

    @property
    def can_be_undone(self) -> bool:
        """Whether there is anything to bring back."""
        return self.verb == REMOVE and not self.is_undone


def acts_done(inspector: Inspector) -> list[Done]:
    """The newest first."""
    found: dict[str, Done] = {}
    undone: set[str] = set()
    now = to_datetime(inspector.clock.now())
    try:
        for view in inspector.each_entry(ACTS, EntryStatus.READY):
            if not view.priority:
                # What belongs to acts comes behind all of them.
                break
            act = acts.read(view.payload)
            undone |= {act.of} if act.verb == UNDO else set()
            if now - act.at >= KEPT:
                continue
            name = bulk.name_of(act)
            known = found.get(name)
            if known is None:
                found[name] = Done(name, act.verb, act.at, act.count, (act.queue,), act.who, act.reason)
            else:
                queues = (*known.queues, act.queue)
                found[name] = replace(known, count=known.count + act.count, queues=queues)
    except QueueNotFound:
        # Nothing was ever done.
        return []
    names = {
        done.name
        for done in found.values()
        if all(bulk.act_id(done.name, queue) in undone or done.name in undone for queue in done.queues)
    }
    listed = [replace(done, is_undone=done.name in names) for done in found.values()]
    return sorted(listed, key=lambda done: (done.at, done.name), reverse=True)
