"""Power cuts on real file systems, in the middle of a load by several processes.

Each process says what it is about to change, and then that the call has returned. What may be there after the
cut follows from that alone: what was acknowledged is there, what was not is there wholly or not at all, and
nobody was given anything that the cut then took back.
"""

from __future__ import annotations

import os
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

    def __init__(self, root: Path, name: str, say: Say) -> None:
        self._name, self._chance, self._say = name, Random(name), say
        self.storage = FileStorage(root, sizes=SIZES)
        self._queues = [Queue(queue, self.storage, str, retry_policy=POLICY) for queue in QUEUES]
        self._numbers = numbers()

    @contextmanager
    def _asking(self, changes: Sequence[Change]) -> Iterator[None]:
        """What is done in the block are these changes, together."""
        self._say(words("asks", changes))
        yield
        self._say("told")

    def _new(self, queue: Queue[str], number: int) -> list[Change]:
        return [Change("put", queue.name, f"{self._name}-{next(self._numbers)}") for _ in range(number)]

    def _put(self, queue: Queue[str], changes: Sequence[Change]) -> None:
        ids = [change.id for change in changes]
        queue.enqueue_many(map(text, ids), ids=ids, priority=self._chance.randrange(3))

    def _take(self, queue: Queue[str], limit: int) -> list[Change]:
        entries = queue.dequeue(limit=limit, wait=timedelta(milliseconds=20))
        assert all(entry.data == text(entry.id) for entry in entries)
        taken = [Change("take", queue.name, entry.id, entry.token) for entry in entries]
        if taken:
            self._say(words("took", taken))
        return taken

    def produce(self) -> None:
        """One entry, a batch, one that fits into no journal file, or a transaction with a part undone."""
        queue, kind = self._chance.choice(self._queues), self._chance.random()
        if kind < 0.8:
            changes = self._new(queue, 1 if kind < 0.6 else 20 if kind < 0.79 else 400)
            with self._asking(changes):
                self._put(queue, changes)
            return
        parts = [(each, self._new(each, self._chance.randrange(1, 4))) for each in self._queues]
        with self._asking([change for _, changes in parts for change in changes]), self.storage.transaction():
            for each, changes in parts:
                self._put(each, changes)
            self.storage.begin_transaction()
            self._put(queue, self._new(queue, 3))
            self.storage.rollback_transaction()  # so these are never there

    def consume(self) -> None:
        """What may become of one that was taken or several, alone or in a transaction with what follows."""
        queue, other = self._chance.sample(self._queues, 2)
        taken = self._take(queue, self._chance.choice((1, 1, 5)))
        kind = self._chance.choices(("complete", "move", "fail", "release", "bury"), (5, 2, 1, 1, 2))[0]
        done = [change._replace(what="complete") for change in taken]
        if not taken:
            return
        if kind == "complete":
            with self._asking(done):
                queue.mark_completed_many(change.id for change in done)
        elif kind == "move":
            follow = self._new(other, 2)
            with self._asking(done + follow), self.storage.transaction():
                queue.mark_completed_many(change.id for change in done)
                self._put(other, follow)
        else:
            for change in taken:
                with self._asking([change._replace(what=kind)]):
                    if kind == "release":
                        queue.release(change.id)
                    else:
                        queue.mark_failed(change.id, "not today", dead=kind == "bury")

    def operate(self) -> None:
        """Dead letters are put back or removed, and a queue is compacted."""
        queue = self._chance.choice(self._queues)
        letters = DeadLetterQueue(queue.name, str, self.storage)
        for entry in self.storage.entries(queue.name, EntryStatus.DEAD, 10):
            kind = self._chance.choice(("retry", "remove"))
            with self._asking([Change(kind, queue.name, entry.id, entry.last_token)]):
                getattr(letters, kind)(entry.id)
        if queue.name in self.storage.queues():
            self.storage.compact(queue.name)


def producer(root: Path, name: str, say: Say) -> None:
    load = Load(root, name, say)
    while True:
        load.produce()


def consumer(root: Path, name: str, say: Say) -> None:
    load = Load(root, name, say)
    while True:
        load.consume()


def operator(root: Path, name: str, say: Say) -> None:
    """One who comes and goes."""
    for visit in numbers():
        load = Load(root, f"{name}.{visit}", say)
        with load.storage:
            load.operate()
        time.sleep(0.01)  # nobody waits for an operator


def alone(root: Path, name: str, say: Say) -> None:
    """All of it, so that no sync of another makes good for one that is missing."""
    load = Load(root, name, say)
    chance = Random(name)
    while True:
        chance.choices((load.produce, load.consume, load.operate), (4, 5, 1))[0]()


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
    cast = chance.choice(([alone], [producer, producer, consumer, consumer, operator]))
    acts = [partial(act, root, f"{act.__name__}{number}-{seed}") for number, act in enumerate(cast)]
    lines = chance.randrange(chance.choice((2, 50, 1000)))
    with acting(*acts) as actors:
        assert hear(actors, PATIENCE, lines)
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


def goes_on(root: Path, found: dict[Key, str], entry_id: str) -> dict[Key, str]:
    """The same is found once more, it works, and what was done is there afterwards."""
    with FileStorage(root, sizes=SIZES) as storage:
        assert look(storage) == found
        for name in QUEUES:
            queue = Queue(name, storage, str, retry_policy=POLICY)
            queue.enqueue(text(entry_id), id=entry_id)
            found[name, entry_id] = LIVING
            entry = queue.dequeue()
            queue.mark_completed(entry)
            del found[name, entry.id]
    with FileStorage(root, sizes=SIZES) as storage:
        assert look(storage) == found
    return found


def cut_and_check(
    disk: Disk, root: Path, seed: int, found: dict[Key, str]
) -> tuple[dict[Key, str], set[str]]:
    """What is there now, where that was before, and the kinds of change that were acknowledged."""
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
    assert not objections, objections[:5]
    return goes_on(root, found, f"on-{seed}"), truth.told


@pytest.mark.parametrize("share", range(SHARES))
def test_a_power_cut_takes_nothing_that_was_acknowledged(disk: Disk, share: int) -> None:
    """After a power cut all that was acknowledged is there, as it was, and nothing is that never was."""
    seen: set[str] = set()
    for number in range(CUTS[disk.kind]):
        seed = 1000 * share + number
        if number % CUTS_OF_A_STORAGE == 0:
            root, found = disk.mounted / f"{seed}", {}
        try:
            found, told = cut_and_check(disk, root, seed, found)
        except BaseException as error:
            error.add_note(f"share {share} on {disk.kind}, seed {seed}, the storage of {root.name}")
            raise
        seen |= told
        count(f"cut {disk.kind}")
    assert not DEEP or seen == set(ORDER)  # else the load is not what it is meant to be
