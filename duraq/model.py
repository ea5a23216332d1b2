"""What a user of DuraQ holds in hand: an entry, its attempts, a queue's counts."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from duraq.clock import to_datetime
from duraq.errors import InvalidQueueName

T = TypeVar("T")

QUEUE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
# Directories that a storage keeps beside its queues.
MARKER = "duraq.json"  # what a storage's directory is known by
RESERVED_NAMES = frozenset({"journal", "leases", MARKER, f"{MARKER}.tmp"})

# The id of a worker: its process, and what tells it from every other one that had the same number.
WORKER = re.compile(r"[1-9][0-9]{0,9}-[0-9a-f]{8}")

# From here on are the numbers of entries that a transaction has made and not committed.
PROVISIONAL = 1 << 62
# Of an entry that is tried very often so many attempts are kept: how it began, and how it went last.
FIRST_KEPT, LAST_KEPT = 10, 90

# Queues of the storage's own, beside its users': what was done to many entries, the keys of entries, and what
# was moved to or from another storage.
ACTS, KEYS, MIGRATIONS = "_acts", "_keys", "_migrations"
OWN_QUEUES = frozenset({ACTS, KEYS, MIGRATIONS})


def is_queue_name(name: str) -> bool:
    """Whether a queue can have that name, be it a user's or the storage's own."""
    return name in OWN_QUEUES or (is_users(name) and name not in RESERVED_NAMES)


def is_users(name: str) -> bool:
    """Whether the queue of that name is its users', not the storage's own."""
    return QUEUE_NAME.match(name) is not None


def check_queue_name(name: str) -> str:
    """The name itself, if it is safe in paths, shells and metric labels; else InvalidQueueName."""
    if not isinstance(name, str) or not QUEUE_NAME.match(name):
        raise InvalidQueueName(
            f"queue name {name!r:.200} is outside [a-z0-9][a-z0-9._-]{{0,63}}: lower-case letters, digits,"
            " '.', '_', '-', at most 64, beginning with a letter or digit"
        )
    if name in RESERVED_NAMES:
        raise InvalidQueueName(f"queue name {name!r} is reserved for the storage itself")
    return name


class EntryStatus(StrEnum):
    """Where an entry is in its life: scheduled, ready, leased, then completed, dead or expired."""

    SCHEDULED = "scheduled"
    READY = "ready"
    LEASED = "leased"
    COMPLETED = "completed"
    DEAD = "dead"
    EXPIRED = "expired"


class Cause(StrEnum):
    """Why an attempt ended without completing. ``released`` is not counted as an attempt."""

    FAILED = "failed"
    TIMED_OUT = "timed_out"
    WORKER_DIED = "worker_died"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class AttemptError:
    """What went wrong in an attempt, as text: never an object of the failing program.

    ``frame``: where in the application it was raised, as ``file:line in function``. ``signature``: the same
    for all errors that differ in numbers, ids and the like only. ``host``: where it was caught.
    """

    type: str
    message: str
    traceback: str = ""
    frame: str = ""
    signature: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One ended attempt that did not complete the entry."""

    number: int
    cause: Cause
    error: AttemptError
    worker: str
    started_at: datetime
    ended_at: datetime

    @property
    def pid(self) -> int | None:
        """The process of the worker, as it said when it began; None if there was none."""
        return pid_of(self.worker)


def last_failure(history: Sequence[Attempt]) -> Attempt | None:
    """The newest attempt that was not just given back."""
    return next((each for each in reversed(history) if each.cause is not Cause.RELEASED), None)


def with_attempt(history: tuple[Attempt, ...], attempt: Attempt) -> tuple[Attempt, ...]:
    """The history with one more attempt: of very many, some of those in between are left out.

    Else an entry that is tried for ever would come to outgrow what can be written at once. What was only
    given back is left out first: it is no failure, and must not hide one.
    """
    if len(history) < FIRST_KEPT + LAST_KEPT:
        return (*history, attempt)
    later = list(history[FIRST_KEPT:])
    while len(later) >= LAST_KEPT:
        del later[next((at for at, each in enumerate(later) if each.cause is Cause.RELEASED), 0)]
    return (*history[:FIRST_KEPT], *later, attempt)


