"""The workers of a storage: what each says of itself, whether it lives, and what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from duraq.clock import Clock, to_datetime
from duraq.errors import StorageError
from duraq.journal.described import Description, described
from duraq.journal.filesystem import FileSystem
from duraq.journal.lease import WorkerPresence
from duraq.views import LeaseView, WorkerView


class Living:
    """Who lives, as the files in ``leases/`` tell somebody who only reads."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._directory = -1
        self._presence: WorkerPresence | None = None

    def look_in(self, root: int, clock: Clock) -> None:
        """From here on it is about those that are below this directory; about nobody, if there is none."""
        self.close()
        with suppress(FileNotFoundError):
            self._directory = self._fs.open_dir(root, "leases")
            self._presence = WorkerPresence(self._directory, clock)

    def close(self) -> None:
        """Give up every descriptor. Idempotent."""
        if self._presence is not None:
            self._presence.close()
            self._fs.close(self._directory)
            self._presence, self._directory = None, -1

    def is_alive(self, worker: str) -> bool | None:
        """Whether a worker lives; None if this reader may not know."""
        if self._presence is None:
            return False
        try:
            return self._presence.is_alive(worker)
        except (StorageError, OSError):
            # Its files are another user's.
            return None
        except ValueError:
            return False

    def described(self) -> dict[str, Description]:
        """What those say of themselves that have left a file there."""
        return described(self._fs, self._directory) if self._directory >= 0 else {}


def workers(
    said: Mapping[str, Description], is_alive: Callable[[str], bool | None], leases: Iterable[LeaseView]
) -> list[WorkerView]:
    """Those that have ``said`` something of themselves, and those that hold any of these leases without.

    The living first, the oldest of them first.
    """
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
