"""Traces: from the span in which an entry is enqueued to the spans of its attempts."""

import asyncio
import subprocess
import sys
from datetime import timedelta

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from duraq import DeadLetterQueue, FixedDelay, MemoryStorage, Queue, Worker, aio

SECOND = timedelta(seconds=1)
_exporter = InMemorySpanExporter()


@pytest.fixture
def spans():
    """The spans that have ended, in that order; each test begins with none."""
    # A process has one provider, for good.
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(_exporter))
        trace.set_tracer_provider(provider)
    _exporter.clear()
    yield _exporter.get_finished_spans
    _exporter.clear()


@pytest.fixture
def queue(clock):
    with MemoryStorage(clock=clock) as storage:
        yield Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=2, delay=SECOND))


def producer():
    return trace.get_tracer("test").start_as_current_span("producer")


def test_an_attempt_is_a_span_of_the_entrys_trace(queue, spans):
    """The span that an entry is enqueued in is the parent of that of its attempt, which says what it is."""
    with producer() as parent:
        entry_id = queue.enqueue("x")
    seen = []
    queue.process_next(lambda _: seen.append(trace.get_current_span()))
    _, span = spans()
    assert seen[0].get_span_context() == span.context
    assert (span.name, span.kind, span.parent.span_id) == (
        "process jobs",
        SpanKind.CONSUMER,
        parent.get_span_context().span_id,
    )
    assert dict(span.attributes) == {
        "messaging.system": "duraq",
        "messaging.operation.type": "process",
        "messaging.destination.name": "jobs",
        "messaging.message.id": entry_id,
        "duraq.attempt": 1,
    }
    assert span.status.status_code is StatusCode.UNSET


def test_each_attempt_is_one(queue, spans, clock):
    """Attempts that fail are spans with that error, and one from the dead letters is of the same trace."""
    with producer():
        entry_id = queue.enqueue("x")

    def fail(_):
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            queue.process_next(fail)
        clock.advance(SECOND)
    DeadLetterQueue("jobs", None, queue.storage).retry(entry_id)
    queue.process_next(lambda _: None)
    first, *attempts = spans()
    assert [span.attributes["duraq.attempt"] for span in attempts] == [1, 2, 1]
    assert {span.context.trace_id for span in attempts} == {first.context.trace_id}
    assert [span.status.status_code for span in attempts] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]
    assert attempts[0].events[0].attributes["exception.message"] == "no"


@pytest.mark.parametrize("transactional", [False, True])
def test_a_worker_does_it_too(queue, spans, transactional):
    """A worker's threads call their handlers in such spans, batches and transactions included."""
    with producer() as parent:
        queue.enqueue_many(range(3))
    seen = []
    Worker(queue, lambda _: seen.append(trace.get_current_span().context), transactional=transactional).run(
        drain=True
    )
    attempts = [span for span in spans() if span.kind is SpanKind.CONSUMER]
    assert [span.context for span in attempts] == seen
    assert {span.parent.span_id for span in attempts} == {parent.get_span_context().span_id}


def test_a_header_of_ones_own_counts(queue, spans):
    """A traceparent that the caller gives is carried as it is, and other headers go beside ours."""
    own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with producer() as parent:
        queue.enqueue("a", headers={"traceparent": own})
        queue.enqueue("b", headers={"who": "ann"})
    assert queue.dequeue().headers == {"traceparent": own}
    found = queue.dequeue().headers
    assert found.pop("who") == "ann"
    assert list(found) == ["traceparent"]
    assert f"{parent.get_span_context().trace_id:032x}" in found["traceparent"]


def test_outside_of_a_span(queue, spans):
    """With no span there is no header; the attempt begins a trace, whatever stands in its place."""
    queue.enqueue("a")
    queue.enqueue("b", headers={"traceparent": "nonsense"})
    assert [entry.headers for entry in queue.entries()] == [{}, {"traceparent": "nonsense"}]
    queue.process_next(lambda _: None)
    queue.process_next(lambda _: None)
    assert [span.parent for span in spans()] == [None, None]


def test_what_ends_the_program_ends_the_span(queue, spans):
    """An entry that is given back because the program ends leaves no span open."""
    queue.enqueue("a")

    def leave(_):
        raise SystemExit

    with pytest.raises(SystemExit):
        queue.process_next(leave)
    assert len(spans()) == 1
    assert queue.counts().ready == 1
    assert not trace.get_current_span().get_span_context().is_valid


def test_nothing_is_imported_for_it():
    """A program that does not use OpenTelemetry does not import it, whether or not it is installed."""
    program = """
import sys
from duraq import MemoryStorage, Queue
queue = Queue("jobs", MemoryStorage())
queue.enqueue(1, headers={"a": "b"})
queue.enqueue_many([2])
print(queue.process_next(lambda entry: None).headers)
assert not [name for name in sys.modules if name.startswith(("opentelemetry", "prometheus_client"))]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{'a': 'b'}\n", "")


@pytest.mark.parametrize("transactional", [False, True])
def test_tasks_trace_too(queue, spans, transactional):
    """What a task enqueues carries its span, and what a task handles is one, by itself and in a worker."""

    async def handle(_entry):
        seen.append(trace.get_current_span().get_span_context().trace_id)

    async def work():
        tasks = aio.Queue("jobs", aio.Storage(queue.storage))
        with producer() as parent:
            await tasks.enqueue("x")
            await tasks.enqueue("y")
        await tasks.process_next(handle, transactional=transactional)
        await aio.Worker(tasks, handle, transactional=transactional).run(drain=True)
        return parent.get_span_context().trace_id

    seen = []
    assert [asyncio.run(work())] * 2 == seen
    assert [span.name for span in spans()] == ["producer", "process jobs", "process jobs"]


def test_a_trace_never_keeps_an_entry_out(queue, spans):
    """However much an entry says and others have said of its trace, it is enqueued, and can be passed on."""
    most = {f"h{number}": "" for number in range(32)}
    with producer():
        entry = queue.get(queue.enqueue("x", headers=most))
        queue.enqueue("y", headers=entry.headers)
    assert entry.headers.keys() == {*most, "traceparent"}
