"""beanstalkd with a binlog, with greenstalk as its client."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from typing import Any

import orjson

from benchmarks.contender import Contender, Lost, Payload
from benchmarks.packages import library

TUBE = "default"


class Beanstalk(Contender):
    def __init__(self, address: tuple[str, int]) -> None:
        self._library = library("greenstalk")
        self._client = self._library.Client(address, encoding=None)
        # A second connection for batches: the client sends one command at a time.
        self._pipeline = socket.create_connection(address)
        self._replies = self._pipeline.makefile("rb")
        self._leased: Any = None

    def enqueue(self, payload: Payload) -> None:
        self._client.put(orjson.dumps(payload))

    def enqueue_many(self, payloads: Sequence[Payload]) -> None:
        commands = []
        for payload in payloads:
            body = orjson.dumps(payload)
            commands.append(b"put 65536 0 60 %d\r\n%b\r\n" % (len(body), body))
        self._pipeline.sendall(b"".join(commands))
        for _ in commands:
            reply = self._replies.readline()
            if not reply.startswith(b"INSERTED"):
                raise Lost(f"beanstalkd answered {reply!r} to a put")

    def lease(self) -> int | None:
        return self.lease_within(0)

    def lease_within(self, seconds: float) -> int | None:
        try:
            self._leased = self._client.reserve(timeout=math.ceil(seconds))
        except self._library.TimedOutError:
            return None
        return int(orjson.loads(self._leased.body)["n"])

    def complete(self) -> None:
        self._client.delete(self._leased)

    def remaining(self) -> int:
        stats = self._client.stats_tube(TUBE)
        return int(stats["current-jobs-ready"] + stats["current-jobs-reserved"])

    def close(self) -> None:
        self._replies.close()
        self._pipeline.close()
        self._client.close()
