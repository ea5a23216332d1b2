"""Entries carried from one storage to another, page by page, so that none is ever lost or there twice.

A page is read in the source, written to the target in one change with its mark (see ``notes``), read back
there, and then removed from the source, where each entry goes only if it is still as it was. However that
ends, the mark tells the next run what has arrived: what is in it is removed from the source, and not sent
again, whatever has become of it in the target since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from duraq.acts import commit_each
from duraq.entry import LEASED
from duraq.errors import InvalidOption, QueueError, StorageDamaged
from duraq.migration.notes import Mark, Notes, Sent, migration_of
from duraq.model import KEYS, MIGRATIONS
from duraq.operations import Operation, Remove, Restore
from duraq.storage.base import StoredEntry
from duraq.storage.transacting import TransactingStorage

AT_ONCE = 500  # entries of a page
BYTES = 1 << 20  # of payloads that are enough for one


class Overtaken(Exception):
    """Another run has written a page of this queue meanwhile: look again."""


class Ends:
    """The two storages of a migration.

    ``check``: the target, opened once more where that reads what was written and not what is remembered.
    ``source_name`` and ``target_name`` are for people.
    """

    def __init__(
        self,
        source: TransactingStorage,
        target: TransactingStorage,
        check: TransactingStorage,
        source_name: str,
        target_name: str,
    ) -> None:
        self.source, self.target, self.check = source, target, check
        self.source_name, self.target_name = source_name, target_name
        self.sent_notes, self.notes = Notes(source), Notes(target)
        self._keys_behind = 0

    def write(self, operations: Sequence[Operation], mark: Mark, before: Mark | None) -> None:
        """Commit these to the target together with the mark, in the place of the one before.

        Raises Overtaken if another run was quicker, and what ``commit`` raises.
        """
        try:
            self.target.commit({mark.queue: operations, MIGRATIONS: mark.written(before)})
        except QueueError:
            self.check_last(mark, before)
            raise

    def check_last(self, mark: Mark, before: Mark | None) -> None:
        """Raise Overtaken if another run has written a mark behind that one."""
        found = self.notes.mark(mark.migration, mark.queue)
        if (found and found.number) != (before and before.number):
            raise Overtaken

    def copy_keys(self) -> None:
        """Have the target know each idempotency key that the source knows.

        They stay in the source as well, until their time is over: whoever still feeds it is to find them.
        """
        while page := self.source.page(KEYS, self._keys_behind, AT_ONCE, BYTES):
            known = {each.id for each in self.target.some(KEYS, [each.id for each in page])}
            new: dict[str, dict[str, list[Operation]]] = {
                each.id: {KEYS: [Restore(each.id, each.payload, each.unheld(), source=self.source_name)]}
                for each in page
                if each.id not in known
            }
            # One that is there by now was enqueued there, which is as good.
            commit_each(self.target, new)
            self._keys_behind = page[-1].seq


class Carrier:
    """Carries the entries of one queue. ``stuck``: those that cannot go, and why; they stay in the source."""

    def __init__(self, ends: Ends, mark: Mark, stuck: dict[str, str]) -> None:
        self._ends = ends
        self.queue = mark.queue
        self.mark = mark
        self.stuck = stuck
        self.payload_bytes = 0  # of what this run has sent

    def all(self) -> Iterator[int]:
        """Carry whatever is there and not leased; after each page, how many entries it had."""
        self.settle()
        behind = 0
        while page := self._ends.source.page(self.queue, behind, AT_ONCE, BYTES):
            behind = page[-1].seq
            going = [each for each in page if each.status is not LEASED and each.id not in self.stuck]
            if going:
                yield self._send(going)

    def _send(self, page: Sequence[StoredEntry]) -> int:
        self._check_lengths(page)
        sent = {each.id: Sent.of(each) for each in page}
        there: set[str] = set()
        while True:
            mark = self.mark.turned([each for each in sent.values() if each.id not in self.stuck])
            arriving = [
                Restore(each.id, each.payload, each.unheld(), source=self._ends.source_name)
                for each in page
                if each.id not in there
            ]
            try:
                self._ends.write(arriving, mark, self.mark)
                break
            except QueueError:
                now = self._found(self._ends.target, sent)
                if now.keys() <= there:
                    raise
                there |= now.keys()
                self._pass_over(sent, now)
        self.mark = mark
        self.payload_bytes += sum(len(each.payload) for each in page if each.id not in self.stuck)
        self.settle()
        return len(mark.page)

    def _pass_over(self, sent: Mapping[str, Sent], now: Mapping[str, Sent]) -> None:
        """What is there as it is here has arrived, in whatever way; what is there otherwise must not go."""
        for name, other in now.items():
            if other.checksum != sent[name].checksum:
                self.stuck[name] = "there is another entry of that id in the target"

    def _check_lengths(self, page: Sequence[StoredEntry]) -> None:
        most = self._ends.target.max_payload_bytes
        for each in page:
            if len(each.payload) > most:
                raise InvalidOption(
                    f"queue {self.queue}: entry {each.id} has {len(each.payload)} bytes of payload, and the"
                    f" target takes {most}: open it with a larger max_payload_bytes"
                )

    def _found(self, storage: TransactingStorage, names: Mapping[str, object]) -> dict[str, Sent]:
        return {each.id: Sent.of(each) for each in storage.some(self.queue, names)}

    # -- what has arrived ------------------------------------------------------------------------------

    def settle(self) -> None:
        """See that the page that came last has arrived, and remove it from the source."""
        if not self.mark.page:
            return
        self._verify()
        removals: dict[str, dict[str, list[Operation]]] = {
            each.id: {self.queue: [self._removal(each, self._ends.target_name)]} for each in self.mark.page
        }
        outcomes = commit_each(self._ends.source, removals)
        refused = {each.id: each for each in self.mark.page if outcomes[each.id].error is not None}
        if refused:
            self._take_back(refused)

    def _removal(self, sent: Sent, to: str) -> Remove:
        return Remove(sent.id, to=to, version=sent.version)

    def _take_back(self, refused: Mapping[str, Sent]) -> None:
        """Of what was removed from the source otherwise, or removed before, nothing is to be done.

        What is there still has changed since it was sent: it stays there, and goes as it is now.
        """
        for each in self._ends.source.some(self.queue, refused):
            sent = refused[each.id]
            try:
                self._ends.target.commit({self.queue: [self._removal(sent, self._ends.source_name)]})
                self.mark = self.mark.without(sent)
            except QueueError:
                if self._ends.target.some(self.queue, [each.id]):
                    self.stuck[each.id] = "it has changed in both storages"

    def _verify(self) -> None:
        """Read back what has arrived. Raises StorageDamaged if it is not what was sent."""
        target, page = self._ends.target, self.mark.page
        found = self._found(self._ends.check, {each.id: each for each in page})
        # Once it is worked there, anything may have become of an entry.
        is_still = migration_of(target.paused(self.queue)) == self.mark.migration
        now = target.clock.now()
        for sent in page:
            there = found.get(sent.id)
            if there is None:
                is_over = sent.expires_at is not None and sent.expires_at <= now
                # A dead letter can be removed by anybody at any time.
                wrong = is_still and not (is_over or sent.dead)
            else:
                # Nobody can have changed one that waits.
                as_it_was = sent.is_of(there) or (is_still and not sent.dead)
                wrong = as_it_was and there.checksum != sent.checksum
            if wrong:
                self._ends.check_last(self.mark, self.mark)
                raise StorageDamaged(
                    f"queue {self.queue}: entry {sent.id} is not read as it was written",
                    path=self._ends.target_name,
                    hint="nothing of this page was removed from the source; see to the target's disk",
                )
