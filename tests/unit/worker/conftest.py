"""What the tests of one worker share: threads to run it in, and idle turns that are short."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta

import pytest

from duraq import shift


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch):
    """An idle worker sees soon that it is to stop."""
    monkeypatch.setattr(shift, "_LONGEST_WAIT", timedelta(milliseconds=10))


@pytest.fixture
def start():
    """Run a worker in another thread; it is stopped in the end."""
    with ThreadPoolExecutor() as threads, ExitStack() as stack:

        def start(worker, **options):
            stack.callback(worker.stop, now=True)
            return threads.submit(worker.run, **options)

        yield start
