"""The storages in fixtures/ are opened, each as a copy; what must happen then is in fixtures/README.md."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from duraq import (
    AttemptError,
    Cause,
    Counts,
    FileStorage,
    Queue,
    StorageDamaged,
    UnsupportedVersion,
)
from duraq.inspector import Inspector
from duraq.journal import frame
from duraq.journal.journal import HEADER_BYTES, Header
from duraq.testing import FakeClock

FIXTURES = Path(__file__).parent.parent / "fixtures"
V1 = FIXTURES / "storages" / "v1"
DERIVED = (".index", ".checkpoint")
NAMES = sorted(path.name for path in V1.iterdir())
# The processes' notes and locks: the first to open a storage writes them anew.
NOTES = ("journal/lock", "journal/presence", "journal/recycle")
WORKER = "4711-9f3c02ab"
Y2100 = datetime(2100, 1, 1, tzinfo=UTC)
FIRST = "00000000000000000001.jsonl"


@pytest.fixture
def copied(tmp_path):
    """Copies a fixture and returns the copy."""

    def copy(name):
        copied = Path(shutil.copytree(V1 / name, tmp_path / name))
        for each in (copied, *copied.rglob("*")):
            # Where the umask is 002 a checkout is one that others may write to, and is refused.
            each.chmod(each.stat().st_mode & ~0o022)
        return copied

    return copy


@pytest.fixture
def later():
    """A month after the fixtures were written, and after a reboot."""
    clock = FakeClock()
    clock.advance(timedelta(days=31))
    clock.reboot()
    return clock


def contents(path):
    """Every file's bytes by its name, but for the notes."""
    files = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    left_out = (*NOTES, "journal/reserve")  # whoever opens it makes one
    return {name: data for name, data in files.items() if name not in left_out and not name.endswith(DERIVED)}


def tree(path):
    """Everything's name, mode and time, and the files' bytes."""
    found = {}
    for each in [path, *path.rglob("*")]:
        about = each.stat()
        found[str(each)] = (about.st_mode, about.st_mtime_ns, each.read_bytes() if each.is_file() else None)
    return found


def ids(source, queue):
    return [entry.id for entry in source.entries(queue)]


def numbered(queue, last):
    return [f"{queue}-{number}" for number in range(1, last + 1)]


def works(storage, name):
    """The queue takes an entry, hands it out before all others, and is told that it is done."""
    queue = Queue(name, storage)
    before = queue.counts()
    queue.enqueue("new", id="new", priority=99)
    entry = queue.dequeue()
    assert (entry.id, entry.data) == ("new", "new")
    queue.mark_completed(entry)
    assert queue.counts() == before


# -- all of them -------------------------------------------------------------------------------------------


def test_the_readme_lists_them():
    """The README has a row for each fixture, and for no other."""
    rows = re.findall(r"^\| `([a-z-]+)` \|", (FIXTURES / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == NAMES
    assert len(NAMES) == 8


@pytest.mark.parametrize("name", NAMES)
def test_they_are_small_and_as_git_keeps_them(name):
    """A fixture has less than 100,000 bytes and no directory that is empty."""
    assert sum(file.stat().st_size for file in (V1 / name).rglob("*") if file.is_file()) < 100_000
    assert all(any(path.iterdir()) for path in (V1 / name).rglob("*") if path.is_dir())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "newer-version"])
def test_an_inspector_writes_nothing_and_says_what_the_storage_does(copied, later, name):
    """An inspector leaves every byte and time as it was, and agrees with whoever opens the storage next."""
    path = copied(name)
    before = tree(path)
    seen = {}
    with Inspector(path, clock=later) as inspector:
        for queue in inspector.queues():
            inspector.overview(queue)
            seen[queue] = told(inspector, queue)
    assert tree(path) == before
    with FileStorage(path, clock=later) as storage:
        assert seen == {queue: told(storage, queue) for queue in storage.queues()}


