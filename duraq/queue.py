"""A queue of typed entries: enqueue, lease, complete, fail."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, cast, overload

import orjson
import uuid_utils

from duraq import failure, handling, options, tracing
from duraq.clock import to_datetime
from duraq.errors import DuraqError, InvalidOption, InvalidPayload, NotLeased, PayloadUndecodable
from duraq.keys import enqueue_once
from duraq.metrics import QueueMetrics
from duraq.model import AttemptError, Cause, Counts, EntryStatus, Pause, QueueEntry, check_queue_name
from duraq.operations import (
    Bury,
    Complete,
    Enqueue,
    Extend,
    Fail,
    Operation,
    PauseQueue,
    Release,
    ResumeQueue,
)
from duraq.pauses import named_by
from duraq.payload import PayloadCodec
from duraq.retry import RetryPolicy, check_policy
from duraq.settling import settle_lapsed, why
from duraq.storage.base import Lapsed, Limits, Storage, StoredEntry

T = TypeVar("T")

log = logging.getLogger("duraq")


class Queue(Generic[T]):
    """One queue of a storage, its payloads of type ``T``.

    Cheap to make and safe to share between threads. An entry that was dequeued here belongs to the storage
    object it was dequeued through: when the process dies, its entries go back at once.
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
        self.name = check_queue_name(name)
        self.retry_policy = check_policy(retry_policy)
        self.max_size = max_size
        self.storage = storage
        self._codec: PayloadCodec[T] = PayloadCodec(payload_type, storage.max_payload_bytes)
        self._lease_for = None if lock_duration is None else options.duration("lock_duration", lock_duration)
        self._limits = None
        self._checked: object = self  # the last handler; as a rule it is always the same
        if max_size is not None:
            options.positive("max_size", max_size)
            self._limits = Limits(max_size={name: max_size})

    @property
    def lease_length(self) -> int:
        """How long a lease lasts unless it is extended, in microseconds."""
        return self._lease_for or self.storage.lock_duration

    def __repr__(self) -> str:
        return f"<Queue {self.name!r} of {self.storage!r}>"

    # -- feeding ---------------------------------------------------------------------------------------

    def enqueue(
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
        payload = self._codec.encode(data)
        if id is None:
            entry = Enqueue(str(uuid_utils.uuid7()), payload, fresh=True)
        else:
            entry = Enqueue(options.entry_id(id), payload)
        # The usual case first; anything else, a False or a 0.0 too, is looked at closely.
        if (
            priority.__class__ is not int
            or priority
            or delay is not None
            or scheduled_for is not None
            or ttl is not None
        ):
            entry.priority, entry.ready_at, entry.expires_at = self._options(
                priority, delay, scheduled_for, ttl
            )
        if headers is not None:
            entry.headers = options.headers(headers)
        if tracing.API in sys.modules:
            entry.headers = tracing.with_trace(entry.headers)
        if key is not None:
            entry.key = options.key(key)
            window = options.duration("key_window", key_window)
            return enqueue_once(self.storage, self.name, entry, window, self._limits)
        self.storage.commit({self.name: (entry,)}, self._limits)
        return entry.id

    def enqueue_many(
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
        if isinstance(items, (str, bytes, Mapping)):
            raise InvalidOption(f"enqueue_many takes several payloads, not a {type(items).__name__}")
        priority, ready_at, expires_at = self._options(priority, delay, scheduled_for, ttl)
        carried = None if headers is None else options.headers(headers)
        if tracing.API in sys.modules:
            carried = tracing.with_trace(carried)
        encode = self._codec.encode
        payloads: list[bytes] = []
        try:
            payloads.extend(map(encode, items))
        except InvalidPayload as error:
            error.add_note(f"in item {len(payloads)} of enqueue_many; none was enqueued")
            raise
        if ids is None:
            uuid7 = uuid_utils.uuid7
            names = [str(uuid7()) for _ in payloads]
        else:
            names = [options.entry_id(name) for name in ids]
            if len(names) != len(payloads):
                raise InvalidOption(f"{len(names)} ids for {len(payloads)} items")
        if payloads:
            entries = [
                Enqueue(name, payload, priority, ready_at, expires_at, ids is None, None, carried)
                for name, payload in zip(names, payloads, strict=True)
            ]
            self.storage.commit({self.name: entries}, self._limits)
        return names

    # -- working ---------------------------------------------------------------------------------------

    @overload
    def dequeue(self, *, wait: timedelta | None = None) -> QueueEntry[T] | None: ...

    @overload
    def dequeue(self, *, wait: timedelta | None = None, limit: int) -> list[QueueEntry[T]]: ...

    def dequeue(
        self, *, wait: timedelta | None = None, limit: int | None = None
    ) -> QueueEntry[T] | list[QueueEntry[T]] | None:
        """Lease the next entry, or None; with ``limit``, a list of up to that many.

        ``wait``: how long to block for one if there is none. The lease ends when the entry is completed,
        failed or released, when this process dies, or after the lock duration. The attempt is counted
        before this returns. An entry whose payload no longer decodes goes to the dead-letter queue.
        A power cut may take the lease, and with it that count; never the entry. Raises StorageError.
        """
        count = 1 if limit is None else options.positive("limit", limit)
        until = None if wait is None else time.monotonic() + options.duration("wait", wait, zero=True) / 1e6
        while True:
            found = self._claim(count)
            if found:
                return found[0] if limit is None else found
            remaining = 0.0 if until is None else until - time.monotonic()
            if remaining <= 0:
                return None if limit is None else []
            self.storage.wait(self.name, remaining)

    def mark_completed(self, entry: QueueEntry[T] | str) -> None:
        """The work is done: the entry is over, durably, and is never delivered again.

        Give the entry itself where several threads share a storage: it carries its lease's token, while an
        id stands for whatever lease this storage holds now. Raises LeaseLost, and changes nothing, if the
        lease has ended (NotLeased if it was never held, or already ended, here).
        """
        entry_id, token, _ = self._lease_of(entry)
        self.storage.commit({self.name: (Complete(entry_id, token),)})

    def mark_completed_many(self, entries: Iterable[QueueEntry[T] | str]) -> None:
        """Complete all of them or, if one of their leases has ended, none; with one sync.

        Raises LeaseLost or NotLeased, as ``mark_completed`` does, and names the entry.
        """
        leases = [self._lease_of(entry) for entry in entries]
        if leases:
            self.storage.commit({self.name: [Complete(entry_id, token) for entry_id, token, _ in leases]})

    def mark_failed(
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
        entry_id, token, attempts = self._lease_of(entry)
        operation: Operation
        if dead:
            operation = Bury(entry_id, token, Cause.FAILED, failure.as_text(error))
        elif retry_in is not None:
            ready_at = self.storage.clock.now() + options.duration("retry_in", retry_in, zero=True)
            operation = Fail(entry_id, token, Cause.FAILED, failure.as_text(error), ready_at)
        else:
            operation = self._verdict(entry_id, token, attempts, Cause.FAILED, error)
        self.storage.commit({self.name: (operation,)})
        if isinstance(operation, Bury):
            return EntryStatus.DEAD
        return EntryStatus.SCHEDULED if operation.ready_at > self.storage.clock.now() else EntryStatus.READY

    def release(self, entry: QueueEntry[T] | str, *, delay: timedelta | None = None) -> None:
        """Give the entry back, ready at once or after ``delay``; the attempt does not count.

        Durable on return. Raises LeaseLost, and changes nothing, if the lease has ended.
        """
        entry_id, token, _ = self._lease_of(entry)
        ready_at = None
        if delay is not None:
            ready_at = self.storage.clock.now() + options.duration("delay", delay, zero=True)
        self.storage.commit({self.name: (Release(entry_id, token, ready_at),)})

    def end_lease(self, entry_id: str, token: int, *, reason: str = "", who: str | None = None) -> None:
        """End a lease that somebody else may hold: the entry is ready again, the attempt does not count.

        Whoever holds it gets LeaseLost, and may be at work on it all the same until then. Raises LeaseLost if
        the lease ``token`` has ended already, QueueNotFound.
        """
        who = options.text("who", who or options.user())
        release = Release(entry_id, token, None, who, options.text("reason", reason))
        self.storage.commit({self.name: (release,)})

    def extend(self, entry: QueueEntry[T] | str, duration: timedelta | None = None) -> datetime:
        """The lease now ends ``duration`` from now (default: the lock duration); returns that time.

        Not synced: a power cut ends all leases anyway. Raises LeaseLost, and changes nothing, if the lease
        has ended.
        """
        entry_id, token, _ = self._lease_of(entry)
        length = self.lease_length
        if duration is not None:
            length = options.duration("duration", duration)
        clock = self.storage.clock
        deadline_at = clock.now() + length
        operation = Extend(entry_id, token, clock.uptime() + length, clock.boot_id, deadline_at)
        self.storage.commit({self.name: (operation,)})
        return to_datetime(deadline_at)

    def process_next(
        self,
        handler: Callable[[QueueEntry[T]], object],
        *,
        wait: timedelta | None = None,
        transactional: bool = False,
    ) -> QueueEntry[T] | None:
        """Dequeue one entry, call ``handler(entry)``, and complete it; returns the entry, or None if none.

        ``transactional``: what the handler does to the storage is one transaction with the completion.

        If the handler raises an Exception the retry policy decides what becomes of the entry, and the
        exception is raised again. On KeyboardInterrupt, SystemExit and their like the entry is released,
        uncounted, before they go on. Raises InvalidOption if it is no function of one entry, or one of which
        a call returns before it has begun.
        """
        if handler != self._checked:
            self._checked = handling.check_handler(handler)
        entry = self.dequeue(wait=wait)
        if entry is None:
            return None
        try:
            if transactional:
                with self.storage.transaction():
                    handling.call(handler, entry)
                    self.mark_completed(entry)
                return entry
            handling.call(handler, entry)
        except Exception as error:
            self.mark_failed(entry, error)
            raise
        except BaseException:
            # Whatever hinders it, what ends the program goes before; the lease then ends with the process.
            with suppress(DuraqError):
                self.release(entry)
            raise
        self.mark_completed(entry)
        return entry

    # -- looking ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.counts().length

    def __bool__(self) -> bool:
        # A queue object stands for the queue, empty or not.
        return True

    @property
    def length(self) -> int:
        """Entries still to be worked: scheduled, ready and leased."""
        return self.counts().length

    def counts(self) -> Counts:
        """Entries by state."""
        return self.storage.counts(self.name)

    def metrics(self) -> QueueMetrics:
        """The queue in numbers: what it holds, what ever happened in it, how fast, how long it took."""
        return self.storage.metrics(self.name)

    def peek(self, limit: int = 1) -> list[QueueEntry[T]]:
        """The entries that would be delivered next; leases nothing."""
        return self.entries(EntryStatus.READY, limit=limit)

    def get(self, entry_id: str) -> QueueEntry[T]:
        """One live or dead entry. Raises EntryNotFound."""
        return self._seen(self.storage.get(self.name, entry_id))

    def entries(
        self, status: EntryStatus | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[QueueEntry[T]]:
        """Entries in that state (default: every live or dead one); ready ones in order of delivery."""
        if limit is not None:
            options.positive("limit", limit)
        options.offset(offset)
        found = self.storage.entries(self.name, options.status(status), limit, offset)
        return [self._seen(stored) for stored in found]

    # -- steering --------------------------------------------------------------------------------------

    def pause(self, reason: str = "", *, who: str | None = None) -> None:
        """Deliver nothing until resume; what is leased already goes on. Kept across restarts.

        Durable on return. Raises InvalidOption, or CannotMigrate while ``duraq migrate`` moves it: it is
        paused then, by that.
        """
        if named_by(options.text("reason", reason)) is not None:
            raise InvalidOption(f"queue {self.name}: a reason may not look like a migration's: {reason!r}")
        operation = PauseQueue(options.text("who", who or options.user()), reason)
        self.storage.commit({self.name: (operation,)})

    def resume(self, *, who: str | None = None) -> None:
        """Deliver again. Durable on return.

        Raises QueueNotFound, or CannotMigrate where ``duraq migrate`` still has to bring some of it.
        """
        self.storage.commit({self.name: (ResumeQueue(options.text("who", who or options.user())),)})

    @property
    def paused(self) -> Pause | None:
        """Who paused the queue, when and why; None if it is not paused."""
        return self.storage.paused(self.name)

    # -- inside ----------------------------------------------------------------------------------------

    def _claim(self, count: int) -> list[QueueEntry[T]]:
        self.settle_lapsed()
        while True:
            claimed = self.storage.claim(self.name, count, lease_for=self._lease_for)
            # The claim has brought to light what others did meanwhile, lapsed leases among it.
            if not claimed and self.settle_lapsed():
                continue
            entries = []
            for stored in claimed:
                try:
                    entries.append(self._entry(stored, self._codec.decode(stored.payload)))
                except PayloadUndecodable as error:
                    self._bury_undecodable(stored, error)
            # If none of them decoded there may be more behind them.
            if entries or not claimed:
                return entries

    def _bury_undecodable(self, stored: StoredEntry, error: PayloadUndecodable) -> None:
        log.warning("queue %s: entry %s does not decode, to the dead letters", self.name, stored.id)
        try:
            bury = Bury(stored.id, stored.token, Cause.FAILED, failure.as_text(error))
            self.storage.commit({self.name: (bury,)})
        except DuraqError:
            # Its lease ends at the deadline and it is looked at again; those claimed with it must go on now.
            log.exception("queue %s: entry %s could not be moved", self.name, stored.id)

    def settle_lapsed(self) -> bool:
        """End the leases of dead or late holders: attempt counted, cause kept, back at once or dead.

        Returns whether there were any. ``dequeue`` does this by itself.
        """
        return settle_lapsed(self.storage, self.name, self._decide)

    def _decide(self, lease: Lapsed) -> Fail | Bury:
        return self._verdict(lease.id, lease.token, lease.attempts, lease.cause, why(lease))

    def _verdict(
        self,
        entry_id: str,
        token: int,
        attempts: int,
        cause: Cause,
        error: BaseException | AttemptError | str | None,
    ) -> Fail | Bury:
        delay = failure.verdict(self.retry_policy, attempts, cause, error)
        text = failure.as_text(error)
        if delay is None:
            return Bury(entry_id, token, cause, text)
        return Fail(entry_id, token, cause, text, self.storage.clock.now() + delay)

    def _lease_of(self, entry: QueueEntry[T] | str) -> tuple[str, int, int]:
        if isinstance(entry, QueueEntry):
            if entry.queue != self.name:
                raise NotLeased(f"queue {self.name}: entry {entry.id} is of queue {entry.queue}")
            if not entry.token:
                raise NotLeased(f"queue {self.name}: entry {entry.id} was looked at, not dequeued")
            return entry.id, entry.token, entry.attempts
        held = self.storage.held(self.name, entry)
        return entry, held.token, held.attempts

    def _options(
        self, priority: int, delay: timedelta | None, scheduled_for: datetime | None, ttl: timedelta | None
    ) -> tuple[int, int | None, int | None]:
        priority = options.priority(priority)
        if delay is not None and scheduled_for is not None:
            raise InvalidOption("give delay or scheduled_for, not both")
        now = self.storage.clock.now()
        ready_at = expires_at = None
        if delay is not None:
            length = options.duration("delay", delay, zero=True)
            ready_at = now + length if length else None
        elif scheduled_for is not None:
            ready_at = options.moment("scheduled_for", scheduled_for, now)
        if ttl is not None:
            expires_at = now + options.duration("ttl", ttl)
        return priority, ready_at, expires_at

    def _seen(self, stored: StoredEntry) -> QueueEntry[T]:
        """An entry to be looked at: one that does not decode must not hide the others."""
        try:
            return self._entry(stored, self._codec.decode(stored.payload))
        except PayloadUndecodable as error:
            raw = cast("T", orjson.loads(stored.payload))
            return replace(self._entry(stored, raw), decode_error=str(error))

    def _entry(self, stored: StoredEntry, data: T) -> QueueEntry[T]:
        return QueueEntry.of(stored, data, self.name, failure.max_attempts(self.retry_policy))
