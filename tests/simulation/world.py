"""A machine in memory: one disk, one clock, and processes that have a storage on it open.

What it does depends on nothing but what it is told: background threads do their work where they begin, ids
come from a counter, and who lives is what the machine says, not the kernel.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterator
from hashlib import blake2b
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple
from zlib import crc32

import pytest
from one_thread import in_one_thread
from simulation.oracle import Row, State

from duraq import FixedDelay, Queue, acts, examining, failure, queue
from duraq.journal import opening
from duraq.journal.log import Sizes
from duraq.model import EntryStatus
from duraq.storage import fold, transacting
from duraq.storage.base import StoredEntry
from duraq.storage.file import Durability, FileStorage
from duraq.testing import FakeClock, MemoryFileSystem
from duraq.testing.disk import Directory, Disk, File, Names, Node, Resize, Write
from duraq.testing.faults import MUTATING

PLACE = "/storage"
QUEUES = ("a", "b", "c")
# The notes of living processes. Whoever opens the storage first makes them anew.
_NOTES = "storage/journal/lock"


def make_repeatable(patch: pytest.MonkeyPatch) -> None:
    """From here on the same calls have the same effects."""
    in_one_thread(patch)
    patch.setattr(fold, "LIVENESS_INTERVAL", 0.0)
    patch.setattr(failure, "_host", lambda: "host")
    patch.setattr(examining, "_PAUSE", 0)
    patch.setattr(opening, "warn_if_exposed", lambda _path: None)  # looks at this machine
    ids = itertools.count(1)
    uuids = SimpleNamespace(uuid7=lambda: f"01900000-0000-7000-8000-{next(ids):012d}")
    secrets = SimpleNamespace(token_hex=lambda _: f"{next(ids):08x}", randbits=lambda _: next(ids) << 20)
    for module, name, stand_in in (
        (queue, "uuid_utils", uuids),
        (acts, "uuid_utils", uuids),
        (acts, "secrets", secrets),
        (transacting, "secrets", secrets),
    ):
        patch.setattr(module, name, stand_in)
    # What recovery reports, a million times, is not what a failing test is about.
    patch.setattr(logging.getLogger("duraq"), "disabled", True)


class SimulatedFileSystem(MemoryFileSystem):
    """One process's. Tells somebody before each call that changes the disk."""

    before: Callable[[], None] | None = None
    tears = False

    @property
    def dead(self) -> bool:
        return self._dead

    def _begin(self, call: str, path: str, size: int = 0, *, changes: bool = False) -> int | None:
        if changes and not self._dead:
            if self.before is not None:
                self.before()
            # A kill tears a write between two pages. The control block is smaller, and begins with one.
            self._tear = self.tears and path != "journal/lock"
        return super()._begin(call, path, size, changes=changes)

    def crash_after(self, calls: int, *, at: Collection[str] = MUTATING, tear: bool = False) -> None:
        super().crash_after(calls, at=at, tear=tear)
        self.tears = tear


class InOrder(dict[Any, None]):
    """Stands in for a set whose order depends on addresses, or on the process."""

    add = dict.setdefault

    def pop(self) -> Any:
        return self.popitem()[0]

    def discard(self, item: object) -> None:
        if item in self:
            del self[item]


class Presence:
    """Stands in for what is on the real disk whatever the storage is on: the machine knows who lives."""

    def __init__(self, living: set[str], worker: str) -> None:
        self._living = living
        self.worker = self.known = worker
        living.add(worker)

    def is_alive(self, worker: str) -> bool:
        return worker in self._living

    def close(self) -> None:
        self._living.discard(self.worker)


class Process:
    """A process with the storage open."""

    def __init__(self, machine: Machine, fs: SimulatedFileSystem, durability: Durability = "power") -> None:
        self.fs = fs
        self.durability = durability
        self.worker = f"{next(machine.numbers)}-00000000"
        self.storage = FileStorage(
            PLACE,
            durability=durability,
            sizes=machine.sizes,
            allow_network=True,  # else the machine's mounts are looked up each time
            clock=machine.clock,
            file_system=fs,
        )
        self.storage._presence = Presence(machine.living, self.worker)
        self.storage._upkeep._due, self.storage._compactor.late = InOrder(), InOrder()

    def queue(self, name: str) -> Queue[object]:
        return Queue(name, self.storage, retry_policy=FixedDelay(max_attempts=3))

    def look(self) -> State:
        """Everything there is to see."""
        storage = self.storage
        looks = [
            (name, tuple(map(_row, storage.entries(name))), _tokens(storage, name), _pause(storage, name))
            for name in storage.queues()
        ]
        return tuple(look for look in looks if look[1:] != ((), 0, None))


