"""Processes whose calls are mixed, call by call, as a seed wants it: ``run`` is the whole of it.

Each process is a thread, and one of them at a time has the baton. Before each call to the disk it may have
to give it away; who waits for a lock does so until others have given it up. Nobody can say in which order
changes will come about, so what is checked is what was promised of each of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain, count
from random import Random
from typing import Any
from zlib import crc32

import pytest
from simulation.checker import Checker
from simulation.life import ERROR
from simulation.oracle import ATTEMPTS, State
from simulation.world import PLACE, Machine, Process, SimulatedFileSystem, images

from duraq import forks
from duraq.examining import verify
from duraq.journal.log import Sizes
from duraq.model import Cause
from duraq.operations import Bury, Complete, Enqueue, Fail, Operation, Release
from duraq.testing import Crashed
from duraq.testing.disk import Disk
from duraq.testing.faults import CALLS

SIZES = Sizes(8 << 10, 1 << 10)
NAMES = ("a", "b")
ACTORS = 3
EACH = 20  # calls that each of them makes
LOOKS, DEATHS = 0.1, 0.003  # a turn
PATIENCE = 10_000  # turns in which nobody gets on


@dataclass
class Change:
    """What a call is to do, all of it or nothing, and between which moments it did if it has returned."""

    begun: int
    made: dict[str, list[str]] = field(default_factory=dict)  # ids of new entries, by queue
    over: list[str] = field(default_factory=list)  # ids of entries that it completes
    ended: int | None = None
    seen: bool = False  # by somebody who was given one of its entries


class Facts:
    """What is known of all calls."""

    def __init__(self) -> None:
        self.moments = count(1)
        self.changes: list[Change] = []
        self.maker: dict[str, Change] = {}
        self.payloads: dict[str, int] = {}
        self.enders: dict[str, list[Change]] = {}
        self.buried: set[str] = set()
        self.held: dict[str, Actor] = {}

    def begin(self, made: dict[str, list[Enqueue]], over: Sequence[str]) -> Change:
        ids = {queue: [each.id for each in entries] for queue, entries in made.items()}
        change = Change(next(self.moments), ids, list(over))
        self.changes.append(change)
        for entries in made.values():
            for each in entries:
                self.maker[each.id], self.payloads[each.id] = change, crc32(each.payload)
        for name in over:
            self.enders.setdefault(name, []).append(change)
        return change

    def given(self, name: str, actor: Actor) -> None:
        """An entry was handed out."""
        holder = self.held.get(name)
        assert holder is None or holder.process.fs.dead, f"{name} is given to two"
        assert not any(each.ended for each in self.enders.get(name, ())), f"{name} was completed before"
        self.held[name] = actor
        self.maker[name].seen = True

    def check(self, state: State, where: str) -> None:
        """Whether this is what somebody may find who comes now."""
        there = {row.id: row for _, rows, _, _ in state for row in rows}
        for name, row in there.items():
            assert row.payload == self.payloads.get(name), f"{where}: {name} is another"
            dies = name in self.buried or row.attempts >= ATTEMPTS
            assert row.status != "dead" or dies, f"{where}: {name} is dead"
        for change in self.changes:
            self._check_change(change, there.keys(), where)
        for queue, rows, _, _ in state:
            self._check_order(queue, [row.id for row in rows], where)

    def _check_change(self, change: Change, there: Iterable[str], where: str) -> None:
        """That it is there wholly or not at all, and wholly if that was said."""
        signs = set()
        for name in (name for names in change.made.values() for name in names):
            if name in there:
                signs.add(True)
            elif not self.enders.get(name):
                signs.add(False)
        for name in change.over:
            if name in there:
                signs.add(False)
            elif len(self.enders[name]) == 1:
                signs.add(True)
        if change.ended or change.seen:
            assert False not in signs, f"{where}: {change} is lost"
        assert len(signs) < 2, f"{where}: {change} is there by half"

    def _check_order(self, queue: str, names: Sequence[str], where: str) -> None:
        latest = 0
        for name in names:
            maker = self.maker[name]
            assert maker.ended is None or maker.ended > latest, f"{where}: {name} of {queue} is too late"
            latest = max(latest, maker.begun)


class Stepped(SimulatedFileSystem):
    """The calls of one process, which gives the baton away before some of them."""

    turn: Callable[[], None]

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk=disk)
        for call in CALLS:
            # On the instance, so that each call as a whole comes after it, and none comes in between.
            setattr(self, call, self._after_turn(getattr(self, call)))

    def _after_turn(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(*arguments: Any, **named: Any) -> Any:
            self.turn()
            return call(*arguments, **named)

        return calling

    def _wait_for_lock(self, call: str, fd: int, *, exclusive: bool) -> None:
        while not self._description(fd).take_lock(exclusive=exclusive):
            self.turn()


class Actor:
    """A process and its thread. It runs from ``go`` until it gives the baton back."""

    def __init__(self, life: Interleaved, number: int) -> None:
        self.life, self.number = life, number
        self.chance = Random(f"{life.seed} {number}")
        self.done = False
        self.error: BaseException | None = None
        self._mine, self._others = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.fs = Stepped(disk=life.machine.disk)
        self.fs.turn = self._turn
        self.process: Process
        self._thread.start()

    def go(self) -> None:
        """Give it the baton, and wait until it gives it back."""
        self._mine.release()
        self._others.acquire()

    def _turn(self) -> None:
        # A forked child, of a later test, closes what it finds open here, and has no such thread.
        if threading.current_thread() is self._thread and self.life.chance.random() < self.life.share:
            self._others.release()
            self._mine.acquire()

    def _run(self) -> None:
        self._mine.acquire()
        try:
            self.process = Process(self.life.machine, self.fs)
            for _ in range(EACH):
                self._call()
        except Crashed:
            pass
        except BaseException as error:  # noqa: BLE001 - raised where the baton is given out
            self.error = error
        self.done = True
        self._others.release()

    def _call(self) -> None:
        """Whatever comes into its mind."""
        chance, queue = self.chance, self.chance.choice(NAMES)
        held = [name for name, holder in self.life.facts.held.items() if holder is self]
        if held and chance.random() < 0.6:
            self._end(chance.choice(held))
        elif chance.random() < 0.5:
            self._commit({queue: [self._new() for _ in range(chance.choice((1, 1, 3)))]})
        elif chance.random() < 0.9:
            self._dequeue(queue, chance.choice((1, 2)))
        elif queue in self.process.storage.queues():
            self.process.storage.compact(queue)

    def _new(self) -> Enqueue:
        number = next(self.life.numbers)
        payload = b'"%d %s"' % (number, b"x" * self.chance.randrange(200))
        return Enqueue(str(number), payload, fresh=self.chance.random() < 0.5)

    def _commit(self, made: dict[str, list[Enqueue]], ends: dict[str, list[Operation]] | None = None) -> None:
        ends = ends or {}
        over = [each.id for each in chain(*ends.values()) if isinstance(each, Complete)]
        change = self.life.facts.begin(made, over)
        changes = {
            name: [*ends.get(name, ()), *made.get(name, ())] for name in NAMES if name in ends or name in made
        }
        self.process.storage.commit(changes)
        change.ended = next(self.life.facts.moments)

    def _dequeue(self, queue: str, limit: int) -> None:
        self.process.queue(queue).settle_lapsed()
        for each in self.process.storage.claim(queue, limit):
            self.life.facts.given(each.id, self)
            self.life.leases[each.id] = queue, each.token

    def _end(self, name: str) -> None:
        """From the moment it begins to say so, another one may be given it."""
        facts, chance = self.life.facts, self.chance
        queue, token = self.life.leases[name]
        del facts.held[name]
        kind = chance.choice(("complete", "complete", "move", "fail", "bury", "release"))
        if kind in {"complete", "move"}:
            made = {each: [self._new()] for each in NAMES} if kind == "move" else {}
            self._commit(made, {queue: [Complete(name, token)]})
            return
        now = self.life.machine.now
        if kind == "bury":
            facts.buried.add(name)
        end: dict[str, Operation] = {
            "fail": Fail(name, token, Cause.FAILED, ERROR, now),
            "bury": Bury(name, token, Cause.FAILED, ERROR),
            "release": Release(name, token),
        }
        self.process.storage.commit({queue: [end[kind]]})


class Interleaved:
    """One life of a few processes at once, with images of the disk at some of its moments."""

    def __init__(self, seed: int, checker: Checker, chances: int) -> None:
        self.seed, self.checker, self.chances = seed, checker, chances
        self.chance = Random(seed)
        self.share = self.chance.choice((0.1, 0.3, 1.0))
        self.machine = Machine(SIZES, Disk())
        self.facts = Facts()
        self.numbers = count(1)
        self.leases: dict[str, tuple[str, int]] = {}
        self.turns = 0

    @property
    def where(self) -> str:
        return f"DURAQ_SEED={self.seed}, interleaved, turn {self.turns}"

    def live(self) -> None:
        self.actors = actors = [Actor(self, number) for number in range(ACTORS)]
        try:
            while working := [actor for actor in actors if not actor.done]:
                self.turns += 1
                assert self.turns < PATIENCE, f"{self.where}: they wait for each other"
                actor = self.chance.choice(working)
                if self.chance.random() < DEATHS:
                    self._kill(actor)
                actor.go()
                if actor.error is not None:
                    raise AssertionError(self.where) from actor.error
                if self.chance.random() < LOOKS:
                    self._check()
        finally:
            for actor in actors:
                while not actor.done:
                    self._kill(actor)
                    actor.go()
        self._check()
        self.facts.check(self.machine.open().look(), self.where)

    def _kill(self, actor: Actor) -> None:
        actor.fs.die()
        if hasattr(actor, "process"):
            self.machine.living.discard(actor.process.worker)

    def _check(self) -> None:
        if self.chance.random() < 0.1 and any(hasattr(each, "process") for each in self.actors):
            report = verify(PLACE, file_system=self.machine.file_system())
            assert report.sound, f"{self.where}: {report.findings}"
        for image in images(self.machine.disk, self.where, self.chances):
            self.facts.check(self.checker.found(self.machine, image), image.where)


def run(seed: int, *, chances: int, share: int) -> int:
    """Live that life; how many distinct images of crashes were checked in it."""
    checker = Checker(share=share)
    with pytest.MonkeyPatch.context() as patch:
        # Of one process; here it would be one lock of several.
        patch.setattr(forks, "no_fork", nullcontext())
        Interleaved(seed, checker, chances).live()
    return len(checker.distinct)
