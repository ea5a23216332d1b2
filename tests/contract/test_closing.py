"""The end of an open storage: what it held goes back, and it does nothing more."""

import gc
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from duraq import (
    Cause,
    Counts,
    DeadLetterQueue,
    FixedDelay,
    NoRetry,
    Queue,
    QueueManager,
    StorageClosed,
    StorageError,
)

SECOND = timedelta(seconds=1)
PATIENCE = timedelta(seconds=60)

QUEUE_CALLS = {
    "enqueue": lambda queue, entry: queue.enqueue("b"),
    "enqueue_many": lambda queue, entry: queue.enqueue_many(["b"]),
    "dequeue": lambda queue, entry: queue.dequeue(),
    "dequeue limit": lambda queue, entry: queue.dequeue(limit=2),
    "dequeue wait": lambda queue, entry: queue.dequeue(wait=PATIENCE),
    "mark_completed": lambda queue, entry: queue.mark_completed(entry),
    "mark_completed id": lambda queue, entry: queue.mark_completed(entry.id),
    "mark_completed unknown": lambda queue, entry: queue.mark_completed("unknown"),
    "mark_failed": lambda queue, entry: queue.mark_failed(entry, "no"),
    "mark_failed id": lambda queue, entry: queue.mark_failed(entry.id, "no"),
    "release": lambda queue, entry: queue.release(entry),
    "release id": lambda queue, entry: queue.release(entry.id),
    "extend": lambda queue, entry: queue.extend(entry),
    "extend id": lambda queue, entry: queue.extend(entry.id),
    "process_next": lambda queue, entry: queue.process_next(print),
    "len": lambda queue, entry: len(queue),
    "length": lambda queue, entry: queue.length,
    "counts": lambda queue, entry: queue.counts(),
    "peek": lambda queue, entry: queue.peek(),
    "get": lambda queue, entry: queue.get(entry.id),
    "entries": lambda queue, entry: queue.entries(),
    "pause": lambda queue, entry: queue.pause(),
    "resume": lambda queue, entry: queue.resume(),
    "paused": lambda queue, entry: queue.paused,
}
DEAD_LETTER_CALLS = {
    "len": len,
    "list": lambda dead_letters: dead_letters.list(),
    "retrieve": lambda dead_letters: dead_letters.retrieve(),
    "retrieve id": lambda dead_letters: dead_letters.retrieve("x"),
    "retry": lambda dead_letters: dead_letters.retry("x"),
    "retry_many": lambda dead_letters: dead_letters.retry_many(["x"]),
    "retry_all": lambda dead_letters: dead_letters.retry_all(),
    "remove": lambda dead_letters: dead_letters.remove("x"),
    "purge_older_than": lambda dead_letters: dead_letters.purge_older_than(SECOND),
}


@pytest.mark.parametrize("call", QUEUE_CALLS)
def test_a_queue_of_a_closed_storage(queue, storage, call):
    """Whatever is asked of a queue after its storage was closed raises StorageClosed."""
    queue.enqueue("a")
    entry = queue.dequeue()
    storage.close()
    with pytest.raises(StorageClosed) as caught:
        QUEUE_CALLS[call](queue, entry)
    assert isinstance(caught.value, StorageError)


@pytest.mark.parametrize(
    "call", ["enqueue", "dequeue", "dequeue wait", "counts", "paused", "entries", "pause"]
)
def test_a_queue_that_a_closed_storage_never_saw(queue, storage, call):
    """The same for a queue that was never used."""
    storage.close()
    with pytest.raises(StorageClosed):
        QUEUE_CALLS[call](queue, None)


@pytest.mark.parametrize("call", DEAD_LETTER_CALLS)
def test_dead_letters_of_a_closed_storage(queue, dead_letters, storage, call):
    """Whatever is asked of the dead letters after their storage was closed raises StorageClosed."""
    queue.enqueue("a", id="x")
    queue.mark_failed(queue.dequeue(), dead=True)
    storage.close()
    with pytest.raises(StorageClosed):
        DEAD_LETTER_CALLS[call](dead_letters)


def test_the_queues_of_a_closed_storage(queue, storage):
    """A closed storage does not say which queues it has either."""
    queue.enqueue("a")
    storage.close()
    with pytest.raises(StorageClosed):
        storage.queues()
    with pytest.raises(StorageClosed):
        QueueManager(storage).queues()


def test_closing_twice(queue, storage):
    """Closing a closed storage does nothing."""
    queue.enqueue("a")
    queue.dequeue()
    storage.close()
    storage.close()


def test_a_with_block_closes(open_storage):
    """A storage in a with block is closed at its end, also by an error, which goes on."""
    storage = open_storage()
    queue = Queue("jobs", storage)

    def work():
        with storage as entered:
            assert entered is storage
            queue.enqueue("a")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        work()
    with pytest.raises(StorageClosed):
        queue.counts()


def test_closing_ends_a_wait(queue, storage):
    """A thread that waits for an entry learns at once that its storage was closed."""
    errors, waiting = [], threading.Event()
    wait = storage.wait

    def note(*arguments):
        waiting.set()
        return wait(*arguments)

    storage.wait = note

    def consume():
        try:
            queue.dequeue(wait=PATIENCE)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=consume, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert waiting.wait(PATIENCE.total_seconds())
    storage.close()
    for thread in threads:
        thread.join(PATIENCE.total_seconds() / 4)
    assert not any(thread.is_alive() for thread in threads)
    assert [type(error) for error in errors] == [StorageClosed] * 2


