"""What somebody has put in the place of a file or a directory of ours: never followed, never waited for.

Every name that DuraQ opens or makes in a storage, and everything that can lie there: links to a victim, to
nothing and to a directory, FIFOs, sockets, second names of a victim, devices, directories, and files and
directories of other users. A victim stays as it was, nothing is made where a link points to, every call
ends, with an error of ours or none, and nothing that was accepted meanwhile is lost.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from contextlib import chdir, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from duraq import DeadLetterQueue, FileStorage, NoRetry, Queue
from duraq.errors import DuraqError
from duraq.inspector import Inspector
from duraq.journal.log import Sizes

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SIZES = Sizes(journal=8 << 10, segment=1 << 10)
NOBODY = 65534
VICTIM = b"precious" * 1000
is_root = os.geteuid() == 0

pytestmark = pytest.mark.timeout(60)


def use(root: Path, accepted: set[str]) -> None:
    """Everything that makes, replaces or removes a file, as far as it is possible."""
    with FileStorage(root, sizes=SIZES, durability="process") as storage:
        jobs = Queue("jobs", storage, retry_policy=NoRetry())
        for number in range(25):
            with suppress(DuraqError):
                accepted.add(jobs.enqueue({"n": number, "x": "x" * 60}))
        for number in range(6):
            with suppress(DuraqError):
                entry = jobs.dequeue(wait=timedelta(milliseconds=number % 2))
                if entry is not None and number % 2:
                    accepted.discard(entry.id)
                    jobs.mark_completed(entry)
                elif entry is not None:
                    jobs.mark_failed(entry, "no")
        with suppress(DuraqError):
            dead = DeadLetterQueue("jobs", None, storage)
            letter = next(iter(dead.list()))
            accepted.discard(letter.id)
            dead.remove(letter.id)
        with suppress(DuraqError):
            accepted.add(jobs.enqueue("once", key=os.urandom(4).hex()))
        with suppress(DuraqError):
            storage.compact("jobs")


def look(root: Path) -> None:
    with Inspector(root) as inspector:
        for queue in inspector.queues():
            inspector.overview(queue)
            with suppress(DuraqError, OSError):  # what the overview has told of already
                list(inspector.each_entry(queue))
                inspector.metrics(queue)
        with suppress(DuraqError, OSError):
            inspector.records(last=5)


# -- places ------------------------------------------------------------------------------------------------

DIRECTORIES = (
    "journal",
    "leases",
    "jobs",
    "_acts",
    "_keys",
    "jobs/segments",
    "jobs/waiters",
    "jobs/quarantine",
)
LOCKS = ("lock", "presence", "recycle")
JOURNAL = ("0.journal", "1.journal", *LOCKS, "ends.jsonl", "poison.json", "reserve", "scratch-0")
FILES = (
    *("duraq.json", "duraq.json.tmp", "jobs/damaged.json", "jobs/damaged.json.tmp"),
    *(f"journal/{name}" for name in JOURNAL),
    *("journal/ends.jsonl.tmp", "journal/poison.json.tmp"),
    *("leases/4711-9f3c02ab.json", "leases/4711-9f3c02ab.fifo", "leases/4711-9f3c02ab.new"),
    *("jobs/waiters/00000000000000000001-4711-0.fifo", "jobs/waiters/00000000000000000001-4711-0.new"),
    *("_acts/segments/00000000000000000001.jsonl", "_keys/segments/00000000000000000001.jsonl"),
    *("jobs/segments/OLD.jsonl", "jobs/segments/LAST.jsonl", "jobs/segments/NEXT.jsonl"),
    *("jobs/segments/LAST.index", "jobs/segments/NEXT.index", "jobs/segments/LAST.index.tmp"),
    *("jobs/segments/LAST.checkpoint", "jobs/segments/NEXT.checkpoint", "jobs/segments/LAST.checkpoint.tmp"),
    *("jobs/quarantine/LAST.jsonl.SIZE.cut", "jobs/quarantine/OLD.jsonl.0.lines"),
)


def places(root: Path, name: str) -> list[Path]:
    """The paths of that name: of the segments to come, wherever the next one begins."""
    numbers = [int(each.stem) for each in sorted((root / "jobs" / "segments").glob("*.jsonl"))]
    last = root / "jobs" / "segments" / f"{numbers[-1]:020d}.jsonl"
    name = name.replace("OLD", f"{numbers[0]:020d}").replace("SIZE", str(last.stat().st_size))
    if "NEXT" in name:
        return [root / name.replace("NEXT", f"{numbers[-1] + more:020d}") for more in range(1, 60)]
    return [root / name.replace("LAST", f"{numbers[-1]:020d}")]


# -- things ------------------------------------------------------------------------------------------------


def _socket(place: Path, _side: Path) -> None:
    with chdir(place.parent), socket.socket(socket.AF_UNIX) as planted:  # a long path would not do
        planted.bind(place.name)


def _foreign(make: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    def plant(place: Path, _side: Path) -> None:
        make(place)
        os.chown(place, NOBODY, NOBODY)

    return plant


OF_FILES: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda place, side: place.symlink_to(side / "victim"),
    "dangling link": lambda place, side: place.symlink_to(side / "made"),
    "link to a directory": lambda place, side: place.symlink_to(side / "home"),
    "FIFO": lambda place, _: os.mkfifo(place),
    "socket": _socket,
    "hard link": lambda place, side: place.hardlink_to(side / "victim"),
    "directory": lambda place, _: place.mkdir(),
}
OF_DIRECTORIES = {kind: OF_FILES[kind] for kind in ("link", "dangling link", "link to a directory", "FIFO")}
OF_DIRECTORIES["file"] = lambda place, _: place.write_bytes(b"junk")
if is_root:
    OF_FILES["device"] = lambda place, _: os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    OF_FILES["foreign"] = _foreign(lambda place: place.write_bytes(b"{}"))
    OF_DIRECTORIES["foreign"] = _foreign(Path.mkdir)
OF_DIRECTORIES["open to all"] = lambda place, _: (place.mkdir(), place.chmod(0o777))

CASES = [(name, kind) for name in FILES for kind in OF_FILES]
CASES += [(name, kind) for name in DIRECTORIES for kind in OF_DIRECTORIES]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A storage that has been used, with a segment that a crash has left a torn end of."""
    root = tmp_path_factory.mktemp("template") / "q"
    use(root, set())
    last = max((root / "jobs" / "segments").glob("*.jsonl"))
    last.write_bytes(last.read_bytes() + b'{"op":"enq')
    return root


