"""The leases that a worker holds: one thread renews them all, and each ends in one way only."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Generic, NamedTuple, TypeVar

from duraq.errors import LeaseLost, StorageError
from duraq.model import EntryStatus, QueueEntry
from duraq.queue import Queue

T = TypeVar("T")

log = logging.getLogger("duraq")

# Renewed after this part of its length, a lease outlasts a renewing thread that comes late by twice as much.
_RENEW_AFTER = 1 / 3
# And if the storage refuses, this part of its length later, over and over until the deadline.
_RETRY_AFTER = 1 / 30


class Uncommitted(Exception):
    """A handler has done its part, and the storage could not commit it; nothing of it was done."""

    def __init__(self, error: StorageError) -> None:
        super().__init__(str(error))
        self.error = error


class Held(Generic[T]):
    """An entry in hand, and its lease, which ends once and in one way.

    ``lost`` (also the entry's own) is set if it ended otherwise than by the handler's outcome.
    """

    def __init__(self, queue: Queue[T], entry: QueueEntry[T]) -> None:
        self.queue = queue
        self.entry = entry
        self.lost = entry.lost = threading.Event()
        self.released = False
        self._length = queue.lease_length
        self._clock = queue.storage.clock
        # Held through every call that ends or extends the lease, so that a renewal never comes upon an entry
        # that is just being completed and takes it for lost.
        self._ending = threading.Lock()
        self._over = False
        self._extended(self._clock.uptime())

    def complete(self) -> None:
        """Complete the entry. Raises LeaseLost if the lease has ended already."""
        with self._ending:
            self._check()
            self.queue.mark_completed(self.entry)
            self._over = True

    def complete_with(self, handler: Callable[[QueueEntry[T]], object]) -> None:
        """Call the handler, and complete the entry, as one transaction.

        Raises what the handler raises, LeaseLost, or Uncommitted if the storage refused what it has done.
        """
        done = False
        try:
            with ExitStack() as ending:
                with self.queue.storage.transaction():
                    handler(self.entry)
                    # Until it has committed.
                    ending.enter_context(self._ending)
                    self._check()
                    self.queue.mark_completed(self.entry)
                    done = True
                self._over = True
        except StorageError as error:
            if done:
                raise Uncommitted(error) from error
            raise

    def complete_and_commit(self) -> None:
        """Complete the entry in the transaction that the caller is in, and commit that.

        Raises LeaseLost, the transaction then still to be undone, or what the commit raises.
        """
        with self._ending:
            self._check()
            self.queue.mark_completed(self.entry)
            self.queue.storage.commit_transaction()
            self._over = True

    def fail(self, error: BaseException) -> EntryStatus:
        """Fail the attempt. Raises LeaseLost if the lease has ended already."""
        with self._ending:
            self._check()
            status = self.queue.mark_failed(self.entry, error)
            self._over = True
            return status

    def conclude(self, error: BaseException | None) -> str:
        """Complete the entry, or fail the attempt; returns which it was. Raises LeaseLost as they do."""
        if error is None:
            self.complete()
            return "completed"
        return "dead" if self.fail(error) is EntryStatus.DEAD else "failed"

    def release(self) -> None:
        """Give the entry back, uncounted. Raises LeaseLost if the lease has ended already."""
        with self._ending:
            self._check()
            self.queue.release(self.entry)
            self._over = self.released = True
            self.lost.set()

    def _check(self) -> None:
        if self._over:
            raise LeaseLost(f"queue {self.queue.name}: the lease of entry {self.entry.id} has ended")

    def seconds_to_renewal(self) -> float:
        """How long it may rest; 0 or less when a renewal is due."""
        return (self._renew_at - self._clock.uptime()) / 1e6

    def renew(self) -> bool:
        """Extend the lease; returns whether it goes on. If it cannot be extended any more, it is lost."""
        with self._ending:
            if self._over:
                return False
            # Before the call, so that the lease really lasts a little longer than is believed here.
            now = self._clock.uptime()
            try:
                self.entry.lease_deadline = self.queue.extend(self.entry)
            except LeaseLost as error:
                self._lose(error)
            except Exception as error:  # noqa: BLE001 - a renewer that died of it would lose every other lease
                if now >= self._deadline:
                    self._lose(error)
                else:
                    self._renew_at = now + int(self._length * _RETRY_AFTER)
                    self._warn("renewal_failed", "its lease could not be renewed yet", error)
            else:
                self._extended(now)
            return not self._over

    def _extended(self, now: int) -> None:
        self._deadline = now + self._length
        self._renew_at = now + int(self._length * _RENEW_AFTER)

    def _lose(self, error: Exception) -> None:
        self._over = True
        self.lost.set()
        self._warn("lease_lost", "its lease is lost", error)

    def _warn(self, event: str, text: str, error: Exception) -> None:
        entry = self.entry
        fields = {"event": event, "queue": entry.queue, "entry_id": entry.id, "attempt": entry.attempts}
        log.warning("%s %s: %s: %s", entry.queue, entry.id, text, error, extra=fields)


class Pulse(NamedTuple):
    """What is called every so many seconds, as long as a worker gets on."""

    beat: Callable[[], object]
    seconds: float


class LeaseKeeper:
    """Renews what is held in time, from one thread, until it is stopped.

    ``pulse`` is felt from that thread, whenever all that is due has been renewed: one that hangs has none.
    """

    def __init__(self, pulse: Pulse | None = None) -> None:
        self._pulse = pulse
        self._beats_at = 0.0  # monotonic seconds
        self._changed = threading.Condition()
        self._held: set[Held[Any]] = set()
        self._wakes_at = float("inf")  # monotonic seconds
        self._stopping = False
        # A daemon: it must not keep a process alive that wants to end.
        self._thread = threading.Thread(target=self._run, name="duraq-leases", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Renew nothing any more; returns when a renewal that has begun is over."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def hold(self, held: Held[Any]) -> None:
        """Renew this lease from now on."""
        due = time.monotonic() + held.seconds_to_renewal()
        with self._changed:
            self._held.add(held)
            # Mostly it sleeps already towards a renewal that comes earlier, and needs no waking.
            if due < self._wakes_at:
                self._wakes_at = due
                self._changed.notify()

    def let_go(self, held: Held[Any]) -> None:
        """The lease has ended."""
        with self._changed:
            self._held.discard(held)

    def renew_due(self) -> None:
        """Renew each lease whose time has come."""
        with self._changed:
            due = [held for held in self._held if held.seconds_to_renewal() <= 0]
        for held in due:
            if not held.renew():
                self.let_go(held)

    def _run(self) -> None:
        while not self._stopping:
            self.renew_due()
            waits = self._beat()
            with self._changed:
                if self._stopping:
                    return
                waits += [held.seconds_to_renewal() for held in self._held]
                self._wakes_at = time.monotonic() + min(waits, default=float("inf"))
                self._changed.wait(max(0.0, min(waits)) if waits else None)

    def _beat(self) -> list[float]:
        """Have the pulse felt if it is time; how long it is to the next one, if there is one."""
        if self._pulse is None:
            return []
        now = time.monotonic()
        if now >= self._beats_at:
            self._beats_at = now + self._pulse.seconds
            self._pulse.beat()
        return [self._beats_at - now]
