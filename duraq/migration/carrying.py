"""Entries carried from one storage to another, page by page, so that none is ever lost or there twice.

A page is read in the source, written to the target in one change with its mark (see ``notes``), read back
there, and then removed from the source in one change with the note that it has left: all of it, and only if
each entry is still as it was. Of what is not, somebody has made something else in the source meanwhile: that
is taken back from the target first. However it ends, mark and note tell the next run which of this is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from duraq.acts import commit_each
from duraq.entry import DEAD, LEASED
from duraq.errors import CannotMigrate, InvalidOption, QueueError, StorageDamaged
from duraq.keys import meant_by, name_of
from duraq.migration.notes import Leaving, Mark, Notes, Sent
from duraq.model import KEYS, MIGRATIONS
from duraq.operations import Operation, Remove, Restore
from duraq.pauses import migration_of
from duraq.storage.base import StoredEntry
from duraq.storage.transacting import TransactingStorage

AT_ONCE = 500  # entries of a page
BYTES = 1 << 20  # of payloads and histories that are enough for one


class Overtaken(Exception):
    """Another run has written a note of this queue meanwhile: look again."""


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
        self.sent_notes, self.notes = Notes(source, source_name), Notes(target, target_name)
        self._keys_behind = 0

    def write(self, changes: Mapping[str, Sequence[Operation]], mark: Mark, before: Mark | None) -> None:
        """Commit these to the target together with the mark, in the place of the one before.

        Raises Overtaken if another run was quicker, and what ``commit`` raises.
        """
        try:
            self.target.commit({**changes, MIGRATIONS: mark.written()})
        except QueueError:
            self.check_last(mark.migration, mark.queue, before)
            raise

    def check_last(self, migration: str, queue: str, mark: Mark | None) -> None:
        """Raise Overtaken if another run has written a mark behind that one."""
        found = self.notes.mark(migration, queue)
        if (found and found.number) != (mark and mark.number):
            raise Overtaken

    def copy_keys(self) -> None:
        """Have the target know each idempotency key that the source knows.

        They stay in the source as well, until their time is over: whoever still feeds it is to find them.
        """
        while page := self.source.page(KEYS, self._keys_behind, AT_ONCE, BYTES):
            known = {each.id for each in self.target.some(KEYS, [each.id for each in page])}
            new: dict[str, dict[str, list[Operation]]] = {
                each.id: {KEYS: [self.arrival(each)]} for each in page if each.id not in known
            }
            # One that is there by now was enqueued there, which is as good.
            commit_each(self.target, new)
            self._keys_behind = page[-1].seq

    def arrival(self, stored: StoredEntry) -> Restore:
        """What makes the target have that entry of the source."""
        return Restore(stored.id, stored.payload, stored.unheld(), source=self.source_name)


class Carrier:
    """Carries the entries of one queue, which has begun; ``may_go`` raises if no more of them may go.

    ``stuck``: those that cannot go, and why; they stay in the source. ``known``: those that were ended there,
    for the target has taken an entry under the same key.
    """

    def __init__(
        self,
        ends: Ends,
        mark: Mark,
        leaving: Leaving,
        stuck: dict[str, str],
        may_go: Callable[[Carrier], None] = lambda _: None,
    ) -> None:
        self._ends = ends
        self.queue = mark.queue
        self.mark, self.leaving = mark, leaving
        self.stuck = stuck
        self.known: list[str] = []
        self._may_go = may_go
        self.payload_bytes = 0  # of what this run has sent

    def all(self, most: int) -> Iterator[int]:
        """Carry what is not leased of the first so many entries; after each page, how many of it went."""
        self.settle()
        behind = 0
        while most > 0 and (page := self._ends.source.page(self.queue, behind, min(AT_ONCE, most), BYTES)):
            behind = page[-1].seq
            most -= len(page)
            going = [each for each in page if each.status is not LEASED and each.id not in self.stuck]
            if going:
                self._may_go(self)
                yield self._send(going)

    def _send(self, page: Sequence[StoredEntry]) -> int:
        self._check_lengths(page)
        sent = {each.id: Sent.of(each) for each in page}
        there: dict[str, Sent] = {}
        keys, known = self._keys(page)
        while going := [each for each in page if each.id not in self.stuck and each.id not in known]:
            mark = self.mark.turned([sent[each.id] for each in going], left=self.leaving.settled)
            arriving = [self._ends.arrival(each) for each in going if each.id not in there]
            under = [self._ends.arrival(keys[each.id]) for each in going if each.id in keys]
            try:
                self._ends.write({self.queue: arriving, KEYS: under}, mark, self.mark)
                self.mark = mark
                break
            except QueueError:
                before = there, keys, known
                there = self._found(self._ends.target, sent)
                keys, known = self._keys(page)
                if before == (there, keys, known):
                    raise
                self._pass_over(sent, there)
        self.payload_bytes += sum(len(each.payload) for each in going)
        self.settle()
        return len(going) + self._end([sent[name] for name in known])

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

    # -- keys ------------------------------------------------------------------------------------------

    def _keys(self, page: Sequence[StoredEntry]) -> tuple[dict[str, StoredEntry], set[str]]:
        """By entry, the keys that the target must learn; and entries whose key it has for another one.

        A key counts as long as the source knows it for that entry. A dead letter goes in any case: it tells
        what broke.
        """
        names = {name_of(self.queue, each.key): each for each in page if each.key is not None}
        if not names:
            return {}, set()
        here = {each.id: each for each in self._ends.source.some(KEYS, names)}
        there = {each.id: meant_by(each.payload) for each in self._ends.target.some(KEYS, names)}
        new: dict[str, StoredEntry] = {}
        known: set[str] = set()
        for name, entry in names.items():
            if name not in here or meant_by(here[name].payload) != entry.id:
                continue
            if name not in there:
                new[entry.id] = here[name]
            elif there[name] != entry.id and entry.status is not DEAD:
                known.add(entry.id)
        return new, known

    def _end(self, known: Sequence[Sent]) -> int:
        """Remove what was enqueued in the target under the same key; how many that were."""
        outcomes = commit_each(
            self._ends.source, {each.id: {self.queue: [self._removal(each)]} for each in known}
        )
        ended = [name for name, outcome in outcomes.items() if outcome.error is None]
        self.known += ended
        return len(ended)

    def _removal(self, sent: Sent) -> Remove:
        return Remove(sent.id, to=self._ends.target_name, version=sent.version)

    # -- what has arrived ------------------------------------------------------------------------------

    def settle(self) -> None:
        """See that the page that came last has arrived, and remove it from the source.

        Raises Overtaken, StorageDamaged, and CannotMigrate if source and target do not go together.
        """
        while self.mark.page and not self._has_left():
            self._verify()
            leaving = self.leaving.turned(settled=self.mark.number)
            removals = [self._removal(each) for each in self.mark.page]
            try:
                self._ends.source.commit({self.queue: removals, MIGRATIONS: leaving.written()})
                self.leaving = leaving
            except QueueError:
                if not self._look_again() and not self._take_back():
                    raise

    def _has_left(self) -> bool:
        """Whether the page that came last is removed from the source, or was."""
        mark = self.mark
        while self.leaving.settled not in {mark.number, mark.left}:
            if self._look_again():
                continue
            self._ends.check_last(mark.migration, self.queue, mark)
            raise CannotMigrate(
                f"queue {self.queue}: {self._ends.source_name} and {self._ends.target_name} do not go"
                " together: one of them is an older copy; bring back what belongs together, and do it again"
            )
        return self.leaving.settled == mark.number

    def _look_again(self) -> bool:
        """Whether another run has written the note; it is known then."""
        found = self._ends.sent_notes.leaving(self.queue)
        if found is None or found.migration != self.mark.migration:
            raise Overtaken
        is_new, self.leaving = found.number != self.leaving.number, found
        return is_new

    def _take_back(self) -> bool:
        """Take out of the page what is not in the source as it was sent; False if all of it is.

        It has ended there otherwise, or goes again as it is now; in the target it has no place then. There
        somebody may have done something to a dead letter, too: that stays as it is.
        """
        here = self._found(self._ends.source, {each.id: each for each in self.mark.page})
        changed = {each.id: each for each in self.mark.page if not _is_still(each, here)}
        there: dict[str, Sent] | None = None
        while changed:
            before, there = there, self._found(self._ends.target, changed)
            back = [each for each in changed.values() if _is_still(each, there)]
            other = [each for each in changed.values() if not _is_still(each, there)]
            mark = self.mark.without(back, other)
            removals = [Remove(each.id, to=self._ends.source_name, version=each.version) for each in back]
            try:
                self._ends.write({self.queue: removals}, mark, self.mark)
            except QueueError:
                if there == before:
                    raise
                continue
            self.mark = mark
            both = [each.id for each in other if each.id in there and each.id in here]
            self.stuck.update(dict.fromkeys(both, "it has changed in both storages"))
            return True
        return False

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
                self._ends.check_last(self.mark.migration, self.queue, self.mark)
                raise StorageDamaged(
                    f"queue {self.queue}: entry {sent.id} is not read as it was written",
                    path=self._ends.target_name,
                    hint="nothing of this page was removed from the source; see to the target's disk",
                )


def _is_still(sent: Sent, found: Mapping[str, Sent]) -> bool:
    """Whether what was found of its id is of the version that was sent."""
    return sent.id in found and found[sent.id].version == sent.version
