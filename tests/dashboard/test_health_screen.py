"""The Health screen: alerts, checks, and reading everything; and what they are made of."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from duraq_dashboard import health_view
from duraq_dashboard.alerts import Alerts
from duraq_dashboard.cost import Cost
from duraq_dashboard.snapshot import QueueNow, Trouble
from duraq_dashboard.trying import Trying
from duraq_dashboard.verifying import Verifying
from duraq_dashboard.widgets.row_list import RowList
from duraq_dashboard.wording import Times
from on_screen import MINUTE, NOW, SIZES, queue_now, queue_view, snapshot, text_of

from duraq import FileStorage, Queue, StorageDamaged, StorageReadOnly
from duraq.health import HealthResult, HealthStatus
from duraq.journal.log import Sizes

pytestmark = pytest.mark.anyio
HOSTILE = "[/red]\x1b]52;c;aGk=\x07\u202e"
WAITING = queue_now(queue_view("mail", 1902, oldest=timedelta(minutes=6)))
QUIET = queue_now(queue_view("default", 3, oldest=timedelta(seconds=5), waiting=1))
CORRUPT = queue_now(
    queue_view("audit", problem=StorageDamaged(f"it is {HOSTILE}", path="audit/segments/1.jsonl", line=7))
)
DENIED = queue_now(queue_view("finance", problem=StorageReadOnly("permission denied", path="finance")))


@pytest.fixture
def sound(tmp_path):
    """A storage that is as it was written."""
    with FileStorage(
        tmp_path / "storage", durability="process", sizes=Sizes(journal=1 << 14, segment=2000)
    ) as storage:
        for name in ("a", "b"):
            for number in range(100):
                Queue(name, storage).enqueue(number)
    return tmp_path / "storage"


def listed(app, name):
    rows = app.screen.query_one(name, RowList).rows
    return [[cell if isinstance(cell, str) else cell[0] for cell in rows.cells(n)] for n in range(len(rows))]


async def wait_for(pilot, condition):
    for _ in range(200):
        await pilot.pause(0.02)
        if condition():
            return
    raise AssertionError(text_of(pilot.app))


async def test_alerts(dashboard, source, sound):
    """All that is the matter is listed, the worst first, with the evidence, and since when."""
    trying = Trying(str(sound))
    assert trying.try_out(forced=False)
    assert not trying.try_out(forced=False)
    source.show(snapshot(QUIET, WAITING))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("5")
        source.show(snapshot(QUIET, WAITING, CORRUPT, DENIED, number=2, tried=trying.found))
        await wait_for(pilot, lambda: len(listed(pilot.app, "#alerts-list")) == 3)
        assert [row[:4] for row in listed(pilot.app, "#alerts-list")] == [
            ["CRIT", "DENIED", "finance", "10:42:17"],
            ["CRIT", "CORRUPT", "audit", "10:42:17"],
            ["CRIT", "NO CONSUMER", "mail", "before 10:42:17"],
        ]
        assert not any("\x1b" in line for line in text_of(pilot.app))
        checks = {row[1]: row for row in listed(pilot.app, "#checks")}
        assert checks["marks"][0] == checks["lock"][0] == "ok"
        assert checks["queue"][0] == "CRIT"


FULL = HealthResult("space", HealthStatus.UNHEALTHY, "the disk is full: 0 B free (0%)")


async def test_a_full_disk(dashboard, source):
    """A check that is bad is an alert before those of queues, on the first screen as on that of health."""
    source.show(snapshot(WAITING, tried=(FULL,)))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.pause()
        assert "! 2 alerts: storage SPACE | mail NO CONSUMER" in "\n".join(text_of(pilot.app))
        await pilot.press("5")
        assert listed(pilot.app, "#alerts-list")[0] == [
            "CRIT",
            "SPACE",
            "",
            "before 10:42:17",
            "the disk is full: 0 B free (0%)",
        ]
        assert "Alerts 2" in "\n".join(text_of(pilot.app))
        await pilot.press("enter")
        assert pilot.app.screen.query_one("#checks", RowList).cursor_key == ("space", "")
        source.show(snapshot(WAITING, number=2, tried=(replace(FULL, status=HealthStatus.HEALTHY),)))
        await wait_for(pilot, lambda: len(listed(pilot.app, "#alerts-list")) == 1)


async def test_one_number_of_alerts(dashboard, source):
    """The first screen and that of health count the same alerts, and those that somebody has seen apart."""
    busy = queue_now(queue_view("busy", 1902, dead=7, oldest=timedelta(minutes=6)), minutes=[{"dead": 7}])
    number = sum(verdict.word.role in {"crit", "warn"} for verdict in busy.verdicts)
    assert number > 1
    source.show(snapshot(busy))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.pause()
        assert f"! {number} alerts: " in "\n".join(text_of(pilot.app))
        await pilot.press("5", "a")
        await pilot.pause()
        assert f"Alerts {number - 1}, 1 seen" in "\n".join(text_of(pilot.app))
        await pilot.press("1")
        await pilot.pause()
        assert f"! {number - 1} alert, 1 seen: " in "\n".join(text_of(pilot.app)).replace("alerts", "alert")


async def test_acknowledged(dashboard, source, clock):
    """An alert that somebody has seen stands behind the others for an hour, or until it is taken back."""
    source.show(snapshot(WAITING, CORRUPT))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("5", "a")
        rows = listed(pilot.app, "#alerts-list")
        assert [row[2] for row in rows] == ["mail", "audit"]
        assert rows[1][4].startswith("seen, until 11:42:17: ")
        assert any("Alerts 1, 1 seen" in line for line in text_of(pilot.app))
        assert pilot.app.screen.query_one("#alerts-list", RowList).cursor_number == 0
        await pilot.press("j", "a")
        assert [row[2] for row in listed(pilot.app, "#alerts-list")] == ["audit", "mail"]
        await pilot.press("g", "a")
        clock.advance(timedelta(hours=1))
        pilot.app._tick()
        assert [row[2] for row in listed(pilot.app, "#alerts-list")] == ["audit", "mail"]


async def test_the_fix(dashboard, source):
    """For a damaged queue the command is shown that says how it is repaired, and can be copied."""
    source.show(snapshot(CORRUPT))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("5", "tab")
        checks = pilot.app.screen.query_one("#checks", RowList)
        assert checks.has_focus
        checks.go_to(("queue", "audit"))
        await pilot.pause()
        fix = "duraq -C /srv/queues repair audit --dry-run"
        assert any(fix in line for line in text_of(pilot.app))
        assert next(each.text for each in pilot.app.screen.copies()) == fix
        assert fix in pilot.app.screen.pager_text()


async def test_the_plan(dashboard, source, sound):
    """Enter on a damaged queue says what a repair would do, and does nothing; else it says what was found."""
    segment = min((sound / "b" / "segments").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'"data":0', b'"data":1'))
    before = {file: file.read_bytes() for file in sound.rglob("*") if file.is_file()}
    problem = StorageDamaged("the checksum is wrong", path=f"b/segments/{segment.name}", line=1, byte=0)
    source.path = str(sound)
    source.show(snapshot(queue_now(queue_view("b", problem=problem)), tried=(FULL,)))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("5", "tab")
        checks = pilot.app.screen.query_one("#checks", RowList)
        checks.go_to(("queue", "b"))
        await pilot.press("enter")
        await pilot.pause(0.2)
        lines = text_of(pilot.app)
        assert any("would do: b/segments/" in line for line in lines)
        assert any("repair b --dry-run" in line for line in lines)
        await pilot.press("escape")
        checks.go_to(("space", ""))
        await pilot.press("enter")
        await pilot.pause(0.2)
        assert any(FULL.message in line for line in text_of(pilot.app)[10:26])
    assert before == {file: file.read_bytes() for file in sound.rglob("*") if file.is_file()}


async def test_reading_everything(dashboard, source, sound):
    """With r everything is read, in another thread, and what is damaged is said, with its place."""
    segment = min((sound / "b" / "segments").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'"data":0', b'"data":1'))
    source.path = str(sound)
    source.show(snapshot(queue_now(queue_view("a")), queue_now(queue_view("b"))))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("5", "r")
        await wait_for(pilot, lambda: any("place damaged" in line for line in text_of(pilot.app)))
        (found,) = [row for row in listed(pilot.app, "#checks") if row[1] == "verify"]
        assert found[0] == "CRIT"
        assert f"{segment.name} line 1 byte 0: the checksum is wrong" in found[2]


async def test_nothing_is_changed_by_whoever_may_only_look(dashboard, source):
    """Nothing is offered to be compacted if nothing may be changed."""
    source.show(snapshot(WAITING))
    async with dashboard(read_only=True).run_test(size=(120, 36)) as pilot:
        await pilot.press("5", "C")
        assert len(pilot.app.screen_stack) == 1


async def test_still_means_still(dashboard, source, clock, sound):
    """While nothing happens nothing is asked and nothing is drawn, the dashboard's own cost included."""
    source.path = str(sound)
    source.show(snapshot(WAITING, changed_at=NOW - MINUTE))
    async with dashboard().run_test(size=(120, 36)) as pilot:
        await pilot.press("5")
        await pilot.pause(0.2)
        asked, drawn = source.asked, []
        for widget in pilot.app.screen.query("*"):
            widget.refresh = lambda *regions, widget=widget, **_: drawn.append(widget)
        for _ in range(20):
            clock.advance(timedelta(seconds=1))
            pilot.app._tick()
        assert (source.asked, drawn) == (asked, [])


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_sizes(dashboard, source, size):
    """At every size there are alerts and checks, each with its word."""
    source.show(snapshot(WAITING, CORRUPT))
    async with dashboard().run_test(size=size) as pilot:
        await pilot.press("5")
        lines = text_of(pilot.app)
        assert any("CRIT CORRUPT" in line for line in lines)
        assert any("CHECK" in line for line in lines)
        assert all(len(line) <= size[0] for line in lines)


