"""Power cuts on real file systems, in the middle of a load by several processes.

Each process says what it is about to change, and then that the call has returned. What may be there after the
cut follows from that alone: what was acknowledged is there, what was not is there wholly or not at all, and
nobody was given anything that the cut then took back.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import count as numbers
from pathlib import Path
from random import Random
from typing import NamedTuple
from zlib import crc32

import pytest
from evidence import count

from benchmarks.power.actor import Actor, Say, acting, cut_power, hear
from benchmarks.power.disk import Disk
from duraq import DeadLetterQueue, EntryStatus, FileStorage, FixedDelay, Queue, Sizes

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SIZES = Sizes(journal=256 << 10, segment=64 << 10)
QUEUES = ("a", "b", "c")
POLICY = FixedDelay(delay=timedelta(0), max_attempts=1_000_000)
SHARES = 20 if DEEP else 1
CUTS = {"ext4": 25, "xfs": 10} if DEEP else {"ext4": 3, "xfs": 3}  # of each share
CUTS_OF_A_STORAGE = 5
PATIENCE = 60.0  # seconds; only so that a test that hangs ends

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]


class Change(NamedTuple):
    """What a call does to an entry; ``token`` is that of the delivery it belongs to."""

    what: str
    queue: str
    id: str
    token: int = 0

    @property
    def key(self) -> tuple[str, str]:
        return self.queue, self.id

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands in the entry's life."""
        return self.token, ORDER[self.what]


# The order of the changes of one delivery, and what an entry is after those that do not leave it living.
ORDER = {"put": 0, "take": 1, "fail": 2, "release": 2, "bury": 2, "complete": 2, "retry": 3, "remove": 3}
LIVING, DEAD, GONE = "living", "dead", "gone"
AFTER = {"bury": DEAD, "complete": GONE, "remove": GONE}


def text(entry_id: str) -> str:
    """The payload of that entry: some are empty, some are longer than a page."""
    number = crc32(entry_id.encode())
    return f"{entry_id} " * (number % 60 if number % 50 else 2000)


def words(what: str, changes: Sequence[Change]) -> str:
    """A line that says so of these changes."""
    return " ".join([what, *("/".join(map(str, change)) for change in changes)])


def changes_in(line: str) -> list[Change]:
    parts = (word.split("/") for word in line.split()[1:])
    return [Change(what, queue, entry_id, int(token)) for what, queue, entry_id, token in parts]


# The load


class Load:
    """What a process does to the queues, and its word for it."""

    def __init__(self, root: Path, name: str, seed: int, say: Say) -> None:
        self.root, self.name, self.chance, self._say = root, name, Random(f"{name} {seed}"), say
        self.storage = FileStorage(root, sizes=SIZES)
        self.queues = [Queue(queue, self.storage, str, retry_policy=POLICY) for queue in QUEUES]
        self._numbers = numbers()

    @contextmanager
    def asking(self, changes: Sequence[Change]) -> Iterator[None]:
        """What is done in the block are these changes, together."""
        self._say(words("asks", changes))
        yield
        self._say("told")

    def new(self, queue: Queue[str], number: int = 1) -> list[Change]:
        return [Change("put", queue.name, f"{self.name}-{next(self._numbers)}") for _ in range(number)]

    def put(self, queue: Queue[str], changes: Sequence[Change]) -> None:
        ids = [change.id for change in changes]
        queue.enqueue_many(map(text, ids), ids=ids, priority=self.chance.randrange(3))

    def take(self, queue: Queue[str], limit: int) -> list[Change]:
        entries = queue.dequeue(limit=limit, wait=timedelta(milliseconds=20))
        taken = [Change("take", queue.name, entry.id, entry.token) for entry in entries]
        assert all(entry.data == text(entry.id) for entry in entries)
        self._say(words("took", taken))
        return taken


