"""Transactions: several calls, over several queues, as one change; what they see, and what is undone."""

import asyncio
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest

from duraq import (
    Counts,
    DeadLetterQueue,
    DuplicateEntry,
    EntryNotFound,
    EntryStatus,
    GroupTooLarge,
    InvalidOption,
    LeaseLost,
    NoRetry,
    NotLeased,
    NoTransaction,
    NotWritten,
    OutcomeUnknown,
    Queue,
    QueueFull,
    StorageClosed,
    StorageFailed,
    Worker,
    transaction,
)
from duraq.journal.log import Sizes

SECOND = timedelta(seconds=1)


class Undo(Exception):
    """Leaves a transaction, so that it is undone."""


@pytest.fixture
def queues(storage):
    """Three queues of the storage."""
    return [Queue(name, storage, retry_policy=NoRetry()) for name in ("orders", "emails", "bills")]


def contents(*queues):
    """The payloads in each queue, in enqueue order."""
    return [[entry.data for entry in queue.entries()] for queue in queues]


def leased(queue, data):
    """An entry with that payload, leased."""
    queue.enqueue(data)
    return queue.dequeue()


# -- committing and undoing --------------------------------------------------------------------------------


def test_all_of_it_is_there_at_its_end(storage, queues):
    """What was enqueued into several queues is there once the block is left."""
    with storage.transaction():
        for number, queue in enumerate(queues):
            queue.enqueue_many([number, number + 10])
    assert contents(*queues) == [[0, 10], [1, 11], [2, 12]]


def test_nothing_of_it_is_there_if_it_fails(storage, queues):
    """An exception that leaves the block undoes all of it, and goes on."""
    orders, emails, bills = queues
    entry = leased(orders, "order")
    with pytest.raises(Undo), storage.transaction():
        emails.enqueue("email")
        orders.mark_completed(entry)
        bills.enqueue("bill")
        raise Undo
    assert contents(*queues) == [["order"], [], []]
    assert orders.get(entry.id).status is EntryStatus.LEASED
    orders.mark_completed(entry)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_leaves_it_undoes_it(storage, queues, kind):
    """What is no Exception undoes it as well."""
    with pytest.raises(kind), storage.transaction():
        queues[0].enqueue("order")
        raise kind
    assert contents(*queues) == [[], [], []]


def test_a_decorated_function(storage, queues):
    """A function can be a transaction, every time it is called, and within itself."""
    orders, emails, _ = queues

    @storage.transaction()
    def order(number):
        orders.enqueue(number)
        emails.enqueue(number)
        if number > 2:
            raise Undo
        if number == 1:
            order(2)

    order(0)
    order(1)
    with pytest.raises(Undo):
        order(3)
    assert contents(orders, emails) == [[0, 1, 2], [0, 1, 2]]


def test_by_hand(storage, queues):
    """A transaction can be begun, committed and rolled back without a block."""
    orders, emails, _ = queues
    storage.begin_transaction()
    orders.enqueue(1)
    storage.commit_transaction()
    storage.begin_transaction()
    emails.enqueue(2)
    storage.rollback_transaction()
    assert contents(orders, emails) == [[1], []]
    for end in (storage.commit_transaction, storage.rollback_transaction):
        with pytest.raises(NoTransaction):
            end()


def test_one_that_does_nothing(storage, queues):
    """A transaction without a call changes nothing, and makes no queue."""
    with storage.transaction():
        assert len(queues[0]) == 0
    assert storage.queues() == []


# -- savepoints --------------------------------------------------------------------------------------------


def test_an_inner_one_is_a_savepoint(storage, queues):
    """What fails within undoes what was done within, and the outer one goes on."""
    orders, emails, bills = queues
    with storage.transaction():
        orders.enqueue(1)
        with pytest.raises(Undo), storage.transaction():
            orders.enqueue(2)
            emails.enqueue(2)
            with storage.transaction():
                bills.enqueue(2)
            raise Undo
        with storage.transaction():
            emails.enqueue(3)
        assert [len(queue) for queue in queues] == [1, 1, 0]
    assert contents(*queues) == [[1], [3], []]


