"""Power cuts on real file systems while somebody enqueues who does not wait for the disk."""

import os
from functools import partial
from itertools import count as numbers
from random import Random

import pytest
from evidence import count

from benchmarks.power.actor import acting, cut_power, hear
from duraq import FileStorage, Queue, Sizes

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SIZES = Sizes(journal=256 << 10, segment=64 << 10)
QUEUES = ("a", "b", "c")
CUTS = 20 if DEEP else 1
PATIENCE = 60.0  # seconds; only so that a test that hangs ends

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]


def hasty(root, durability, seed, say):
    """Enqueues 0, 1, 2 ... over all queues, some together; the newest are to be delivered first."""
    chance, number = Random(seed), numbers()
    with FileStorage(root, durability=durability, sizes=SIZES) as storage:
        queues = [Queue(name, storage, str) for name in QUEUES]
        say("begins")
        while True:
            with storage.transaction():
                for _ in range(chance.choice((1, 1, 4))):
                    entry = next(number)
                    chance.choice(queues).enqueue(str(entry) * 20, id=str(entry), priority=entry)


def taker(root, say):
    with FileStorage(root, sizes=SIZES) as storage:
        queues = [Queue(name, storage, str) for name in QUEUES]
        while True:
            for queue in queues:
                for entry in queue.dequeue(limit=3):
                    say(entry.id)


def there(root):
    """Every entry that is found, in a storage that works."""
    with FileStorage(root, sizes=SIZES) as storage:
        entries = [entry for name in storage.queues() for entry in Queue(name, storage, str).entries()]
        assert all(entry.data == entry.id * 20 for entry in entries)
        Queue("a", storage, str).enqueue("it goes on")
    return {int(entry.id) for entry in entries}


@pytest.mark.parametrize("durability", ["batched", "process"])
def test_what_a_power_cut_takes_is_the_end(disk, durability):
    """With the weaker durabilities a power cut takes the newest entries of all queues, none from between."""
    for seed in range(CUTS):
        root = disk.mounted / f"{seed}"
        with acting(partial(hasty, root, durability, seed)) as (producer,):
            assert hear([producer], PATIENCE, lines=1)
            hear([producer], Random(seed).uniform(0, 0.5))
            cut_power(disk, [producer])
        disk.restore_power()
        found = there(root)
        assert found == set(range(len(found))), f"seed {seed}: there are holes in {sorted(found)}"
        count(f"cut {disk.kind}")


def test_nothing_is_delivered_that_a_power_cut_takes_back(disk):
    """What was delivered is there after a power cut, though whoever enqueued it did not wait for the disk."""
    for seed in range(CUTS):
        root = disk.mounted / f"{seed}"
        with acting(partial(hasty, root, "process", seed), partial(taker, root)) as actors:
            assert hear(actors, PATIENCE, lines=Random(seed).randrange(2, 100))
            cut_power(disk, actors)
        disk.restore_power()
        lost = set(map(int, actors[1].said)) - there(root)
        assert not lost, f"seed {seed}: delivered, and taken back: {sorted(lost)}"
        count(f"cut {disk.kind}")
