"""One queue in full: its entries by state, read page by page, and what stays where while they change."""

import threading
from datetime import timedelta

import pytest
from buried import until
from duraq_dashboard.entry_pages import PAGE
from duraq_dashboard.entry_search import EntrySearch, search
from duraq_dashboard.screens.queue_detail import QueueScreen
from duraq_dashboard.seldom import SOONEST, Seldom
from duraq_dashboard.widgets.row_list import RowList
from on_screen import FakeSource, queue_now, snapshot, text_of

from duraq import EntryStatus, FileStorage, NoRetry, Queue
from duraq.inspector import Inspector
from duraq.where import Where

pytestmark = pytest.mark.anyio


class Lived:
    """A queue on the disk, and a source that looks at it when told."""

    def __init__(self, path, clock):
        self.storage = FileStorage(path, clock=clock, durability="process")
        self.queue = Queue("mail", self.storage, retry_policy=NoRetry())
        self.number = 0
        self.path, self.clock = path, clock

    def source(self):
        self.inspector = Inspector(self.path, clock=self.clock)
        return FakeSource(str(self.path), self.inspector)

    def look(self, source):
        self.inspector.refresh()
        self.number += 1
        source.show(snapshot(queue_now(self.inspector.overview("mail")), number=self.number))

    def close(self):
        self.inspector.close()
        self.storage.close()


@pytest.fixture
def lived(tmp_path, clock):
    """The queue ``mail``."""
    lived = Lived(tmp_path / "storage", clock)
    yield lived
    lived.close()


@pytest.fixture
def source(lived):
    """Of that storage."""
    return lived.source()


async def opened(pilot, lived, source):
    lived.look(source)
    await pilot.pause()
    await pilot.press("enter")
    await pilot.pause()
    assert type(pilot.app.screen) is QueueScreen
    return pilot.app.screen.query_one(RowList)


async def test_entries_by_state(lived, source, dashboard):
    """Each state lists its entries, the dead ones with their error; hostile text is shown and not obeyed."""
    lived.queue.enqueue({"to": "[/red] \x1b[2J"})
    lived.queue.enqueue("fails", priority=9)
    lived.queue.mark_failed(lived.queue.dequeue(), ValueError("[b +\x1b]52;c;aGk=\x07"))
    lived.queue.enqueue("held", priority=5)
    lived.queue.dequeue()
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await opened(pilot, lived, source)
        assert "[Ready 1] Scheduled 0  Leased 1  Dead 1" in "\n".join(text_of(pilot.app))
        assert any('{"to":"[/red] \\u001b[2J"}' in line for line in text_of(pilot.app))
        await pilot.press("l")
        assert "Nothing is scheduled here." in "\n".join(text_of(pilot.app))
        await pilot.press("right")
        await pilot.pause()
        assert any('"held"' in line for line in text_of(pilot.app))
        await pilot.press("l")
        await pilot.pause()
        assert any("ValueError: [b +\\x1b]52;c;aGk=\\x07" in line for line in text_of(pilot.app))
        await pilot.press("h", "h")
        assert "[Scheduled 0]" in "\n".join(text_of(pilot.app))


async def test_pages(lived, source, dashboard):
    """Of many entries only the pages that are on the screen are read, wherever one goes."""
    lived.queue.enqueue_many(range(PAGE * 30))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        entries = await opened(pilot, lived, source)
        assert len(entries.rows) == PAGE * 30
        assert f"  {PAGE * 10}" not in text_of(pilot.app)
        await pilot.press("G")
        await pilot.pause(0.1)
        assert text_of(pilot.app)[entries.region.bottom - 1].endswith(f" {PAGE * 30 - 1}")
        assert sum(len(page.lines) for page in pilot.app.screen._pages) <= 4 * PAGE


async def test_the_cursor_stays_on_its_entry(lived, source, dashboard):
    """Whoever looks at an entry goes on looking at it when those in front of it are gone."""
    lived.queue.enqueue_many(range(50))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        entries = await opened(pilot, lived, source)
        await pilot.press(*["down"] * 9)
        key = entries.cursor_key
        assert isinstance(key, str)
        for _ in range(5):
            lived.queue.mark_completed(lived.queue.dequeue())
        lived.look(source)
        await pilot.pause(0.2)
        assert len(entries.rows) == 45
        assert (entries.cursor_key, entries.cursor_number) == (key, 4)


async def test_a_queue_that_vanishes(lived, source, dashboard):
    """A queue that is not there any more is said to be gone; it is listed again when it is back."""
    lived.queue.enqueue("x")
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await opened(pilot, lived, source)
        source.show(snapshot(number=50))
        await pilot.pause(0.2)
        assert "there is no queue mail" in "\n".join(text_of(pilot.app))
        lived.look(source)
        await pilot.pause(0.2)
        assert "[Ready 1]" in "\n".join(text_of(pilot.app))


async def test_a_question_that_fails(lived, source, dashboard):
    """What keeps the entries from being read stands where they would be."""
    lived.queue.enqueue("x")
    async with dashboard().run_test(size=(120, 36)) as pilot:
        lived.look(source)
        await pilot.pause()
        source.inspector = None
        await pilot.press("enter")
        await pilot.pause(0.2)
        assert "'NoneType' object has no attribute 'counts'" in "\n".join(text_of(pilot.app))
        await pilot.press("w")
        assert "Rates 24h" in "\n".join(text_of(pilot.app))


