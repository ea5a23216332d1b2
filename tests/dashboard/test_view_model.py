"""What of queues is shown, and in which words."""

from datetime import timedelta

import pytest
from duraq_dashboard import wording
from duraq_dashboard.entry_pages import STATES
from duraq_dashboard.history import Durations
from duraq_dashboard.overview import Overview
from duraq_dashboard.rows import laid_out
from duraq_dashboard.screens.queues import QUEUE_COLUMNS
from duraq_dashboard.view_model import QueueFilter, advice, in_order, outlook, queue_row, why
from duraq_dashboard.wording import Times
from hypothesis import given
from hypothesis import strategies as st
from on_screen import NOW, queue_metrics, queue_now, queue_view, snapshot
from rich.cells import cell_len

from duraq.errors import InvalidFilter, StorageDamaged
from duraq.model import Pause
from duraq.sparkline import ASCII, BLOCKS, sparkline

MINUTES = [{"enqueued": 60, "completed": 30}] * 20


def test_a_steady_rate_is_a_full_bar():
    """Bars begin at zero: what is steady is as high as its peak, and only nothing at all is the lowest."""
    assert sparkline([500, 500, 500]) == "███"
    assert sparkline([0, 1, 1000]) == "▁▂█"
    assert sparkline([5, 10], peak=20) == "▃▅"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 4, 8], ascii_only=True) == "_=#"


@given(st.lists(st.floats(0, 1e9)), st.booleans())
def test_bars_are_one_cell_each(values, ascii_only):
    """Whatever the values, there is a bar for each, one cell wide."""
    line = sparkline(values, ascii_only=ascii_only)
    assert cell_len(line) == len(values)
    assert set(line) <= set(ASCII if ascii_only else BLOCKS)


@given(st.integers(0, 10**14))
def test_counts_have_room(number):
    """A count never takes more than seven cells."""
    assert len(wording.count(number)) <= 7


@given(st.floats(0, 1e8))
def test_short_words_have_room(length):
    """Lengths of time and rates fit their columns."""
    assert len(wording.seconds(length)) <= 7
    assert len(wording.age(timedelta(seconds=min(length, 1e7)))) <= 7
    assert len(wording.rate(length)) <= 7


@pytest.mark.parametrize(
    ("length", "text"), [(0.004, "4ms"), (0.4, "0.4s"), (12.4, "12.4s"), (2388, "39.8m"), (8280, "2.3h")]
)
def test_lengths(length, text):
    """About how long, in the unit that says most."""
    assert wording.seconds(length) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (11, "11s"), (2478, "41m"), (7800, "2h10m"), (273600, "3d04h")]
)
def test_ages(seconds, text):
    """From a minute on an age changes once a minute; one from the future is none."""
    assert wording.age(timedelta(seconds=seconds)) == text


def test_moments():
    """A moment of another day has its date; relative ones say before or after."""
    assert wording.moment(NOW, NOW, Times.UTC) == "10:42:17"
    assert wording.moment(NOW - timedelta(days=1), NOW, Times.UTC) == "2026-11-28 10:42:17"
    assert wording.moment(NOW - timedelta(minutes=3), NOW, Times.RELATIVE) == "3m"
    assert wording.moment(NOW + timedelta(minutes=3), NOW, Times.RELATIVE) == "in 3m"


def test_orders():
    """Each order is total: equals are by name, and the worst is first."""
    stuck = queue_now(queue_view("z", 5, oldest=timedelta(hours=1), waiting=1))
    paused = queue_now(queue_view("y", 9, pause=Pause(NOW, "ann", "")))
    calm = [queue_now(queue_view(name, dead=number)) for number, name in enumerate("ba")]
    every = [*calm, paused, stuck]
    assert [queue.name for queue in in_order(every)] == ["z", "y", "a", "b"]
    assert [queue.name for queue in in_order(every, "name")] == ["a", "b", "y", "z"]
    assert [queue.name for queue in in_order(every, "ready")] == ["y", "z", "a", "b"]
    assert [queue.name for queue in in_order(every, "dead")] == ["a", "b", "y", "z"]
    assert [queue.name for queue in in_order(every, "oldest")] == ["z", "a", "b", "y"]


def test_a_row():
    """A row has the counts, the rates of the last minute, bars of a quarter of an hour, and the durations."""
    view = queue_view("mail", 1902, scheduled=12, leased=3, dead=4, oldest=timedelta(minutes=6))
    row = queue_row(queue_now(view, minutes=MINUTES, wait=[0.3] * 99, run=[2.0], workers=2), Durations(), NOW)
    assert (row.ready, row.scheduled, row.leased, row.dead, row.oldest) == ("1,902", "12", "3", "4", "6m")
    assert (row.entered, row.left) == ("0.7", "0.4")  # of the minute up to now: 43 of 60 seconds were counted
    assert (row.bars, row.workers, row.failed) == ("█" * 14 + "▁", "2", "0.0")
    assert row.p50 == "0.3s"


