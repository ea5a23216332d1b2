"""One queue in full: its entries by state, read page by page, and what stays where while they change."""

from datetime import timedelta

import pytest
from duraq_dashboard.entry_pages import PAGE
from duraq_dashboard.screens.queue_detail import QueueScreen
from duraq_dashboard.widgets.row_list import RowList
from on_screen import FakeSource, queue_now, snapshot, text_of

from duraq import FileStorage, NoRetry, Queue
from duraq.inspector import Inspector

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
