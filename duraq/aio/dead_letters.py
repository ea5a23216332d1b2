"""Dead letters for tasks: ``duraq.DeadLetterQueue``, awaited."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import Any, Generic, TypeVar

from duraq.aio.calls import call
from duraq.aio.storage import Storage
from duraq.dead_letters import DeadLetterQueue as SyncDeadLetterQueue
from duraq.model import QueueEntry

T = TypeVar("T")


class DeadLetterQueue(Generic[T]):
    """The dead letters of one queue. Nothing is ever dropped from it on its own.

    A call that is cancelled may have changed what it was to change. ``sync`` is the same for threads.
    """

    def __init__(self, name: str, payload_type: type[T] | Any, storage: Storage) -> None:
        self.sync: SyncDeadLetterQueue[T] = SyncDeadLetterQueue(name, payload_type, storage.sync)

    def __repr__(self) -> str:
        return f"<aio.DeadLetterQueue of {self.name!r}>"

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.sync.name

    async def count(self) -> int:
        """How many there are."""
        return await call(self.sync.__len__)

    async def list(self, limit: int | None = None, offset: int = 0) -> list[QueueEntry[T]]:
        """Dead letters in enqueue order, with payload, attempts and every attempt's error."""
        return await call(partial(self.sync.list, limit, offset))

    async def retrieve(self, entry_id: str | None = None) -> QueueEntry[T] | None:
        """That dead letter, or the oldest; None if there is none."""
        return await call(partial(self.sync.retrieve, entry_id))

    async def retry(self, entry_id: str, *, keep_attempts: bool = False) -> None:
        """Put one back into its queue, its history kept and, unless ``keep_attempts``, its count at 0.

        Raises EntryNotFound if it is not among the dead letters.
        """
        await call(partial(self.sync.retry, entry_id, keep_attempts=keep_attempts))

    async def retry_many(self, entry_ids: Iterable[str], *, keep_attempts: bool = False) -> int:
        """Put these back, in batches that are each whole or not at all; returns how many.

        Raises EntryNotFound, with the batches before it done, if one is not among the dead letters.
        """
        ids = builtins.list(entry_ids)
        return await call(partial(self.sync.retry_many, ids, keep_attempts=keep_attempts))

    async def retry_all(self, *, keep_attempts: bool = False) -> int:
        """Put back everything that is dead now; returns how many."""
        return await call(partial(self.sync.retry_all, keep_attempts=keep_attempts))

    async def remove(self, entry_id: str) -> None:
        """Remove one for good. Raises EntryNotFound if it is not among the dead letters."""
        await call(partial(self.sync.remove, entry_id))

    async def remove_many(self, entry_ids: Iterable[str]) -> int:
        """Remove these for good, in batches that are each whole or not at all; returns how many.

        Raises EntryNotFound, with the batches before it done, if one is not among the dead letters.
        """
        return await call(partial(self.sync.remove_many, builtins.list(entry_ids)))

    async def purge_older_than(self, age: timedelta) -> int:
        """Remove for good what died longer ago than ``age``; returns how many."""
        return await call(partial(self.sync.purge_older_than, age))
