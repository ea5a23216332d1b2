"""Making a damaged queue whole again, without what is lost.

Each segment in which something is wrong is copied to ``quarantine/`` and written anew: a repair record stands
where a record was lost, or what must have happened instead (``duraq.journal.salvage``); all that is sound
stays as it is. A segment is replaced as a whole, by a rename, so a crash leaves it as it was or repaired, and
whoever repairs again finds the rest. Nobody else may have the storage open, and no frame of the journal may
be needed any more, for what is written here is not where the frames would have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import orjson

from duraq.errors import StorageDamaged
from duraq.journal import checkpoint, refusal, segment
from duraq.journal.ends import End
from duraq.journal.filesystem import FileSystem, content, opened
from duraq.journal.opening import sync_once, write_durably
from duraq.journal.record import SUFFIX_LENGTH, Seal, encode, finished
from duraq.journal.salvage import Salvage
from duraq.journal.survey import Found, Stretch, Survey
from duraq.operations import Drop, Repair
from duraq.times import rfc3339

MOST_LOST = 1 << 22  # records in a row; half a GB of what is written instead of them
_NOT_IN_NAMES = str.maketrans("", "", "-:.")


def stamp(now: int) -> str:
    """The time as names of files have it; to the microsecond, so that no copy takes the place of another."""
    return rfc3339(now).translate(_NOT_IN_NAMES)


class Rewrite(NamedTuple):
    """A segment's file as it is to be; ``aside`` is what the copy of the old one is called, if any."""

    segment: int
    content: bytes
    aside: str


class Plan:
    """What is to be done to one queue."""

    def __init__(
        self, survey: Survey, salvage: Salvage, longer: set[int], known: End, now: int, *, refused: bool
    ) -> None:
        """``longer``: segments that have been completed, in memory only, from what was kept for them.

        ``known`` is where the queue ended when that was noted last. ``refused``: it has a mark that says so.
        """
        self._longer, self._refused = longer, refused
        self._survey, self._salvage, self._at = survey, salvage, rfc3339(now)
        self.known = known
        self.stamp = stamp(now)
        self.note_name = refusal.NOTE.format(self.stamp)
        self._useless = {found.where for found, _ in salvage.aside}
        self.queue = survey.lines.queue

    @property
    def needed(self) -> bool:
        """Whether there is anything to do."""
        return not self._salvage.sound or self._survey.headless or self._refused

    def rewrites(self) -> Iterator[Rewrite]:
        """Every segment that is to be written anew, the oldest first."""
        needed = self._survey.needed
        missing = {each.segment: each for each in self._salvage.stretches if each.line is None}
        changed = {each.segment for each in self._salvage.stretches} | {where[0] for where in self._useless}
        changed |= self._longer.intersection(needed)
        numbers = sorted({*needed, *missing})
        if self._survey.headless:
            changed.add(numbers[-1])
        for number in sorted(changed):
            last = number == numbers[-1]
            if number in missing:
                lines, name = self._instead_of(missing[number], ""), ""
            else:
                following = None if number == needed[-1] else needed[needed.index(number) + 1]
                name = f"{segment.file_name(number)}.{self.stamp}"
                lines = self._content(number, following, name)
            if last and self._survey.headless:
                lines += self._drop()
            yield Rewrite(number, self._as_long_as_noted(number, lines), name)

    def _as_long_as_noted(self, number: int, lines: bytes) -> bytes:
        """With so many spaces in a repair record: a queue that is shorter than was noted would be refused."""
        short, at = self.known.size - len(lines), lines.find(b'{"op":"repair",')
        if number != self.known.segment or short <= 0 or at < 0:
            return lines
        end = lines.index(b"\n", at) + 1
        longer = finished(lines[at : end - SUFFIX_LENGTH] + b" " * short)
        return lines[:at] + longer + lines[end:]

    def _content(self, number: int, following: int | None, aside: str) -> bytes:
        data = self._survey.lines.content(number)
        pieces = []
        for each in self._survey.segment(number, following):
            if isinstance(each, Stretch):
                pieces.append(self._instead_of(each, aside))
            elif each.where in self._useless:
                pieces.append(self._repair(each.record.seq, aside))
            else:
                _, start, length = each.where
                pieces.append(data[start : start + length])
        return b"".join(pieces)

    def _instead_of(self, stretch: Stretch, aside: str) -> bytes:
        if stretch.lost > MOST_LOST:
            raise StorageDamaged(
                f"{stretch.lost} records are missing here, too many to write one in the place of each",
                path=segment.path_of(self.queue, stretch.segment),
                line=stretch.line,
                byte=stretch.start,
                hint="if they never were, what comes behind them is none of DuraQ's: remove it",
            )
        lines = []
        for seq in range(stretch.first, stretch.first + stretch.lost):
            operation, at = self._salvage.instead.get(seq, (None, 0))
            if operation is not None:
                lines.append(encode(operation, seq, rfc3339(at)))
            else:
                lines.append(self._repair(seq, aside))
        if stretch.seal is not None:
            lines[-1] = encode(Seal(stretch.seal), stretch.seal - 1, self._at)
        return b"".join(lines)

    def _repair(self, seq: int, aside: str) -> bytes:
        return encode(Repair(aside), seq, self._at)

    def _drop(self) -> bytes:
        """That what came before the first segment is not needed: so it was, and the record of it is lost."""
        state, last = self._salvage.state, self._survey.first - 1
        for each in self._survey.walk():
            last = each.record.seq if isinstance(each, Found) else each.first + each.lost - 1
        operation = Drop(self._survey.first, 0, state.tokens, state.pause, state.ledger)
        return encode(operation, last + 1, self._at)

    def note(self) -> bytes:
        """What is kept beside the copies, for whoever wants to know."""
        salvage = self._salvage
        about = {
            "queue": self.queue,
            "at": self._at,
            "damage": [
                {**each._asdict(), "hints": [hint._asdict() for hint in each.hints]}
                for each in salvage.stretches
            ],
            "set_aside": [
                {"segment": found.where[0], "byte": found.where[1], "why": why}
                for found, why in salvage.aside
            ],
            "lost": salvage.lost,
            "doubtful": salvage.doubtful,
        }
        return orjson.dumps(about, option=orjson.OPT_INDENT_2) + b"\n"


