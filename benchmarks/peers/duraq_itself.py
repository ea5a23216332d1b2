"""DuraQ: the full public API over a FileStorage with its defaults."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from benchmarks.contender import Contender, Durability, Lost, Payload, payload
from benchmarks.floors import RecordBytes
from duraq import FileStorage, QueueManager
from duraq.model import QueueEntry
from duraq.queue import Queue


class DuraQ(Contender):
    shared_by_threads: ClassVar[bool] = True

    def __init__(self, directory: Path, durability: Durability) -> None:
        self._storage = FileStorage(directory / "duraq", durability=durability)
        self._queue: Queue[Payload] = QueueManager(self._storage).queue("jobs")
        self._leased: QueueEntry[Payload] | None = None

    def enqueue(self, payload: Payload) -> None:
        self._queue.enqueue(payload)

    def enqueue_many(self, payloads: Sequence[Payload]) -> None:
        self._queue.enqueue_many(payloads)

    def lease(self) -> int | None:
        self._leased = entry = self._queue.dequeue()
        return None if entry is None else int(entry.data["n"])

    def lease_within(self, seconds: float) -> int | None:
        self._leased = entry = self._queue.dequeue(wait=timedelta(seconds=seconds))
        return None if entry is None else int(entry.data["n"])

    def complete(self) -> None:
        if self._leased is None:
            raise Lost("nothing is leased")
        self._queue.mark_completed(self._leased)

    def remaining(self) -> int:
        return len(self._queue)

    def close(self) -> None:
        self._storage.close()


def record_bytes(directory: Path) -> RecordBytes:
    """What DuraQ appends to a segment, taken from one: the floors write as many bytes."""

    def size() -> int:
        return sum(path.stat().st_size for path in directory.glob("duraq/jobs/**/*.jsonl"))

    with DuraQ(directory, "power") as duraq:
        duraq.enqueue(payload(0))  # the first one may bring a header with it
        empty = size()
        duraq.enqueue(payload(1))
        enqueued = size()
        duraq.work()
        worked = size()
    if not 0 < empty < enqueued < worked:
        raise Lost(f"the segments in {directory} do not grow: {empty}, {enqueued}, {worked} bytes")
    return RecordBytes(enqueue=enqueued - empty, cycle=worked - enqueued)
