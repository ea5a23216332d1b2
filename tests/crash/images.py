"""Storages as something has left them, and what may be in them when they are opened."""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import cache
from random import Random
from typing import NamedTuple

from crash.stories import Work
from crash.test_power_cuts import QUEUES, Model, Process
from crash.test_unlucky_moments import only

from duraq.journal import poison, segment
from duraq.testing import FakeClock, MemoryFileSystem
from duraq.testing.disk import Disk
from duraq.testing.power_cut import after_power_cut


class Image(NamedTuple):
    """``refused``: the queue that has lost what was durable, if one has."""

    fs: MemoryFileSystem
    allowed: list[Model]
    refused: str = ""

    def disk(self) -> Disk:
        """A copy of it, synced as far as it was."""
        return deepcopy(self.fs._disk)


@cache
def worked() -> Work:
    """What is left of a story that went well, but that nobody closed the storage."""
    work = Work()
    work.work()
    work.fs.die()
    work.second.fs.die()
    return work


def new() -> Image:
    """Nothing yet."""
    return Image(MemoryFileSystem(), [{}])


def killed() -> Image:
    """Whoever had it open was killed."""
    return Image(worked().fs, [worked().model])


def cut(chance: int | None = None) -> Image:
    """The power went: with all that was not synced, or with some of it."""
    fs = worked().fs
    left = fs.surviving(nothing=True) if chance is None else fs.power_cut(Random(chance))
    return Image(left, worked().allowed)


def torn() -> Image:
    """Pieces of lines lie at the ends of all queues, and a segment that nobody got to use."""
    fs = MemoryFileSystem(disk=killed().disk())
    for queue in QUEUES:
        with _segments(fs, queue) as directory:
            fd = fs.open_file(directory, segment.file_name(segment.numbers(fs, directory)[-1]))
            fs.pwrite(fd, b'{"op":"enqueue","seq":', fs.size(fd))
            fs.close(fd)
            fs.close(fs.open_file(directory, segment.file_name(10**6), create=True))
    return Image(fs, [worked().model])


def poisoned() -> Image:
    """A sync of the journal had failed, and was marked, when all were killed."""
    fs = MemoryFileSystem(disk=killed().disk())
    with _opened(fs, "journal") as directory:
        poison.mark(fs, directory, worked().first.storage._log.journal.standing.epoch)
    return Image(fs, [worked().model])


def half_prepared() -> Image:
    """The header of the next journal file is torn."""
    process = Process(MemoryFileSystem())
    process.do(("many", 0, 7))
    process.fs.die()
    fs = process.fs.process()
    with _opened(fs, "journal") as directory:
        fd = fs.open_file(directory, "0.journal")
        fs.pwrite(fd, bytes(20), 0)
        fs.close(fd)
    return Image(fs, [process.model])


def left_over() -> Image:
    """A power cut has kept the first frame of the next journal file, and lost the end of the one before."""
    process = Process(MemoryFileSystem())
    log = process.storage._log
    while log.journal.capacity - (log.journal.standing.end - log.journal.standing.base) > 1500:
        process.do(("enqueue", 0, 300))
    durable, epoch = process.model, log.journal.standing.epoch
    log.settle = lambda _position: None  # these two syncs never begin
    process.do(("enqueue", 1, 400))
    process.do(("many", 0, 446))
    assert log.journal.standing.epoch == epoch + 1
    following = dict(process.fs._disk.files())[f"storage/journal/{(epoch + 1) % 2}.journal"]
    return Image(MemoryFileSystem(disk=after_power_cut(process.fs._disk, only(following))), [durable])


def shortened() -> Image:
    """A queue has lost its segments' content; nobody knows yet."""
    fs = MemoryFileSystem(disk=killed().disk())
    with _segments(fs, "a") as directory:
        for number in segment.numbers(fs, directory):
            fd = fs.open_file(directory, segment.file_name(number))
            fs.truncate(fd, 0)
            fs.sync(fd)
            fs.close(fd)
    return Image(fs, [worked().model], "a")


