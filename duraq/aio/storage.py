"""Storages for tasks: opening and closing them, and transactions that belong to a task."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncContextDecorator, suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from anyio import CancelScope

from duraq import transaction
from duraq.aio.calls import call
from duraq.aio.waiting import Chairs
from duraq.clock import Clock
from duraq.errors import InvalidOption, NoTransaction, StorageClosed
from duraq.storage.base import Storage as Opened
from duraq.storage.file import Durability
from duraq.storage.file import FileStorage as OpenedFiles
from duraq.storage.memory import MemoryStorage as OpenedMemory

if TYPE_CHECKING:
    from duraq.journal.log import Sizes
    from duraq.storage.compactor import Compacted


class Storage:
    """A storage that was opened for threads, used by the tasks of one event loop.

    The threads may go on using it, as ``sync``. At the end of ``async with`` it is closed.
    """

    def __init__(self, storage: Opened) -> None:
        if not hasattr(storage, "commit"):
            raise InvalidOption(f"an aio.Storage needs an open storage, not {storage!r}")
        self._opened: Opened | None = storage
        self.chairs = Chairs(storage)

    def __repr__(self) -> str:
        return f"<aio.Storage of {self._opened!r}>"

    @property
    def sync(self) -> Opened:
        """The storage itself, whose calls block."""
        if self._opened is None:
            raise StorageClosed("this storage is not open yet", hint="it is opened by `async with`")
        return self._opened

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # The error that ends the block goes on, not a cancellation that comes while this is closed.
        with CancelScope(shield=True):
            await self.close()

    async def close(self) -> None:
        """Give back what is leased, uncounted, and release every lock and descriptor. Idempotent.

        Tasks that wait for entries learn of it at once, by StorageClosed.
        """
        if self._opened is not None:
            await call(self._opened.close, surely=True)

    async def queues(self) -> list[str]:
        """Names of the queues that exist, sorted."""
        return await call(self.sync.queues)

    # -- transactions ----------------------------------------------------------------------------------

    def transaction(self) -> Transaction:
        """``async with storage.transaction():``, or a decorator of a coroutine function.

        What the task does in it to this storage is one change, wholly there or not at all. Tasks that it
        starts have no part in it, nor those that ``asyncio.gather`` and, before Python 3.12,
        ``asyncio.wait_for`` start for it; ``asyncio.timeout`` starts none. At its end all of it is committed,
        with one sync; if an exception leaves it, a cancellation too, it never was. Within another one it is a
        savepoint. What was dequeued in it is leased at once, and given back uncounted if it is undone.
        Raises, from its end, what a commit raises.
        """
        return Transaction(self)

    async def begin_transaction(self) -> None:
        """The same without a block, until one of the next two; within another one, a savepoint."""
        # Not in a thread: it concerns this task's context and no disk.
        self.sync.begin_transaction()

    async def commit_transaction(self) -> None:
        """Commit what was begun last, or, at a savepoint, keep it for the whole. Raises NoTransaction.

        If the task is cancelled before the commit has begun, the transaction is undone.
        """
        await self.commit_by(self.sync.commit_transaction)

    async def rollback_transaction(self) -> None:
        """Undo what was done since the last beginning. Raises NoTransaction."""
        begun = transaction.current(self.sync)
        ends = begun is not None and not begun.is_nested
        try:
            await call(self.sync.rollback_transaction, surely=True)
        finally:
            if begun is not None and ends:
                transaction.end(begun)

    async def commit_by(self, commit: Callable[[], None]) -> None:
        """The same by a call that blocks, and that does it among other things."""
        begun = transaction.current(self.sync)
        if begun is None or begun.is_nested:
            commit()  # which has nothing to write
            return
        try:
            await call(commit)
        except BaseException:
            if not begun.ended:
                await call(self.sync.rollback_transaction, surely=True)
            raise
        finally:
            # The thread has ended it in a context of its own.
            transaction.end(begun)


class Transaction(AsyncContextDecorator):
    """A block, or a coroutine function, that is a transaction; within another one, a savepoint."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def _recreate_cm(self) -> Transaction:
        return Transaction(self._storage)

    async def __aenter__(self) -> None:
        await self._storage.begin_transaction()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self._storage.commit_transaction()
            return
        # The error goes on, not a cancellation that comes while it is undone.
        with CancelScope(shield=True), suppress(NoTransaction):  # it was ended within; the error says more
            await self._storage.rollback_transaction()


class _Opening(Storage):
    """A storage that ``async with`` opens."""

    def __init__(self, open_it: Callable[[], Opened]) -> None:
        self._opened = None
        self._open = open_it

    async def __aenter__(self) -> Self:
        if self._opened is None:
            opened = await call(self._open, undo=lambda opened: opened.close())
            self._opened, self.chairs = opened, Chairs(opened)
        return self


class FileStorage(_Opening):
    """A directory of queues, opened by ``async with``; the options are those of ``duraq.FileStorage``.

    Entering raises NotAStorage, UnsupportedVersion, NetworkFileSystem, StorageReadOnly or StorageDamaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "power",
        batch_window: timedelta = timedelta(milliseconds=20),
        lock_duration: timedelta = timedelta(minutes=5),
        max_payload_bytes: int = 1 << 20,
        history: timedelta | int | None = None,
        sizes: Sizes | None = None,
        create: bool = True,
        allow_network: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._path = path
        super().__init__(
            partial(
                OpenedFiles,
                path,
                durability=durability,
                batch_window=batch_window,
                lock_duration=lock_duration,
                max_payload_bytes=max_payload_bytes,
                history=history,
                sizes=sizes,
                create=create,
                allow_network=allow_network,
                clock=clock,
            )
        )

    def __repr__(self) -> str:
        return f"<aio.FileStorage {os.fspath(self._path)!r}>"

    async def compact(self, queue: str) -> Compacted:
        """Remove what is over from the queue's files, but for the history, and say what that was."""
        opened: Any = self.sync
        found: Compacted = await call(partial(opened.compact, queue))
        return found


class MemoryStorage(_Opening):
    """Keeps everything in this process; the options are those of ``duraq.MemoryStorage``."""

    def __init__(
        self,
        *,
        lock_duration: timedelta = timedelta(minutes=5),
        max_payload_bytes: int = 1 << 20,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            partial(
                OpenedMemory, lock_duration=lock_duration, max_payload_bytes=max_payload_bytes, clock=clock
            )
        )

    def __repr__(self) -> str:
        return "<aio.MemoryStorage>"