@pytest.mark.needs("survives")
def test_closing_gives_back(open_storage):
    """What a closed storage held is ready again, its attempt uncounted, in its old place."""
    first = open_storage()
    for name in ("a", "b"):
        queue = Queue(name, first, retry_policy=NoRetry())
        queue.enqueue_many(range(3))
        queue.dequeue(limit=2)
    first.close()
    second = open_storage()
    for name in ("a", "b"):
        queue = Queue(name, second)
        assert queue.counts() == Counts(ready=3)
        assert [(entry.data, entry.attempts) for entry in queue.dequeue(limit=9)] == [(0, 1), (1, 1), (2, 1)]


@pytest.mark.needs("shared")
def test_closing_gives_back_to_who_is_there(queue, open_storage, storage):
    """Other open storages get at once what a closed one held, and find nothing wrong with it."""
    queue.enqueue_many(["a", "b"])
    queue.dequeue(limit=2)
    elsewhere = Queue("jobs", open_storage())
    assert elsewhere.dequeue() is None
    storage.close()
    entries = elsewhere.dequeue(limit=2)
    assert [(entry.data, entry.attempts) for entry in entries] == [("a", 1), ("b", 1)]
    assert all(attempt.cause is Cause.RELEASED for entry in entries for attempt in entry.errors)


@pytest.mark.needs("shared")
def test_nothing_is_leased_while_closing(queue, open_storage, storage, monkeypatch):
    """What a closing storage gives back is not taken by another of its threads, to die with it."""
    queue.enqueue("a")
    queue.dequeue()
    give_back = storage._give_back

    def and_take():
        give_back()
        with pytest.raises(StorageClosed):
            queue.dequeue()

    monkeypatch.setattr(storage, "_give_back", and_take)
    storage.close()
    entry = Queue("jobs", open_storage()).dequeue()
    assert entry.attempts == 1
    assert [attempt.cause for attempt in entry.errors] == [Cause.RELEASED]


@pytest.mark.needs("shared")
def test_closing_wakes_who_waits(queue, open_storage, storage):
    """A consumer elsewhere that waits gets what a closed storage gave back."""
    queue.enqueue("a")
    queue.dequeue()
    elsewhere = Queue("jobs", open_storage())
    found = []
    thread = threading.Thread(target=lambda: found.append(elsewhere.dequeue(wait=PATIENCE)), daemon=True)
    thread.start()
    storage.close()
    thread.join(PATIENCE.total_seconds())
    assert [entry.data for entry in found] == ["a"]


@pytest.mark.needs("shared")
def test_closing_gives_back_only_ones_own(queue, open_storage, storage):
    """What another storage holds it goes on holding."""
    queue.enqueue_many(["a", "b"])
    queue.dequeue()
    elsewhere = Queue("jobs", open_storage())
    entry = elsewhere.dequeue()
    storage.close()
    assert elsewhere.counts() == Counts(ready=1, leased=1)
    elsewhere.mark_completed(entry)


@pytest.mark.needs("shared")
def test_closing_with_leases_that_are_lost(queue, open_storage, storage, clock):
    """Leases that others have ended meanwhile keep no storage from closing and giving back the rest."""
    queue.enqueue_many(["a", "b", "c"])
    entries = queue.dequeue(limit=3)
    queue.extend(entries[1], timedelta(hours=9))
    clock.advance(timedelta(hours=1))
    elsewhere = Queue("jobs", open_storage(), retry_policy=FixedDelay(max_attempts=9))
    assert elsewhere.counts() == Counts(leased=3)
    assert [entry.data for entry in elsewhere.dequeue(limit=9)] == ["a", "c"]
    storage.close()
    assert elsewhere.counts() == Counts(ready=1, leased=2)
    assert elsewhere.dequeue().attempts == 1


@pytest.mark.needs("shared")
def test_another_stays_open(queue, open_storage, storage):
    """Closing one of several open storages leaves the others as they are."""
    elsewhere = Queue("jobs", open_storage())
    queue.enqueue("a")
    storage.close()
    elsewhere.enqueue("b")
    assert [entry.data for entry in elsewhere.dequeue(limit=2)] == ["a", "b"]


def test_closing_leaves_nothing_open(backend, tmp_path, clock):
    """A closed storage keeps no thread and no descriptor, though it is still referred to."""

    def in_use():
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    # A server that runs for all tests, an environment that is its owner's.
    backend.make(tmp_path, clock=clock).close()
    # What an earlier test left behind may be closed now, but not between the two counts.
    gc.collect()
    gc.disable()
    try:
        before = in_use()
        storage = backend.make(tmp_path, clock=clock)
        for name in ("a", "b"):
            queue = Queue(name, storage)
            queue.enqueue_many(["x" * 1000] * 100)
            queue.dequeue(limit=50)
            queue.dequeue(limit=99)
            queue.dequeue(wait=timedelta(milliseconds=1))
            DeadLetterQueue(name, None, storage).list()
        storage.close()
        assert in_use() == before
    finally:
        gc.enable()
