"""The entries of a queue in one state that a filter means: read one by one, told of as they are found.

Knows no Textual.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from duraq.inspector import Inspector
from duraq.model import EntryStatus
from duraq.safe_text import safe_text
from duraq.where import Where
from duraq_dashboard import wording
from duraq_dashboard.entry_pages import EntryLine, line_of
from duraq_dashboard.questions import Questions
from duraq_dashboard.seldom import Seldom

MOST = 2000  # entries that are listed; the others are counted
_TOLD = 0.1  # seconds between two tellings


@dataclass(frozen=True, slots=True)
class Matches:
    """The first of those that match, how many do, of how many that were looked at."""

    lines: Sequence[EntryLine] = ()
    count: int = 0
    looked_at: int = 0
    is_over: bool = False


def search(
    inspector: Inspector,
    queue: str,
    state: EntryStatus,
    where: Where,
    *,
    stop: threading.Event,
    tell: Callable[[Matches], object],
) -> Matches:
    """All that match, unless it is stopped."""
    lines: list[EntryLine] = []
    count = looked_at = 0
    told = monotonic()
    # What is asked of the state or the queue alone is known before any entry is read.
    possible = state in where.states() and where.queues([queue])
    for view in inspector.each_entry(queue, state) if possible else ():
        if stop.is_set():
            break
        looked_at += 1
        if where.matches(view):
            count += 1
            if len(lines) < MOST:
                lines.append(line_of(view))
        if monotonic() - told >= _TOLD:
            told = monotonic()
            tell(Matches(tuple(lines), count, looked_at))
    return Matches(tuple(lines), count, looked_at, is_over=not stop.is_set())


class EntrySearch:
    """Of one queue: begun with each filter and each state, repeated as the queue changes, and stopped.

    ``later`` calls a function soon in the screen's thread, and may be called from any; ``after`` does so that
    many seconds later. ``show`` is called there when there is something new to be shown.
    """

    def __init__(
        self,
        queue: str,
        questions: Questions,
        show: Callable[[], object],
        *,
        later: Callable[..., object],
        after: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.where: Where | None = None
        self.matches = Matches()
        self.failure = ""  # why nothing could be found
        self.is_stopped = False
        self._queue = queue
        self._state = EntryStatus.READY
        self._questions = questions
        self._show, self._later, self._after = show, later, after
        self._begun: object = None
        self._seldom = Seldom()
        self._is_behind = False  # the queue has changed since
        self._is_put_off = False

    def begin(self, where: Where | None, state: EntryStatus) -> None:
        """Find what that means from now on; with None, nothing."""
        self._questions.drop("search")
        self.where, self._state = where, state
        self.matches, self.failure, self.is_stopped = Matches(), "", False
        if where is not None:
            self._ask(where, tells=True)

    def changed(self) -> None:
        """The queue has: find it once more, but not all the time."""
        self._is_behind = True
        self._again()

    def stop(self) -> bool:
        """Find no more; whether there was anything to stop."""
        if not self._questions.is_open("search") or self.matches.is_over:
            return False
        self._questions.drop("search")
        self.is_stopped = True
        return True

    def told(self, of: int) -> str:
        """How far it is, or what came of it; there are so many in all."""
        found = self.matches
        text = f"{wording.count(found.count)} match"
        if found.count > len(found.lines):
            text += f", {wording.count(len(found.lines))} are listed"
        if found.is_over:
            return text
        how = "stopped" if self.is_stopped else "Esc stops"
        return f"{text}, looked at {wording.count(found.looked_at)} of {wording.count(of)} ({how})"

    def _again(self) -> None:
        where = self.where
        if not self._is_behind or where is None or self.is_stopped or self._questions.is_open("search"):
            return
        wait = self._seldom.wait
        if wait <= 0:
            # What is shown stays until the same is known anew.
            self._ask(where, tells=False)
        elif not self._is_put_off:
            self._is_put_off = True
            self._after(wait, self._no_longer_put_off)

    def _no_longer_put_off(self) -> None:
        self._is_put_off = False
        self._again()

    def _ask(self, where: Where, *, tells: bool) -> None:
        self._is_behind = False
        queue, state, began = self._queue, self._state, monotonic()
        begun = self._begun = object()

        def show(found: Matches) -> None:
            # An older one may be told of after it was given up.
            if self._begun is begun and not self.is_stopped:
                self.matches, self.failure = found, ""
                self._show()

        def tell(found: Matches) -> None:
            # In the source's thread.
            if tells:
                self._later(show, found)

        def then(found: Matches) -> None:
            self._seldom.over(began)
            show(found)
            self._again()

        self._questions.ask(
            "search",
            lambda inspector, stop: search(inspector, queue, state, where, stop=stop, tell=tell),
            then,
            self._failed,
        )

    def _failed(self, error: Exception) -> None:
        self._seldom.over()
        self.failure = safe_text(error, 2000)
        self._show()
