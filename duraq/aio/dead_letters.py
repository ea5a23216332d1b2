"""Dead letters for tasks: ``duraq.DeadLetterQueue``, awaited."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Generic, TypeVar

from duraq.acts import Act
from duraq.aio.calls import call
from duraq.aio.storage import Storage
from duraq.dead_letters import UNCHANGED
from duraq.dead_letters import DeadLetterQueue as SyncDeadLetterQueue
from duraq.model import QueueEntry
from duraq.where import Where

T = TypeVar("T")


class DeadLetterQueue(Generic[T]):
    """The dead letters of one queue. Nothing is ever dropped from it on its own.

    A call that is cancelled may have changed what it was to change. ``sync`` is the same for threads, and has
    an act's steps one by one.
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

    async def list(
        self, limit: int | None = None, offset: int = 0, *, where: Where | str | None = None
    ) -> list[QueueEntry[T]]:
        """Dead letters in enqueue order, with payload, attempts and every attempt's error.

        ``where``: only those that match; ``limit`` and ``offset`` then count these. Raises InvalidFilter.
        """
        return await call(partial(self.sync.list, limit, offset, where=where))

    async def retrieve(self, entry_id: str | None = None) -> QueueEntry[T] | None:
        """That dead letter, or the oldest; None if there is none."""
        return await call(partial(self.sync.retrieve, entry_id))

    # -- putting back ----------------------------------------------------------------------------------

    async def retry(
        self,
        entry_id: str,
        *,
        keep_attempts: bool = False,
        data: T = UNCHANGED,
        token: int = 0,
        reason: str = "",
    ) -> None:
        """Put one back into its queue, its history kept and, unless ``keep_attempts``, its count at 0.

        ``data``: from now on it has this payload; that is an act, with a ``reason``. ``token``: that of the
        lease it died in, as an EntryView has it; not if it was put back since and has died again, so that
        nobody's change is lost. Raises EntryNotFound if it is not among the dead letters, and InvalidPayload.
        """
        options: dict[str, Any] = {"keep_attempts": keep_attempts, "data": data, "token": token}
        await call(partial(self.sync.retry, entry_id, reason=reason, **options))

    async def retry_many(
        self,
        entry_ids: Iterable[str],
        *,
        keep_attempts: bool = False,
        act: str | None = None,
        reason: str = "",
    ) -> int:
        """Put these back, in batches that are each whole or not at all; returns how many.

        Raises EntryNotFound, and does nothing, if one is not among the dead letters.
        """
        ids = builtins.list(entry_ids)
        return await call(
            partial(self.sync.retry_many, ids, keep_attempts=keep_attempts, act=act, reason=reason)
        )

    async def retry_all(
        self,
        *,
        where: Where | str | None = None,
        keep_attempts: bool = False,
        act: str | None = None,
        reason: str = "",
    ) -> int:
        """Put back everything that is dead now, or what of it matches; returns how many.

        In batches that are each whole or not at all. Raises InvalidFilter, or InvalidOption for ``act``.
        """
        return await call(
            partial(self.sync.retry_all, where=where, keep_attempts=keep_attempts, act=act, reason=reason)
        )

    # -- removing --------------------------------------------------------------------------------------

    async def remove(self, entry_id: str, *, reason: str = "") -> str:
        """Remove one; returns the act, under which ``undo`` brings it back within seven days.

        Raises EntryNotFound if it is not among the dead letters.
        """
        return await call(partial(self.sync.remove, entry_id, reason=reason))

    async def remove_many(self, entry_ids: Iterable[str], *, act: str | None = None, reason: str = "") -> int:
        """Remove these, in batches that are each whole or not at all; returns how many. See ``undo``.

        Raises EntryNotFound, and does nothing, if one is not among the dead letters.
        """
        return await call(partial(self.sync.remove_many, builtins.list(entry_ids), act=act, reason=reason))

    async def remove_all(
        self, *, where: Where | str | None = None, act: str | None = None, reason: str = ""
    ) -> int:
        """Remove everything that is dead now, or what of it matches; returns how many. See ``undo``.

        In batches that are each whole or not at all. Raises InvalidFilter, or InvalidOption for ``act``.
        """
        return await call(partial(self.sync.remove_all, where=where, act=act, reason=reason))

    async def purge_older_than(
        self,
        age: timedelta,
        *,
        where: Where | str | None = None,
        act: str | None = None,
        reason: str = "",
    ) -> int:
        """Remove for good what died longer ago than ``age``, or what of it matches; returns how many.

        In batches that are each whole or not at all. Raises InvalidFilter, or InvalidOption for ``age`` or
        ``act``.
        """
        return await call(partial(self.sync.purge_older_than, age, where=where, act=act, reason=reason))

    async def undo(self, act: str | None = None, *, reason: str = "") -> int:
        """Bring back what that act, or the last that removed any here, has removed; returns how many.

        Each is a dead letter again, as it was. One whose id is in use again stays removed. Raises ActNotFound
        if there is none, or it is older than seven days, and InvalidOption if it did not remove.
        """
        return await call(partial(self.sync.undo, act, reason=reason))

    async def acts(self) -> Sequence[Act]:
        """What was done to many, or removed, in the last seven days, oldest first."""
        return await call(self.sync.acts)
