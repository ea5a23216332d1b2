"""Reads the storage in threads of its own, so that no screen ever waits for a disk.

One thread watches and makes snapshots. Another answers questions, such as for the dead letters of a queue,
with an Inspector of its own: however long an answer takes, the watching goes on. Nothing that goes wrong ends
a thread: it is shown, or it is in the log.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Protocol, TypeVar

from duraq.attention import DEFAULT, Thresholds
from duraq.bookmarks import Bookmarks
from duraq.clock import Clock, SystemClock, to_datetime
from duraq.errors import StorageError
from duraq.events import Wanted
from duraq.inspector import Inspector
from duraq_dashboard.happenings import Following
from duraq_dashboard.looker import Looker
from duraq_dashboard.snapshot import Snapshot

T = TypeVar("T")
log = logging.getLogger("duraq.dashboard")

# In seconds. While things change it listens closely; quiet, seldom enough to let the machine sleep.
CLOSELY, SELDOM = 0.05, 0.3
# So long after the last change it is quiet.
QUIET = 5.0
# Every so often a look goes everywhere, whatever the beat says.
SWEEP = 2.0
# What is committed is in the segments a moment later: after a beat, look again.
AGAIN = 0.05
# A look that takes longer is shown in parts.
PART = 0.2
# A question that has waited for longer is answered by another thread.
PATIENCE = 0.3


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

    def follow(self, on_more: Callable[[], None], chosen: Wanted | None = None) -> Following:
        """Follow the records; ``on_more`` is called in a thread when there is something to take."""

    def acknowledge(self, queue: str) -> None:
        """That a queue is gone was noted: it need not be shown any longer."""

    def stop(self) -> None:
        """End the threads. Idempotent."""


class _Stopped(Exception):
    """Raised in the thread that watches, to end a look."""


class StorageSource:
    """A storage's directory, which need not be there yet. At most ``fps`` snapshots a second are made."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        fps: float = 10.0,
        limits: Thresholds = DEFAULT,
    ) -> None:
        self.path = os.fspath(path)
        self._limits = limits
        self.looked_at: datetime | None = None
        self._clock = clock or SystemClock()
        self._apart = 1 / fps
        self._wanted = threading.Event()
        self._forced = False
        self._noted: list[str] = []
        self._stopped = threading.Event()
        self._bookmarks = Bookmarks(self.path)
        self._answers = _Answers(self.path, self._clock, self._bookmarks)
        self._watching: threading.Thread | None = None

    def start(self, on_look: Callable[[Snapshot], None]) -> None:
        self._watching = threading.Thread(
            target=self._watch, args=(on_look,), name="duraq-watch", daemon=True
        )
        self._watching.start()

    def look_now(self) -> None:
        self._forced = True
        self._wanted.set()

    def acknowledge(self, queue: str) -> None:
        self._noted.append(queue)
        self.look_now()

    def ask(
        self,
        question: Callable[[Inspector, threading.Event], T],
        answer: Callable[[T | Exception], None],
    ) -> threading.Event:
        return self._answers.ask(question, answer)

    def follow(self, on_more: Callable[[], None], chosen: Wanted | None = None) -> Following:
        following = Following(self.path, on_more, chosen, clock=self._clock)
        following.start()
        return following

    def stop(self) -> None:
        self._stopped.set()
        self._wanted.set()
        self._answers.stop()
        if self._watching is not None:
            self._watching.join(timeout=5)
        self._bookmarks.save()

    # -- the thread that watches -----------------------------------------------------------------------

    def _watch(self, on_look: Callable[[Snapshot], None]) -> None:
        looker = Looker(self.path, self._clock, self._bookmarks, self._limits)
        pace = _Pace(self._apart)
        while not self._stopped.is_set():
            self._wanted.clear()
            forced, self._forced = self._forced, False
            try:
                if self._look(looker, pace, on_look, forced=forced):
                    on_look(looker.snapshot())
                if looker.try_out(forced=forced):
                    on_look(looker.snapshot())
                if forced or not pace.is_lively():
                    self._bookmarks.save()
            except _Stopped:
                break
            except Exception:
                log.exception("looking at %s failed; it goes on", self.path)
                looker.close()
            self._wanted.wait(pace.pause())
            # Only now: what the first look has found is drawn first.
            self._answers.begin()
        looker.close()

    def _look(
        self, looker: Looker, pace: _Pace, on_look: Callable[[Snapshot], None], *, forced: bool
    ) -> bool:
        """Whether there is something new to be told, or to be told again."""
        for queue in self._taken_notes():
            looker.acknowledge(queue)
        beats = looker.beat()
        thorough = forced or pace.is_time_to_sweep()
        differs = False
        if beats or thorough or pace.is_time_to_look_again() or looker.is_due():
            differs = looker.look(thorough=thorough, progress=self._telling(looker, pace, on_look))
            pace.looked(beats=beats, thorough=thorough, differs=differs)
        self.looked_at = to_datetime(self._clock.now())
        return differs or forced

    def _taken_notes(self) -> list[str]:
        noted, self._noted = self._noted, []
        return noted

    def _telling(
        self, looker: Looker, pace: _Pace, on_look: Callable[[Snapshot], None]
    ) -> Callable[[], None]:
        """What is called as a look goes on: one that takes long, as the first may, is shown in parts."""
        pace.begins_to_look()

        def tell() -> None:
            if self._stopped.is_set():
                raise _Stopped
            if pace.is_time_for_a_part():
                on_look(looker.part())

        return tell


