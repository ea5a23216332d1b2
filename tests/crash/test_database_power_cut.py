"""Power cuts on real file systems while entries are worked in a database: what was acknowledged is there."""

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import count as numbers
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import lmdb
import pytest
from evidence import count

from benchmarks.power.actor import acting, cut_power, hear
from duraq import LMDBStorage, Queue, SQLiteStorage

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
CUTS = 100 if DEEP else 2
PATIENCE = 60.0  # seconds; only so that a test that hangs ends

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]


class Kind(NamedTuple):
    """A storage in a database: how it is opened, and how the application writes a row of its own in it."""

    open: Callable[[Path], Any]
    note: Callable[[Any, str], object]
    notes: Callable[[Any], set[str]]


def open_sqlite(root):
    storage = SQLiteStorage(root / "queues.db")
    with storage.transaction():
        storage.connection.execute("CREATE TABLE IF NOT EXISTS notes (name TEXT)")
    return storage


def sqlite_notes(storage):
    with storage.transaction():
        return {name for (name,) in storage.connection.execute("SELECT name FROM notes")}


def open_lmdb(root):
    needed = len(LMDBStorage.required_databases)
    storage = LMDBStorage(lmdb.open(str(root / "env"), max_dbs=needed + 1, map_size=1 << 26))
    storage.notes = storage.env.open_db(b"notes")
    return storage


def lmdb_notes(storage):
    with storage.env.begin(db=storage.notes) as txn:
        return {key.decode() for key, _ in txn.cursor()}


KINDS = {
    "sqlite": Kind(
        open_sqlite,
        lambda storage, name: storage.connection.execute("INSERT INTO notes VALUES (?)", (name,)),
        sqlite_notes,
    ),
    "lmdb": Kind(
        open_lmdb,
        lambda storage, name: storage.txn.put(name.encode(), b"", db=storage.notes),
        lmdb_notes,
    ),
}


def producer(root, kind, seed, say):
    """Enqueues 0, 1, 2 ...; of each third one the application has a note, in the same transaction."""
    with KINDS[kind].open(root) as storage:
        queue = Queue("jobs", storage, str)
        say("begins")
        for number in numbers():
            with storage.transaction():
                if number % 3 == 0:
                    KINDS[kind].note(storage, str(number))
                queue.enqueue(f"{seed} {number}", id=str(number))
            say(f"made {number}")


def consumer(root, kind, say):
    with KINDS[kind].open(root) as storage:
        queue = Queue("jobs", storage, str)
        while True:
            entry = queue.dequeue(wait=timedelta(hours=1))
            say(f"takes {entry.id}")
            queue.mark_completed(entry)
            say(f"ended {entry.id}")


def numbers_in(actors, word):
    return {int(line.split()[-1]) for actor in actors for line in actor.said if line.startswith(f"{word} ")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_power_cut_takes_nothing_that_was_acknowledged(disk, kind):
    """Each entry is there, or was ended; none that was ended is back; and a note is there with its entry."""
    for seed in range(CUTS):
        root = disk.mounted / f"{seed}"
        root.mkdir()
        with acting(partial(producer, root, kind, seed), partial(consumer, root, kind)) as actors:
            assert hear(actors[:1], PATIENCE, lines=2)
            hear(actors, Random(seed).uniform(0, 0.4))
            cut_power(disk, actors)
        made, ended = numbers_in(actors, "made"), numbers_in(actors, "ended")
        perhaps = numbers_in(actors, "takes")
        disk.restore_power()
        with KINDS[kind].open(root) as storage:
            queue = Queue("jobs", storage, str)
            entries = queue.entries()
            found = {int(entry.id) for entry in entries}
            assert all(entry.data == f"{seed} {entry.id}" for entry in entries)
            assert made <= found | ended | perhaps, f"seed {seed}: lost {made - found - ended - perhaps}"
            assert not ended & found, f"seed {seed}: back again {ended & found}"
            notes = {int(name) for name in KINDS[kind].notes(storage)}
            known = found | ended | perhaps
            assert notes == {number for number in known if number % 3 == 0}, f"seed {seed}"
            queue.enqueue("it goes on")
        if kind == "lmdb":
            # The next ones are forked, and may not inherit an environment.
            storage.env.close()
        count(f"cut {disk.kind}, {kind}")
