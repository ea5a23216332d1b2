"""The Errors screen: what breaks, gathered while it is looked at."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from duraq_dashboard.screens import errors
from duraq_dashboard.widgets.filter_bar import FilterBar
from duraq_dashboard.widgets.row_list import RowList
from on_screen import NOW, SIZES, queue_now, queue_view, snapshot, text_of

from duraq import FileStorage, FixedDelay, Queue
from duraq.failures import By, dead_by, dead_of
from duraq.inspector import Inspector
from duraq.testing import FakeClock

pytestmark = pytest.mark.anyio
HOSTILE = "[/red] [b + \x1b]52;c;aGk=\x07 \u202e"


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A storage in which three things went wrong in the hour before NOW."""
    clock = FakeClock(now=NOW - timedelta(minutes=40))
    path = tmp_path_factory.mktemp("failed") / "storage"
    with FileStorage(path, durability="process", clock=clock) as storage:
        for name in ("mail", "billing"):
            queue = Queue(name, storage, retry_policy=FixedDelay(max_attempts=2, delay=timedelta(0)))
            queue.enqueue_many(range(6))
            for error in (ValueError("row 7"), ValueError("row 8"), KeyError(HOSTILE), OSError(28, "full")):
                clock.advance(timedelta(minutes=2))
                queue.mark_failed(queue.dequeue(), error)
            queue.mark_failed(queue.dequeue(), ValueError("row 9"))
            queue.mark_completed(queue.dequeue())
    return path


@pytest.fixture
def source(source, failed):
    """The source, with that storage to ask about."""
    clock = FakeClock(now=NOW)
    with Inspector(failed, clock=clock) as inspector:
        source.inspector = inspector
        source.show(queues())
        yield source


def queues(number=1, **more):
    """What is shown of that storage."""
    return snapshot(
        queue_now(queue_view("mail", 3)), queue_now(queue_view("billing", 3)), number=number, **more
    )


def listed(app):
    rows = app.screen.query_one(RowList).rows
    return [[cell if isinstance(cell, str) else cell[0] for cell in rows.cells(n)] for n in range(len(rows))]


async def test_what_is_shown(dashboard, source):
    """Failures are listed by what they have in common, the most frequent first, with what became of them."""
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("3")
        rows = listed(pilot.app)
        assert [(row[0], row[5], row[-1].removeprefix("NEW ")) for row in rows] == [
            ("6", "billing,mail", "ValueError: row <n>"),
            ("2", "billing,mail", "KeyError: <text>"),
            ("2", "billing,mail", "OSError: [Errno 28] full"),
        ]
        lines = text_of(pilot.app)
        assert any("last 1h   10 failed attempts, 3 groups" in line for line in lines)
        assert any("row 9" in line for line in lines)
        await pilot.press("j", "m")
        assert any(
            "KeyError: '[/red] [b + \\x1b]52;c;aGk=\\x07 \\u202e'" in line for line in text_of(pilot.app)
        )


async def test_other_groups_and_windows(dashboard, source):
    """They are put together by type and by queue, of other times, and in another order, and that is kept."""
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("3", "b")
        assert [row[-1].split(":")[0].removeprefix("NEW ") for row in listed(pilot.app)] == [
            "ValueError",
            "KeyError",
            "OSError",
        ]
        await pilot.press("b")
        assert [row[5] for row in listed(pilot.app)] == ["billing", "mail"]
        await pilot.press("s", "w", "w", "w")
        assert listed(pilot.app) == []
        assert any("Nothing has failed in the last 5m" in line for line in text_of(pilot.app))
        assert pilot.app.screen.remember() == {"window": "5m", "by": "queue", "sort": "newest"}
        pilot.app.screen.recall({"window": "7d", "by": "nosuch", "sort": 7})
        assert pilot.app.screen.remember() == {"window": "7d", "by": "queue", "sort": "newest"}


async def test_filter(dashboard, source):
    """Words choose which groups are shown; Esc shows all again."""
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("3", "slash", *"mail full", "enter")
        assert [row[-1].removeprefix("NEW ") for row in listed(pilot.app)] == ["OSError: [Errno 28] full"]
        await pilot.press("escape")
        assert len(listed(pilot.app)) == 3


async def test_only_what_has_changed_is_gathered(dashboard, source, monkeypatch):
    """It is gathered when it is first looked at and when a queue has changed, and not while nobody looks."""
    monkeypatch.setattr(errors, "OFTEN", 0.0)
    async with dashboard().run_test(size=(120, 36)) as pilot:
        assert source.asked == 0
        await pilot.press("3")
        assert source.asked == 1
        same = queues()
        source.show(same)
        await pilot.pause(0.2)
        assert source.asked == 2  # these are other objects
        source.show(same)
        await pilot.pause(0.2)
        assert source.asked == 2
        await pilot.press("1")
        source.show(queues(number=3))
        await pilot.pause(0.2)
        assert source.asked == 2


async def test_the_window_moves_on(dashboard, source, clock, monkeypatch):
    """When a part of the window is over it is gathered anew: what failed longer ago is no longer in it."""
    monkeypatch.setattr(errors, "OFTEN", 0.0)
    source.show(shown := queues())
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("3")
        assert len(listed(pilot.app)) == 3
        clock.advance(timedelta(hours=1))
        source.inspector.clock.advance(timedelta(hours=1))
        pilot.app._tick()
        await pilot.pause(0.2)
        assert listed(pilot.app) == []
        assert pilot.app.snapshot is shown


