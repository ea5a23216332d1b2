"""The changes a queue can undergo. Everything durable is one of these, and a queue's state is their fold.

Times are microseconds (wall clock since 1970; ``deadline`` since boot). An operation names what is to be
true, not how it is stored: ``duraq.journal.record`` turns it into a line, ``duraq.state`` folds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from duraq.entry import Entry
from duraq.ledger import Ledger
from duraq.model import AttemptError, Cause, Pause


@dataclass(slots=True)
class Enqueue:
    """A new entry: ready at once, or scheduled if ``ready_at`` is given.

    ``fresh``: the id was made for it just now, so that no other entry can have it. Not recorded.
    ``key`` and ``headers`` are its user's, and go with it wherever it goes.
    """

    op: ClassVar[str] = "enqueue"
    id: str
    payload: bytes
    priority: int = 0
    ready_at: int | None = None
    expires_at: int | None = None
    fresh: bool = False
    key: str | None = None
    headers: dict[str, str] | None = None


@dataclass(slots=True)
class Lease:
    """An entry is handed to a worker; ``attempt`` is counted from here on.

    ``token`` rises with every delivery, counted or not, so an old holder is always told apart.
    ``deadline`` is in microseconds since the boot named by ``boot``; ``deadline_at`` is the same in wall
    time, for people. An empty ``worker`` is a lease without a process: only its deadline ends it.
    """

    op: ClassVar[str] = "lease"
    id: str
    token: int
    attempt: int
    worker: str
    deadline: int
    boot: str
    deadline_at: int


@dataclass(slots=True)
class Extend:
    """The lease ``token`` now ends later (or earlier)."""

    op: ClassVar[str] = "extend"
    id: str
    token: int
    deadline: int
    boot: str
    deadline_at: int


@dataclass(slots=True)
class Complete:
    """The holder of ``token`` is done; the entry is over."""

    op: ClassVar[str] = "complete"
    id: str
    token: int


@dataclass(slots=True)
class Fail:
    """The attempt under ``token`` failed; the entry may be leased again from ``ready_at`` on."""

    op: ClassVar[str] = "fail"
    id: str
    token: int
    cause: Cause
    error: AttemptError
    ready_at: int


@dataclass(slots=True)
class Bury:
    """The attempt under ``token`` failed and was the last: the entry becomes a dead letter."""

    op: ClassVar[str] = "dead"
    id: str
    token: int
    cause: Cause
    error: AttemptError


@dataclass(slots=True)
class Release:
    """The lease ``token`` is given back; its attempt does not count.

    ``who``: somebody else than its holder has ended it, for that ``reason``.
    """

    op: ClassVar[str] = "release"
    id: str
    token: int
    ready_at: int | None = None
    who: str = ""
    reason: str = ""


@dataclass(slots=True)
class Expire:
    """The entry's TTL passed before anyone completed it; it is over."""

    op: ClassVar[str] = "expire"
    id: str


@dataclass(slots=True)
class Requeue:
    """A dead letter goes back to its queue, its history kept; ``keep_attempts`` keeps the count too.

    ``act``: of which act on many dead letters that is a part. ``token``: only if it is still the one that
    died under that token. Not recorded.
    """

    op: ClassVar[str] = "requeue"
    id: str
    keep_attempts: bool = False
    act: str = ""
    token: int = 0


@dataclass(slots=True)
class Remove:
    """A dead letter is removed.

    ``token``: only if it is still the one that died under that token. Not recorded.
    ``to``: an entry that nobody holds, dead or not, lies in that other storage from now on; then only if it
    is still of that ``version`` (see ``Entry``). That is not recorded.
    """

    op: ClassVar[str] = "remove"
    id: str
    token: int = 0
    to: str = ""
    version: tuple[int, int, int] = (0, 0, 0)


@dataclass(slots=True)
class PauseQueue:
    """Nothing is leased from the queue until it is resumed."""

    op: ClassVar[str] = "pause"
    who: str
    reason: str


@dataclass(slots=True)
class ResumeQueue:
    """The queue may be leased from again."""

    op: ClassVar[str] = "resume"
    who: str


@dataclass(slots=True)
class Keep:
    """The entry, as it is, written once more, so that what was written of it before is not needed.

    ``entry`` is read from the record, or the one of the fold that is written. Nothing about it changes; or
    something has ``changed`` in the same group, so that it is as of the moment of writing. Not recorded.
    """

    op: ClassVar[str] = "keep"
    id: str
    payload: bytes
    entry: Entry
    changed: bool = False


@dataclass(slots=True)
class Restore(Keep):
    """A dead letter that was removed is back, as it was.

    Or, if it has ``changed`` on the way, an entry of another queue: it takes the last place in this one. One
    that comes from another storage, which is its ``source``, takes the last place too, and is else as it was.
    """

    op: ClassVar[str] = "restore"
    source: str = ""


@dataclass(slots=True)
class Drop:
    """Nothing that is written before the record ``first`` is needed: it may be gone.

    ``bytes`` is how much that was since the last drop. ``tokens``, ``pause`` and ``ledger`` are the queue's,
    for what set them may be gone as well. ``ledger`` is read from the record, or the one of the fold.
    """

    op: ClassVar[str] = "drop"
    first: int
    bytes: int
    tokens: int
    pause: Pause | None
    ledger: Ledger | None = None


@dataclass(slots=True)
class Adopt:
    """The queue is from now on what one of another storage was, but for its entries.

    Its pause is this one, or none; no token is given again that was given there; and what has happened there
    has happened here, if ``ledger`` is given. ``instead_of``: only if its pause, until now, is one of these;
    if none are given, whatever it is. Not recorded.
    """

    op: ClassVar[str] = "adopt"
    tokens: int
    pause: Pause | None
    ledger: Ledger | None = None
    instead_of: tuple[Pause | None, ...] = ()


@dataclass(slots=True)
class Repair:
    """Stands where a record was that was damaged; what was left of it is in ``quarantine/``, in that file."""

    op: ClassVar[str] = "repair"
    aside: str


# These are about a queue as a whole.
WithoutEntry = PauseQueue | ResumeQueue | Drop | Adopt | Repair

Operation = (
    Enqueue
    | Lease
    | Extend
    | Complete
    | Fail
    | Bury
    | Release
    | Expire
    | Requeue
    | Remove
    | PauseQueue
    | ResumeQueue
    | Keep
    | Restore
    | Drop
    | Adopt
    | Repair
)

# As records call them, those that have a payload.
WITH_PAYLOAD = frozenset({"enqueue", "keep", "restore"})