def damaged() -> Image:
    """A byte of a queue's last segment is another, before what the journal still holds of it."""
    fs = MemoryFileSystem(disk=killed().disk())
    with _segments(fs, "a") as directory:
        fd = fs.open_file(directory, segment.file_name(segment.numbers(fs, directory)[-1]))
        fs.pwrite(fd, b"#", 100)
        fs.sync(fd)
        fs.close(fd)
    return Image(fs, [worked().model], "a")


def refused() -> Image:
    """The same, when one has found out, and marked the queue."""
    fs = MemoryFileSystem(disk=shortened().disk())
    Process(fs).storage.close()
    return Image(fs, [worked().model], "a")


def restored() -> Image:
    """And when somebody has put the segments back."""
    fs, whole = refused().fs, killed().fs.files()
    with _segments(fs, "a") as directory:
        for number in segment.numbers(fs, directory):
            name = segment.file_name(number)
            fd = fs.open_file(directory, name)
            fs.pwrite(fd, whole[f"storage/a/segments/{name}"], 0)
            fs.sync(fd)
            fs.close(fd)
    return Image(fs, [worked().model])


def no_header() -> Image:
    """Neither journal file says how it is to be read."""
    fs = MemoryFileSystem(disk=killed().disk())
    with _opened(fs, "journal") as directory:
        for name in ("0.journal", "1.journal"):
            fd = fs.open_file(directory, name)
            fs.pwrite(fd, bytes(20), 0)
            fs.sync(fd)
            fs.close(fd)
    return Image(fs, [worked().model])


def no_lock() -> Image:
    """The lock was removed when nobody had it open."""
    fs = MemoryFileSystem(disk=killed().disk())
    with _opened(fs, "journal") as directory:
        fs.unlink(directory, "lock")
    return Image(fs, [worked().model])


def no_marker() -> Image:
    """Nothing says that it is a storage, but that it has a journal."""
    fs = MemoryFileSystem(disk=killed().disk())
    with _opened(fs) as directory:
        fs.unlink(directory, "duraq.json")
        fs.sync(directory)
    return Image(fs, [worked().model])


def deep() -> Image:
    """Many segments, with ids in no order."""
    process, chance = Process(MemoryFileSystem(), clock=FakeClock()), Random(1)
    for number in range(60):
        process.do(("enqueue", 0, 300 + number), f"{chance.randrange(100)}-")
    process.fs.die()
    return Image(process.fs.process(), [process.model])


def dropped() -> Image:
    """Segments of all queues were dropped before all were killed."""
    fs = MemoryFileSystem(disk=killed().disk())
    storage = Process(fs).storage
    for queue in QUEUES:
        storage.compact(queue)
    fs.die()
    return Image(fs, [worked().model])


def underived() -> Image:
    """The same, but that all that can be made again from the records was deleted."""
    fs = MemoryFileSystem(disk=dropped().disk())
    for queue in QUEUES:
        with _segments(fs, queue) as directory:
            for name in fs.names(directory):
                if not name.endswith(".jsonl"):
                    fs.unlink(directory, name)
    return Image(fs, [worked().model])


def described() -> Image:
    """A worker has said of itself who it is, and something was set aside in a queue."""
    fs = MemoryFileSystem(disk=killed().disk())
    with _opened(fs, "a") as home:
        fs.close(fs.open_dir(home, "quarantine", create=True))
    with _opened(fs, "leases") as directory:
        fd = fs.open_file(directory, "4711-0123abcd.json", create=True)
        fs.pwrite(fd, b'{"pid":4711,"host":"here","argv":["work"]}', 0)
        fs.close(fd)
    return Image(fs, [worked().model])


def full() -> Image:
    """The disk is full, and nearly all that was kept for that was given back."""
    fs = MemoryFileSystem(disk=killed().disk())
    storage = Process(fs).storage
    while storage._log.give(OSError(errno.EDQUOT, "no space"), 0):
        pass
    fs.die()
    fs.capacity = fs.used + 9000
    return Image(fs, [worked().model])


@contextmanager
def _opened(fs: MemoryFileSystem, *path: str) -> Iterator[int]:
    with ExitStack() as opened:
        directory = fs.open_root("/storage")
        opened.callback(fs.close, directory)
        for name in path:
            directory = fs.open_dir(directory, name)
            opened.callback(fs.close, directory)
        yield directory


def _segments(fs: MemoryFileSystem, queue: str):
    return _opened(fs, queue, "segments")
