"""One queue as one process has folded it: its segments, its state, and the checkpoints on the way.

At each seal the entries that nobody holds go from memory to the shelf. Whoever writes the seal writes the
index and the checkpoint that this takes; whoever reads it later finds them, or makes them if they are lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from duraq.entry import DEAD, LEASED, READY, SCHEDULED, Entry
from duraq.errors import StorageDamaged
from duraq.journal import checkpoint
from duraq.journal.checkpoint import Checkpoint, Lost
from duraq.journal.filesystem import FileSystem
from duraq.journal.index import BadIndex, Filter, Index
from duraq.journal.record import Record, Seal
from duraq.journal.reserve import Give
from duraq.journal.row_reader import RowReader
from duraq.journal.run import Run
from duraq.journal.runs import Runs
from duraq.journal.segment import Gap, SealAt, Where
from duraq.journal.segments import Segments
from duraq.journal.tail import Group
from duraq.model import EntryStatus
from duraq.operations import (
    Bury,
    Complete,
    Drop,
    Enqueue,
    Expire,
    Extend,
    Fail,
    Lease,
    Operation,
    Release,
    Remove,
    Requeue,
    Restore,
)
from duraq.shelf import Mislaid
from duraq.state import QueueState

log = logging.getLogger("duraq")

_ENDS = frozenset({Complete, Expire, Remove})
# What an entry in memory must be for a record of it, if that is not plain.
_WAITING, _HELD, _BURIED = frozenset({READY, SCHEDULED}), frozenset({LEASED}), frozenset({DEAD})
_STATES: dict[type[Any], frozenset[EntryStatus]] = {
    Enqueue: frozenset(),
    Restore: frozenset(),
    Lease: _WAITING,
    Expire: _WAITING,
    **dict.fromkeys((Extend, Complete, Fail, Bury, Release), _HELD),
    Requeue: _BURIED,
    Remove: _WAITING | _BURIED,
}


def fold(state: QueueState, segments: Segments, found: Record, where: Where, position: int = 0) -> None:
    """Fold one record that was read. Raises Gap if the entry that it speaks of is not there, or not so."""
    operation, seq, at = found
    assert not isinstance(operation, Seal)
    states = _STATES.get(type(operation))
    if states is not None:
        if isinstance(operation, Remove) and not operation.to:
            states = _BURIED  # only what goes elsewhere is removed while it lives
        entry = state.entries.get(operation.id)  # type: ignore[union-attr] # those in the table have one
        if entry is not None and entry.status not in states:
            why = f"record {seq}: {operation.op} of entry {entry.id}, which is {entry.status}"
            raise Gap(why, path=state.name)
    try:
        state.apply(operation, seq, at, where, position)
    except KeyError as error:
        # Of what was dropped, the records of its entries' further lives are left; nobody needs them.
        if segments.known_from is None:
            why = f"a record speaks of entry {error}, which is not there"
            raise Gap(why, path=state.name) from None
    except StorageDamaged as error:
        # Not the record, but the one of its entry: it may lie in a segment that was dropped since.
        raise Gap(error.reason, path=error.path, byte=error.byte, hint=error.hint) from error
    if type(operation) is Drop:
        segments.note_drop(operation, where)


class Folded:
    """A queue's segments and the state they fold to. All of this happens under the storage's lock."""

    def __init__(
        self,
        file_system: FileSystem,
        segments: Segments,
        distrusted: int = 0,
        *,
        give: Give,
    ) -> None:
        """Checkpoints up to that of the segment ``distrusted`` are not used.

        ``give`` gives back what is kept for a full disk; see Reserve.
        """
        self._fs = file_system
        self._give = give
        self._distrusted = distrusted
        self.segments = segments
        self.state = QueueState(segments.queue)
        self._runs = self._shelf([], 0)
        self._last: Checkpoint | None = None  # the one that we went on from
        self._begun = False
        self._adopted = False  # a checkpoint was believed
        self.over = 0  # bytes of entries that have ended since somebody asked whether to compact

    # -- reading on ------------------------------------------------------------------------------------

    def catch_up(self, position: int) -> None:
        """Fold what was written since; ``position`` is where the journal ends now.

        Raises Mislaid if the state must be made again, and StorageDamaged.
        """
        begun, self._begun = self._begun, True
        try:
            if not begun and not self._skip(0, position):
                self.segments.start()
            self._read_on(position)
        except StorageDamaged as error:
            if not self._adopted and not (begun and isinstance(error, Gap)):
                raise
            # What is derived, and what was read before others removed it, never convicts the records.
            raise Mislaid(self.state.name, error.reason) from None

    def _read_on(self, position: int) -> None:
        segments = self.segments
        while True:
            for found, where in segments.read_on():
                if found.operation.__class__ in _ENDS:
                    self._note_end(found.operation)
                fold(self.state, segments, found, where, position)
            seal = segments.seal
            if seal is None:
                return
            self._pass(seal, position)

    def through_seals(self) -> Iterator[SealAt | None]:
        """Fold what is sealed, from the newest checkpoint on, without the lock.

        Gives None for each record, and each seal that comes; before going on, ``pass_seal`` is called. Raises
        Mislaid, StorageDamaged or OSError, also when what it reads is removed meanwhile.
        """
        segments = self.segments
        self._begun = True
        if not self._skip(0, 0):
            segments.start()
        while segments.is_followed():
            for found, where in segments.read_on():
                fold(self.state, segments, found, where)
                yield None
            if segments.seal is None:
                return
            yield segments.seal

    def pass_seal(self) -> None:
        """Go on behind the seal that was read, from its checkpoint or one further on; made, if there is none.

        Under the lock.
        """
        seal = self.segments.seal
        assert seal is not None
        if not checkpoint.is_sealed(self._fs, self.segments.directory, seal):
            # There was no room for what was to come behind it.
            raise Mislaid(self.state.name, f"the seal of segment {seal.segment} was taken back")
        self._pass(seal, 0)

    def _pass(self, seal: SealAt, position: int) -> None:
        # Others may be far ahead, and may even have removed what lies between.
        if not self._skip(seal.segment - 1, position):
            self.segments.advance()
            self._shelve(seal, position)

    def _skip(self, segment: int, position: int) -> bool:
        """Go on from the newest checkpoint of a segment behind that one, if there is one."""
        numbers = checkpoint.numbers(self._fs, self.segments.directory)
        for number in reversed([number for number in numbers if number > segment]):
            found = self._load(number, position)
            if found is not None:
                self._adopt(found, position)
                return True
        return False

    def _load(self, number: int, position: int) -> Checkpoint | None:
        if number <= self._distrusted:
            return None
        return checkpoint.load(self._fs, self.segments.directory, number, position)

    def _adopt(self, found: Checkpoint, position: int) -> None:
        """Go on from behind the checkpoint's seal, with its state."""
        # First of all: should it be wrong, it is the one that is not to be believed again.
        self._adopted, self._last = True, found
        segments = self.segments
        segments.start_behind(found.seal)
        segments.first, segments.sealed_bytes = found.first, found.bytes
        segments.known_from = found.known_from
        self.state.resume(found.tokens, found.pause, found.leased)
        self.state.ledger = found.ledger
        self._runs = self._shelf(found.runs, position)
        self.state.shelve(self._runs)

    def _shelf(self, runs: list[Run], position: int) -> Runs:
        return Runs(
            self.state.name,
            runs,
            load=self._load_index,
            load_filter=self._load_filter,
            reader=RowReader(self.segments.enqueued, self.segments.keep_stretch),
            position=position,
        )

    def _load_index(self, number: int) -> Index:
        try:
            return checkpoint.load_index(self._fs, self.segments.directory, number)
        except (BadIndex, Lost) as error:
            raise self._lost(number, error) from error

    def _load_filter(self, number: int) -> tuple[Filter, int]:
        try:
            return checkpoint.load_filter(self._fs, self.segments.directory, number)
        except (BadIndex, Lost) as error:
            raise self._lost(number, error) from error

    def _lost(self, number: int, error: ValueError) -> Mislaid:
        return Mislaid(self.state.name, f"the index of segment {number}: {error}")

    @property
    def distrusted(self) -> int:
        """Once something that it names was lost: up to which segment no checkpoint is to be used."""
        return self._distrusted if self._last is None else self._last.seal.segment

    # -- for compaction --------------------------------------------------------------------------------

    @property
    def live_bytes(self) -> int:
        """How long the records are that the entries lie in."""
        here: int = sum(entry.where[2] for entry in self.state.entries.values())
        return self._runs.bytes + here

    def live_before(self, segment: int) -> int:
        """About how many of these bytes lie in segments before that one."""
        here: int = sum(entry.where[2] for entry in self.state.entries.values() if entry.where[0] < segment)
        return self._runs.bytes_before(segment) + here

    @property
    def checkpoint(self) -> int:
        """The segment whose checkpoint we went on from; 0 if there was none."""
        return 0 if self._last is None else self._last.seal.segment

    @property
    def first_needed(self) -> int:
        """The first segment that is needed by whoever begins at the last checkpoint, made behind a drop."""
        return 0 if self._last is None else self._last.first

    @property
    def indexes(self) -> set[int]:
        """The segments whose indexes are needed, by us or by the checkpoint before the last."""
        finished = [] if self._last is None else self._last.finished
        return {*self._runs.segments, *self._runs.finished, *finished}

    @property
    def oldest(self) -> int:
        """No entry's record lies in a segment before this one; it may be a little less than it could."""
        here = (entry.where[0] for entry in self.state.entries.values())
        found: int = min([self._runs.oldest, *here])
        return found

    def _note_end(self, operation: Any) -> None:
        """An entry is about to be over."""
        entry = self.state.entries.get(operation.id)
        if entry is not None:
            self.over += entry.where[2]

    @property
    def is_worth_a_look(self) -> bool:
        """Whether so much is over that it may be time to compact: of large entries few fill a segment."""
        return self.over * 2 > self.segments.limit

    def lying_before(self, segment: int, limit: int) -> list[Entry] | None:
        """Entries whose records lie in segments before that one, at most ``limit``.

        None if none was found yet, but there is more to look at; it goes on there the next time.
        """
        here = (entry for entry in self.state.entries.values() if entry.where[0] < segment)
        found = list(islice(here, limit))
        return found or self._runs.before(segment, limit)

    # -- writing ---------------------------------------------------------------------------------------

    def written(self, operations: Sequence[Operation], group: Group, at: int, position: int) -> None:
        """Fold what this process has just written behind what was read.

        Raises Mislaid if the state must be made again.
        """
        self.segments.pass_over(group)
        if group.seal is not None:
            self._shelve(group.seal, position)
        for operation in operations:
            if operation.__class__ in _ENDS:
                self._note_end(operation)
        places = group.places()
        self.state.apply_group(operations, group.first_seq, at, places, position)
        if type(operations[0]) is Drop:
            self.segments.note_drop(operations[0], places[0])

    def read_ahead(self) -> None:
        """Have what will probably be dequeued next at hand."""
        # What cannot be read is for the one who asks for it.
        with suppress(OSError, StorageDamaged, Mislaid):
            following = self.state.likely_next()
            if following is not None:
                self.segments.read_ahead(following.where)

    def _shelve(self, seal: SealAt, position: int) -> None:
        """Leave on the shelf what nobody holds, now that its segment is sealed."""
        state, fs, directory, last = self.state, self._fs, self.segments.directory, self._last
        waiting = [entry for entry in state.entries.values() if entry.status is not LEASED]
        leased = [entry for entry in state.entries.values() if entry.status is LEASED]
        try:
            index = checkpoint.save_index(fs, directory, seal.segment, waiting, self._give)
            runs = self._runs.imaged()
            if index is not None:
                names = [entry.id for entry in waiting]
                runs.append(Run.whole(index, (min(names), max(names))))
            if last is not None and last.seal == seal:
                # Once before, but then going on failed.
                last = None
            before = None if last is None else last.seal.segment
            made = Checkpoint(
                seal,
                self.segments.first,
                self.segments.sealed_bytes,
                self.segments.known_from,
                state.tokens,
                state.pause,
                state.ledger,
                leased,
                runs,
                self._runs.finished,
                before,
            )
            checkpoint.save(fs, directory, made, self._give)
        except OSError as error:
            # Nothing that anybody was promised depends on it; memory serves until the next one.
            log.warning("queue %s: no checkpoint at segment %d: %s", state.name, seal.segment, error)
            return
        if index is not None:
            self._runs.add(runs[-1], position, index)
        self._runs.finished = []
        state.shelve(self._runs)
        self._last = made
        if last is not None:
            # Two are kept; what only older ones named may go.
            checkpoint.remove(fs, directory, last.before, last.finished)
