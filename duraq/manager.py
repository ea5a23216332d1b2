"""Queues of one storage, by name."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

from duraq.dead_letters import DeadLetterQueue
from duraq.errors import InvalidOption
from duraq.queue import Queue
from duraq.retry import RetryPolicy
from duraq.storage.base import Storage

T = TypeVar("T")


class QueueManager:
    """Hands out the queues of a storage. It owns nothing: closing the storage is the caller's."""

    def __init__(self, storage: Storage) -> None:
        if not hasattr(storage, "commit"):
            raise InvalidOption(f"a QueueManager needs an open storage, such as FileStorage({storage!r})")
        self.storage = storage

    def queue(
        self,
        name: str,
        payload_type: type[T] | Any = None,
        *,
        retry_policy: RetryPolicy | None = None,
        lock_duration: timedelta | None = None,
        max_size: int | None = None,
    ) -> Queue[T]:
        """The queue of that name; it comes into being with its first entry.

        ``payload_type``: a dataclass, attrs class, TypedDict, NamedTuple, pydantic model, datetime, UUID,
        Enum, bytes ...; without it, payloads are JSON values. ``lock_duration``: how long a lease lasts.
        ``max_size``: enqueue raises QueueFull rather than hold more entries than this.
        Raises InvalidQueueName or InvalidOption.
        """
        return Queue(
            name,
            self.storage,
            payload_type,
            retry_policy=retry_policy,
            lock_duration=lock_duration,
            max_size=max_size,
        )

    def dead_letters(self, name: str, payload_type: type[T] | Any = None) -> DeadLetterQueue[T]:
        """The dead letters of that queue."""
        return DeadLetterQueue(name, payload_type, self.storage)

    def queues(self) -> list[str]:
        """Names of the queues that exist, sorted."""
        return self.storage.queues()
