"""What a call may ask for: every option out of range is InvalidOption, and then nothing has happened.

The options are checked before any storage is asked, so one backend stands for all.
"""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from duraq import (
    Counts,
    DeadLetterQueue,
    FileStorage,
    InvalidInput,
    InvalidOption,
    InvalidQueueName,
    MemoryStorage,
    Queue,
    QueueManager,
)

SECOND = timedelta(seconds=1)
TOO_LONG = timedelta(days=3650, microseconds=1)

NO_PRIORITIES = [True, False, 1.0, 0.0, "1", "", None, 2**31, -(2**31) - 1]
NO_DURATIONS = [1, 1.5, "1s", True, -timedelta(microseconds=1), timedelta.min, timedelta.max, TOO_LONG]
NO_IDS = [
    "",
    " ",
    "-a",
    ".a",
    "a b",
    "a\n",
    "a\0",
    "é",
    "٣",
    "a" * 129,
    b"a",
    7,
    ("a",),
    'a"b',
    "a\\",
    "\ud800",
]
NO_NUMBERS = [-1, 1.0, "1", True, False]
NO_NAMES = [
    "",
    "A",
    "Jobs",
    "-a",
    "_a",
    ".a",
    ".",
    "..",
    "a/b",
    "a b",
    "a\n",
    "a\0",
    "é",
    "٣",
    "a" * 65,
    b"a",
    None,
    7,
    "journal",
    "leases",
    "duraq.json",
    "duraq.json.tmp",
]


@pytest.fixture
def storage(clock):
    """A storage that costs nothing."""
    with MemoryStorage(clock=clock) as storage:
        yield storage


def test_the_kind_of_error():
    """Whoever catches ValueError catches InvalidOption and InvalidQueueName too."""
    assert issubclass(InvalidOption, InvalidInput)
    assert issubclass(InvalidQueueName, InvalidInput)
    assert issubclass(InvalidInput, ValueError)


@pytest.mark.parametrize("priority", NO_PRIORITIES, ids=repr)
def test_no_such_priority(queue, priority):
    """A priority is a whole number of 32 bits and nothing that merely resembles one."""
    with pytest.raises(InvalidOption):
        queue.enqueue("a", priority=priority)
    with pytest.raises(InvalidOption):
        queue.enqueue_many(["a"], priority=priority)
    assert queue.length == 0


@pytest.mark.parametrize("option", ["delay", "ttl"])
@pytest.mark.parametrize("duration", NO_DURATIONS, ids=repr)
def test_no_such_duration(queue, option, duration):
    """A delay or a TTL is a timedelta that is neither negative nor absurd."""
    with pytest.raises(InvalidOption, match=option):
        queue.enqueue("a", **{option: duration})
    with pytest.raises(InvalidOption, match=option):
        queue.enqueue_many(["a"], **{option: duration})
    assert queue.length == 0


def test_no_ttl_of_nothing(queue):
    """An entry that would be over before it began is refused."""
    with pytest.raises(InvalidOption, match="ttl"):
        queue.enqueue("a", ttl=timedelta(0))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 2),  # noqa: DTZ001 - naive on purpose
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
        datetime(2036, 1, 1, tzinfo=UTC),
        1_800_000_000,
        "2026-01-02T00:00:00Z",
        datetime(2026, 1, 2, tzinfo=UTC).date(),
    ],
    ids=repr,
)
def test_no_such_moment(queue, moment):
    """A time is an aware datetime, after 1970 and within ten years."""
    with pytest.raises(InvalidOption, match="scheduled_for"):
        queue.enqueue("a", scheduled_for=moment)
    with pytest.raises(InvalidOption, match="scheduled_for"):
        queue.enqueue_many(["a"], scheduled_for=moment)
    assert queue.length == 0


def test_not_both_delay_and_scheduled_for(queue):
    """Two answers to the question when are one too many."""
    with pytest.raises(InvalidOption, match="not both"):
        queue.enqueue("a", delay=SECOND, scheduled_for=datetime(2026, 1, 2, tzinfo=UTC))
    assert queue.length == 0


@pytest.mark.parametrize("entry_id", NO_IDS, ids=repr)
def test_no_such_id(queue, entry_id):
    """An id that would not be safe to grep and to print is refused."""
    with pytest.raises(InvalidOption):
        queue.enqueue("a", id=entry_id)
    with pytest.raises(InvalidOption):
        queue.enqueue_many(["a"], ids=[entry_id])
    assert queue.length == 0


@pytest.mark.parametrize("wait", NO_DURATIONS, ids=repr)
def test_no_such_wait(queue, wait):
    """A wait is a timedelta that is neither negative nor absurd."""
    queue.enqueue("a")
    with pytest.raises(InvalidOption, match="wait"):
        queue.dequeue(wait=wait)
    with pytest.raises(InvalidOption, match="wait"):
        queue.process_next(print, wait=wait)
    assert queue.counts() == Counts(ready=1)


@pytest.mark.parametrize("limit", [0, *NO_NUMBERS], ids=repr)
def test_no_such_limit(queue, dead_letters, limit):
    """A limit is a whole number of at least one."""
    queue.enqueue("a")
    for call in (queue.dequeue, queue.entries, queue.peek, dead_letters.list):
        with pytest.raises(InvalidOption, match="limit"):
            call(limit=limit)
    assert queue.counts() == Counts(ready=1)