@pytest.mark.parametrize(("name", "kind"), CASES if DEEP else CASES[::5])
def test_planted(template, tmp_path, name, kind):
    """Nothing that lies in the place of a file of ours is followed, waited for, changed or believed."""
    root, side = tmp_path / "q", tmp_path / "side"
    shutil.copytree(template, root)
    (side / "home").mkdir(parents=True)
    (side / "home" / "letter").write_bytes(b"dear")
    (side / "victim").write_bytes(VICTIM)
    planted = places(root, name)
    is_new = not any(map(os.path.lexists, planted))
    for place in planted:
        place.parent.mkdir(exist_ok=True, mode=0o700)
        _remove(place)
        {**OF_FILES, **OF_DIRECTORIES}[kind](place, side)
    marks = {place: _mark(place) for place in planted}
    accepted: set[str] = set()
    for call in (lambda: use(root, accepted), lambda: look(root)):
        with suppress(DuraqError):
            call()
    assert (side / "victim").read_bytes() == VICTIM
    assert sorted(each.name for each in side.iterdir()) == ["home", "victim"]
    assert [each.name for each in (side / "home").iterdir()] == ["letter"]
    assert (side / "home" / "letter").read_bytes() == b"dear"
    if is_new:
        # Whatever it was in the way of: what was accepted all the same is there when it is gone.
        for place, mark in marks.items():
            if _mark(place) == mark:
                _remove(place)
        with FileStorage(root) as storage:
            assert accepted <= {entry.id for entry in Queue("jobs", storage).entries()}


def _mark(place: Path) -> tuple[int, int] | None:
    """What tells it from what may have replaced it."""
    if not os.path.lexists(place):
        return None
    about = place.lstat()
    return about.st_dev, about.st_ino


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
