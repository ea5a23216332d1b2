"""The workers of a storage: what each says of itself, whether it lives, and what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from duraq.clock import to_datetime
from duraq.journal.described import Description, described
from duraq.journal.filesystem import FileSystem
from duraq.views import LeaseView, WorkerView


def workers(
    fs: FileSystem, directory: int, is_alive: Callable[[str], bool | None], leases: Iterable[LeaseView]
) -> list[WorkerView]:
    """Those that have left a file in ``leases/``, and those that hold any of these leases without one.

    The living first, the oldest of them first.
    """
    said = described(fs, directory) if directory >= 0 else {}
    holds: dict[str, Counter[str]] = {}
    for lease in leases:
        if lease.worker:
            holds.setdefault(lease.worker, Counter())[lease.queue] += 1
    names = said.keys() | holds.keys()
    found = [_worker(name, said.get(name), is_alive(name), holds.get(name, Counter())) for name in names]
    return sorted(found, key=_order)


def _worker(name: str, said: Description | None, alive: bool | None, holds: Counter[str]) -> WorkerView:
    about = said or Description()
    return WorkerView(
        name,
        alive,
        None if about.opened_at is None else to_datetime(about.opened_at),
        about.host,
        about.argv,
        about.unit,
        about.boot_id,
        about.start_time,
        dict(sorted(holds.items())),
    )


def _order(worker: WorkerView) -> tuple[bool, bool, float, str]:
    opened = worker.opened_at
    return (
        worker.alive is False,
        opened is None,
        0.0 if opened is None else opened.timestamp(),
        worker.id,
    )
