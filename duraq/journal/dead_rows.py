"""What the index of a sealed segment says of its dead letters, all of them at once.

Neither an entry is made nor a payload read: of a million letters that would take a minute and gigabytes. Only
these few fields are decoded, the rest of each letter's history is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from duraq.journal.index import BadIndex, Index, is_changed
from duraq.signature import signature


class _Error(msgspec.Struct, gc=False):
    type: str
    signature: str = ""


class _Attempt(msgspec.Struct, gc=False):
    cause: str
    error: _Error


class _Lived(msgspec.Struct, gc=False):
    updated_at: datetime
    attempts: int
    history: list[_Attempt] = []


class _State(msgspec.Struct, gc=False):
    entry: _Lived


class _FullError(msgspec.Struct):
    type: str
    message: str = ""
    frame: str = ""


class _FullAttempt(msgspec.Struct):
    cause: str
    error: _FullError


class _FullLived(msgspec.Struct):
    history: list[_FullAttempt] = []


class _FullState(msgspec.Struct):
    entry: _FullLived


_states = msgspec.json.Decoder(_State)
_full_state = msgspec.json.Decoder(_FullState)


class DeadRow(NamedTuple):
    """A dead letter: its row in the index, its number in its queue, when it died, and of what.

    ``signature`` and ``type`` are those of the last attempt that was not given back; both may be empty.
    """

    row: int
    order: int
    died: datetime
    attempts: int
    signature: str
    type: str


def dead_rows(index: Index) -> list[DeadRow]:
    """All dead letters of the index, whether they were taken out since or not, in enqueue order."""
    # One that never lived could be no dead letter; whoever forged it is not shown it.
    rows = [(row, order, state) for row, order, state in index.dead() if is_changed(state)]
    if not rows:
        return []
    lines = index.states(rows[0][2])
    try:
        states = _states.decode_lines(lines)
        if len(states) != len(rows):
            raise BadIndex("it has another number of states than of rows")
        return [
            DeadRow(row, order, state.entry.updated_at, state.entry.attempts, *_cause(state, lines, number))
            for number, ((row, order, _), state) in enumerate(zip(rows, states, strict=True))
        ]
    except (msgspec.DecodeError, ValueError) as error:
        raise BadIndex(str(error)) from error


def _cause(state: _State, lines: bytes, number: int) -> tuple[str, str]:
    for attempt in reversed(state.entry.history):
        if attempt.cause != "released":
            error = attempt.error
            return error.signature or _computed(lines, number), error.type
    return "", ""


def _computed(lines: bytes, number: int) -> str:
    """The signature of an error that was written by a version that had none, or by hand."""
    line = lines.split(b"\n", number + 1)[number]
    attempts: Sequence[_FullAttempt] = _full_state.decode(line).entry.history
    error = next(each.error for each in reversed(attempts) if each.cause != "released")
    return signature(error.type, error.message, error.frame.rpartition(" in ")[2])
