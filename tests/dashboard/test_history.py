"""Rates and durations over a time, from what queues have counted and from what was seen of them."""

import random
from datetime import timedelta

import pytest
from duraq_dashboard.history import Durations, columns, rate
from duraq_dashboard.overview import Overview
from on_screen import MINUTE, NOW, queue_metrics, queue_now, queue_view, snapshot

from duraq.ledger import Counters
from duraq.metrics import Period

DONE = ("completed",)
HOUR = timedelta(hours=1)


def minute(number, completed, length=MINUTE):
    """What was completed from so many whole minutes before this one on."""
    return Period(NOW.replace(second=0) - MINUTE * number, length, Counters(completed=completed))


def test_columns_are_whole_minutes():
    """Each bar is a minute of the clock, and the current one a rate over what of it has passed."""
    found = columns([minute(2, 60), minute(1, 120), minute(0, 34)], DONE, 5 * MINUTE, 5, NOW)
    assert found == [0, 0, 1, 2, 34 / 17]


def test_a_minute_that_has_just_begun():
    """A single event in the first second is not taken for the rate of the minute."""
    now = NOW.replace(second=0) + timedelta(seconds=1)
    assert columns([minute(0, 1)], DONE, MINUTE, 1, now) == [0.1]


def test_what_is_over_does_not_change():
    """Bars of minutes that are over stay as they are while the current one goes on, and then move on."""
    history = [minute(number, 7 * number) for number in range(9, 0, -1)]
    early = columns(history, DONE, 10 * MINUTE, 10, NOW.replace(second=1))
    late = columns(history, DONE, 10 * MINUTE, 10, NOW.replace(second=59))
    after = columns(history, DONE, 10 * MINUTE, 10, NOW.replace(second=0) + MINUTE)
    assert early == late
    assert after[:-1] == early[1:]


def test_nothing_is_lost_in_columns():
    """However long the periods that were counted are, what happened in the window is all there."""
    rng = random.Random(1)
    for _ in range(200):
        lengths = rng.choices([MINUTE, 10 * MINUTE, HOUR], k=8)
        start, history = NOW.replace(minute=0, second=0) - 30 * HOUR, []
        for length in sorted(lengths, reverse=True):
            history.append(Period(start, length, Counters(completed=rng.randrange(1000))))
            start += length
        total = sum(period.counters.completed for period in history)
        found = columns(history, DONE, 48 * HOUR, 96, NOW)
        assert sum(found) * 1800 == pytest.approx(total)


def test_rates_agree_with_the_library():
    """A rate as of the moment of the metrics is the library's own."""
    metrics = queue_metrics(
        queue_view("mail"), minutes=[{"completed": number, "failed": 1} for number in range(50)]
    )
    for minutes in (1, 5, 15, 45):
        window = timedelta(minutes=minutes)
        assert rate(metrics, DONE, window, NOW) == pytest.approx(metrics.rate("completed", window))


def test_rates_fade():
    """As time passes and nothing happens, a rate falls to nothing."""
    metrics = queue_metrics(queue_view("mail"), minutes=[{"completed": 600}])
    assert rate(metrics, DONE, MINUTE, NOW) > 0
    assert rate(metrics, DONE, MINUTE, NOW + 2 * MINUTE) == 0


def seen(at, wait, name="mail"):
    """A queue whose entries have waited so far for so long, looked at then."""
    now = queue_now(queue_view(name), wait=wait)
    object.__setattr__(now.metrics, "at", NOW + at)
    return now


def test_durations_of_lately():
    """What has been seen since the first look is told of, and since when; what was before is not in it."""
    durations = Durations()
    first, second = seen(0 * MINUTE, [100.0] * 50), seen(5 * MINUTE, [100.0] * 50 + [0.02] * 10)
    durations.add([first])
    durations.add([second])
    took = durations.took(second.metrics)
    assert (took.since, took.wait.count) == (NOW, 10)
    assert took.wait.p95 < 1


def test_durations_of_ever():
    """While nothing has happened since the first look, they are those of all time, and that is said."""
    durations = Durations()
    first = seen(0 * MINUTE, [100.0] * 50)
    durations.add([first])
    took = durations.took(first.metrics)
    assert (took.since, took.wait.count) == (None, 50)


def test_durations_are_of_a_quarter_of_an_hour():
    """What is older than the window leaves, and few looks are kept however many there were."""
    durations = Durations()
    for number in range(240):
        last = seen(number * MINUTE / 4, [0.1] * number)
        durations.add([last])
    took = durations.took(last.metrics)
    assert timedelta(minutes=15) <= last.metrics.at - took.since <= timedelta(minutes=17)
    assert len(durations._looks["mail"]) < 20


def test_durations_of_another_queue_of_that_name():
    """A queue that was removed and made again does not go on where the other one stopped."""
    durations = Durations()
    durations.add([seen(0 * MINUTE, [100.0] * 50)])
    again = seen(5 * MINUTE, [0.1] * 3)
    durations.add([again])
    took = durations.took(again.metrics)
    assert (took.since, took.wait.count) == (None, 3)


def test_nothing_takes_longer_than_there_was_time():
    """Where a bucket goes back to before a queue's first record, no more is shown than the time since."""
    minutes = [{"enqueued": 20}] * 2
    queue = queue_now(queue_view("young", 1), minutes=minutes, wait=[121] * 18 + [299] * 2)
    took, since_then = Durations().took(queue.metrics), 137
    assert queue.metrics.wait.p95 > since_then
    assert took.p95(took.wait) == since_then
    overview = Overview()
    overview.look(snapshot(queue), NOW)
    assert overview.row(queue, NOW, ascii_only=True).p95 == "2.3m"
    assert "p95 wait 2.3m" in overview.lines()[0]
