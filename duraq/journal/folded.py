"""One queue as one process has folded it: its segments, its state, and the checkpoints on the way.

At each seal the entries that nobody holds go from memory to the shelf. Whoever writes the seal writes the
index and the checkpoint that this takes; whoever reads it later finds them, or makes them if they are lost.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from duraq.entry import LEASED
from duraq.errors import StorageDamaged
from duraq.journal import checkpoint
from duraq.journal.checkpoint import Checkpoint, Lost
from duraq.journal.filesystem import FileSystem
from duraq.journal.index import BadIndex, Index
from duraq.journal.run import Run
from duraq.journal.runs import Runs
from duraq.journal.segment import Group, SealAt, Segments
from duraq.operations import Operation
from duraq.shelf import Mislaid
from duraq.state import QueueState

log = logging.getLogger("duraq")


class Folded:
    """A queue's segments and the state they fold to. All of this happens under the storage's lock."""

    def __init__(self, file_system: FileSystem, segments: Segments, distrusted: int = 0) -> None:
        """Checkpoints up to that of the segment ``distrusted`` are not used."""
        self._fs = file_system
        self._distrusted = distrusted
        self.segments = segments
        self.state = QueueState(segments.queue)
        self._runs = self._shelf([], 0)
        self._last: Checkpoint | None = None  # the one that we went on from
        self._begun = False

    # -- reading on ------------------------------------------------------------------------------------

    def catch_up(self, position: int) -> None:
        """Fold what was written since; ``position`` is where the journal ends now.

        Raises Mislaid if the state must be made again, and StorageDamaged.
        """
        if not self._begun:
            self._begin(position)
        state, segments = self.state, self.segments
        while True:
            try:
                for (operation, seq, at), where in segments.read_on():
                    state.apply(operation, seq, at, where, position)  # type: ignore[arg-type] # no seals here
            except KeyError as error:
                why = f"a record speaks of entry {error}, which is not there"
                if self._last is not None:
                    # What is derived is never the word that convicts the records.
                    raise Mislaid(state.name, why) from None
                raise StorageDamaged(why, path=state.name) from None
            seal = segments.seal
            if seal is None:
                return
            found = self._load(seal.segment, position)
            if found is not None and found.seal == seal:
                self._adopt(found, position)
            elif self._skip(seal.segment, position):
                continue  # we slept, and others have removed what lies between
            else:
                self._shelve(seal, position)
            segments.advance()

    def _begin(self, position: int) -> None:
        """Go on from the newest checkpoint, if there is one."""
        self._skip(0, position)
        self._begun = True

    def _skip(self, segment: int, position: int) -> bool:
        """Go on from the newest checkpoint of a segment behind that one, if there is one."""
        numbers = checkpoint.numbers(self._fs, self.segments.directory)
        for number in reversed([number for number in numbers if number > segment]):
            found = self._load(number, position)
            if found is not None:
                self.segments.start_behind(found.seal)
                self.state.resume(found.tokens, found.pause, found.leased)
                self._adopt(found, position)
                return True
        return False

    def _load(self, number: int, position: int) -> Checkpoint | None:
        if number <= self._distrusted:
            return None
        return checkpoint.load(self._fs, self.segments.directory, number, position)

    def _adopt(self, found: Checkpoint, position: int) -> None:
        """Go on with the runs of a checkpoint that was made where we are now."""
        self._runs = self._shelf(found.runs, position)
        self._last = found
        self.state.shelve(self._runs)

    def _shelf(self, runs: list[Run], position: int) -> Runs:
        return Runs(
            self.state.name, runs, load=self._load_index, record=self.segments.enqueued, position=position
        )

    def _load_index(self, number: int) -> Index:
        try:
            return checkpoint.load_index(self._fs, self.segments.directory, number)
        except (BadIndex, Lost) as error:
            raise Mislaid(self.state.name, f"the index of segment {number}: {error}") from error

    @property
    def distrusted(self) -> int:
        """Once something that it names was lost: up to which segment no checkpoint is to be used."""
        return self._distrusted if self._last is None else self._last.seal.segment

    # -- writing ---------------------------------------------------------------------------------------

    def written(self, operations: Sequence[Operation], group: Group, at: int, position: int) -> None:
        """Fold what this process has just written. Raises Mislaid if the state must be made again."""
        if group.seal is not None:
            self._shelve(group.seal, position)
        self.state.apply_group(operations, group.first_seq, at, group.places(), position)

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
            index = checkpoint.save_index(fs, directory, seal.segment, waiting)
            runs = self._runs.imaged()
            if index is not None:
                names = [entry.id for entry in waiting]
                runs.append(Run.whole(index, (min(names), max(names))))
            if last is not None and last.seal == seal:
                # Once before, but then going on failed.
                last = None
            before = None if last is None else last.seal.segment
            made = Checkpoint(seal, state.tokens, state.pause, leased, runs, self._runs.finished, before)
            checkpoint.save(fs, directory, made)
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
