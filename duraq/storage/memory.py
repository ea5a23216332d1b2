"""Queues in memory: the fold alone. For tests, and for work that may be lost with its process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta

from duraq.clock import Clock, SystemClock
from duraq.entry import Entry
from duraq.errors import StorageClosed
from duraq.model import is_users
from duraq.operations import Operation
from duraq.state import QueueState
from duraq.storage.transacting import TransactingStorage


class MemoryStorage(TransactingStorage):
    """Keeps everything in this process, with the same semantics as FileStorage but no durability.

    Made for tests: a KeyboardInterrupt that comes in the middle of a change may leave half of it.
    """

    def __init__(
        self,
        *,
        lock_duration: timedelta = timedelta(minutes=5),
        max_payload_bytes: int = 1 << 20,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock or SystemClock(), lock_duration, max_payload_bytes)
        self._turn = self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._states: dict[str, QueueState] = {}
        self._seq: dict[str, int] = {}
        self._closed = False
        self._waiting: Counter[str] = Counter()

    def __repr__(self) -> str:
        return "<MemoryStorage>"

    def _check_usable(self) -> None:
        if self._closed:
            raise StorageClosed("this storage is closed")

    def _state(self, queue: str, *, create: bool = False) -> QueueState | None:
        self._check_usable()
        if create and queue not in self._states:
            self._states[queue] = QueueState(queue)
        return self._states.get(queue)

    def _known_state(self, queue: str, *, whole: bool = False) -> QueueState | None:  # noqa: ARG002 - it always is
        return self._states.get(queue)

    def _write(self, changes: Mapping[str, Sequence[Operation]], *, soon: bool = False) -> int:  # noqa: ARG002
        now = self.clock.now()
        for queue, operations in changes.items():
            state = self._states[queue]
            for operation in operations:
                seq = self._seq.get(queue, 0) + 1
                self._seq[queue] = seq
                payload = getattr(operation, "payload", None)
                state.apply(operation, seq, now, payload)
        return 0

    def _make_room(self, *, enqueuing: bool) -> None:
        """Memory has no journal to make room in."""

    def _settle(self, position: int) -> None:
        """Nothing here is durable."""

    def _settle_to_read(self, position: int) -> None:
        """Nothing here is durable."""

    def _payload(self, queue: str, entry: Entry) -> bytes:  # noqa: ARG002 - a file needs the queue
        payload: bytes = entry.where
        return payload

    def _worker(self) -> str:
        return "memory"

    def _is_alive(self, worker: str) -> bool:  # noqa: ARG002 - there is but one, this process
        return True

    @property
    def _someone_waits(self) -> bool:
        return True

    def _notify(self, queue: str, count: int) -> None:  # noqa: ARG002 - all are woken, see below
        with self._turn:
            # All of them: they may be waiting for different queues.
            self._changed.notify_all()

    def _live_bytes(self, state: QueueState) -> int:
        return sum(len(entry.where) for entry in state.entries.values())

    def _bytes_on_disk(self, queue: str) -> int:  # noqa: ARG002 - whatever queue it is
        return 0

    def _count_waiting(self, queue: str) -> int:
        return self._waiting[queue]

    def wait(self, queue: str, timeout: float | None) -> bool:
        """Block until an entry may be claimable; see Storage."""
        until = None if timeout is None else time.monotonic() + timeout
        with self._turn:
            self._waiting[queue] += 1
            try:
                return self._wait(queue, until)
            finally:
                self._waiting[queue] -= 1

    def _wait(self, queue: str, until: float | None) -> bool:
        while True:
            self._check_usable()
            state = self._states.get(queue)
            if state is not None and (
                state.has_ready(self.clock.now()) or state.past_deadline(self.clock.uptime())
            ):
                return True
            remaining = None if until is None else until - time.monotonic()
            if remaining is not None and remaining <= 0:
                return False
            if state is not None:
                remaining = self._seconds_to_next_event(state, remaining)
            self._changed.wait(remaining)

    def queues(self) -> list[str]:
        """Names of the queues that exist, sorted; see Storage."""
        with self._turn:
            self._check_usable()
            return sorted(filter(is_users, self._states))

    def close(self) -> None:
        """Forget everything."""
        with self._turn:
            self._closed = True
            self._changed.notify_all()