async def test_shown_while_it_is_read(dashboard, source, monkeypatch):
    """What takes long is shown as far as it is known, with how far that is, and can be stopped."""
    monkeypatch.setattr(errors, "OFTEN", 0.0)
    answer = source.ask
    asked = []
    source.ask = lambda question, then: (asked.append((question, then)), threading.Event())[1]
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("3")
        assert any("reading ..." in line for line in text_of(pilot.app))
        (question, _) = asked[0]
        answer(question, lambda _: None)  # it tells how far it is, and never comes to its end
        await pilot.pause(0.1)
        lines = text_of(pilot.app)
        assert any("reading, 1 of 2 queues   Esc stops" in line for line in lines)
        assert any("ValueError: row <n>" in line for line in lines)
        await pilot.press("escape")
        assert any("stopped   w begins again" in line for line in text_of(pilot.app))
        assert any("ValueError: row <n>" in line for line in text_of(pilot.app))
        source.ask = answer
        await pilot.press("w")
        await pilot.pause(0.1)
        assert any("last 24h   10 failed attempts" in line for line in text_of(pilot.app))


async def test_still_means_still(dashboard, source, clock):
    """While neither the storage nor the minute changes nothing is gathered and nothing is drawn."""
    source.show(queues(changed_at=NOW - timedelta(minutes=1)))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("3")
        await pilot.pause(0.2)
        asked, drawn = source.asked, []
        for widget in pilot.app.screen.query("*"):
            widget.refresh = lambda *regions, widget=widget, **_: drawn.append(widget)
        for _ in range(20):
            clock.advance(timedelta(seconds=1))
            pilot.app._tick()
        assert (source.asked, drawn) == (asked, [])


async def test_frozen(dashboard, source, clock, monkeypatch):
    """While the screens are frozen nothing is gathered anew, however much time passes."""
    monkeypatch.setattr(errors, "OFTEN", 0.0)
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("3", "p")
        clock.advance(timedelta(hours=1))
        pilot.app._tick()
        await pilot.pause(0.1)
        assert source.asked == 1
        await pilot.press("p")
        clock.advance(timedelta(minutes=1))
        pilot.app._tick()
        await pilot.pause(0.1)
        assert source.asked == 2


async def test_what_cannot_be_gathered(dashboard, source):
    """What keeps the failures from being gathered is said where they would be."""
    source.inspector.close()
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("3")
        assert any("closed" in line for line in text_of(pilot.app))


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_sizes(dashboard, source, size):
    """At every size the numbers and the errors are there, and no line is longer than the screen."""
    async with dashboard().run_test(size=size) as pilot:
        await pilot.press("3")
        lines = text_of(pilot.app)
        assert any("ATTEMPTS" in line and "DEAD" in line and "ERROR" in line for line in lines)
        assert any("ValueError: row" in line for line in lines)
        assert all(len(line) <= size[0] for line in lines)


async def test_what_can_be_copied(dashboard, source):
    """The signature, the message as it is, the command and an id can be copied; a pager has the rest."""
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("3")
        offered = {each.key: each.text for each in pilot.app.screen.copies()}
        assert offered["m"] in {"ValueError: row 7", "ValueError: row 8", "ValueError: row 9"}
        assert offered["c"].startswith("duraq -C /srv/queues errors ")
        assert "row 9" in pilot.app.screen.pager_text()


async def test_its_dead_letters(dashboard, source):
    """Enter lists the dead letters of a group, and those of another one when that is chosen next."""
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("3", "G", "enter")
        await pilot.pause(0.3)
        filters = [pilot.app.screen.query_one(FilterBar).text]
        await pilot.press("3", "g", "enter")
        await pilot.pause(0.3)
        filters.append(pilot.app.screen.query_one(FilterBar).text)
        assert pilot.app.current_mode == "dlq"
        assert all(text.startswith('sig="') for text in filters)
        assert filters[0] != filters[1]


async def test_what_was_not_fatal(dashboard, source, monkeypatch):
    """Enter on a group of which nothing is dead opens the entry that failed last."""
    opened = []
    async with dashboard().run_test(size=(120, 36)) as pilot:
        monkeypatch.setattr(pilot.app, "open_entry", lambda *entry: opened.append(entry))
        await pilot.press("3")
        screen = pilot.app.screen
        groups = tuple(replace(group, dead=0) for group in screen._failures.groups)
        screen._failures = replace(screen._failures, groups=groups)
        await pilot.press("enter")
        assert opened == [(groups[0].samples[0].id, groups[0].samples[0].queue)]


async def test_retrying_its_dead(dashboard, source):
    """R asks about all dead letters of the group under the cursor, with their exact number."""
    dead = {group.key: group.count for group in dead_by(source.inspector)}
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("3")
        await pilot.press("G")
        key = pilot.app.screen.query_one(RowList).cursor_key
        await pilot.press("R")
        await pilot.pause(0.3)
        assert any(f"Retry {dead[key]} dead letter" in line for line in text_of(pilot.app))
        assert any(f"sig={key}" in line or f'sig="{key}"' in line for line in text_of(pilot.app))


@pytest.mark.parametrize("by", list(By))
def test_which_are_dead(source, by):
    """The dead letters of a group are those that it counts, whatever it is a group by."""
    for group in dead_by(source.inspector, by=by):
        found = list(dead_of(source.inspector, group.key, by))
        assert len(found) == group.dead == group.count
        assert {sample.id for sample in group.samples} <= {view.id for view in found}
