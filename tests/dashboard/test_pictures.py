"""Every screen as text, at the three sizes that are promised, beside the pictures that were looked at.

``DURAQ_WRITE_PICTURES=1`` writes them anew; whoever does it looks at what has changed.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from duraq_dashboard.app import Dashboard
from duraq_dashboard.screens import health
from duraq_dashboard.snapshot import Trouble
from on_screen import NOW, SIZES, FakeSource, snapshot
from rich.cells import cell_len
from scenes import life, shop, work

from duraq.health import HealthResult, HealthStatus
from duraq.inspector import Inspector
from duraq.testing import FakeClock

pytestmark = pytest.mark.anyio
PICTURES = Path(__file__).parent / "pictures"
DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
WRITES = os.environ.get("DURAQ_WRITE_PICTURES", "") not in {"", "0"}

# By name: the keys that lead there.
SHOWN = {
    "queues": "down,down",
    "queues-ready": "s,s",
    "queue": "down,down,down,down,enter",
    "queue-dead": "down,down,down,down,enter,h",
    "queue-corrupt": "down,enter",
    "dlq": "2",
    "entry": "2,enter",
    "errors": "3",
    "errors-raw": "3,b,b,m",
    "events": "6",
    "help": "question_mark",
    "palette": "colon,r,e,t",
    "copy": "down,down,y",
}


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A storage whose entries have the same ids and times in every run."""
    return life(tmp_path_factory.mktemp("pictures") / "queues")


def compare(name, lines):
    """The picture is as it was; no line is wider than the screen, nor has it anything of double width."""
    file = PICTURES / f"{name}.txt"
    text = "\n".join(lines) + "\n"
    if WRITES:
        PICTURES.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")
    assert all(cell_len(line) == len(line) for line in lines)
    assert text == file.read_text("utf-8"), f"{file} differs"


async def pictures(app, name, *keys):
    """The same screen at each size."""
    async with app.run_test(size=SIZES[0]) as pilot:
        await pilot.pause()
        await pilot.press(*keys)
        for width, height in SIZES:
            await pilot.resize_terminal(width, height)
            await pilot.pause(0.1)
            compare(f"{name}-{width}x{height}", app.text())


@pytest.mark.parametrize("name", SHOWN)
async def test_screens(name, lived):
    """Each screen looks as it did when somebody looked at it."""
    with Inspector(lived, clock=FakeClock(now=NOW)) as inspector:
        source = FakeSource(inspector=inspector)
        source.records = inspector.records(last=30)
        source.show(shop())
        await pictures(Dashboard(source, clock=FakeClock(now=NOW)), name, *SHOWN[name].split(","))


async def test_leases():
    """Who holds what looks as it did, whatever a worker says of itself."""
    source = FakeSource()
    source.show(work())
    await pictures(Dashboard(source, clock=FakeClock(now=NOW)), "leases", "4")


async def test_health(monkeypatch):
    """What needs attention looks as it did; what differs from machine to machine is left out."""
    tried = (
        HealthResult("root", HealthStatus.HEALTHY, "/srv/queues, ext4, local"),
        HealthResult("space", HealthStatus.DEGRADED, "the disk is filling up: 900 MiB free (4%)"),
    )
    cost = "cpu 0.4%  rss 71.0 MB  writes 300 B/s  read-write  ops@pts/3 (ssh)  since 08:01:00"
    monkeypatch.setattr(health.health_view, "this_dashboard", lambda *_, **__: cost)
    source = FakeSource()
    source.show(replace(shop(), tried=tried))
    await pictures(Dashboard(source, clock=FakeClock(now=NOW)), "health", "5", "a")


async def test_nothing_there():
    """An empty storage says what to do next."""
    source = FakeSource()
    source.show(snapshot())
    await pictures(Dashboard(source, clock=FakeClock(now=NOW)), "empty")


async def test_no_storage():
    """A storage that cannot be read says why, and what to do next."""
    source = FakeSource()
    source.show(
        snapshot(trouble=Trouble("DENIED", "/srv/queues: permission denied", "chmod u+rx /srv/queues"))
    )
    await pictures(Dashboard(source, clock=FakeClock(now=NOW)), "denied")


async def test_ascii():
    """With --ascii there is no character beyond, not even of what strangers wrote."""
    source = FakeSource("/srv/na\u00efve/\u6f22")
    source.show(shop())
    app = Dashboard(source, clock=FakeClock(now=NOW))
    app.ascii_only = True
    async with app.run_test(size=SIZES[0]) as pilot:
        for keys in ("1", "colon", "escape,question_mark", "escape,y", "escape,enter"):
            await pilot.press(*keys.split(","))
            await pilot.pause()
            assert "\n".join(app.text()).isascii()
        assert app.text()[0].startswith("duraq  /srv/na?ve/??")


async def test_a_storm_of_sizes():
    """However the terminal's size changes, on every screen, nothing fails, and it is whole in the end."""
    source = FakeSource()
    source.show(shop())
    app = Dashboard(source, clock=FakeClock(now=NOW))
    async with app.run_test(size=SIZES[0]) as pilot:
        before = app.text()
        for number in range(200 if DEEP else 12):
            width, height = (number * 37) % 160 + 1, (number * 23) % 60 + 1
            if number % 5 == 0:
                await pilot.press(
                    "escape", str(number // 5 % 6 + 1), *(["question_mark"] if number % 10 else [])
                )
            await pilot.resize_terminal(width, height)
        await pilot.resize_terminal(*SIZES[0])
        await pilot.press("escape", "1")
        await pilot.pause(0.1)
        assert app.text() == before