# -- what it is made of ------------------------------------------------------------------------------------


def test_since():
    """An alert keeps its beginning as long as it is the matter, and begins anew when it comes back."""
    alerts = Alerts()
    alerts.look(snapshot(QUIET), NOW)
    alerts.look(snapshot(QUIET, WAITING), NOW + MINUTE)
    alerts.look(snapshot(QUIET, WAITING), NOW + 2 * MINUTE)
    (found,) = alerts.all(NOW + 2 * MINUTE)
    assert (found.since, found.is_older) == (NOW + MINUTE, False)
    alerts.look(snapshot(trouble=Trouble("GONE", "gone")), NOW + 3 * MINUTE)
    assert alerts.all(NOW + 3 * MINUTE) == [found]
    alerts.look(snapshot(QUIET), NOW + 4 * MINUTE)
    assert alerts.all(NOW + 4 * MINUTE) == []
    alerts.look(snapshot(WAITING), NOW + 5 * MINUTE)
    assert alerts.all(NOW + 5 * MINUTE)[0].since == NOW + 5 * MINUTE


def test_since_when_in_words():
    """Of what was there at the first look it is told when it had begun, or how long it lasts at least."""
    alerts = Alerts()
    alerts.look(snapshot(WAITING), NOW)
    later = NOW + timedelta(seconds=10)
    told = {times: health_view.alert_rows(alerts.all(later), later, times)[0][1][3] for times in Times}
    assert (told[Times.UTC], told[Times.RELATIVE]) == ("before 10:42:17", "over 10s")


