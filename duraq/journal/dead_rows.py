"""What the index of a sealed segment says of its dead letters, all of them at once.

Neither an entry is made nor a payload read: of a million letters that would take a minute and gigabytes. Only
these few fields are decoded, the rest of each letter's history is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from duraq.journal.index import BadIndex, Index, is_changed
from duraq.signature import signature
from duraq.times import microseconds


class _Error(msgspec.Struct, gc=False):
    type: str
    signature: str = ""


class _Attempt(msgspec.Struct, gc=False):
    cause: str
    error: _Error


class _Lived(msgspec.Struct, gc=False):
    updated_at: str
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


class DeadRows(NamedTuple):
    """The dead letters of an index, whether they were taken out since or not, in enqueue order.

    Side by side: their rows, their numbers in their queue, when they died (microseconds since 1970), how
    often they were tried, and the signatures and types of the last attempts that were not given back; both
    may be empty.
    """

    rows: list[int]
    orders: list[int]
    died: list[int]
    attempts: list[int]
    causes: list[tuple[str, str]]


def dead_rows(index: Index) -> DeadRows:
    """All that the index has."""
    # One that never lived could be no dead letter; whoever forged it is not shown it.
    found = [each for each in index.dead() if is_changed(each[2])]
    if not found:
        return DeadRows([], [], [], [], [])
    lines = index.states(found[0][2])
    try:
        states = [each.entry for each in _states.decode_lines(lines)]
        if len(states) != len(found):
            raise BadIndex("it has another number of states than of rows")
        return DeadRows(
            [row for row, _, _ in found],
            [order for _, order, _ in found],
            [microseconds(state.updated_at) for state in states],
            [state.attempts for state in states],
            [_cause(state.history, lines, number) for number, state in enumerate(states)],
        )
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise BadIndex(str(error)) from error


def _cause(history: list[_Attempt], lines: bytes, number: int) -> tuple[str, str]:
    for attempt in reversed(history):
        if attempt.cause != "released":
            error = attempt.error
            return error.signature or _computed(lines, number), error.type
    return "", ""


def _computed(lines: bytes, number: int) -> str:
    """The signature of an error that was written by a version that had none, or by hand."""
    line = lines.split(b"\n", number + 1)[number]
    attempts: Sequence[_FullAttempt] = _full_state.decode(line).entry.history
    error = next(each.error for each in reversed(attempts) if each.cause != "released")
    return signature(error.type, error.message, error.frame)
