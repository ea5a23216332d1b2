"""A storage that was lived in, as files; and such files as a storage on a disk in memory."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from random import Random

from duraq import DeadLetterQueue, FileStorage, FixedDelay, LeaseLost, Queue
from duraq.journal.log import Sizes
from duraq.testing import FakeClock, MemoryFileSystem

# So small that there is something of everything.
SIZES = Sizes(journal=8 << 10, segment=2 << 10)
PLACE = "/storage"
_NOTES = {"lock", "presence", "recycle", "reserve"}
_STEPS = 170

Entries = dict[tuple[str, str], tuple[bytes, int, str]]
Files = dict[str, bytes]


def make(root: Path) -> Files:
    """Make it there, and return every file's bytes by its name, but for the notes of living processes."""
    with FileStorage(root, sizes=SIZES, clock=FakeClock()) as storage:
        _live_in(storage, Random(4))
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in _NOTES and path.parent.name != "leases"
    }


def _live_in(storage: FileStorage, chance: Random) -> None:
    """Everything that can happen to entries of two queues, and a third that no frame speaks of any more."""
    Queue("quiet", storage).enqueue_many(["z"] * 4, ids=[f"q{number}" for number in range(4)])
    policy = FixedDelay(max_attempts=2, delay=timedelta(0))
    queues = [Queue(name, storage, retry_policy=policy) for name in ("a", "b")]
    held = []
    for step in range(_STEPS):
        queue, kind = chance.choice(queues), chance.random()
        if kind < 0.45:
            queue.enqueue("x" * chance.randrange(120), id=f"e{step}", priority=chance.choice((0, 0, 1)))
        elif kind < 0.5:
            queue.enqueue_many(["y"] * 3, ids=[f"m{step}-{number}" for number in range(3)])
        elif kind < 0.75:
            held += [(queue, entry) for entry in queue.dequeue(limit=1)]
        elif held:
            queue, entry = held.pop(chance.randrange(len(held)))
            with suppress(LeaseLost), storage.transaction():
                _end(queue, entry, chance.random())
                for each in queues if step % 5 == 0 else ():
                    each.enqueue("next", id=f"t{step}")
        if step == _STEPS // 2:
            storage.compact("a")
        if step % 80 == 5:
            letters = DeadLetterQueue("a", None, storage)
            for entry in letters.list()[:1]:
                letters.retry(entry.id)


def _end(queue, entry, kind) -> None:
    if kind < 0.6:
        queue.mark_completed(entry)
    elif kind < 0.8:
        queue.mark_failed(entry, "not today")
    elif kind < 0.9:
        queue.release(entry)
    else:
        queue.extend(entry, timedelta(minutes=9))


def disk(files: Files) -> MemoryFileSystem:
    """A disk on which they are a storage, all of it durable."""
    fs = MemoryFileSystem()
    for name, content in files.items():
        *parents, last = Path(PLACE.lstrip("/"), name).parts
        directory = fs.open_root("/" + parents[0], create=True)
        for part in parents[1:]:
            directory = fs.open_dir(directory, part, create=True)
        fs.pwrite(fs.open_file(directory, last, create=True), content, 0)
    return fs.surviving(everything=True)


def entries(fs: MemoryFileSystem) -> Entries:
    """What is in all queues, as whoever opens it finds it."""
    storage = FileStorage(PLACE, sizes=SIZES, clock=FakeClock(), file_system=fs, allow_network=True)
    try:
        return {
            (queue, each.id): (each.payload, each.priority, str(each.status))
            for queue in storage.queues()
            for each in storage.entries(queue)
        }
    finally:
        storage.close()
