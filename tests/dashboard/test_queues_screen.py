"""The list of queues: what needs somebody first, and nothing that moves by itself."""

from dataclasses import replace
from datetime import timedelta

import pytest
from buried import until
from duraq_dashboard.view_model import failing
from duraq_dashboard.widgets.filter_bar import FilterBar
from duraq_dashboard.widgets.row_list import RowList
from on_screen import MINUTE, NOW, SIZES, queue_now, queue_view, snapshot, text_of

from duraq import StorageReadOnly

pytestmark = pytest.mark.anyio
WAITING = queue_now(queue_view("mail", 1902, oldest=timedelta(minutes=6)))
QUIET = queue_now(queue_view("default", 3, oldest=timedelta(seconds=5), waiting=1))


async def test_trouble_comes_first(dashboard, source):
    """The queue that needs somebody is listed first, with the word and the evidence, whatever its name."""
    source.show(snapshot(QUIET, WAITING))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        lines = text_of(pilot.app)
        listed = [line for line in lines if line.startswith(("> ", "  OK", "  NO"))]
        assert [line.split()[1:4] for line in listed] == [["NO", "CONSUMER", "mail"], ["default", "3", "0"]]
        assert any("1902 ready, the oldest for 6m" in line for line in lines)


async def test_the_cursor_stays_on_its_queue(dashboard, source):
    """A queue that is looked at stays under the cursor when others move past it."""
    source.show(snapshot(QUIET, WAITING))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("down")
        assert pilot.app.screen.query_one(RowList).cursor_key == "default"
        worse = queue_now(queue_view("default", 9, oldest=timedelta(hours=2)))
        calm = queue_now(queue_view("mail"))
        source.show(snapshot(worse, calm, queue_now(queue_view("a")), number=2))
        await pilot.pause(0.2)
        assert pilot.app.screen.query_one(RowList).cursor_key == "default"


async def test_filter(dashboard, source):
    """A part of the name, or queue and state as everywhere else, choose which queues are listed."""
    source.show(snapshot(QUIET, WAITING))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        queues = pilot.app.screen.query_one(RowList)
        for text, shown in (
            ("ma", ["mail"]),
            ("queue:default,other", ["default"]),
            ("state:dead", []),
            ("state:ready", ["mail", "default"]),
        ):
            await pilot.press("slash", *text, "enter")
            assert [queues.rows.key(number) for number in range(len(queues.rows))] == shown
            await pilot.press("escape")
            assert len(queues.rows) == 2


async def test_a_filter_of_entries_is_refused(dashboard, source):
    """A field that only entries have is an error that is said beside the filter, and nothing changes."""
    source.show(snapshot(QUIET, WAITING))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("slash", *"age>1h")
        assert any("queues are filtered by queue: and state:" in line for line in text_of(pilot.app))


async def test_nothing_is_drawn_when_nothing_happens(dashboard, source, clock):
    """While neither the storage nor the minute changes, nothing is drawn at all; else only what differs."""
    source.show(snapshot(WAITING, QUIET, changed_at=NOW - timedelta(minutes=1)))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("up")
        app = pilot.app
        await pilot.pause(0.2)
        drawn = []
        app._display = lambda screen, update: drawn.append(update)
        app._tick()
        clock.advance(timedelta(seconds=1))
        source.show(snapshot(WAITING, QUIET, number=2, changed_at=NOW - timedelta(minutes=1)))
        await pilot.pause(0.3)
        # The age of the younger one has gone from 5s to 6s.
        assert [type(update).__name__ for update in drawn] == ["ChopsUpdate"]
        drawn.clear()
        old = queue_now(queue_view("default", 3, oldest=timedelta(minutes=5), waiting=1))
        source.show(snapshot(WAITING, old, number=3, changed_at=NOW - timedelta(minutes=1)))
        await pilot.pause(0.3)
        drawn.clear()
        for number in range(4, 8):
            source.show(snapshot(WAITING, old, number=number, changed_at=NOW - timedelta(minutes=1)))
            clock.advance(timedelta(seconds=1))
            app._tick()
            await pilot.pause(0.15)
        assert drawn == []
        clock.advance(timedelta(minutes=1))
        app._tick()
        await pilot.pause(0.1)
        assert [type(update).__name__ for update in drawn] == ["ChopsUpdate"]


async def test_totals_are_whole(dashboard, source):
    """However wide it is, the totals have as many numbers as there is room for, each of them whole."""
    source.show(snapshot(WAITING, QUIET))
    async with dashboard().run_test(size=(130, 36)) as pilot:
        await pilot.pause()
        lines = pilot.app.overview.lines()
        for width in sorted({len(line) + more for line in lines for more in range(4)} & set(range(60, 131))):
            await pilot.resize_terminal(width, 36)
            await pilot.pause()
            shown = next(line.strip() for line in text_of(pilot.app) if line.startswith(" ready"))
            assert shown in lines


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_a_queue_that_cannot_be_read(dashboard, source, size):
    """In place of numbers that nobody knows it says why, and that the totals are without that queue."""
    denied = queue_now(queue_view("finance", problem=StorageReadOnly("permission denied", path="finance")))
    source.show(snapshot(denied, queue_now(queue_view("mail", 2, oldest=MINUTE, waiting=1))))
    async with dashboard().run_test(size=size) as pilot:
        await pilot.pause()
        lines = text_of(pilot.app)
        row = next(line for line in lines if "finance" in line and "DENIED" in line and ">" in line[:2])
        assert "permission denied" in row
        assert any("without 1 queue" in line for line in lines[:4])


async def test_a_queue_that_vanishes_under_the_cursor(dashboard, source):
    """As soon as the queue under the cursor has vanished it is offered to forget it."""
    mail = queue_now(queue_view("mail", 2, oldest=MINUTE, waiting=1))
    source.show(snapshot(mail))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.pause()
        assert "a forget it" not in text_of(pilot.app)[-1]
        source.show(snapshot(replace(mail, gone=True), number=2))
        await until(pilot, lambda: "a forget it" in text_of(pilot.app)[-1])


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_a_complaint_is_whole(dashboard, source, size):
    """What is wrong with a filter, and what to do about it, is seen to its end at every size."""
    source.show(snapshot(QUIET, WAITING))
    async with dashboard().run_test(size=size) as pilot:
        await pilot.press("slash", *"nosuch:1")
        await pilot.pause()
        bar = pilot.app.screen.query_one(FilterBar)
        assert bar._complaint
        region = bar.query_one(".says").region
        seen = " ".join(line[region.x : region.right].strip() for line in text_of(pilot.app))
        assert "".join(bar._complaint.split()) in "".join(seen.split())


def test_the_share_that_failed():
    """The share of attempts that failed is that of the minutes that the rule about it looks at."""
    minutes = [{"completed": 10, "failed": 90}] * 8 + [{"completed": 10}] * 6
    assert failing(queue_now(queue_view("mail"), minutes=minutes).metrics, NOW) == "0.0"
