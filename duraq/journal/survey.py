"""What of a queue's segments is as it was written, and what is not.

A record is a whole line with the right checksum and the number that is due. Everything else is a stretch:
bytes that are something else, or nothing where records were. A stretch never takes in a record that is sound:
after a line that is broken, be it by a newline more or less, the next one is looked for.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from duraq.errors import UnsupportedVersion
from duraq.journal import record
from duraq.journal.lines import Lines
from duraq.journal.record import BadRecord, Record, Seal, UnknownRecord
from duraq.journal.segment import DROP, Where, path_of
from duraq.operations import Drop

_BEGIN = b'{"op":"'
# What a broken line may still tell of its record.
_HINT = re.compile(rb'"op":"([a-z]+)"(?:[^{}]*?"id":"([A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127})")?')
_MISSING = "the segment is missing"


class Hint(NamedTuple):
    """What a damaged line seems to have been: an operation, and the entry it was about, if one can tell."""

    op: str
    id: str


class Found(NamedTuple):
    """A sound record, where it lies, and in which line."""

    record: Record
    where: Where
    line: int


class Stretch(NamedTuple):
    """Where a segment is not as it was written: the bytes from ``start`` to ``end``.

    In them there were records, ``first`` and following, ``lost`` of them; the last of these was the seal, if
    ``seal`` says which segment follows. A segment that is missing has no bytes and no line.
    """

    segment: int
    line: int | None
    start: int
    end: int
    first: int
    lost: int
    why: str
    seal: int | None = None
    hints: tuple[Hint, ...] = ()


class Piece(NamedTuple):
    """A line, or what passes for one; with its record if it has one."""

    start: int
    end: int
    line: int
    record: Record | None
    why: str


class Survey:
    """A queue's segments, gone through from the first that is needed."""

    def __init__(self, lines: Lines, *, begun: bool) -> None:
        """``begun``: it is known from elsewhere that the queue has had a record."""
        self.lines = lines
        self._begun = begun
        self.numbers = lines.segments()
        drop = self._newest_drop()
        # Where reading begins; and up to which record unknown entries may be spoken of.
        self.first = self.numbers[0] if self.numbers else 1
        self.known_from: Where | None = None
        if drop is not None:
            assert isinstance(drop.record.operation, Drop)
            self.first, self.known_from = drop.record.operation.first, drop.where
        # Segments were dropped, and the record that says so is not there any more.
        self.headless = drop is None and self.first > 1

    def walk(self) -> Iterator[Found | Stretch]:
        """Everything there is, in order. Raises UnsupportedVersion at a newer version's record."""
        due, last = self.first, len(self.needed) - 1
        for place, number in enumerate(self.needed):
            if number > due:
                yield Stretch(due, None, 0, 0, due, number - due, _MISSING, number)
                due = number
            following = None if place == last else self.needed[place + 1]
            sealed = False
            for each in self.segment(number, following):
                yield each
                if isinstance(each, Found) and isinstance(each.record.operation, Seal):
                    due, sealed = each.record.operation.next, True
            if not sealed and following is not None:
                due = following
        # Without any segment: whoever made the queue may have died before it had one.
        if due > (self.needed[-1] if self.needed else 0) and (self.numbers or self._begun):
            yield Stretch(due, None, 0, 0, due, 0, _MISSING)

    @cached_property
    def needed(self) -> list[int]:
        """The segments to be read that are there.

        Not an empty one that was made for a write that was refused, or by somebody who died before it: then
        the segment before it goes on, or ends without a seal.
        """
        found: list[int] = []
        empty: list[int] = []
        for number in (number for number in self.numbers if number >= self.first):
            if found and not self.lines.length(number):
                empty.append(number)
                continue
            found += self._emptied(found[-1:], empty)
            found.append(number)
            empty = []
        if empty and self._is_sealed(found[-1]):
            found += self._emptied(found[-1:], empty)
        return found

    def _emptied(self, before: list[int], empty: list[int]) -> list[int]:
        """Which of these empty segments had something in them: none whose records are in the one before."""
        if not empty:
            return []
        pieces = _pieces(self.lines.content(before[0]), path_of(self.lines.queue, before[0]))
        last = max((piece.record.seq for piece in pieces if piece.record is not None), default=0)
        return [number for number in empty if number > last]

    def _is_sealed(self, number: int) -> bool:
        data = self.lines.content(number)
        return b'{"op":"seal",' in data[data.rfind(b"\n", 0, -1) + 1 :]

    def segment(self, number: int, following: int | None) -> Iterator[Found | Stretch]:
        """One segment: its records, and what is between them. ``following``: the next segment's number."""
        data = self.lines.content(number)
        pieces = list(_pieces(data, path_of(self.lines.queue, number)))
        chosen = _chain(pieces, number, following)
        due, between = number, list[Piece]()
        at = line = 0
        sealed = False
        for piece in pieces:
            if piece.start not in chosen:
                between.append(piece)
                continue
            assert piece.record is not None
            seq = piece.record.seq
            if between or seq > due:
                place = number, line + 1, at, piece.start
                yield Stretch(*place, due, seq - due, _why(between, due), hints=_hints(between, data))
                between = []
            yield Found(piece.record, (number, piece.start, piece.end - piece.start), piece.line)
            due, at, line = seq + 1, piece.end, piece.line
            if isinstance(piece.record.operation, Seal):
                sealed, following = True, None
                # What is behind a seal is nobody's.
                between = pieces[pieces.index(piece) + 1 :]
                break
        lost = 0 if following is None else following - due
        if following is None and between and not sealed:
            # Something was written there, though nobody can tell how much.
            lost = max(1, sum(_was_record(data, piece) for piece in between))
        if between or lost:
            place = number, line + 1, at, len(data)
            yield Stretch(*place, due, lost, _why(between, due), following, _hints(between, data))

    def _newest_drop(self) -> Found | None:
        for number in reversed(self.numbers):
            data = self.lines.content(number)
            at = len(data)
            while at > 0:
                at = data.rfind(DROP, 0, at)
                if at < 0:
                    break
                line = data[at : data.find(b"\n", at) + 1]
                try:
                    found = record.decode(line)
                except BadRecord:
                    continue
                # Not one that was pasted in here from somewhere else.
                if isinstance(found.operation, Drop) and found.operation.first <= number <= found.seq:
                    return Found(found, (number, at, len(line)), data.count(b"\n", 0, at) + 1)
        return None


