"""Counting: which bucket a duration is in, which row an event is in, and what is kept of old rows."""

import math
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duraq import InvalidOption
from duraq.clock import from_datetime
from duraq.ledger import BOUNDS, COMPLETED, ENQUEUED, LEVELS, MINUTE, Counters, Durations, Ledger
from duraq.metrics import Histogram, QueueMetrics, measure
from duraq.model import Cause
from duraq.state import QueueState

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
START = from_datetime(NOON)
SECOND = 1_000_000
MOST = sum(most for _, _, most in LEVELS)


def measured(ledger, now):
    """The metrics of a queue with that ledger."""
    state = QueueState("jobs")
    state.ledger = ledger
    return measure(state, now, 0)


# -- durations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "bucket"),
    [(-5, 0), (0, 0), (5000, 0), (5001, 1), (10_000, 1), (3_600_000_000, 17), (3_600_000_001, 18)],
)
def test_buckets(duration, bucket):
    """A duration is counted at the first bound that is not below it, and one below zero as zero."""
    durations = Durations()
    durations.add(duration)
    assert durations.counts.index(1) == bucket
    assert durations.total == max(duration, 0)


def test_a_sum_has_no_end():
    """However long all that is measured takes together, it can be written."""
    durations = Durations()
    for _ in range(1000):
        durations.add(10**18)
    assert orjson.loads(orjson.dumps(durations.image())) == durations.image()


def test_quantiles_of_nothing():
    """Where nothing was measured there is no quantile."""
    assert (Histogram().p50, Histogram().p95, Histogram().count) == (None, None, 0)


def test_a_quantile_is_in_the_bucket_of_its_case():
    """Each quantile lies between the bounds that the true one lies between."""
    chosen = random.Random(7)
    durations, values = Durations(), sorted(int(10 ** chosen.uniform(2, 9.5)) for _ in range(1000))
    for value in values:
        durations.add(value)
    histogram = Histogram.of(durations)
    for percent in (1, 25, 50, 90, 95, 99):
        true = values[percent * 10 - 1]
        upper = min(bound for bound in BOUNDS if bound >= true) / SECOND
        lower = max((bound for bound in BOUNDS if bound < true), default=0) / SECOND
        assert lower <= histogram.quantile(percent / 100) <= upper
    assert list(histogram.cumulative())[-1] == (float("inf"), 1000)


@pytest.mark.parametrize("lengths", [(31,), (31, 32), (0.1, 0.2, 1801), (40, 40, 40, 50)])
def test_a_quantile_is_possible(lengths):
    """However wide a bucket is, no quantile is more than what all took together leaves for it."""
    durations = Durations()
    for length in lengths:
        durations.add(int(length * SECOND))
    histogram = Histogram.of(durations)
    for q in (0.5, 0.95, 1):
        others = len(lengths) - max(1, math.ceil(q * len(lengths)))
        true = sorted(lengths)[len(lengths) - others - 1]
        lower = max((bound / SECOND for bound in BOUNDS if bound / SECOND < true), default=0)
        assert lower <= histogram.quantile(q) <= sum(lengths) / (others + 1) + 1e-6
    if len(lengths) == 1:
        # One alone took what all took.
        assert histogram.p95 == pytest.approx(lengths[0])


def test_a_quantile_is_never_more_than_the_last_bound():
    """Of what took longer than every bound no more is known."""
    durations = Durations()
    durations.add(10**12)
    assert Histogram.of(durations).p50 == 3600


def test_a_quantile_is_a_share():
    """Other numbers are refused."""
    with pytest.raises(InvalidOption):
        Histogram().quantile(95)


# -- rows --------------------------------------------------------------------------------------------------


def test_a_row_for_each_minute():
    """What happened in the same minute is in one period, whatever order it came in."""
    ledger = Ledger()
    for second in (0, 59, 61, 30, 125):
        ledger.count(ENQUEUED, START + second * SECOND)
    assert [(start, counters.enqueued) for start, _, counters in ledger.periods()] == [
        (START, 3),
        (START + MINUTE, 1),
        (START + 2 * MINUTE, 1),
    ]


def test_old_rows_become_coarser_and_none_is_lost():
    """However long a queue lives, so many rows are kept, the last hour by minutes, and totals stay right."""
    ledger = Ledger()
    minutes = 12 * 24 * 60
    for minute in range(minutes):
        ledger.count(ENQUEUED, START + minute * MINUTE, 2)
    periods = sorted(ledger.periods())
    assert len(periods) == MOST
    assert [length for _, length, _ in periods[-61:]] == [MINUTE] * 61
    assert periods[-1][0] - periods[0][0] > 7 * 24 * 60 * MINUTE
    for (start, length, counters), (following, _, _) in pairwise(periods):
        assert start + length == following or counters.enqueued < 2 * length // MINUTE
    assert ledger.totals() == Counters(enqueued=2 * minutes)
    assert len(str(ledger.image())) < ledger.length * 2