def test_the_outer_one_undoes_the_inner_ones(storage, queues):
    """An inner one that ended well is undone with the outer one."""
    with pytest.raises(Undo), storage.transaction():
        with storage.transaction():
            queues[0].enqueue(1)
        raise Undo
    assert contents(*queues) == [[], [], []]


def test_a_lease_within_a_savepoint(storage, queues):
    """What was dequeued within a savepoint is given back when that is undone, and what was before is not."""
    orders = queues[0]
    orders.enqueue_many([1, 2])
    with storage.transaction():
        first = orders.dequeue()
        with pytest.raises(Undo), storage.transaction():
            assert orders.dequeue().data == 2
            orders.mark_completed(first)
            raise Undo
        assert orders.counts() == Counts(ready=1, leased=1)
        orders.mark_completed(first)
    again = orders.dequeue()
    assert (again.data, again.attempts) == (2, 1)


# -- what it sees ------------------------------------------------------------------------------------------


def test_it_sees_what_it_wrote_and_others_do_not(storage, queues):
    """Lengths, counts and entries have what was written in the transaction; for others it is not there."""
    orders = queues[0]
    orders.enqueue(0)
    with ThreadPoolExecutor(1) as other, storage.transaction():
        entry_id = orders.enqueue(1, priority=5)
        orders.enqueue(2, delay=SECOND)
        assert len(orders) == 3
        assert orders.counts() == Counts(scheduled=1, ready=2)
        assert [entry.data for entry in orders.peek(5)] == [1, 0]
        assert orders.get(entry_id).data == 1
        assert other.submit(orders.counts).result() == Counts(ready=1)
        with pytest.raises(EntryNotFound):
            other.submit(orders.get, entry_id).result()
    assert orders.counts() == Counts(scheduled=1, ready=2)


def test_it_delivers_what_it_wrote(storage, queues):
    """Dequeuing finds entries of the transaction in their place among the others."""
    orders = queues[0]
    orders.enqueue_many([1, 2])
    with storage.transaction():
        orders.enqueue(3)
        orders.enqueue(0, priority=1)
        entries = orders.dequeue(limit=10)
        assert [entry.data for entry in entries] == [0, 1, 2, 3]
        assert [entry.attempts for entry in entries] == [1, 1, 1, 1]
        assert len({entry.token for entry in entries}) == 4
        assert orders.counts() == Counts(leased=4)
        orders.mark_completed_many(entries[:3])
        orders.mark_completed(entries[3].id)
        assert orders.counts() == Counts()
        assert orders.dequeue() is None
    assert orders.counts() == Counts()


def test_a_lease_of_its_own_entry_outlives_it(storage, queues):
    """An entry that was enqueued and dequeued in the transaction is leased when it has committed."""
    orders = queues[0]
    with storage.transaction():
        orders.enqueue("mine")
        entry = orders.dequeue()
    assert orders.counts() == Counts(leased=1)
    assert orders.get(entry.id).worker is not None
    orders.mark_completed(entry)
    assert orders.counts() == Counts()


def test_what_is_over_in_it(storage, queues):
    """A second end of the same lease is refused, in the transaction as out of it."""
    orders = queues[0]
    entry = leased(orders, 1)
    with storage.transaction():
        orders.mark_completed(entry)
        with pytest.raises(LeaseLost):
            orders.mark_failed(entry)
        with pytest.raises(NotLeased):
            orders.mark_completed(entry.id)
        with pytest.raises(EntryNotFound):
            orders.get(entry.id)
    assert orders.counts() == Counts()


def test_a_retry_within_it(storage, queues):
    """An entry that fails in a transaction can be dequeued in it again, its attempts counted."""
    orders = queues[0]
    entry = leased(orders, 1)
    with storage.transaction():
        orders.mark_failed(entry, "once", retry_in=timedelta(0))
        again = orders.dequeue()
        assert (again.data, again.attempts, again.errors[0].error.message) == (1, 2, "once")
        orders.mark_failed(again, "twice", dead=True)
        assert orders.counts() == Counts(dead=1)
    (dead,) = orders.entries(EntryStatus.DEAD)
    assert [attempt.error.message for attempt in dead.errors] == ["once", "twice"]


