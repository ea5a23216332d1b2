"""Runs of a migration, those who give it up, workers and producers, in whatever order they come to act."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random

import pytest
from conftest import DEEP, SMALL
from evidence import count

import duraq
from duraq import CannotMigrate, DeadLetterQueue, FixedDelay, Queue
from duraq.errors import ActNotFound, EntryNotFound, QueueNotFound
from duraq.migration import give_up, migrate, stopping
from duraq.storage.transacting import TransactingStorage

pytestmark = pytest.mark.timeout(3600)

ENTRIES = 8
ONCE = FixedDelay(max_attempts=1)
SEEDS = range(500 if DEEP else 8)
KINDS = {"f": "file", "s": "sqlite"}
# What an actor does to a storage in one step: others may come between any two of these.
STEPS = ("commit", "paused", "page", "some", "counts", "claim", "head")


class Killed(BaseException):
    """What is left of a process that is no more."""


@dataclass
class Actor:
    """A thread that does a step whenever it is told to."""

    name: str
    thread: threading.Thread | None = None
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    is_killed: bool = False
    is_done: bool = False
    failed: BaseException | None = None


class Stage:
    """Has one actor at a time do one step, as the seed has it."""

    def __init__(self, chance, monkeypatch):
        self.chance = chance
        self.actors = []
        self.back = threading.Semaphore(0)
        self.here = threading.local()
        for name in STEPS:
            monkeypatch.setattr(TransactingStorage, name, self._stepped(getattr(TransactingStorage, name)))

    def _stepped(self, method):
        def stepped(storage, *arguments, **options):
            actor = getattr(self.here, "actor", None)
            if actor is not None:
                self.back.release()
                actor.go.acquire()
                if actor.is_killed:
                    raise Killed
            return method(storage, *arguments, **options)

        return stepped

    def enter(self, name, act):
        """One more who does that."""
        actor = Actor(name)

        def run():
            actor.go.acquire()
            self.here.actor = actor
            try:
                with suppress(Killed):
                    act()
            except BaseException as error:  # noqa: BLE001 - told to the test
                actor.failed = error
            finally:
                actor.is_done = True
                self.back.release()

        actor.thread = threading.Thread(target=run, daemon=True)
        actor.thread.start()
        self.actors.append(actor)
        return actor

    def play(self, steps, more):
        """So many steps, and then to the end; ``more`` may let somebody enter, or have somebody killed."""
        while living := [each for each in self.actors if not each.is_done]:
            if steps > 0:
                more(living)
            steps -= 1
            actor = self.chance.choice(living)
            # In one go it is often past the point that matters.
            for _ in range(self.chance.choice([1, 1, 3, 20])):
                actor.go.release()
                self.back.acquire()
                if actor.is_done:
                    break
            if actor.failed is not None:
                raise actor.failed


class World:
    """Storages, the ways between them, and what was done in any.

    ``alone``: the one that somebody gives up by itself; None: always both ends of a way.
    """

    def __init__(self, home, chance, kinds, ways, alone):
        self.chance = chance
        self.urls = [f"{KINDS[kind]}:{home}/{number}" for number, kind in enumerate(kinds)]
        self.ways = [(self.urls[here], self.urls[there]) for here, there in ways]
        self.alone = None if alone is None else self.urls[alone]
        self.made, self.done = [f"e{number}" for number in range(ENTRIES)], Counter()
        self.under = {}  # keys, by entry
        for url in self.urls:
            self.opened(url).close()
        with self.opened(self.urls[0]) as storage:
            queue = Queue("jobs", storage, retry_policy=ONCE)
            queue.enqueue_many(self.made, ids=self.made)
            for entry in queue.dequeue(limit=3):
                queue.mark_failed(entry, "no")
            DeadLetterQueue("jobs", None, storage).remove("e0")
        self.acts = [
            self.move,
            self.end,
            self.work,
            self.work,
            self.mend,
            self.mend,
            self.feed,
            self.feed_once,
        ]

    @staticmethod
    def opened(url):
        """The storage, small and not durable."""
        small = {"sizes": SMALL} if url.startswith("file:") else {}
        return duraq.open(url, durability="process", **small)

    def move(self):
        """A run."""
        with suppress(CannotMigrate):
            migrate(*self.chance.choice(self.ways), merge=True)

    def end(self):
        """Somebody who gives it up."""
        alone = self.alone is not None and self.chance.random() < 0.5
        with suppress(CannotMigrate):
            give_up(*([self.alone] if alone else self.chance.choice(self.ways)))

    def work(self):
        """A worker who takes one or two entries and is done."""
        with self.opened(self.chance.choice(self.urls)) as storage:
            queue = Queue("jobs", storage)
            for _ in range(2):
                entry = queue.dequeue()
                if entry is not None:
                    queue.mark_completed(entry)
                    self.done[entry.id] += 1

    def mend(self, url=""):
        """Somebody who brings back what was removed, puts dead letters back, and resumes the queue."""
        with self.opened(url or self.chance.choice(self.urls)) as storage:
            letters = DeadLetterQueue("jobs", None, storage)
            for act in (letters.undo, letters.retry_all, Queue("jobs", storage).resume):
                with suppress(CannotMigrate, ActNotFound, EntryNotFound, QueueNotFound):
                    act()

    def feed(self):
        """A producer."""
        with self.opened(self.urls[0]) as storage:
            # He who is killed has not enqueued it: there is no step behind that.
            self.made.append(Queue("jobs", storage).enqueue("x"))

    def feed_once(self):
        """A producer who uses a key, in whichever storage."""
        key = self.chance.choice("kl")
        with self.opened(self.chance.choice(self.urls)) as storage:
            self.under[Queue("jobs", storage).enqueue("x", key=key)] = key

    @staticmethod
    def is_moved(source, target):
        """Whether another run is all that it takes."""
        try:
            return migrate(source, target, merge=True).complete
        except CannotMigrate:
            return False

    def finish(self):
        """Everything moved, and worked where it is; returns what is left."""
        for way in self.ways:
            # One may be in the way of another one: whoever is told so, and to give it up, does.
            if not self.is_moved(*way):
                for other in self.ways:
                    with suppress(CannotMigrate):
                        give_up(*other)
        for way in self.ways:
            moved = migrate(*way, merge=True)
            assert moved.complete, moved
        left = []
        for url in self.urls:
            with self.opened(url) as storage:
                Queue("jobs", storage).pause()  # what was removed may have come here by itself
            self.mend(url)
            with self.opened(url) as storage:
                queue = Queue("jobs", storage)
                while (entry := queue.dequeue()) is not None:
                    queue.mark_completed(entry)
                    self.done[entry.id] += 1
                left += storage.entries("jobs")
        return left


@pytest.mark.parametrize("alone", [None, 0, 1])
@pytest.mark.parametrize(
    "ways", [[(0, 1)], [(0, 1), (0, 2)], [(0, 1), (1, 0)], [(0, 1), (1, 2)]], ids=["one", "two", "back", "on"]
)
def test_whoever_comes_between(ways, alone, tmp_path, monkeypatch):
    """Each entry is worked once, in one storage, whoever runs, dies, gives up, works, mends and feeds."""
    monkeypatch.setattr("duraq.migration.carrying.AT_ONCE", 3)
    monkeypatch.setattr(stopping, "_LOOK", 0)
    for seed in SEEDS:
        chance = Random(f"{ways} {alone} {seed}")
        home = tmp_path / str(seed)
        home.mkdir()
        world = World(home, chance, chance.choice(["fss", "sfs", "sss"]), ways, alone)
        with monkeypatch.context() as patched:
            stage = Stage(chance, patched)
            stage.enter("run", world.move)

            def more(living, chance=chance, stage=stage, world=world):
                if len(living) < 4 and chance.random() < 0.2:
                    stage.enter("more", chance.choice(world.acts))
                if chance.random() < 0.02:
                    chance.choice(living).is_killed = True

            with told(f"seed {seed}"):
                stage.play(150, more)
                left = world.finish()
            with told(f"seed {seed}"):
                assert left == []
                assert set(world.done.values()) == {1}
                assert world.done.keys() - world.under.keys() == set(world.made)
                # Of those under one key any may have been ended, for another one was there; but not all.
                assert {world.under[each] for each in world.done.keys() & world.under.keys()} == set(
                    world.under.values()
                )
        count("migrated")


@contextmanager
def told(what):
    """Whatever goes wrong in it says that."""
    try:
        yield
    except BaseException as error:
        error.add_note(what)
        raise
