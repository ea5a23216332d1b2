"""Working queues off with tasks: a worker that awaits a handler for every entry.

    worker = aio.Worker(emails, send, concurrency=100)
    await worker.run()  # until SIGTERM, SIGINT or worker.stop()

What becomes of an entry is what becomes of it in ``duraq.Worker``.
"""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Iterable
from datetime import timedelta
from typing import Generic, TypeVar

from anyio import create_task_group, current_time

from duraq import options
from duraq.aio.handling import Handler, check_handler
from duraq.aio.inbox import Inbox
from duraq.aio.queue import Queue
from duraq.aio.shift import Shift
from duraq.errors import InvalidInput
from duraq.handling import several
from duraq.retry import RetryPolicy
from duraq.shift import Notice
from duraq.tally import WorkerStats
from duraq.worker import BACKOFF, GRACE, signals_to

T = TypeVar("T")

log = logging.getLogger("duraq")


class Worker(Generic[T]):
    """Works one queue, or several in turn, with up to ``concurrency`` handlers at a time.

    ``handler(entry)`` is a coroutine function; each call is a task of its own. If it returns, the entry is
    completed; if it raises, the queue's retry policy decides what becomes of it. While it runs, its lease is
    renewed, by a thread, so that a handler that blocks the event loop for a while keeps it. Should it be lost
    all the same, ``entry.lost`` is set and the outcome is not committed.

    ``grace``: how long handlers that run may go on when the worker stops. After that they are cancelled, and
    their entries given back, uncounted; ``run`` returns when they have ended.

    ``transactional``: what the handler does to the queue's storage is one transaction with the completion of
    its entry. If the handler raises, or its lease is lost, nothing of it was done.

    ``backoff``: only its ``get_retry_delay`` is asked: how long to take no entry after the n-th failure in a
    row beyond the first, of handlers (a success ends the row), or after the n-th in a row of the storage.
    """

    def __init__(
        self,
        queues: Queue[T] | Iterable[Queue[T]],
        handler: Handler[T],
        *,
        concurrency: int = 1,
        grace: timedelta = GRACE,
        backoff: RetryPolicy = BACKOFF,
        transactional: bool = False,
    ) -> None:
        self.queues: tuple[Queue[T], ...] = several(queues, Queue)
        self.handler = check_handler(handler)
        self.concurrency = options.positive("concurrency", concurrency)
        self.grace = options.duration("grace", grace, zero=True) / 1e6
        self.backoff = backoff
        self.transactional = transactional
        self._running = False
        self._inbox = Inbox()

    async def run(self, *, drain: bool = False, limit: int | None = None) -> WorkerStats:
        """Work until told to stop; returns what became of the entries.

        ``drain``: return when nothing is left that could be delivered now. ``limit``: take that many entries.

        In the main thread, SIGTERM and SIGINT are a graceful stop, and the second of them is one without
        grace. If the task is cancelled, the handlers are, and what they held is given back. Raises
        InvalidInput if it runs already, and StorageFailed, StorageClosed or StorageForked when the storage is
        of no use any more.
        """
        if limit is not None:
            options.positive("limit", limit)
        if self._running:
            raise InvalidInput("this worker is running already")
        self._running, inbox = True, self._inbox
        try:
            shift = Shift(
                self.queues,
                self.handler,
                self.backoff,
                inbox,
                concurrency=self.concurrency,
                transactional=self.transactional,
                drain=drain,
                limit=limit,
            )
            with signals_to(lambda _number: inbox.put(Notice.SIGNAL), signal.SIGTERM, signal.SIGINT):
                await self._supervise(shift)
        finally:
            # What is still told to this run must not stop the next.
            self._inbox = Inbox()
            self._running = False
        if shift.error is not None:
            raise shift.error
        return shift.stats()

    def stop(self, *, now: bool = False) -> None:
        """Stop gracefully or, with ``now``, without grace; from any task, thread or signal handler.

        Returns at once. If the worker is not running yet, its next run ends as soon as it begins.
        """
        self._inbox.put(Notice.STOP_NOW if now else Notice.STOP)

    async def _supervise(self, shift: Shift[T]) -> None:
        names = ", ".join(queue.name for queue in self.queues)
        log.info(
            "worker started: %s, concurrency: %d", names, self.concurrency, extra={"event": "worker_started"}
        )
        if not shift.inbox.empty():
            shift.stop()  # told so before it began: not one entry is to be taken
        async with create_task_group() as group:
            group.start_soon(self._listen, shift)
            await shift.work()
            group.cancel_scope.cancel()
        log.info("worker stopped: %s", shift.stats(), extra={"event": "worker_stopped"})

    async def _listen(self, shift: Shift[T]) -> None:
        """End the shift when told so and, once the grace is over, its handlers too."""
        signals, deadline = 0, math.inf
        while True:
            notice = await shift.inbox.get(deadline)
            if notice is None:
                shift.cancel_handlers()
                deadline = math.inf
                continue
            signals += notice is Notice.SIGNAL
            if deadline == math.inf:
                log.info("worker stopping: it takes no more entries", extra={"event": "worker_stopping"})
            shift.stop()
            at_once = notice is Notice.STOP_NOW or signals > 1
            deadline = min(deadline, current_time() + (0 if at_once else self.grace))
