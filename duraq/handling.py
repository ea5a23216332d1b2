"""Calling a handler: when that has returned, its work has been done, and nothing was left open."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from duraq import tracing, transaction
from duraq.errors import InvalidInput, InvalidOption
from duraq.model import QueueEntry

T = TypeVar("T")
Q = TypeVar("Q")

Handler = Callable[[QueueEntry[T]], object]

LEFT_BEGUN = "the handler has begun a transaction and not ended it; it was undone"

# What a call returns that has not begun yet.
_STILL_TO_RUN = (inspect.isawaitable, inspect.isgenerator, inspect.isasyncgen)


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
            inspect.signature(handler).bind(None)
        except ValueError:
            return  # of what is not written in Python this may not be known
        except TypeError:
            pass
        else:
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
    which is undone: what comes after it would be in that as well, and never be written.
    """
    before = transaction.mark()
    try:
        returned = tracing.call(handler, entry)
    except BaseException:
        transaction.undo_since(before)
        raise
    if transaction.undo_since(before):
        raise InvalidInput(LEFT_BEGUN)
    _check_has_run(returned)


def _check_has_run(returned: object) -> None:
    """Raise InvalidInput if what a handler returned is still to be run."""
    if returned is None or not any(is_one(returned) for is_one in _STILL_TO_RUN):
        return
    if inspect.iscoroutine(returned):
        returned.close()  # nobody will await it, and Python need not say so as well
    what = type(returned).__name__
    raise InvalidInput(f"the handler returned a {what}, which nobody runs: it has done nothing")
