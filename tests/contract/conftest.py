"""Two ends of a migration."""

import pytest
from moved import filled


@pytest.fixture
def source(tmp_path):
    """The URL of a storage with one queue, `jobs`."""
    return filled(f"file:{tmp_path}/source")


@pytest.fixture
def target(tmp_path):
    """The URL of a database that is not there yet."""
    return f"sqlite:{tmp_path}/target.db"
