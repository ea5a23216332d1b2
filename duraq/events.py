"""Records as filters see them, and the newest of them that match.

A filter of ``duraq.where`` asks the same of a record as of an entry: its queue, its id, what happened (the
``event``), and what the record itself says of the entry. What it does not say is not there, so nothing but a
negated term is true of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson

from duraq import snapshot
from duraq.inspector import Inspector
from duraq.model import Attempt, Cause, EntryStatus
from duraq.views import RecordView

if TYPE_CHECKING:
    from duraq.where import Where

# What an entry is once that has happened to it. One that has waited long enough is ready all the same.
_STATES = {
    "enqueue": EntryStatus.READY,
    "lease": EntryStatus.LEASED,
    "extend": EntryStatus.LEASED,
    "complete": EntryStatus.COMPLETED,
    "fail": EntryStatus.SCHEDULED,
    "dead": EntryStatus.DEAD,
    "release": EntryStatus.READY,
    "expire": EntryStatus.EXPIRED,
    "requeue": EntryStatus.READY,
    "remove": EntryStatus.DEAD,
    "restore": EntryStatus.DEAD,
}
# All that can happen, as records have it.
EVENTS = (*_STATES, "keep", "drop", "adopt", "pause", "resume", "repair", "seal")
_AT_LEAST = 200  # records that are read at once, if not all of them are wanted

Wanted = Callable[[RecordView], bool]


class Event:
    """A record, as a filter looks at it: an AnyEntry that knows what its record says."""

    def __init__(self, view: RecordView) -> None:
        self.id = view.id or ""
        self.event = view.op
        self.created_at = self.updated_at = view.at
        self._view = view

    @cached_property
    def _said(self) -> dict[str, Any]:
        fields = self._view.fields
        return {**fields.get("entry", {}), **fields}

    @property
    def status(self) -> EntryStatus | None:
        if self._view.op == "restore" and "dead" not in self._said:
            return EntryStatus.READY
        if self._view.op in {"enqueue", "release"} and "ready_at" in self._said:
            return EntryStatus.SCHEDULED
        return _STATES.get(self._view.op)

    @property
    def payload(self) -> bytes:
        return orjson.dumps(self._said["data"]) if "data" in self._said else b""

    @property
    def history(self) -> tuple[Attempt, ...]:
        if "error" not in self._said:
            return ()
        error, at = snapshot.restore_error(self._said["error"]), self._view.at
        return (Attempt(0, Cause(self._said["cause"]), error, "", at, at),)

    @property
    def attempts(self) -> Any:
        return self._said.get("attempt", self._said.get("attempts"))

    @property
    def ready_at(self) -> None:
        """Of no use without the time at which it is asked."""

    def __getattr__(self, name: str) -> Any:
        # priority, key, headers, worker, redriven: as they are called in the record.
        if name.startswith("_"):
            raise AttributeError(name)
        return self._said.get(name)


def wanted(
    *,
    where: Where | None = None,
    events: Iterable[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
) -> Wanted | None:
    """Whether a record is meant by all of these; None if every one is."""
    chosen = frozenset(events)
    if where is None and not chosen and since is None and until is None:
        return None

    def is_wanted(view: RecordView) -> bool:
        return (
            (not chosen or view.op in chosen)
            and (since is None or view.at >= since)
            and (until is None or view.at <= until)
            and (where is None or where.matches_stored(view.queue, Event(view)))
        )

    return is_wanted


def newest(
    inspector: Inspector,
    queues: Iterable[str] | None,
    last: int | None,
    is_wanted: Wanted | None = None,
    since: datetime | None = None,
) -> list[RecordView]:
    """The newest records that are wanted, oldest first; so many (None: all), and none before ``since``."""
    names = None if queues is None else list(queues)
    if is_wanted is None and last is not None:
        return inspector.records(names, last=last)
    count = max(_AT_LEAST, last or 0)
    while True:
        found = inspector.records(names, last=count)
        kept = [view for view in found if is_wanted is None or is_wanted(view)]
        is_all = len(found) < count or (since is not None and found[0].at < since)
        if is_all or (last is not None and len(kept) >= last):
            return kept if last is None else kept[max(0, len(kept) - last) :]
        # Where that lies which is wanted nobody knows; twice as far is never twice too far.
        count *= 4


def following(
    inspector: Inspector,
    queues: Iterable[str] | None,
    last: int | None,
    is_wanted: Wanted | None = None,
    since: datetime | None = None,
) -> Iterator[RecordView]:
    """The same, then each that is wanted as it is written."""
    names = None if queues is None else list(queues)
    if is_wanted is None and last is not None:
        yield from inspector.follow(names, last=last)
        return
    # It begins to follow here, so that nothing is missed that is written while it is looked back.
    later = inspector.follow(names, last=1)
    for first in later:
        inspector.refresh()
        before = newest(inspector, names, last, is_wanted, since)
        yield from before
        shown = {(view.queue, view.seq) for view in (*before, first)}
        for view in later:
            if (view.queue, view.seq) not in shown and (is_wanted is None or is_wanted(view)):
                yield view
