"""How checks look at queues: as an Inspector does, whatever it is that they are given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

from duraq.clock import to_datetime
from duraq.inspector import Inspector
from duraq.metrics import QueueMetrics
from duraq.model import Cause, EntryStatus
from duraq.storage.base import Storage, StoredEntry
from duraq.views import LeaseView, QueueView

# A path stands for the storage that lies there. An Inspector is for one thread; each check refreshes it,
# and reads only what was added since.
Source = Storage | Inspector | str | os.PathLike[str]


class Look(Protocol):
    """Queues as of one moment."""

    def queues(self) -> list[str]: ...

    def overview(self, queue: str) -> QueueView: ...

    def metrics(self, queue: str) -> QueueMetrics: ...


def path_of(source: Source) -> str | None:
    """Where its files are; None if it has none."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    path: str | None = getattr(source, "path", None)
    return path


@contextmanager
def looking(source: Source) -> Iterator[tuple[Look, datetime]]:
    """The queues of the source, and which time it is there."""
    if isinstance(source, Inspector):
        source.refresh()
        yield source, to_datetime(source.clock.now())
        return
    path = path_of(source)
    clock = None if isinstance(source, str | os.PathLike) else source.clock
    if path is None:
        assert not isinstance(source, str | os.PathLike)
        yield _InProcess(source), to_datetime(source.clock.now())
        return
    # Not by the storage itself: it would wait for its lock, and whoever holds that may be stopped.
    with Inspector(path, clock=clock) as inspector:
        yield inspector, to_datetime(inspector.clock.now())


class _InProcess:
    """A storage without files, asked by its own verbs."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def queues(self) -> list[str]:
        return self._storage.queues()

    def metrics(self, queue: str) -> QueueMetrics:
        return self._storage.metrics(queue)

    def overview(self, queue: str) -> QueueView:
        found = self._storage.metrics(queue)
        # Beside a database others may hold leases, and die. A death is told once, to whoever is to settle it.
        lapsed = {each.id: each.cause for each in self._storage.lapsed(queue)}
        leased = self._storage.entries(queue, EntryStatus.LEASED)
        died = {each.id for each in leased if each.worker and not found.workers}
        died |= {entry_id for entry_id, cause in lapsed.items() if cause is Cause.WORKER_DIED}
        late = lapsed.keys() - died
        return QueueView(
            queue,
            found.counts,
            found.paused,
            found.oldest_ready,
            tuple(self._lease(queue, each, died=each.id in died, late=each.id in late) for each in leased),
            found.waiting,
        )

    def _lease(self, queue: str, entry: StoredEntry, *, died: bool, late: bool) -> LeaseView:
        deadline_at = entry.deadline_at or 0
        return LeaseView(
            queue=queue,
            id=entry.id,
            token=entry.token,
            attempt=entry.attempts,
            worker=entry.worker or "",
            alive=False if died else None,
            late=late or deadline_at <= self._storage.clock.now(),
            leased_at=to_datetime(entry.updated_at),
            deadline_at=to_datetime(deadline_at),
        )
