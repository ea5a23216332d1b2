"""Crash states of a real run: its system calls are recorded, and the power is cut at each of them.

Several processes do everything that changes a storage, in a real directory, under strace. Their calls are
made again on a disk in memory, and at each call it is asked what a power cut could leave: with all that was
not synced, with none of it, with single writes or names missing, there alone, or torn, and with any of them.
Each such disk is opened by the real code. It must hold what some beginning of the journal says, and that must
have everything that any process had been told by then.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from crash import recorded
from crash.recorded import QUEUES, SIZES
from crash.tracing import (
    DIRECTORY,
    Moment,
    Replay,
    Tree,
    materialise,
    moments,
    needs_strace,
    on_disk,
    really,
    record,
)
from evidence import count

from duraq import EntryStatus, FileStorage
from duraq.examining import verify
from duraq.journal import frame
from duraq.testing import FakeClock, MemoryFileSystem
from duraq.testing.disk import Directory, Disk, Fate, File, Names, Node, Resize, Write
from duraq.testing.power_cut import Chance, Everything, Nothing, Outcome, after_power_cut, some_entries

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
RUNS = 10 if DEEP else 1
PROCESSES, STEPS = 3, 14
SHARE = 1.0 if DEEP else 0.02  # of all moments
CHANCES = 8 if DEEP else 2  # at each of them
SINGLES = 2 if DEEP else 1  # of the newest changes to each file and directory
REAL = 100  # every so many states are opened in a real directory as well

# What living processes note for each other: it does not make another state.
NOTES = {"lock", "presence", "recycle"}
LIVING = {"leases", "waiters"}

pytestmark = [pytest.mark.timeout(3600), needs_strace]

# By queue and id: whether it lives or is dead, and how often it failed.
Entries = dict[tuple[str, str], tuple[str, int]]
State = frozenset[tuple[tuple[str, str], tuple[str, int]]]


# What must be true


def after(entries: Entries, changes: list[str]) -> Entries:
    """What has become of the entries, in the words of ``recorded``."""
    changed = dict(entries)
    for change in changes:
        how, queue, entry_id = change.split("/")
        key = queue, entry_id
        if how == "enqueue":
            assert key not in changed, change
            changed[key] = "live", 0
            continue
        status, failures = changed.pop(key)
        assert status == ("dead" if how == "retry" else "live"), change
        if how != "complete":
            failures += how in {"fail", "bury"}
            changed[key] = "dead" if how == "bury" else "live", failures
    return changed


class History:
    """What the processes commit, in the order of the journal, and how much of it they were told is done."""

    def __init__(self, said: Path) -> None:
        self._said = str(said)
        self._about: dict[int, list[str]] = {}  # what a process is about to commit
        self._written: dict[int, int] = {}  # what it has written of it, as the number of a state
        self.entries: Entries = {}
        self.states: list[State] = [frozenset()]
        self.least = 0  # a power cut may leave that state, or a later one

    def note(self, moment: Moment) -> bool:
        """One moment of the run; says whether somebody was told something."""
        if moment.result is None or moment.call not in {"write", "pwrite64"}:
            return False
        (where, data, *_), thread = moment.arguments, moment.thread
        if where.path == self._said:
            return self._listen(thread, data.decode())
        if where.path.endswith(".journal") and thread in self._about and data.startswith(frame.MAGIC):
            self._commit(thread, data)
        return False

    def _listen(self, thread: int, line: str) -> bool:
        sign, *changes = line.split()
        if sign == "?":
            self._about[thread] = changes
            return False
        # Whatever stands before it in the journal is as durable.
        self.least = max(self.least, self._written.pop(thread))
        return True

    def _commit(self, thread: int, data: bytes) -> None:
        changes = self._about.pop(thread)
        assert all(change.split("/")[2].encode() in data for change in changes), (changes, data)
        self.entries = after(self.entries, changes)
        self.states.append(frozenset(self.entries.items()))
        self._written[thread] = len(self.states) - 1


def seen(storage: FileStorage) -> State:
    """The entries that are there."""
    found: Entries = {}
    for queue in sorted({*QUEUES} & {*storage.queues()}):
        for each in storage.entries(queue):
            assert each.payload.decode() == f'"{recorded.payload(each.id)}"', each.id
            failures = sum(attempt.cause == "failed" for attempt in each.history)
            found[queue, each.id] = "dead" if each.status is EntryStatus.DEAD else "live", failures
    return frozenset(found.items())


# What a power cut may leave


class Some:
    """Of the changes that were not synced: all but one, or one alone; and that one may be torn."""

    def __init__(self, change: Write | Resize | Names, *, others: bool, torn: Random | None = None) -> None:
        self._change = change
        self._others = others
        self._torn = torn

    def _keeps(self, change: Write | Resize | Names) -> bool:
        return (change is self._change) is not self._others

    def content(self, file: File) -> bytearray:
        content = file.settled.copy()
        for change in file.log:
            if change is self._change and self._torn is not None:
                Chance(self._torn).tear(self._change, content)
            elif change.fate is Fate.SYNCED or self._keeps(change):
                change.apply(content)
        return content

    def entries(self, directory: Directory) -> Mapping[str, Node]:
        if isinstance(self._change, Names):
            return some_entries(directory, self._keeps)
        return directory.cache


def outcomes(disk: Disk, where: str) -> Iterator[tuple[str, Outcome]]:
    """What may become of what is not synced at this moment, and a word for each."""
    yield "nothing", Nothing()
    yield "everything", Everything()
    for path, node in nodes(disk.root, ""):
        for change in node.pending()[-SINGLES:]:
            what = f"{path}: {change!r:.80}"
            for others, word in ((True, "but for"), (False, "only")):
                yield f"{word} {what}", Some(change, others=others)
                if isinstance(change, Write):
                    yield f"{word} torn {what}", Some(change, others=others, torn=Random(f"{where} {what}"))
    for number in range(CHANCES):
        yield f"chance {number}", Chance(Random(f"{where} {number}"))


def nodes(directory: Directory, prefix: str) -> Iterator[tuple[str, Node]]:
    """All files and directories, but for the notes of the living."""
    yield prefix or ".", directory
    for name, node in directory.cache.items():
        if isinstance(node, Directory):
            if name not in LIVING:
                yield from nodes(node, f"{prefix}{name}/")
        elif name not in NOTES:
            yield prefix + name, node


class Left(NamedTuple):
    """A disk that a power cut has left, and how that was."""

    disk: Disk
    where: str

    def key(self) -> bytes:
        """The same for the same files, but for the notes of the living."""
        digest = blake2b(digest_size=16)
        for path, node in sorted(nodes(self.disk.root, "")):
            content = DIRECTORY.encode() if isinstance(node, Directory) else node.cache
            digest.update(f"{path} {len(content)} ".encode())
            digest.update(content)
        return digest.digest()


class Checked:
    """The states that were opened, each once."""

    def __init__(self, top: Path, fifos: set[int], now: datetime) -> None:
        self._top = top
        self._fifos = fifos
        self._now = now
        self.found: dict[bytes, State] = {}
        self.real = 0

    def check(self, left: Left, history: History) -> None:
        """It is one of the states that may be found now."""
        key = left.key()
        found = self.found.get(key)
        if found is None:
            files = on_disk(left.disk, self._fifos) if len(self.found) % REAL == 0 else None
            found = self._open(left)
            if files is not None:
                self.real += 1
                assert self._open_really(files, left.where) == found, left.where
            self.found[key] = found
        if found not in history.states[history.least :]:
            pytest.fail(f"{left.where}: {difference(found, history.states[history.least])}")

    def _open(self, left: Left) -> State:
        """What is found, and again after another power cut; nothing is damaged."""
        fs = MemoryFileSystem(disk=left.disk)
        try:
            found = seen(self._storage("/storage", fs))
            fs.die()
            later = fs.surviving(nothing=True)
            again = seen(self._storage("/storage", later))
        except Exception as error:
            raise AssertionError(left.where) from error
        assert again == found, f"{left.where}: opened again: {difference(again, found)}"
        report = verify("/storage", file_system=later.process())
        assert report.sound, f"{left.where}: {report.findings}"
        return found

    def _open_really(self, files: Tree, where: str) -> State:
        """The same in a real directory."""
        self._top.mkdir()
        materialise(files, self._top)
        root = str(self._top / "storage")
        found = []
        for _ in range(2):
            storage = self._storage(root, None)
            found.append(seen(storage))
            storage.close()
        assert verify(root).sound, where
        assert found[0] == found[1], where
        shutil.rmtree(self._top)
        return found[0]

    def _storage(self, path: str, fs: MemoryFileSystem | None) -> FileStorage:
        # Another boot than that of the run: nobody lives who could hold a lease.
        clock = FakeClock(now=self._now)
        return FileStorage(path, sizes=SIZES, clock=clock, file_system=fs, allow_network=True)


def difference(found: State, wanted: State) -> str:
    """What is the matter, of what was acknowledged and perhaps of what was not."""
    return f"there: {sorted(found - wanted)}, missing: {sorted(wanted - found)}"


# The runs


class Run:
    """A run that was recorded."""

    def __init__(self, place: Path, seed: int) -> None:
        self.top, self.trace, self.said = place / "top", place / "strace", place / "said"
        self.top.mkdir()
        program = [recorded.__file__, str(self.top / "storage"), str(seed), str(PROCESSES), str(STEPS)]
        record([sys.executable, *program], self.trace, self.said)
        self.replay, self.history = Replay(self.top), History(self.said)

    def moments(self) -> Iterator[int]:
        """Make it happen again; stops where a power cut may leave something else than before.

        That is after each call that changes the disk, and after somebody was told something.
        """
        calls = 0
        for moment in moments(self.trace):
            told, changed = self.history.note(moment), self.replay.make(moment)
            calls += changed
            if told or changed:
                yield calls


@pytest.mark.parametrize("seed", range(RUNS))
def test_every_traced_call_may_be_the_last(tmp_path, one_thread, seed):
    """A power cut at any system call leaves what was acknowledged, and the rest whole or not at all."""
    place = tmp_path.resolve()
    run = Run(place, seed)
    checked = Checked(place / "real", run.replay.fifos, datetime.now(UTC) + timedelta(seconds=1))
    chance = Random(seed)
    for number in run.moments():
        if chance.random() < SHARE:
            where = f"run {seed}, call {number} of {run.trace}"
            for word, outcome in outcomes(run.replay.disk, where):
                disk = after_power_cut(run.replay.disk, outcome)
                checked.check(Left(disk, f"{where}, {word}"), run.history)
    # Nothing has escaped the recording.
    assert on_disk(run.replay.disk, run.replay.fifos) == really(run.top)
    assert run.history.least == len(run.history.states) - 1
    assert checked.real
    count("traced", len(checked.found))


def test_a_sync_covers_what_came_before_it(tmp_path):
    """What is written while a sync runs is not durable by it, nor is anything before the sync returns."""
    trace = tmp_path / "strace"
    trace.write_text(
        '1 openat(AT_FDCWD</elsewhere>, "/top/file", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 5</top/file>\n'
        '1 pwrite64(5</top/file>, "\\x61", 1, 0) = 1\n'
        "1 fdatasync(5</top/file> <unfinished ...>\n"
        '2 pwrite64(7</top/file>, "\\x62", 1, 1 <unfinished ...>\n'
        "2 <... pwrite64 resumed>) = 1\n"
        '2 write(1</said>, "\\x21\\x0a", 2) = 2\n'
        "1 <... fdatasync resumed>) = 0\n"
        "1 fsync(3</top>) = 0\n"
    )
    replay = Replay(Path("/top"))
    durable = []
    for moment in moments(trace):
        if replay.make(moment):
            node = replay.disk.root.cache["file"]
            durable.append((bytes(node.cache), bytes(node.durable()), "file" in replay.disk.root.durable()))
    assert durable == [
        (b"", b"", False),
        (b"a", b"", False),
        (b"ab", b"", False),
        (b"ab", b"a", False),
        (b"ab", b"a", True),
    ]