def produce(root: Path, name: str, seed: int, say: Say) -> None:
    """Entries one by one, in batches of which some fit into no journal file, and in transactions."""
    load = Load(root, name, seed, say)
    while True:
        queue = load.chance.choice(load.queues)
        kind = load.chance.random()
        if kind < 0.8:
            changes = load.new(queue, 1 if kind < 0.6 else 20 if kind < 0.79 else 400)
            with load.asking(changes):
                load.put(queue, changes)
            continue
        parts = [(each, load.new(each, load.chance.randrange(1, 4))) for each in load.queues]
        with load.asking([change for _, changes in parts for change in changes]), load.storage.transaction():
            for each, changes in parts:
                load.put(each, changes)
            load.storage.begin_transaction()
            load.put(queue, load.new(queue, 3))
            load.storage.rollback_transaction()  # so that these never were


def consume(root: Path, name: str, seed: int, say: Say) -> None:
    """Whatever may become of what was taken, alone, in batches, and in transactions with what follows."""
    load = Load(root, name, seed, say)
    while True:
        queue, other = load.chance.sample(load.queues, 2)
        taken = load.take(queue, load.chance.choice((1, 1, 5)))
        done = [change._replace(what="complete") for change in taken]
        kind = load.chance.choices(["complete", "move", "fail", "release", "bury"], (5, 2, 1, 1, 2))[0]
        if not taken:
            continue
        if kind == "complete":
            with load.asking(done):
                queue.mark_completed_many(change.id for change in done)
        elif kind == "move":
            follow = load.new(other, 2)
            with load.asking(done + follow), load.storage.transaction():
                queue.mark_completed_many(change.id for change in done)
                load.put(other, follow)
        else:
            for change in taken:
                with load.asking([change._replace(what=kind)]):
                    if kind == "release":
                        queue.release(change.id)
                    else:
                        queue.mark_failed(change.id, "not today", dead=kind == "bury")


def operate(root: Path, name: str, seed: int, say: Say) -> None:
    """Dead letters are put back or removed, and the queues are compacted, by one who comes and goes."""
    for round_ in numbers():
        load = Load(root, name, seed + round_, say)
        with load.storage:
            for queue in load.queues:
                letters = DeadLetterQueue(queue.name, str, load.storage)
                for entry in load.storage.entries(queue.name, EntryStatus.DEAD, 10):
                    kind = load.chance.choice(("retry", "remove"))
                    with load.asking([Change(kind, queue.name, entry.id, entry.last_token)]):
                        getattr(letters, kind)(entry.id)
                if queue.name in load.storage.queues():
                    load.storage.compact(queue.name)
        time.sleep(0.02)  # nobody waits for an operator, and there is no hurry


# What may be there

Key = tuple[str, str]  # queue and id


class Truth:
    """What the processes have said, put beside what is found."""

    def __init__(self, found: dict[Key, str]) -> None:
        # Of each entry its changes, and whether each is known to be durable.
        self.lives: dict[Key, list[tuple[Change, bool]]] = defaultdict(list)
        self.told: set[str] = set()
        self.open: list[list[Change]] = []
        for (queue, entry_id), state in found.items():
            self._add([Change("put" if state == LIVING else "bury", queue, entry_id)], durable=True)

    def hear(self, actor: Actor) -> None:
        asked: list[list[Change]] = []
        for line in actor.said:
            if line.startswith("asks"):
                asked.append(changes_in(line))
            else:
                changes = asked.pop() if line == "told" else changes_in(line)
                self._add(changes, durable=True)
                self.told |= {change.what for change in changes}
        # What was being done when the power went, and what was begun before the process could be stopped.
        for changes in [*asked, *(changes_in(line) for line in actor.late if line.startswith("asks"))]:
            self._add(changes, durable=False)
            self.open.append(changes)

    def _add(self, changes: Sequence[Change], *, durable: bool) -> None:
        for change in changes:
            self.lives[change.key].append((change, durable))

    def objections(self, found: dict[Key, str]) -> Iterator[str]:
        for key in found.keys() - self.lives.keys():
            yield f"{key} was never enqueued"
        for key, life in self.lives.items():
            life.sort(key=lambda each: each[0].place)
            state, allowed = found.get(key, GONE), states_after(life)
            if state not in allowed:
                yield f"{key} is {state}, and may be {' or '.join(sorted(allowed))}: {life}"
        for changes in self.open:
            if len({self._happened(change, found) for change in changes}) > 1:
                yield f"half of it is there: {changes}"

    def _happened(self, change: Change, found: dict[Key, str]) -> bool:
        """Of one that was not acknowledged; those that come with others are of two kinds only."""
        if change.what == "put":
            return change.key in found or len(self.lives[change.key]) > 1
        return change.key not in found


