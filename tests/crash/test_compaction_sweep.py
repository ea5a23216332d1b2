"""Compaction cut short at every call: by SIGKILL, by power cuts, and by calls that fail.

A script of everything that changes a queue runs over segments so small that several are sealed and dropped
at every compaction, which happens at chosen steps only. A model that shares no code with the fold says what
must be there after each step. What was acknowledged is, whatever became of the segments that it was written
to, and what is over does not come back.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from duraq import EntryStatus, FileStorage
from duraq.errors import DuraqError, OutcomeUnknown, StorageFailed
from duraq.journal import compaction
from duraq.journal.filesystem import FileSystem, RealFileSystem
from duraq.journal.log import Sizes
from duraq.model import AttemptError, Cause
from duraq.operations import (
    Bury,
    Complete,
    Enqueue,
    Extend,
    Fail,
    Operation,
    PauseQueue,
    Release,
    Remove,
    Requeue,
    ResumeQueue,
)
from duraq.storage import compactor
from duraq.storage.file import Durability
from duraq.testing import FakeClock, KillingFileSystem, MemoryFileSystem
from duraq.testing.faults import SYNCS, os_error

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SIZES = Sizes(journal=8 << 10, segment=1 << 10)
STEPS = 60
EVERY = 8  # so many steps, a compaction
POINTS = 14  # of each part of a sweep; deep: every call
PARTS = 2  # of a sweep, so that they can run at once
NOON = FakeClock().now()
MINUTE = 60_000_000  # microseconds; what each step takes

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(autouse=True)
def _on_demand_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # A thread that compacts when it likes would have every run make other calls.
    monkeypatch.setattr(compaction, "is_due", lambda *_: False)
    # So few that one segment takes several steps.
    monkeypatch.setattr(compactor, "ENTRIES", 2)
    # What recovery reports, a thousand times, is not what a failing test is about.
    monkeypatch.setattr(logging.getLogger("duraq"), "disabled", True)


# What must be true, without any of the code under test


@dataclass(frozen=True)
class Row:
    """What is compared of an entry."""

    id: str
    payload: bytes
    priority: int
    expires_at: int | None
    ready_at: int
    status: str = "waiting"
    attempts: int = 0
    token: int = 0
    errors: tuple[str, ...] = ()

    def is_over(self, now: int) -> bool:
        return self.status == "waiting" and self.expires_at is not None and self.expires_at <= now

    def shown(self, now: int) -> Row:
        """With the status that it has at this time."""
        waiting = "scheduled" if self.ready_at > now else "ready"
        return replace(self, ready_at=0, status=waiting if self.status == "waiting" else self.status)

    def ended(self, error: str, now: int, *, status: str = "waiting", counted: bool = True) -> Row:
        """Not leased any more."""
        return replace(
            self,
            status=status,
            ready_at=now,
            token=0,
            attempts=self.attempts if counted else self.attempts - 1,
            errors=(*self.errors, error),
        )


class State(NamedTuple):
    """A queue: its entries in the order they were enqueued in, the last token given, why it is paused."""

    rows: dict[str, Row]
    tokens: int
    pause: str | None

    def there(self, now: int) -> list[Row]:
        return [row.shown(now) for row in self.rows.values() if not row.is_over(now)]

    def having(self, status: str, now: int) -> list[Row]:
        return [row for row in self.there(now) if row.status == status]

    def ready(self, now: int) -> list[Row]:
        """In the order of delivery."""
        return sorted(self.having("ready", now), key=lambda row: -row.priority)


Seen = tuple[list[Row], list[str], str | None]


def told(state: State, now: int) -> Seen:
    """The model as ``seen`` shows a storage."""
    return state.there(now), [row.id for row in state.ready(now)], state.pause


def seen(storage: FileStorage) -> Seen:
    rows = [
        Row(
            each.id,
            each.payload,
            each.priority,
            each.expires_at,
            0,
            str(each.status),
            each.attempts,
            each.token,
            tuple(attempt.error.message for attempt in each.history),
        )
        for each in storage.entries("jobs")
    ]
    pause = storage.paused("jobs")
    ready = [each.id for each in storage.entries("jobs", EntryStatus.READY)]
    return rows, ready, None if pause is None else pause.reason


def difference(found: Seen, wanted: Seen) -> str:
    """What of one is not in the other."""
    lines = [f"there:  {row}" for row in found[0] if row not in wanted[0]]
    lines += [f"wanted: {row}" for row in wanted[0] if row not in found[0]]
    return "\n".join(lines) or f"there: {found[1:]}, wanted: {wanted[1:]}"


# The script


class Step(NamedTuple):
    """What to do, and what is true at that time and afterwards."""

    now: int
    operations: list[Operation]  # to commit, or else
    claims: list[str]  # to lease, or else to compact
    before: State
    after: State

    @property
    def compacts(self) -> bool:
        return not self.operations and not self.claims

    def do(self, storage: FileStorage, *, detached: bool = True) -> bool:
        """Says whether everything up to here is durable on return."""
        set_clock(storage, self.now)
        if self.operations:
            storage.commit({"jobs": self.operations})
            # That a lease goes on is no more durable than the lease.
            extends = all(isinstance(each, Extend) for each in self.operations)
            return storage.durability == "power" and not extends
        if self.claims:
            claimed = storage.claim("jobs", len(self.claims), detached=detached)
            assert [each.id for each in claimed] == self.claims
            return False
        # Before a file goes, in every mode of durability.
        return storage.compact("jobs").freed > 0


class Author:
    """Writes the script, and keeps the model that it comes from."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)
        self._made = 0
        self._now = NOON
        self._state = State({}, 0, None)

    def write(self, steps: int) -> Iterator[Step]:
        for number in range(steps):
            self._now = NOON + number * MINUTE
            before = self._state
            operations: list[Operation] = []
            claims: list[str] = []
            if number % EVERY != EVERY - 1:
                while not operations and not claims:
                    operations, claims = self._next()
            yield Step(self._now, operations, claims, before, self._state)

    def _next(self) -> tuple[list[Operation], list[str]]:
        """Nothing if what was chosen is not possible now."""
        kinds = ("enqueue", "claim", "end", "dead", "pause")
        kind = self._chance.choices(kinds, (5, 5, 6, 1, 1))[0] if self._made else "enqueue"
        if kind == "enqueue":
            return self._enqueue(), []
        if kind == "claim":
            return [], self._claim()
        if kind == "end":
            return self._end(), []
        return (self._bring_back() if kind == "dead" else self._pause()), []

    def _put(self, *rows: Row) -> None:
        self._state = self._state._replace(rows=self._state.rows | {row.id: row for row in rows})

    def _take(self, row: Row) -> None:
        rows = self._state.rows
        self._state = self._state._replace(rows={name: rows[name] for name in rows if name != row.id})

    def _enqueue(self) -> list[Operation]:
        """A batch, or one; some with a TTL, some not before a time."""
        chance = self._chance
        operations: list[Operation] = []
        for _ in range(chance.choice((1, 1, 4))):
            self._made += 1
            payload = b'"%d %s"' % (self._made, b"x" * chance.randrange(150))
            ready_at = self._now + 9 * MINUTE if chance.random() < 0.2 else None
            expires_at = self._now + 15 * MINUTE if chance.random() < 0.2 else None
            entry = Enqueue(str(self._made), payload, chance.randrange(3), ready_at, expires_at)
            operations.append(entry)
            self._put(Row(entry.id, payload, entry.priority, expires_at, ready_at or self._now))
        return operations

    def _claim(self) -> list[str]:
        ready = [] if self._state.pause else self._state.ready(self._now)[: self._chance.choice((1, 1, 3))]
        for row in ready:
            token = self._state.tokens + 1
            self._state = self._state._replace(tokens=token)
            self._put(replace(row, status="leased", attempts=row.attempts + 1, token=token))
        return [row.id for row in ready]

    def _end(self) -> list[Operation]:
        """Most often completed: there is to be something to remove."""
        held = self._state.having("leased", self._now)
        if not held:
            return []
        row, now = self._chance.choice(held), self._now
        error = AttemptError("Boom", f"not at {now}")
        match self._chance.choices(("complete", "fail", "bury", "release", "extend"), (8, 2, 2, 1, 1))[0]:
            case "complete":
                self._take(row)
                return [Complete(row.id, row.token)]
            case "fail":
                later = now + self._chance.choice((0, 3 * MINUTE))
                self._put(row.ended(error.message, later))
                return [Fail(row.id, row.token, Cause.FAILED, error, later)]
            case "bury":
                self._put(row.ended(error.message, now, status="dead"))
                return [Bury(row.id, row.token, Cause.FAILED, error)]
            case "release":
                self._put(row.ended("given back; not counted", now, counted=False))
                return [Release(row.id, row.token)]
            case _:
                deadline = FakeClock().uptime() + (now - NOON) + 2880 * MINUTE
                return [Extend(row.id, row.token, deadline, FakeClock().boot_id, now + 2880 * MINUTE)]

    def _bring_back(self) -> list[Operation]:
        """Or remove for good."""
        for row in self._state.having("dead", self._now):
            if self._chance.random() < 0.5:
                self._take(row)
                return [Remove(row.id)]
            self._put(replace(row, status="waiting", attempts=0, expires_at=None))
            return [Requeue(row.id)]
        return []

    def _pause(self) -> list[Operation]:
        paused = self._state.pause is not None
        self._state = self._state._replace(pause=None if paused else f"at {self._now}")
        return [ResumeQueue("ann") if paused else PauseQueue("ann", f"at {self._now}")]


