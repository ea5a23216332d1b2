"""What an action would be done to, by what is chosen: a queue, dead letters, one letter. Knows no Textual."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import takewhile

from duraq.actions import Action, Target
from duraq.bulk import Meant
from duraq.dead_index import ErrorKind
from duraq.errors import EntryNotFound
from duraq.inspector import Inspector
from duraq.model import EntryStatus
from duraq.views import EntryView
from duraq.where import Where
from duraq_dashboard.letters import Letters, fetch
from duraq_dashboard.orders import Selection
from duraq_dashboard.snapshot import QueueNow

_AT_ONCE = 200  # letters that are read together


def chosen_of(queue: QueueNow, action: Action) -> Selection | None:
    """The queue itself, all its dead letters or all its leases; None if there is nothing of the kind."""
    if action.target is Target.QUEUE:
        return Selection(queue=queue.name)
    if action.target is Target.DEAD_LETTERS:
        return dead_letters_of(queue.name) if queue.view.counts.dead else None
    if action.target is Target.LEASE:
        return Selection(leases=queue.view.leases) if queue.view.leases else None
    return Selection() if action.target is Target.STORAGE else None


def is_of_one(action: Action) -> bool:
    """Whether it concerns one dead letter, or its queue, whatever else is selected."""
    return action.name in {"edit", "purge"} or action.target is Target.QUEUE


def chosen_with(view: EntryView, action: Action) -> Selection:
    """What such an action would be done to, where that dead letter is the one that is shown."""
    if action.name == "purge":
        return dead_letters_of(view.queue)
    return Selection(entry=view) if action.name == "edit" else Selection(queue=view.queue)


def dead_letters_of(queue: str, where: Where | None = None) -> Selection:
    """All dead letters of a queue, as they are when it is asked; or those of them that a filter means."""

    def freeze(inspector: Inspector, stop: threading.Event) -> Meant:
        found = takewhile(lambda _: not stop.is_set(), inspector.each_entry(queue, EntryStatus.DEAD))
        return Meant.of(view for view in found if where is None or where.matches(view))

    text = f"queue:{queue}" if where is None else f"queue:{queue} {where}"
    return Selection(freeze=freeze, where=text, queue=queue)


def letters_of(letters: Letters, keys: Sequence[int], where: str) -> Selection:
    """These, as far as they are dead when it is asked; ``where``: the filter that says the same, if any."""

    def freeze(inspector: Inspector, stop: threading.Event) -> Meant:
        return Meant.of(each_letter(letters, keys, inspector, stop))

    return Selection(freeze=freeze, where=where)


def letter_of(view: EntryView) -> Selection:
    """That dead letter, unless something has become of it since it was shown."""

    def freeze(inspector: Inspector, _stop: threading.Event) -> Meant:
        try:
            found = inspector.find(view.id, view.queue)
        except EntryNotFound:
            return Meant()
        is_same = found.status is EntryStatus.DEAD and found.token == view.token
        return Meant.of([found] if is_same else [])

    return Selection(freeze=freeze)


def each_letter(
    letters: Letters, keys: Sequence[int], inspector: Inspector, stop: threading.Event
) -> Iterator[EntryView]:
    """Those of them that are dead as of now, in full."""
    for at in range(0, len(keys), _AT_ONCE):
        if stop.is_set():
            return
        yield from fetch(inspector, letters, keys[at : at + _AT_ONCE]).values()


def filter_of(where: Where | None, cause: ErrorKind | None) -> str:
    """The filter that means what one admits, and of that what died of the cause; empty if none does."""
    if cause is not None and not cause.signature:
        return ""
    terms = [] if where is None else [str(where)]
    terms += [] if cause is None else [f"sig:{cause.signature}"]
    return " ".join(terms) or "state:dead"
