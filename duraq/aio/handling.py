"""Awaiting a handler: when that is over, nothing that it has begun is left open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio import CancelScope, get_cancelled_exc_class

from duraq import tracing, transaction
from duraq.aio.calls import call
from duraq.errors import InvalidInput, InvalidOption
from duraq.handling import ENDED, LEFT_BEGUN, check_takes_an_entry, is_coroutine_function
from duraq.model import QueueEntry

T = TypeVar("T")

Handler = Callable[[QueueEntry[T]], Awaitable[object]]


def check_handler(handler: Handler[T]) -> Handler[T]:
    """The handler itself, if awaiting a call of it with an entry does the work; else InvalidOption."""
    if not is_coroutine_function(handler):
        raise InvalidOption(f"the handler must be a coroutine function of one entry, not {handler!r}")
    check_takes_an_entry(handler)
    return handler


async def call_awaited(handler: Handler[T], entry: QueueEntry[T]) -> None:
    """Await a call of the handler; raises what it raises.

    Raises InvalidInput if it has left a transaction begun, which is undone: what comes after it would be in
    that as well, and never be written. Or if it has ended the one that it was called in.
    """
    before = transaction.mark()
    try:
        await tracing.call_awaited(handler, entry)
    except BaseException:
        await _undo_since(before)
        raise
    if await _undo_since(before):
        raise InvalidInput(LEFT_BEGUN)
    if transaction.has_ended(before):
        raise InvalidInput(ENDED)


async def _undo_since(before: transaction.Mark) -> bool:
    """As ``transaction.undo_since``, whoever is cancelled meanwhile."""
    left = transaction.begun_since(before)
    try:
        with CancelScope(shield=True):
            for each in left:
                await call(each.storage.rollback_transaction, surely=True)
    finally:
        # The threads have ended it in contexts of their own.
        transaction.drop_since(before)
    return bool(left)


def is_foreign(error: BaseException) -> bool:
    """Whether it is a cancellation, and not of this task: something that it has waited for was cancelled."""
    cancelled = asyncio.CancelledError
    if get_cancelled_exc_class() is not cancelled or not isinstance(error, cancelled):
        return False
    task = asyncio.current_task()
    return task is not None and not task.cancelling()
