"""Full disks, really full: several processes go on ending entries, and enqueue again once there is space.

A small file system is filled with entries, and what is left of it with something else. Processes then work
the queue off, say what they do, and are killed or lose the power in the middle of it. Whatever was said to be
done is done, nothing else is gone, and nobody who ends an entry is ever told that there is no space.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from zlib import crc32

import pytest
from evidence import count

from benchmarks.contender import Missing
from benchmarks.power.actor import Actor, Say, acting, cut_power, hear
from benchmarks.power.disk import Disk
from duraq import EntryStatus, FileStorage, FixedDelay, NotEnqueued, Queue

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SIZE = (160 if DEEP else 40) << 20
XFS = 320 << 20  # it wants so much
POLICY = FixedDelay(delay=timedelta(0), max_attempts=1_000_000)
SOON = timedelta(milliseconds=100)
PATIENCE = 120.0  # seconds; only so that a test that hangs ends
WORKERS = 3

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system needs root"),
]


@contextmanager
def tmpfs(place: Path) -> Iterator[Path]:
    disk = place / "disk"
    disk.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a tmpfs here: {error}")
    try:
        yield disk
    finally:
        # Lazily: of a test that failed some files may still be open.
        subprocess.run(["umount", "-l", disk], check=False)


@contextmanager
def device(place: Path, kind: str) -> Iterator[Disk]:
    try:
        with Disk(place, kind, XFS if kind == "xfs" else SIZE) as disk:
            if kind == "xfs":
                about = os.statvfs(disk.mounted)
                with (disk.mounted / "much").open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, about.f_bavail * about.f_frsize - SIZE)
            yield disk
    except Missing as missing:
        pytest.skip(str(missing))


@contextmanager
def mounted(place: Path, kind: str) -> Iterator[Path]:
    if kind == "tmpfs":
        with tmpfs(place) as disk:
            yield disk
    else:
        with device(place, kind) as disk:
            yield disk.mounted


KINDS = ("tmpfs", "ext4", "xfs") if DEEP else ("tmpfs", "ext4")


def text(entry_id: str) -> str:
    """The payload of that entry, from one to twelve thousand characters."""
    return entry_id * (100 + crc32(entry_id.encode()) % 1100)


def jobs(storage: FileStorage) -> Queue[str]:
    return Queue("jobs", storage, str, retry_policy=POLICY)


def fill(root: Path) -> set[str]:
    """Enqueue until there is no space, then take the rest of it; the ids of what was accepted."""
    accepted: list[str] = []
    with FileStorage(root, durability="process") as storage:
        queue = jobs(storage)
        for batch in (20, 1):
            with suppress(NotEnqueued):
                while True:
                    ids = [f"{len(accepted) + each:08d}" for each in range(batch)]
                    queue.enqueue_many(map(text, ids), ids=ids)
                    accepted += ids
    take_the_rest(root.parent / "junk")
    return set(accepted)


def take_the_rest(file: Path) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for length in (1 << 20, 4096, 1):
            while True:
                try:
                    os.write(fd, b"x" * length)
                    os.fsync(fd)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break
    finally:
        os.close(fd)


def work(root: Path, name: str, say: Say) -> None:
    """Take entries and end them, in one way or another, until somebody kills this."""
    chance = Random(name)
    queue = jobs(FileStorage(root))
    while True:
        for entry in queue.dequeue(limit=chance.choice((1, 5)), wait=SOON):
            assert entry.data == text(entry.id)
            say(f"asks {entry.id}")
            match chance.randrange(10):
                case 0:
                    queue.release(entry)
                    say(f"back {entry.id}")
                case 1:
                    queue.mark_failed(entry, "not today " * 20)
                    say(f"back {entry.id}")
                case 2:
                    queue.extend(entry)
                    queue.mark_failed(entry, "never", dead=True)
                    say(f"dead {entry.id}")
                case _:
                    queue.mark_completed(entry)
                    say(f"done {entry.id}")


def said(actors: Sequence[Actor]) -> tuple[set[str], set[str], set[str]]:
    """What was completed, what is dead, and of what that is not known."""
    done, dead, unknown = set(), set(), set()
    for actor in actors:
        asked = ""
        for line in actor.said:
            word, entry_id = line.split()
            asked = entry_id if word == "asks" else ""
            (done if word == "done" else dead if word == "dead" else set()).add(entry_id)
        unknown.add(asked)
    return done, dead, unknown - {""}


def check(root: Path, ids: set[str], done: set[str], dead: set[str], unknown: set[str]) -> None:
    """All that was said is so, and nothing else has changed."""
    with FileStorage(root) as storage:
        entries = jobs(storage).entries()
        there = {entry.id for entry in entries}
        buried = {entry.id for entry in entries if entry.status is EntryStatus.DEAD}
        assert there <= ids - done
        assert ids - done - there <= unknown
        assert dead - buried <= unknown
        assert buried - dead <= unknown


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_is_worked_off(tmp_path: Path, kind: str) -> None:
    """On a full disk several processes end every entry there is; one that has waited enqueues again."""
    with mounted(tmp_path, kind) as disk:
        root = disk / "storage"
        ids = fill(root)
        assert len(ids) > 1000
        workers = [partial(work, root, f"worker {number}") for number in range(WORKERS)]
        with ExitStack() as opened:
            queue, new = jobs(opened.enter_context(FileStorage(root))), set[str]()
            with pytest.raises(NotEnqueued):
                queue.enqueue(text("refused"), id="refused")
            actors = opened.enter_context(acting(*workers))
            while True:
                done, dead, _ = said(actors)
                if done | dead >= ids | new:
                    break
                before = sum(len(actor.said) for actor in actors)
                assert hear(actors, PATIENCE, before + 1), "nothing is done any more"
                if len(new) < 20:
                    entry_id = f"{10**7 + len(new):08d}"
                    with suppress(NotEnqueued):
                        queue.enqueue(text(entry_id), id=entry_id)
                        new.add(entry_id)
            assert len(new) == 20
            assert queue.dequeue() is None
        check(root, ids | new, done, dead, set())
        (disk / "junk").unlink()
        with FileStorage(root) as storage:
            jobs(storage).enqueue_many(["x" * 1000] * 1000)


@pytest.mark.parametrize("kind", KINDS)
def test_workers_are_killed(tmp_path: Path, kind: str) -> None:
    """Processes that work on a full disk may be killed at any moment; others find all that was promised."""
    with mounted(tmp_path, kind) as disk:
        root = disk / "storage"
        ids = fill(root)
        done, dead, unknown = set[str](), set[str](), set[str]()
        for number in range(30 if DEEP else 8):
            workers = [partial(work, root, f"{number} {each}") for each in range(WORKERS)]
            with acting(*workers) as actors:
                assert hear(actors, PATIENCE, 100 + 13 * number)
            for actor in actors:
                actor.said += actor.late
            found = said(actors)
            done, dead, unknown = done | found[0], dead | found[1], unknown | found[2]
            check(root, ids, done, dead, unknown)
            count("killed at random", WORKERS)


@pytest.mark.parametrize("kind", ["ext4", "xfs"] if DEEP else ["ext4"])
def test_power_cuts(tmp_path: Path, kind: str) -> None:
    """The power may go at any moment of that: what was said before is so afterwards."""
    with device(tmp_path, kind) as disk:
        root = disk.mounted / "storage"
        ids = fill(root)
        disk.sync()
        done, dead, unknown = set[str](), set[str](), set[str]()
        for number in range(25 if DEEP else 5):
            workers = [partial(work, root, f"{number} {each}") for each in range(WORKERS)]
            with acting(*workers) as actors:
                assert hear(actors, PATIENCE, 100 + 13 * number)
                cut_power(disk, actors)
            disk.restore_power()
            found = said(actors)
            done, dead, unknown = done | found[0], dead | found[1], unknown | found[2]
            # What a worker was about to do when it was stopped may have been done.
            unknown |= {line.split()[1] for actor in actors for line in actor.late}
            check(root, ids, done, dead, unknown)
            count(f"cut {kind}")
