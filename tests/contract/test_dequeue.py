"""What is delivered, to whom, in which order, and when."""

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from duraq import Counts, EntryNotFound, EntryStatus, LeaseLost, NotLeased, Queue

SECOND = timedelta(seconds=1)
# Long enough for any machine; no test waits for it unless something is broken.
PATIENCE = timedelta(seconds=60)


def drain(queue):
    """The payloads in the order in which they are delivered, one by one."""
    found = []
    while (entry := queue.dequeue()) is not None:
        found.append(entry.data)
    return found


class Consumer(threading.Thread):
    """Runs one blocking call in a thread and keeps what came of it."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self._call = call
        self.result = self.error = None
        self.start()

    def run(self):
        try:
            self.result = self._call()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def outcome(self):
        """What the call returned, or its error raised."""
        self.join(PATIENCE.total_seconds())
        assert not self.is_alive(), "the call still blocks"
        if self.error is not None:
            raise self.error
        return self.result


def test_nothing_there(queue):
    """An empty queue, or one that nobody has made yet, delivers nothing."""
    assert queue.dequeue() is None
    assert queue.dequeue(limit=3) == []
    assert queue.dequeue(wait=timedelta(0)) is None
    assert queue.dequeue(wait=timedelta(milliseconds=1), limit=2) == []


def test_first_in_first_out(queue):
    """Entries of one priority are delivered in the order in which they were enqueued."""
    queue.enqueue("a")
    queue.enqueue_many(["b", "c"])
    queue.enqueue("d")
    assert drain(queue) == ["a", "b", "c", "d"]


def test_higher_priority_first(queue):
    """A higher priority comes first; among equals, who came first."""
    for number, priority in enumerate([0, 5, -5, 5, 0, 2**31 - 1, -(2**31)]):
        queue.enqueue(number, priority=priority)
    assert drain(queue) == [5, 1, 3, 0, 4, 2, 6]


def test_a_late_one_of_high_priority_overtakes(queue):
    """Priority counts among what is there at the moment of the dequeue."""
    queue.enqueue_many(["a", "b"])
    assert queue.dequeue().data == "a"
    queue.enqueue("urgent", priority=1)
    assert drain(queue) == ["urgent", "b"]


def test_never_before_its_time(queue, clock):
    """A scheduled entry is not delivered one microsecond too early, and is delivered at its time."""
    queue.enqueue("a", delay=SECOND)
    clock.advance(SECOND - timedelta(microseconds=1))
    assert queue.dequeue() is None
    assert queue.counts() == Counts(scheduled=1)
    clock.advance(timedelta(microseconds=1))
    assert queue.counts() == Counts(ready=1)
    assert queue.dequeue().data == "a"


def test_scheduled_entries_keep_their_place(queue, clock):
    """Once their time has come, scheduled entries stand where they were enqueued, priority first."""
    queue.enqueue("third", delay=2 * SECOND)
    queue.enqueue("fourth")
    queue.enqueue("second", delay=SECOND, priority=1)
    queue.enqueue("first", delay=2 * SECOND, priority=2)
    clock.advance(2 * SECOND)
    assert drain(queue) == ["first", "second", "third", "fourth"]


def test_one_that_waits_holds_nobody_up(queue, clock):
    """What is ready is delivered past what is scheduled, whatever the priorities."""
    queue.enqueue("later", delay=SECOND, priority=9)
    queue.enqueue("now")
    assert drain(queue) == ["now"]
    clock.advance(SECOND)
    assert drain(queue) == ["later"]


def test_the_wall_clock_decides_what_is_due(queue, clock):
    """A jump of the wall clock moves schedules, and loses nothing."""
    queue.enqueue("a", scheduled_for=datetime(2026, 1, 2, tzinfo=UTC))
    clock.jump(-timedelta(days=400))
    assert queue.dequeue() is None
    queue.enqueue("b")
    assert queue.dequeue().data == "b"
    clock.jump(timedelta(days=800))
    assert queue.dequeue().data == "a"


def test_only_one_gets_it(queue):
    """What somebody holds is delivered to nobody else."""
    queue.enqueue("a")
    entry = queue.dequeue()
    assert entry.status is EntryStatus.LEASED
    assert queue.dequeue() is None
    assert queue.counts() == Counts(leased=1)


def test_completed_is_over(queue):
    """What was completed is gone for good."""
    entry_id = queue.enqueue("a")
    queue.mark_completed(queue.dequeue())
    assert queue.counts() == Counts()
    assert queue.entries() == []
    with pytest.raises(EntryNotFound):
        queue.get(entry_id)
    assert queue.dequeue() is None


def test_several_at_once(queue):
    """A limit is the most that is delivered, in the usual order, each in its own lease."""
    queue.enqueue_many(range(5))
    first = queue.dequeue(limit=3)
    assert [entry.data for entry in first] == [0, 1, 2]
    assert [(entry.attempts, entry.status) for entry in first] == [(1, EntryStatus.LEASED)] * 3
    assert [entry.data for entry in queue.dequeue(limit=10**30)] == [3, 4]
    assert queue.dequeue(limit=3) == []
    for entry in first:
        queue.mark_completed(entry)
    assert queue.counts() == Counts(leased=2)


def test_several_are_completed_together(queue):
    """Entries that were taken together are completed together, given themselves or by their ids."""
    queue.enqueue_many(range(5))
    first, *others = queue.dequeue(limit=4)
    queue.mark_completed_many([first.id, *others])
    queue.mark_completed_many([])
    assert [entry.data for entry in queue.entries()] == [4]


def test_completed_together_or_not_at_all(queue):
    """If one lease of several has ended none is completed, and the error names its entry."""
    queue.enqueue_many(range(3))
    first, second, third = queue.dequeue(limit=3)
    queue.mark_failed(second, "no")
    with pytest.raises(LeaseLost, match=second.id):
        queue.mark_completed_many([first, second, third])
    assert queue.counts().leased == 2
    with pytest.raises(NotLeased, match="elsewhere"):
        queue.mark_completed_many([first.id, "elsewhere"])
    with pytest.raises(LeaseLost, match=first.id):
        queue.mark_completed_many([first, first])
    queue.mark_completed_many([first, third])
    assert queue.counts().leased == 0


def test_one_at_least(queue):
    """With a limit the answer is a list even of one; without, an entry."""
    queue.enqueue_many(["a", "b"])
    assert [entry.data for entry in queue.dequeue(limit=1)] == ["a"]
    assert queue.dequeue().data == "b"


def test_what_a_delivered_entry_says(queue, clock):
    """A delivered entry names its holder, its deadline, its attempt and its token."""
    queue.enqueue("a", priority=2, ttl=timedelta(hours=1))
    made_at = clock.now()
    clock.advance(SECOND)
    entry = queue.dequeue()
    assert entry.attempts == 1
    assert entry.token > 0
    assert entry.worker
    assert entry.lease_deadline - entry.updated_at == timedelta(minutes=5)
    assert entry.created_at.timestamp() == made_at / 1e6
    assert entry.updated_at - entry.created_at == SECOND
    assert entry.expires_at - entry.created_at == timedelta(hours=1)


def test_past_its_ttl_it_is_never_delivered(queue, clock):
    """An entry whose TTL has passed is over: not delivered, not counted, not listed, not found."""
    entry_id = queue.enqueue("a", ttl=SECOND, priority=1)
    queue.enqueue("b")
    clock.advance(SECOND - timedelta(microseconds=1))
    assert queue.counts() == Counts(ready=2)
    clock.advance(timedelta(microseconds=1))
    assert queue.counts() == Counts(ready=1)
    assert [entry.data for entry in queue.entries()] == ["b"]
    with pytest.raises(EntryNotFound):
        queue.get(entry_id)
    assert drain(queue) == ["b"]
    assert queue.counts() == Counts(leased=1)


def test_many_past_their_ttl(queue, clock):
    """However many have expired before it, the next one that has not is delivered at once."""
    queue.enqueue_many(range(300), ttl=SECOND)
    queue.enqueue("b")
    clock.advance(2 * SECOND)
    assert [entry.data for entry in queue.dequeue(limit=2)] == ["b"]


def test_expired_before_it_was_due(queue, clock):
    """An entry whose TTL ends before its time never becomes ready."""
    queue.enqueue("a", delay=2 * SECOND, ttl=SECOND)
    clock.advance(SECOND)
    assert queue.counts() == Counts()
    clock.advance(SECOND)
    assert queue.dequeue() is None


def test_ttl_does_not_end_what_is_held(queue, clock):
    """Whoever works on an entry when its TTL passes may complete it."""
    queue.enqueue("a", ttl=SECOND)
    entry = queue.dequeue()
    clock.advance(2 * SECOND)
    assert queue.counts() == Counts(leased=1)
    queue.mark_completed(entry)
    assert queue.counts() == Counts()


def test_ttl_ends_what_comes_back(queue, clock):
    """What comes back after its TTL has passed is not delivered again."""
    queue.enqueue("a", ttl=SECOND)
    queue.enqueue("b", ttl=SECOND)
    first, second = queue.dequeue(limit=2)
    clock.advance(2 * SECOND)
    queue.release(first)
    queue.mark_failed(second, "no", retry_in=timedelta(0))
    assert queue.counts() == Counts()
    assert queue.dequeue() is None


def test_a_jump_back_revives_what_nobody_has_ended(queue, clock):
    """Looking at a queue after a TTL has passed ends nothing; only a dequeue does."""
    queue.enqueue("a", ttl=SECOND)
    clock.jump(2 * SECOND)
    assert queue.counts() == Counts()
    assert queue.peek() == []
    clock.jump(-2 * SECOND)
    assert queue.dequeue().data == "a"


def test_a_wait_ends_with_an_entry(queue):
    """A consumer that waits gets what another thread enqueues."""
    consumer = Consumer(lambda: queue.dequeue(wait=PATIENCE))
    queue.enqueue("a")
    assert consumer.outcome().data == "a"


def test_a_wait_for_several_ends_with_the_first(queue):
    """A consumer that waits for up to so many takes what there is and waits no longer."""
    consumer = Consumer(lambda: queue.dequeue(wait=PATIENCE, limit=5))
    queue.enqueue_many(["a", "b"])
    assert [entry.data for entry in consumer.outcome()] == ["a", "b"]


def test_several_wait(queue):
    """Each of several that wait gets an entry of its own."""
    consumers = [Consumer(lambda: queue.dequeue(wait=PATIENCE)) for _ in range(4)]
    queue.enqueue("a")
    queue.enqueue_many(["b", "c", "d"])
    assert sorted(consumer.outcome().data for consumer in consumers) == ["a", "b", "c", "d"]


def test_they_wait_for_different_queues(storage):
    """An entry wakes who waits for its queue, whoever else is waiting."""
    queues = [Queue(name, storage) for name in ("a", "b", "c")]
    consumers = [Consumer(lambda queue=queue: queue.dequeue(wait=PATIENCE)) for queue in queues]
    for queue in reversed(queues):
        queue.enqueue(queue.name)
    assert [consumer.outcome().data for consumer in consumers] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "come_back",
    [
        lambda queue, entry: queue.release(entry),
        lambda queue, entry: queue.mark_failed(entry, retry_in=timedelta(0)),
        lambda queue, entry: queue.enqueue("b", scheduled_for=datetime(2001, 1, 1, tzinfo=UTC)),
    ],
    ids=["release", "fail", "past"],
)
def test_a_wait_ends_with_whatever_is_ready(queue, come_back):
    """What comes back, or was due long ago, wakes who waits as a new entry does."""
    queue.enqueue("a")
    entry = queue.dequeue()
    consumer = Consumer(lambda: queue.dequeue(wait=PATIENCE))
    come_back(queue, entry)
    assert consumer.outcome().data in {"a", "b"}


def test_resuming_ends_a_wait(queue):
    """Who waits for a paused queue gets what is there as soon as it is resumed."""
    queue.enqueue("a")
    queue.pause()
    consumer = Consumer(lambda: queue.dequeue(wait=PATIENCE))
    queue.resume()
    assert consumer.outcome().data == "a"


def test_a_retried_dead_letter_ends_a_wait(queue, dead_letters):
    """A dead letter that is put back wakes who waits."""
    entry_id = queue.enqueue("a")
    queue.mark_failed(queue.dequeue(), dead=True)
    consumer = Consumer(lambda: queue.dequeue(wait=PATIENCE))
    dead_letters.retry(entry_id)
    assert consumer.outcome().id == entry_id


@pytest.mark.needs("shared")
def test_a_wait_ends_with_an_entry_from_elsewhere(queue, open_storage):
    """A consumer that waits gets what another open storage enqueues."""
    consumer = Consumer(lambda: queue.dequeue(wait=PATIENCE))
    Queue("jobs", open_storage()).enqueue("a")
    assert consumer.outcome().data == "a"


def test_peek_shows_what_comes_next(queue, clock):
    """Peek shows the next entries in the order of delivery, and takes none of them."""
    queue.enqueue("b")
    queue.enqueue("a", priority=1)
    queue.enqueue("c", delay=SECOND)
    assert [entry.data for entry in queue.peek()] == ["a"]
    assert [entry.data for entry in queue.peek(limit=9)] == ["a", "b"]
    assert queue.counts() == Counts(scheduled=1, ready=2)
    assert [(entry.attempts, entry.token, entry.worker) for entry in queue.peek(9)] == [(0, 0, None)] * 2
    assert drain(queue) == ["a", "b"]
    assert queue.peek() == []


def test_queues_are_apart(storage):
    """What is enqueued in one queue is never delivered from another."""
    first, second = Queue("first", storage), Queue("second", storage)
    first.enqueue("a")
    second.enqueue("b")
    assert second.dequeue().data == "b"
    assert first.counts() == Counts(ready=1)
    assert storage.queues() == ["first", "second"]


def test_many_threads_share_a_queue(queue):
    """Of many threads that work at once each entry is delivered to exactly one."""
    numbers = range(120)
    seen, together = [], threading.Barrier(6)

    def produce(mine):
        together.wait()
        for number in mine:
            queue.enqueue(number)

    def consume():
        together.wait()
        while len(seen) < len(numbers):
            entry = queue.dequeue(wait=timedelta(milliseconds=50))
            if entry is not None:
                queue.mark_completed(entry)
                seen.append(entry.data)

    producers = [Consumer(lambda start=start: produce(numbers[start::3])) for start in range(3)]
    consumers = [Consumer(consume) for _ in range(3)]
    for thread in producers + consumers:
        thread.outcome()
    assert Counter(seen) == Counter(numbers)
    assert queue.counts() == Counts()


@pytest.mark.needs("shared")
def test_several_storages_share_a_queue(open_storage):
    """Of several open storages each entry is delivered to exactly one, in order."""
    queues = [Queue("jobs", open_storage()) for _ in range(3)]
    for number in range(30):
        queues[number % 2].enqueue(number)
    assert [queues[number % 3].dequeue().data for number in range(30)] == list(range(30))
    assert [queue.dequeue() for queue in queues] == [None] * 3
    assert {queue.counts() for queue in queues} == {Counts(leased=30)}
