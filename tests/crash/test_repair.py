"""A repair that is cut short at any call, by the power or by its own death: the next one completes it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from itertools import count as numbering
from random import Random

import pytest
from evidence import count
from lived_in import PLACE, SIZES, Files, disk, entries

from duraq import QueueNotFound, StorageBusy, examining, repair, verify
from duraq.journal import reading
from duraq.journal.log import Log
from duraq.testing import Crashed, FakeClock, MemoryFileSystem

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}

pytestmark = pytest.mark.timeout(3600 if DEEP else 300)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, one_thread):
    # What recovery reports, thousands of times, is not what a failing test is about.
    monkeypatch.setattr(logging.getLogger("duraq"), "disabled", True)
    # Nobody changes anything meanwhile, so there is nothing to look at twice.
    monkeypatch.setattr(examining, "_ATTEMPTS", 1)
    monkeypatch.setattr(reading, "_ATTEMPTS", 1)


class Watched(MemoryFileSystem):
    """Tells somebody before each call that changes the disk."""

    before: Callable[[], None] | None = None

    def _begin(self, call: str, path: str, size: int = 0, *, changes: bool = False) -> int | None:
        if changes and self.before is not None and not self._dead:
            self.before()
        return super()._begin(call, path, size, changes=changes)


def damaged(sound: Files, what: str) -> Files:
    """A storage that needs every part of a repair."""
    segments = [name for name in sound if "/segments/" in name and name.endswith(".jsonl")]
    # The last one is that of the queue that no frame speaks of.
    first, middle, last = segments[0], segments[len(segments) // 2], segments[-1]
    files = dict(sound)
    if what == "lines":
        for name in (first, middle, last):
            files[name] = files[name].replace(b'"at":"2', b'"at":"3', 1)
    elif what == "segments":
        del files[middle], files[last]
    elif what == "the end":
        files[last] = files[last][: len(files[last]) * 2 // 3]
    elif what == "the journal":
        for name in ("journal/0.journal", "journal/1.journal"):
            files[name] = b"\0" * 64 + files[name][64:]
        files[last] = files[last].replace(b'"at":"2', b'"at":"3', 1)
    elif what == "the ends":
        files["journal/ends.jsonl"] = files["journal/ends.jsonl"].replace(b'"position"', b'"positiom"')
    else:
        del files["duraq.json"]
    return files


WHAT = ("lines", "segments", "the end", "the journal", "the ends", "the marker")


def mend(fs: MemoryFileSystem) -> None:
    repair(PLACE, file_system=fs, clock=FakeClock())


def cut(fs: MemoryFileSystem, chances: int, seed: str) -> Iterator[tuple[str, MemoryFileSystem]]:
    """What a power cut at this moment may leave."""
    yield "nothing", fs.surviving(nothing=True)
    yield "everything", fs.surviving(everything=True)
    for number in range(chances):
        yield f"chance {number}", fs.power_cut(Random(f"{seed}, {number}"))


@pytest.mark.parametrize("what", WHAT)
def test_a_power_cut_at_any_call(sound, what):
    """After a power cut at any call of a repair, the next one leads to what the first would have led to."""
    files = damaged(sound, what)
    whole = disk(files)
    mend(whole)
    wanted = entries(whole.process())
    process = Watched(disk=disk(files)._disk)
    images = numbering()

    # At once, for all of them together take too much memory.
    def check() -> None:
        for how, image in cut(process, 4 if DEEP else 1, what):
            if not DEEP and next(images) % 35:
                continue
            where = f"call {process.calls + 1}, {how}"
            mend(image)
            assert verify(PLACE, file_system=image).sound, where
            found = entries(image.process())
            assert found == wanted, f"{where}: {found.keys() ^ wanted.keys()}"
            count("simulated")

    process.before = check
    mend(process)
    assert process.calls > 10


@pytest.mark.parametrize("tear", [False, True], ids=["before", "within"])
@pytest.mark.parametrize("what", WHAT)
def test_a_death_at_any_call(sound, what, tear):
    """After the death of a repair at any call, the next one leads to what the first would have led to."""
    files = damaged(sound, what)
    whole = disk(files)
    mend(whole)
    wanted, calls = entries(whole.process()), whole.calls
    for call in range(1, calls + 1, 1 if DEEP else 25):
        fs = disk(files)
        fs.crash_after(call, tear=tear)
        with pytest.raises(Crashed):
            mend(fs)
        after = fs.process()
        mend(after)
        assert verify(PLACE, file_system=after).sound, f"call {call}"
        assert entries(after.process()) == wanted, f"call {call}"
        count("simulated")


def test_nothing_is_thrown_away(sound):
    """Whatever a repair takes out of a file is in quarantine, byte for byte."""
    files = damaged(sound, "lines")
    fs = disk(files)
    mend(fs)
    after = {name.removeprefix("storage/"): content for name, content in fs.files().items()}
    kept = [content for name, content in after.items() if "/quarantine/" in name]
    for name, content in files.items():
        # What is again as it was has been made so from the journal.
        if "/segments/" in name and name.endswith(".jsonl") and after[name] not in {content, sound[name]}:
            assert content in kept, name


def test_whoever_has_it_open_is_not_disturbed(sound):
    """While somebody has the storage open, it is not repaired, and nothing in it changes."""
    fs = disk(damaged(sound, "lines"))
    other = Log(fs.process(), PLACE, SIZES)
    before = fs.files()
    with pytest.raises(StorageBusy):
        mend(fs)
    assert fs.files() == before
    other.close()
    mend(fs)
    assert fs.files() != before


def test_twice_is_as_once(sound):
    """A storage that was repaired is sound, and repairing it again does nothing."""
    for what in WHAT:
        fs = disk(damaged(sound, what))
        mend(fs)
        before = fs.files()
        assert not repair(PLACE, file_system=fs, clock=FakeClock()).steps
        assert fs.files() == before


@pytest.mark.parametrize("names", [(), ("waiters",), ("segments", "waiters")])
def test_a_queue_that_has_not_begun(sound, names):
    """A queue whose first records a power cut has taken, and not its directory, is no damage."""
    fs = disk(sound)
    home = fs.open_dir(fs.open_root(PLACE), "new", create=True)
    for name in names:
        fs.open_dir(home, name, create=True)
    report = verify(PLACE, file_system=fs)
    assert report.sound
    assert report.queues == verify(PLACE, file_system=disk(sound)).queues
    with pytest.raises(QueueNotFound):
        verify(PLACE, ["new"], file_system=fs)