def script(seed: int, steps: int = STEPS) -> list[Step]:
    return list(Author(seed).write(steps))


# Opening, and what must be true whenever somebody does


def open_storage(fs: FileSystem, path: str, now: int, durability: Durability = "power") -> FileStorage:
    clock = FakeClock()
    clock.advance(timedelta(microseconds=now - NOON))
    return FileStorage(
        path,
        durability=durability,
        lock_duration=timedelta(days=2),
        sizes=SIZES,
        allow_network=True,  # else the machine's mounts are looked up each time
        clock=clock,
        file_system=fs,
    )


class Place(NamedTuple):
    """Where a storage lies."""

    fs: FileSystem
    path: str

    def open(self, now: int) -> FileStorage:
        """By a process of its own, if the disk is one in memory."""
        fs = self.fs.process() if isinstance(self.fs, MemoryFileSystem) else self.fs
        return open_storage(fs, self.path, now)

    def after_power_cut(self) -> Place:
        """With nothing but what is durable, if the disk is one in memory."""
        fs = self.fs
        return self._replace(fs=fs.surviving(nothing=True)) if isinstance(fs, MemoryFileSystem) else self

    def segments(self) -> list[str]:
        return [name for name in self._names() if name.endswith(".jsonl")]

    def remove_derived(self) -> None:
        self._names(remove=(".index", ".checkpoint"))

    def _names(self, remove: tuple[str, ...] = ()) -> list[str]:
        with ExitStack() as opened:
            root = self.fs.open_root(self.path)
            opened.callback(self.fs.close, root)
            home = self.fs.open_dir(root, "jobs")
            opened.callback(self.fs.close, home)
            directory = self.fs.open_dir(home, "segments")
            opened.callback(self.fs.close, directory)
            names = self.fs.names(directory)
            for name in names:
                if remove and name.endswith(remove):
                    self.fs.unlink(directory, name)
        return sorted(names)


