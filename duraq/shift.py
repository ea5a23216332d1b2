"""One run of a worker: its threads, and what becomes of the entries they take."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from enum import Enum
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

from duraq import handling
from duraq.errors import LeaseLost, StorageDamaged, StorageError
from duraq.lease_keeper import Held, LeaseKeeper, Pulse, Uncommitted
from duraq.model import QueueEntry
from duraq.queue import Queue
from duraq.retry import RetryPolicy
from duraq.tally import FATAL, TROUBLE, Rota, Tally, WorkerStats, note, say_outcome

T = TypeVar("T")

# How long the one thread that waits for an entry takes, at most, to see that it is to stop.
_LONGEST_WAIT = timedelta(milliseconds=500)
_UNWATCHED = nullcontext()


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
        queues: Collection[Queue[T]],
        handler: Callable[[QueueEntry[T]], object],
        backoff: RetryPolicy,
        inbox: SimpleQueue[Notice],
        *,
        transactional: bool,
        drain: bool,
        limit: int | None,
        pulse: Pulse | None = None,
    ) -> None:
        self.inbox = inbox
        self.error: BaseException | None = None  # the first that a thread ended with
        self._rota = Rota(queues)
        self._handler: Callable[[QueueEntry[T]], object] = partial(handling.call, handler)
        self._transactional = transactional
        self._drain = drain
        self._pulse = pulse
        self._keeper = LeaseKeeper(None if pulse is None else Pulse(self._beat, pulse.seconds))
        self._asked: dict[int, float] = {}  # by thread, since when it waits for the storage (monotonic)
        self._chair = threading.Lock()
        # Guards everything below, and tells of each change.
        self._changed = threading.Condition()
        self._stopping = False
        self._left = float("inf") if limit is None else limit
        self._busy: set[Held[T]] = set()
        self._ended = 0  # how many have left _busy
        self._tally = Tally(backoff, queues)

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
            return self._tally.stats()

    def _beat(self) -> None:
        """Have the pulse felt, unless the storage takes far longer to answer than it ever does."""
        assert self._pulse is not None
        longest = _LONGEST_WAIT.total_seconds() + 2 * self._pulse.seconds
        since = min(list(self._asked.values()), default=None)
        if since is None or time.monotonic() - since < longest:
            self._pulse.beat()

    def _asking(self) -> AbstractContextManager[None]:
        """What a thread does while it waits for the storage."""
        return _UNWATCHED if self._pulse is None else self._watched()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        thread = threading.get_ident()
        self._asked[thread] = time.monotonic()
        try:
            yield
        finally:
            del self._asked[thread]

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
                    with self._asking():
                        held = self._look()
                except FATAL:
                    raise
                except TROUBLE as error:
                    with self._changed:
                        self._tally.refused(error)
                    continue
                with self._changed:
                    self._tally.answered()
                if held is not None:
                    return self._accept(held)
                if self._drain and not self._wait_until_more_have(ended):
                    self.stop()
            return None

    def _may_look(self) -> bool:
        """Wait until an entry may be taken; False if none may any more."""
        with self._changed:
            while not self._stopping and self._left > 0:
                pause = self._tally.resume_at - time.monotonic()
                if pause <= 0:
                    return True
                self._changed.wait(pause)
            return False

    def _look(self) -> Held[T] | None:
        """Look at each queue, at another one first each time, and wait at the last."""
        queues = self._rota.next()
        damaged = 0
        for queue in queues:
            waits = queue is queues[-1] and not self._drain
            try:
                entry = queue.dequeue(wait=_LONGEST_WAIT if waits else None)
            except StorageDamaged as error:
                self._rota.rest(queue, error)
                damaged += 1
                if damaged == len(queues):
                    raise
                continue
            if entry is not None:
                return Held(queue, entry)
        return None

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
            except (SystemExit, BaseExceptionGroup) as error:
                # SystemExit is the handler's own: signals come to another thread.
                self.stop()
                if not handling.is_own(error):
                    raise
                self._conclude(held, self._commit(held, error), began, error)
                raise
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

    def _commit(self, held: Held[T], error: BaseException | None) -> str:
        """Write the outcome, trying as long as the lease lasts; returns which it is."""
        failures = 0
        while not held.lost.is_set():
            try:
                with self._asking():
                    return held.conclude(error)
            except LeaseLost:
                break
            except FATAL:
                raise
            except TROUBLE as trouble:
                failures += 1
                if failures == 1:
                    note(logging.ERROR, "commit_failed", held.entry, f"outcome not written yet: {trouble}")
                held.lost.wait(self._tally.delay(failures))
        return "lost"

    def _conclude(
        self, held: Held[T], outcome: str, began: float, error: BaseException | None = None
    ) -> None:
        """Count the outcome, and say it."""
        if held.released:
            outcome = "ended_late"  # counted when it was given back
        say_outcome(held, outcome, began, error)
        with self._changed:
            self._tally.count(outcome)

    def _give_up(self, held: Held[T], error: StorageError) -> None:
        """The storage did not take what the handler has done, so it is to be done again, by and by."""
        if isinstance(error, FATAL):
            raise error
        note(logging.ERROR, "commit_failed", held.entry, f"outcome not written, nor what was done: {error}")
        with self._changed:
            self._tally.uncommitted()
        self._give_back(held)

    def _give_back(self, held: Held[T]) -> None:
        """Release the entry, uncounted, and tell its handler."""
        try:
            held.release()
        except LeaseLost:
            held.lost.set()  # unless it was completed at the last moment; then nobody looks any more
        except TROUBLE as error:
            note(logging.ERROR, "release_failed", held.entry, f"could not be given back: {error}")
            held.lost.set()
        else:
            note(logging.INFO, "released", held.entry, "given back, uncounted")
            with self._changed:
                self._tally.count("released")
