"""For tests of the screens: a source that shows what it is given, and queues made by hand."""

import threading
from datetime import UTC, datetime, timedelta

from duraq_dashboard.happenings import Following
from duraq_dashboard.snapshot import QueueNow, Snapshot

from duraq.attention import verdicts
from duraq.ledger import Counters
from duraq.metrics import Histogram, Period, QueueMetrics
from duraq.model import Counts
from duraq.views import QueueView

NOW = datetime(2026, 11, 29, 10, 42, 17, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SIZES = ((120, 36), (80, 24), (60, 16))


class FakeSource:
    """Hands out the snapshots that it is given. Questions are answered by an ``inspector`` of the test's."""

    def __init__(self, path="/srv/queues", inspector=None):
        self.path = path
        self.inspector = inspector
        self.asked = 0
        self.looks = 0
        self.records = []
        self.noted = []
        self.looked_at = NOW
        self._on_look = None
        self._newest = None

    def start(self, on_look):
        self._on_look = on_look
        if self._newest is not None:
            on_look(self._newest)

    def show(self, snapshot):
        self._newest = snapshot
        if self._on_look is not None:
            self._on_look(snapshot)

    def look_now(self):
        self.looks += 1

    def ask(self, question, answer):
        given_up = threading.Event()
        self.asked += 1
        try:
            found = question(self.inspector, given_up)
        except Exception as error:  # noqa: BLE001 - as the real one does
            found = error
        answer(found)
        return given_up

    def follow(self, on_more, chosen=None):
        following = Following(self.path, on_more, chosen)
        for record in self.records:
            following._add(record)
        return following

    def acknowledge(self, queue):
        self.noted.append(queue)

    def stop(self):
        self._on_look = None


def queue_view(name, ready=0, *, scheduled=0, leased=0, dead=0, oldest=None, **more):
    """A queue's view; ``oldest``: for how long its oldest ready entry has been ready."""
    counts = Counts(scheduled=scheduled, ready=ready, leased=leased, dead=dead)
    return QueueView(name, counts, oldest_ready=None if oldest is None else NOW - oldest, **more)


def queue_metrics(view, *, minutes=(), wait=(), run=(), **more):
    """Its numbers. ``minutes``: the counters of the minutes that are over, the newest last."""
    start = NOW.replace(second=0) - MINUTE * len(minutes)
    history = tuple(
        Period(start + MINUTE * number, MINUTE, Counters(**counters))
        for number, counters in enumerate(minutes)
    )
    every = [counters for period in history for counters in [period.counters]]
    return QueueMetrics(
        view.name,
        NOW,
        view.counts,
        counters=Counters(*map(sum, zip(*every, strict=True))) if every else Counters(),
        wait=_histogram(wait),
        run=_histogram(run),
        oldest_ready=view.oldest_ready,
        last_completed=NOW - MINUTE if any(counters.completed for counters in every) else None,
        paused=view.pause,
        history=history,
        **more,
    )


def _histogram(lengths):
    buckets = [0] * (len(Histogram.bounds) + 1)
    for length in lengths:
        buckets[sum(length > bound for bound in Histogram.bounds)] += 1
    return Histogram(tuple(buckets), float(sum(lengths)))


def queue_now(view, **numbers):
    """The queue as a snapshot has it; judged by the rules that are everybody's."""
    metrics = None if view.problem is not None else queue_metrics(view, **numbers)
    return QueueNow(view, metrics, tuple(verdicts(view, NOW, metrics=metrics)))


def snapshot(*queues, number=1, **more):
    """A storage of these queues."""
    times = {"looked_at": NOW, "changed_at": NOW, "lag": timedelta(milliseconds=41)}
    return Snapshot("/srv/queues", number, queues={queue.name: queue for queue in queues}, **times | more)


def text_of(app):
    """What is on the screen, line by line, without colours."""
    return app.text()