def told(source, queue):
    """What a storage or an inspector says of a queue, or how it refuses."""
    try:
        entries = source.entries(queue)
    except StorageDamaged as error:
        return error.path, error.line, error.byte
    rows = [(e.id, e.status, e.payload, e.priority, e.attempts, e.history) for e in entries]
    return source.counts(queue), source.paused(queue), rows


@pytest.mark.parametrize("name", [name for name in NAMES if name != "newer-version"])
def test_opening_again_changes_nothing(copied, later, name):
    """What the first opening has left, the second one leaves byte for byte."""
    path = copied(name)
    FileStorage(path, clock=later).close()
    before = contents(path)
    FileStorage(path, clock=later).close()
    assert contents(path) == before


# -- ok ----------------------------------------------------------------------------------------------------


def named(name):
    return {"name": name, "text": "xxx"}


# In enqueue order: id, status, priority, payload, attempts, the causes of attempts that ended.
HELLO = {"to": "грета@example.org", "subject": "Frohes neues Jahr 🎉", "n": [1, 2.5, None]}
EMAILS = [
    ("scheduled", "scheduled", 0, HELLO, 0, []),
    ("low", "ready", -5, -1, 0, []),
    ("normal", "ready", 0, "€", 0, []),
    ("urgent", "ready", 9, {}, 0, []),
    ("due", "ready", 1, True, 0, []),
    ("retrying", "scheduled", 0, named("retrying"), 1, ["failed"]),
    ("released", "ready", 0, named("released"), 0, ["released"]),
    ("dead", "dead", 0, named("dead"), 3, ["failed", "worker_died", "timed_out"]),
    ("requeued", "ready", 0, named("requeued"), 0, ["failed"]),
    ("leased", "leased", 0, named("leased"), 1, []),
    ("extended", "leased", 0, named("extended"), 1, []),
    ("handed-out", "leased", 0, named("handed-out"), 1, []),
]


@pytest.fixture
def ok(copied, later):
    """The sound storage, open, and unchanged by that."""
    path = copied("ok")
    before = contents(path)
    with FileStorage(path, clock=later) as storage:
        assert contents(path) == before
        yield storage


def test_ok_has_entries_in_every_state(ok):
    """Each entry of a sound storage is there in its state, with its payload, priority and history."""
    entries = ok.entries("emails")
    assert [
        (e.id, e.status, e.priority, orjson.loads(e.payload), e.attempts, [each.cause for each in e.history])
        for e in entries
    ] == EMAILS
    assert ok.counts("emails") == Counts(scheduled=2, ready=6, leased=3, dead=1)
    # Completed, removed and expired ones are no more, and "lapsing" has expired since.
    assert {name for name, *_ in EMAILS} == set(ids(ok, "emails"))


def test_ok_has_its_other_queues(ok):
    """A queue with sealed segments and one that is paused are there as well."""
    assert ok.queues() == ["emails", "orders", "reports"]
    assert ids(ok, "orders") == numbered("orders", 30)[25:]
    assert ids(ok, "reports") == ["reports-1"]
    pause = ok.paused("reports")
    assert (pause.who, pause.reason) == ("zoë", "der Drucker ist leer 🖨")
    assert pause.at == datetime(2026, 1, 1, 12, 0, 41, tzinfo=UTC)
    assert ok.paused("emails") is ok.paused("orders") is None


def test_ok_has_times_leases_and_errors(ok):
    """Schedules, leases and the errors of attempts are there as they were written."""
    queue = Queue("emails", ok)
    assert queue.get("scheduled").scheduled_for == queue.get("retrying").scheduled_for == Y2100
    assert queue.get("urgent").expires_at == Y2100
    assert (queue.get("leased").worker, queue.get("leased").token) == (WORKER, 9)
    assert queue.get("handed-out").worker == ""
    longer = queue.get("extended").lease_deadline - queue.get("leased").lease_deadline
    assert longer > timedelta(minutes=50)
    first, _, third = queue.get("dead").errors
    trace = 'Traceback (most recent call last):\n  File "mail.py", line 3\nValueError: kein Empfänger\n'
    assert first.error == AttemptError("ValueError", "kein Empfänger", trace)
    assert (first.worker, third.worker, third.error.type) == (WORKER, "", "LeaseTimedOut")
    assert third.ended_at - third.started_at == timedelta(seconds=1)