async def test_where_something_is(dashboard, lived, source):
    """Whoever opens a queue sees entries of it if there are any, in whichever state."""
    lived.queue.enqueue("later", delay=timedelta(hours=1))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        rows = await opened(pilot, lived, source)
        await pilot.pause()
        assert len(rows.rows) == 1
        assert any("[Scheduled 1]" in line for line in text_of(pilot.app))


def shown_ids(rows):
    return [rows.rows.key(number) for number in range(len(rows.rows))]


async def test_filter(lived, source, dashboard):
    """A filter lists the entries of the state that match and counts them; Esc clears it, then goes back."""
    ids = lived.queue.enqueue_many([{"n": number} for number in range(PAGE + 30)])
    async with dashboard().run_test(size=(120, 36)) as pilot:
        rows = await opened(pilot, lived, source)
        await pilot.press("slash", *"payload.n>=127", "enter")
        await until(pilot, lambda: shown_ids(rows) == ids[127:])
        assert any("[Ready 130]" in line and line.endswith("  3 match") for line in text_of(pilot.app))
        await pilot.press("l")
        await until(pilot, lambda: "Nothing that is scheduled matches." in "\n".join(text_of(pilot.app)))
        await pilot.press("h", "y", "l")
        assert pilot.app.clipboard.endswith(" ls mail --state ready --where 'payload.n>=127'")
        await pilot.press("slash", *"nosuch:1")
        assert any("there is no field nosuch" in line for line in text_of(pilot.app))
        await pilot.press("escape")
        await until(pilot, lambda: len(rows.rows) == PAGE + 30)
        assert type(pilot.app.screen) is QueueScreen
        await pilot.press("escape")
        assert type(pilot.app.screen) is not QueueScreen


async def test_what_is_meant_while_there_is_a_filter(lived, source, dashboard):
    """An action on dead letters is about those that match the filter, and none while it says nothing."""
    for number in range(4):
        lived.queue.enqueue({"n": number})
        lived.queue.mark_failed(lived.queue.dequeue(), ValueError("no"))
    said, begun = [], []
    async with dashboard().run_test(size=(120, 36)) as pilot:
        app, rows = pilot.app, await opened(pilot, lived, source)
        app.say = lambda text, **_: said.append(text)
        app.begin = lambda _, selection: begun.append(selection)
        await pilot.press("slash", *"payload.n>1", "enter")
        await until(pilot, lambda: len(rows.rows) == 2)
        await pilot.press("R")
        (selection,) = begun
        assert selection.where == "queue:mail payload.n>1"
        assert selection.freeze(lived.inspector, threading.Event()).count == 2
        await pilot.press("slash", *"nosuch:", "enter", "R")
        assert len(begun) == 1
        assert said == ["retry: first mend the filter, or clear it with Esc"]


class Asked:
    """Questions that are answered when a test says so."""

    def __init__(self, inspector):
        self.inspector, self.stop, self.open = inspector, threading.Event(), None

    def ask(self, name, question, then, failed):
        self.open = lambda: then(question(self.inspector, self.stop))

    def is_open(self, name):
        return self.open is not None

    def drop(self, name):
        self.open = None

    def answer(self):
        asked, self.open = self.open, None
        asked()


def test_a_queue_that_changes_is_searched_again(lived, source):
    """What is found follows the queue, not at once each time, and no more once it was stopped."""
    first = lived.queue.enqueue({"n": 1})
    put_off = []
    asked = Asked(lived.inspector)
    found = EntrySearch(
        "mail",
        asked,
        lambda: None,
        later=lambda call, *arguments: call(*arguments),
        after=lambda seconds, call: put_off.append((seconds, call)),
    )
    lived.inspector.refresh()
    found.begin(Where.parse("payload.n=1"), EntryStatus.READY)
    asked.answer()
    assert [line.id for line in found.matches.lines] == [first]
    assert found.told(1) == "1 match"
    second = lived.queue.enqueue({"n": 1})
    lived.inspector.refresh()
    found.changed()
    found.changed()
    ((seconds, again),) = put_off
    assert 0 < seconds <= SOONEST
    assert not asked.is_open("search")
    found._seldom = Seldom()
    again()
    assert [line.id for line in found.matches.lines] == [first]
    asked.answer()
    assert [line.id for line in found.matches.lines] == [first, second]
    found.begin(Where.parse("payload.n>0"), EntryStatus.READY)
    assert found.stop()
    assert found.told(2) == "0 match, looked at 0 of 2 (stopped)"
    found.changed()
    assert not asked.is_open("search")


def test_a_search_that_is_stopped(lived):
    """A search ends at the next entry, and what it has found is no more than a part."""
    lived.queue.enqueue_many([{"n": 1}] * 3)
    lived.inspector = Inspector(lived.path, clock=lived.clock)
    stop = threading.Event()
    stop.set()
    where = Where.parse("payload.n=1")
    found = search(lived.inspector, "mail", EntryStatus.READY, where, stop=stop, tell=print)
    assert (found.count, found.is_over) == (0, False)
    whole = search(lived.inspector, "mail", EntryStatus.READY, where, stop=threading.Event(), tell=print)
    assert (whole.count, whole.looked_at, whole.is_over) == (3, 3, True)
