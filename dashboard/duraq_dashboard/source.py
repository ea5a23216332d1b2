"""Reads the storage in threads of its own, so that no screen ever waits for a disk.

One thread watches and makes snapshots. Another answers questions, such as for the dead letters of a queue,
with an Inspector of its own: however long an answer takes, the watching goes on.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime
from queue import SimpleQueue
from typing import Protocol, TypeVar

from duraq.attention import verdicts
from duraq.clock import Clock, SystemClock, to_datetime
from duraq.errors import NotAStorage, StorageDamaged, StorageError, UnsupportedVersion
from duraq.inspector import Inspector
from duraq_dashboard.happenings import EventFilter, Following
from duraq_dashboard.snapshot import QueueNow, Snapshot, Trouble

T = TypeVar("T")
log = logging.getLogger("duraq.dashboard")

SWEEP = 1.0  # seconds between two looks, if nothing hints at a change


class Source(Protocol):
    """Where an app gets all that it shows. Both callbacks are called in the source's threads."""

    path: str
    looked_at: datetime | None  # when it looked last, whether it found something new or not

    def start(self, on_look: Callable[[Snapshot], None]) -> None:
        """Begin; each look that finds something new is given to ``on_look``."""

    def look_now(self) -> None:
        """Look at once, whatever hints there are; also if nothing has changed ``on_look`` is called."""

    def ask(
        self,
        question: Callable[[Inspector, threading.Event], T],
        answer: Callable[[T | Exception], None],
    ) -> threading.Event:
        """Have a question answered with an Inspector; returns what, once set, ends it early.

        The question is given that event too, and looks at it now and then if it takes long.
        """

    def follow(self, on_more: Callable[[], None], chosen: EventFilter | None = None) -> Following:
        """Follow the records; ``on_more`` is called in a thread when there is something to take."""

    def stop(self) -> None:
        """End the threads. Idempotent."""


class StorageSource:
    """A storage's directory, which need not be there yet."""

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self.path = os.fspath(path)
        self.looked_at: datetime | None = None
        self._clock = clock or SystemClock()
        self._wanted = threading.Event()
        self._forced = False
        self._stopped = threading.Event()
        self._questions: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._inspector: Inspector | None = None  # of the thread that watches

    def start(self, on_look: Callable[[Snapshot], None]) -> None:
        watching = threading.Thread(target=self._watch, args=(on_look,), name="duraq-watch", daemon=True)
        answering = threading.Thread(target=self._answer, name="duraq-answer", daemon=True)
        self._threads = [watching, answering]
        for thread in self._threads:
            thread.start()

    def look_now(self) -> None:
        self._forced = True
        self._wanted.set()

    def ask(
        self,
        question: Callable[[Inspector, threading.Event], T],
        answer: Callable[[T | Exception], None],
    ) -> threading.Event:
        given_up = threading.Event()

        def run() -> None:
            if given_up.is_set():
                return
            found: T | Exception
            try:
                with Inspector(self.path, clock=self._clock) as inspector:
                    found = question(inspector, given_up)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                found = error
            if not given_up.is_set():
                answer(found)

        self._questions.put(run)
        return given_up

    def follow(self, on_more: Callable[[], None], chosen: EventFilter | None = None) -> Following:
        following = Following(self.path, on_more, chosen, clock=self._clock)
        following.start()
        return following

    def stop(self) -> None:
        self._stopped.set()
        self._wanted.set()
        self._questions.put(None)
        for thread in self._threads:
            thread.join(timeout=5)

    # -- the thread that watches -----------------------------------------------------------------------

    def _watch(self, on_look: Callable[[Snapshot], None]) -> None:
        number, before = 0, None
        while not self._stopped.is_set():
            self._wanted.clear()
            forced, self._forced = self._forced, False
            found = self._look(number + 1)
            self.looked_at = found.looked_at
            if forced or before is None or _differ(found, before):
                number, before = found.number, found
                on_look(found)
            self._wanted.wait(SWEEP)
        self._close()

    def _look(self, number: int) -> Snapshot:
        now = to_datetime(self._clock.now())
        try:
            if self._inspector is None:
                self._inspector = Inspector(self.path, clock=self._clock)
            else:
                self._inspector.refresh()
            queues = {name: self._queue(self._inspector, name, now) for name in self._inspector.queues()}
        except StorageError as error:
            self._close()
            return Snapshot(self.path, number, now, now, trouble=trouble(error))
        return Snapshot(self.path, number, now, now, live=False, queues=queues)

    @staticmethod
    def _queue(inspector: Inspector, name: str, now: datetime) -> QueueNow:
        view = inspector.overview(name)
        metrics = None if view.problem is not None else inspector.metrics(name)
        return QueueNow(view, metrics, tuple(verdicts(view, now, metrics=metrics)))

    def _close(self) -> None:
        if self._inspector is not None:
            self._inspector.close()
            self._inspector = None

    # -- the thread that answers -----------------------------------------------------------------------

    def _answer(self) -> None:
        while (question := self._questions.get()) is not None:
            question()


def trouble(error: StorageError) -> Trouble:
    """What keeps a storage from being looked at, in a word and in words."""
    words = {NotAStorage: "GONE", UnsupportedVersion: "NEWER", StorageDamaged: "CORRUPT"}
    word = next((word for kind, word in words.items() if isinstance(error, kind)), "DENIED")
    return Trouble(word, str(error), error.hint or "")


def _differ(found: Snapshot, before: Snapshot) -> bool:
    return (found.trouble, found.queues, found.workers) != (before.trouble, before.queues, before.workers)