def states_after(life: Sequence[tuple[Change, bool]]) -> set[str]:
    """What the entry may be: all that is known to be durable has happened, and perhaps some more."""
    least = max((number for number, (_, durable) in enumerate(life, 1) if durable), default=0)
    ends = [GONE, *(AFTER.get(change.what, LIVING) for change, _ in life)]
    return set(ends[least:])


def look(storage: FileStorage) -> dict[Key, str]:
    """Every entry, and what it is."""
    found = {}
    for name in storage.queues():
        for entry in Queue(name, storage, str).entries():
            assert entry.data == text(entry.id), f"{entry.id} was altered"
            found[name, entry.id] = DEAD if entry.status is EntryStatus.DEAD else LIVING
    return found


# The cuts


def load_until_the_power_goes(disk: Disk, root: Path, seed: int, truth: Truth) -> None:
    chance = Random(seed)
    cast = {"p": produce, "r": produce, "c": consume, "d": consume, "o": operate}
    acts = [partial(act, root, f"{name}{seed}", seed) for name, act in cast.items()]
    enough = chance.randrange(chance.choice((2, 50, 1000)))
    with acting(*acts) as actors:
        assert hear(actors, PATIENCE, lambda: sum(len(actor.said) for actor in actors) >= enough)
        # So that it does not always happen just when something was said.
        hear(actors, chance.uniform(0, 0.02))
        cut_power(disk, actors)
    for actor in actors:
        truth.hear(actor)


def recover(root: Path, _say: Say) -> None:
    with FileStorage(root, sizes=SIZES) as storage:
        look(storage)
        signal.pause()


def cut_in_recovery(disk: Disk, root: Path, seconds: float) -> None:
    with acting(partial(recover, root)) as actors:
        hear(actors, seconds)
        cut_power(disk, actors)


def goes_on(root: Path, found: dict[Key, str], tag: str) -> dict[Key, str]:
    """The same is found once more; it works; and what was done is there afterwards."""
    with FileStorage(root, sizes=SIZES) as storage:
        assert look(storage) == found, f"{tag}: opened again, it is another"
        for name in QUEUES:
            queue = Queue(name, storage, str, retry_policy=POLICY)
            queue.enqueue(text(f"on-{tag}"), id=f"on-{tag}")
            entry = queue.dequeue()
            queue.mark_completed(entry)
            found = {
                key: state
                for key, state in {**found, (name, f"on-{tag}"): LIVING}.items()
                if key != (name, entry.id)
            }
    with FileStorage(root, sizes=SIZES) as storage:
        assert look(storage) == found, f"{tag}: what was done is not there"
    return found


@pytest.mark.parametrize("share", range(SHARES))
def test_a_power_cut_takes_nothing_that_was_acknowledged(disk: Disk, share: int) -> None:
    """After a power cut all that was acknowledged is there, as it was, and nothing is that never was."""
    root = disk.mounted / "storage"
    told: set[str] = set()
    found: dict[Key, str] = {}
    for number in range(CUTS[disk.kind]):
        seed = 1000 * share + number
        if number % CUTS_OF_A_STORAGE == 0:
            shutil.rmtree(root, ignore_errors=True)
            found = {}
        truth = Truth(found)
        load_until_the_power_goes(disk, root, seed, truth)
        disk.restore_power()
        chance = Random(-seed)
        if chance.random() < 0.3:
            cut_in_recovery(disk, root, chance.uniform(0, 0.05))
            disk.restore_power()
        with FileStorage(root, sizes=SIZES) as storage:
            found = look(storage)
        objections = list(truth.objections(found))
        assert not objections, f"share {share}, seed {seed}: {objections[:5]}"
        found = goes_on(root, found, f"{seed}")
        told |= truth.told
        count(f"cut {disk.kind}")
    assert not DEEP or told == set(ORDER)  # else the load is not what it is meant to be
