"""What the tests share: a clock that stands still, and every storage backend behind the same fixtures.

A test that asks for ``storage`` (or ``backend``, ``open_storage``, ``queue`` ...) runs once for each backend
in BACKENDS. One that needs what only some backends can do says so: ``@pytest.mark.needs("survives")``.
"""

import atexit
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import HealthCheck, settings
from one_thread import in_one_thread
from pg_server import Server

from duraq import DeadLetterQueue, FileStorage, MemoryStorage, Queue
from duraq.journal.log import Sizes
from duraq.storage.lmdb import LMDBStorage
from duraq.storage.postgres import PostgresStorage
from duraq.storage.sqlite import SQLiteStorage
from duraq.testing import FakeClock

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}

# A busy machine is no failure.
settings.register_profile("duraq", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("duraq-deep", settings.get_profile("duraq"), max_examples=2000)
settings.load_profile("duraq-deep" if DEEP else "duraq")

# So small that sealing a segment and recycling the journal happen all the time.
SMALL = Sizes(journal=64 * 1024, segment=8 * 1024)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """With ``-n auto``: tests wait for disks and for each other's processes a third of their time."""
    return (os.cpu_count() or 1) * 3 // 2 or 1


@pytest.fixture
def one_thread(monkeypatch):
    """What the engine does in the background it does where it begins."""
    in_one_thread(monkeypatch)


@pytest.fixture
def uncounted(monkeypatch):
    """``make coverage`` leaves the processes that this test starts alone: it would import things in them."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _log_as_it_was():
    # The command line sets up the library's log for the process that it thinks is its own.
    log = logging.getLogger("duraq")
    level, handlers = log.level, log.handlers[:]
    yield
    log.setLevel(level)
    log.handlers[:] = handlers


@dataclass(frozen=True)
class Backend:
    """A way to store queues: how to open it, and what it is able to do.

    survives: what it holds outlives ``close``. shared: it can be open several times at once. files: it is a
    directory of segments, which readers look at. wakes: whoever commits wakes waiters himself, one by one; a
    server tells them all. ``elsewhere``: how another process opens it, as Python, in
    the directory ``sys.argv[1]``.
    """

    make: Callable[..., Any]
    abilities: frozenset[str] = field(default_factory=frozenset)
    elsewhere: str = ""


def _memory(_directory: Path, **options: Any) -> MemoryStorage:
    return MemoryStorage(**options)


def _file(directory: Path, **options: Any) -> FileStorage:
    return FileStorage(directory / "storage", **options)


def _small_file(directory: Path, **options: Any) -> FileStorage:
    return FileStorage(directory / "storage", **{"sizes": SMALL, "durability": "process"} | options)


def _sqlite(directory: Path, **options: Any) -> SQLiteStorage:
    return SQLiteStorage(directory / "queues.db", **{"durability": "process"} | options)


def _lmdb(directory: Path, **options: Any) -> LMDBStorage:
    # Within one process an environment can be open once; it stays open, as its owner would have it.
    path = str(directory / "environment")
    if path not in _environments:
        needed = len(LMDBStorage.required_databases)
        _environments[path] = lmdb.open(path, max_dbs=needed + 1, map_size=1 << 28, sync=False)
    return LMDBStorage(_environments[path], **{"durability": "process"} | options)


_environments: dict[str, lmdb.Environment] = {}


def _postgres(directory: Path, **options: Any) -> PostgresStorage:
    return PostgresStorage(_dsn(directory), **options)


def _dsn(directory: Path) -> str:
    """A schema of the test's own, on a server of this process's own."""
    noted = directory / "dsn"
    if not noted.exists():
        noted.write_text(_server().dsn(_server().new_schema()))
    return noted.read_text()


@pytest.fixture
def url_of(tmp_path):
    """The URL of a storage of that kind in the test's own directory; nothing is made there."""

    def url_of(kind: str) -> str:
        if kind != "postgres":
            return f"{kind}:{tmp_path / {'file': 'storage', 'sqlite': 'queues.db', 'lmdb': 'env'}[kind]}"
        where = dict(part.split("=", 1) for part in _dsn(tmp_path).split())
        return (
            f"postgresql://{where['user']}:{PASSWORD}@/{where['dbname']}?host={where['host']}"
            f"&port={where['port']}&options={where['options'].replace('=', '%3D')}"
        )

    return url_of


# The server asks for none.
PASSWORD = "s3cret"


@cache
def _server() -> Server:
    server = Server()
    server.start()
    atexit.register(server.stop)
    return server


def _example(_directory: Path, **options: Any) -> Any:
    """That of docs/STORAGES.md."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "docs"))
    try:
        return import_module("example_storage").DictStorage(**options)
    finally:
        del sys.path[0]


BACKENDS = {
    "example": Backend(_example, frozenset({"wakes"})),
    "memory": Backend(_memory, frozenset({"wakes"})),
    "file": Backend(
        _file, frozenset({"survives", "shared", "wakes", "files"}), 'FileStorage(home / "storage")'
    ),
    "small-file": Backend(
        _small_file, frozenset({"survives", "shared", "wakes", "files"}), 'FileStorage(home / "storage")'
    ),
    "lmdb": Backend(
        _lmdb,
        frozenset({"survives", "shared", "wakes"}),
        'LMDBStorage(lmdb.open(str(home / "environment"), max_dbs=5, map_size=1 << 28))',
    ),
    "postgres": Backend(
        _postgres, frozenset({"survives", "shared"}), 'PostgresStorage((home / "dsn").read_text())'
    ),
    "sqlite": Backend(
        _sqlite, frozenset({"survives", "shared", "wakes"}), 'SQLiteStorage(home / "queues.db")'
    ),
}


def pytest_configure(config):
    # A shell starts what runs in the background with SIGINT ignored, and every child would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "needs(*abilities): only for backends that are able to do this")


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        needed = {name for mark in metafunc.definition.iter_markers("needs") for name in mark.args}
        # The contract is asked of all; what stands above it, of those that it was written with.
        names = BACKENDS if "contract" in metafunc.definition.path.parts else ("memory", "file", "small-file")
        able = [name for name in names if needed <= BACKENDS[name].abilities]
        metafunc.parametrize("backend", able, indirect=True)


@pytest.fixture
def clock():
    """The time of day, at noon until a test moves it."""
    return FakeClock()


@pytest.fixture
def backend(request):
    """The backend that the test runs with."""
    yield BACKENDS[request.param]
    while _environments:
        _environments.popitem()[1].close()


@pytest.fixture
def open_storage(backend, clock, tmp_path):
    """Open the storage once more (the same one, if the backend can share it); all are closed in the end."""
    with ExitStack() as stack:

        def open_storage(**options):
            storage = backend.make(tmp_path, **{"clock": clock} | options)
            stack.callback(storage.close)
            return storage

        yield open_storage


@pytest.fixture
def storage(open_storage):
    """An empty storage of the backend."""
    return open_storage()


@pytest.fixture
def queue(storage):
    """A queue of JSON values."""
    return Queue("jobs", storage)


@pytest.fixture
def dead_letters(storage):
    """The dead letters of ``queue``."""
    return DeadLetterQueue("jobs", None, storage)