def check(place: Place, allowed: list[State], now: int, where: str) -> None:
    """It opens in an allowed state, which stays whatever is derived and compacted, and works."""
    with place.open(now) as storage:
        found, entries = seen(storage), storage.entries("jobs")
    states = [state for state in allowed if told(state, now) == found]
    assert states, f"{where}: {difference(found, told(allowed[-1], now))}"
    with place.open(now) as storage:
        assert storage.entries("jobs") == entries, f"{where}, opened again"
    place.remove_derived()
    with place.open(now) as storage:
        assert storage.entries("jobs") == entries, f"{where}, without what is derived"
        storage.compact("jobs")
        assert storage.entries("jobs") == entries, f"{where}, compacted"
    place = place.after_power_cut()
    with place.open(now) as storage:
        assert storage.entries("jobs") == entries, f"{where}, opened after that"
        assert seen(storage) == found, where
    # Of several that look the same, the newest: a token is given once.
    works(place, states[-1], now, where)


def works(place: Place, state: State, now: int, where: str) -> None:
    """What is held can be completed, all else is delivered in order, each once, and then nothing is left."""
    with place.open(now) as storage:
        held, dead = state.having("leased", now), state.having("dead", now)
        ends: list[Operation] = [Complete(row.id, row.token) for row in held]
        ends += [Requeue(row.id) for row in dead]
        storage.commit({"jobs": [*ends, ResumeQueue("ann"), Enqueue("new", b"0", -99)]})
    with place.open(now + 1440 * MINUTE) as storage:
        storage.compact("jobs")
        later = storage.clock.now()
        gone = [row.id for row in held]
        rows = {name: row for name, row in state.rows.items() if name not in gone}
        rows |= {row.id: replace(row, status="waiting", expires_at=None) for row in dead}
        wanted = [row.id for row in State(rows, 0, None).ready(later)] + ["new"]
        claimed = storage.claim("jobs", 1000, detached=True)
        assert [each.id for each in claimed] == wanted, where
        tokens = range(state.tokens + 1, state.tokens + 1 + len(wanted))
        assert [each.token for each in claimed] == list(tokens), where
        storage.commit({"jobs": [Complete(each.id, each.token) for each in claimed]})
        storage.compact("jobs")
    with place.open(later) as storage:
        assert storage.entries("jobs") == [], where