def test_gone():
    """A queue whose directory has vanished is an alert, whatever was the matter with it before."""
    alerts = Alerts()
    alerts.look(snapshot(QueueNow(WAITING.view, WAITING.metrics, WAITING.verdicts, gone=True)), NOW)
    assert [(alert.word, alert.role) for alert in alerts.all(NOW)] == [("GONE", "crit")]


def test_clock_and_compaction():
    """Records of the future are told, and how much could be freed."""
    ahead = queue_now(queue_view("ahead"), minutes=[{"enqueued": 1}])
    period = ahead.metrics.history[0]
    found = {
        check.name: check
        for check in health_view.checks(snapshot(ahead, looked_at=period.start - 2 * MINUTE), None)
    }
    assert (found["clock"].role, found["clock"].what.endswith("ahead")) == ("warn", True)
    assert found["compaction"].what == "nothing to be freed"
    large = queue_now(queue_view("large"), bytes_on_disk=9 << 20, live_bytes=1 << 20)
    found = {check.name: check for check in health_view.checks(snapshot(large), None)}
    assert (found["clock"].role, found["compaction"].queue) == ("", "large")
    assert found["compaction"].what.startswith("about 8.4 MB of 1 queue could be freed")


def test_verifying_is_stopped(sound):
    """Reading everything can be stopped; it says how far it came."""
    told, over = [], threading.Event()

    def tell(found):
        told.append(found)
        verifying.stop()
        if found.ended_at is not None:
            over.set()

    verifying = Verifying(str(sound), ["a", "gone", "b"], tell)
    verifying.start()
    assert over.wait(30)
    assert (told[-1].stopped, told[-1].queues, told[-1].of, told[-1].findings) == (True, 1, 3, ())
    assert health_view.verified_text(told[-1]).endswith("stopped after 1 of 3 queues")


def test_verifying_what_is_not_there(tmp_path):
    """What keeps everything from being read is said."""
    told, over = [], threading.Event()
    Verifying(str(tmp_path / "nosuch"), ["a"], lambda found: (told.append(found), over.set())).start()
    assert over.wait(30)
    assert health_view.verified_text(told[-1]).startswith("it could not be read: ")


def test_what_it_costs():
    """What the dashboard costs is told as shares of a second, and in whose name it runs."""
    text = health_view.this_dashboard(
        Cost(1.0, 1000, 10.0), Cost(1.5, 3000, 20.0), read_only=True, began_at=NOW, times=Times.UTC
    )
    assert text.startswith("cpu 5.0%  rss ")
    assert "writes 200 B/s  read-only" in text
    assert text.endswith("since 10:42:17")
    assert Cost.now().written > 0
