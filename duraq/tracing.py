"""OpenTelemetry, for programs that use it: an entry carries its trace, each attempt is a span of it.

A program that has not imported ``opentelemetry`` has no span that could be carried and nothing that would
take one. So nothing of it is ever imported here first, and whoever does not use it pays for one look into a
dict. The headers are those of the W3C, ``traceparent`` and ``tracestate``.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from duraq.model import QueueEntry
from duraq.options import LONGEST_HEADER

T = TypeVar("T")

# While this is not imported there is nothing to do.
API = "opentelemetry.trace"


def with_trace(headers: dict[str, str] | None) -> dict[str, str] | None:
    """The headers of a new entry, and the span that it is enqueued in, unless they name one themselves."""
    try:
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - imported by the program
            TraceContextTextMapPropagator,
        )
    except ImportError:
        return headers  # half an installation: no reason not to enqueue

    carried: dict[str, str] = {}
    if headers is None or "traceparent" not in headers:
        TraceContextTextMapPropagator().inject(carried)
    # What others said of a trace may be long, and whoever passes the headers on must be able to.
    carried = {name: text for name, text in carried.items() if len(text) <= LONGEST_HEADER}
    return {**carried, **(headers or {})} if carried else headers


def call(handler: Callable[[QueueEntry[T]], object], entry: QueueEntry[T]) -> object:
    """Call the handler; if the program traces, in a span that continues the trace of the entry."""
    if API in sys.modules:
        with _span(entry):
            return handler(entry)
    return handler(entry)


async def call_awaited(handler: Callable[[QueueEntry[T]], Awaitable[object]], entry: QueueEntry[T]) -> None:
    """The same with one that is to be awaited."""
    with _span(entry) if API in sys.modules else nullcontext():
        await handler(entry)


def _span(entry: QueueEntry[T]) -> AbstractContextManager[object]:
    from opentelemetry import trace  # noqa: PLC0415 - see above
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    attributes: dict[str, str | int] = {
        "messaging.system": "duraq",
        "messaging.operation.type": "process",
        "messaging.destination.name": entry.queue,
        "messaging.message.id": entry.id,
        "duraq.attempt": entry.attempts,
    }
    return trace.get_tracer("duraq").start_as_current_span(
        f"process {entry.queue}",
        TraceContextTextMapPropagator().extract(entry.headers),
        trace.SpanKind.CONSUMER,
        attributes,
    )
