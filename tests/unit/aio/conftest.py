"""What the tests for tasks share: each runs on asyncio and on trio, with every storage there is."""

import asyncio
import threading

import pytest
import trio

from duraq import aio

SOON = 60  # seconds; only so that a failing test ends


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    """The event loop that the test runs on."""
    return request.param


@pytest.fixture
def clock():
    """The machine's own."""
    return


@pytest.fixture
def count_threads():
    """How many threads have been started since the test began: those of earlier event loops may linger."""
    before = set(threading.enumerate())
    # The one in which the test runs.
    return lambda: 1 + len(set(threading.enumerate()) - before)


@pytest.fixture
def loop_caller():
    """Called in an event loop, a function that calls another one there, from a thread, and waits for that."""

    def loop_caller():
        try:
            soon = asyncio.get_running_loop().call_soon_threadsafe
        except RuntimeError:
            soon = trio.lowlevel.current_trio_token().run_sync_soon

        def in_loop(function):
            done = threading.Event()
            soon(lambda: (function(), done.set()))
            assert done.wait(SOON)

        return in_loop

    return loop_caller


@pytest.fixture
def sync(open_storage):
    """The storage as threads see it."""
    return open_storage()


@pytest.fixture
def storage(sync):
    """The storage as tasks see it."""
    return aio.Storage(sync)


@pytest.fixture
def queue(storage):
    """A queue of JSON values."""
    return aio.Queue("jobs", storage)
