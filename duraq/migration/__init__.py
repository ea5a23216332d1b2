"""A storage moved into another one, with everything that is in it: ``migrate``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from duraq import options
from duraq.errors import InvalidOption, QueueNotFound
from duraq.examining import verify
from duraq.inspector import Inspector
from duraq.metrics import QueueMetrics
from duraq.migration.carrying import Ends
from duraq.migration.notes import OUT, Notes, migration_of, out_of
from duraq.migration.places import Place
from duraq.migration.running import Migration, Moved, Progress
from duraq.model import MIGRATIONS
from duraq.storage.transacting import TransactingStorage

_SAME = "source and target are the same storage"


@dataclass(frozen=True, slots=True)
class Migrated:
    """What was moved: ``source`` and ``target`` as they may be shown, and what became of each queue.

    ``left``: entries that were enqueued in the source too late for this run.
    """

    source: str
    target: str
    queues: Mapping[str, Moved] = field(default_factory=dict)
    left: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing is left in the source."""
        return not self.left and not any(each.stuck or each.problem for each in self.queues.values())


@dataclass(frozen=True, slots=True)
class Planned:
    """What would be moved: each queue in numbers, and how many entries the target has in it.

    ``begun``: the queues that an earlier run has begun with; ``elsewhere``: those that another migration,
    which is not over, has to do with.
    """

    source: str
    target: str
    makes_target: bool
    begun: frozenset[str]
    elsewhere: frozenset[str]
    queues: Mapping[str, QueueMetrics]
    own: Mapping[str, int]

    def refused(self, queue: str, *, merge: bool = False) -> str | None:
        """What keeps it from being moved, if anything does."""
        if queue in self.elsewhere:
            return f"another migration is not over: {getattr(self.queues[queue].paused, 'reason', '')}"
        if not merge and queue in self.own and queue not in self.begun:
            return f"the target has {self.own[queue]} entries of its own"
        return None

    def status(self, queue: str, *, merge: bool = False) -> str:
        """What would be done to it."""
        if self.refused(queue, merge=merge) is not None:
            return "refused"
        return "goes on" if queue in self.begun else "moves"


def migrate(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    wait: timedelta = timedelta(minutes=10),
    merge: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Migrated:
    """Move everything that is in one storage to another one: both are URLs as ``duraq.open`` takes them.

    Entries of all states go, with their attempts, errors, schedules, times to live, keys and headers, in the
    order of their delivery; dead letters, what was done to them in the last days, idempotency keys, pauses
    and metrics. Workers and producers may go on meanwhile: a queue is paused in the source, for good, what
    is leased is waited for (``wait``, for each queue), and what is enqueued is carried as well; in the target
    it is paused until all of it is there. Each entry is read back, and compared, before it is removed from
    the source. Interrupted or killed, it goes on when it is called again. ``merge``: also into queues that
    have entries of their own in the target.

    All that is in the target is durable on return. Raises NotAStorage, CannotMigrate, StorageDamaged, or
    what the storages raise. A queue that is still worked when ``wait`` is over has it as its ``problem``.
    """
    here, there = Place(os.fspath(source)), Place(os.fspath(target))
    seconds = options.duration("wait", wait, zero=True) / 1e6
    _check(here, there)
    with ExitStack() as opened:
        before = opened.enter_context(here.open())
        _check_sound(here, before)
        after = opened.enter_context(there.open())
        if here.is_on_server and before.clock.boot_id == after.clock.boot_id:
            raise InvalidOption(_SAME)  # of a server, that is the name of the tables
        # What a process has written to files it does not read again; another storage reads all of it.
        check = opened.enter_context(there.open()) if there.is_file else after
        run = Migration(Ends(before, after, check, here.name, there.name), wait=seconds, merge=merge)
        # Closed at once, whatever ends it, so that it leaves nothing half done while the storages are open.
        with closing(iter(run)) as steps:
            for each in steps:
                if progress is not None:
                    progress(each)
        return Migrated(here.name, there.name, run.queues, run.left)


def plan(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Planned:
    """What ``migrate`` would do. Nothing is written, and nothing is made. Raises the same."""
    here, there = Place(os.fspath(source)), Place(os.fspath(target))
    _check(here, there)
    queues, out, _ = _looked_at(here)
    is_there = there.is_there()
    found, _, notes = _looked_at(there) if is_there else ({}, None, [])
    begun = frozenset(name.split("/")[2] for name in notes if out and name.startswith(f"in/{out}/"))
    ours = {None, out if f"in/{out}" in notes else None}
    elsewhere = frozenset(
        name for name, each in queues.items() if migration_of(each.paused) not in ours and _count(each)
    )
    own = {name: count for name in queues if (count := _count(found.get(name)))}
    return Planned(here.name, there.name, not is_there, begun, elsewhere, queues, own)


def _check(here: Place, there: Place) -> None:
    here.check_there()
    if here.is_same(there):
        raise InvalidOption(_SAME)


def _check_sound(place: Place, storage: TransactingStorage) -> None:
    """Read all of a source first: nothing is to be torn apart that must be repaired."""
    if not place.is_file or Notes(storage).find(OUT) is not None:
        return
    verify(place.path).check(
        place.path, "nothing was moved; duraq verify shows all of it, duraq repair sets it aside"
    )


def _looked_at(place: Place) -> tuple[dict[str, QueueMetrics], str | None, list[str]]:
    """Its queues in numbers, the migration that it was moved away in, and the names of its notes."""
    with Inspector.at(place.url) as inspector:
        queues = {name: inspector.metrics(name) for name in inspector.queues()}
        notes: dict[str, bytes] = {}
        with suppress(QueueNotFound):
            notes = {each.id: each.payload for each in inspector.each_entry(MIGRATIONS)}
    return queues, out_of(notes), list(notes)


def _count(metrics: QueueMetrics | None) -> int:
    return 0 if metrics is None else metrics.counts.length + metrics.counts.dead


__all__ = ["Migrated", "Migration", "Moved", "Planned", "Progress", "migrate", "plan"]