def test_dead_letters_within_it(storage, queues):
    """Dead letters are retried and removed with the rest, or not at all."""
    orders, emails, _ = queues
    for number in range(3):
        orders.mark_failed(leased(orders, number), "no")
    letters = DeadLetterQueue("orders", None, storage)
    ids = [entry.id for entry in letters.list()]
    with pytest.raises(Undo), storage.transaction():
        letters.retry_all()
        assert len(letters) == 0
        raise Undo
    assert len(letters) == 3
    with storage.transaction():
        letters.retry(ids[0])
        letters.remove(ids[1])
        emails.enqueue("told")
        assert len(letters) == 1
        assert orders.dequeue().data == 0
    assert orders.counts() == Counts(leased=1, dead=1)


def test_pausing_within_it(storage, queues):
    """A pause holds in the transaction, and for others once it has committed."""
    orders = queues[0]
    orders.enqueue(1)
    with pytest.raises(Undo), storage.transaction():
        orders.pause("no")
        assert orders.paused.reason == "no"
        assert orders.dequeue() is None
        raise Undo
    assert orders.paused is None
    assert orders.dequeue().data == 1


def test_time_passes_within_it(storage, queues, clock):
    """What is scheduled or expires in a transaction does so while it lasts."""
    orders = queues[0]
    with storage.transaction():
        orders.enqueue("later", delay=SECOND)
        orders.enqueue("soon over", ttl=SECOND)
        assert orders.counts() == Counts(scheduled=1, ready=1)
        clock.advance(2 * SECOND)
        assert orders.counts() == Counts(ready=1)
        assert [entry.data for entry in orders.dequeue(limit=5)] == ["later"]
    assert orders.counts() == Counts(leased=1)


def test_what_expires_within_it(storage, queues, clock):
    """An entry that comes back past its time to live is over in the transaction, and its id is free."""
    orders = queues[0]
    orders.enqueue("first", id="a", ttl=SECOND)
    orders.enqueue("second")
    entry = orders.dequeue()
    clock.advance(2 * SECOND)
    with storage.transaction():
        orders.mark_failed(entry, "late", retry_in=timedelta(0))
        assert orders.counts() == Counts(ready=1)
        assert orders.dequeue().data == "second"
        orders.enqueue("again", id="a")
        assert [entry.data for entry in orders.entries()] == ["second", "again"]
    assert orders.counts() == Counts(ready=1, leased=1)
    assert orders.get("a").data == "again"


# -- what it is refused ------------------------------------------------------------------------------------


def test_an_id_that_is_taken(storage, queues):
    """An id that the queue or the transaction has is refused at once; the rest of it goes on."""
    orders = queues[0]
    orders.enqueue(1, id="a")
    with storage.transaction():
        orders.enqueue(2, id="b")
        for name in ("a", "b"):
            with pytest.raises(DuplicateEntry):
                orders.enqueue(3, id=name)
    assert contents(orders) == [[1, 2]]


def test_an_id_is_free_again_within_it(storage, queues):
    """An id whose entry ends in the transaction can be used again in it."""
    orders = queues[0]
    entry = orders.enqueue(1, id="a") and orders.dequeue()
    with storage.transaction():
        orders.mark_completed(entry)
        orders.enqueue(2, id="a")
    assert contents(orders) == [[2]]


def test_a_full_queue(storage):
    """A limit to the size counts what is in the transaction."""
    queue = Queue("small", storage, max_size=3)
    queue.enqueue(0)
    entry = queue.dequeue()
    with storage.transaction():
        queue.enqueue_many([1, 2])
        with pytest.raises(QueueFull):
            queue.enqueue(3)
        queue.mark_completed(entry)
        queue.enqueue(3)
    assert contents(queue) == [[1, 2, 3]]


def test_others_were_quicker(storage, queues):
    """What others have done meanwhile, so that it cannot be committed, undoes all of it."""
    orders, emails, _ = queues
    with pytest.raises(DuplicateEntry), ThreadPoolExecutor(1) as other, storage.transaction():
        emails.enqueue("told")
        orders.enqueue("mine", id="a")
        other.submit(orders.enqueue, "theirs", id="a").result()
    assert contents(orders, emails) == [["theirs"], []]