class _Pace:
    """When the thread that watches does what; in seconds of the monotonic clock."""

    def __init__(self, apart: float) -> None:
        self._apart = apart
        self._sweep_at = self._quiet_at = self._next_at = self._part_at = time.monotonic()
        self._again_at: float | None = None

    def is_lively(self) -> bool:
        """Whether anything has changed lately."""
        return time.monotonic() < self._quiet_at

    def is_time_to_sweep(self) -> bool:
        return time.monotonic() >= self._sweep_at

    def is_time_to_look_again(self) -> bool:
        return self._again_at is not None and time.monotonic() >= self._again_at

    def is_time_for_a_part(self) -> bool:
        now = time.monotonic()
        if now < self._part_at:
            return False
        self._part_at = now + PART
        return True

    def begins_to_look(self) -> None:
        self._part_at = time.monotonic() + PART

    def looked(self, *, beats: bool, thorough: bool, differs: bool) -> None:
        """It has just been looked."""
        now = time.monotonic()
        if thorough:
            self._sweep_at = now + SWEEP
        self._again_at = now + AGAIN if beats else None
        if differs or beats:
            self._quiet_at = now + QUIET
            # No snapshot is made that would not be drawn.
            self._next_at = now + self._apart

    def pause(self) -> float:
        """How long to rest now."""
        now = time.monotonic()
        wake_at = now + (CLOSELY if now < self._quiet_at else SELDOM)
        if self._again_at is not None:
            wake_at = min(wake_at, self._again_at)
        return max(wake_at, self._next_at) - now


class _Kept:
    """An inspector that is kept from one question to the next, and looks again before each."""

    def __init__(self, path: str, clock: Clock, bookmarks: Bookmarks) -> None:
        self._path = path
        self._clock = clock
        self._bookmarks = bookmarks
        self._inspector: Inspector | None = None

    def __call__(self) -> Inspector:
        if self._inspector is None:
            self._inspector = Inspector(self._path, clock=self._clock, bookmarks=self._bookmarks)
        else:
            try:
                self._inspector.refresh()
            except BaseException:
                self.close()
                raise
        return self._inspector

    def close(self) -> None:
        if self._inspector is not None:
            self._inspector.close()
            self._inspector = None


Run = Callable[[_Kept], None]


class _Answers:
    """Answers questions in turn. One that has waited for too long behind others is for a second thread."""

    def __init__(self, path: str, clock: Clock, bookmarks: Bookmarks) -> None:
        self._path = path
        self._clock = clock
        self._bookmarks = bookmarks
        self._questions: deque[tuple[float, Run]] = deque()  # each with when it was asked
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def ask(
        self,
        question: Callable[[Inspector, threading.Event], T],
        answer: Callable[[T | Exception], None],
    ) -> threading.Event:
        given_up = threading.Event()

        def run(inspector: _Kept) -> None:
            if given_up.is_set():
                return
            found: T | Exception
            try:
                found = question(inspector(), given_up)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                found = error
            if not given_up.is_set():
                answer(found)

        with self._changed:
            self._begin()
            self._questions.append((time.monotonic(), run))
            self._changed.notify_all()
        return given_up

    def begin(self) -> None:
        """Be ready for the first question: each thread looks at the storage. Idempotent."""
        with self._changed:
            self._begin()

    def stop(self) -> None:
        """End the threads; a question that is being answered is waited for, but not for long."""
        with self._changed:
            self._stopped = True
            self._questions.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=2)

    def _begin(self) -> None:
        if not self._threads and not self._stopped:
            for patience in (0.0, PATIENCE):
                thread = threading.Thread(
                    target=self._answer, args=(patience,), name="duraq-answer", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _answer(self, patience: float) -> None:
        inspector = _Kept(self._path, self._clock, self._bookmarks)
        with suppress(StorageError):  # of which whoever asks is told
            inspector()
        while (run := self._next(patience)) is not None:
            try:
                run(inspector)
            except Exception:
                log.exception("an answer about %s was not taken", self._path)
            del run  # and what was asked about, while nothing else is asked
        inspector.close()

    def _next(self, patience: float) -> Run | None:
        """The next question that has waited for so long; None at the end."""
        with self._changed:
            while not self._stopped:
                rest = self._questions[0][0] + patience - time.monotonic() if self._questions else None
                if rest is not None and rest <= 0:
                    return self._questions.popleft()[1]
                self._changed.wait(rest)
            return None
