"""Every sequence of up to three steps, with a crash at each call that changes the disk.

What comes before the last step is the end of a shorter sequence, so the crashes are all in the last one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from itertools import product
from random import Random
from typing import NamedTuple

import pytest
from evidence import count
from simulation.checker import Checker
from simulation.life import Life
from simulation.oracle import Model, difference
from simulation.sequences import STEPS, Beginning, Step, dequeue, enqueue, make_beginning, transaction
from simulation.world import Image, copied, images, make_repeatable

from duraq.storage.file import Durability
from duraq.testing import Crashed
from duraq.testing.disk import Disk

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SEQUENCES = [each for length in (1, 2, 3) for each in product(STEPS, repeat=length)]
SHARES = 24 if DEEP else 2  # that can run at once
SAMPLE = 6  # of each share; deep: all
CHANCES = 6 if DEEP else 1  # guesses of what a power cut leaves, at each call
DURABILITIES: tuple[Durability, ...] = ("power", "process")
CLOSELY = 100 if DEEP else 20  # one of so many is looked at closely

Sequence = tuple[Step, ...]

pytestmark = pytest.mark.timeout(7200)


@pytest.fixture(autouse=True)
def _repeatable(monkeypatch):
    make_repeatable(monkeypatch)


@cache
def beginning() -> Beginning:
    return make_beginning()


def chosen(share: int) -> list[Sequence]:
    """This share of all sequences, or of some."""
    mine = SEQUENCES[share::SHARES]
    return mine if DEEP else Random(share).sample(mine, SAMPLE)


def name(sequence: Sequence) -> str:
    return ", ".join(each.__name__ for each in sequence)


class Moment(NamedTuple):
    """What a power cut at a call may leave, and a kill; and what may be there then."""

    where: str
    images: list[Image]
    killed: Disk
    now: list[Model]
    allowed: list[Model]


def calls_of(sequence: Sequence) -> int:
    """How many calls its last step makes that change the disk."""
    life = beginning().begin("power")
    for step in sequence[:-1]:
        step(life)
    before = life.process.fs.calls
    sequence[-1](life)
    return life.process.fs.calls - before


def told(sequence: Sequence, durability: Durability) -> tuple[Life, list[Moment]]:
    """The life, and the moments of its last step: one before each call, and one after it."""
    life = beginning().begin(durability)
    for step in sequence[:-1]:
        step(life)
    moments: list[Moment] = []
    disk, fs, oracle = life.machine.disk, life.process.fs, life.oracle
    begun = fs.calls

    def look() -> None:
        where = f"{name(sequence)}; {durability}; call {fs.calls + 1 - begun}"
        cuts = list(images(disk, where, CHANCES))
        moments.append(Moment(where, cuts, copied(disk), oracle.possible(), oracle.allowed()))

    fs.before = look
    sequence[-1](life)
    fs.before = None
    look()
    return life, moments


def check_who_is_there(checker: Checker, sequence: Sequence, call: int, *, tear: bool) -> None:
    """Another process has it open while the first is killed at that call of its last step."""
    where = f"{name(sequence)}; killed at call {call}{' in the middle' * tear}"
    life = beginning().begin("power")
    other = life.machine.open()
    for step in sequence[:-1]:
        step(life)
    other.look()
    life.process.fs.crash_after(call, tear=tear)
    with suppress(Crashed):
        sequence[-1](life)
    life.machine.kill(life.process)
    life.oracle.broken_off()
    found = other.look()
    if not life.oracle.seen(found, life.machine.now):
        pytest.fail(f"{where}: {difference(found, life.oracle.allowed()[-1].told(life.machine.now))}")
    # It goes on, and what it then does is durable, with all that was before.
    life.process = other
    for step in (enqueue, dequeue, transaction):
        step(life)
    checker.check(life.machine, images(life.machine.disk, where, 1), life.oracle.allowed())


@pytest.mark.parametrize("share", range(SHARES))
def test_a_crash_at_each_call(share):
    """Whatever three things are done, and wherever the last is broken off: nothing is lost or half."""
    checker = Checker(share=CLOSELY)
    for number, sequence in enumerate(chosen(share)):
        for durability in DURABILITIES if DEEP else DURABILITIES[number % 2 :][:1]:
            life, moments = told(sequence, durability)
            for at, moment in enumerate(moments):
                checker.check(life.machine, moment.images, moment.allowed)
                if at == number % len(moments):
                    killed, where = moment.killed, moment.where
                    checker.check_killed(life.machine, killed, where, moment.now, moment.allowed)
        count("sequences")
    count("simulated", len(checker.distinct))


@pytest.mark.parametrize("share", range(SHARES))
def test_who_is_there_already(share):
    """Killed at any call, a process leaves its last step whole or absent to one that goes on."""
    checker = Checker(share=CLOSELY)
    for number, sequence in enumerate(chosen(share)):
        for call in range(1, calls_of(sequence) + 1):
            if DEEP or (call + number) % 6 == 0:
                check_who_is_there(checker, sequence, call, tear=bool((call + number) % 2))
    count("simulated", len(checker.distinct))
