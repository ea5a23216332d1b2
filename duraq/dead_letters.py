"""Entries that were given up, with their payload and history kept until someone decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, Generic, TypeVar

from duraq import options
from duraq.acts import EDIT, PURGE, REMOVE, RETRY, UNDO, Act, Acts, Letter, Outcome
from duraq.clock import from_timedelta
from duraq.errors import ActNotFound, EntryNotFound, InvalidOption, QueueNotFound
from duraq.model import EntryStatus, QueueEntry
from duraq.operations import Requeue
from duraq.payload import PayloadCodec
from duraq.queue import Queue
from duraq.storage.base import Storage, StoredEntry
from duraq.where import Where

T = TypeVar("T")

# So many dead letters, or payloads and errors of so many bytes, are read at once.
_PAGE, _PAGE_BYTES = 500, 1 << 20

UNCHANGED: Any = object()  # stands for the payload that an entry has


class DeadLetterQueue(Generic[T]):
    """The dead letters of one queue. Nothing is ever dropped from it on its own.

    What is done to many is an act: which entries it means is written down before the first is touched, and an
    act that was interrupted is carried out again, and does nothing twice, if it is called with the same
    ``act``, an id of the caller's own. What dies in the meantime is not touched.
    """

    def __init__(self, name: str, payload_type: type[T] | Any, storage: Storage) -> None:
        self._queue: Queue[T] = Queue(name, storage, payload_type)
        self._codec: PayloadCodec[T] = PayloadCodec(payload_type, storage.max_payload_bytes)
        self._storage = storage
        self._acts = Acts(storage)
        self.name = self._queue.name

    def __repr__(self) -> str:
        return f"<DeadLetterQueue of {self.name!r}>"

    def __len__(self) -> int:
        return self._storage.counts(self.name).dead

    def __bool__(self) -> bool:
        # The object stands for the queue, empty or not.
        return True

    # -- looking ---------------------------------------------------------------------------------------

    def list(
        self, limit: int | None = None, offset: int = 0, *, where: Where | str | None = None
    ) -> list[QueueEntry[T]]:
        """Dead letters in enqueue order, with payload, attempts and every attempt's error.

        ``where``: only those that match; ``limit`` and ``offset`` then count these. Raises InvalidFilter.
        """
        if where is None:
            return _ended(self._queue.entries(EntryStatus.DEAD, limit=limit, offset=offset))
        if limit is not None:
            options.positive("limit", limit)
        chosen = _filter(where)
        matching = (
            self._queue._seen(each)  # noqa: SLF001 - the letters are the queue's
            for each in self._letters()
            if chosen.matches_stored(self.name, each)
        )
        return _ended(islice(matching, options.offset(offset), None if limit is None else offset + limit))

    def retrieve(self, entry_id: str | None = None) -> QueueEntry[T] | None:
        """That dead letter, or the oldest; None if there is none."""
        if entry_id is None:
            return next(iter(self.list(limit=1)), None)
        try:
            entry = self._queue.get(entry_id)
        except (EntryNotFound, QueueNotFound):
            return None
        return _ended([entry])[0] if entry.status is EntryStatus.DEAD else None

    # -- putting back ----------------------------------------------------------------------------------

    def retry(
        self,
        entry_id: str,
        *,
        keep_attempts: bool = False,
        data: T = UNCHANGED,
        token: int = 0,
        reason: str = "",
    ) -> None:
        """Put one back into its queue, its history kept and, unless ``keep_attempts``, its count at 0.

        ``data``: from now on it has this payload; that is an act, with a ``reason``. ``token``: that of the
        lease it died in, as an EntryView has it; not if it was put back since and has died again, so that
        nobody's change is lost. Raises EntryNotFound if it is not among the dead letters, and InvalidPayload.
        """
        if data is UNCHANGED:
            self._storage.commit({self.name: [Requeue(entry_id, keep_attempts, token=token)]})
            return
        where = f"id={entry_id}"
        act = self._acts.new(EDIT, self.name, reason=reason, where=where, keep_attempts=keep_attempts)
        self._acts.edit(act, entry_id, self._codec.encode(data), token)

    def retry_many(
        self,
        entry_ids: Iterable[str],
        *,
        keep_attempts: bool = False,
        act: str | None = None,
        reason: str = "",
    ) -> int:
        """Put these back, in batches that are each whole or not at all; returns how many.

        Raises EntryNotFound, and does nothing, if one is not among the dead letters.
        """
        meant = self._acts.new(RETRY, self.name, act, reason=reason, keep_attempts=keep_attempts)
        return self._do(meant, self._named(entry_ids))

    def retry_all(
        self,
        *,
        where: Where | str | None = None,
        keep_attempts: bool = False,
        act: str | None = None,
        reason: str = "",
    ) -> int:
        """Put back everything that is dead now, or what of it matches; returns how many.

        In batches that are each whole or not at all. Raises InvalidFilter, or InvalidOption for ``act``.
        """
        chosen, text = self._matching(where)
        more: dict[str, Any] = {"where": text, "keep_attempts": keep_attempts}
        return self._do(self._acts.new(RETRY, self.name, act, reason=reason, **more), chosen)

    # -- removing --------------------------------------------------------------------------------------

    def remove(self, entry_id: str, *, reason: str = "") -> str:
        """Remove one; returns the act, under which ``undo`` brings it back within seven days.

        Raises EntryNotFound if it is not among the dead letters.
        """
        act = self._acts.new(REMOVE, self.name, reason=reason)
        self._acts.remove_one(act, entry_id)
        return act.id

    def remove_many(self, entry_ids: Iterable[str], *, act: str | None = None, reason: str = "") -> int:
        """Remove these, in batches that are each whole or not at all; returns how many. See ``undo``.

        Raises EntryNotFound, and does nothing, if one is not among the dead letters.
        """
        return self._do(self._acts.new(REMOVE, self.name, act, reason=reason), self._named(entry_ids))

    def remove_all(
        self, *, where: Where | str | None = None, act: str | None = None, reason: str = ""
    ) -> int:
        """Remove everything that is dead now, or what of it matches; returns how many. See ``undo``.

        In batches that are each whole or not at all. Raises InvalidFilter, or InvalidOption for ``act``.
        """
        chosen, text = self._matching(where)
        return self._do(self._acts.new(REMOVE, self.name, act, reason=reason, where=text), chosen)

    def purge_older_than(
        self,
        age: timedelta,
        *,
        where: Where | str | None = None,
        act: str | None = None,
        reason: str = "",
    ) -> int:
        """Remove for good what died longer ago than ``age``, or what of it matches; returns how many.

        In batches that are each whole or not at all. Raises InvalidFilter, or InvalidOption for ``age`` or
        ``act``.
        """
        if not isinstance(age, timedelta) or age < timedelta(0):
            raise InvalidOption(f"age must be a timedelta of 0 or more, not {age!r}")
        before = self._storage.clock.now() - from_timedelta(age)
        chosen, text = self._matching(where, before)
        return self._do(self._acts.new(PURGE, self.name, act, reason=reason, where=text), chosen)

    def undo(self, act: str | None = None, *, reason: str = "") -> int:
        """Bring back what that act, or the last that removed any here, has removed; returns how many.

        Each is a dead letter again, as it was. One whose id is in use again stays removed. Raises ActNotFound
        if there is none, or it is older than seven days, and InvalidOption if it did not remove.
        """
        return sum(outcome.error is None for outcome in self.undoing(act, reason=reason))

    def undoing(
        self, act: str | None = None, *, reason: str = "", go_on: Callable[[], bool] = lambda: True
    ) -> Iterator[Outcome]:
        """The same, batch by batch; says what becomes of each entry as it is iterated over.

        ``go_on`` is asked before each batch but the first; what is left then can be undone another time.
        """
        if act is None:
            removals = [each for each in self.acts() if each.verb == REMOVE]
            if not removals:
                raise ActNotFound(f"nothing was removed from the dead letters of {self.name}")
            undone = removals[-1]
        else:
            undone = self._acts.get(act)
            if undone.queue != self.name:
                raise InvalidOption(f"act {act!r} is one on queue {undone.queue}, not {self.name}")
        more: dict[str, Any] = {"count": undone.count, "of": undone.id}
        return self._acts.undo(undone, self._acts.new(UNDO, self.name, reason=reason, **more), go_on)

    def acts(self) -> Sequence[Act]:
        """What was done to many, or removed, in the last seven days, oldest first."""
        return self._acts.all(self.name)

    # -- inside ----------------------------------------------------------------------------------------

    def _do(self, act: Act, letters: Iterable[Letter]) -> int:
        """Plan it, or go on with what was planned under that id; returns how many it was done to."""
        (planned,) = self._acts.plan([(act, letters)])
        return sum(outcome.error is None for outcome in self._acts.carry_out(planned))

    def _named(self, entry_ids: Iterable[str]) -> Iterator[Letter]:
        for entry_id in entry_ids:
            yield entry_id, self._acts.check(self.name, entry_id).last_token

    def _letters(self) -> Iterator[StoredEntry]:
        """All dead letters in enqueue order, a page at a time: nobody is held up while a million are read."""
        behind = 0
        while page := self._storage.page(self.name, behind, _PAGE, _PAGE_BYTES, EntryStatus.DEAD):
            yield from page
            behind = page[-1].seq

    def _matching(self, where: Where | str | None, before: int | None = None) -> tuple[Iterator[Letter], str]:
        """The dead letters that match, and died before; and the filter as text."""
        chosen = None if where is None else _filter(where)
        found = (
            (each.id, each.last_token)
            for each in self._letters()
            if (before is None or each.updated_at <= before)
            and (chosen is None or chosen.matches_stored(self.name, each))
        )
        return found, "" if chosen is None else str(chosen)


def _filter(where: Where | str) -> Where:
    return where if isinstance(where, Where) else Where.parse(where)


def _ended(found: Iterable[QueueEntry[T]]) -> list[QueueEntry[T]]:
    letters = [*found]
    for each in letters:
        each.max_attempts = None  # how many it had was for those to say who worked it
    return letters
