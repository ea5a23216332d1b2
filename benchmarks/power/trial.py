"""One queue, through cuts of the power while a process enqueues: what was acknowledged, and what is there."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

from benchmarks.power.actor import Actor, ActorFailed, Say, act_out, acting, cut_power, hear
from benchmarks.power.disk import Disk
from benchmarks.power.queues import Tried

SHORTEST, LONGEST = 0.1, 0.5  # seconds of load before a cut
PATIENCE = 60.0  # seconds; what takes longer hangs

# What a reader says beside numbers: of what nobody has enqueued so, and at the end.
ALTERED, ALL = "altered", "all"


@dataclass
class Figures:
    """What came of some cuts."""

    acknowledged: int = 0
    lost: int = 0
    altered: int = 0
    unreadable: int = 0  # cuts after which the queue could not be read to its end
    error: str = ""  # the first that was met in reading

    def add(self, more: Figures) -> None:
        self.acknowledged += more.acknowledged
        self.lost += more.lost
        self.altered += more.altered
        self.unreadable += more.unreadable
        self.error = self.error or more.error


def text(number: int) -> str:
    """What is enqueued as that number, told from all others: up to 600 bytes."""
    return f"{number} " + f"{number:x}." * (1 + number * 7919 % 97)


def number_of(found: object) -> int | None:
    """The number under which exactly that was enqueued; None if it never was."""
    number = found.partition(" ")[0] if isinstance(found, str) else ""
    return int(number) if number.isdecimal() and found == text(int(number)) else None


def try_out(queue: Tried, place: Path, kind: str, cuts: int) -> Figures:
    """So many cuts, on a file system of that kind that nobody else has used.

    Raises Missing if it cannot be made or the queue is not installed, and ActorFailed if the queue fails
    before the power does.
    """
    found = Figures()
    with Disk(place, kind) as disk:
        for number in range(cuts):
            found.add(_one_cut(queue, disk, Random(number).uniform(SHORTEST, LONGEST)))
    return found


def _one_cut(queue: Tried, disk: Disk, seconds: float) -> Figures:
    directory = disk.mounted / "queue"
    directory.mkdir()
    if act_out(partial(_begin, queue, directory), PATIENCE).status != 0:
        raise ActorFailed("it could not be made")
    # It has been there for a while: what it does for its files when they are new is not what is asked.
    disk.sync()
    with acting(partial(_enqueue, queue, directory)) as (producer,):
        if not hear([producer], PATIENCE, lines=1):
            raise ActorFailed("it enqueues nothing")
        hear([producer], seconds)
        cut_power(disk, [producer])
    disk.restore_power()
    reader = act_out(partial(_read, queue, directory), PATIENCE)
    shutil.rmtree(directory)
    return _judge({0, *map(int, producer.said)}, reader)


def _begin(queue: Tried, directory: Path, _say: Say) -> None:
    opened = queue.open(directory)
    opened.put(text(0))
    opened.close()


def _enqueue(queue: Tried, directory: Path, say: Say) -> None:
    opened = queue.open(directory)
    for number in count(1):
        opened.put(text(number))
        say(str(number))


def _read(queue: Tried, directory: Path, say: Say) -> None:
    # A destructor that trips over its object's failed opening has nothing to add.
    sys.unraisablehook = lambda _: None
    try:
        for found in queue.open(directory).read():
            number = number_of(found)
            say(ALTERED if number is None else str(number))
        say(ALL)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what a user would meet
        say(f"{type(error).__name__}: {error}".partition("\n")[0])


def _judge(acknowledged: set[int], reader: Actor) -> Figures:
    there = {int(line) for line in reader.said if line.isdecimal()}
    end = reader.said[-1] if reader.said else ""
    error = "" if end == ALL else end if reader.status == 0 else f"reading ended with status {reader.status}"
    return Figures(
        acknowledged=len(acknowledged),
        lost=len(acknowledged - there),
        altered=reader.said.count(ALTERED),
        unreadable=bool(error),
        error=error,
    )