def test_ok_shows_the_whole_format():
    """Every operation occurs, segments are sealed, and the journal has gone round."""
    lines = [line for file in V1.glob("ok/*/segments/*.jsonl") for line in file.read_bytes().splitlines()]
    everything = "enqueue lease extend complete fail dead release expire requeue remove pause resume seal"
    assert {orjson.loads(line)["op"] for line in lines} == set(everything.split())
    assert len(list(V1.glob("ok/orders/segments/*.jsonl"))) == 7
    epochs = [Header.decode(file.read_bytes()).epoch for file in sorted(V1.glob("ok/journal/*.journal"))]
    assert epochs == [4, 5]


def test_ok_goes_on(ok):
    """Entries are delivered in order, and those that were leased before the reboot have come back."""
    queue = Queue("emails", ok)
    got = {}
    while (entry := queue.dequeue()) is not None:
        got[entry.id] = [each.cause for each in entry.errors][-1:]
        queue.mark_completed(entry)
    in_order = ["urgent", "due", "normal", "released", "requeued", "leased", "extended", "handed-out", "low"]
    assert list(got) == in_order
    assert (got["leased"], got["extended"]) == ([Cause.WORKER_DIED], [Cause.WORKER_DIED])
    assert got["handed-out"] == [Cause.TIMED_OUT]
    assert queue.counts() == Counts(scheduled=2, dead=1)
    assert Queue("reports", ok).dequeue() is None
    Queue("reports", ok).resume()
    assert Queue("reports", ok).dequeue().id == "reports-1"
    works(ok, "orders")


def test_ok_as_a_checkout_or_a_backup(copied, later):
    """Other modes, and no file that speaks of living processes, make no difference."""
    path = copied("ok")
    for each in path.rglob("*"):
        each.chmod(0o755 if each.is_dir() else 0o644)
    for note in NOTES:
        (path / note).unlink()
    with FileStorage(path, clock=later) as storage:
        assert storage.counts("emails") == Counts(scheduled=2, ready=6, leased=3, dead=1)
        works(storage, "orders")


# -- torn --------------------------------------------------------------------------------------------------


def test_torn_frame(copied, later):
    """A frame of which half arrived never happened, in none of its queues, and no segment changes."""
    path = copied("torn-frame")
    before = contents(path)
    with FileStorage(path, clock=later) as storage:
        assert ids(storage, "emails") == numbered("emails", 3)
        assert ids(storage, "quiet") == numbered("quiet", 2)
        assert ids(storage, "orders") == numbered("orders", 110)
        assert contents(path) == before
        for queue in ("emails", "quiet", "orders"):
            works(storage, queue)


def test_torn_frame_is_what_it_says():
    """Behind the last whole frame there is the head of another, and behind that frames of an old epoch."""
    content = (V1 / "torn-frame" / "journal" / "1.journal").read_bytes()
    at = HEADER_BYTES
    while (found := frame.decode(content, at)) is not None and found.epoch == 5:
        at += found.length
    assert content[at : at + 8] == frame.MAGIC + (5).to_bytes(4, "little")
    assert {old.epoch for old in frame.find(content, at + 4)} == {3}


def test_torn_segment_tail(copied, later):
    """Half a line at the end of a segment is completed from the frame that has it."""
    path = copied("torn-segment-tail")
    segment = path / "emails" / "segments" / FIRST
    half = segment.read_bytes()
    assert not half.endswith(b"\n")
    with FileStorage(path, clock=later) as storage:
        assert ids(storage, "emails") == numbered("emails", 4)
        assert segment.read_bytes().startswith(half)
        assert segment.read_bytes().endswith(b'"}\n')
        assert not (path / "emails" / "quarantine").exists()
        for queue in ("emails", "quiet", "orders"):
            works(storage, queue)


