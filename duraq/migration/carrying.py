"""Entries carried from one storage to another, page by page, so that none is ever lost or there twice.

A page is read in the source, written to the target in one change with its mark (see ``notes``), read back
there, and then removed from the source in one change with the note that it has left. Meanwhile nobody else
does anything to these entries in either, for the queue's pause forbids it. If it was not so paused all the
time, as its migration was given up, the page is taken back from the target instead. However it ends, mark and
note tell the next run which of this is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Self

from duraq.acts import UNDONE, commit_each
from duraq.entry import DEAD, LEASED
from duraq.errors import CannotMigrate, InvalidOption, QueueError, StorageDamaged
from duraq.keys import elsewhere, is_elsewhere, meant_by, name_of
from duraq.migration.keyed import departure, is_news, replaced, without_empty
from duraq.migration.notes import MOVING, Leaving, Mark, Notes, Sent
from duraq.model import ACTS, KEYS, MIGRATIONS
from duraq.operations import Operation, Remove, Restore
from duraq.pauses import migration_of
from duraq.storage.base import StoredEntry
from duraq.storage.transacting import TransactingStorage

_PATIENCE = 20  # times that somebody may be quicker in the midst of a page
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
        """Have the target know each idempotency key that the source knows, as one whose entry is elsewhere.

        They stay in the source as well, until their time is over: whoever still feeds it is to find them.
        """
        while page := self.source.page(KEYS, self._keys_behind, AT_ONCE, BYTES):
            there = {each.id: each for each in self.target.some(KEYS, [each.id for each in page])}
            new: dict[str, dict[str, list[Operation]]] = {
                each.id: {KEYS: replaced(each, there.get(each.id), elsewhere(each.payload), self.source_name)}
                for each in page
                if is_news(each, there.get(each.id))
            }
            # One that is there by now was enqueued there, which is as good.
            commit_each(self.target, new)
            self._keys_behind = page[-1].seq

    def arrival(self, stored: StoredEntry) -> Restore:
        """What makes the target have that entry of the source."""
        return Restore(stored.id, stored.payload, stored.unheld(), source=self.source_name)


class Apart(CannotMigrate):
    """What the two storages remember does not go together: one of them is not what it was."""

    @classmethod
    def of(cls, ends: Ends, queue: str, why: str = "") -> Self:
        """It, and the way out."""
        why = why or "one of them is an older copy; bring back what belongs together"
        return cls(
            f"queue {queue}: {ends.source_name} and {ends.target_name} do not go together: {why}, and do it"
            " again; or give it up with --give-up"
        )


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
        self.mark, self.leaving = mark, leaving.seen_by(mark.migration)
        self.stuck = stuck
        self.known: list[str] = []
        self._may_go = may_go
        self.payload_bytes = 0  # of what this run has sent
        self._refused = 0  # changes that should be possible

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
        while True:
            ending = self._pass_over(sent, there) | known.keys()
            going = [each for each in page if each.id not in self.stuck and each.id not in ending]
            if not going:
                break
            mark = self.mark.taking([sent[each.id] for each in going], self.leaving.number)
            arriving = [self._ends.arrival(each) for each in going if each.id not in there]
            under = [each for entry in going for each in keys.get(entry.id, ())]
            try:
                self._ends.write({self.queue: arriving, KEYS: under}, mark, self.mark)
            except QueueError:
                if self._is_in_vain():
                    raise
                there = self._found(self._ends.target, sent)
                keys, known = self._keys(page)
            else:
                self.mark, self._refused = mark, 0
                break
        self.payload_bytes += sum(len(each.payload) for each in going)
        self.settle()
        return len(going) + self._end([each for each in page if each.id in ending], known)

    def _is_in_vain(self) -> bool:
        self._refused += 1
        return self._refused == _PATIENCE

    def _pass_over(self, sent: Mapping[str, Sent], now: Mapping[str, Sent]) -> set[str]:
        """What is there as it is here has arrived, in whatever way; what is there otherwise must not go.

        Returns what need not go either: that an act was undone is the same whoever says so.
        """
        other = {name for name, each in now.items() if each.checksum != sent[name].checksum}
        said = {name for name in other if self.queue == ACTS and name.endswith(UNDONE)}
        self.stuck.update(dict.fromkeys(other - said, "there is another entry of that id in the target"))
        return said

    def _check_lengths(self, page: Sequence[StoredEntry]) -> None:
        most = self._ends.target.max_payload_bytes
        for each in page:
            if len(each.payload) > most:
                raise InvalidOption(
                    f"queue {self.queue}: entry {each.id} has {len(each.payload)} bytes of payload, and the"
                    f" target takes {most}: open it with a larger max_payload_bytes"
                )

    def _found(self, storage: TransactingStorage, names: Iterable[str]) -> dict[str, Sent]:
        return {each.id: Sent.of(each) for each in storage.some(self.queue, list(names))}

    # -- keys ------------------------------------------------------------------------------------------

    def _keys(self, page: Sequence[StoredEntry]) -> tuple[dict[str, list[Operation]], dict[str, bytes]]:
        """By entry, what has the target know its key; and the keys that it has for another one, of its own.

        A key counts as long as the source knows it for that entry. A dead letter goes in any case: it tells
        what broke.
        """
        # More than one of a page may have the same key, of which the window of all but one has passed.
        keyed = [(each, name_of(self.queue, each.key)) for each in page if each.key is not None]
        if not keyed:
            return {}, {}
        names = list({name for _, name in keyed})
        here = {each.id: each for each in self._ends.source.some(KEYS, names)}
        there = {each.id: each for each in self._ends.target.some(KEYS, names)}
        new: dict[str, list[Operation]] = {}
        known: dict[str, bytes] = {}
        for entry, name in keyed:
            key, other = here.get(name), there.get(name)
            if key is None or meant_by(key.payload) != entry.id:
                continue
            if other is None or is_news(key, other) or is_elsewhere(other.payload):
                new[entry.id] = replaced(key, other, key.payload, self._ends.source_name)
            elif meant_by(other.payload) != entry.id and entry.status is not DEAD:
                known[entry.id] = other.payload
        return new, known

    def _end(self, ending: Sequence[StoredEntry], known: Mapping[str, bytes]) -> int:
        """Remove what the target has already, in other words or under the same key; how many that were.

        The source's key tells of that one from now on. Raises Overtaken if another run has noted something:
        then the target may have been emptied since.
        """
        if not ending:
            return 0
        if self.leaving.stage != MOVING:
            raise Overtaken
        names = {name_of(self.queue, str(each.key)): each.id for each in ending if each.id in known}
        keys: list[Operation] = []
        for key in self._ends.source.some(KEYS, list(names)):
            keys += replaced(key, key, elsewhere(known[names[key.id]]), self._ends.target_name)
        to = self._ends.target_name
        removals = [Remove(each.id, to=to, version=each.unheld().version) for each in ending]
        leaving = self.leaving.changed()
        changes: dict[str, list[Operation]] = {
            self.queue: [*removals],
            KEYS: keys,
            MIGRATIONS: leaving.written(),
        }
        try:
            self._ends.source.commit(without_empty(changes))
        except QueueError:
            if self._is_noted_anew():
                raise Overtaken from None
            return 0  # the time to live of one has passed; the next round looks again
        self.leaving = leaving
        self.known += known
        return len(ending)

    # -- what has arrived ------------------------------------------------------------------------------

    def settle(self) -> None:
        """See that the page that came last is in one of the two: in the target, if nothing forbids that.

        Raises Overtaken, StorageDamaged, and Apart if source and target do not go together.
        """
        while self.mark.last != self.leaving.settled:
            if self.leaving.is_apart(self.mark):
                self._look_again()
            elif self.leaving.has_kept(self.mark):
                self._remove_sent()
            else:
                self._take_back()

    def _remove_sent(self) -> None:
        """Remove the page from the source, if it has arrived."""
        self._verify()
        source, page = self._ends.source, self.mark.page
        sent = {each.id: each for each in page}
        found = [each for each in source.some(self.queue, list(sent)) if not _is_another(each, sent[each.id])]
        here = {each.id: Sent.of(each) for each in found}
        for each in page:
            # Its time to live may have passed; nothing else can have become of it.
            if not (each.is_same(here[each.id]) if each.id in here else each.expires_at is not None):
                self._look_again(f"entry {each.id} is not as it was sent; see what has become of it")
                return
        leaving = self.leaving.turned(MOVING, settled=self.mark.last)
        gone = departure(source, self.queue, found, self._ends.target_name)
        try:
            source.commit({**gone, MIGRATIONS: leaving.written()})
        except QueueError:
            # Or the time to live of an entry, or of a key, has passed just now.
            if not self._is_noted_anew() and self._is_in_vain():
                raise
        else:
            self.leaving, self._refused = leaving, 0

    def _take_back(self) -> None:
        """Take the page out of the target: the source was worked again since it was read there.

        What the target has worked or changed by then stays, and is named if it is in both.
        """
        target, sent = self._ends.target, {each.id: each for each in self.mark.page}
        found = target.some(self.queue, list(sent))
        back = [each for each in found if sent[each.id].is_same(Sent.of(each))]
        mark = self.mark.without([sent[each.id] for each in back])
        gone = departure(target, self.queue, back, self._ends.source_name)
        try:
            self._ends.write(gone, mark, self.mark)
        except QueueError:
            if self._is_in_vain():
                raise
            return
        self.mark = mark
        other = {each.id for each in found} - {each.id for each in back}
        both = [each.id for each in self._ends.source.some(self.queue, list(other))]
        self.stuck.update(dict.fromkeys(both, "it has changed in both storages"))

    def _look_again(self, why: str = "") -> None:
        """Know what another run has noted; raises Overtaken if that is a mark, and Apart if it is nothing."""
        self._ends.check_last(self.mark.migration, self.queue, self.mark)
        if not self._is_noted_anew():
            raise Apart.of(self._ends, self.queue, why)

    def _is_noted_anew(self) -> bool:
        """Whether another run has written the source's note; it is known then."""
        found = self._ends.sent_notes.leaving(self.queue)
        if found is None or found.number == self.leaving.number:
            return False
        self.leaving = found.seen_by(self.mark.migration)
        return True

    def _verify(self) -> None:
        """Read back what has arrived. Raises StorageDamaged if it is not what was sent."""
        target, page = self._ends.target, self.mark.page
        found = self._found(self._ends.check, (each.id for each in page))
        # Once it is worked there, anything may have become of an entry.
        is_still = migration_of(target.paused(self.queue)) == self.mark.migration
        now = target.clock.now()
        for sent in page:
            there = found.get(sent.id)
            if there is None or there.created_at != sent.created_at:
                # Its time to live has passed, and another one may have its id since.
                wrong = is_still and (sent.expires_at is None or sent.expires_at > now)
            else:
                wrong = (is_still or sent.is_same(there)) and there.checksum != sent.checksum
            if wrong:
                self._ends.check_last(self.mark.migration, self.queue, self.mark)
                raise StorageDamaged(
                    f"queue {self.queue}: entry {sent.id} is not read as it was written",
                    path=self._ends.target_name,
                    hint="nothing of this page was removed from the source; see to the target's disk",
                )


def _is_another(found: StoredEntry, sent: Sent) -> bool:
    """Whether the time to live of what was sent has passed, and another entry has its id since."""
    return sent.expires_at is not None and found.created_at != sent.created_at
