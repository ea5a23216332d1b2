"""What can be saved of a queue in which records were lost: their traces in the records that are left.

A lost lease shows when its entry is completed, a lost end when the entry's id is used again. What must have
happened is put in the place of a record that was lost; only if there is none, or an entry is spoken of that
nobody knows any more, the sound record is set aside as well. So what is left folds as any queue does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from duraq.entry import DEAD, LEASED, Entry
from duraq.journal.record import Record, Seal
from duraq.journal.survey import Found, Stretch, Survey
from duraq.model import AttemptError, Cause
from duraq.operations import (
    WITH_PAYLOAD,
    Bury,
    Complete,
    Enqueue,
    Expire,
    Extend,
    Fail,
    Keep,
    Lease,
    Operation,
    Release,
    Remove,
    Repair,
    Requeue,
    Restore,
)
from duraq.state import QueueState

_UNKNOWN = AttemptError("RecordLost", "the record that says why is damaged; see quarantine/")
# So many numbers of lost records, of each stretch the last, are kept for what must have happened.
_MOST_FREE = 1 << 16
_NO_ENTRY = "it speaks of an entry that is lost"
_NO_SENSE = "it contradicts what is left, and no lost record can explain it"


class Salvage:
    """Folds what a survey finds, and keeps what has to be done so that it folds without it."""

    def __init__(self, survey: Survey) -> None:
        self.state = QueueState(survey.lines.queue)
        self.stretches: list[Stretch] = []
        # Instead of lost records: their numbers, what must have happened, and when at the latest.
        self.instead: dict[int, tuple[Operation, int]] = {}
        self.aside: list[tuple[Found, str]] = []  # sound records of no use, and why
        self.records = self.bytes = 0  # that are sound
        self._free: dict[int, Stretch] = {}  # numbers of lost records that nothing speaks for yet
        self._touched: dict[str, int] = {}  # since the first of them: an entry's last record
        self._known_from = survey.known_from
        self._headless = survey.headless
        for each in survey.walk():
            if isinstance(each, Stretch):
                self._lose(each)
            else:
                self.records += 1
                self.bytes += each.where[2]
                self._fold(each)

    @property
    def sound(self) -> bool:
        """Whether every record is there and makes sense."""
        return not self.stretches and not self.aside

    @property
    def lost(self) -> list[str]:
        """Entries that were in the queue as far as is known, and that nothing is left of."""
        ended = {_id(each.record) for each, _ in self.aside if _ends(each.record.operation)}
        hints = [hint for stretch in self.stretches for hint in stretch.hints]
        known = {hint.id for hint in hints if hint.op in WITH_PAYLOAD and hint.id}
        known |= {_id(each.record) for each, why in self.aside if why == _NO_ENTRY}
        over = {hint.id for hint in hints if hint.op in {"complete", "expire", "remove"}}
        return sorted(each for each in known - ended - over if self.state.find(each) is None)

    @property
    def doubtful(self) -> list[str]:
        """Entries that are there, and of which a record is lost: they may be as they were some time ago."""
        hints = {hint.id for stretch in self.stretches for hint in stretch.hints}
        hints |= {_id(each.record) for each, why in self.aside if why == _NO_SENSE}
        return sorted(each for each in hints if each and self.state.find(each) is not None)

    def _lose(self, stretch: Stretch) -> None:
        self.stretches.append(stretch)
        # A seal is no operation.
        end = stretch.first + stretch.lost - (stretch.seal is not None)
        self._free |= dict.fromkeys(range(max(stretch.first, end - _MOST_FREE), end), stretch)

    def _fold(self, found: Found) -> None:
        operation, seq, at = found.record
        if isinstance(operation, Seal | Repair):
            return
        if found.where == self._known_from:
            self._known_from = None
        entry_id = getattr(operation, "id", None)
        if entry_id is not None and not self._is_ready_for(operation, entry_id, at):
            unknown = self.state.find(entry_id) is None
            # What comes before a drop speaks of entries that were dropped with their beginning.
            if self._known_from is None and not (unknown and self._headless):
                self.aside.append((found, _NO_ENTRY if unknown else _NO_SENSE))
            return
        self.state.apply(operation, seq, at, found.where)
        if self._free and entry_id is not None:
            self._touched[entry_id] = seq

    def _is_ready_for(self, operation: Operation, entry_id: str, at: int) -> bool:
        """Whether it can be applied, if need be after what must have come before it."""
        self.state.advance(at)
        entry = self.state.find(entry_id)
        steps = _steps(entry, operation, self.state.tokens)
        if not steps:
            return steps is not None
        touched = self._touched.get(entry_id, 0)
        free = [seq for seq in self._free if seq > touched]
        if len(steps) > len(free):
            return False
        # Those first in which something can be read of the entry; of the others the last.
        free.sort(key=lambda seq: (any(hint.id == entry_id for hint in self._free[seq].hints), seq))
        chosen = sorted(free[len(free) - len(steps) :])
        for seq, step in zip(chosen, steps, strict=True):
            self.instead[seq] = step, at
            del self._free[seq]
            self.state.apply(step, seq, at)
        return True


def _steps(entry: Entry | None, operation: Operation, tokens: int) -> Sequence[Operation] | None:
    """What must have happened to the entry before this can; None if nothing could make it possible."""
    if isinstance(operation, Keep) and not isinstance(operation, Restore):
        return ()
    if isinstance(operation, Enqueue | Restore):
        return () if entry is None else _to_its_end(entry)
    if entry is None:
        return None
    if isinstance(operation, Requeue | Remove):
        is_moved = isinstance(operation, Remove) and operation.to
        return _to_nobody(entry) if is_moved else _to_death(entry, tokens)
    if isinstance(operation, Extend | Complete | Fail | Bury | Release):
        return _to_lease(entry, operation.token)
    return _to_waiting(entry)


def _to_its_end(entry: Entry) -> list[Operation]:
    if entry.status is LEASED:
        return [Complete(entry.id, entry.token)]
    return [Remove(entry.id) if entry.status is DEAD else Expire(entry.id)]


def _to_nobody(entry: Entry) -> list[Operation]:
    return [Release(entry.id, entry.token)] if entry.status is LEASED else []


def _to_waiting(entry: Entry) -> list[Operation]:
    if entry.status is LEASED:
        return _to_nobody(entry)
    return [Requeue(entry.id, keep_attempts=True)] if entry.status is DEAD else []


def _to_lease(entry: Entry, token: int) -> list[Operation]:
    if entry.status is LEASED and entry.token == token:
        return []
    return [*_to_waiting(entry), _lease(entry, token)]


def _to_death(entry: Entry, tokens: int) -> list[Operation]:
    if entry.status is DEAD:
        return []
    leased = entry.status is LEASED
    token = entry.token if leased else tokens + 1
    death = Bury(entry.id, token, Cause.FAILED, _UNKNOWN)
    return [death] if leased else [_lease(entry, token), death]


def _lease(entry: Entry, token: int) -> Lease:
    # To no process, and over: whoever had it is not known.
    return Lease(entry.id, token, entry.attempts + 1, "", 0, "", 0)


def _ends(operation: Any) -> bool:
    return isinstance(operation, Complete | Expire | Remove)


def _id(found: Record) -> str:
    return str(getattr(found.operation, "id", ""))
