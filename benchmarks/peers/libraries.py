"""Queues that are Python packages over SQLite. Each is used through its documented calls."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from benchmarks.contender import Contender, Durability, Payload
from benchmarks.packages import library


class PersistQueue(Contender):
    """SQLiteAckQueue with its defaults: WAL, and SQLite's own default of a sync at each commit."""

    # SQLiteAckQueue.queue() tells the states by these.
    _ACKED = "5"

    def __init__(self, directory: Path, durability: Durability) -> None:  # noqa: ARG002 - it has one only
        self._library = library("persistqueue")
        # With auto_resume, opening it takes from every other process what it has leased.
        self._queue = self._library.SQLiteAckQueue(str(directory / "persist-queue"), auto_resume=False)
        self._leased: Any = None

    def enqueue(self, payload: Payload) -> None:
        self._queue.put(payload)

    def enqueue_many(self, payloads: Sequence[Payload]) -> None:
        for payload in payloads:
            self._queue.put(payload)

    def lease(self) -> int | None:
        try:
            self._leased = self._queue.get(block=False, raw=True)
        except self._library.Empty:
            return None
        return int(self._leased["data"]["n"])

    def complete(self) -> None:
        self._queue.ack(self._leased)

    def remaining(self) -> int:
        # Its own size is that of this process's calls, and knows nothing of other processes.
        return sum(str(row["status"]) < self._ACKED for row in self._queue.queue())

    def tidy(self) -> None:
        self._queue.clear_acked_data(max_delete=0, keep_latest=0)

    def close(self) -> None:
        self._queue.close()


class LiteQueue(Contender):
    """LiteQueue, which sets synchronous=NORMAL itself."""

    def __init__(self, directory: Path, durability: Durability) -> None:  # noqa: ARG002 - it has one only
        # 30 s for the lock, as the others have: its connection's default is 5.
        self._queue = library("litequeue").LiteQueue(str(directory / "litequeue.sqlite"), timeout=30)
        self._leased: Any = None

    def enqueue(self, payload: Payload) -> None:
        self._queue.put(orjson.dumps(payload).decode())

    def enqueue_many(self, payloads: Sequence[Payload]) -> None:
        with self._queue.transaction(mode="IMMEDIATE"):
            for payload in payloads:
                self.enqueue(payload)

    def lease(self) -> int | None:
        message = self._queue.pop()
        if message is None:
            return None
        self._leased = message.message_id
        return int(orjson.loads(message.data)["n"])

    def complete(self) -> None:
        self._queue.done(self._leased)

    def remaining(self) -> int:
        return int(self._queue.qsize())

    def tidy(self) -> None:
        self._queue.prune()

    def close(self) -> None:
        self._queue.close()


class Huey(Contender):
    """Huey's SqliteStorage, without the tasks above it. It has no lease: what is taken is deleted."""

    def __init__(self, directory: Path, durability: Durability) -> None:
        self._storage = library("huey.storage").SqliteStorage(
            filename=str(directory / "huey.sqlite"), fsync=durability == "power", timeout=30
        )

    def enqueue(self, payload: Payload) -> None:
        self._storage.enqueue(orjson.dumps(payload))

    def enqueue_many(self, payloads: Sequence[Payload]) -> None:
        for payload in payloads:
            self.enqueue(payload)

    def lease(self) -> int | None:
        data = self._storage.dequeue()
        return None if data is None else int(orjson.loads(data)["n"])

    def complete(self) -> None:
        """Nothing: it was gone when it was taken."""

    def remaining(self) -> int:
        return int(self._storage.queue_size())

    def close(self) -> None:
        self._storage.close()


class LocalQueue(Contender):
    """SimpleQueue of localqueue, whose engine and SQLite are in Rust."""

    def __init__(self, directory: Path, durability: Durability) -> None:
        self._library = library("localqueue")
        modes = self._library.DurabilityMode
        self._queue = self._library.SimpleQueue(
            str(directory / "localqueue"),
            durability=modes.DURABLE if durability == "power" else modes.RELAXED,
        )
        self._leased: Any = None

    def enqueue(self, payload: Payload) -> None:
        self._queue.put(payload)

    def enqueue_many(self, payloads: Sequence[Payload]) -> None:
        self._queue.put_many(list(payloads))

    def lease(self) -> int | None:
        with suppress(self._library.Empty):
            self._leased = self._queue.get(block=False)
            return int(self._leased.data["n"])
        return None

    def complete(self) -> None:
        self._queue.ack(self._leased)

    def remaining(self) -> int:
        stats = self._queue.stats()
        return int(stats["ready"] + stats["processing"])

    def tidy(self) -> None:
        self._queue.purge(older_than=0)

    def close(self) -> None:
        self._queue.close()
