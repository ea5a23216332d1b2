"""What lies in a storage's directories and is not DuraQ's: left alone, or refused by name; nobody hangs."""

import os
import socket
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from duraq import DuraqError, FileStorage, NotEnqueued, Queue, StorageDamaged
from duraq.health import HealthStatus, MetricsHealthCheck, QueueHealthCheck
from duraq.inspector import Inspector
from duraq.journal.log import Sizes

SIZES = Sizes(journal=8 << 10, segment=2 << 10)
AT_ONCE = timedelta(0)
PRECIOUS = b"precious\n"

pytestmark = pytest.mark.timeout(30)


def socket_at(path, _victim):
    # A socket's path may only be short.
    here = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


KINDS = {
    "fifo": lambda path, _: os.mkfifo(path),
    "directory": lambda path, _: path.mkdir(),
    "symlink": lambda path, victim: path.symlink_to(victim),
    "dangling symlink": lambda path, _: path.symlink_to("/nowhere/at/all"),
    "hard link": lambda path, victim: path.hardlink_to(victim),
    "socket": socket_at,
    "backup": lambda path, victim: path.write_bytes(victim.read_bytes()),
}
LAST = "{last:020d}"
# Where it does no harm to anybody.
HARMLESS = (
    "other",
    "duraq.json~",
    ".duraq.json.swp",
    "jobs/.nfs000000000001",
    "jobs/segments/.nfs000000000001",
    f"jobs/segments/{LAST}.jsonl~",
    f"jobs/segments/{LAST}.index",
    f"jobs/segments/{LAST}.index.tmp",
    f"jobs/segments/{LAST}.checkpoint",
    f"jobs/segments/{LAST}.checkpoint.tmp",
    "jobs/waiters/00000000000000000001-1-0.fifo",
    "leases/4711-9f3c02ab.json",
    "leases/4711-9f3c02ab.fifo",
    "journal/scratch-0000",
    "journal/reserve",
)


class Place:
    """A storage with two queues, and a file elsewhere that nobody is to touch."""

    def __init__(self, tmp_path):
        self.root, self.victim = tmp_path / "storage", tmp_path / "victim"
        self.victim.write_bytes(PRECIOUS)
        with self.open() as storage:
            for _ in range(4):
                Queue("jobs", storage, str).enqueue_many(["x" * 300] * 3)
            Queue("good", storage, str).enqueue("x")
        segments = sorted((self.root / "jobs" / "segments").glob("*.jsonl"))
        self.last = int(segments[-1].stem)

    def plant(self, where, kind):
        path = self.root / where.format(last=self.last)
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.unlink()
        KINDS[kind](path, self.victim)

    def open(self):
        return FileStorage(self.root, sizes=SIZES, durability="process")

    def check_good(self, storage):
        """The other queue is none the worse."""
        queue = Queue("good", storage, str)
        queue.enqueue("y")
        entry = queue.dequeue(wait=AT_ONCE)
        assert entry is not None
        queue.mark_completed(entry)
        assert self.victim.read_bytes() == PRECIOUS


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_nobodys_way(place, kind):
    """Whatever lies where DuraQ has no use for it, or can do without: nobody notices, before or after."""
    for where in HARMLESS:
        place.plant(where, kind)
    with place.open() as storage:
        place.check_good(storage)
        queue = Queue("jobs", storage, str)
        for _ in range(5):
            queue.enqueue_many(["z" * 300] * 4)
        entry = queue.dequeue()
        assert entry is not None
        queue.mark_completed(entry)
        storage.compact("jobs")
        assert storage.queues() == ["good", "jobs"]
        assert len(queue) == 31
    with Inspector(place.root) as inspector:
        assert inspector.queues() == ["good", "jobs"]
        assert inspector.counts("jobs").ready == 31
    assert place.victim.read_bytes() == PRECIOUS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "backup"])
def test_what_is_named_like_a_segment(place, kind):
    """Whatever is named like a segment that nobody needs: at most its own queue is refused, by name."""
    place.plant("jobs/segments/00000000000000009999.jsonl", kind)
    with Inspector(place.root) as inspector:
        assert inspector.counts("jobs").ready == 12
        for check in (MetricsHealthCheck(inspector), QueueHealthCheck(inspector)):
            assert check.check().status is HealthStatus.HEALTHY
    with place.open() as storage:
        place.check_good(storage)
        queue = Queue("jobs", storage, str)
        if kind == "hard link":
            with pytest.raises(StorageDamaged, match=r"jobs/segments/0{16}9999\.jsonl: it has a second name"):
                queue.enqueue("y")
        else:
            queue.enqueue("y")
            assert len(queue) == 13


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "backup"])
def test_what_lies_in_place_of_a_segment(place, kind):
    """Whatever lies where a segment should be: its own queue is refused, and no other."""
    place.plant(f"jobs/segments/{LAST}.jsonl", kind)
    with Inspector(place.root) as inspector:
        good, jobs = QueueHealthCheck(inspector).check_each()
        assert good.status is HealthStatus.HEALTHY
        # To whoever only reads a hard link is as good as a file; what it lacks he has from the journal.
        assert (jobs.status is HealthStatus.HEALTHY) is (kind == "hard link")
    with place.open() as storage:
        place.check_good(storage)
        with pytest.raises(StorageDamaged, match="jobs/segments"):
            Queue("jobs", storage, str).enqueue("y")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"backup", "directory"}])
def test_what_lies_in_place_of_the_segments(place, kind):
    """A queue of which the directory of segments is something else is refused alone, seen and reported."""
    (place.root / "late").mkdir()
    place.plant("late/segments", kind)
    with Inspector(place.root) as inspector:
        assert inspector.queues() == ["good", "jobs", "late"]
        by_name = {result.component: result.status for result in QueueHealthCheck(inspector).check_each()}
        assert by_name == {
            "queue good": HealthStatus.HEALTHY,
            "queue jobs": HealthStatus.HEALTHY,
            "queue late": HealthStatus.UNHEALTHY,
        }
    with place.open() as storage:
        place.check_good(storage)
        with pytest.raises(DuraqError):
            Queue("late", storage, str).enqueue("y")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "backup"])
def test_what_keeps_the_journal_from_going_on(place, kind):
    """What lies where the journal's ends are to be noted is named to whoever needs that, and not followed."""
    with place.open() as storage:
        place.plant("journal/ends.jsonl.tmp", kind)
        queue, accepted = Queue("jobs", storage, str), 12
        with pytest.raises(NotEnqueued, match=r"tmp: it .*look at it"):  # noqa: PT012 - which one is not known
            while True:
                queue.enqueue("z" * 300)
                accepted += 1
        assert len(queue) == accepted
        assert place.victim.read_bytes() == PRECIOUS
        path = place.root / "journal" / "ends.jsonl.tmp"
        path.rmdir() if kind == "directory" else path.unlink()
        queue.enqueue("it goes on")
