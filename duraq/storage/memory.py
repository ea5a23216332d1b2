"""Queues in memory: the fold alone. For tests, and for work that may be lost with its process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta

from duraq import forks
from duraq.clock import Clock, SystemClock
from duraq.entry import Entry
from duraq.errors import StorageClosed, StorageForked
from duraq.model import is_users
from duraq.operations import Operation
from duraq.state import QueueState
from duraq.storage.bells import BellPlace, BellStorage


class MemoryStorage(BellStorage):
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
        self._turn = threading.RLock()
        self._places: set[BellPlace] = set()
        self._bells = threading.Lock()
        self._states: dict[str, QueueState] = {}
        self._seq: dict[str, int] = {}
        self._closed = self._forked = False
        forks.register(self)

    def __repr__(self) -> str:
        return "<MemoryStorage>"

    def _check_usable(self) -> None:
        if self._forked:
            raise StorageForked(
                "this storage is another process's: what is done to a copy of it, nobody sees",
                hint="use one that processes share, such as FileStorage",
            )
        if self._closed:
            raise StorageClosed("this storage is closed")

    def after_fork_in_child(self) -> None:
        """What is done to a copy, nobody sees."""
        # Whoever had it in the parent is not here to let it go.
        self._turn, self._bells, self._places = threading.RLock(), threading.Lock(), set()
        self._forked = True

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

    def _settle_to_read(self, position: int) -> int:  # noqa: ARG002 - nothing here is durable
        return 0

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

    def _notify(self, queue: str, count: int) -> None:  # noqa: ARG002 - all look, and see who gets one
        self._ring(queue)

    def _live_bytes(self, state: QueueState) -> int:
        return sum(len(entry.where) for entry in state.entries.values())

    def _bytes_on_disk(self, queue: str) -> int:  # noqa: ARG002 - whatever queue it is
        return 0

    def _count_waiting(self, queue: str) -> int:
        return self._count_places(queue)

    def queues(self) -> list[str]:
        """Names of the queues that exist, sorted; see Storage."""
        with self._turn:
            self._check_usable()
            return sorted(filter(is_users, self._states))

    def close(self) -> None:
        """Forget everything."""
        with self._turn:
            self._closed = True
        self._ring()
