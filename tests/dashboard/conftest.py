"""What the tests of the screens share: an app over a source that shows what it is given, and a clock."""

import time

import pytest
from duraq_dashboard.app import Dashboard
from on_screen import NOW, FakeSource

from duraq.testing import FakeClock


@pytest.fixture
def anyio_backend():
    """Textual runs on asyncio."""
    return "asyncio"


@pytest.fixture
def clock():
    """It stands still at NOW until a test moves it."""
    return FakeClock(now=NOW)


@pytest.fixture(autouse=True)
def _local_time_is_utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def source():
    """A source of no snapshot yet."""
    return FakeSource()


@pytest.fixture
def dashboard(source, clock):
    """Makes the app over the source."""

    def make(**options):
        return Dashboard(source, clock=clock, **options)

    return make