def test_a_lease_that_ends_meanwhile(storage, queues, clock):
    """A lease that was lost before the commit undoes all of it."""
    orders, emails, _ = queues
    entry = leased(orders, 1)
    with pytest.raises(LeaseLost), ThreadPoolExecutor(1) as other, storage.transaction():
        orders.mark_completed(entry)
        emails.enqueue("told")
        clock.advance(timedelta(hours=1))
        assert other.submit(orders.dequeue).result() is None
    assert emails.counts() == Counts()
    assert orders.counts() == Counts(dead=1)


def test_a_token_is_given_once(storage, queues):
    """A lease that is undone with its transaction never passes for a later one, not even of the same id."""
    orders = queues[0]
    storage.begin_transaction()
    orders.enqueue("undone", id="a")
    undone = orders.dequeue()
    storage.rollback_transaction()
    with storage.transaction():
        orders.enqueue("mine", id="a")
        mine = orders.dequeue()
    with pytest.raises(LeaseLost):
        orders.mark_completed(undone)
    with storage.transaction():
        with pytest.raises(LeaseLost):
            orders.mark_completed(undone)
        orders.mark_completed(mine)
    orders.enqueue("later", id="a")
    later = orders.dequeue()
    for old in (undone, mine):
        with pytest.raises(LeaseLost):
            orders.mark_completed(old)
    orders.extend(later)
    orders.mark_completed(later)


def test_leases_of_others_meanwhile(storage, queues):
    """Others may be given leases while a transaction has given one of its own."""
    orders = queues[0]
    orders.enqueue_many([1, 2])
    with ThreadPoolExecutor(1) as other, storage.transaction():
        orders.enqueue(0, priority=1)
        mine = orders.dequeue()
        theirs = other.submit(orders.dequeue, limit=2).result()
    assert [entry.data for entry in (mine, *theirs)] == [0, 1, 2]
    orders.mark_completed_many([mine, *theirs])
    assert orders.counts() == Counts()


def test_an_extension_is_not_undone(storage, queues, clock):
    """A lease that is extended in a transaction is extended whatever becomes of it."""
    orders = queues[0]
    entry = leased(orders, 1)
    with pytest.raises(Undo), storage.transaction():
        orders.extend(entry, timedelta(hours=2))
        raise Undo
    clock.advance(timedelta(hours=1))
    orders.mark_completed(entry)


# -- whose it is -------------------------------------------------------------------------------------------


def test_it_belongs_to_its_thread(storage, queues):
    """What another thread does meanwhile is no part of it, and there at once."""
    orders, emails, _ = queues
    with pytest.raises(Undo), storage.transaction():
        orders.enqueue("mine")
        thread = threading.Thread(target=emails.enqueue, args=("theirs",))
        thread.start()
        thread.join()
        raise Undo
    assert contents(orders, emails) == [[], ["theirs"]]


def test_it_belongs_to_its_task(storage, queues):
    """Tasks of one thread have transactions of their own, and none of whoever started them."""
    orders, emails, _ = queues

    async def work(number, event, other):
        with storage.transaction():
            orders.enqueue(number)
            other.set()
            await event.wait()
            if number == 1:
                raise Undo

    async def run():
        first, second = asyncio.Event(), asyncio.Event()
        with storage.transaction():
            tasks = [
                asyncio.create_task(work(1, first, second)),
                asyncio.create_task(work(2, second, first)),
            ]
            done = await asyncio.gather(*tasks, return_exceptions=True)
            emails.enqueue("told")
            raise Undo if done[1] is None else AssertionError

    with pytest.raises(Undo):
        asyncio.run(run())
    assert contents(orders, emails) == [[2], []]


def test_of_two_storages(storage, queues, tmp_path):
    """A transaction is on one storage; what is done to another one meanwhile is not undone with it."""
    from duraq import MemoryStorage  # noqa: PLC0415 - whatever the backend is, this is another one

    with MemoryStorage() as another:
        elsewhere = Queue("orders", another)
        with pytest.raises(Undo), storage.transaction():
            queues[0].enqueue(1)
            elsewhere.enqueue(2)
            raise Undo
        assert contents(queues[0], elsewhere) == [[], [2]]


