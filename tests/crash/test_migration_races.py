"""Runs of a migration, those who give it up, workers and producers, in whatever order they come to act."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
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

ENTRIES = 8
ONCE = FixedDelay(max_attempts=1)
SEEDS = range(2000 if DEEP else 60)
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
    """A source, a target, and what was done in either."""

    def __init__(self, home, kinds, alone):
        self.source, self.target = f"{kinds[0]}:{home}/source", f"{kinds[1]}:{home}/target"
        self.alone = alone
        self.made, self.done = [f"e{number}" for number in range(ENTRIES)], Counter()
        for url in (self.source, self.target):
            with self.opened(url) as storage:
                queue = Queue("jobs", storage, retry_policy=ONCE)
                if url == self.source:
                    queue.enqueue_many(self.made, ids=self.made)
                    for entry in queue.dequeue(limit=3):
                        queue.mark_failed(entry, "no")
                    DeadLetterQueue("jobs", None, storage).remove("e0")

    @staticmethod
    def opened(url):
        """The storage, small and not durable."""
        small = {"sizes": SMALL} if url.startswith("file:") else {}
        return duraq.open(url, durability="process", **small)

    def move(self):
        """A run."""
        with suppress(CannotMigrate):
            migrate(self.source, self.target, merge=True)

    def end(self):
        """Somebody who gives it up."""
        with suppress(CannotMigrate):
            if self.alone == "both":
                give_up(self.source, self.target)
            else:
                give_up(self.source if self.alone == "source" else self.target)

    def work(self, url):
        """A worker who takes one or two entries and is done."""
        with self.opened(url) as storage:
            queue = Queue("jobs", storage)
            for _ in range(2):
                entry = queue.dequeue()
                if entry is not None:
                    queue.mark_completed(entry)
                    self.done[entry.id] += 1

    def mend(self, url):
        """Somebody who puts dead letters back, or brings back what was removed; or resumes the queue."""
        with self.opened(url) as storage:
            letters = DeadLetterQueue("jobs", None, storage)
            for act in (letters.undo, letters.retry_all, Queue("jobs", storage).resume):
                with suppress(CannotMigrate, ActNotFound, EntryNotFound, QueueNotFound):
                    act()

    def feed(self):
        """A producer."""
        name = f"e{len(self.made)}"
        self.made.append(name)
        with self.opened(self.source) as storage:
            Queue("jobs", storage).enqueue("x", id=name)

    def finish(self):
        """Everything moved, and worked where it is; returns what is left."""
        moved = migrate(self.source, self.target, merge=True)
        assert moved.complete, moved
        self.mend(self.target)
        left = []
        for url in (self.source, self.target):
            with self.opened(url) as storage:
                queue = Queue("jobs", storage)
                while (entry := queue.dequeue()) is not None:
                    assert url == self.target
                    queue.mark_completed(entry)
                    self.done[entry.id] += 1
                left += storage.entries("jobs")
        return left


@pytest.mark.parametrize("alone", ["both", "source", "target"])
@pytest.mark.parametrize("kinds", [("file", "sqlite"), ("sqlite", "file")])
def test_whoever_comes_between(alone, kinds, tmp_path, monkeypatch):
    """Each entry is worked once, in either storage, whoever runs, kills, gives up, works, mends and feeds."""
    monkeypatch.setattr("duraq.migration.carrying.AT_ONCE", 3)
    monkeypatch.setattr(stopping, "_LOOK", 0)
    for seed in SEEDS:
        chance = Random(f"{alone} {kinds} {seed}")
        home = tmp_path / str(seed)
        home.mkdir()
        world = World(home, kinds, alone)
        with monkeypatch.context() as patched:
            stage = Stage(chance, patched)
            stage.enter("run", world.move)
            acts = [
                lambda world=world: world.move(),
                lambda world=world: world.end(),
                *(lambda url=url, world=world: world.work(url) for url in (world.source, world.target)),
                *(lambda url=url, world=world: world.mend(url) for url in (world.source, world.target)),
                lambda world=world: world.feed(),
            ]

            def more(living, chance=chance, stage=stage, acts=acts):
                if len(living) < 4 and chance.random() < 0.2:
                    stage.enter("more", chance.choice(acts))
                runs = [each for each in living if each.name == "run"]
                if runs and chance.random() < 0.02:
                    runs[0].is_killed = True

            try:
                stage.play(150, more)
                left = world.finish()
            except BaseException:
                print(f"seed {seed} of {alone} {kinds}")
                raise
        assert (seed, left) == (seed, [])
        assert (seed, dict(world.done)) == (seed, dict.fromkeys(world.made, 1))
        count("migrated")