def test_a_clock_that_was_wrong_drives_out_nothing():
    """After an hour in the far future, or the past, what happens now is still counted by the minute."""
    ledger = Ledger()
    for minute in range(60):
        ledger.count(ENQUEUED, START + (10**6 + minute) * MINUTE)
        ledger.count(ENQUEUED, (10**6 + minute) * MINUTE)
    for minute in range(80):
        ledger.count(COMPLETED, START + minute * MINUTE)
    found = measured(ledger, START + 80 * MINUTE)
    assert found.rate("completed", timedelta(hours=1)) == pytest.approx(1 / 60)
    assert found.rate("enqueued", timedelta(hours=1)) == 0
    assert found.counters == Counters(enqueued=120, completed=80)


events = st.lists(
    st.tuples(st.integers(3, 10), st.integers(-3 * 10**6, 3 * 10**6), st.integers(0, 10**10)), max_size=400
)


@given(events, st.integers(0, 400))
def test_an_image_is_all_of_it(happened, cut):
    """Whoever goes on from an image comes to the same as who was there from the beginning."""
    whole, kept = Ledger(), Ledger()
    for number, (what, minute, duration) in enumerate(happened):
        if number == cut:
            kept = Ledger.of(kept.image())
        for ledger in (whole, kept):
            ledger.count(what, START + minute * MINUTE)
            ledger.wait.add(duration)
            ledger.complete(START, START + minute * MINUTE)
            ledger.end(Cause.FAILED, START, START + duration)
    assert kept == whole
    assert Ledger.of(whole.image()) == whole
    assert whole.totals().completed == len(happened)


def test_a_later_version_may_count_more():
    """Columns and buckets that this version does not know are passed over."""
    ledger = Ledger()
    ledger.count(ENQUEUED, START)
    image = ledger.image()
    image["minutes"][0] += [0] * 20 + [7]
    image["more"] = 1
    assert Ledger.of(image) == ledger


@pytest.mark.parametrize(
    "broken",
    [
        {"wait": []},
        {"run": [0, "x"]},
        {"run": ["x"]},
        {"wait": None},
        {"minutes": [[]]},
        {"before": ["a"]},
        {"completed_at": None},
    ],
)
def test_what_is_no_image(broken):
    """Anything else is an error that decoders expect."""
    with pytest.raises((TypeError, ValueError, KeyError)):
        Ledger.of(Ledger().image() | broken)
    with pytest.raises(KeyError):
        Ledger.of({})


# -- rates -------------------------------------------------------------------------------------------------


def test_rates():
    """A rate is what happened within the window, by the second; of the minute it begins in, a share."""
    ledger = Ledger()
    for minute in range(120):
        ledger.count(ENQUEUED, START + minute * MINUTE + SECOND, 60)
    ledger.count(COMPLETED, START + 119 * MINUTE, 30)
    now = measured(ledger, START + 120 * MINUTE)
    for minutes in (1, 5, 15, 60):
        assert now.rate("enqueued", timedelta(minutes=minutes)) == pytest.approx(1)
    assert now.rate("completed", timedelta(minutes=1)) == pytest.approx(0.5)
    half = measured(ledger, START + 120 * MINUTE + 30 * SECOND)
    assert half.rate("enqueued", timedelta(minutes=1)) == pytest.approx(0.5)
    assert measured(ledger, START + 200 * MINUTE).rate("enqueued", timedelta(hours=1)) == 0


def test_what_happened_just_now_counts():
    """An event of this very moment, at the beginning of a minute, is in every window."""
    ledger = Ledger()
    ledger.count(ENQUEUED, START)
    assert measured(ledger, START).rate("enqueued", timedelta(minutes=1)) == pytest.approx(1 / 60)


@pytest.mark.parametrize(
    ("what", "window"), [("in", timedelta(minutes=1)), ("enqueued", timedelta(0)), ("enqueued", 60)]
)
def test_what_has_no_rate(what, window):
    """Unknown counters and windows that are no duration are refused."""
    with pytest.raises(InvalidOption):
        QueueMetrics("jobs", NOON).rate(what, window)


@pytest.mark.parametrize(
    ("name", "value"),
    [("wait", [-1.0]), ("wait", ["inf"]), ("run", [1e300]), ("before", [-5]), ("minutes", [[1 << 70, 1]])],
)
def test_no_ledger(name, value):
    """What is no ledger, however well formed, is not taken for one."""
    image = Ledger().image() | {name: value}
    with pytest.raises(TypeError):
        Ledger.of(image)