def test_closing_within_it(storage, queues):
    """What was not committed when the storage is closed never was."""
    orders = queues[0]
    orders.enqueue(1)
    with pytest.raises(StorageClosed), storage.transaction():
        orders.dequeue()
        storage.close()
    with pytest.raises(NoTransaction):
        storage.rollback_transaction()


@pytest.mark.needs("survives")
def test_it_is_there_when_it_is_opened_again(storage, queues, open_storage):
    """What was committed is there afterwards, whole, and in the order of the calls."""
    orders, emails, _ = queues
    entry = leased(orders, 0)
    with storage.transaction():
        orders.enqueue("x")
        orders.mark_completed(entry)
        emails.enqueue_many(range(3))
        first = emails.dequeue()
        emails.mark_completed(first)
    storage.close()
    again = open_storage()
    assert contents(Queue("orders", again), Queue("emails", again)) == [["x"], [1, 2]]


@pytest.mark.needs("survives")
@pytest.mark.needs("files")
def test_one_that_is_too_large(open_storage):
    """A transaction with more records than a group may have is refused whole, and can be made smaller."""
    storage = open_storage(sizes=Sizes(journal=64 << 10, segment=8 << 10, group=16 << 10))
    queue = Queue("jobs", storage)
    queue.enqueue(0)
    with pytest.raises(GroupTooLarge), storage.transaction():
        entry = queue.dequeue()
        queue.mark_completed(entry)
        queue.enqueue_many(["x" * 100] * 200)
    assert queue.counts() == Counts(ready=1)
    with storage.transaction():
        queue.enqueue_many(["x" * 100] * 20)
    assert queue.counts() == Counts(ready=21)


@pytest.mark.needs("survives")
@pytest.mark.needs("files")
def test_a_handler_that_writes_too_much(open_storage):
    """What a handler has done and the journal can never take counts as the attempt's failure."""
    storage = open_storage(sizes=Sizes(journal=64 << 10, segment=8 << 10, group=16 << 10))
    queue, others = Queue("jobs", storage, retry_policy=NoRetry()), Queue("others", storage)
    queue.enqueue(0)
    worker = Worker(queue, lambda _: others.enqueue_many(["x" * 100] * 200), transactional=True)
    stats = worker.run(limit=3, drain=True)
    assert (stats.dead, stats.released) == (1, 0)
    (dead,) = DeadLetterQueue("jobs", None, storage).list()
    assert dead.errors[-1].error.type == "GroupTooLarge"
    assert contents(others) == [[]]


@pytest.mark.needs("survives")
@pytest.mark.needs("files")
def test_it_costs_one_sync(open_storage):
    """A transaction over several queues is made durable by one sync."""
    storage = open_storage(durability="power")
    queues = [Queue(name, storage) for name in ("orders", "emails", "bills")]
    for queue in queues:
        queue.enqueue(0)
    entry = queues[0].dequeue()
    syncs, datasync = [], storage._fs.datasync
    storage._fs.datasync = lambda fd: (syncs.append(fd), datasync(fd))
    with storage.transaction():
        queues[0].mark_completed(entry)
        for queue in queues:
            queue.enqueue_many(range(5))
    storage._fs.datasync = datasync
    assert len(syncs) == 1


# -- handlers ----------------------------------------------------------------------------------------------


def test_a_handler_and_its_completion(storage, queues):
    """What a handler does is one transaction with the completion of its entry, if it is to be."""
    orders, emails, _ = queues
    orders.enqueue_many(["good", "bad"])

    def handle(entry):
        emails.enqueue(entry.data)
        assert emails.counts() == Counts(ready=1 + (entry.data == "bad"))
        if entry.data == "bad":
            raise Undo

    assert orders.process_next(handle, transactional=True).data == "good"
    with pytest.raises(Undo):
        orders.process_next(handle, transactional=True)
    assert orders.process_next(handle, transactional=True) is None
    assert contents(emails) == [["good"]]
    assert orders.counts() == Counts(dead=1)


