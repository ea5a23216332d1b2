"""A storage moved into another one, with everything that is in it: ``migrate``.

The two share no transaction, and anybody may be killed, or do anything in either, at any moment. What makes
it safe is that while entries are on their way nobody else touches them, and who writes what in one change:

1. The source pauses a queue, with a note that it is *stopping*; anybody may lift that. When nothing is leased
   the note says *moving*, in one change with a pause that nobody else can lift, and under which nobody else
   can do anything to what is there (``pauses.check_stays``). So what is read under such a note stays as it
   is for as long as the queue is moving.
2. The target pauses its queue, likewise, with the first *mark*. From here on a page goes round: entries and
   the next mark, which names the page and the number of the source's note, in one change to the target; they
   are read back; their removal, and the note that the page of that name is *settled*, in one change to the
   source. So an entry of the last page is the target's if that is settled, and the source's until then.
3. When nothing is left the last mark and the queue's pause are one change to the target, and the source
   notes that it is *over*. Only then, or once it is *given up*, may another migration have the queue.

Each note is written in the place of the one that was read, else not at all: of two runs, of one migration or
of two, the later one is refused, and looks again. A run, and who gives it up, begin with the last page: it is
settled, if the source has been moving ever since it was read there; else the source may have been worked
since, and the page is taken back from the target. If the source has settled neither the last page nor the
one before, one of the two is an older copy, and that is refused. Whoever gives up writes a mark first, so
that nobody sends any more; without the target that cannot be, but what is sent then is found to be too old
as soon as that is back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from duraq import options
from duraq.errors import CannotMigrate, InvalidOption, QueueNotFound
from duraq.examining import verify
from duraq.inspector import Inspector
from duraq.metrics import QueueMetrics
from duraq.migration.carrying import Ends
from duraq.migration.endpoints import Endpoint
from duraq.migration.giving_up import GivenUp, give_up_between, give_up_here, give_up_there
from duraq.migration.notes import Leaving, Notes, Remembered
from duraq.migration.running import Migration, Moved
from duraq.migration.stopping import Progress, in_all, is_held
from duraq.model import MIGRATIONS, OWN_QUEUES
from duraq.pauses import is_being_filled, migration_of
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

    ``begun``: the queues that an earlier run has begun with; ``kept``: those that cannot be moved now, and
    why.
    """

    source: str
    target: str
    makes_target: bool
    begun: frozenset[str]
    kept: Mapping[str, str]
    queues: Mapping[str, QueueMetrics]
    own: Mapping[str, int]

    def refused(self, queue: str, *, merge: bool = False) -> str | None:
        """What keeps it from being moved, if anything does."""
        if queue in self.kept:
            return self.kept[queue]
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
    here, there = Endpoint(os.fspath(source)), Endpoint(os.fspath(target))
    seconds = options.duration("wait", wait, zero=True) / 1e6
    _check(here, there)
    with ExitStack() as opened:
        before = opened.enter_context(here.open())
        _check_target_is_there(here, before, there)
        _check_sound(here, before, there)
        ends = _ends(opened, here, before, there)
        run = Migration(ends, wait=seconds, merge=merge)
        # Closed at once, whatever ends it, so that it leaves nothing half done while the storages are open.
        with closing(iter(run)) as steps:
            for each in steps:
                if progress is not None:
                    progress(each)
        return Migrated(here.name, there.name, run.queues, run.left)


def give_up(source: str | os.PathLike[str], target: str | os.PathLike[str] | None = None) -> list[GivenUp]:
    """End a migration in the middle: each queue that is under way is worked again, in both.

    What has arrived in the target stays there, what has not in the source, and nothing is in both. If one of
    them is no more, what was in it is gone. Without a ``target``: what is under way in that one storage, from
    it or into it, is worked there, whatever has become of the other one; should that come back, the next
    migration between the two has the last page in one of them.

    Whoever runs the migration must be stopped first. Raises CannotMigrate if nothing is under way, else the
    same as ``migrate``.
    """
    here = Endpoint(os.fspath(source))
    there = None if target is None else Endpoint(os.fspath(target))
    if there is None:
        here.check_there()
    elif not there.is_there() or here.is_same(there):
        _check(here, there)
    with ExitStack() as opened:
        found: list[GivenUp] = []
        if there is None:
            only = opened.enter_context(here.open())
            found = give_up_here(only, here.name) + give_up_there(only, here.name)
        elif not here.is_there():
            found = give_up_there(opened.enter_context(there.open()), there.name, here.name)
        else:
            before = opened.enter_context(here.open())
            if there.is_there():
                found = give_up_between(_ends(opened, here, before, there))
            else:
                found = give_up_here(before, here.name, there.name)
    if not found:
        way = f"from or to {here.name}" if there is None else f"from {here.name} to {there.name}"
        raise CannotMigrate(f"no queue is on its way {way}: there is nothing to give up")
    return [each for each in found if each.queue not in OWN_QUEUES or each.problem is not None]


