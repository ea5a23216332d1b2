"""The word for a queue."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from duraq.attention import DEFAULT, Attention, judge
from duraq.errors import StorageDamaged
from duraq.ledger import Counters
from duraq.metrics import Period, QueueMetrics
from duraq.model import Counts, Pause
from duraq.views import LeaseView, QueueView

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
LEASE = LeaseView("jobs", "one", 1, 1, "1-00000000", True, False, NOW - MINUTE, NOW + MINUTE)
DEAD_LEASE = replace(LEASE, alive=False)
QUIET = QueueView("jobs", Counts())
PAUSE = Pause(NOW, "ann", "incident")


def ready(age):
    return replace(QUIET, counts=Counts(ready=3), oldest_ready=NOW - age)


@pytest.mark.parametrize(
    ("queue", "word"),
    [
        (QUIET, Attention.OK),
        (replace(QUIET, problem=StorageDamaged("bad")), Attention.CORRUPT),
        (replace(QUIET, problem=PermissionError("no"), pause=PAUSE), Attention.DENIED),
        (ready(2 * MINUTE), Attention.OK),
        (ready(2 * MINUTE + SECOND), Attention.NO_CONSUMER),
        (replace(ready(3 * MINUTE), waiting=1), Attention.OK),
        (replace(ready(3 * MINUTE), leases=(LEASE,)), Attention.OK),
        (replace(ready(3 * MINUTE), leases=(replace(LEASE, worker="", alive=None),)), Attention.OK),
        (replace(ready(3 * MINUTE), leases=(DEAD_LEASE,)), Attention.NO_CONSUMER),
        (replace(ready(16 * MINUTE), leases=(LEASE,)), Attention.STUCK),
        (replace(ready(16 * MINUTE), waiting=1), Attention.STUCK),
        (replace(ready(16 * MINUTE), pause=PAUSE), Attention.PAUSED),
        (replace(QUIET, leases=(DEAD_LEASE,)), Attention.LEASE),
        (replace(QUIET, leases=(replace(DEAD_LEASE, leased_at=NOW),)), Attention.OK),
        (replace(QUIET, leases=(replace(LEASE, late=True, deadline_at=NOW - MINUTE),)), Attention.LEASE),
        (replace(QUIET, leases=(replace(LEASE, late=True, deadline_at=NOW - SECOND),)), Attention.OK),
        (replace(QUIET, counts=Counts(dead=6)), Attention.DEAD),
        (replace(QUIET, counts=Counts(dead=9), pause=PAUSE), Attention.PAUSED),
    ],
)
def test_words(queue, word):
    """The worst that is true of a queue is its word, and the evidence is named."""
    verdict = judge(queue, NOW)
    assert verdict.word is word
    assert bool(verdict.why) is (word is not Attention.OK)


def metrics(dead, age):
    died = Period(NOW - age, MINUTE, Counters(dead=dead))
    return QueueMetrics("jobs", NOW, history=(died,))


@pytest.mark.parametrize(
    ("dead", "lately", "age", "word"),
    [
        (6, 6, MINUTE, Attention.DLQ),
        (5, 5, MINUTE, Attention.DEAD),
        (9, 9, 90 * MINUTE, Attention.DEAD),
        (5, 9, MINUTE, Attention.DEAD),
        (0, 9, MINUTE, Attention.OK),
    ],
)
def test_a_wave_of_dead_letters(dead, lately, age, word):
    """More that died lately, and are still there, than may be is worth a word; what was dealt with is not."""
    queue = replace(QUIET, counts=Counts(dead=dead))
    assert judge(queue, NOW, metrics=metrics(lately, age)).word is word


def test_thresholds():
    """From when on something is worth a word can be set."""
    limits = replace(DEFAULT, no_consumer_after=SECOND)
    assert judge(ready(2 * SECOND), NOW, limits).word is Attention.NO_CONSUMER


def test_every_word_has_a_role():
    """Only what is well goes without a colour."""
    assert [word for word in Attention if word.role == "plain"] == [Attention.OK]
    assert [word for word in Attention if word.role == "crit"] == list(Attention)[:4]