def test_a_worker_whose_handlers_are_transactions(storage, queues):
    """A worker can make a transaction of each handler: if it fails, or its lease is lost, it did nothing."""
    orders, emails, _ = queues
    orders.enqueue_many(["good", "bad", "late", "good"])

    def handle(entry):
        emails.enqueue(entry.data)
        if entry.data == "bad":
            raise Undo
        if entry.data == "late":
            # Somebody else ends it meanwhile.
            with ThreadPoolExecutor(1) as other:
                other.submit(orders.mark_failed, entry, "late").result()

    stats = Worker(orders, handle, transactional=True).run(drain=True)
    assert (stats.completed, stats.dead, stats.lost) == (2, 1, 1)
    assert contents(emails) == [["good", "good"]]
    assert orders.counts() == Counts(dead=2)


def test_others_end_what_it_has_decided_about(storage, queues):
    """If others end a lease that a transaction has ended, it says so at the next look, and can be undone."""
    orders = queues[0]
    entry = leased(orders, 1)
    with pytest.raises(LeaseLost), ThreadPoolExecutor(1) as other, storage.transaction():
        orders.mark_completed(entry)
        other.submit(orders.release, entry).result()
        for look in (orders.counts, orders.entries, orders.dequeue, lambda: orders.get(entry.id)):
            with pytest.raises(LeaseLost):
                look()
    assert orders.counts() == Counts(ready=1)


def test_many_expired_ones_in_front(storage, queues, clock):
    """Entries that are over do not hide the ones behind them, however many there are."""
    orders = queues[0]
    orders.enqueue_many(range(1500), ttl=SECOND)
    orders.enqueue("behind")
    with storage.transaction():
        orders.enqueue("mine", ttl=SECOND)
        orders.enqueue("mine too")
        clock.advance(2 * SECOND)
        assert [entry.data for entry in orders.dequeue(limit=3)] == ["behind", "mine too"]


@pytest.fixture
def running_clock(monkeypatch, clock):
    """The clock goes on, as fast as the machine's."""
    began, noon, up = time.monotonic(), clock.now(), clock.uptime()
    passed = lambda: int((time.monotonic() - began) * 1e6)  # noqa: E731
    monkeypatch.setattr(clock, "now", lambda: noon + passed())
    monkeypatch.setattr(clock, "uptime", lambda: up + passed())


@pytest.mark.usefixtures("running_clock")
def test_waiting_for_ones_own(storage, queues):
    """Who waits in a transaction is given what that has enqueued as soon as it is due."""
    with storage.transaction():
        queues[0].enqueue("soon", delay=timedelta(milliseconds=20))
        entry = queues[0].dequeue(wait=timedelta(hours=1))
        assert entry.data == "soon"
        queues[0].mark_failed(entry, retry_in=timedelta(milliseconds=20))
        queues[0].mark_completed(queues[0].dequeue(wait=timedelta(hours=1)))


@pytest.mark.usefixtures("running_clock")
def test_waiting_for_what_one_has_paused(storage, queues, monkeypatch):
    """Who waits in a transaction that has paused the queue sleeps, whatever is ready there."""
    queues[0].enqueue("x")
    looks, claim = [], storage.claim
    monkeypatch.setattr(storage, "claim", lambda *args, **more: looks.append(1) or claim(*args, **more))
    with storage.transaction():
        queues[0].pause()
        assert queues[0].dequeue(wait=timedelta(milliseconds=50)) is None
    assert len(looks) <= 3


def test_undoing_makes_no_queue(storage, queues):
    """A queue that was only spoken of in a transaction that is undone never was."""
    with pytest.raises(Undo), storage.transaction():
        queues[0].enqueue(1, id="a")
        queues[1].enqueue(1)
        raise Undo
    assert storage.queues() == []


class _Called:
    """Called like a function."""

    async def __call__(self):
        """Never called."""


async def _coroutine():
    """Never called."""


def _generator():
    yield


@pytest.mark.parametrize("function", [_coroutine, _generator, _Called()])
def test_what_runs_later_is_no_function(storage, function):
    """A coroutine or generator cannot be decorated, for it would run outside of the transaction."""
    with pytest.raises(InvalidOption, match="coroutine or generator"):
        storage.transaction()(function)


