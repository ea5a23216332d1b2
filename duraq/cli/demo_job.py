"""The demo's job, as a program of your own would have it: two queues, a handler, a pool of processes.

A file's path goes into the queue ``files``; a worker reads the file, counts its lines, takes its SHA-256 and
puts both into the queue ``results``.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from duraq import DuplicateEntry, ExponentialBackoff, FileStorage, Queue, QueueEntry, QueueManager
from duraq.journal.log import Sizes
from duraq.worker_pool import run_processes

FILES, RESULTS = "files", "results"
RETRIES = ExponentialBackoff(
    max_attempts=3, base_delay=timedelta(milliseconds=200), max_delay=timedelta(seconds=1)
)
# How long a worker rests after several failures in a row. By default it is for long, as something it depends
# on may be down; here each failure is one file's own.
REST = ExponentialBackoff(base_delay=timedelta(milliseconds=10), max_delay=timedelta(milliseconds=100))
GRACE = timedelta(seconds=2)


@dataclass(frozen=True)
class SourceFile:
    """A file to be measured. If it is to be ``text``, it must be UTF-8 and not empty."""

    path: str
    text: bool = False


@dataclass(frozen=True)
class Measured:
    """What is known of a file once it has been read."""

    path: str
    lines: int
    sha256: str


class EmptyText(ValueError):
    """A text has nothing in it."""


def measure(file: SourceFile) -> Measured:
    """Read the file. Raises OSError, UnicodeDecodeError or EmptyText."""
    content = Path(file.path).read_bytes()
    if file.text and not content:
        raise EmptyText("a text of 0 bytes")
    if file.text:
        content.decode("utf-8")
    return Measured(file.path, content.count(b"\n"), hashlib.sha256(content).hexdigest())


def open_storage(path: Path) -> FileStorage:
    """Open it as it is by default, but for segments so large that one ``tail -f`` shows the whole demo."""
    return FileStorage(path, sizes=Sizes(segment=1 << 30))


def queues(storage: FileStorage) -> tuple[Queue[SourceFile], Queue[Measured]]:
    """What is to be measured, and what was."""
    manager = QueueManager(storage)
    return manager.queue(FILES, SourceFile, retry_policy=RETRIES), manager.queue(RESULTS, Measured)


class Job:
    """What each worker process does: ``open`` once, then a call for every entry."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._results: Queue[Measured] | None = None

    def open(self) -> Queue[SourceFile]:
        """Open the storage in the process that is to use it: none may be carried across a fork."""
        files, self._results = queues(open_storage(self._path))
        return files

    def __call__(self, entry: QueueEntry[SourceFile]) -> None:
        """Measure one file. Whatever this raises is a failed attempt, and RETRIES decides."""
        assert self._results is not None
        result = measure(entry.data)
        # The entry's own id makes the result one of a kind: if a worker dies after this line and before its
        # entry is completed, the next holder finds the result there and has only to complete the entry.
        with suppress(DuplicateEntry):
            self._results.enqueue(result, id=entry.id)


def work(path: Path, processes: int, log_file: Path) -> None:
    """Work until SIGTERM in that many processes. A worker process that dies is replaced."""
    logging.basicConfig(filename=log_file, format="%(asctime)s %(process)d %(message)s", force=True)
    job = Job(path)
    run_processes(job.open, job, processes=processes, grace=GRACE, backoff=REST)
