"""One run of a worker: its threads, and what becomes of the entries they take."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from duraq import tracing
from duraq.errors import (
    LeaseLost,
    StorageClosed,
    StorageDamaged,
    StorageError,
    StorageFailed,
    StorageForked,
)
from duraq.lease_keeper import Held, LeaseKeeper, Uncommitted
from duraq.model import EntryStatus, QueueEntry
from duraq.queue import Queue
from duraq.retry import RetryPolicy

T = TypeVar("T")

log = logging.getLogger("duraq")

# After these a storage is of no use any more; after any other error it may recover.
FATAL = (StorageFailed, StorageClosed, StorageForked)
# How long the one thread that waits for an entry takes, at most, to see that it is to stop.
_TURN = timedelta(milliseconds=500)
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


class Notice(Enum):
    """What the thread that supervises a shift is told."""

    SIGNAL = "a signal came"
    STOP = "stop, with grace"
    STOP_NOW = "stop at once"
    THREAD_ENDED = "a thread has ended"


class Shift(Generic[T]):
    """What the threads of one run share.

    They take turns: whoever sits in the chair waits for the next entry, rises when it has one, and works it
    while the next thread sits down. So an idle worker waits once, however many threads it has.
    """

    def __init__(
        self,
        queues: Iterable[Queue[T]],
        handler: Callable[[QueueEntry[T]], object],
        backoff: RetryPolicy,
        inbox: SimpleQueue[Notice],
        *,
        transactional: bool,
        drain: bool,
        limit: int | None,
    ) -> None:
        self.inbox = inbox
        self.error: BaseException | None = None  # the first that a thread ended with
        self._queues = deque(queues)
        self._handler: Callable[[QueueEntry[T]], object] = partial(tracing.call, handler)
        self._backoff = backoff
        self._transactional = transactional
        self._drain = drain
        self._keeper = LeaseKeeper()
        self._chair = threading.Lock()
        self._rests: dict[str, float] = {}  # damaged queues, and until when (monotonic) they are left alone
        self._troubles: Counter[type[Exception]] = Counter()  # of the storage, since it last answered
        # Guards everything below, and tells of each change.
        self._changed = threading.Condition()
        self._stopping = False
        self._left = float("inf") if limit is None else limit
        self._busy: set[Held[T]] = set()
        self._ended = 0  # how many have left _busy
        self._failures = 0  # of handlers, since the last success
        self._resume_at = 0.0  # monotonic; nothing is taken before
        self._outcomes: Counter[str] = Counter()

    # -- from the supervising thread -------------------------------------------------------------------

    def begin(self, threads: int) -> None:
        """Start the threads."""
        self._keeper.start()
        for number in range(threads):
            threading.Thread(target=self._work, name=f"duraq-worker-{number}", daemon=True).start()

    def stop(self) -> None:
        """Take no more entries."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def end(self) -> None:
        """Give back what is still being worked; after this no thread takes or commits anything."""
        self.stop()
        with self._changed:
            busy = list(self._busy)
        for held in busy:
            self._give_back(held)
        # Whoever sits in the chair may just be taking an entry. It sees the stop, gives it back and rises.
        with self._chair:
            self._keeper.stop()

    def stats(self) -> WorkerStats:
        """What has become of the entries so far."""
        with self._changed:
            return WorkerStats(**self._outcomes)

    # -- taking ----------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (held := self._take()) is not None:
                self._handle(held)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            if self.error is None:
                self.error = error
        finally:
            self.inbox.put(Notice.THREAD_ENDED)

    def _take(self) -> Held[T] | None:
        """The next entry, or None when there is to be no other."""
        with self._chair:
            while self._may_look():
                ended = self._ended
                try:
                    held = self._look()
                except FATAL:
                    raise
                except (StorageError, OSError) as error:
                    self._pause_for(error)
                    continue
                self._troubles.clear()
                if held is not None:
                    return self._accept(held)
                if self._drain and not self._wait_until_more_have(ended):
                    self.stop()
            return None

    def _may_look(self) -> bool:
        """Wait until an entry may be taken; False if none may any more."""
        with self._changed:
            while not self._stopping and self._left > 0:
                pause = self._resume_at - time.monotonic()
                if pause <= 0:
                    return True
                self._changed.wait(pause)
            return False

    def _look(self) -> Held[T] | None:
        """Look at each queue, at another one first each time, and wait at the last."""
        self._queues.rotate()
        now = time.monotonic()
        awake = [queue for queue in self._queues if self._rests.get(queue.name, now) <= now]
        queues = awake or list(self._queues)
        damaged = 0
        for queue in queues:
            waits = queue is queues[-1] and not self._drain
            try:
                entry = queue.dequeue(wait=_TURN if waits else None)
            except StorageDamaged as error:
                self._rest(queue, error)
                damaged += 1
                if damaged == len(queues):
                    raise
                continue
            if entry is not None:
                return Held(queue, entry)
        return None

    def _rest(self, queue: Queue[T], error: StorageDamaged) -> None:
        """Leave a damaged queue alone for a while: the others go on."""
        if queue.name not in self._rests:
            log.error("queue %s is not worked: %s", queue.name, error, extra={"event": "queue_damaged"})
        self._rests[queue.name] = time.monotonic() + _REST

    def _accept(self, held: Held[T]) -> Held[T] | None:
        with self._changed:
            if not self._stopping:
                self._left -= 1
                self._busy.add(held)
                self._keeper.hold(held)
                return held
        self._give_back(held)
        return None

    def _wait_until_more_have(self, ended: int) -> bool:
        """Wait until an entry that was being worked has ended; False if there was none.

        It may have come back, or have led to others.
        """
        with self._changed:
            while self._ended == ended and self._busy and not self._stopping:
                self._changed.wait()
            return self._ended > ended

    def _pause_for(self, error: Exception) -> None:
        """The storage has failed, perhaps for a while: its disk is full, or there are too many open files."""
        kind = type(error)
        if not self._troubles[kind]:
            log.error("no entry could be taken, trying on: %s", error, extra={"event": "dequeue_failed"})
        self._troubles[kind] += 1
        with self._changed:
            self._resume_at = time.monotonic() + self._delay(self._troubles.total())

    def _delay(self, failures: int) -> float:
        return self._backoff.get_retry_delay(failures).total_seconds()

    # -- working ---------------------------------------------------------------------------------------

    def _handle(self, held: Held[T]) -> None:
        began = time.monotonic()
        try:
            try:
                if self._transactional:
                    held.complete_with(self._handler)
                else:
                    self._handler(held.entry)
            except Uncommitted as trouble:
                self._give_up(held, trouble.error)
            except Exception as error:  # noqa: BLE001 - it goes into the entry's history
                self._conclude(held, self._commit(held, error), began, error)
            else:
                outcome = "completed" if self._transactional else self._commit(held, None)
                self._conclude(held, outcome, began)
        except BaseException:
            # Before it is given back: else the next thread takes it, and most likely ends in the same way.
            self.stop()
            # Not the entry's fault; if it has been committed already, this changes nothing.
            self._give_back(held)
            raise
        finally:
            self._keeper.let_go(held)
            with self._changed:
                self._busy.discard(held)
                self._ended += 1
                self._changed.notify_all()

    def _commit(self, held: Held[T], error: Exception | None) -> str:
        """Write the outcome, trying as long as the lease lasts; returns which it is."""
        failures = 0
        while not held.lost.is_set():
            try:
                if error is None:
                    held.complete()
                    return "completed"
                return "dead" if held.fail(error) is EntryStatus.DEAD else "failed"
            except LeaseLost:
                break
            except FATAL:
                raise
            except (StorageError, OSError) as trouble:
                failures += 1
                if failures == 1:
                    _note(logging.ERROR, "commit_failed", held.entry, f"outcome not written yet: {trouble}")
                held.lost.wait(self._delay(failures))
        return "lost"

    def _conclude(self, held: Held[T], outcome: str, began: float, error: Exception | None = None) -> None:
        """Count the outcome, and say it."""
        if held.released:
            outcome = "ended_late"  # counted when it was given back
        duration = time.monotonic() - began
        level, text = _OUTCOMES[outcome]
        if log.isEnabledFor(level):
            # Of the error only its type: its message may quote the payload. The entry's history has it all.
            why = "" if error is None else f" ({type(error).__name__})"
            _note(level, outcome, held.entry, f"{text}{why} after {duration:.3f} s", duration_s=duration)
        with self._changed:
            if not held.released:
                self._outcomes[outcome] += 1
            if outcome == "completed":
                self._failures = 0
                self._resume_at = 0.0
            elif outcome in {"failed", "dead"}:
                self._failures += 1
                # One failure is the retry policy's affair; a row of them is the worker's.
                if self._failures > 1:
                    self._resume_at = time.monotonic() + self._delay(self._failures - 1)

    def _give_up(self, held: Held[T], error: StorageError) -> None:
        """The storage did not take what the handler has done, so it is to be done again, by and by."""
        if isinstance(error, FATAL):
            raise error
        _note(logging.ERROR, "commit_failed", held.entry, f"outcome not written, nor what was done: {error}")
        with self._changed:
            self._failures += 1
            self._resume_at = time.monotonic() + self._delay(self._failures)
        self._give_back(held)

    def _give_back(self, held: Held[T]) -> None:
        """Release the entry, uncounted, and tell its handler."""
        try:
            held.release()
        except LeaseLost:
            held.lost.set()  # unless it was completed at the last moment; then nobody looks any more
        except (StorageError, OSError) as error:
            _note(logging.ERROR, "release_failed", held.entry, f"could not be given back: {error}")
            held.lost.set()
        else:
            _note(logging.INFO, "released", held.entry, "given back, uncounted")
            with self._changed:
                self._outcomes["released"] += 1


_OUTCOMES = {
    "completed": (logging.INFO, "completed"),
    "failed": (logging.WARNING, "failed, to be tried again"),
    "dead": (logging.ERROR, "failed for the last time"),
    "lost": (logging.WARNING, "lease lost, outcome not committed"),
    "ended_late": (logging.WARNING, "had been given back, outcome not committed"),
}


def _note(level: int, event: str, entry: QueueEntry[Any], text: str, **fields: object) -> None:
    """One line about an entry: its ids first, and never its payload."""
    fields |= {"event": event, "queue": entry.queue, "entry_id": entry.id, "attempt": entry.attempts}
    log.log(level, "%s %s: attempt %d %s", entry.queue, entry.id, entry.attempts, text, extra=fields)
