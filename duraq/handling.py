"""Calling a handler: when that has returned, its work has been done, and nothing was left open."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from duraq import tracing, transaction
from duraq.errors import InvalidInput, InvalidOption
from duraq.model import QueueEntry

T = TypeVar("T")
Q = TypeVar("Q")

Handler = Callable[[QueueEntry[T]], object]

ENDED = "the handler has ended the transaction that it was called in"
LEFT_BEGUN = "the handler has begun a transaction and not ended it; it was undone"


def is_coroutine_function(function: object) -> bool:
    """Whether a call of it is to be awaited, be it a function or an object that is called like one."""
    return _is_any(function, inspect.iscoroutinefunction)


def runs_later(function: object) -> bool:
    """Whether a call of it returns before it has begun: a coroutine or generator function."""
    return _is_any(
        function, inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction
    )


def _is_any(function: object, *kinds: Callable[[Any], bool]) -> bool:
    # A type's __call__ is a function like any other.
    both = (function, getattr(type(function), "__call__", None))  # noqa: B004 - see above
    return any(is_one(each) for each in both for is_one in kinds)


def check_handler(handler: Handler[T]) -> Handler[T]:
    """The handler itself, if calling it with an entry does the work; else InvalidOption."""
    if runs_later(handler):
        raise InvalidOption(
            "the handler is a coroutine or generator function: a call of it returns before it has begun"
        )
    check_takes_an_entry(handler)
    return handler


def check_takes_an_entry(handler: Callable[..., Any]) -> None:
    """Raise InvalidOption if it cannot be called with one argument."""
    if callable(handler):
        try:
            # What is called, and not what it wraps.
            signature = inspect.signature(handler, follow_wrapped=False)
        except Exception:  # noqa: BLE001 - of what is not written in Python, or stands for something, nobody knows
            return
        with suppress(TypeError):
            signature.bind(None)
            return
    raise InvalidOption(f"the handler must be a function of one entry, not {handler!r}")


def several(queues: Any, kind: type[Q]) -> tuple[Q, ...]:
    """The queues of a worker, one or several; else InvalidOption."""
    found = (queues,) if isinstance(queues, kind) or not isinstance(queues, Iterable) else tuple(queues)
    for each in found:
        if not isinstance(each, kind):
            raise InvalidOption(f"a worker works queues, as QueueManager makes them, and not {queues!r}")
    if not found:
        raise InvalidOption("a worker needs a queue")
    return found


def call(handler: Handler[T], entry: QueueEntry[T]) -> None:
    """Call the handler; raises what it raises.

    Raises InvalidInput if it returned something that is still to be run, or has left a transaction begun,
    which is undone (what comes after it would be in that as well, and never be written), or has ended the one
    that it was called in.
    """
    before = transaction.mark()
    try:
        returned = tracing.call(handler, entry)
    except BaseException:
        transaction.undo_since(before)
        raise
    if transaction.undo_since(before):
        raise InvalidInput(LEFT_BEGUN)
    if transaction.has_ended(before):
        raise InvalidInput(ENDED)
    _check_has_run(returned)


def _check_has_run(returned: object) -> None:
    """Raise InvalidInput if what a handler returned has not begun, and so never will."""
    if inspect.iscoroutine(returned) and inspect.getcoroutinestate(returned) == inspect.CORO_CREATED:
        returned.close()  # Python need not say as well that nobody has awaited it
    elif not (inspect.isgenerator(returned) and inspect.getgeneratorstate(returned) == inspect.GEN_CREATED):
        return
    what = type(returned).__name__
    raise InvalidInput(f"the handler returned a {what}, which nobody runs: it has done nothing")


def is_own(error: BaseException, is_foreign: Callable[[BaseException], bool] = lambda _: False) -> bool:
    """Whether an error is the handler's own doing: its attempt has failed, and counts.

    So is SystemExit, as argparse raises it: not counted, its entry would come back for ever. Of a group each
    error must be, ``is_foreign`` among them.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_own(each, is_foreign) for each in error.exceptions)
    return isinstance(error, (Exception, SystemExit)) or is_foreign(error)


def exits(error: BaseException | None) -> bool:
    """Whether it ends the worker all the same."""
    if isinstance(error, BaseExceptionGroup):
        return any(exits(each) for each in error.exceptions)
    return isinstance(error, SystemExit)
