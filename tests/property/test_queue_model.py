"""Random lives of a queue, compared with the simplest thing that could be right: a list.

The model knows the promises and nothing of heaps, files or caches. In files two open storages of one
directory act in turn, each with its own, often outdated, view, and either may be closed and opened again.
"""

import copy
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from duraq import (
    Cause,
    Counts,
    DeadLetterQueue,
    DuplicateEntry,
    EntryNotFound,
    EntryStatus,
    FileStorage,
    FixedDelay,
    LeaseLost,
    MemoryStorage,
    NotLeased,
    Queue,
    QueueFull,
    QueueNotFound,
    transaction,
)
from duraq.journal import compaction
from duraq.journal.log import Sizes
from duraq.testing import FakeClock

SCHEDULED, READY, LEASED, DEAD = (
    EntryStatus.SCHEDULED,
    EntryStatus.READY,
    EntryStatus.LEASED,
    EntryStatus.DEAD,
)
SECOND = timedelta(seconds=1)
LEASE = 10 * SECOND
POLICY = FixedDelay(max_attempts=3, delay=5 * SECOND)
# A few entries fill a segment, and a few dozen the journal.
TINY = Sizes(journal=8 * 1024, segment=2 * 1024)

durations = st.sampled_from([1, 2, 5, 10, 11, 30]).map(lambda seconds: timedelta(seconds=seconds))
delays = st.none() | st.just(timedelta(0)) | durations
options = st.fixed_dictionaries(
    {"priority": st.sampled_from([0, 0, 0, 1, -1]), "delay": delays, "ttl": st.none() | durations}
)
steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "enqueue",
                "enqueue",
                "dequeue",
                "dequeue",
                "complete",
                "fail",
                "release",
                "begin",
                "keep",
                "undo",
            ]
        ),
        st.integers(0, 2**16),
        options,
    ),
    max_size=10,
)
whos = st.sampled_from([0, 1])
picks = st.integers(0, 2**16)


@dataclass
class Modelled:
    """What the model knows of an entry."""

    id: str
    data: object
    priority: int
    place: int
    ready_at: datetime | None
    expires_at: datetime | None
    status: EntryStatus
    attempts: int = 0
    deadline: datetime | None = None
    lease: int = 0  # number of the lease that it is held under
    holder: int | None = None  # None: whoever held it is dead
    died_at: datetime | None = None
    history: list = field(default_factory=list)
    key: str | None = None


class Model:
    """A list of entries, and what becomes of them."""

    def __init__(self):
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)
        self.entries = []
        self.keys = {}  # key: the entry's id, and until when it stands for it
        self.plans = {}  # ids that an act means
        self.removed = []  # lists of entries, those removed last at the end
        self.paused = None
        self.exists = False
        self.places = self.leases = 0
        self.counted = Counter()

    # What time alone does.

    def pass_time(self, duration):
        self.now += duration
        self.settle_time()

    def settle_time(self):
        for entry in self.entries:
            if entry.status is SCHEDULED and entry.ready_at <= self.now:
                entry.status = READY
        before = len(self.entries)
        self.entries = [entry for entry in self.entries if not self._has_expired(entry)]
        self.counted["expired"] += before - len(self.entries)

    def _has_expired(self, entry):
        waiting = entry.status in {SCHEDULED, READY}
        return waiting and entry.expires_at is not None and entry.expires_at <= self.now

    # What is asked.

    def find(self, entry_id):
        return next((entry for entry in self.entries if entry.id == entry_id), None)

    def having(self, *statuses):
        return [entry for entry in self.entries if entry.status in statuses]

    def counts(self):
        return Counts(*(len(self.having(status)) for status in (SCHEDULED, READY, LEASED, DEAD)))

    def in_order(self):
        return sorted(self.having(READY), key=lambda entry: (-entry.priority, entry.place))

    # What is done.

    def enqueue(self, entry_id, data, priority, delay, ttl):
        self.exists = True
        self.places += 1
        ready_at = self.now + delay if delay else None
        expires_at = self.now + ttl if ttl else None
        status = SCHEDULED if ready_at else READY
        entry = Modelled(entry_id, data, priority, self.places, ready_at, expires_at, status)
        self.entries.append(entry)
        self.counted["enqueued"] += 1
        return entry

    def complete(self, entry):
        self.entries.remove(entry)
        self.counted["completed"] += 1

    def remove(self, entry):
        self.entries.remove(entry)
        self.counted["removed"] += 1

    def end_overdue(self):
        for entry in self.having(LEASED):
            if entry.holder is None:
                self.fail(entry, Cause.WORKER_DIED, None, timedelta(0))
            elif entry.deadline <= self.now:
                self.fail(entry, Cause.TIMED_OUT, None, timedelta(0))

    def lease(self, limit, who):
        self.end_overdue()
        self.settle_time()
        taken = [] if self.paused else self.in_order()[:limit]
        for entry in taken:
            self.leases += 1
            entry.status, entry.holder, entry.lease = LEASED, who, self.leases
            entry.attempts += 1
            entry.deadline = self.now + LEASE
        return taken

    def give_back(self, entry, delay=None):
        entry.attempts -= 1
        self._wait(entry, delay)

    def fail(self, entry, cause, message, delay, *, dead=None):
        """Dead or not is the policy's to say unless it is given."""
        entry.history.append((entry.attempts, cause, message))
        self.counted[cause] += 1
        if dead or (dead is None and entry.attempts >= POLICY.max_attempts):
            entry.status, entry.died_at = DEAD, self.now
            self.counted["dead"] += 1
        else:
            self._wait(entry, delay)

    def put_back(self, entry, *, keep_attempts):
        self.counted["requeued"] += 1
        entry.attempts = entry.attempts if keep_attempts else 0
        entry.expires_at = None
        self._wait(entry, None)

    def _wait(self, entry, delay):
        entry.status = READY
        if delay:
            entry.status, entry.ready_at = SCHEDULED, self.now + delay
        self.settle_time()


