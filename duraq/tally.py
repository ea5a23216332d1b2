"""What becomes of the entries that a worker takes, and what it does about failures in a row."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from duraq.errors import (
    GroupTooLarge,
    StorageClosed,
    StorageDamaged,
    StorageError,
    StorageFailed,
    StorageForked,
)
from duraq.lease_keeper import Held
from duraq.model import QueueEntry
from duraq.retry import RetryPolicy

log = logging.getLogger("duraq")

# After these a storage is of no use any more; after any other error it may recover.
FATAL = (StorageFailed, StorageClosed, StorageForked)
# After these a worker tries again, by and by.
TROUBLE = (StorageError, GroupTooLarge, OSError)
# How long a damaged queue is left alone, in seconds, before it is looked at again.
_REST = 30.0


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """What became of the entries that a worker took, each counted once.

    ``failed``: will be tried again; ``dead``: failed for the last time; ``released``: given back, uncounted;
    ``lost``: the lease had ended before the outcome could be committed.
    """

    completed: int = 0
    failed: int = 0
    dead: int = 0
    released: int = 0
    lost: int = 0


class Named(Protocol):
    """A queue, of whatever kind."""

    @property
    def name(self) -> str: ...


class Tally:
    """Counts outcomes, and says when the next entry may be taken. Whoever shares one guards it."""

    def __init__(self, backoff: RetryPolicy, queues: Iterable[Named]) -> None:
        self.resume_at = 0.0  # monotonic; nothing is taken before
        self._names = ", ".join(queue.name for queue in queues)
        self._backoff = backoff
        self._outcomes: Counter[str] = Counter()
        self._failures = 0  # of handlers, since the last success
        self._troubles: Counter[type[Exception]] = Counter()  # of the storage, since it last answered

    def stats(self) -> WorkerStats:
        """What has become of the entries so far."""
        return WorkerStats(**self._outcomes)

    def delay(self, failures: int) -> float:
        """How long to wait, in seconds, after so many failures in a row."""
        return self._backoff.get_retry_delay(failures).total_seconds()

    def count(self, outcome: str) -> None:
        """An entry has come to this, and whoever took it may have lost it before."""
        if outcome != "ended_late":
            self._outcomes[outcome] += 1
        if outcome == "completed":
            self._failures = 0
            self.resume_at = 0.0
        elif outcome in {"failed", "dead"}:
            self._failures += 1
            # One failure is the retry policy's affair; a row of them is the worker's.
            if self._failures > 1:
                pause = self.delay(self._failures - 1)
                self.resume_at = time.monotonic() + pause
                if pause:
                    log.warning(
                        "%s: %d failures in a row: nothing is taken for %.1f s",
                        self._names,
                        self._failures,
                        pause,
                        extra={"event": "pause"},
                    )

    def uncommitted(self) -> None:
        """The storage did not take what a handler has done, so it is to be done again, by and by."""
        self._failures += 1
        self.resume_at = time.monotonic() + self.delay(self._failures)

    def answered(self) -> None:
        """The storage has said whether there is an entry."""
        self._troubles.clear()

    def refused(self, error: Exception) -> None:
        """The storage has failed, perhaps for a while: its disk is full, or there are too many open files."""
        kind = type(error)
        if not self._troubles[kind]:
            text = "%s: no entry could be taken, trying on: %s"
            log.error(text, self._names, error, extra={"event": "dequeue_failed"})
        self._troubles[kind] += 1
        self.resume_at = time.monotonic() + self.delay(self._troubles.total())


Q = TypeVar("Q", bound=Named)


class Rota(Generic[Q]):
    """The queues that a worker looks at, another one first each time; a damaged one is left alone."""

    def __init__(self, queues: Iterable[Q]) -> None:
        self._queues = deque(queues)
        self._rests: dict[str, float] = {}  # damaged queues, and until when (monotonic) they are left alone

    def next(self) -> list[Q]:
        """The queues in the order in which to look at them now."""
        self._queues.rotate()
        now = time.monotonic()
        awake = [queue for queue in self._queues if self._rests.get(queue.name, now) <= now]
        return awake or list(self._queues)

    def rest(self, queue: Q, error: StorageDamaged) -> None:
        """Leave a damaged queue alone for a while: the others go on."""
        if queue.name not in self._rests:
            log.error("queue %s is not worked: %s", queue.name, error, extra={"event": "queue_damaged"})
        self._rests[queue.name] = time.monotonic() + _REST


_OUTCOMES = {
    "completed": (logging.INFO, "completed"),
    "failed": (logging.WARNING, "failed, to be tried again"),
    "dead": (logging.ERROR, "failed for the last time"),
    "lost": (logging.WARNING, "lease lost, outcome not committed"),
    "ended_late": (logging.WARNING, "had been given back, outcome not committed"),
}


def say_outcome(held: Held[Any], outcome: str, began: float, error: BaseException | None = None) -> None:
    """One line about what an entry has come to; its handler began at that moment of ``time.monotonic``."""
    duration = time.monotonic() - began
    level, text = _OUTCOMES[outcome]
    if log.isEnabledFor(level):
        # Of the error only its type: its message may quote the payload. The entry's history has it all.
        why = "" if error is None else f" ({type(error).__name__})"
        note(level, outcome, held.entry, f"{text}{why} after {duration:.3f} s", duration_s=duration)


def note(level: int, event: str, entry: QueueEntry[Any], text: str, **fields: object) -> None:
    """One line about an entry: its ids first, and never its payload."""
    fields |= {"event": event, "queue": entry.queue, "entry_id": entry.id, "attempt": entry.attempts}
    log.log(level, "%s %s: attempt %d %s", entry.queue, entry.id, entry.attempts, text, extra=fields)