def pid_of(worker: str) -> int | None:
    """The process in a worker's name, such as 4711-9f3c02ab."""
    number = worker.partition("-")[0]
    return int(number) if number.isdecimal() and len(number) <= 10 else None


# The times of an entry, and what a storage calls them.
_TIMES = {
    "created_at": "created_at",
    "updated_at": "updated_at",
    "scheduled_for": "ready_at",
    "expires_at": "expires_at",
    "lease_deadline": "deadline_at",
}


class _LazyTimes:
    """Times that are made when somebody asks for them, which handlers seldom do."""

    # What the storage handed out, its times in microseconds.
    __slots__ = ("_stored",)

    _stored: Any

    if not TYPE_CHECKING:  # a type checker shall know the fields of an entry and no others

        def __getattr__(self, name: str) -> datetime | None:
            # Only asked for what is not set.
            if name not in _TIMES:
                raise AttributeError(
                    f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
                )
            at = getattr(self._stored, _TIMES[name])
            moment = None if at is None else to_datetime(at)
            setattr(self, name, moment)
            return moment


@dataclass(slots=True)
class QueueEntry(_LazyTimes, Generic[T]):
    """One entry of a queue, as it was when it was read.

    ``attempts`` counts deliveries, the current one included, so it is 1 on the first. ``token`` names the
    lease this entry was read under (0 if none); completing with an older token raises LeaseLost. An entry
    that is only looked at may have a payload that no longer decodes: ``decode_error`` then says why, and
    ``data`` is its JSON value. ``errors``: every attempt that has ended, or was given
    back; of more than a hundred the first ten and the last ninety, and what was given back is left out first.
    ``redriven``: how often it was put back from the dead letters.
    """

    id: str
    data: T
    queue: str
    status: EntryStatus
    priority: int
    created_at: datetime
    updated_at: datetime
    scheduled_for: datetime | None = None
    expires_at: datetime | None = None
    attempts: int = 0
    max_attempts: int | None = None
    errors: tuple[Attempt, ...] = ()
    token: int = 0
    worker: str | None = None
    lease_deadline: datetime | None = None
    decode_error: str | None = None
    key: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    redriven: int = 0
    lost: threading.Event | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, stored: Any, data: T, queue: str, max_attempts: int | None) -> QueueEntry[T]:
        """What a storage handed out (a StoredEntry), as its user sees it."""
        # Not through the constructor, which would want the times.
        self = cls.__new__(cls)
        self._stored = stored
        self.id = stored.id
        self.data = data
        self.queue = queue
        self.status = stored.status
        self.priority = stored.priority
        self.attempts = stored.attempts
        self.max_attempts = max_attempts
        self.errors = stored.history
        self.token = stored.token
        self.worker = stored.worker
        self.key = stored.key
        # A copy: handlers add to it what they pass on.
        self.headers = {} if stored.headers is None else {**stored.headers}
        self.redriven = stored.redriven
        self.decode_error = self.lost = None
        return self

    @property
    def is_last_attempt(self) -> bool:
        """Whether failing now would send the entry to the dead-letter queue."""
        return self.max_attempts is not None and self.attempts >= self.max_attempts

    @property
    def error_message(self) -> str | None:
        """The newest error's message, if any attempt failed; to be given back is no failure."""
        last = last_failure(self.errors)
        return None if last is None else last.error.message

    @property
    def lease_lost(self) -> bool:
        """Whether a worker has learned that this entry's lease is gone; its outcome will not count."""
        return self.lost is not None and self.lost.is_set()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many entries a queue holds, by state."""

    scheduled: int = 0
    ready: int = 0
    leased: int = 0
    dead: int = 0

    @property
    def length(self) -> int:
        """Entries that are still to be worked: scheduled, ready and leased."""
        return self.scheduled + self.ready + self.leased


@dataclass(frozen=True, slots=True)
class Pause:
    """Who paused a queue, when and why."""

    at: datetime
    who: str
    reason: str