class QueueMachine(RuleBasedStateMachine):
    """Does the same to a queue and to the model, and compares."""

    handles = 1

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.model = Model()
        self.number = 0
        self.given = []  # every lease that was ever given: who, the entry, its number in the model
        self.over = []  # ids that were used and are free
        self.storages = [self.open() for _ in range(self.handles)]

    def open(self):
        return MemoryStorage(clock=self.clock, lock_duration=LEASE)

    def teardown(self):
        try:
            for who in range(self.handles):
                self.compare(who)
        finally:
            for storage in self.storages:
                storage.close()

    def queue(self, who, **options):
        return Queue("jobs", self.storages[who % self.handles], retry_policy=POLICY, **options)

    def dead_letters(self, who):
        return DeadLetterQueue("jobs", None, self.storages[who % self.handles])

    def new_id(self, pick):
        """An id that is free: a new one, or one that was used before."""
        free = [name for name in self.over if self.model.find(name) is None]
        if free and pick % 3 == 0:
            return free[pick % len(free)]
        self.number += 1
        return f"n{self.number}"

    # -- feeding ---------------------------------------------------------------------------------------

    @rule(who=whos, options=options, pick=picks, size=st.sampled_from([0, 0, 900]))
    def enqueue(self, who, options, pick, size):
        """A new entry, or one under an id that is free again."""
        name = self.new_id(pick)
        data = {"n": self.number, "pad": "x" * size}
        assert self.queue(who).enqueue(data, id=name, **options) == name
        self.model.enqueue(name, data, **options)
        self.over.append(name)

    @rule(who=whos, options=options, count=st.sampled_from([1, 2, 5, 30]))
    def enqueue_many(self, who, options, count):
        """A batch of new entries."""
        names = [self.new_id(1) for _ in range(count)]
        self.queue(who).enqueue_many(range(count), ids=names, **options)
        for data, name in enumerate(names):
            self.model.enqueue(name, data, **options)
        self.over += names

    @rule(who=whos, number=st.integers(0, 3), window=durations)
    def enqueue_once(self, who, number, window):
        """An entry under a key, which may be known."""
        key = f"key {number}"
        found = self.queue(who).enqueue(number, key=key, key_window=window)
        entry_id, until = self.model.keys.get(key, (None, self.model.now))
        if until > self.model.now:
            assert found == entry_id
        else:
            self.model.keys[key] = found, self.model.now + window
            self.model.enqueue(found, number, 0, None, None).key = key

    @rule(order=st.lists(whos, min_size=1, max_size=12), options=options, size=st.sampled_from([0, 900]))
    def feed_by_turns(self, order, options, size):
        """New entries by one and the other, neither of whom looks at what the other has done meanwhile."""
        for who in order:
            self.number += 1
            data = {"n": self.number, "pad": "x" * size}
            self.model.enqueue(self.queue(who).enqueue(data, **options), data, **options)

    @precondition(lambda self: self.model.entries)
    @rule(who=whos, pick=picks)
    def enqueue_a_duplicate(self, who, pick):
        """A batch with an id that is in use changes nothing."""
        used = self.model.entries[pick % len(self.model.entries)].id
        with pytest.raises(DuplicateEntry):
            self.queue(who).enqueue_many(["a", "b"], ids=["fresh", used])

    @rule(who=whos, max_size=st.integers(1, 12), count=st.integers(1, 4))
    def enqueue_up_to(self, who, max_size, count):
        """A batch into a queue that has a limit."""
        queue = self.queue(who, max_size=max_size)
        names = [self.new_id(1) for _ in range(count)]
        if self.model.counts().length + count > max_size:
            with pytest.raises(QueueFull):
                queue.enqueue_many(["limited"] * count, ids=names)
            # Whether a refusal makes the queue is not for this test to say.
            self.model.exists = None if not self.model.exists else True
        else:
            queue.enqueue_many(["limited"] * count, ids=names)
            for name in names:
                self.model.enqueue(name, "limited", 0, None, None)
            self.over += names

    # -- working ---------------------------------------------------------------------------------------

    @rule(who=whos, limit=st.sampled_from([1, 1, 2, 5, 40]))
    def dequeue(self, who, limit):
        """The next entries, in the order of delivery."""
        who %= self.handles
        found = self.queue(who).dequeue(limit=limit)
        wanted = self.model.lease(limit, who)
        assert [entry.id for entry in found] == [entry.id for entry in wanted]
        for entry, modelled in zip(found, wanted, strict=True):
            self.compare_entry(entry, modelled)
            self.given.append((who, entry, modelled.lease))
        assert len({(entry.id, entry.token) for _, entry, _ in self.given}) == len(self.given)

    def pick_lease(self, pick, by_id):
        """A lease that was given once: its storage, the entry or its id, the model's entry or None."""
        # Young leases are the more interesting ones.
        who, entry, lease = self.given[-1 - pick % len(self.given)]
        modelled = self.model.find(entry.id)
        current = modelled is not None and modelled.status is LEASED and modelled.holder == who
        if not by_id and current and modelled.lease != lease:
            current = False
        return who, entry.id if by_id else entry, modelled if current else None

    def end(self, pick, by_id, call, then):
        """Try to end or extend a lease; an old one changes nothing."""
        who, entry, modelled = self.pick_lease(pick, by_id)
        if modelled is None:
            refusal = NotLeased if by_id and self.handles == 1 else LeaseLost
            # What a transaction leased that was undone, with the queue that it would have made.
            with pytest.raises(refusal if self.model.exists else (LeaseLost, QueueNotFound)):
                call(self.queue(who), entry)
        else:
            call(self.queue(who), entry)
            then(modelled)

    @precondition(lambda self: self.given)
    @rule(pick=picks, by_id=st.booleans())
    def complete(self, pick, by_id):
        """Complete what was leased once."""
        self.end(pick, by_id, Queue.mark_completed, self.model.complete)

    @precondition(lambda self: self.given)
    @rule(pick=picks, by_id=st.booleans())
    def fail(self, pick, by_id):
        """Fail it, and let the policy decide."""
        self.end(
            pick,
            by_id,
            lambda queue, entry: queue.mark_failed(entry, "policy"),
            lambda entry: self.model.fail(entry, Cause.FAILED, "policy", POLICY.delay),
        )

    @precondition(lambda self: self.given)
    @rule(pick=picks, by_id=st.booleans(), delay=st.just(timedelta(0)) | durations)
    def fail_until(self, pick, by_id, delay):
        """Fail it, with a delay of one's own."""
        self.end(
            pick,
            by_id,
            lambda queue, entry: queue.mark_failed(entry, ValueError("own"), retry_in=delay),
            lambda entry: self.model.fail(entry, Cause.FAILED, "own", delay, dead=False),
        )

    @precondition(lambda self: self.given)
    @rule(pick=picks, by_id=st.booleans())
    def bury(self, pick, by_id):
        """Fail it for good."""
        self.end(
            pick,
            by_id,
            lambda queue, entry: queue.mark_failed(entry, "dead", dead=True),
            lambda entry: self.model.fail(entry, Cause.FAILED, "dead", None, dead=True),
        )

    @precondition(lambda self: self.given)
    @rule(pick=picks, by_id=st.booleans(), delay=delays)
    def release(self, pick, by_id, delay):
        """Give it back."""
        self.end(
            pick,
            by_id,
            lambda queue, entry: queue.release(entry, delay=delay),
            lambda entry: self.model.give_back(entry, delay),
        )

    @precondition(lambda self: self.given)
    @rule(pick=picks, by_id=st.booleans(), duration=st.none() | durations)
    def extend(self, pick, by_id, duration):
        """Keep it for longer, or for less long."""

        def then(entry):
            entry.deadline = self.model.now + (duration or LEASE)

        self.end(pick, by_id, lambda queue, entry: queue.extend(entry, duration), then)

    # -- steering --------------------------------------------------------------------------------------

    @rule(duration=durations | st.just(timedelta(microseconds=1)))
    def pass_time(self, duration):
        """Time passes."""
        self.clock.advance(duration)
        self.model.pass_time(duration)

    @rule(who=whos)
    def pause(self, who):
        """Nothing is delivered from here on."""
        self.queue(who).pause("because", who=f"user {who}")
        self.model.paused = f"user {who}"
        self.model.exists = True

    @precondition(lambda self: self.model.exists)
    @rule(who=whos)
    def resume(self, who):
        """It is delivered again."""
        self.queue(who).resume()
        self.model.paused = None

    @precondition(lambda self: self.model.exists)
    @rule(who=whos, pick=picks, keep=st.booleans(), edit=st.booleans())
    def retry(self, who, pick, keep, edit):
        """Put an entry back that may be dead, perhaps with another payload."""
        entry = self.model.entries[pick % len(self.model.entries)] if self.model.entries else None
        if entry is None or entry.status is not DEAD:
            with pytest.raises(EntryNotFound):
                self.dead_letters(who).retry(entry.id if entry else "nothing")
        else:
            if edit:
                entry.data = {"edited": pick}
            more = {"data": entry.data} if edit else {}
            self.dead_letters(who).retry(entry.id, keep_attempts=keep, **more)
            self.model.put_back(entry, keep_attempts=keep)

    @rule(who=whos, keep=st.booleans())
    def retry_all(self, who, keep):
        """Put all back that are dead."""
        dead = self.model.having(DEAD)
        assert self.dead_letters(who).retry_all(keep_attempts=keep) == len(dead)
        for entry in dead:
            self.model.put_back(entry, keep_attempts=keep)

    @rule(who=whos, number=st.integers(0, 2))
    def carry_out(self, who, number):
        """Put all back that are dead by an act, which may have been carried out before."""
        act, model = f"act-{number}", self.model
        # Each death is another one.
        meant = model.plans.setdefault(act, {entry.id: entry.lease for entry in model.having(DEAD)})
        left = [entry for entry in model.having(DEAD) if meant.get(entry.id) == entry.lease]
        assert self.dead_letters(who).retry_all(act=act) == len(left)
        for entry in left:
            model.put_back(entry, keep_attempts=False)

    @precondition(lambda self: self.model.having(DEAD))
    @rule(who=whos, pick=picks, count=st.integers(1, 3))
    def remove(self, who, pick, count):
        """Remove a dead letter, or several at once."""
        dead = self.model.having(DEAD)
        chosen = dead[pick % len(dead) :][:count]
        if len(chosen) == 1:
            self.dead_letters(who).remove(chosen[0].id)
        else:
            assert self.dead_letters(who).remove_many([entry.id for entry in chosen]) == len(chosen)
        for entry in chosen:
            self.model.remove(entry)
        self.model.removed.append(chosen)

    @precondition(lambda self: self.model.removed)
    @rule(who=whos)
    def undo(self, who):
        """Bring back what was removed last; one whose id is in use again stays away."""
        model = self.model
        back = [entry for entry in model.removed[-1] if model.find(entry.id) is None]
        assert self.dead_letters(who).undo() == len(back)
        model.removed[-1] = [entry for entry in model.removed[-1] if entry not in back]
        model.counted["restored"] += len(back)
        model.entries = sorted([*model.entries, *back], key=lambda entry: entry.place)

    @rule(who=whos, age=durations)
    def purge(self, who, age):
        """Remove the dead letters that are so old."""
        old = [entry for entry in self.model.having(DEAD) if entry.died_at <= self.model.now - age]
        assert self.dead_letters(who).purge_older_than(age) == len(old)
        for entry in old:
            self.model.remove(entry)

    # -- several calls as one --------------------------------------------------------------------------

    @rule(who=whos, steps=steps, commit=st.booleans(), look=st.booleans())
    def transact(self, who, steps, commit, look):
        """A transaction with savepoints: it sees what it has done, and what is undone never was."""
        who %= self.handles
        storage, queue = self.storages[who], self.queue(who)
        queue.counts()  # one that has not seen the leases of the other has nothing to end
        queue.settle_lapsed()
        self.model.end_overdue()
        storage.begin_transaction()
        before = [copy.deepcopy(self.model)]
        for kind, pick, chosen in steps:
            if kind == "begin":
                storage.begin_transaction()
                before.append(copy.deepcopy(self.model))
            elif kind in {"keep", "undo"} and len(before) > 1:
                self.end_transaction(storage, before, commit=kind == "keep")
            elif kind == "enqueue":
                self.enqueue(who, chosen, pick, 0)
            elif kind == "dequeue":
                self.dequeue(who, 1 + pick % 3)
            elif kind in {"complete", "fail", "release"}:
                self.end_own(who, pick, kind)
            if look:
                self.compare(who)
        while before:
            self.end_transaction(storage, before, commit=commit)

    def end_transaction(self, storage, before, *, commit):
        """Commit, or go back to what was before, but for the numbers of leases, which are given once."""
        was = before.pop()
        if commit:
            storage.commit_transaction()
        else:
            storage.rollback_transaction()
            was.leases, self.model = self.model.leases, was

    def end_own(self, who, pick, kind):
        """End a lease that this storage was given, if it still has it."""
        mine = [(entry, lease) for holder, entry, lease in self.given if holder == who]
        if not mine:
            return
        entry, lease = mine[-1 - pick % len(mine)]
        modelled = self.model.find(entry.id)
        queue = self.queue(who)
        calls = {
            "complete": lambda: queue.mark_completed(entry),
            "fail": lambda: queue.mark_failed(entry, "policy", retry_in=timedelta(0)),
            "release": lambda: queue.release(entry),
        }
        if modelled is None or modelled.status is not LEASED or modelled.lease != lease:
            with pytest.raises(LeaseLost if self.model.exists else (LeaseLost, QueueNotFound)):
                calls[kind]()
            return
        calls[kind]()
        if kind == "complete":
            self.model.complete(modelled)
        elif kind == "fail":
            self.model.fail(modelled, Cause.FAILED, "policy", timedelta(0), dead=False)
        else:
            self.model.give_back(modelled)

    # -- looking ---------------------------------------------------------------------------------------

    @rule(who=whos)
    def look(self, who):
        """Everything there is to see; the other storage does not look, and its view grows old."""
        self.compare(who)

    @invariant()
    def lengths(self):
        """The model itself is in order."""
        assert len({entry.id for entry in self.model.entries}) == len(self.model.entries)

    def compare(self, who):
        """What the queue shows is what the model says."""
        queue, model = self.queue(who), self.model
        assert queue.counts() == model.counts()
        assert (queue.paused.who if queue.paused else None) == model.paused
        entries = queue.entries()
        assert [entry.id for entry in entries] == [entry.id for entry in model.entries]
        for entry, modelled in zip(entries, model.entries, strict=True):
            self.compare_entry(entry, modelled)
        assert [entry.id for entry in queue.peek(999)] == [entry.id for entry in model.in_order()]
        self.compare_numbers(queue)
        dead = self.dead_letters(who).list()
        assert [entry.id for entry in dead] == [entry.id for entry in model.having(DEAD)]
        for entry in model.entries[:3]:
            assert queue.get(entry.id).status is entry.status
        with pytest.raises((EntryNotFound, QueueNotFound)):
            queue.get("nothing")

    def compare_numbers(self, queue):
        """What was counted is what the model has counted; of a transaction that goes on nothing is yet."""
        if transaction.current(queue.storage) is not None:
            return
        found = queue.metrics()
        counted = found.counters._asdict()
        # Those past their time are over when somebody comes by; what was leased and undone was given back.
        assert counted.pop("expired") <= self.model.counted["expired"]
        given_back = counted.pop("released")
        assert counted == {name: self.model.counted[name] for name in counted}
        lost = counted["timed_out"] + counted["worker_died"] + given_back
        ended = counted["completed"] + counted["failed"] + lost
        assert found.wait.count == ended + found.counts.leased
        assert found.run.count == counted["completed"] + counted["failed"]

    def compare_entry(self, entry, modelled):
        """An entry is as the model has it."""
        assert (entry.data, entry.priority) == (modelled.data, modelled.priority)
        assert (entry.status, entry.attempts) == (modelled.status, modelled.attempts)
        assert (entry.expires_at, entry.key) == (modelled.expires_at, modelled.key)
        assert entry.lease_deadline == (modelled.deadline if modelled.status is LEASED else None)
        if modelled.status is SCHEDULED:
            assert entry.scheduled_for == modelled.ready_at
        history = [
            (
                attempt.number,
                attempt.cause,
                attempt.error.message if attempt.cause is Cause.FAILED else None,
            )
            for attempt in entry.errors
            if attempt.cause is not Cause.RELEASED
        ]
        assert history == modelled.history