def _row(entry: StoredEntry) -> Row:
    leased = entry.status is EntryStatus.LEASED
    return Row(
        entry.id,
        crc32(entry.payload),
        entry.priority,
        entry.expires_at,
        str(entry.status),
        entry.attempts,
        entry.token,
        (entry.worker or "") if leased else "",
        (entry.deadline_at or 0) if leased else 0,
        (entry.ready_at or 0) if entry.status is EntryStatus.SCHEDULED else 0,
        tuple(str(attempt.cause) for attempt in entry.history),
    )


def _tokens(storage: FileStorage, name: str) -> int:
    # Nowhere shown, but the next token is to be higher.
    state = storage._known_state(name)
    return 0 if state is None else state.tokens


def _pause(storage: FileStorage, name: str) -> str | None:
    # Of what was just looked at.
    state = storage._known_state(name)
    return None if state is None or state.pause is None else state.pause.reason


class Machine:
    """``disk`` is what its processes share; ``living`` are the workers among them."""

    def __init__(
        self, sizes: Sizes, disk: Disk | None = None, clock: FakeClock | None = None, workers: int = 1
    ) -> None:
        self.sizes = sizes
        self.disk = disk or Disk()
        self.clock = clock or FakeClock()
        self.living: set[str] = set()
        self.numbers = itertools.count(workers)

    @property
    def now(self) -> int:
        return self.clock.now()

    def file_system(self) -> SimulatedFileSystem:
        return SimulatedFileSystem(disk=self.disk)

    def open(self, durability: Durability = "power") -> Process:
        """By a process of its own."""
        return Process(self, self.file_system(), durability)

    def kill(self, process: Process) -> None:
        """End it like SIGKILL."""
        process.fs.die()
        self.living.discard(process.worker)

    def rebooted(self, disk: Disk, workers: int = 0) -> Machine:
        """The machine after a power cut that has left this disk; its workers have numbers from there on."""
        clock = FakeClock()
        clock._boots, clock._now = self.clock._boots, self.clock._now
        clock.reboot()
        return Machine(self.sizes, disk, clock, workers or next(self.numbers))


# Images


class Image(NamedTuple):
    """A disk as something has left it, what tells it from others, and how to get there again."""

    disk: Disk
    digest: bytes
    where: str


def images(disk: Disk, where: str, chances: int, *, whole: bool = False) -> Iterator[Image]:
    """The extremes of what a power cut may leave, and some of what lies between."""
    fs = MemoryFileSystem(disk=disk)
    cuts = [(fs.surviving(nothing=True), "nothing survives"), (fs.surviving(everything=True), "all survives")]
    for number in range(chances):
        seed = f"{where}, chance {number}"
        cuts.append((fs.power_cut(Random(seed)), f"chance {number}"))
    for cut, what in cuts:
        yield Image(cut._disk, digest(cut._disk, whole=whole), f"{where}, {what}")


def digest(disk: Disk, *, whole: bool = False) -> bytes:
    """A hash of all names and bytes; the notes of the dead only if it is to be ``whole``.

    They matter after a failed sync only.
    """
    found = blake2b(digest_size=16)
    directories = [("", disk.root)]
    while directories:
        prefix, directory = directories.pop()
        for name, node in sorted(directory.cache.items()):
            path = prefix + name
            if isinstance(node, Directory):
                found.update(b"%s/\0" % path.encode())
                directories.append((f"{path}/", node))
            elif whole or path != _NOTES:
                found.update(b"%s\0%d\0" % (path.encode(), len(node.cache)))
                found.update(node.cache)
    return found.digest()


def copied(disk: Disk) -> Disk:
    """The disk with all that is not synced yet, and nothing open: as if all processes had been killed."""
    twin = Disk(disk.capacity)
    twin.used = disk.used
    twin.inode_numbers = itertools.count(next(disk.inode_numbers))
    twins: dict[int, Node] = {disk.root.number: twin.root}
    _copy_directory(disk.root, twin.root, twins)
    return twin


def _copy_directory(source: Directory, target: Directory, twins: dict[int, Node]) -> None:
    target.settled = {name: _twin(node, twins) for name, node in source.settled.items()}
    target.cache = target.settled
    if source.cache is not source.settled:
        target.cache = {name: _twin(node, twins) for name, node in source.cache.items()}
    target.log = [Names(each.removed, each.added, _twin(each.node, twins), each.fate) for each in source.log]


def _twin(node: Node, twins: dict[int, Node]) -> Node:
    found = twins.get(node.number)
    if found is None:
        if isinstance(node, Directory):
            found = twins[node.number] = Directory(node.number)
            _copy_directory(node, found, twins)
        else:
            found = twins[node.number] = _copied_file(node)
        found.has_name = node.has_name
    return found


def _copied_file(file: File) -> File:
    twin = File(file.number, file.settled.copy(), None if file.allocated is None else file.allocated.copy())
    if file.cache is not file.settled:
        twin.cache = file.cache.copy()
    twin.log = [
        Write(each.offset, each.data, each.fate)
        if isinstance(each, Write)
        else Resize(each.length, each.fate)
        for each in file.log
    ]
    return twin
