"""What is compared: anything that can keep an entry and hand it out again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import orjson

Durability = Literal["power", "process"]
Payload = dict[str, Any]

PAYLOAD_BYTES = 200


class Lost(Exception):
    """A contender does not hold, or did not deliver, what it accepted."""


class Syncs(NamedTuple):
    """How often a contender syncs with durability "power", by its construction (``strace -c`` agrees)."""

    enqueue: int
    batch: int
    work: int


class Contender(ABC):
    """One queue in a directory of its own, used from one thread."""

    syncs: ClassVar[Syncs]

    @abstractmethod
    def __init__(self, directory: Path, durability: Durability) -> None: ...

    @abstractmethod
    def enqueue(self, payload: Payload) -> None:
        """Return when the entry is as durable as was asked for."""

    @abstractmethod
    def enqueue_many(self, payloads: Sequence[Payload]) -> None:
        """The same for all of them, with one sync."""

    @abstractmethod
    def work(self) -> int | None:
        """Lease the next entry, complete it, and return its number; None if there is none."""

    @abstractmethod
    def remaining(self) -> int:
        """Entries that are not completed."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class WaitingContender(Contender):
    """A contender whose consumers can sleep until there is an entry for them."""

    @abstractmethod
    def take(self, seconds: float) -> int | None:
        """Lease the next entry, waiting for one, and return its number; None after that many seconds."""

    @abstractmethod
    def complete(self) -> None:
        """The entry that was taken last is done."""


# Opens a contender in a directory. It can be sent to another process, so it is a class or a partial of one.
Factory = Callable[[Path, Durability], Contender]


def payload(number: int) -> Payload:
    """A job of exactly PAYLOAD_BYTES bytes as compact JSON, told from others by its number."""
    job = {"n": number, "to": "somebody@example.org", "template": "welcome", "body": ""}
    job["body"] = "x" * (PAYLOAD_BYTES - len(orjson.dumps(job)))
    return job
