"""Entries that were given up, with their payload and history kept until someone decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, Generic, TypeVar

from duraq import options
from duraq.acts import PURGE, REMOVE, RETRY, UNDO, Act, Acts, Outcome, new_id
from duraq.clock import from_timedelta, to_datetime
from duraq.errors import ActNotFound, EntryNotFound, InvalidOption, QueueNotFound
from duraq.model import EntryStatus, QueueEntry
from duraq.operations import Requeue
from duraq.payload import PayloadCodec
from duraq.queue import Queue
from duraq.storage.base import Storage, StoredEntry
from duraq.where import Where

T = TypeVar("T")

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
            return self._queue.entries(EntryStatus.DEAD, limit=limit, offset=offset)
        if limit is not None:
            options.positive("limit", limit)
        chosen = _filter(where)
        matching = (entry for entry in self._queue.entries(EntryStatus.DEAD) if chosen.matches(entry))
        return [*islice(matching, options.offset(offset), None if limit is None else offset + limit)]

    def retrieve(self, entry_id: str | None = None) -> QueueEntry[T] | None:
        """That dead letter, or the oldest; None if there is none."""
        if entry_id is None:
            return next(iter(self.list(limit=1)), None)
        try:
            entry = self._queue.get(entry_id)
        except (EntryNotFound, QueueNotFound):
            return None
        return entry if entry.status is EntryStatus.DEAD else None

    # -- putting back ----------------------------------------------------------------------------------

    def retry(self, entry_id: str, *, keep_attempts: bool = False, data: T = UNCHANGED) -> None:
        """Put one back into its queue, its history kept and, unless ``keep_attempts``, its count at 0.

        ``data``: from now on it has this payload. Raises EntryNotFound if it is not among the dead letters,
        and InvalidPayload.
        """
        payload = None if data is UNCHANGED else self._codec.encode(data)
        self._storage.commit({self.name: [Requeue(entry_id, keep_attempts, payload=payload)]})

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
        return self._carry_out(
            self.begin_retry(self._known(entry_ids), keep_attempts=keep_attempts, act=act, reason=reason)
        )

    def retry_all(
        self,
        *,
        where: Where | str | None = None,
        keep_attempts: bool = False,
        act: str | None = None,
        reason: str = "",
    ) -> int:
        """Put back everything that is dead now, or what of it matches; returns how many."""
        chosen, text = self._matching(where)
        begun = self.begin_retry(chosen, keep_attempts=keep_attempts, act=act, reason=reason, where=text)
        return self._carry_out(begun)

    # -- removing --------------------------------------------------------------------------------------

    def remove(self, entry_id: str, *, reason: str = "") -> str:
        """Remove one; returns the act, under which ``undo`` brings it back within seven days.

        Raises EntryNotFound if it is not among the dead letters.
        """
        act = self._act(REMOVE, None, reason, count=1)
        self._acts.remove_one(act, entry_id)
        return act.id

    def remove_many(self, entry_ids: Iterable[str], *, act: str | None = None, reason: str = "") -> int:
        """Remove these, in batches that are each whole or not at all; returns how many. See ``undo``.

        Raises EntryNotFound, and does nothing, if one is not among the dead letters.
        """
        return self._carry_out(self.begin_remove(self._known(entry_ids), act=act, reason=reason))

    def remove_all(
        self, *, where: Where | str | None = None, act: str | None = None, reason: str = ""
    ) -> int:
        """Remove everything that is dead now, or what of it matches; returns how many. See ``undo``."""
        chosen, text = self._matching(where)
        return self._carry_out(self.begin_remove(chosen, act=act, reason=reason, where=text))

    def purge_older_than(
        self,
        age: timedelta,
        *,
        where: Where | str | None = None,
        act: str | None = None,
        reason: str = "",
    ) -> int:
        """Remove for good what died longer ago than ``age``, or what of it matches; returns how many."""
        if not isinstance(age, timedelta) or age < timedelta(0):
            raise InvalidOption(f"age must be a timedelta of 0 or more, not {age!r}")
        before = self._storage.clock.now() - from_timedelta(age)
        matches = None if where is None else _filter(where)
        chosen = [
            stored.id
            for stored in self._dead()
            if stored.updated_at <= before and (matches is None or matches.matches_stored(self.name, stored))
        ]
        text = "" if matches is None else str(matches)
        return self._carry_out(self.begin_purge(chosen, act=act, reason=reason, where=text))

    def undo(self, act: str | None = None, *, reason: str = "") -> int:
        """Bring back what that act, or the last that removed any here, has removed; returns how many.

        Each is a dead letter again, as it was. One whose id is in use again stays removed. Raises ActNotFound
        if there is none, or it is older than seven days, and InvalidOption if it did not remove.
        """
        return sum(outcome.error is None for outcome in self.begin_undo(act, reason=reason)[1])

    # -- step by step ----------------------------------------------------------------------------------

    def acts(self) -> Sequence[Act]:
        """What was done to many, or removed, in the last seven days, oldest first."""
        return self._acts.all(self.name)

    def begin_retry(
        self,
        entry_ids: Iterable[str] | None,
        *,
        keep_attempts: bool = False,
        act: str | None = None,
        reason: str = "",
        where: str = "",
    ) -> Act:
        """Write down that these (None: all) are to be put back; ``carry_out`` does it.

        What is no dead letter, then, is passed over. If there is an act of this id it is that one, and means
        what it meant.
        """
        meant = self._act(RETRY, act, reason, where=where, keep_attempts=keep_attempts)
        return self._plan(meant, entry_ids)

    def begin_remove(
        self, entry_ids: Iterable[str] | None, *, act: str | None = None, reason: str = "", where: str = ""
    ) -> Act:
        """Write down that these (None: all) are to be removed; see ``begin_retry``."""
        return self._plan(self._act(REMOVE, act, reason, where=where), entry_ids)

    def begin_purge(
        self, entry_ids: Iterable[str] | None, *, act: str | None = None, reason: str = "", where: str = ""
    ) -> Act:
        """Write down that these (None: all) are to be removed for good; see ``begin_retry``."""
        return self._plan(self._act(PURGE, act, reason, where=where), entry_ids)

    def carry_out(self, act: Act) -> Iterator[Outcome]:
        """Do what was written down, batch by batch, and say what became of each entry.

        What was done before, or what somebody else was quicker with, is passed over.
        """
        return self._acts.carry_out(act)

    def begin_undo(self, act: str | None = None, *, reason: str = "") -> tuple[Act, Iterator[Outcome]]:
        """The act that is undone, and what becomes of each entry as it is; see ``undo``."""
        if act is None:
            removals = [each for each in self.acts() if each.verb == REMOVE]
            if not removals:
                raise ActNotFound(f"nothing was removed from the dead letters of {self.name}")
            undone = removals[-1]
        else:
            undone = self._acts.get(act)
            if undone.queue != self.name:
                raise InvalidOption(f"act {act!r} is one on queue {undone.queue}, not {self.name}")
        undoing = self._act(UNDO, None, reason, count=undone.count, of=undone.id)
        return undone, self._acts.undo(undone, undoing)

    def _act(self, verb: str, act_id: str | None, reason: str, **more: Any) -> Act:
        at = to_datetime(self._storage.clock.now())
        reason = options.text("reason", reason)
        more = {"count": 0, **more}
        return Act(act_id or new_id(), verb, self.name, who=options.user(), at=at, reason=reason, **more)

    def _plan(self, act: Act, entry_ids: Iterable[str] | None) -> Act:
        return self._acts.plan(act, (each.id for each in self._dead()) if entry_ids is None else entry_ids)

    def _matching(self, where: Where | str | None) -> tuple[Iterable[str] | None, str]:
        """The dead letters that match (None: all), and the filter as text."""
        if where is None:
            return None, ""
        chosen = _filter(where)
        found = (each.id for each in self._dead() if chosen.matches_stored(self.name, each))
        return found, str(chosen)

    def _known(self, entry_ids: Iterable[str]) -> Iterator[str]:
        for entry_id in entry_ids:
            self._acts.check(self.name, entry_id)
            yield entry_id

    def _dead(self) -> Sequence[StoredEntry]:
        return self._storage.entries(self.name, EntryStatus.DEAD)

    def _carry_out(self, act: Act) -> int:
        return sum(outcome.error is None for outcome in self.carry_out(act))


def _filter(where: Where | str) -> Where:
    return where if isinstance(where, Where) else Where.parse(where)