def test_a_row_of_a_queue_that_cannot_be_read():
    """Where nothing can be read there are no numbers, but why; what strangers wrote is made safe."""
    problem = StorageDamaged("no good \x1b[2J", path="audit/segments/1", byte=7)
    row = queue_row(queue_now(queue_view("audit", problem=problem)), Durations(), NOW)
    assert (row.status, row.ready, row.p95) == ("CORRUPT", "-", "-")
    assert row.note == "audit/segments/1: byte 7: no good \\x1b[2J"


def test_why_and_what_to_do():
    """The evidence is that of the rules; each word has commands to go on with, ready for a shell."""
    queue = queue_now(queue_view("mail", 3, oldest=timedelta(minutes=6)))
    assert why(queue) == ["NO CONSUMER: 3 ready, the oldest for 6m; no lease, nobody waits"]
    assert advice(queue, "/srv/my queues")[0] == "duraq -C '/srv/my queues' run mail -- PROGRAM"


@pytest.mark.parametrize(
    ("entered", "left", "says"),
    [
        (60, 30, "trend +0.5/s over 15m; drained in 16m if nothing more came"),
        (30, 60, "trend -0.5/s over 15m; empty in 16m; drained in 8m if nothing more came"),
        (60, 0, "trend +1.0/s over 15m; nothing goes out"),
    ],
)
def test_outlook(entered, left, says):
    """It says where the queue goes if it goes on like this."""
    minutes = [{"enqueued": entered, "completed": left}] * 30
    metrics = queue_metrics(queue_view("mail", 500), minutes=minutes)
    # The window ends in the middle of a minute in which nothing was counted.
    assert outlook(metrics, NOW.replace(second=0)) == says


@pytest.mark.parametrize("text", ["age>1h", '"text"', "queue:", "state:nosuch", "payload.a=1 queue:mail"])
def test_filters_that_are_refused(text):
    """What is no filter, or asks for what only entries have, is an InvalidFilter."""
    with pytest.raises(InvalidFilter):
        QueueFilter(text, NOW)


def test_what_the_whole_storage_is():
    """The sums are over all queues, and follow those that change, come and go."""
    overview = Overview()
    mail = queue_now(queue_view("mail", 10, dead=2), minutes=[{"enqueued": 60, "dead": 2}])
    other = queue_now(queue_view("other", 5, leased=1))
    overview.look(snapshot(mail, other), NOW)
    assert overview.lines()[0].startswith(
        "ready 15  leased 1  scheduled 0  DLQ 2 (+2/1h)  in 0.7/s out 0.0/s"
    )
    overview.look(snapshot(other, number=2), NOW)
    assert overview.lines()[0].startswith("ready 5  leased 1  scheduled 0  DLQ 0  in 0.0/s")
    lengths = [len(line) for line in overview.lines()]
    assert lengths == sorted(lengths, reverse=True)


def test_one_word_for_each_state():
    """The tabs of a queue, the columns of the list and the totals call a state what entries call it."""
    assert all(name.lower() == state.value for name, state in STATES.items())
    names = {column.name.lower() for column in QUEUE_COLUMNS}
    assert {"ready", "leased"} <= names
    assert any("scheduled".startswith(name) for name in names)
    overview = Overview()
    overview.look(snapshot(queue_now(queue_view("mail", 4, scheduled=3, leased=2, dead=1))), NOW)
    assert overview.lines()[0].startswith("ready 4  leased 2  scheduled 3  DLQ 1")


@pytest.mark.parametrize("width", range(57, 160))
def test_the_name_has_room(width):
    """In a list of whatever width there is room for ten characters of a queue's name."""
    room = {QUEUE_COLUMNS[index].name: room for index, room in laid_out(QUEUE_COLUMNS, width)}
    assert room["QUEUE"] >= 10
    assert sum(room.values()) + len(room) - 1 == width


def test_a_pause_is_not_hidden():
    """In the list of queues a pause stands behind a worse word, and there is room for both."""
    died = [{"dead": 9}]
    queue = queue_now(queue_view("mail", dead=9, pause=Pause(NOW, "ann", "psp down")), minutes=died)
    row = queue_row(queue, Durations(), NOW)
    assert (row.status, len(row.status) <= QUEUE_COLUMNS[0].width) == ("DLQ+ PAUSED", True)
    assert len("ERRORS PAUSED") <= QUEUE_COLUMNS[0].width
    assert why(queue)[1].endswith("psp down")


def test_what_will_be_the_matter():
    """What is no word's yet is said in the panel as it is in `duraq stats`."""
    assert why(queue_now(queue_view("mail", 3, oldest=timedelta(seconds=1)))) == [
        "3 ready, nobody works it yet"
    ]
