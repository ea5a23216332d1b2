"""A machine that lives through whatever a seed has in store for it: ``run`` is the whole of it.

Processes come, work and go; they are killed in the middle of calls, their calls fail, the power goes. Whoever
looks afterwards finds what the oracle says, and so does whoever opens an image of the disk that was taken in
between. The same seed does the same again.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from datetime import timedelta
from random import Random
from typing import NamedTuple

import pytest
from simulation.checker import Checker
from simulation.life import LEASE, MINUTE, Life
from simulation.oracle import Change, Model, Oracle, difference
from simulation.world import PLACE, QUEUES, Image, Machine, Process, SimulatedFileSystem, images

from duraq.errors import NotWritten, OutcomeUnknown, StorageError, StorageFailed
from duraq.examining import verify
from duraq.journal.log import Sizes
from duraq.operations import Complete, Operation, PauseQueue, Release, ResumeQueue
from duraq.testing import Crashed
from duraq.testing.disk import Disk
from duraq.testing.faults import Fault
from duraq.testing.power_cut import Chance, after_power_cut

SIZES = (Sizes(8 << 10, 1 << 10), Sizes(8 << 10, 2 << 10), Sizes(16 << 10, 1 << 10))
STEPS = 60
PROCESSES = 3
MOMENTS = 20  # of a step, at most, that are looked at

# What may fail, and how. Not the sync of a directory: this disk then loses its names although the cache goes
# on showing them; real file systems journal names, and stop themselves when that fails.
FAILURES = (
    ("datasync", errno.EIO, "*.journal"),
    ("datasync", errno.EIO, "*.jsonl"),
    ("sync", errno.EIO, "*.journal"),
    ("pwrite", errno.ENOSPC, "*.journal"),
    ("pwrite", errno.ENOSPC, "*.jsonl"),
    ("pwrite", errno.EIO, "*"),
    ("open_file", errno.EMFILE, "*"),
    ("rename", errno.EIO, "*"),
    ("truncate", errno.EIO, "*"),
    ("unlink", errno.EIO, "*"),
)


class Moment(NamedTuple):
    """Images of the disk at a call, and what may be in them."""

    images: list[Image]
    allowed: list[Model]


class Simulation(Life):
    """One life. ``chances``: guesses of what a power cut leaves, at each call that is looked at."""

    def __init__(self, seed: int, checker: Checker, chances: int) -> None:
        self.seed = seed
        self.chance = Random(seed)
        super().__init__(Machine(self.chance.choice(SIZES)), Oracle())
        self.chances = chances
        self.checker = checker
        self.processes: list[Process] = []
        self.fails = self.chance.random() < 0.3  # whether calls may fail in this life
        self.checker.whole = self.fails
        self.faults: list[Fault] = []
        self.left: Disk | None = None  # by a power cut
        self.moments: list[Moment] = []
        self.done: list[str] = []  # for whoever has to understand what has happened

    def live(self) -> None:
        while len(self.done) < STEPS or not self.processes:
            self._step()
        self._look()

    @property
    def where(self) -> str:
        return f"DURAQ_SEED={self.seed}, step {len(self.done)}: {'; '.join(self.done[-8:])}"

    # -- a step ----------------------------------------------------------------------------------------

    def _step(self) -> None:
        try:
            if not self.processes or (len(self.processes) < PROCESSES and self.chance.random() < 0.1):
                self._open()
            else:
                self._do_something()
        finally:
            self._calm_down()
        self._check()

    def _calm_down(self) -> None:
        """Nothing goes wrong any more."""
        for process in self.processes:
            process.fs.before = None
            process.fs.heal()
        self.faults.clear()

    def _do_something(self) -> None:
        self.process = self.chance.choice(self.processes)
        kind = self.chance.choices(list(KINDS), list(KINDS.values()))[0]
        queue, salt = self.chance.choice(QUEUES), self.chance.randrange(1000)
        self.done.append(f"{kind.__name__} {queue} {salt} by {self.process.worker}")
        if len(self.oracle.now) > 1 and kind is not Simulation.feed:
            self._look()
        if not self.processes:
            return
        if kind not in QUIET:
            self._prepare(self.process.fs, 12)
        kind(self, queue, salt)

    def _prepare(self, fs: SimulatedFileSystem, calls: int) -> None:
        """Whatever is to go wrong in the calls to come, and how closely they are looked at."""
        chance, cut = self.chance, 0
        luck = chance.random()
        if luck < 0.05:
            fs.crash_after(chance.randint(1, calls), tear=chance.random() < 0.5)
        elif luck < 0.1:
            cut = chance.randint(1, calls)
        elif luck < 0.2 and self.fails:
            call, error, name = chance.choice(FAILURES)
            short = chance.randrange(200) if error == errno.ENOSPC and chance.random() < 0.5 else None
            self.faults.append(fs.fail(call, error, when=chance.randint(1, 3), name=name, short=short))
        self._watch(fs, cut)

    def _watch(self, fs: SimulatedFileSystem, cut: int) -> None:
        """Look at the disk at some of the calls to come; at the ``cut``-th the power goes."""
        luck, begun = Random(f"{self.seed} {len(self.done)}"), fs.calls
        share = luck.choice((0.0, 0.3, 1.0))

        def before() -> None:
            call = fs.calls - begun + 1
            if luck.random() < share and len(self.moments) < MOMENTS:
                where = f"{self.where}, call {call}"
                taken = list(images(self.machine.disk, where, self.chances, whole=self.fails))
                self.moments.append(Moment(taken, self.oracle.allowed()))
            if call == cut:
                self.left = after_power_cut(self.machine.disk, Chance(luck))
                fs.die()
                raise Crashed("the power has gone")

        fs.before = before

    def _check(self) -> None:
        moments, self.moments = self.moments, []
        for moment in moments:
            self.checker.check(self.machine, moment.images, moment.allowed)

    # -- what becomes of a call ------------------------------------------------------------------------

    def do(self, changes: Sequence[Change], call: Callable[[], object], *, durable: bool = True) -> bool:
        try:
            return super().do(changes, call, durable=durable)
        except Crashed:
            self.oracle.broken_off()
            self._died()
        except (OutcomeUnknown, StorageFailed):
            if not self.fails:
                raise
            self.oracle.broken_off()
            self._give_up()
        except StorageError as error:
            if not any(fault.hits for fault in self.faults):
                raise
            self.done[-1] += ", and its call fails"
            if isinstance(error, NotWritten):
                self.oracle.refused()
            else:
                self.oracle.broken_off()
        return False

    def _give_up(self) -> None:
        """Nobody can go on with this storage before all have closed it."""
        self.done[-1] += ", nobody can go on"
        for process in list(self.processes):
            self._kill(process)

    def _died(self) -> None:
        self.done[-1] += ", and dies"
        for process in [each for each in self.processes if each.fs.dead]:
            self._kill(process)
        if self.left is not None:
            self._reboot(self.left)

    def _kill(self, process: Process) -> None:
        self.machine.kill(process)
        self.processes.remove(process)

    def _reboot(self, disk: Disk) -> None:
        self.done[-1] += ", the power goes"
        for process in list(self.processes):
            self._kill(process)
        # What was taken before is checked on the machine that it was taken on.
        self._check()
        self.machine, self.left = self.machine.rebooted(disk), None
        self.oracle.cut()

    def _open(self) -> None:
        """Another process, unless it dies of it, or is refused because its calls fail."""
        durability = self.chance.choice(("power", "power", "process"))
        self.done.append(f"opened, {durability}")
        fs = self.machine.file_system()
        if not self.processes:
            self.oracle.alone()
        self._prepare(fs, 20)
        opened: list[Process] = []
        if not self.do([], lambda: opened.append(Process(self.machine, fs, durability)), durable=False):
            fs.die()
            return
        self.processes += opened
        self._calm_down()
        if self.oracle.was_cut:
            self._look()

    def _look(self) -> None:
        """Somebody looks; from here on it is known what is true."""
        try:
            found, now = self.chance.choice(self.processes).look(), self.machine.now
        except StorageFailed:
            if not self.fails:
                raise
            self._give_up()
            return
        possible = self.oracle.possible()
        if not self.oracle.seen(found, now):
            pytest.fail(f"{self.where}: {difference(found, possible[-1].told(now))}")

    # -- what is done ----------------------------------------------------------------------------------

    def feed(self, queue: str, salt: int) -> None:
        delay, ttl = (LEASE if salt % 7 == 0 else None), (2 * LEASE if salt % 5 == 0 else None)
        self.commit({queue: [self.new(salt % 450, salt % 3, fresh=salt % 2 == 0, delay=delay, ttl=ttl)]})

    def feed_many(self, queue: str, salt: int) -> None:
        self.commit({queue: [self.new((salt + 7 * n) % 150, n % 2) for n in range(2 + salt % 9)]})

    def feed_much(self, queue: str, salt: int) -> None:
        """More than a journal file holds."""
        self.commit({queue: [self.new(400) for _ in range(24)], "a": [self.new(salt)]})

    def dequeue(self, queue: str, salt: int) -> None:
        if self.settle(queue):
            self.claim(queue, 1 + salt % 3)

    def work(self, queue: str, salt: int) -> None:
        """One that it holds is ended, or held for longer."""
        held = self.held(queue)
        if held:
            row, luck = held[salt % len(held)], salt // 10 % 10
            if luck < 5:
                self.complete(queue, row)
            elif luck < 7:
                self.fail(queue, row, MINUTE * (salt % 2))
            elif luck < 8:
                self.bury(queue, row)
            elif luck < 9:
                self.release(queue, row)
            else:
                self.extend(queue, row)

    def complete_wrongly(self, queue: str, salt: int) -> None:
        leased = self.oracle.model.line(queue).having("leased", self.machine.now)
        if leased:
            self.complete_in_vain(queue, leased[salt % len(leased)])

    def move(self, queue: str, salt: int) -> None:
        """A transaction: what comes of an entry, in all queues, and its end; some are undone."""
        changes: dict[str, list[Operation]] = {name: [self.new(salt % 100)] for name in QUEUES}
        changes[queue] += [Complete(row.id, row.token) for row in self.held(queue)[:2]]
        self.transaction(changes, undone=salt % 4 == 0)

    def bring_back(self, queue: str, salt: int) -> None:
        """A dead letter is put back, or removed."""
        dead = self.oracle.model.line(queue).having("dead", self.machine.now)
        if dead:
            (self.retry if salt % 2 else self.remove)(queue, dead[salt % len(dead)])

    def pause(self, queue: str, salt: int) -> None:
        """Or go on."""
        paused = self.oracle.model.line(queue).pause is not None
        self.commit({queue: [ResumeQueue("ann") if paused else PauseQueue("ann", f"because {salt}")]})

    def squeeze(self, queue: str, _salt: int) -> None:
        if queue in self.process.storage.queues():
            self.compact(queue)

    def wait(self, _queue: str, salt: int) -> None:
        """For a moment, or so long that leases end and entries are over."""
        self.machine.clock.advance(timedelta(minutes=11) if salt % 9 == 0 else timedelta(seconds=1))

    def examine(self, _queue: str, _salt: int) -> None:
        """Beside whoever works."""
        report = verify(PLACE, file_system=self.machine.file_system())
        assert report.sound, f"{self.where}: {report.findings}"

    def leave(self, _queue: str, _salt: int) -> None:
        """Close the storage, which gives back what is held."""
        held = [(name, row) for name in QUEUES for row in self.held(name)]
        for name, row in held[1:]:
            # By hand, for in which order it gives back several is not promised.
            self.release(name, row)
        ends = {name: [Release(row.id, row.token)] for name, row in held[:1]}
        now = self.machine.now
        self.do([lambda model: model.after(ends, now)], self.process.storage.close, durable=False)
        self.processes.remove(self.process)

    def die(self, _queue: str, salt: int) -> None:
        """Killed between two calls; or all are."""
        for process in list(self.processes) if salt % 3 == 0 else [self.process]:
            self._kill(process)

    def lose_power(self, _queue: str, _salt: int) -> None:
        self._reboot(after_power_cut(self.machine.disk, Chance(self.chance)))


Kind = Callable[[Simulation, str, int], None]
KINDS: dict[Kind, int] = {
    Simulation.feed: 20,
    Simulation.feed_many: 10,
    Simulation.feed_much: 1,
    Simulation.dequeue: 20,
    Simulation.work: 30,
    Simulation.complete_wrongly: 2,
    Simulation.move: 10,
    Simulation.bring_back: 4,
    Simulation.pause: 2,
    Simulation.squeeze: 3,
    Simulation.wait: 6,
    Simulation.examine: 2,
    Simulation.leave: 2,
    Simulation.die: 4,
    Simulation.lose_power: 2,
}
# In which nothing else goes wrong: they are no calls, or several.
QUIET = {Simulation.wait, Simulation.examine, Simulation.leave, Simulation.die, Simulation.lose_power}


def run(seed: int, *, chances: int, share: int) -> int:
    """Live that life; how many distinct images of crashes were checked in it."""
    checker = Checker(share=share)
    Simulation(seed, checker, chances).live()
    return len(checker.distinct)
