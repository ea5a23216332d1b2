"""Entries that were given up, with their payload and history kept until someone decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, Generic, TypeVar

from duraq.clock import from_timedelta
from duraq.errors import EntryNotFound, InvalidOption, QueueNotFound
from duraq.model import EntryStatus, QueueEntry
from duraq.operations import Operation, Remove, Requeue
from duraq.queue import Queue
from duraq.storage.base import Storage

T = TypeVar("T")

# One group of operations: large enough to share a sync, small enough to hold no lock for long.
BATCH = 1000


class DeadLetterQueue(Generic[T]):
    """The dead letters of one queue. Nothing is ever dropped from it on its own."""

    def __init__(self, name: str, payload_type: type[T] | Any, storage: Storage) -> None:
        self._queue: Queue[T] = Queue(name, storage, payload_type)
        self._storage = storage
        self.name = self._queue.name

    def __repr__(self) -> str:
        return f"<DeadLetterQueue of {self.name!r}>"

    def __len__(self) -> int:
        return self._storage.counts(self.name).dead

    def __bool__(self) -> bool:
        # The object stands for the queue, empty or not.
        return True

    def list(self, limit: int | None = None, offset: int = 0) -> list[QueueEntry[T]]:
        """Dead letters in enqueue order, with payload, attempts and every attempt's error."""
        return self._queue.entries(EntryStatus.DEAD, limit=limit, offset=offset)

    def retrieve(self, entry_id: str | None = None) -> QueueEntry[T] | None:
        """That dead letter, or the oldest; None if there is none."""
        if entry_id is None:
            return next(iter(self.list(limit=1)), None)
        try:
            entry = self._queue.get(entry_id)
        except (EntryNotFound, QueueNotFound):
            return None
        return entry if entry.status is EntryStatus.DEAD else None

    def retry(self, entry_id: str, *, keep_attempts: bool = False) -> None:
        """Put one back into its queue, its history kept and, unless ``keep_attempts``, its count at 0.

        Raises EntryNotFound if it is not among the dead letters.
        """
        self._commit([Requeue(entry_id, keep_attempts)])

    def retry_many(self, entry_ids: Iterable[str], *, keep_attempts: bool = False) -> int:
        """Put these back, in batches that are each whole or not at all; returns how many.

        Raises EntryNotFound, with the batches before it done, if one is not among the dead letters.
        """
        return self._in_batches(Requeue(entry_id, keep_attempts) for entry_id in entry_ids)

    def retry_all(self, *, keep_attempts: bool = False) -> int:
        """Put back everything that is dead now; returns how many."""
        return self.retry_many(self._ids(), keep_attempts=keep_attempts)

    def remove(self, entry_id: str) -> None:
        """Remove one for good. Raises EntryNotFound if it is not among the dead letters."""
        self._commit([Remove(entry_id)])

    def remove_many(self, entry_ids: Iterable[str]) -> int:
        """Remove these for good, in batches that are each whole or not at all; returns how many.

        Raises EntryNotFound, with the batches before it done, if one is not among the dead letters.
        """
        return self._in_batches(Remove(entry_id) for entry_id in entry_ids)

    def purge_older_than(self, age: timedelta) -> int:
        """Remove for good what died longer ago than ``age``; returns how many."""
        if not isinstance(age, timedelta) or age < timedelta(0):
            raise InvalidOption(f"age must be a timedelta of 0 or more, not {age!r}")
        before = self._storage.clock.now() - from_timedelta(age)
        dead = self._storage.entries(self.name, EntryStatus.DEAD)
        return self._in_batches(Remove(entry.id) for entry in dead if entry.updated_at <= before)

    def _ids(self) -> Iterator[str]:
        return iter([entry.id for entry in self._storage.entries(self.name, EntryStatus.DEAD)])

    def _in_batches(self, operations: Iterable[Operation]) -> int:
        done = 0
        batch: list[Operation] = []
        for operation in operations:
            batch.append(operation)
            if len(batch) == BATCH:
                self._commit(batch)
                done += len(batch)
                batch = []
        if batch:
            self._commit(batch)
        return done + len(batch)

    def _commit(self, operations: Iterable[Operation]) -> None:
        self._storage.commit({self.name: list(operations)})
