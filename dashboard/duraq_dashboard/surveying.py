"""Surveys of the dead letters, one after the other: with each filter and order, and as letters come and go.

Knows no Textual.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from time import monotonic

from duraq.inspector import Inspector
from duraq.safe_text import safe_text
from duraq.where import Where
from duraq_dashboard import wording
from duraq_dashboard.letters import SORTS, Letters, Queues
from duraq_dashboard.questions import Questions
from duraq_dashboard.rows import Cell
from duraq_dashboard.seldom import Seldom
from duraq_dashboard.snapshot import Snapshot
from duraq_dashboard.survey import Found, Survey

_TOLD = 0.1  # seconds between two tellings of how far the counting is
_CHANGES = ("dead", "requeued", "removed", "restored")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a survey needs of the screen. All of it is called in the screen's thread, but ``later``.

    ``snapshot``: the newest; ``now``: as of when. ``later`` calls a function there soon, ``after`` does so
    many seconds later.
    ``draw``: draw all anew, as of the newest snapshot. ``listed``: there are other letters to be listed.
    ``told``: nothing has changed but how far it is.
    """

    snapshot: Callable[[], Snapshot | None]
    now: Callable[[], datetime]
    later: Callable[..., object]
    after: Callable[[float, Callable[[], None]], object]
    draw: Callable[[], None]
    listed: Callable[[], None]
    told: Callable[[], None]


class Surveying:
    """What the newest survey has found, by that filter and in that order."""

    def __init__(self, questions: Questions, screen: Surroundings) -> None:
        self.where: Where | None = None
        self.sort = SORTS[0]
        self.found: Found | None = None
        self.is_stopped = False
        self.of_whole = False  # whether it was of all queues
        self._questions = questions
        self._screen = screen
        self._queues = Queues()
        self._known: Letters | None = None  # all of them, when they were counted last
        self._counted = -1  # how many, while they are being counted
        self._seen: object = None  # what the newest survey has seen
        self._seldom = Seldom()
        self._is_put_off = False  # there is to be another survey, but not yet
        self._problem = ""

    @property
    def is_whole(self) -> bool:
        """Whether all letters that match are known, in all queues."""
        return self.found is not None and self.found.is_over and self.of_whole

    def look(self, snapshot: Snapshot) -> None:
        """Begin another one if letters have come or gone, but not all the time."""
        seen = (
            snapshot.whole,
            frozenset(
                (name, queue.view.counts.dead, *(getattr(queue.metrics.counters, each) for each in _CHANGES))
                for name, queue in snapshot.queues.items()
                if queue.metrics is not None
            ),
        )
        if seen == self._seen or self.is_stopped or self._questions.is_open("survey"):
            return
        wait = self._seldom.wait
        is_all_new = snapshot.whole and not self.of_whole
        if self.found is None or wait <= 0 or is_all_new:
            self._seen, self.of_whole = seen, snapshot.whole
            self.begin(counted=True)
        elif not self._is_put_off:
            self._is_put_off = True
            self._screen.after(wait, self._no_longer_put_off)

    def _no_longer_put_off(self) -> None:
        self._is_put_off = False
        self._screen.draw()

    def begin(self, *, counted: bool = False) -> None:
        """Find out what is dead; unless it is ``counted`` anew, only order and filter are other ones."""
        snapshot = self._screen.snapshot()
        known = self._known
        so_far = known if known is not None or self.found is None else self.found.letters
        began = monotonic()
        told = [began]

        def tell(number: int) -> None:
            # In the source's thread.
            if monotonic() - told[0] >= _TOLD:
                told[0] = monotonic()
                self._screen.later(self._count, number)

        survey = Survey(
            self._queues,
            self.where,
            self.sort,
            self._screen.now(),
            names=_with_letters(snapshot),
            letters=None if counted else known,
            before=so_far,
        )
        # What is shown stays until the same is known anew; what a key has asked for comes as it is found.
        waits = counted and self.found is not None
        self.is_stopped = False
        self._go_on(partial(survey.go_on, tell=tell), began, waits=waits)

    def stop(self) -> bool:
        """Find out no more; whether there was anything to stop."""
        if not self._questions.is_open("survey") or (self.found is not None and self.found.is_over):
            return False
        self._questions.drop("survey")
        self.is_stopped, self._counted = True, -1
        return True

    def told(self) -> Cell:
        """How far it is, or what has gone wrong; empty if all is known."""
        found = self.found
        if self._problem:
            return self._problem, "warn"
        if self.is_stopped:
            return "stopped; / or s begins again", "warn"
        if self._counted >= 0 or (found is not None and found.counted is not None):
            return f"counting: {wording.count(max(0, self._counted))} (Esc stops)", "note"
        if found is None:
            return "reading ...", "note"
        if not found.is_over:
            looked = f"{wording.count(found.looked_at)} of {wording.count(found.candidates)}"
            return f"looked at {looked} (Esc stops)", "note"
        return "" if self.of_whole else ("still reading the other queues", "note")

    def failed(self, error: Exception) -> None:
        """A question was not answered; it is asked again."""
        self._counted = -1
        self._problem = safe_text(error, 400)
        self._seen = None
        self._seldom.over()
        self._screen.told()

    def _go_on(
        self,
        question: Callable[[Inspector, threading.Event], Found | None],
        began: float,
        *,
        waits: bool,
    ) -> None:
        def then(found: Found | None) -> None:
            if found is None:
                return
            is_shown = found.is_over or not waits
            if is_shown:
                self.found = found
            if found.is_over:
                self._seldom.over(began)
                self._problem, self._counted = "", -1
                self._known = found.letters
            else:
                self._go_on(question, began, waits=waits)
            if is_shown:
                self._screen.listed()
            else:
                self._screen.told()

        self._questions.ask("survey", question, then, self.failed)

    def _count(self, number: int) -> None:
        if self._questions.is_open("survey"):
            self._counted = number
            self._screen.told()


def _with_letters(snapshot: Snapshot | None) -> list[str]:
    """The queues that have any, or cannot be read and say why; those with fewest first."""
    queues = [] if snapshot is None else list(snapshot.queues.values())
    found = [queue for queue in queues if queue.view.counts.dead or queue.metrics is None]
    return [queue.name for queue in sorted(found, key=lambda queue: queue.view.counts.dead)]
