"""What happens, record by record: what a line says, which are shown, and that they are followed."""

import threading
from datetime import timedelta

import pytest
from buried import until
from duraq_dashboard.happenings import LAST, Following, event_of
from duraq_dashboard.screens.events import EventsScreen
from duraq_dashboard.widgets.row_list import RowList
from duraq_dashboard.wording import Times
from on_screen import NOW, FakeSource, snapshot, text_of

from duraq import FileStorage, FixedDelay, Queue
from duraq.events import wanted
from duraq.inspector import Inspector
from duraq.where import Where

pytestmark = pytest.mark.anyio
SOON = 60  # seconds; only so that a failing test ends


@pytest.fixture
def storage(tmp_path, clock):
    """An empty one."""
    with FileStorage(tmp_path / "storage", clock=clock, durability="process") as storage:
        yield storage


@pytest.fixture
def records(storage, clock):
    """Of an entry that failed once and died, and of a pause."""
    queue = Queue("mail", storage, retry_policy=FixedDelay(delay=timedelta(0), max_attempts=2))
    queue.enqueue({"to": "[/red]"}, id="one", priority=3, key="k1", headers={"data": "x"})
    for message in ("first \x1b[2J", "second"):
        queue.mark_failed(queue.dequeue(), ValueError(message))
        clock.advance(timedelta(seconds=1))
    queue.pause(who="ann", reason="no")
    with Inspector(storage.path) as inspector:
        return inspector.records(last=100)


def test_what_a_line_says(records):
    """A line has what was done, to which entry, by whom, and what is worth knowing of it, made safe."""
    lines = [event_of(record) for record in records]
    assert [line.op for line in lines] == ["enqueue", "lease", "fail", "lease", "dead", "pause"]
    assert [line.attempt for line in lines] == ["", "1", "", "2", "", ""]
    assert lines[0].detail.startswith("priority 3, ")
    assert lines[1].who.startswith("pid ")
    assert lines[2].detail == "ValueError: first \\x1b[2J"
    told = {times: lines[2].told(NOW + timedelta(minutes=3), times) for times in Times}
    assert told[Times.UTC] == "ValueError: first \\x1b[2J, again at 10:42:17"
    assert told[Times.RELATIVE] == "ValueError: first \\x1b[2J, again 3m"
    assert (lines[4].role, lines[4].detail) == ("dead", "ValueError: second")
    assert (lines[5].who, lines[5].detail) == ("ann", "reason=no")
    assert {line.queue for line in lines} == {"mail"}


@pytest.mark.parametrize(
    ("text", "ops"),
    [
        ("event=fail,dead", ["fail", "dead"]),
        ("id:one -event:e", ["fail"]),
        ("queue:other", []),
        ("err:second", ["dead"]),
        ("key=k1", ["enqueue"]),
        ("attempts=2", ["lease"]),
        ('"[/red]"', ["enqueue"]),
        ("state:dead", ["dead"]),
        ("payload.to:red", ["enqueue"]),
        ("since:2026-11-29T10:42:18Z event:lease", ["lease"]),
    ],
)
def test_filters(records, text, ops):
    """Records are filtered in the language that entries are, as by `duraq tail --where`."""
    following = Following("/x", lambda: None, wanted(where=Where.parse(text, NOW)))
    for record in records:
        following._add(record)
    assert [event.op for event in following.take().events] == ops


def test_following(storage):
    """Whoever follows is told of the newest records, and of each that is written afterwards."""
    queue = Queue("mail", storage)
    queue.enqueue_many(range(LAST + 5))
    more = threading.Event()
    following = Following(storage.path, more.set)
    following.start()
    try:
        seen = []
        while len(seen) < LAST:
            assert more.wait(SOON)
            more.clear()
            seen += following.take().events
        queue.pause(who="ann")
        while seen[-1].op != "pause":
            assert more.wait(SOON)
            more.clear()
            seen += following.take().events
        assert [event.number for event in seen] == list(range(6, LAST + 7))
    finally:
        following.stop()


def test_too_fast_to_read(storage, records):
    """Of what nobody has taken, the newest are kept, and how many there were is told."""
    following = Following(storage.path, lambda: None)
    for _ in range(200):
        for record in records:
            following._add(record)
    batch = following.take()
    assert (len(batch.events), batch.seen) == (LAST, 200 * len(records))
    assert following.take().seen == 0


async def test_the_screen(records, dashboard, source):
    """The newest is at the bottom and followed, until somebody goes up to read."""
    source.records = records
    source.show(snapshot())
    async with dashboard().run_test(size=(120, 20)) as pilot:
        await pilot.press("6")
        await pilot.pause(0.1)
        events = pilot.app.screen.query_one(RowList)
        assert type(pilot.app.screen) is EventsScreen
        assert events.cursor_key == ("mail", records[-1].seq)
        assert any("follows   newest at the bottom" in line for line in text_of(pilot.app))
        await pilot.press("up")
        await pilot.pause()
        assert any("stands still" in line for line in text_of(pilot.app))
        await pilot.press("f")
        assert events.cursor_key == ("mail", records[-1].seq)
        await pilot.press("slash", *"event:dead", "enter")
        await pilot.pause(0.1)
        assert [events.rows.key(number)[1] for number in range(len(events.rows))] == [5]
        await pilot.press("y", "i")
        assert pilot.app.clipboard == "one"
        await pilot.press("slash", *" nosuch:1")
        assert any("there is no field nosuch" in line for line in text_of(pilot.app))


async def test_it_follows_only_while_it_is_shown(dashboard):
    """Another screen in front of it ends the following."""
    followed = []

    class Source(FakeSource):
        def follow(self, on_more, chosen=None):
            followed.append(super().follow(on_more, chosen))
            return followed[-1]

    source = Source()
    source.show(snapshot())
    app = dashboard()
    app.source = source
    async with app.run_test() as pilot:
        await pilot.press("6", "1")
        assert followed[0]._stop.is_set()
        await pilot.press("6")
        assert not followed[-1]._stop.is_set()
    assert followed[-1]._stop.is_set()


async def test_a_filter_that_nothing_matches(dashboard, source):
    """Under a filter it is not said that nothing has happened, but that nothing of that kind has."""
    source.show(snapshot())
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("6")
        await pilot.pause()
        assert any("Nothing has happened yet." in line for line in text_of(pilot.app))
        await pilot.press("slash", *"queue:mail", "enter")
        await until(pilot, lambda: "Nothing that matches this has" in "\n".join(text_of(pilot.app)))
