"""Working queues off: threads that call a handler for every entry.

    worker = Worker(emails, send, threads=4)
    worker.run()  # until SIGTERM, SIGINT or worker.stop()

The attempt is counted before the handler is called. A handler that returns completes the entry. An Exception
is a failed attempt, and the queue's retry policy decides; so is SystemExit, or an entry at which the handler
exits would come back for ever, but it stops the worker, and ``run`` raises it again. So it does with anything
else, KeyboardInterrupt say, and the entry is given back, uncounted.
``duraq.worker_pool`` does the same in several processes.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from duraq import options
from duraq.errors import InvalidInput
from duraq.handling import Handler, check_handler, several
from duraq.lease_keeper import Pulse
from duraq.queue import Queue
from duraq.retry import ExponentialBackoff, RetryPolicy
from duraq.shift import Notice, Shift
from duraq.tally import FATAL, WorkerStats

__all__ = ["BACKOFF", "GRACE", "Handler", "Worker", "WorkerStats"]

T = TypeVar("T")

log = logging.getLogger("duraq")

GRACE = timedelta(seconds=30)
BACKOFF = ExponentialBackoff(
    base_delay=timedelta(milliseconds=100), max_delay=timedelta(seconds=5), jitter=0.5
)
# A signal that comes just before a wait, or to another thread, does not end the wait, and its handler runs
# only after it. So no wait of the main thread is longer than this, in seconds.
_LONGEST_WAIT = 0.5


class Worker(Generic[T]):
    """Works one queue, or several in turn, with a number of threads of this process.

    ``handler(entry)`` runs in these threads, never in the one that called ``run``. If it returns, the entry
    is completed; if it raises, the queue's retry policy decides what becomes of it. While it runs, its lease
    is renewed; should it be lost all the same, ``entry.lost`` is set and the outcome is not committed.

    ``grace``: how long handlers that run may go on when the worker stops. After that their entries are given
    back, uncounted, and ``run`` returns; the threads are daemons, so that a handler that hangs cannot hold up
    the end of the process (nor can it be ended: it may still be running while its entry is delivered anew).

    ``transactional``: what the handler does to the queue's storage is one transaction with the completion of
    its entry. If the handler raises, or its lease is lost, nothing of it was done.

    ``backoff``: only its ``get_retry_delay`` is asked: how long to take no entry after the n-th failure in a
    row beyond the first, of handlers (a success ends the row), or after the n-th in a row of the storage. So
    a broken dependency does not use up everybody's attempts; a FixedDelay of 0 leaves no pause.

    ``pulse``: what is called every so often, by the thread that renews the leases, as long as that and the
    looking for entries get on. It is for a watchdog: it stops when the worker hangs.
    """

    def __init__(
        self,
        queues: Queue[T] | Iterable[Queue[T]],
        handler: Handler[T],
        *,
        threads: int = 1,
        grace: timedelta = GRACE,
        backoff: RetryPolicy = BACKOFF,
        transactional: bool = False,
        pulse: tuple[Callable[[], object], timedelta] | None = None,
    ) -> None:
        self.queues: tuple[Queue[T], ...] = several(queues, Queue)
        self.handler = check_handler(handler)
        self.threads = options.positive("threads", threads)
        self.grace = options.duration("grace", grace, zero=True) / 1e6
        self.backoff = backoff
        self.transactional = transactional
        self._pulse = None
        if pulse is not None:
            self._pulse = Pulse(pulse[0], options.duration("pulse", pulse[1]) / 1e6)
        self._running = threading.Lock()
        # Its put() may be called anywhere, in a signal handler too, where Event.set() could deadlock.
        self._inbox: SimpleQueue[Notice] = SimpleQueue()

    def run(self, *, drain: bool = False, limit: int | None = None) -> WorkerStats:
        """Work until told to stop; returns what became of the entries.

        ``drain``: return when nothing is left that could be delivered now. ``limit``: take that many entries.

        In the main thread, SIGTERM and SIGINT are a graceful stop, and the second of them is one without
        grace. Raises InvalidInput if it runs already, and StorageFailed, StorageClosed or StorageForked
        when the storage is of no use any more.
        """
        if limit is not None:
            options.positive("limit", limit)
        if not self._running.acquire(blocking=False):
            raise InvalidInput("this worker is running already")
        inbox = self._inbox
        try:
            shift = Shift(
                self.queues,
                self.handler,
                self.backoff,
                inbox,
                transactional=self.transactional,
                drain=drain,
                limit=limit,
                pulse=self._pulse,
            )
            with signals_to(lambda _number: inbox.put(Notice.SIGNAL), signal.SIGTERM, signal.SIGINT):
                self._supervise(shift)
        finally:
            # What is still told to this run must not stop the next.
            self._inbox = SimpleQueue()
            self._running.release()
        if shift.error is not None:
            raise shift.error
        return shift.stats()

    def stop(self, *, now: bool = False) -> None:
        """Stop gracefully or, with ``now``, without grace; from any thread or signal handler.

        Returns at once. If the worker is not running yet, its next run ends as soon as it begins.
        """
        self._inbox.put(Notice.STOP_NOW if now else Notice.STOP)

    def _supervise(self, shift: Shift[T]) -> None:
        names = ", ".join(queue.name for queue in self.queues)
        log.info("worker started: %s, threads: %d", names, self.threads, extra={"event": "worker_started"})
        try:
            if not shift.inbox.empty():
                shift.stop()  # told so before it began: not one entry is to be taken
            shift.begin(self.threads)
            self._wait_for_the_end(shift)
        finally:
            shift.end()
        log.info("worker stopped: %s", shift.stats(), extra={"event": "worker_stopped"})

    def _wait_for_the_end(self, shift: Shift[T]) -> None:
        """Return when every thread has ended or, once told to stop, when the grace is over."""
        working, signals, deadline = self.threads, 0, None
        while working:
            try:
                notice = shift.inbox.get(timeout=one_wait(deadline))
            except Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    return
                continue
            if notice is Notice.THREAD_ENDED:
                working -= 1
                if shift.error is None:
                    continue
            elif notice is Notice.SIGNAL:
                signals += 1
            shift.stop()
            if deadline is None:
                log.info("worker stopping: it takes no more entries", extra={"event": "worker_stopping"})
            at_once = notice is Notice.STOP_NOW or signals > 1 or isinstance(shift.error, FATAL)
            last = time.monotonic() + (0 if at_once else self.grace)
            deadline = last if deadline is None else min(deadline, last)


def seconds_until(moment: float) -> float:
    """Seconds from now to a moment of ``time.monotonic``, 0 if it is past."""
    return max(0.0, moment - time.monotonic())


def one_wait(due: float | None) -> float:
    """How long the main thread may wait at a time, in seconds, if something is due then."""
    return _LONGEST_WAIT if due is None else min(_LONGEST_WAIT, seconds_until(due))


@contextmanager
def signals_to(react: Callable[[int], None], *signals: signal.Signals) -> Iterator[None]:
    """Call ``react`` with each of these signals that comes, if this is the main thread; else do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda number, _frame: react(number)) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: it was not installed from Python, and cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
