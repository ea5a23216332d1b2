"""What processes do to queues, told to the storage and to the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

from simulation.oracle import Change, Oracle, Row
from simulation.world import Machine, Process

from duraq import DeadLetterQueue
from duraq.clock import from_timedelta
from duraq.errors import QueueError
from duraq.model import AttemptError, Cause
from duraq.operations import Bury, Complete, Enqueue, Extend, Fail, Operation, Release, Remove, Requeue

MINUTE = from_timedelta(timedelta(minutes=1))
LEASE = 5 * MINUTE
ERROR = AttemptError("Boom", "not today")

Changes = Mapping[str, Sequence[Operation]]


class Undone(Exception):
    """Raised in a transaction, so that it is undone."""


class Life:
    """Processes of a machine at work, and what their storage may hold meanwhile.

    ``process`` is the one whose turn it is. Each of the methods is a call, or a few, and says to the oracle
    which changes it makes, one for each commit.
    """

    process: Process

    def __init__(self, machine: Machine, oracle: Oracle, made: int = 0) -> None:
        self.machine = machine
        self.oracle = oracle
        self.made = made

    def do(self, changes: Sequence[Change], call: Callable[[], object], *, durable: bool = True) -> bool:
        """Make a call; whether it has returned. ``durable``: whether that says that it is."""
        self.oracle.begin(changes)
        call()
        self.oracle.done(durable=durable and self.process.durability == "power")
        return True

    def commit(self, changes: Changes, *, durable: bool = True) -> bool:
        now = self.machine.now
        return self.do(
            [lambda model: model.after(changes, now)],
            lambda: self.process.storage.commit(changes),
            durable=durable,
        )

    # -- feeding and working ---------------------------------------------------------------------------

    def new(
        self,
        size: int,
        priority: int = 0,
        *,
        fresh: bool = False,
        delay: int | None = None,
        ttl: int | None = None,
    ) -> Enqueue:
        self.made += 1
        payload, now = b'"%d %s"' % (self.made, b"x" * size), self.machine.now
        ready_at, expires_at = (None if each is None else now + each for each in (delay, ttl))
        return Enqueue(str(self.made), payload, priority, ready_at, expires_at, fresh)

    def settle(self, queue: str) -> bool:
        """End the leases of the dead and the late."""
        living, now = frozenset(self.machine.living), self.machine.now

        def call() -> None:
            self.process.storage.counts(queue)  # who holds something is known to whoever has looked
            self.process.queue(queue).settle_lapsed()

        # One look that ends nothing writes nothing.
        ended = any(model.settled(queue, living, now) is not model for model in self.oracle.now)
        return self.do([lambda model: model.settled(queue, living, now)], call, durable=ended)

    def claim(self, queue: str, limit: int) -> bool:
        """Lease the next entries, which must be those that are next."""
        process, now = self.process, self.machine.now
        wanted = self.oracle.model.claimed(queue, limit, process.worker, now, now + LEASE)
        before = self.oracle.model.line(queue).tokens

        def call() -> None:
            given = {each.id: each.token for each in process.storage.claim(queue, limit)}
            due = {
                row.id: row.token for row in wanted.line(queue).having("leased", now) if row.token > before
            }
            assert given == due, f"{queue}: given {given}, wanted {due}"

        # Nothing is handed out that a power cut could take back; that it is leased needs no sync.
        if not self.do([lambda _: wanted], call, durable=False):
            return False
        if process.durability == "power":
            given = [row for row in wanted.line(queue).having("leased", now) if row.token > before]
            self.oracle.durable_since(lambda model: all(row.id in model.line(queue).entries for row in given))
        return True

    def held(self, queue: str) -> list[Row]:
        """What the process holds."""
        rows = self.oracle.model.line(queue).having("leased", self.machine.now)
        return [row for row in rows if row.worker == self.process.worker]

    def complete(self, queue: str, row: Row) -> bool:
        return self.commit({queue: [Complete(row.id, row.token)]})

    def fail(self, queue: str, row: Row, delay: int = 0) -> bool:
        return self.commit({queue: [Fail(row.id, row.token, Cause.FAILED, ERROR, self.machine.now + delay)]})

    def bury(self, queue: str, row: Row) -> bool:
        return self.commit({queue: [Bury(row.id, row.token, Cause.FAILED, ERROR)]})

    def release(self, queue: str, row: Row) -> bool:
        return self.commit({queue: [Release(row.id, row.token)]})

    def extend(self, queue: str, row: Row) -> bool:
        """Which is no more durable than the lease."""
        clock = self.machine.clock
        until, boot, at = clock.uptime() + 2 * LEASE, clock.boot_id, clock.now() + 2 * LEASE
        return self.commit({queue: [Extend(row.id, row.token, until, boot, at)]}, durable=False)

    def complete_in_vain(self, queue: str, row: Row) -> bool:
        """Under a token that nobody has."""

        def call() -> None:
            with suppress(QueueError):
                self.process.storage.commit({queue: [Complete(row.id, row.token + 1000)]})
                raise AssertionError(f"completed under a wrong token: {row}")

        return self.do([], call, durable=False)

    # -- several at once -------------------------------------------------------------------------------

    def transaction(self, changes: Changes, *, undone: bool = False) -> bool:
        """These, one by one, as one change, or as none."""
        now, storage = self.machine.now, self.process.storage

        def call() -> None:
            with suppress(Undone), storage.transaction():
                for queue, operations in changes.items():
                    for operation in operations:
                        storage.commit({queue: [operation]})
                if undone:
                    raise Undone

        if undone:
            return self.do([], call, durable=False)
        return self.do([lambda model: model.after(changes, now)], call)

    # -- care ------------------------------------------------------------------------------------------

    def compact(self, queue: str) -> bool:
        # What it frees it has made durable, but it may free nothing.
        return self.do([], lambda: self.process.storage.compact(queue), durable=False)

    def retry(self, queue: str, row: Row) -> bool:
        """A dead letter is put back."""
        letters, now = DeadLetterQueue(queue, None, self.process.storage), self.machine.now
        return self.do(
            [lambda model: model.after({queue: [Requeue(row.id)]}, now)], lambda: letters.retry(row.id)
        )

    def remove(self, queue: str, row: Row) -> bool:
        """A dead letter is removed, and kept among the storage's acts."""
        letters, now = DeadLetterQueue(queue, None, self.process.storage), self.machine.now
        return self.do(
            [lambda model: model.after({queue: [Remove(row.id)]}, now)], lambda: letters.remove(row.id)
        )