@pytest.mark.needs("wakes")
def test_a_waiter_is_woken_whatever_comes_first(storage, queues):
    """Somebody who waits is woken for an entry that is enqueued behind a completion."""
    orders = queues[0]
    entry = leased(orders, 1)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(orders.dequeue, wait=timedelta(seconds=30))
        woken = []
        notify = storage._notify
        storage._notify = lambda queue, count: (woken.append((queue, count)), notify(queue, count))
        while not storage._someone_waits:
            threading.Event().wait(0.001)
        with storage.transaction():
            orders.mark_completed(entry)
            orders.enqueue(2)
        assert waiting.result(30).data == 2
    assert woken == [("orders", 1)]


# In a callback of the interpreter's own it cannot be raised, and is shown.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("nested", [False, True])
def test_an_interrupt_anywhere_ends_it(storage, queues, nested):
    """A Ctrl-C at any moment of a transaction leaves the thread in none: what it does next is done."""
    orders, emails, _ = queues
    leaked = 0

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGVTALRM, interrupt)
    try:
        for number in range(150):
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0.0001 + number * 0.00001)
                with storage.transaction():
                    orders.enqueue(number)
                    if nested:
                        with storage.transaction():
                            orders.enqueue(number)
                    orders.dequeue()
                # Until it comes; it may have come where Python cannot raise, and then it never does.
                for _ in range(200_000):
                    pass
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
                for _ in range(1000):
                    pass  # what has come already is raised in here
            except KeyboardInterrupt:
                leaked += transaction.current(storage) is not None
            transaction.reset(())
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    # The one moment that cannot be covered is the very call of the block's end.
    assert leaked <= 3
    assert emails.enqueue("after") is not None
    assert len(emails) == 1


# Memory's turn is a lock of the interpreter's own, which nothing comes between.
@pytest.mark.needs("survives")
def test_a_turn_that_nobody_ended(storage, queues):
    """A call that a Ctrl-C broke off before it could give its turn up keeps nobody from the next one."""
    orders, *_ = queues

    def broken_off():
        storage._turn.__enter__()

    orders.enqueue(1)
    broken_off()
    orders.enqueue(2)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: [entry.data for entry in orders.entries()]).result(30) == [1, 2]


@pytest.mark.needs("survives")
def test_a_turn_whose_end_is_broken_off(storage, queues, monkeypatch):
    """If a Ctrl-C comes as a turn is to be undone, the next one undoes it first."""
    orders, *_ = queues
    undo = getattr(storage, "_discard", None) or storage._forget

    def interrupted():
        monkeypatch.undo()
        raise KeyboardInterrupt

    orders.enqueue(1)
    monkeypatch.setattr(storage, undo.__name__, interrupted)
    with pytest.raises(KeyboardInterrupt), storage._turn:
        raise MemoryError
    orders.enqueue(2)
    assert contents(orders) == [[1, 2]]


@pytest.mark.needs("survives")
def test_a_turn_that_closing_ends(storage, queues):
    """What a Ctrl-C has left of a turn is over when the storage is closed, and nobody waits for it."""
    orders, *_ = queues

    def broken_off():
        storage._turn.__enter__()

    broken_off()
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(lambda: orders.enqueue(1))
        storage.close()
        with suppress(StorageClosed, OutcomeUnknown):  # or it came in between, before its sync or behind it
            waiting.result(30)


@pytest.mark.needs("survives")
def test_a_call_within_a_turn(storage, queues):
    """What a signal handler asks in the middle of a call is refused, and the call goes on."""
    orders, emails, _ = queues
    orders.enqueue(1)
    with storage._turn:
        with pytest.raises(StorageFailed, match="signal handler"):
            emails.enqueue("from the handler")
        assert storage._state("orders") is not None
    emails.enqueue("after")
    assert contents(orders, emails) == [[1], ["after"]]


def test_a_worker_whose_storage_refuses(storage, queues, monkeypatch):
    """If what a handler did cannot be written, that is not the entry's fault, and it is done again."""
    orders, emails, _ = queues
    orders.enqueue(1)
    commit, refusals = storage._commit_now, iter([NotWritten("no space")])

    def refuse(*arguments):
        for error in refusals:
            raise error
        return commit(*arguments)

    monkeypatch.setattr(storage, "_commit_now", refuse)
    stats = Worker(orders, lambda entry: emails.enqueue(entry.data), transactional=True).run(drain=True)
    assert (stats.completed, stats.dead, stats.failed) == (1, 0, 0)
    assert contents(orders, emails) == [[], [1]]