class FileQueueMachine(QueueMachine):
    """The same in files, through two open storages, which come and go."""

    handles = 2

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="duraq-model-"))
        self.crashes = 0
        super().__init__()

    def open(self):
        return FileStorage(
            self.directory / f"storage-{self.crashes}",
            clock=self.clock,
            lock_duration=LEASE,
            sizes=TINY,
            durability="process",
        )

    def teardown(self):
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.directory)

    @rule(who=whos)
    def close_and_open(self, who):
        """One storage is closed, which gives back what it holds, and opened again."""
        self.storages[who].close()
        for entry in self.model.having(LEASED):
            if entry.holder == who:
                self.model.give_back(entry)
        self.storages[who] = self.open()

    @rule(who=whos)
    def close_all_and_open(self, who):
        """Both are closed, so that the one that opens first has to read everything."""
        for storage in self.storages:
            storage.close()
        for entry in self.model.having(LEASED):
            if entry.holder is not None:
                self.model.give_back(entry)
        for index in (who, 1 - who):
            self.storages[index] = self.open()

    @rule()
    def crash(self):
        """Both processes die: what they have written is there, and who held an entry is nobody any more."""
        before = self.directory / f"storage-{self.crashes}"
        self.crashes += 1
        after = self.directory / f"storage-{self.crashes}"
        shutil.copytree(before, after, ignore=shutil.ignore_patterns("*.fifo"))
        for storage in self.storages:
            storage.close()
        shutil.rmtree(before)
        self.storages = [self.open() for _ in range(self.handles)]
        for entry in self.model.having(LEASED):
            entry.holder = None
        self.given = []  # what they had in hand is gone with them

    @rule(number=st.integers(0, 99), how=st.sampled_from(["gone", "empty", "short", "flipped"]))
    def spoil(self, number, how):
        """Something that was derived from the records is lost or damaged."""
        found = sorted(self.directory.glob("storage*/*/segments/*[0-9].[ic]*"))
        if not found:
            return
        file = found[number % len(found)]
        content = file.read_bytes()
        if how == "gone":
            file.unlink()
        elif how == "empty":
            file.write_bytes(b"")
        elif how == "short":
            file.write_bytes(content[: number % max(len(content), 1)])
        elif content:
            at = number * 37 % len(content)
            file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])

    @rule(who=whos)
    def compact(self, who):
        """The oldest segments go, as far as most of them is over."""
        storage = self.storages[who]
        for name in storage.queues():
            storage.compact(name)

    @rule(number=st.integers(0, 9))
    def spoil_all(self, number):
        """All that was derived from the records is lost, now and then."""
        if number == 0:
            for file in self.directory.glob("storage*/*/segments/*[0-9].[ic]*"):
                file.unlink()


DEEP = settings.get_current_profile_name() == "duraq-deep"
# That run beside each other; many in deep runs, for hypothesis keeps all that it has tried in one.
SHARES = 50 if DEEP else 4


# To say what is wrong in the fewest steps takes longer than to find that something is.
@pytest.mark.timeout(3600 if DEEP else 600)
@pytest.mark.parametrize("machine", [QueueMachine, FileQueueMachine])
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.usefixtures("one_thread")
def test_a_queue_is_what_the_model_says(machine, share, monkeypatch):
    """Whatever is done to a queue, in memory or in files, it shows and delivers what a plain list would."""
    # Only when told to, and in this thread: what hypothesis has found must happen again.
    monkeypatch.setattr(compaction, "is_due", lambda *_: False)
    examples, steps = (50_000, 100) if DEEP else (2_000, 50)
    # Half of them in memory, half in files.
    chosen = settings(max_examples=examples // SHARES // 2, stateful_step_count=steps)
    run_state_machine_as_test(machine, settings=chosen)
