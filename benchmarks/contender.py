"""What is compared: anything that can keep an entry and hand it out again."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Self

import orjson

Durability = Literal["power", "process"]
Payload = dict[str, Any]

PAYLOAD_BYTES = 200
# How often a consumer looks whose queue has nothing to sleep on: what one writes by hand.
POLL_SECONDS = 0.01


class Lost(Exception):
    """A contender does not hold, or did not deliver, what it accepted."""


class Missing(Exception):
    """A contender is not on this machine or does not start; the message says why."""


class Contender(ABC):
    """One queue, used from one thread at a time unless ``shared_by_threads``."""

    shared_by_threads: ClassVar[bool] = False

    @abstractmethod
    def enqueue(self, payload: Payload) -> None:
        """Return when the entry is as durable as was asked for."""

    @abstractmethod
    def enqueue_many(self, payloads: Sequence[Payload]) -> None:
        """The same for all of them, in the cheapest way that the queue has."""

    @abstractmethod
    def lease(self) -> int | None:
        """Take the next entry and return its number; None if there is none."""

    @abstractmethod
    def complete(self) -> None:
        """The entry that was leased last is done."""

    @abstractmethod
    def remaining(self) -> int:
        """Entries that are not completed."""

    @abstractmethod
    def close(self) -> None: ...

    def lease_within(self, seconds: float) -> int | None:
        """Lease the next entry, sleeping until there is one; None after that many seconds."""
        until = time.monotonic() + seconds
        while True:
            number = self.lease()
            if number is not None or time.monotonic() >= until:
                return number
            time.sleep(POLL_SECONDS)

    def tidy(self) -> None:  # noqa: B027 - most have nothing to remove
        """Remove what is completed, where the queue leaves that to its user. Never timed."""

    def work(self) -> int | None:
        """Lease the next entry, complete it, and return its number; None if there is none."""
        number = self.lease()
        if number is not None:
            self.complete()
        return number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


# Opens a contender. It is sent to other processes, so it is a partial of a class or function.
Opener = Callable[[], Contender]


def payload(number: int) -> Payload:
    """A job of exactly PAYLOAD_BYTES bytes as compact JSON, told from others by its number."""
    job = {"n": number, "to": "somebody@example.org", "template": "welcome", "body": ""}
    job["body"] = "x" * (PAYLOAD_BYTES - len(orjson.dumps(job)))
    return job


def payloads(first: int, count: int) -> list[Payload]:
    return [payload(number) for number in range(first, first + count)]


def cycles(contender: Contender, count: int, limit_seconds: float) -> tuple[list[int], float]:
    """Numbers of up to ``count`` entries, leased and completed within the limit, and the seconds it took."""
    worked: list[int] = []
    begin = time.perf_counter()
    while len(worked) < count and time.perf_counter() - begin < limit_seconds:
        number = contender.work()
        if number is None:
            break
        worked.append(number)
    return worked, time.perf_counter() - begin
