"""A queue for tasks: ``duraq.Queue``, awaited."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Generic, TypeVar, overload

from anyio import CancelScope, current_time

from duraq import options
from duraq.aio.calls import call
from duraq.aio.handling import call_awaited, is_foreign
from duraq.aio.storage import Storage
from duraq.errors import DuraqError, LeaseLost
from duraq.handling import check_takes_an_entry, exits, is_own
from duraq.metrics import QueueMetrics
from duraq.model import AttemptError, Counts, EntryStatus, Pause, QueueEntry
from duraq.queue import Queue as SyncQueue
from duraq.retry import RetryPolicy

T = TypeVar("T")

log = logging.getLogger("duraq")


class Queue(Generic[T]):
    """One queue of a storage, its payloads of type ``T``, for the tasks of the storage's event loop.

    Cheap to make. An entry that was dequeued here belongs to the storage that it was dequeued through: when
    the process dies, its entries go back at once. When a call is cancelled, what it has changed may be
    changed; but an entry that it has leased is given back, uncounted. ``sync`` is the same for threads.
    """

    def __init__(
        self,
        name: str,
        storage: Storage,
        payload_type: type[T] | Any = None,
        *,
        retry_policy: RetryPolicy | None = None,
        lock_duration: timedelta | None = None,
        max_size: int | None = None,
    ) -> None:
        self.sync: SyncQueue[T] = SyncQueue(
            name,
            storage.sync,
            payload_type,
            retry_policy=retry_policy,
            lock_duration=lock_duration,
            max_size=max_size,
        )
        self.storage = storage

    def __repr__(self) -> str:
        return f"<aio.Queue {self.name!r} of {self.storage!r}>"

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.sync.name

    # -- feeding ---------------------------------------------------------------------------------------

    async def enqueue(
        self,
        data: T,
        *,
        priority: int = 0,
        delay: timedelta | None = None,
        scheduled_for: datetime | None = None,
        ttl: timedelta | None = None,
        id: str | None = None,  # noqa: A002 - the word for it, everywhere
        key: str | None = None,
        key_window: timedelta = timedelta(days=1),
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Add one entry and return its id; it is durable, as the storage's mode says, on return.

        ``priority``: higher is delivered first. ``delay`` or ``scheduled_for`` (an aware datetime): not
        before. ``ttl``: if nobody completed it by then, it expires. ``id``: the caller's own. ``headers``: a
        few short texts that go with it. ``key``: if an entry was enqueued under the same key within
        ``key_window``, nothing is added and its id is returned, whatever has become of it since.

        Raises InvalidPayload or InvalidOption, DuplicateEntry, QueueFull, NotEnqueued (certainly absent) or
        OutcomeUnknown.
        """
        return await call(
            lambda: self.sync.enqueue(
                data,
                priority=priority,
                delay=delay,
                scheduled_for=scheduled_for,
                ttl=ttl,
                id=id,
                key=key,
                key_window=key_window,
                headers=headers,
            )
        )

    async def enqueue_many(
        self,
        items: Iterable[T],
        *,
        priority: int = 0,
        delay: timedelta | None = None,
        scheduled_for: datetime | None = None,
        ttl: timedelta | None = None,
        ids: Iterable[str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Add all of ``items`` or, on any error, none, with one sync; returns their ids in order.

        They are durable, as the storage's mode says, on return. The options hold for each. ``ids`` gives each
        its own id and must be as many as the items. Raises what ``enqueue`` does.
        """
        # What the caller iterates over is the caller's, and runs here.
        items, ids = list(items), None if ids is None else list(ids)
        return await call(
            lambda: self.sync.enqueue_many(
                items,
                priority=priority,
                delay=delay,
                scheduled_for=scheduled_for,
                ttl=ttl,
                ids=ids,
                headers=headers,
            )
        )

    # -- working ---------------------------------------------------------------------------------------

    @overload
    async def dequeue(self, *, wait: timedelta | None = None) -> QueueEntry[T] | None: ...

    @overload
    async def dequeue(self, *, wait: timedelta | None = None, limit: int) -> list[QueueEntry[T]]: ...

    async def dequeue(
        self, *, wait: timedelta | None = None, limit: int | None = None
    ) -> QueueEntry[T] | list[QueueEntry[T]] | None:
        """Lease the next entry, or None; with ``limit``, a list of up to that many.

        ``wait``: how long to wait for one if there is none; no thread waits. The lease ends when the entry
        is completed, failed or released, when this process dies, or after the lock duration. The attempt is
        counted before this returns. An entry whose payload no longer decodes goes to the dead-letter queue.
        A power cut may take the lease, and with it that count; never the entry. Raises StorageError.
        """
        count = 1 if limit is None else options.positive("limit", limit)
        seconds = 0.0 if wait is None else options.duration("wait", wait, zero=True) / 1e6
        found = await self._take(count, seconds)
        if limit is not None:
            return found
        return found[0] if found else None

    def consume(self, *, wait: timedelta | None = None) -> AsyncIterator[QueueEntry[T]]:
        """``async for entry in queue.consume()``: entries as they come, each leased when it is handed out.

        ``wait``: end when none has come for so long (default: never; 0: when there is none). Nothing is
        taken ahead. What the loop's body does not end stays leased, as after ``dequeue``; a ``Worker``
        completes, retries and renews. Several tasks may share one.
        """
        seconds = math.inf if wait is None else options.duration("wait", wait, zero=True) / 1e6
        return _Consumer(partial(self._take, 1, seconds))

    async def mark_completed(self, entry: QueueEntry[T] | str) -> None:
        """The work is done: the entry is over, durably, and is never delivered again.

        Give the entry itself where several tasks share a storage: it carries its lease's token, while an
        id stands for whatever lease this storage holds now. Raises LeaseLost, and changes nothing, if the
        lease has ended (NotLeased if it was never held, or already ended, here).
        """
        await call(partial(self.sync.mark_completed, entry))

    async def mark_completed_many(self, entries: Iterable[QueueEntry[T] | str]) -> None:
        """Complete all of them or, if one of their leases has ended, none; with one sync.

        Raises LeaseLost or NotLeased, as ``mark_completed`` does, and names the entry.
        """
        await call(partial(self.sync.mark_completed_many, list(entries)))

    async def mark_failed(
        self,
        entry: QueueEntry[T] | str,
        error: BaseException | AttemptError | str | None = None,
        *,
        retry_in: timedelta | None = None,
        dead: bool = False,
    ) -> EntryStatus:
        """The attempt failed: the retry policy decides whether it is tried again, and when.

        ``retry_in`` overrules the policy, its last attempt included; so does ``dead``. Returns SCHEDULED (or
        READY, with no delay) or DEAD. Durable on return. Raises LeaseLost, and changes nothing, if the lease
        has ended.
        """
        return await call(partial(self.sync.mark_failed, entry, error, retry_in=retry_in, dead=dead))

    async def release(self, entry: QueueEntry[T] | str, *, delay: timedelta | None = None) -> None:
        """Give the entry back, ready at once or after ``delay``; the attempt does not count.

        Durable on return. Raises LeaseLost, and changes nothing, if the lease has ended.
        """
        await call(partial(self.sync.release, entry, delay=delay))

    async def end_lease(self, entry_id: str, token: int, *, reason: str = "", who: str | None = None) -> None:
        """End a lease that somebody else may hold: the entry is ready again, the attempt does not count.

        Whoever holds it gets LeaseLost, and may be at work on it all the same until then. Raises LeaseLost if
        the lease ``token`` has ended already, QueueNotFound.
        """
        await call(partial(self.sync.end_lease, entry_id, token, reason=reason, who=who))

    async def extend(self, entry: QueueEntry[T] | str, duration: timedelta | None = None) -> datetime:
        """The lease now ends ``duration`` from now (default: the lock duration); returns that time.

        Not synced: a power cut ends all leases anyway. Raises LeaseLost, and changes nothing, if the lease
        has ended.
        """
        return await call(partial(self.sync.extend, entry, duration))

    async def process_next(
        self,
        handler: Callable[[QueueEntry[T]], Awaitable[object]],
        *,
        wait: timedelta | None = None,
        transactional: bool = False,
    ) -> QueueEntry[T] | None:
        """Dequeue one entry, await ``handler(entry)``, and complete it; returns it, or None if none.

        ``transactional``: what the handler does to the storage is one transaction with the completion.

        If the handler raises an Exception the retry policy decides what becomes of the entry, and the
        exception is raised again. If this task is cancelled before the handler has returned, or at any
        moment of a transaction, the entry is released, uncounted; so it is on KeyboardInterrupt, SystemExit
        and their like. Raises InvalidOption if it is no function of one entry.
        """
        check_takes_an_entry(handler)
        entry = await self.dequeue(wait=wait)
        if entry is None:
            return None
        try:
            if transactional:
                async with self.storage.transaction():
                    await call_awaited(handler, entry)
                    await self.mark_completed(entry)
                return entry
            await call_awaited(handler, entry)
        except BaseException as error:
            if not exits(error) and is_own(error, is_foreign):
                await call(partial(self.sync.mark_failed, entry, error), surely=True)
                raise
            with CancelScope(shield=True):
                await call(partial(self._give_back, [entry]), surely=True)
            raise
        # What is done is done, whoever is cancelled now.
        await call(partial(self.sync.mark_completed, entry), surely=True)
        return entry

    # -- looking ---------------------------------------------------------------------------------------

    async def length(self) -> int:
        """Entries still to be worked: scheduled, ready and leased."""
        return (await self.counts()).length

    async def counts(self) -> Counts:
        """Entries by state."""
        return await call(self.sync.counts)

    async def metrics(self) -> QueueMetrics:
        """The queue in numbers: what it holds, what ever happened in it, how fast, how long it took."""
        return await call(self.sync.metrics)

    async def peek(self, limit: int = 1) -> list[QueueEntry[T]]:
        """The entries that would be delivered next; leases nothing."""
        return await call(partial(self.sync.peek, limit))

    async def get(self, entry_id: str) -> QueueEntry[T]:
        """One live or dead entry. Raises EntryNotFound."""
        return await call(partial(self.sync.get, entry_id))

    async def entries(
        self, status: EntryStatus | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[QueueEntry[T]]:
        """Entries in that state (default: every live or dead one); ready ones in order of delivery."""
        return await call(partial(self.sync.entries, status, limit=limit, offset=offset))

    # -- steering --------------------------------------------------------------------------------------

    async def pause(self, reason: str = "", *, who: str | None = None) -> None:
        """Deliver nothing until resume; what is leased already goes on. Kept across restarts.

        Durable on return. Raises InvalidOption, or CannotMigrate while ``duraq migrate`` moves it: it is
        paused then, by that.
        """
        await call(partial(self.sync.pause, reason, who=who))

    async def resume(self, *, who: str | None = None) -> None:
        """Deliver again. Durable on return.

        Raises QueueNotFound, or CannotMigrate where ``duraq migrate`` still has to bring some of it.
        """
        await call(partial(self.sync.resume, who=who))

    async def paused(self) -> Pause | None:
        """Who paused the queue, when and why; None if it is not paused."""
        return await call(lambda: self.sync.paused)

    # -- inside ----------------------------------------------------------------------------------------

    async def _take(self, count: int, seconds: float) -> list[QueueEntry[T]]:
        """Up to so many entries, as soon as there is one; none if there is none for so long."""
        until = current_time() + seconds

        def claim() -> list[QueueEntry[T]]:
            return self.sync.dequeue(limit=count)

        while True:
            found = await call(claim, undo=self._give_back)
            if found or current_time() >= until:
                return found
            found = await self.storage.chairs.claim(self.name, claim, self._give_back, until)
            if found:
                return found

    def _give_back(self, entries: list[QueueEntry[T]]) -> None:
        """Release them, uncounted; in a thread."""
        for entry in entries:
            try:
                self.sync.release(entry)
            except LeaseLost:
                pass  # it has ended otherwise
            except DuraqError as error:
                # What ends the task goes before; the lease ends with its deadline, or with the process.
                log.warning("queue %s: entry %s was not given back: %s", self.name, entry.id, error)


class _Consumer(AsyncIterator[QueueEntry[T]]):
    """Entries one by one. It has nothing in hand between them, so there is nothing to close."""

    def __init__(self, take: Callable[[], Awaitable[list[QueueEntry[T]]]]) -> None:
        self._take = take

    async def __anext__(self) -> QueueEntry[T]:
        found = await self._take()
        if not found:
            raise StopAsyncIteration
        return found[0]
