"""One run of a worker of tasks: it takes entries, and a task of each works it to its end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection
from datetime import timedelta
from functools import partial
from typing import Generic, TypeVar

from anyio import (
    CancelScope,
    Event,
    create_task_group,
    get_cancelled_exc_class,
    move_on_after,
    sleep,
)
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled

from duraq.aio.calls import call
from duraq.aio.handling import Handler, call_awaited, is_foreign
from duraq.aio.inbox import Inbox
from duraq.aio.queue import Queue
from duraq.aio.storage import Storage
from duraq.errors import LeaseLost, StorageDamaged, StorageError
from duraq.handling import exits, is_own
from duraq.lease_keeper import Held, LeaseKeeper, Uncommitted
from duraq.model import QueueEntry
from duraq.retry import RetryPolicy
from duraq.shift import Notice
from duraq.tally import FATAL, TROUBLE, Rota, Tally, WorkerStats, note, say_outcome

T = TypeVar("T")

# How long a worker of several queues waits at one of them before it looks at the others.
_LONGEST_WAIT = timedelta(milliseconds=500)
# And at its only one; when it is to stop, it is cancelled.
_LONG = timedelta(days=1)
# How many entries are taken at once: they share a record and a sync, and their payloads are in memory.
_AT_ONCE = 64


class Shift(Generic[T]):
    """What the tasks of one run share. All of it happens in one thread, so nothing needs a guard."""

    def __init__(
        self,
        queues: Collection[Queue[T]],
        handler: Handler[T],
        backoff: RetryPolicy,
        inbox: Inbox,
        *,
        concurrency: int,
        transactional: bool,
        drain: bool,
        limit: int | None,
    ) -> None:
        self.inbox = inbox
        self.error: BaseException | None = None  # the first that a task ended with
        self._rota = Rota(queues)
        self._wait = _LONGEST_WAIT if len(queues) > 1 else _LONG
        self._handler = handler
        self._concurrency = concurrency
        self._transactional = transactional
        self._drain = drain
        self._left = math.inf if limit is None else limit
        self._keeper = LeaseKeeper()
        self._tally = Tally(backoff, queues)
        self._busy = 0
        self._ended = 0  # how many have been busy
        self._next_end = Event()
        self._taking = CancelScope()
        self._handling = CancelScope()

    async def work(self) -> None:
        """Take entries and work them; returns when no other is to be taken and every handler has ended."""
        self._keeper.start()
        try:
            with self._handling:
                async with create_task_group() as handlers:
                    with self._taking:
                        await self._take_all(handlers)
        finally:
            with CancelScope(shield=True):
                await call(self._keeper.stop, surely=True)

    def stop(self) -> None:
        """Take no more entries."""
        self._taking.cancel()

    def cancel_handlers(self) -> None:
        """Cancel what is still being worked, which gives it back."""
        self._handling.cancel()

    def stats(self) -> WorkerStats:
        """What has become of the entries so far."""
        return self._tally.stats()

    def _fail(self, error: BaseException) -> None:
        """End with this error, which ``run`` raises again."""
        if self.error is None:
            self.error = error
        self.stop()
        self.inbox.put(Notice.STOP_NOW if isinstance(error, FATAL) else Notice.STOP)

    # -- taking ----------------------------------------------------------------------------------------

    async def _take_all(self, handlers: TaskGroup) -> None:
        while (room := await self._room()) > 0:
            ended = self._ended
            try:
                taken = await self._look(room)
            except FATAL as error:
                self._fail(error)
                return
            except TROUBLE as error:
                self._tally.refused(error)
                continue
            self._tally.answered()
            # There is no moment in between at which what was taken could be lost by a cancellation.
            for queue, entry in taken:
                self._accept(queue, entry, handlers)
            if not taken and self._drain and not await self._more_have_ended(ended):
                return

    async def _room(self) -> int:
        """Wait until entries may be taken; returns how many, 0 if none may any more."""
        while self._left > 0:
            pause = self._tally.resume_at - time.monotonic()
            room = min(self._concurrency - self._busy, self._left, _AT_ONCE)
            if pause <= 0 < room:
                return int(room)
            # The end of one makes room, and a success ends the pause.
            with move_on_after(pause if room > 0 else math.inf):
                await self._next_end.wait()
        return 0

    async def _look(self, room: int) -> list[tuple[Queue[T], QueueEntry[T]]]:
        """Look at each queue, at another one first each time, and wait at the last."""
        queues = self._rota.next()
        damaged = 0
        for queue in queues:
            waits = queue is queues[-1] and not self._drain
            try:
                entries = await queue.dequeue(wait=self._wait if waits else None, limit=room)
            except StorageDamaged as error:
                self._rota.rest(queue, error)
                damaged += 1
                if damaged == len(queues):
                    raise
                continue
            if entries:
                return [(queue, entry) for entry in entries]
        return []

    def _accept(self, queue: Queue[T], entry: QueueEntry[T], handlers: TaskGroup) -> None:
        held = Held(queue.sync, entry)
        self._left -= 1
        self._busy += 1
        self._keeper.hold(held)
        handlers.start_soon(self._handle, held, queue.storage)

    async def _more_have_ended(self, ended: int) -> bool:
        """Wait until an entry that was being worked has ended; False if there was none.

        It may have come back, or have led to others.
        """
        if self._ended == ended and self._busy:
            await self._next_end.wait()
        return self._ended > ended

    # -- working ---------------------------------------------------------------------------------------

    async def _handle(self, held: Held[T], storage: Storage) -> None:
        try:
            await self._work(held, storage)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            # Before it is given back: else it is taken anew, and most likely ends in the same way.
            self.stop()
            # Not the entry's fault; if it has been committed already, this changes nothing.
            await self._give_back(held)
            if isinstance(error, (get_cancelled_exc_class(), BaseExceptionGroup)):
                await checkpoint_if_cancelled()
            # Not cancelled here, that is, at most something within the handler was.
            self._fail(error)
        finally:
            self._keeper.let_go(held)
            self._busy -= 1
            self._ended += 1
            self._next_end.set()
            self._next_end = Event()

    async def _work(self, held: Held[T], storage: Storage) -> None:
        began = time.monotonic()
        failure: BaseException | None = None
        try:
            if self._transactional:
                await self._handle_and_complete(held, storage)
            else:
                await call_awaited(self._handler, held.entry)
        except Uncommitted as trouble:
            await self._give_up(held, trouble.error)
            return
        except BaseException as error:
            if not is_own(error, is_foreign):
                raise
            failure = error
        done = self._transactional and failure is None
        outcome = "completed" if done else await self._commit(held, failure)
        if held.released:
            outcome = "ended_late"  # counted when it was given back
        say_outcome(held, outcome, began, failure)
        self._tally.count(outcome)
        if failure is not None and exits(failure):
            raise failure

    async def _handle_and_complete(self, held: Held[T], storage: Storage) -> None:
        """As one transaction; raises Uncommitted if the storage refused what the handler has done."""
        await storage.begin_transaction()
        try:
            await call_awaited(self._handler, held.entry)
        except BaseException:
            with CancelScope(shield=True):
                await storage.rollback_transaction()
            raise
        try:
            # What is done is done, whoever is cancelled now.
            with CancelScope(shield=True):
                await storage.commit_by(held.complete_and_commit)
        except StorageError as error:
            raise Uncommitted(error) from error

    async def _commit(self, held: Held[T], error: BaseException | None) -> str:
        """Write the outcome, trying as long as the lease lasts; returns which it is."""
        failures = 0
        while not held.lost.is_set():
            try:
                with CancelScope(shield=True):
                    return await call(partial(held.conclude, error), surely=True)
            except LeaseLost:
                break
            except FATAL:
                raise
            except TROUBLE as trouble:
                failures += 1
                if failures == 1:
                    note(logging.ERROR, "commit_failed", held.entry, f"outcome not written yet: {trouble}")
                await sleep(self._tally.delay(failures))
        return "lost"

    async def _give_up(self, held: Held[T], error: StorageError) -> None:
        """The storage did not take what the handler has done, so it is to be done again, by and by."""
        if isinstance(error, FATAL):
            raise error
        note(logging.ERROR, "commit_failed", held.entry, f"outcome not written, nor what was done: {error}")
        self._tally.uncommitted()
        await self._give_back(held)

    async def _give_back(self, held: Held[T]) -> None:
        """Release the entry, uncounted, and tell its handler."""
        try:
            with CancelScope(shield=True):
                await call(held.release, surely=True)
        except LeaseLost:
            held.lost.set()  # unless it was completed at the last moment; then nobody looks any more
        except TROUBLE as error:
            note(logging.ERROR, "release_failed", held.entry, f"could not be given back: {error}")
            held.lost.set()
        else:
            note(logging.INFO, "released", held.entry, "given back, uncounted")
            self._tally.count("released")
