"""A screen's questions: asked in the source's thread, answered in the screen's own. Knows no Textual."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from duraq.inspector import Inspector
from duraq_dashboard.source import Source

T = TypeVar("T")


class Questions:
    """``later`` calls a function soon in the screen's thread; it may be called from any other.

    Each question has a name: a newer one takes the place of an older one, whose answer nobody waits for then.
    """

    def __init__(self, source: Source, later: Callable[..., Any]) -> None:
        self._source = source
        self._later = later
        self._open: dict[str, threading.Event] = {}

    def ask(
        self,
        name: str,
        question: Callable[[Inspector, threading.Event], T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Ask it; then one of the two is called."""
        self.drop(name)
        asked = threading.Event()

        def answer(found: T | Exception) -> None:
            self._later(self._answered, name, asked, found, then, failed)

        self._open[name] = asked
        given_up = self._source.ask(lambda inspector, stop: question(inspector, _Either(asked, stop)), answer)
        if asked.is_set():
            given_up.set()

    def _answered(self, name: str, asked: threading.Event, found: Any, then: Any, failed: Any) -> None:
        if asked.is_set():
            return
        if self._open.get(name) is asked:
            del self._open[name]
        if isinstance(found, Exception):
            failed(found)
        else:
            then(found)

    def is_open(self, name: str) -> bool:
        """Whether an answer is waited for."""
        return name in self._open

    def drop(self, name: str) -> None:
        """Wait for that answer no more."""
        asked = self._open.pop(name, None)
        if asked is not None:
            asked.set()

    def drop_all(self) -> None:
        """Wait for no answer any more."""
        for name in list(self._open):
            self.drop(name)


class _Either(threading.Event):
    """Set as soon as one of several events is."""

    def __init__(self, *events: threading.Event) -> None:
        super().__init__()
        self._events = events

    def is_set(self) -> bool:
        return any(event.is_set() for event in self._events)
