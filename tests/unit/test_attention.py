"""The word for a queue."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from duraq.attention import DEFAULT, Attention, judge, label
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
    assert verdict.why or word is Attention.OK


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


def test_all_that_is_the_matter_is_said():
    """A pause is named beside a worse word, in the evidence and where only words are listed."""
    queue = replace(QUIET, counts=Counts(dead=9), pause=PAUSE)
    verdict = judge(queue, NOW, metrics=metrics(9, MINUTE))
    assert (verdict.word, label(verdict.word, paused=True)) == (Attention.DLQ, "DLQ+ PAUSED")
    assert "; PAUSED: by ann" in verdict.why
    assert "to be decided on" not in verdict.why
    assert [label(word, paused=True) for word in ("PAUSED", "CORRUPT")] == ["PAUSED", "CORRUPT"]


@pytest.mark.parametrize(
    ("queue", "why"),
    [
        (QUIET, ""),
        (ready(SECOND), "3 ready, nobody works it yet"),
        (replace(ready(SECOND), waiting=1), ""),
        (replace(ready(SECOND), leases=(LEASE,)), ""),
        (
            replace(QUIET, leases=(replace(DEAD_LEASE, leased_at=NOW),)),
            "1 held by a dead worker; whoever works the queue next takes it",
        ),
    ],
)
def test_what_will_be_the_matter(queue, why):
    """What is no word's yet is said at once: that nobody works, or that a holder is dead."""
    assert judge(queue, NOW) == (Attention.OK, why)


def test_between_two_entries():
    """Who has just ended an attempt works, even if no lease is seen at that moment."""
    done = QueueMetrics("jobs", NOW, history=(Period(NOW - SECOND, MINUTE, Counters(completed=1)),))
    assert judge(ready(SECOND), NOW, metrics=done).why == ""


def test_what_to_do_about_the_dead():
    """Who finds leases of a dead worker learns what ends them; that nobody else holds one is not denied."""
    verdict = judge(replace(ready(3 * MINUTE), leases=(DEAD_LEASE,)), NOW)
    assert "none of 1 leases is held by a living worker, nobody waits; LEASE!: " in verdict.why
    assert (
        "one, held by worker 1-00000000, which is dead; whoever works the queue next takes it" in verdict.why
    )
    assert "duraq release one" in verdict.why
