"""A storage with a little in it, and twelve things that can be done to it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from simulation.life import LEASE, MINUTE, Life
from simulation.oracle import Model, Oracle
from simulation.world import Machine, copied

from duraq.journal.log import Sizes
from duraq.operations import Complete, Operation
from duraq.storage.file import Durability
from duraq.testing.disk import Disk

# So small that a segment is sealed, or the journal recycled, by one operation or the next.
SIZES = Sizes(journal=8 << 10, segment=1 << 10)

Step = Callable[[Life], object]


def enqueue(life: Life) -> None:
    """As a program does it that only feeds: the id is made for the entry."""
    life.commit({"a": [life.new(150, fresh=True)]})


def enqueue_many(life: Life) -> None:
    life.commit({"b": [life.new(20 * number, number % 2) for number in range(4)]})


def dequeue(life: Life) -> None:
    life.settle("a")
    life.claim("a", 2)


def complete(life: Life) -> None:
    _end(life, life.complete)


def fail(life: Life) -> None:
    _end(life, lambda queue, row: life.fail(queue, row, MINUTE))


def extend(life: Life) -> None:
    _end(life, life.extend)


def release(life: Life) -> None:
    _end(life, life.release)


def _end(life: Life, how: Callable[..., object]) -> None:
    held = life.held("a")
    if held:
        how("a", held[0])


def transaction(life: Life) -> None:
    """What comes of an entry, in two queues, and its end."""
    ends: list[Operation] = [Complete(row.id, row.token) for row in life.held("a")[:1]]
    life.transaction({"b": [life.new(80)], "a": [*ends, life.new(30), life.new(30)]})


def expire(life: Life) -> None:
    """Time passes: an entry is over, leases have ended; somebody comes by."""
    life.machine.clock.advance(timedelta(minutes=6))
    life.settle("a")


def seal(life: Life) -> None:
    """A segment is full, and the next one begun."""
    life.commit({"a": [life.new(1100)]})
    life.commit({"a": [life.new(1)]})


def compact(life: Life) -> None:
    life.compact("a")


def dead_letter(life: Life) -> None:
    """The first dead letter is put back or, with an even id, removed; without one, something is buried."""
    dead = life.oracle.model.line("a").having("dead", life.machine.now)
    if not dead:
        _end(life, life.bury)
    elif int(dead[0].id) % 2:
        life.retry("a", dead[0])
    else:
        life.remove("a", dead[0])


STEPS: tuple[Step, ...] = (
    enqueue,
    enqueue_many,
    dequeue,
    complete,
    fail,
    extend,
    transaction,
    expire,
    seal,
    compact,
    dead_letter,
    release,
)


class Beginning(NamedTuple):
    """A storage with a little in it: what its process has left, and what is in it."""

    disk: Disk
    model: Model
    made: int

    def begin(self, durability: Durability) -> Life:
        """A process that goes on with it, and holds what was leased."""
        life = Life(Machine(SIZES, copied(self.disk)), Oracle(self.model), self.made)
        life.process = life.machine.open(durability)
        return life


def make_beginning() -> Beginning:
    """Entries in all states, in two queues and several segments; all of it durable."""
    life = Life(Machine(SIZES), Oracle())
    life.process = life.machine.open()
    life.commit({"a": [life.new(60 + number) for number in range(6)]})
    dequeue(life)
    for row in life.held("a"):
        life.bury("a", row)
    dequeue(life)
    complete(life)
    life.commit({"b": [life.new(10)], "a": [life.new(10, ttl=LEASE), life.new(10, 1)]})
    seal(life)
    dequeue(life)
    life.process.storage._log.settle(life.process.storage._log.journal.standing.end)
    life.machine.kill(life.process)
    return Beginning(life.machine.disk, life.oracle.model, life.made)