# Killed

Say = Callable[[str], None]


def start(job: Callable[[Say], None]) -> tuple[int, int]:
    """A child process that does the job; its id, and where to read what it says."""
    output, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            job(lambda line: _say(write, line))
            status = 0
        except BaseException:  # noqa: BLE001 - it must not get back into pytest
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    return pid, output


def _say(pipe: int, line: str) -> None:
    os.write(pipe, f"{line}\n".encode())


def ended(pid: int, output: int) -> str:
    """All that it said, once it has ended or was killed."""
    with os.fdopen(output) as lines:
        said = lines.read()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in {0, -signal.SIGKILL}, said
    return said


def begin(root: Path, steps: list[Step]) -> Place:
    """A storage in which there is a queue to look into."""
    place = Place(RealFileSystem(), str(root))
    with place.open(NOON) as storage:
        steps[0].do(storage)
    return place


def work(root: Path, killer: KillingFileSystem, steps: list[Step]) -> str:
    """What a child said that went on from there until it was done or killed."""

    def job(say: Say) -> None:
        storage = open_storage(killer, str(root), NOON)
        for step in steps[1:]:
            say("?")
            step.do(storage, detached=False)
            say("!")
        say(f"calls {' '.join(killer.trace)}")
        # It is not closed: that would give back what is held.

    return ended(*start(job))


def allowed(said: str, steps: list[Step]) -> tuple[list[State], int]:
    """What may be there: with what was done, and with what was only begun; and the time."""
    begun = steps[said.count("?")]
    return [steps[said.count("!")].after, begun.after], begun.now


def calls(tmp_path: Path, steps: list[Step]) -> list[str]:
    begin(tmp_path / "counted", steps)
    said = work(tmp_path / "counted", KillingFileSystem(), steps)
    return said.splitlines()[-1].split()[1:]


def chosen(numbers: list[int], count: int, part: int = 0, parts: int = 1) -> list[int]:
    """This part's share of all, or of so many a part that lie evenly between all."""
    step = 1.0 if DEEP else max(1.0, len(numbers) / (count * parts))
    return [numbers[int(number * step)] for number in range(int(len(numbers) / step))][part::parts]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("tear", [False, True], ids=["before", "within"])
def test_whoever_comes_after_a_kill(tmp_path: Path, tear: bool, part: int) -> None:
    """Killed at any call, a process that compacts leaves to the next one all that it was told is done."""
    steps = script(24)
    # Only a write has a middle.
    points = [at for at, call in enumerate(calls(tmp_path, steps), 1) if not tear or call == "pwrite"]
    for point in chosen(points, POINTS, part, PARTS):
        root = tmp_path / str(point)
        place = begin(root, steps)
        said = work(root, KillingFileSystem(point, tear=tear), steps)
        check(place, *allowed(said, steps), f"call {point}, tear {tear}")
        shutil.rmtree(root)


