"""What the tests for tasks share: each runs on asyncio and on trio, with every storage there is."""

import threading

import pytest

from duraq import aio


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
