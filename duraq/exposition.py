"""What monitoring is told: the one table of all metrics, and its text for Prometheus.

The table needs nothing. Collectors and texts need ``prometheus-client`` (the extra ``metrics``), which is
imported when the first is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from duraq.errors import StorageError
from duraq.inspector import Inspector
from duraq.metrics import Histogram, QueueMetrics

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

Kind = Literal["gauge", "counter", "histogram"]
Value = int | float | Histogram
# Of each queue: values with what the labels behind ``queue`` say.
Read = Callable[[QueueMetrics], Iterable[tuple[tuple[str, ...], Value]]]


# Who writes a format.
FORMATS = {
    "prometheus": "prometheus_client.exposition",
    "openmetrics": "prometheus_client.openmetrics.exposition",
}


class Metric(NamedTuple):
    """One metric: what it is called, what kind it is, its labels, a sentence, and where it comes from."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    says: str
    read: Read


def _one(value: Callable[[QueueMetrics], Value | None]) -> Read:
    def read(queue: QueueMetrics) -> Iterator[tuple[tuple[str, ...], Value]]:
        found = value(queue)
        if found is not None:
            yield (), found

    return read


def _entries(queue: QueueMetrics) -> Iterator[tuple[tuple[str, ...], Value]]:
    for state in ("scheduled", "ready", "leased", "dead"):
        yield (state,), getattr(queue.counts, state)


def _lease_losses(queue: QueueMetrics) -> Iterator[tuple[tuple[str, ...], Value]]:
    for cause in ("worker_died", "timed_out", "released"):
        yield (cause,), getattr(queue.counters, cause)


def _counter(name: str, says: str, value: Callable[[QueueMetrics], int]) -> Metric:
    return Metric(f"duraq_{name}_total", "counter", ("queue",), says, _one(value))


def _gauge(name: str, says: str, value: Callable[[QueueMetrics], Value | None]) -> Metric:
    return Metric(f"duraq_{name}", "gauge", ("queue",), says, _one(value))


METRICS = (
    Metric("duraq_entries", "gauge", ("queue", "state"), "Entries that are in the queue now.", _entries),
    _gauge(
        "oldest_ready_age_seconds",
        "For how long the entry has been ready that has been so longest; 0 if none is.",
        lambda queue: 0.0 if queue.oldest_ready_age is None else queue.oldest_ready_age.total_seconds(),
    ),
    _counter("enqueued", "Entries that were enqueued.", lambda queue: queue.counters.enqueued),
    _counter("completed", "Entries that were completed.", lambda queue: queue.counters.completed),
    _counter(
        "failed",
        "Attempts that failed in their handler, the last ones too.",
        lambda queue: queue.counters.failed,
    ),
    _counter("dead", "Entries that became dead letters, for any cause.", lambda queue: queue.counters.dead),
    _counter("expired", "Entries whose time to live passed.", lambda queue: queue.counters.expired),
    _counter("requeued", "Dead letters that were put back.", lambda queue: queue.counters.requeued),
    _counter("removed", "Dead letters that were removed.", lambda queue: queue.counters.removed),
    _counter(
        "restored",
        "Dead letters whose removal was undone, or entries that came from another queue or storage.",
        lambda queue: queue.counters.restored,
    ),
    Metric(
        "duraq_lease_losses_total",
        "counter",
        ("queue", "cause"),
        "Leases that ended without success or failure; those that were released do not count as attempts.",
        _lease_losses,
    ),
    Metric(
        "duraq_wait_seconds",
        "histogram",
        ("queue",),
        "How long entries were ready before each of their leases.",
        _one(lambda queue: queue.wait),
    ),
    Metric(
        "duraq_run_seconds",
        "histogram",
        ("queue",),
        "How long attempts took that were completed or failed.",
        _one(lambda queue: queue.run),
    ),
    _gauge(
        "last_completed_timestamp_seconds",
        "When an entry was completed last; left out if never.",
        lambda queue: None if queue.last_completed is None else queue.last_completed.timestamp(),
    ),
    _gauge("workers", "Living processes that hold entries of the queue.", lambda queue: queue.workers),
    _gauge(
        "waiting",
        "Consumers that wait for an entry; 0 over PostgreSQL, which does not tell.",
        lambda queue: queue.waiting,
    ),
    _gauge(
        "paused", "1 if nothing is delivered until somebody resumes.", lambda queue: int(bool(queue.paused))
    ),
    _gauge(
        "disk_bytes", "Length of all files that hold the queue's records.", lambda queue: queue.bytes_on_disk
    ),
    _gauge("live_bytes", "Length of the records that its entries lie in.", lambda queue: queue.live_bytes),
)
# Not of a queue that can be read.
PROBLEM = Metric(
    "duraq_queue_problem",
    "gauge",
    ("queue", "problem"),
    "1 for a queue that cannot be read, and of which nothing else is told.",
    lambda _: (),
)
BUILD = Metric(
    "duraq_build_info", "gauge", ("version",), "1; which version of DuraQ tells all this.", lambda _: ()
)
REGISTRY = (*METRICS, PROBLEM, BUILD)


class StorageCollector:
    """A storage's metrics, for a registry of prometheus-client: ``REGISTRY.register(StorageCollector(...))``.

    Each time it is asked it looks anew, as an Inspector does. ``problems`` then has what kept queues from
    being read.
    """

    def __init__(self, inspector: Inspector, queues: Iterable[str] = ()) -> None:
        """``queues``: only these; default: all that there are."""
        self._inspector = inspector
        self._queues = tuple(queues)
        self.problems: dict[str, StorageError | OSError] = {}

    def describe(self) -> list[Family]:
        """Nothing, so that registering it does not look at the storage."""
        return []

    def collect(self) -> Iterator[Family]:
        """What there is to tell, as of now."""
        self._inspector.refresh()
        self.problems = {}
        found = []
        for name in self._queues or self._inspector.queues():
            try:
                found.append(self._inspector.metrics(name))
            except (StorageError, OSError) as error:
                self.problems[name] = error
        for metric in METRICS:
            yield _family(
                metric,
                [((each.queue, *labels), value) for each in found for labels, value in metric.read(each)],
            )
        yield _family(PROBLEM, [((name, type(error).__name__), 1) for name, error in self.problems.items()])
        yield _family(BUILD, [((version("duraq"),), 1)])


def render(collector: StorageCollector, form: str = "prometheus") -> bytes:
    """The collector's metrics as text, in one of ``FORMATS``."""
    text: bytes = import_module(FORMATS[form]).generate_latest(collector)
    return text


def _family(metric: Metric, samples: list[tuple[tuple[str, ...], Any]]) -> Family:
    from prometheus_client import core  # noqa: PLC0415 - an extra

    if metric.kind == "histogram":
        histogram = core.HistogramMetricFamily(metric.name, metric.says, labels=metric.labels)
        for labels, value in samples:
            buckets = [
                ("+Inf" if bound == float("inf") else str(bound), count)
                for bound, count in value.cumulative()
            ]
            histogram.add_metric(labels, buckets, value.sum)
        return histogram
    kind = core.CounterMetricFamily if metric.kind == "counter" else core.GaugeMetricFamily
    family = kind(metric.name, metric.says, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family