def carry_out(fs: FileSystem, root: int, plan: Plan, note_end: Callable[[End], None]) -> None:
    """Do it, durably; ``note_end`` notes, durably, that the queue ends elsewhere."""
    with (
        opened(fs, root, plan.queue, create=True) as home,
        opened(fs, home, "segments", create=True) as directory,
    ):
        rewrites = list(plan.rewrites())
        _set_aside(fs, home, directory, plan, rewrites)
        # What is derived speaks of bytes that will be elsewhere.
        for suffix in (checkpoint.SUFFIX, checkpoint.INDEX_SUFFIX):
            for number in segment.numbers(fs, directory, suffix):
                fs.unlink(directory, segment.file_name(number, suffix))
        # Before what they were derived from changes: else they could come back and be believed.
        sync_once(fs, directory)
        for rewrite in rewrites:
            _replace(fs, directory, rewrite, plan.known, note_end)
        refusal.use_up(fs, home, plan.stamp)
        refusal.lift(fs, home)
        # The mark must not come back: nothing would be found that it could be lifted for.
        sync_once(fs, home)


def _replace(
    fs: FileSystem, directory: int, rewrite: Rewrite, known: End, note_end: Callable[[End], None]
) -> None:
    end = End(rewrite.segment, len(rewrite.content))
    # A queue that ends before the end that is noted is refused until it is repaired; one that ends behind it
    # would be cut there. So the note is the larger of the two until the file is there.
    if end > known:
        note_end(end)
    write_durably(fs, directory, segment.file_name(rewrite.segment), rewrite.content)
    if end < known and end.segment == known.segment:
        note_end(end)


def _set_aside(fs: FileSystem, home: int, directory: int, plan: Plan, rewrites: list[Rewrite]) -> None:
    with opened(fs, home, refusal.QUARANTINE, create=True) as quarantine:
        for rewrite in rewrites:
            # It may be there only in so far as lines for it were kept elsewhere.
            if rewrite.aside and fs.exists(directory, segment.file_name(rewrite.segment)):
                before = content(fs, directory, segment.file_name(rewrite.segment))
                write_durably(fs, quarantine, rewrite.aside, before)
        write_durably(fs, quarantine, plan.note_name, plan.note())
    # The directory may be new.
    sync_once(fs, home)
