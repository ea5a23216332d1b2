"""What must be true of a disk that a crash has left: it opens, and in it is what may be there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

import pytest
from simulation.oracle import Model, State, difference
from simulation.world import PLACE, QUEUES, Image, Machine, Process, SimulatedFileSystem, images

from duraq import DuraqError
from duraq.examining import verify
from duraq.operations import Complete, Enqueue, Operation, ResumeQueue
from duraq.testing.disk import Disk
from duraq.testing.power_cut import Nothing, after_power_cut

DEPTH = 3  # a recovery, that of what it has left when it was cut short, and once more
WIDTH = 4  # of the images of such a recovery, so many are checked
NOBODY = 1_000_000  # from here on, workers that only look what is there

States = Mapping[State, Model | None]


class Checker:
    """Checks images, each of them once: the same bytes hold the same.

    ``share``: one of so many distinct images is looked at more closely: its recovery is cut short as well,
    and that of what this leaves, and it has to work. ``whole``: whether the notes of living processes matter.
    """

    def __init__(self, *, share: int, whole: bool = False) -> None:
        self.share = share
        self.whole = whole
        self.distinct: set[bytes] = set()
        self._found: dict[tuple[bytes, int], State] = {}

    def check(self, machine: Machine, taken: Iterable[Image], allowed: Sequence[Model]) -> None:
        """Each of these images, left by a power cut, holds one of these models."""
        self._check(machine, taken, {model.told(machine.now): model for model in allowed}, DEPTH)

    def check_killed(
        self, machine: Machine, disk: Disk, where: str, now: Sequence[Model], allowed: Sequence[Model]
    ) -> None:
        """A disk whose processes were killed holds a model of ``now``.

        If the power goes during its recovery, it is one of the ``allowed``.
        """
        same = Machine(machine.sizes, disk, machine.clock, NOBODY)
        process, cuts = self._watched(same, where)
        self._expect(process.look(), {model.told(machine.now): model for model in now}, where)
        same.kill(process)
        self._check(same, cuts, {model.told(machine.now): model for model in allowed}, DEPTH - 1)

    def found(self, machine: Machine, image: Image) -> State:
        """What is in it; that much must be in it however often it is opened, and broken off."""
        return self._look(machine, image, None, DEPTH)

    def _check(self, machine: Machine, taken: Iterable[Image], states: States, depth: int) -> None:
        for image in taken:
            self._expect(self._look(machine, image, states, depth), states, image.where)

    def _look(self, machine: Machine, image: Image, states: States | None, depth: int) -> State:
        key = image.digest, machine.now
        if key not in self._found:
            self._found[key] = self._open(machine.rebooted(image.disk, NOBODY), image, states, depth)
            self.distinct.add(image.digest)
        return self._found[key]

    def _open(self, machine: Machine, image: Image, states: States | None, depth: int) -> State:
        closely = int.from_bytes(image.digest[:4]) % self.share == 0
        process, cuts = (
            self._watched(machine, image.where) if closely and depth else (opened(machine, image.where), [])
        )
        found = process.look()
        machine.kill(process)
        model = None
        if states is not None:
            self._expect(found, states, image.where)
            model = states[found]
        if closely:
            self._check(machine, cuts, {found: model}, depth - 1)
            works(machine, found, model, image.where)
        return found

    def _expect(self, found: State, states: States, where: str) -> None:
        if found not in states:
            pytest.fail(f"{where}: {difference(found, list(states)[-1])}")

    def _watched(self, machine: Machine, where: str) -> tuple[Process, list[Image]]:
        """A process that has opened it, and some images of the moments on the way."""
        taken: list[Image] = []
        fs = machine.file_system()

        def before() -> None:
            moment = f"{where}; call {fs.calls + 1} of recovery"
            taken.extend(images(machine.disk, moment, 1, whole=self.whole))

        fs.before = before
        process = opened(machine, where, fs)
        fs.before = None
        return process, Random(where).sample(taken, min(WIDTH, len(taken)))


def opened(machine: Machine, where: str, fs: SimulatedFileSystem | None = None) -> Process:
    try:
        return Process(machine, fs or machine.file_system())
    except DuraqError as error:
        pytest.fail(f"{where}: {error!r}")


def works(machine: Machine, wanted: State, model: Model | None, where: str) -> None:
    """It is sound, and stays as it is.

    With a model that says more than how it looks, all of it can be worked off, which no power cut undoes.
    """
    report = verify(PLACE, file_system=machine.file_system())
    assert report.sound, f"{where}: {report.findings}"
    process = opened(machine, where)
    found = process.look()
    assert found == wanted, f"{where}, opened again: {difference(found, wanted)}"
    if model is not None:
        wanted = work_off(process, machine, model, where).told(machine.now)
    machine.kill(process)
    for disk in (after_power_cut(machine.disk, Nothing()), machine.disk):
        found = opened(machine.rebooted(disk, NOBODY), where).look()
        assert found == wanted, f"{where}, worked off: {difference(found, wanted)}"


def work_off(process: Process, machine: Machine, model: Model, where: str) -> Model:
    """Everything that is ready is delivered, in order and once, and completed; a new entry comes last."""
    storage, now = process.storage, machine.now
    for name in QUEUES:
        fed: list[Operation] = [Enqueue(f"new-{name}", b'"new"', -99), ResumeQueue("ann")]
        storage.commit({name: fed})
        while process.queue(name).settle_lapsed():
            pass
        model = model.after({name: fed}, now).settled(name, machine.living, now)
        line = model.line(name)
        wanted = [(row.id, line.tokens + number) for number, row in enumerate(line.ready(now), 1)]
        given = [(each.id, each.token) for each in storage.claim(name, len(wanted) + 1, detached=True)]
        assert given == wanted, f"{where}, queue {name}: {given}, wanted {wanted}"
        ends = [Complete(*each) for each in given]
        storage.commit({name: ends})
        model = model.claimed(name, len(wanted), "", now, 0).after({name: ends}, now)
    return model
