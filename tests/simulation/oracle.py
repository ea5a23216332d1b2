"""What may be in a storage, kept by the simplest means there are, and by none of the code under test.

A model is a few dicts. Who does something says first which models it leads through, one for each commit,
and the oracle keeps them all: what may be true now, since somebody may have died in the middle of a call, and
what a power cut may go back to, since nobody has synced it yet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple
from zlib import crc32

from duraq.operations import (
    Bury,
    Complete,
    Enqueue,
    Extend,
    Fail,
    Operation,
    PauseQueue,
    Release,
    Remove,
    Requeue,
    ResumeQueue,
)

ATTEMPTS = 3  # the last one is followed by the dead letters


class Row(NamedTuple):
    """What is compared of an entry; of its payload a checksum. Nothing of a lease that it is not under."""

    id: str
    payload: int
    priority: int
    expires_at: int | None
    status: str
    attempts: int = 0
    token: int = 0
    worker: str = ""
    deadline: int = 0
    due: int = 0  # of one that is scheduled
    causes: tuple[str, ...] = ()


class Entry(NamedTuple):
    """A row, "waiting" while it is neither leased nor dead, and from when on it is ready."""

    row: Row
    ready_at: int

    def is_over(self, now: int) -> bool:
        expires_at = self.row.expires_at
        return self.row.status == "waiting" and expires_at is not None and expires_at <= now

    def shown(self, now: int) -> Row:
        if self.row.status != "waiting":
            return self.row
        if self.ready_at > now:
            return self.row._replace(status="scheduled", due=self.ready_at)
        return self.row._replace(status="ready")

    def ended(self, status: str, cause: str, ready_at: int, *, counted: bool = True) -> Entry:
        """Not leased any more."""
        row = self.row
        attempts = row.attempts if counted else row.attempts - 1
        row = row._replace(status=status, attempts=attempts, token=0, worker="", deadline=0)
        return Entry(row._replace(causes=(*row.causes, cause)), ready_at)


class Line(NamedTuple):
    """A queue: its entries in the order they were enqueued in, the last token given, why it is paused."""

    entries: Mapping[str, Entry] = {}
    tokens: int = 0
    pause: str | None = None

    def having(self, status: str, now: int) -> list[Row]:
        rows = (entry.shown(now) for entry in self.entries.values() if not entry.is_over(now))
        return [row for row in rows if row.status == status]

    def ready(self, now: int) -> list[Row]:
        """In the order of delivery."""
        return sorted(self.having("ready", now), key=lambda row: -row.priority)


# How a queue looks from outside: its rows, the last token given, why it is paused.
Look = tuple[str, tuple[Row, ...], int, str | None]
State = tuple[Look, ...]


class Model:
    """All queues; never changed, only followed by another one."""

    def __init__(self, lines: Mapping[str, Line] | None = None) -> None:
        self.lines = lines or {}
        self._told: tuple[int, State] = (-1, ())

    def line(self, queue: str) -> Line:
        return self.lines.get(queue, Line())

    def told(self, now: int) -> State:
        """As whoever opens the storage at this time must see it."""
        if self._told[0] != now:
            looks = (
                (
                    queue,
                    tuple(entry.shown(now) for entry in line.entries.values() if not entry.is_over(now)),
                    line.tokens,
                    line.pause,
                )
                for queue, line in sorted(self.lines.items())
            )
            self._told = now, tuple(look for look in looks if look[1:] != ((), 0, None))
        return self._told[1]

    def _with(self, queue: str, line: Line) -> Model:
        return Model({**self.lines, queue: line})

    def after(self, changes: Mapping[str, Sequence[Operation]], now: int) -> Model:
        """With these operations, all at once."""
        model = self
        for queue, operations in changes.items():
            line = model.line(queue)
            entries = dict(line.entries)
            pause = line.pause
            for operation in operations:
                match operation:
                    case PauseQueue():
                        pause = operation.reason
                    case ResumeQueue():
                        pause = None
                    case Complete() | Remove():
                        del entries[operation.id]
                    case Enqueue():
                        entries[operation.id] = _new(operation, now)
                    case _:
                        entries[operation.id] = _changed(entries[operation.id], operation, now)
            model = model._with(queue, Line(entries, line.tokens, pause))
        return model

    def claimed(self, queue: str, limit: int, worker: str, now: int, deadline: int) -> Model:
        """With the next entries leased."""
        line = self.line(queue)
        entries, tokens = dict(line.entries), line.tokens
        for row in [] if line.pause is not None else line.ready(now)[:limit]:
            tokens += 1
            leased = row._replace(
                status="leased", attempts=row.attempts + 1, token=tokens, worker=worker, deadline=deadline
            )
            entries[row.id] = Entry(leased, 0)
        return self._with(queue, Line(entries, tokens, line.pause))

    def settled(self, queue: str, living: Collection[str], now: int) -> Model:
        """With the leases of the dead and of the late ended; itself if there are none."""
        line = self.line(queue)
        over = {
            row: bool(row.worker) and row.worker not in living
            for row in line.having("leased", now)
            if row.deadline <= now or (row.worker and row.worker not in living)
        }
        if not over:
            return self
        entries = dict(line.entries)
        for row, dead in over.items():
            cause = "worker_died" if dead else "timed_out"
            status = "dead" if row.attempts >= ATTEMPTS else "waiting"
            entries[row.id] = entries[row.id].ended(status, cause, now)
        return self._with(queue, line._replace(entries=entries))


def _new(operation: Enqueue, now: int) -> Entry:
    payload = crc32(operation.payload)
    row = Row(operation.id, payload, operation.priority, operation.expires_at, "waiting")
    return Entry(row, operation.ready_at or now)


def _changed(entry: Entry, operation: Operation, now: int) -> Entry:
    match operation:
        case Extend():
            return entry._replace(row=entry.row._replace(deadline=operation.deadline_at))
        case Fail():
            return entry.ended("waiting", "failed", operation.ready_at)
        case Bury():
            return entry.ended("dead", "failed", now)
        case Release():
            return entry.ended("waiting", "released", operation.ready_at or now, counted=False)
        case Requeue():
            return Entry(entry.row._replace(status="waiting", attempts=0, expires_at=None), now)
    raise AssertionError(operation)


Change = Callable[[Model], Model]


class Oracle:
    """What may be true: ``now`` of those who live, and ``older`` what a power cut may still go back to."""

    def __init__(self, model: Model | None = None) -> None:
        self.now = [model or Model()]
        self.older: list[Model] = []
        self.was_cut = False  # the power has gone, and nobody has looked since
        # What somebody has died of doing, and others have not seen: it lies behind the journal's end, until
        # something is written there, or until somebody opens the storage alone and takes it for done.
        self.behind_the_end: list[Model] = []
        self._stages: list[list[Model]] = [self.now]

    @property
    def model(self) -> Model:
        """What is true, where that is known."""
        (model,) = self.now
        return model

    def begin(self, changes: Iterable[Change]) -> None:
        """A call begins that makes these changes, each of them wholly or not at all, one after the other."""
        self._stages = [self.now]
        for change in changes:
            self._stages.append([change(model) for model in self._stages[-1]])
            self.behind_the_end = []

    def done(self, *, durable: bool) -> None:
        """It has returned."""
        self.older = [] if durable else [*self.older, *chain(*self._stages[:-1])]
        self.now = self._stages[-1]
        self._stages = [self.now]

    def broken_off(self) -> None:
        """Whoever made it has died, or was told that nobody knows."""
        self.now = self.possible()
        self._stages = [self.now]

    def refused(self) -> None:
        """It has changed nothing, its caller was told."""
        self._stages = [self.now]

    def durable_since(self, holds: Callable[[Model], bool]) -> None:
        """Whatever a power cut leaves, this holds in it."""
        self.older = [model for model in self.older if holds(model)]

    def alone(self) -> None:
        """Nobody has the storage open any more, and somebody begins to open it."""
        self.now = [*self.behind_the_end, *self.now]
        self._stages = [self.now]

    def cut(self) -> None:
        """The power has gone."""
        self.now, self.older, self.was_cut = self.allowed(), [], True
        self._stages = [self.now]

    def seen(self, state: State, now: int) -> bool:
        """Somebody who lives has looked; whether it is one of those that it may be."""
        # Of those that look like this, the newest.
        found = [model for model in self.now if model.told(now) == state][-1:]
        if not self.was_cut:
            # What had not come so far that it is seen, or was not synced, a power cut may yet decide.
            self.behind_the_end = [model for model in self.now if model not in found]
            self.older += self.behind_the_end
        self.now, self.was_cut = found, False
        self._stages = [self.now]
        return bool(found)

    def possible(self) -> list[Model]:
        """What may be true at this moment, of those who live."""
        return list(chain(*self._stages))

    def allowed(self) -> list[Model]:
        """What a power cut at this moment may leave."""
        return [*self.older, *self.possible()]


def difference(found: State, wanted: State) -> str:
    """What of one state is not in the other."""
    lines = []
    have, want = ({look[0]: look for look in state} for state in (found, wanted))
    for queue in sorted({*have, *want}):
        there, due = have.get(queue, (queue, (), 0, None)), want.get(queue, (queue, (), 0, None))
        if there != due:
            lines.append(f"queue {queue}: {len(there[1])} entries, wanted {len(due[1])}")
            lines += [f"  there:  {row}" for row in there[1] if row not in due[1]][:5]
            lines += [f"  wanted: {row}" for row in due[1] if row not in there[1]][:5]
            lines += [f"  there:  {there[2:]}, wanted: {due[2:]}"]
    return "\n".join(lines) or "no difference"
