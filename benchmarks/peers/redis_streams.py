"""A Redis stream with a consumer group."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import orjson

from benchmarks.contender import Contender, Payload
from benchmarks.packages import library

STREAM, GROUP = "jobs", "workers"


class RedisStream(Contender):
    def __init__(self, address: tuple[str, int]) -> None:
        redis = library("redis")
        # No time limit on an answer: a blocked read takes as long as it was told to.
        self._redis = redis.Redis(*address, socket_timeout=None)
        self._consumer = f"consumer-{os.getpid()}-{id(self)}"
        self._leased: Any = None
        try:
            self._redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def enqueue(self, payload: Payload) -> None:
        self._redis.xadd(STREAM, {"p": orjson.dumps(payload)})

    def enqueue_many(self, payloads: Sequence[Payload]) -> None:
        # A transaction, since the commands of a plain pipeline may be synced in several portions.
        with self._redis.pipeline(transaction=True) as pipeline:
            for payload in payloads:
                pipeline.xadd(STREAM, {"p": orjson.dumps(payload)})
            pipeline.execute()

    def lease(self) -> int | None:
        return self._read(None)

    def lease_within(self, seconds: float) -> int | None:
        return self._read(max(1, round(seconds * 1000)))

    def complete(self) -> None:
        # Deleted too, or the stream would grow without end.
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.xack(STREAM, GROUP, self._leased)
            pipeline.xdel(STREAM, self._leased)
            pipeline.execute()

    def remaining(self) -> int:
        return int(self._redis.xlen(STREAM))

    def close(self) -> None:
        self._redis.close()

    def _read(self, milliseconds: int | None) -> int | None:
        found = self._redis.xreadgroup(GROUP, self._consumer, {STREAM: ">"}, count=1, block=milliseconds)
        if not found:
            return None
        # [[stream, [(id, fields)]]], or with the protocol's version 3 {stream: [[(id, fields)]]}.
        messages = next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]
        self._leased, fields = messages[0]
        return int(orjson.loads(fields[b"p"])["n"])