def _check_target_is_there(here: Endpoint, before: TransactingStorage, there: Endpoint) -> None:
    """Raise CannotMigrate if entries were on their way to a target that is no more."""
    if not there.is_there() and Notes(before, here.name).read().is_under_way(there.name):
        raise CannotMigrate(
            f"{there.name} is no more, and some queues of {here.name} were on their way to it: bring it back,"
            " or give that up with `duraq migrate --give-up`; nothing was made"
        )


def _ends(opened: ExitStack, here: Endpoint, before: TransactingStorage, there: Endpoint) -> Ends:
    after = opened.enter_context(there.open())
    if here.is_on_server and before.clock.boot_id == after.clock.boot_id:
        raise InvalidOption(_SAME)  # of a server, that is the name of the tables
    # What a process has written to files it does not read again; another storage reads all of it.
    check = opened.enter_context(there.open()) if there.is_file else after
    return Ends(before, after, check, here.name, there.name)


def plan(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Planned:
    """What ``migrate`` would do. Nothing is written, and nothing is made. Raises the same."""
    here, there = Endpoint(os.fspath(source)), Endpoint(os.fspath(target))
    _check(here, there)
    queues, ours = _looked_at(here)
    is_there = there.is_there()
    found, theirs = _looked_at(there) if is_there else ({}, Remembered())
    shared = ours.shared(theirs)
    begun = frozenset(queue for migration, queue in theirs.marks if migration == shared)
    kept = {
        name: why
        for name, each in queues.items()
        if (why := _kept_here(each, shared, ours.leaving.get(name)))
    }
    for name, each in queues.items():
        # What another migration has emptied does not go twice; see ``Migration``.
        is_new = each.paused is None or migration_of(each.paused) in {None, shared}
        why = _kept_there(found.get(name), shared, theirs.leaving.get(name))
        if why and (is_new or _count(each) or name in begun):
            kept.setdefault(name, why)
    for name in ours.apart(theirs):
        kept[name] = "source and target do not go together: one of them is an older copy; or give it up"
    own = {name: count for name in queues if (count := _count(found.get(name)))}
    return Planned(here.name, there.name, not is_there, begun, kept, queues, own)


def _kept_here(queue: QueueMetrics, migration: str | None, leaving: Leaving | None) -> str:
    """Which other migration has not done with it in the source, if one has not; see ``check_free``."""
    if leaving is not None and is_held(leaving, migration, queue.paused):
        return f"another migration is not over: migration {leaving.migration}: to {leaving.to}"
    if queue.paused is None or migration_of(queue.paused) in {None, migration}:
        return ""
    is_kept = _count(queue) or is_being_filled(queue.paused)
    return f"another migration is not over: {queue.paused.reason}" if is_kept else ""


def _kept_there(queue: QueueMetrics | None, migration: str | None, leaving: Leaving | None) -> str:
    """The same in the target; see ``Migration``."""
    if leaving is not None and leaving.is_under_way:
        return f"the target is moving it to {leaving.to}; finish that first, or give it up"
    if queue is None or queue.paused is None or migration_of(queue.paused) in {None, migration}:
        return ""
    is_kept = _count(queue) or is_being_filled(queue.paused)
    return f"the target has it in another migration: {queue.paused.reason}" if is_kept else ""


def _check(here: Endpoint, there: Endpoint) -> None:
    here.check_there()
    there.check_can_be()
    if here.is_same(there):
        raise InvalidOption(_SAME)


def _check_sound(place: Endpoint, storage: TransactingStorage, to: Endpoint) -> None:
    """Read all of a source first: nothing is to be torn apart that must be repaired."""
    if not place.is_file or Notes(storage, place.name).read().is_under_way(to.name):
        return
    verify(place.path).check(
        place.path, "nothing was moved; duraq verify shows all of it, duraq repair sets it aside"
    )


def _looked_at(place: Endpoint) -> tuple[dict[str, QueueMetrics], Remembered]:
    """Its queues in numbers, and what it remembers of migrations."""
    with Inspector.at(place.url) as inspector:
        queues = {name: inspector.metrics(name) for name in inspector.queues()}
        notes: list[tuple[str, bytes]] = []
        with suppress(QueueNotFound):
            notes = [(each.id, each.payload) for each in inspector.each_entry(MIGRATIONS)]
    return queues, Remembered.of(place.name, notes)


def _count(metrics: QueueMetrics | None) -> int:
    return 0 if metrics is None else in_all(metrics.counts)


__all__ = ["GivenUp", "Migrated", "Migration", "Moved", "Planned", "Progress", "give_up", "migrate", "plan"]