@pytest.mark.parametrize("part", range(PARTS))
def test_whoever_is_there_at_a_kill(tmp_path: Path, part: int) -> None:
    """Killed at any call, it leaves the same to one that has known the queue from the beginning."""
    steps = script(2)
    points = list(range(1, 1 + len(calls(tmp_path, steps))))
    for point in chosen(points, POINTS // 2, part, PARTS):
        root = tmp_path / str(point)
        place = begin(root, steps)
        with place.open(NOON) as storage:
            storage.entries("jobs")
            said = work(root, KillingFileSystem(point, tear=bool(point % 2)), steps)
            states, now = allowed(said, steps)
            set_clock(storage, now)
            found = seen(storage)
            assert found in [told(state, now) for state in states], f"call {point}"
            storage.compact("jobs")
            assert seen(storage) == found, f"call {point}"
        check(place, states, now, f"call {point}")
        shutil.rmtree(root)


# Power cuts, and calls that fail


class Watched(MemoryFileSystem):
    """Tells somebody before each call, who may let it fail."""

    before: Callable[[str, str, bool], None] | None = None

    def _begin(self, call: str, path: str, size: int = 0, *, changes: bool = False) -> int | None:
        if self.before is not None and not self._dead:
            self.before(call, path, changes)
        return super()._begin(call, path, size, changes=changes)


def cut(fs: MemoryFileSystem, chance: Random) -> MemoryFileSystem:
    """What a power cut leaves: one of the extremes, or something in between."""
    kind = chance.random()
    if kind < 0.3:
        return fs.surviving(nothing=True)
    return fs.surviving(everything=True) if kind < 0.4 else fs.power_cut(chance)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("durability", ["power", "process"])
@pytest.mark.parametrize("seed", range(11, 21 if DEEP else 13))
def test_every_call_may_be_the_last(seed: int, durability: Durability) -> None:
    """After a power cut at any call nothing is missing that was durable, and nothing is there in part."""
    steps, chance, share = script(seed), Random(seed), 1 if DEEP else 0.04
    disk = Watched()
    with open_storage(disk, "/storage", NOON) as storage:
        steps[0].do(storage)
    storage = open_storage(disk, "/storage", NOON, durability)
    images: list[tuple[MemoryFileSystem, str]] = []

    def before(call: str, path: str, changes: bool) -> None:
        if changes and chance.random() < share:
            images.append((cut(disk, chance), f"seed {seed}, call {disk.calls + 1}: {call}({path})"))

    disk.before = before
    states = [steps[0].after]
    for step in steps[1:]:
        durable = step.do(storage)
        for image, where in images:
            check(Place(image, "/storage"), [*states, step.after], step.now, where)
        images.clear()
        states = [step.after] if durable else [*states, step.after]


@pytest.mark.usefixtures("one_thread")
def test_what_was_cut_off_stays_away() -> None:
    """Segments that a recovery has cut, for the journal's end was lost, do not come back in the next cut."""
    step, disk = script(14)[0], MemoryFileSystem()
    with open_storage(disk, "/storage", NOON) as storage:
        step.do(storage)
    durable = disk.files()
    with open_storage(disk, "/storage", NOON, "process") as storage:
        for number in range(12):
            storage.commit({"jobs": [Enqueue(f"lost{number}", b'"%s"' % (b"x" * 150))]})
    # All that was written to the segments, and nothing of that to the journal.
    place = Place(left := disk.surviving(everything=True), "/storage")
    directory = left.open_dir(left.open_root("/storage"), "journal")
    for name in ("0.journal", "1.journal", "ends.jsonl"):
        if f"storage/journal/{name}" in durable:
            fd = left.open_file(directory, name)
            left.pwrite(fd, durable[f"storage/journal/{name}"], 0)
            left.sync(fd)
    rows = dict(step.after.rows)
    with place.open(NOON) as storage:
        assert seen(storage) == told(step.after, NOON)
        for number in range(10):
            # Longer ones, so that other segments come of them.
            row = Row(f"new{number}", b'"%s"' % (b"x" * 500), 0, None, NOON)
            storage.commit({"jobs": [Enqueue(row.id, row.payload)]})
            rows[row.id] = row
    check(place.after_power_cut(), [State(rows, 0, None)], NOON, "cut again")


def test_what_was_removed_may_come_back(tmp_path: Path) -> None:
    """Files that went, and that a power cut brings back whole or in part, lead nobody astray."""
    steps, chance = script(41), Random(41)
    place = begin(tmp_path / "storage", steps)
    directory = tmp_path / "storage" / "jobs" / "segments"
    before: list[dict[str, bytes]] = []
    with place.open(NOON) as storage:
        for step in steps[1:]:
            if step.compacts:
                before.append({path.name: path.read_bytes() for path in directory.iterdir()})
            step.do(storage)
    last = steps[-1]
    for number, files in enumerate(before * (10 if DEEP else 1)):
        copy = tmp_path / str(number)
        shutil.copytree(tmp_path / "storage", copy, ignore=shutil.ignore_patterns("*.fifo"))
        place = Place(place.fs, str(copy))
        if chance.random() < 0.5:
            # As may be lost in one.
            place.remove_derived()
        for name in files.keys() - {path.name for path in directory.iterdir()}:
            length = len(files[name]) if chance.random() < 0.7 else chance.randrange(len(files[name]))
            (copy / "jobs" / "segments" / name).write_bytes(files[name][:length])
        check(place, [last.after], last.now, f"copy {number}")


class Failing:
    """The script on a disk of which, during compactions, one call fails."""

    def __init__(self, steps: list[Step], error: int, point: int = 0) -> None:
        self.steps, self.error, self.point = steps, error, point
        self.where = f"call {point} fails with {errno.errorcode[error]}"
        self.calls = 0
        self.armed = False
        self.disk = Watched()
        self.storage = self._open(NOON)

    def _open(self, now: int) -> FileStorage:
        self.disk = Watched(disk=self.disk._disk)
        self.disk.before = self._before
        return open_storage(self.disk, "/storage", now)

    def _before(self, call: str, path: str, changes: bool) -> None:
        # What is closed or unlocked is so whatever is said. A directory whose sync fails loses names here
        # that its cache goes on showing; real file systems stop themselves then.
        spared = call in {"close", "unlock"} or (call == "sync" and not path.startswith("journal/"))
        takes_space = changes and call not in {*SYNCS, "unlink", "truncate"}
        if not self.armed or spared or (self.error == errno.ENOSPC and not takes_space):
            return
        self.calls += 1
        if self.calls == self.point:
            self.where += f": {call}({path})"
            raise os_error(self.error, path)

    def run(self) -> None:
        states: list[State] = []
        for step in self.steps:
            struck = self.calls >= self.point
            durable = self._do(step, struck=struck)
            states = [step.after] if durable else [*states, step.after]
            try:
                found = seen(self.storage)
            except StorageFailed:
                self._reopen(step)
                found = seen(self.storage)
            assert found == told(step.after, step.now), self.where
            if not struck and self.calls >= self.point:
                image = Place(cut(self.disk, Random(self.point)), "/storage")
                check(image, states, step.now, f"{self.where}, then a power cut")
        check(Place(self.disk.surviving(nothing=True), "/storage"), states, self.steps[-1].now, self.where)

    def _do(self, step: Step, *, struck: bool) -> bool:
        """Says whether everything up to here is durable."""
        self.armed = step.compacts
        try:
            return step.do(self.storage)
        except (StorageFailed, OutcomeUnknown):
            self._reopen(step)
        except DuraqError:
            # Whoever compacts is told, once, and may try again.
            assert not struck, self.where
            assert self.calls >= self.point, self.where
        finally:
            self.armed = False
        return False

    def _reopen(self, step: Step) -> None:
        """It is there wholly or not at all; then it can be done again."""
        self.armed = False
        self.disk.die()
        self.storage = self._open(step.now)
        if seen(self.storage) != told(step.after, step.now):
            assert seen(self.storage) == told(step.before, step.now), self.where
            step.do(self.storage)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_every_call_may_fail(error: int) -> None:
    """Whatever call of a compaction fails, its caller is told in our words at most, and nothing is lost."""
    steps = script(21, 40)
    # What was leased last is durable with what follows.
    now, state = steps[-1].now, steps[-1].after
    steps.append(Step(now, [PauseQueue("ann", "last")], [], state, state._replace(pause="last")))
    whole = Failing(steps, error)
    whole.run()
    for point in chosen(list(range(1, 1 + whole.calls)), POINTS):
        Failing(steps, error, point).run()


# Others meanwhile


def set_clock(storage: FileStorage, now: int) -> None:
    assert isinstance(storage.clock, FakeClock)
    storage.clock.advance(timedelta(microseconds=now - storage.clock.now()))


@pytest.mark.parametrize("derived", [True, False], ids=["", "nothing-derived"])
def test_whoever_slept(tmp_path: Path, derived: bool) -> None:
    """A process that slept while all it knew was removed goes on with what is true now."""
    steps = script(31)
    place = begin(tmp_path / "storage", steps)
    with ExitStack() as opened:
        worker = opened.enter_context(place.open(NOON))
        sleepers: list[tuple[FileStorage, list[str]]] = []
        for step in steps[1:]:
            if len(sleepers) < len(steps) // 2:
                sleepers.append((opened.enter_context(place.open(step.now)), place.segments()))
                assert seen(sleepers[-1][0]) == told(step.before, step.now)
            step.do(worker)
        now, state = steps[-1].now, steps[-1].after
        for number, (sleeper, known) in enumerate(sleepers):
            assert not set(known) & set(place.segments())
            if not derived:
                place.remove_derived()
            set_clock(sleeper, now)
            assert seen(sleeper) == told(state, now)
            row = Row(f"s{number}", b"0", -9, None, now)
            sleeper.commit({"jobs": [Enqueue(row.id, row.payload, row.priority)]})
            state = state._replace(rows=state.rows | {row.id: row})
        works(place, state, now, "after all of them")


def test_what_a_sleeper_holds(tmp_path: Path) -> None:
    """A lease is its holder's however often its entry was written again meanwhile."""
    steps = script(32)
    place = begin(tmp_path / "storage", steps)
    with place.open(NOON) as sleeper, place.open(NOON) as other:
        sleeper.commit({"jobs": [Enqueue(name, b"0", 9) for name in ("a", "b", "c")]})
        held = sleeper.claim("jobs", 3)
        known = place.segments()
        for number in range(100):
            other.commit({"jobs": [Enqueue(f"n{number}", b"1", 8)]})
            (claimed,) = other.claim("jobs")
            other.commit({"jobs": [Complete(claimed.id, claimed.token)]})
            if number % 10 == 9:
                other.compact("jobs")
        assert not set(known) & set(place.segments())
        error = AttemptError("Boom", "not today")
        a, b, c = held
        sleeper.commit({"jobs": [Complete(a.id, a.token), Fail(b.id, b.token, Cause.FAILED, error, NOON)]})
        sleeper.commit({"jobs": [Release(c.id, c.token)]})
        again = other.claim("jobs", 2)
        assert [(each.id, each.attempts) for each in again] == [("b", 2), ("c", 1)]
        assert [each.history[-1].worker for each in again] == [held[0].worker] * 2


def test_another_process_goes_on(tmp_path: Path) -> None:
    """Whoever enqueues and completes while others compact all the time is not hindered, and loses nothing."""
    place = begin(tmp_path / "storage", steps := script(33))
    told_to_stop, stop = os.pipe()
    staying = range(0, 100, 3)

    def job(say: Say) -> None:
        with place.open(NOON) as storage:
            number = 0
            while not readable(told_to_stop):
                stays = number in staying
                storage.commit({"jobs": [Enqueue(f"n{number}", b"%d" % number, -9 if stays else 9)]})
                if not stays:
                    (claimed,) = storage.claim("jobs")
                    assert (claimed.id, claimed.payload) == (f"n{number}", b"%d" % number)
                    storage.commit({"jobs": [Complete(claimed.id, claimed.token)]})
                number += 1
            say(str(number))

    pid, output = start(job)
    freed = 0
    with place.open(NOON) as storage:
        # If it fails it says so by its end.
        while freed < (500 if DEEP else 30) and not readable(output):
            freed += storage.compact("jobs").freed > 0
    os.write(stop, b".")
    count = int(ended(pid, output))
    rows = dict(steps[0].after.rows)
    stayed = [number for number in staying if number < count]
    for number in stayed:
        rows[f"n{number}"] = Row(f"n{number}", b"%d" % number, -9, None, NOON)
    check(place, [State(rows, count - len(stayed), None)], NOON, "in the end")
    os.close(stop)
    os.close(told_to_stop)


def readable(pipe: int) -> bool:
    return bool(select.select([pipe], [], [], 0)[0])