def _pieces(data: bytes, path: str) -> Iterator[Piece]:
    at, number = 0, 1
    while at < len(data):
        end = data.find(b"\n", at) + 1 or len(data)
        found, why = _record(data[at:end], path, at)
        if found is None:
            # A record may stand behind what was the end of the line before.
            begin = data.find(_BEGIN, at + 1, end)
            while begin > 0:
                found, _ = _record(data[begin:end], path, begin)
                if found is not None:
                    yield Piece(at, begin, number, None, why)
                    at = begin
                    break
                begin = data.find(_BEGIN, begin + 1, end)
        yield Piece(at, end, number, found, why)
        at, number = end, number + 1


def _record(line: bytes, path: str, byte: int) -> tuple[Record | None, str]:
    try:
        found = record.decode(line)
        if isinstance(found.operation, Seal) and found.operation.next != found.seq + 1:
            return None, f"the seal names {found.operation.next}, not {found.seq + 1}"
        return found, ""
    except UnknownRecord as error:
        raise UnsupportedVersion(str(error), path=path, byte=byte, hint="upgrade duraq") from None
    except BadRecord as error:
        return None, str(error)


def _chain(pieces: Sequence[Piece], first: int, following: int | None) -> set[int]:
    """Where the records begin that are this segment's: the longest row of them with rising numbers.

    No row goes on behind a seal: one that came here from another queue must not cut off what follows it.
    """
    sound = [piece for piece in pieces if piece.record is not None]
    seqs = [piece.record.seq for piece in sound if piece.record is not None]
    if seqs[:1] == [first] and all(after == before + 1 for before, after in pairwise(seqs)):
        return {piece.start for piece in sound}
    # Patience sorting. A line that was repeated, moved here or pasted in is left out, for it costs least.
    ends: list[int] = []
    tops: list[int] = []
    before: list[int] = []
    sealed, seal = 0, -1  # how long the longest row is that ends with a seal, and where that is
    for place, seq in enumerate(seqs):
        if not first <= seq < (following or seq + 1):
            before.append(-1)
            continue
        pile = bisect_left(ends, seq)
        if _is_seal(sound[place]):
            before.append(tops[pile - 1] if pile else -1)
            if pile + 1 > sealed:
                sealed, seal = pile + 1, place
            continue
        if ends[pile : pile + 1] == [seq]:
            before.append(-1)  # of two that are alike, the first
            continue
        before.append(tops[pile - 1] if pile else -1)
        ends[pile:], tops[pile:] = [seq, *ends[pile + 1 :]], [place, *tops[pile + 1 :]]
    chosen = []
    place = seal if sealed >= len(tops) else tops[-1]
    while place >= 0:
        chosen.append(sound[place])
        place = before[place]
    chosen.reverse()
    if chosen and (
        _is_strange(chosen, first, len(pieces) - len(chosen))
        if following is None
        else _is_in_seals_place(chosen[-1], following)
    ):
        del chosen[-1]
    return {piece.start for piece in chosen}


def _is_strange(chosen: Sequence[Piece], first: int, others: int) -> bool:
    """Whether the last of them has a number too far ahead, with nothing before it in which others were.

    So many ``others`` may stand elsewhere.
    """
    last, due, at = chosen[-1], first, 0
    if len(chosen) > 1:
        assert chosen[-2].record is not None
        due, at = chosen[-2].record.seq + 1, chosen[-2].end
    return last.record is not None and last.record.seq > due + others and last.start == at


def _is_in_seals_place(piece: Piece, following: int) -> bool:
    found = piece.record
    return found is not None and found.seq == following - 1 and not _is_seal(piece)


def _is_seal(piece: Piece) -> bool:
    return piece.record is not None and isinstance(piece.record.operation, Seal)


def _was_record(data: bytes, piece: Piece) -> bool:
    text = data[piece.start : piece.end]
    return text.startswith(_BEGIN) or text.endswith(b'"}\n')


def _why(pieces: Sequence[Piece], due: int) -> str:
    if not pieces:
        return "records are missing"
    found = pieces[0].record
    return pieces[0].why if found is None else f"record {due} was due here, this is record {found.seq}"


def _hints(pieces: Sequence[Piece], data: bytes) -> tuple[Hint, ...]:
    found = (_HINT.search(data, piece.start, piece.end) for piece in pieces)
    return tuple(Hint(each[1].decode(), (each[2] or b"").decode()) for each in found if each is not None)