@pytest.mark.parametrize("tail", [("emails", 3, 609, 406), ("quiet", 2, 402, 201)], ids=lambda tail: tail[0])
def test_nul_tail(copied, later, tail):
    """NUL bytes behind the last line are cut off and kept, whether or not the journal has frames of it."""
    path = copied("nul-tail")
    queue, last, end, nuls = tail
    segment = path / queue / "segments" / FIRST
    before = segment.read_bytes()
    assert before[end:] == bytes(nuls)
    with FileStorage(path, clock=later) as storage:
        assert ids(storage, queue) == numbered(queue, last)
        assert segment.read_bytes() == before[:end]
        (kept,) = (path / queue / "quarantine").iterdir()
        assert (kept.name, kept.read_bytes()) == (f"{FIRST}.{end}.cut", bytes(nuls))
        works(storage, queue)
        works(storage, "orders")


# -- damaged -----------------------------------------------------------------------------------------------


class Damage(NamedTuple):
    """A fixture whose queue ``emails`` is damaged, the place that is named, and how many lie before it."""

    name: str
    segment: int
    line: int | None
    byte: int | None
    before: int

    def is_told_by(self, error):
        where = f"emails/segments/{self.segment:020d}.jsonl"
        assert (error.path, error.line, error.byte) == (where, self.line, self.byte)
        assert where in str(error)

    def refuses(self, call):
        with pytest.raises(StorageDamaged) as caught:
            call()
        self.is_told_by(caught.value)


DAMAGED = [
    Damage("crc-mismatch", 1, 3, 406, before=2),
    Damage("sealed-damaged", 13, 4, 618, before=14),
    Damage("missing-segment", 24, None, None, before=21),
]
damaged = pytest.mark.parametrize("damage", DAMAGED, ids=lambda damage: damage.name)


@pytest.mark.parametrize("call", ["counts", "enqueue", "dequeue", "entries", "pause"])
@damaged
def test_a_damaged_queue_is_refused_and_left_alone(copied, later, damage, call):
    """A damaged queue refuses every call, names the place, and is not changed; its neighbour works."""
    path = copied(damage.name)
    before = contents(path)
    with FileStorage(path, clock=later) as storage:
        method = getattr(Queue("emails", storage), call)
        damage.refuses(lambda: method("x") if call == "enqueue" else method())
        assert contents(path) == before
        assert ids(storage, "orders") == numbered("orders", 110)
        works(storage, "orders")
    after = contents(path)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name] and name.startswith("emails/")} == set()


@damaged
def test_a_damaged_queue_stays_refused(copied, later, damage):
    """A storage that has refused a damaged queue once refuses it ever after."""
    path = copied(damage.name)
    with FileStorage(path, clock=later) as storage:
        for _ in range(3):
            damage.refuses(lambda: storage.counts("emails"))
        works(storage, "orders")
        damage.refuses(lambda: Queue("emails", storage).enqueue("x"))


@damaged
def test_an_inspector_shows_what_lies_before_the_damage(copied, later, damage):
    """Of a damaged queue an inspector tells the place, and what was read before it."""
    with Inspector(copied(damage.name), clock=later) as inspector:
        overview = inspector.overview("emails")
        assert overview.counts == Counts(ready=damage.before)
        damage.is_told_by(overview.problem)
        for _ in range(2):
            damage.refuses(lambda: inspector.counts("emails"))
        assert inspector.counts("orders") == Counts(ready=110)


# -- newer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "opener",
    [FileStorage, lambda path: FileStorage(path, create=False), Inspector],
    ids=["storage", "existing", "inspector"],
)
def test_newer_version(copied, opener):
    """A storage of a newer format is refused, both numbers are named, and nothing at all is touched."""
    path = copied("newer-version")
    before = tree(path)
    with pytest.raises(UnsupportedVersion, match=r"format 2.* up to 1"):
        opener(path)
    assert tree(path) == before