@pytest.mark.parametrize("offset", [*NO_NUMBERS, None], ids=repr)
def test_no_such_offset(queue, dead_letters, offset):
    """An offset is a whole number of at least zero."""
    for call in (queue.entries, dead_letters.list):
        with pytest.raises(InvalidOption, match="offset"):
            call(offset=offset)


@pytest.mark.parametrize("status", ["leasing", "READY", "", 1, ["ready"]], ids=repr)
def test_no_such_status(queue, status):
    """A status is one of the six words of EntryStatus."""
    with pytest.raises(InvalidOption, match="status"):
        queue.entries(status)


@pytest.mark.parametrize("duration", [*NO_DURATIONS, timedelta(0)], ids=repr)
def test_no_such_lease(queue, storage, duration):
    """A lease lasts for a timedelta that is more than nothing and not absurd."""
    with pytest.raises(InvalidOption, match="lock_duration"):
        Queue("jobs", storage, lock_duration=duration)
    queue.enqueue("a")
    entry = queue.dequeue()
    with pytest.raises(InvalidOption, match="duration"):
        queue.extend(entry, duration)
    assert queue.get(entry.id).lease_deadline == entry.lease_deadline


@pytest.mark.parametrize("delay", NO_DURATIONS, ids=repr)
def test_no_such_delay(queue, delay):
    """What fails or is given back returns after a timedelta that is neither negative nor absurd."""
    queue.enqueue("a")
    entry = queue.dequeue()
    with pytest.raises(InvalidOption, match="delay"):
        queue.release(entry, delay=delay)
    with pytest.raises(InvalidOption, match="retry_in"):
        queue.mark_failed(entry, retry_in=delay)
    assert queue.counts() == Counts(leased=1)
    queue.mark_completed(entry)


@pytest.mark.parametrize("max_size", [0, *NO_NUMBERS, 2.5], ids=repr)
def test_no_such_size(storage, max_size):
    """A queue's size is a whole number of at least one."""
    with pytest.raises(InvalidOption, match="max_size"):
        Queue("jobs", storage, max_size=max_size)


@pytest.mark.parametrize("age", [1, "1d", None, -timedelta(microseconds=1), timedelta.min], ids=repr)
def test_no_such_age(queue, dead_letters, age):
    """An age is a timedelta that is not negative."""
    queue.enqueue("a")
    queue.mark_failed(queue.dequeue(), dead=True)
    with pytest.raises(InvalidOption, match="age"):
        dead_letters.purge_older_than(age)
    assert len(dead_letters) == 1


@pytest.mark.parametrize("name", NO_NAMES, ids=repr)
def test_no_such_name(storage, name):
    """A queue's name is safe in paths, shells and metric labels, and not one the storage needs itself."""
    manager = QueueManager(storage)
    for make in (
        lambda: Queue(name, storage),
        lambda: DeadLetterQueue(name, None, storage),
        lambda: manager.queue(name),
        lambda: manager.dead_letters(name),
    ):
        with pytest.raises(InvalidQueueName):
            make()


@pytest.mark.parametrize("name", ["a", "0", "a.b_c-d", "journal2", "a" * 64, "a..", "con"])
def test_a_good_name(storage, name):
    """All other names are a queue's."""
    queue = Queue(name, storage)
    queue.enqueue("a")
    assert storage.queues() == [name]
    assert queue.dequeue().queue == name


@pytest.mark.parametrize("lock_duration", [5, "5m", None, timedelta(0), -SECOND, TOO_LONG], ids=repr)
def test_no_such_lease_of_a_storage(tmp_path, lock_duration):
    """A storage refuses a lease of nothing, of less and of an absurd length before it makes anything."""
    with pytest.raises(InvalidOption, match="lock_duration"):
        FileStorage(tmp_path / "storage", lock_duration=lock_duration)
    with pytest.raises(InvalidOption, match="lock_duration"):
        MemoryStorage(lock_duration=lock_duration)
    assert not (tmp_path / "storage").exists()


@pytest.mark.parametrize("size", [0, -1, 1.5, "1", True, (16 << 20) + 1], ids=repr)
def test_no_such_payload_limit(tmp_path, size):
    """A storage's limit for payloads is a whole number from 1 to 16 MiB."""
    with pytest.raises(InvalidOption, match="max_payload_bytes"):
        FileStorage(tmp_path / "storage", max_payload_bytes=size)
    with pytest.raises(InvalidOption, match="max_payload_bytes"):
        MemoryStorage(max_payload_bytes=size)
    assert not (tmp_path / "storage").exists()


@pytest.mark.parametrize("durability", ["", "POWER", "none", None, 1, ["power"]], ids=repr)
def test_no_such_durability(tmp_path, durability):
    """Durability is one of three words."""
    with pytest.raises(InvalidOption, match="durability"):
        FileStorage(tmp_path / "storage", durability=durability)
    assert not (tmp_path / "storage").exists()


@pytest.mark.parametrize(
    "window", [0.02, "20ms", None, timedelta(0), -SECOND, timedelta(minutes=2)], ids=repr
)
def test_no_such_window(tmp_path, window):
    """What may be lost in a batch is more than nothing and at most a minute."""
    with pytest.raises(InvalidOption, match="batch_window"):
        FileStorage(tmp_path / "storage", durability="batched", batch_window=window)
    assert not (tmp_path / "storage").exists()


def test_a_manager_of_no_storage():
    """A QueueManager refuses what is no storage, a path for one, and says what to give."""
    with pytest.raises(InvalidOption, match="FileStorage"):
        QueueManager("queues")
