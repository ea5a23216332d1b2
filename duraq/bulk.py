"""What is done to many dead letters at once, in whichever queues they are, under one name.

An act is about one queue (``duraq.acts``). Here one name stands for an act of each queue: all of them are
written down together, so that whoever is killed has begun with everything or with nothing, and carried out
one after the other, as fast as is wanted, and only as long as what was put back does not fail again.

The number that is shown is the number that is meant: it was written down, and what dies later is not touched.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from math import inf
from typing import Any, NamedTuple, Self

from duraq.acts import BATCH, MOVE, REMOVE, RETRY, Act, Acts, Letter, Outcome
from duraq.clock import from_datetime
from duraq.errors import ActNotFound, EntryNotFound, InvalidOption, QueueNotFound
from duraq.model import EntryStatus, last_failure
from duraq.most_first import most_first
from duraq.options import entry_id
from duraq.storage.base import Storage
from duraq.views import EntryView

LONGEST_NAME = 64
TOP = 3  # error types that are named
# Of fewer that have ended again the share that failed says nothing yet; but if so many have failed it does:
# workers pause after failures in a row, so that where nothing succeeds few have ended for a long time.
ENOUGH, ENOUGH_FAILED = 10, 5
# So many of those put back last are watched; those before them have shown how they do.
_WATCHED = 1000
_BATCHES = 4  # a second, if there is a rate: small ones, so that whatever stops it stops it soon


# -- what is meant -----------------------------------------------------------------------------------------


@dataclass
class Meant:
    """Dead letters that somebody means: which, by queue, and what they died of. Holds no payloads."""

    letters: dict[str, list[Letter]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, found: Iterable[EntryView], most: int | None = None) -> Self:
        """These, or the first so many of them."""
        self = cls()
        for view in islice(found, most):
            self.letters.setdefault(view.queue, []).append((view.id, view.token))
            last = last_failure(view.history)
            if last is not None:
                self.errors[last.error.type] += 1
        return self

    @property
    def queues(self) -> dict[str, int]:
        """How many in which queue."""
        return {queue: len(letters) for queue, letters in self.letters.items()}

    @property
    def count(self) -> int:
        """How many in all."""
        return sum(self.queues.values())

    def __str__(self) -> str:
        """The exact number, where they are, and what they died of."""
        return in_words(self.queues, self.errors)


def in_words(queues: dict[str, int], errors: Counter[str]) -> str:
    """So many dead letters, for whoever is asked whether these are meant."""
    count = sum(queues.values())
    text = "1 dead letter" if count == 1 else f"{count} dead letters"
    if queues:
        text += f" in {', '.join(f'{name} ({number})' for name, number in queues.items())}"
    if errors:
        text += f", died of {', '.join(f'{kind} ({number})' for kind, number in most_first(errors)[:TOP])}"
        if len(errors) > TOP:
            text += f" and {len(errors) - TOP} more"
    return text


# -- acts of one name --------------------------------------------------------------------------------------


def check_name(name: str) -> str:
    """The name itself, if acts can have it; else InvalidOption."""
    if len(entry_id(name)) > LONGEST_NAME or "/" in name:
        raise InvalidOption(f"act {name!r} is longer than {LONGEST_NAME} characters, or has a / in it")
    return name


def act_id(name: str, queue: str) -> str:
    """The id of the act on that queue."""
    # The queue's name itself may be too long.
    return f"{name}:{blake2b(queue.encode(), digest_size=4).hexdigest()}"


def name_of(act: Act) -> str:
    """The name that an act goes by, beside those on other queues; its id, if it has no such name."""
    return act.id.removesuffix(act_id("", act.queue))


def begun(acts: Acts, name: str) -> list[Act]:
    """What was begun under one name: an act for each queue."""
    return [act for act in acts.all() if act.id == act_id(name, act.queue)]


def last_removal(acts: Acts) -> str:
    """The name of what removed any dead letters last. Raises ActNotFound."""
    for act in reversed(acts.all()):
        if act.verb == REMOVE:
            return name_of(act)
    raise ActNotFound("no dead letters were removed in the last seven days, or they were purged")


def plan(acts: Acts, verb: str, name: str, meant: Meant, **more: Any) -> list[Act]:
    """Write down what is to be done to them, all of it together: an act for each queue.

    ``more``: what an act says besides: ``reason``, ``where``, ``keep_attempts``, and ``to`` of a move.
    """
    check_name(name)
    return acts.plan(
        (acts.new(verb, queue, act_id(name, queue), **more), letters)
        for queue, letters in meant.letters.items()
    )


# -- carrying out ------------------------------------------------------------------------------------------


class Pace(NamedTuple):
    """How carefully it is done.

    ``rate``: so many a second. ``failing``: stop if more than that share (0 to 1) of those that were put
    back, and have ended since, has failed again; it needs a rate, or all are back before the first has ended.
    """

    rate: float | None = None
    failing: float | None = None

    def check(self, verb: str) -> Self:
        """The pace itself, if that can be done so; else InvalidOption."""
        if self.rate is not None and not 0 < self.rate < inf:
            raise InvalidOption(f"a rate is a number above 0 a second, not {self.rate:g}")
        if self.failing is not None:
            if verb not in {RETRY, MOVE}:
                raise InvalidOption("only what is put back can fail again")
            if not 0 <= self.failing <= 1:
                raise InvalidOption(
                    f"a share of those that fail is between 0 and 100 %, not {self.failing * 100:g}"
                )
            if self.rate is None:
                raise InvalidOption("to stop if it fails again it must be put back at a rate")
        return self


AT_ONCE = Pace()


class BulkRun:
    """Planned acts, carried out while this is iterated over: each act with what became of one dead letter.

    Whoever stops iterating stops it; it goes on another time. ``done``: how many it was done to;
    ``passed_over``: how many not; ``failed`` of ``ended``: if that is watched, how many of those put back
    have failed again, of how many that have ended since; ``stopped``: why it ended early by itself.
    """

    def __init__(
        self,
        storage: Storage,
        planned: Sequence[Act],
        pace: Pace = AT_ONCE,
        *,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """``wait`` sleeps for so many seconds."""
        self.planned = planned
        self.count = sum(act.count for act in planned)
        self.done = self.passed_over = self.failed = self.ended = 0
        self.stopped: str | None = None
        self._storage = storage
        self._acts = Acts(storage)
        for act in planned:
            pace.check(act.verb)
        self._pace = pace
        self._wait = wait
        self._watch = Watch(storage)
        self._began = 0.0

    def __iter__(self) -> Iterator[tuple[Act, Outcome]]:
        rate, clock = self._pace.rate, self._storage.clock
        at_once = BATCH if rate is None else max(1, min(BATCH, int(rate / _BATCHES)))
        self._began = time.monotonic()
        for act in self.planned:
            since, back = clock.now(), list[str]()
            for number, outcome in enumerate(self._acts.carry_out(act, at_once), 1):
                if outcome.error is None:
                    self.done += 1
                    back.append(outcome.id)
                else:
                    self.passed_over += 1
                yield act, outcome
                # A batch is over: the next one is not begun yet.
                if number % at_once == 0:
                    if not self._may_go_on(act, since, back):
                        return
                    since, back = clock.now(), []
            if not self._may_go_on(act, since, back):
                return

    def stop(self, why: str) -> None:
        """Begin no other batch; the one at hand is gone through to its end. From any thread."""
        self.stopped = why

    def _may_go_on(self, act: Act, since: int, back: Sequence[str]) -> bool:
        """Whether there is to be another batch, and then when: returns once it is time."""
        rate, failing = self._pace
        if rate is not None:
            self._wait(max(0.0, self._began + self.done / rate - time.monotonic()))
        if failing is None or self.stopped is not None:
            return self.stopped is None
        self._watch.add(act.to or act.queue, since, back)
        self.failed, self.ended = self._watch.look()
        is_over = self.done + self.passed_over >= self.count
        is_enough = self.ended >= ENOUGH or self.failed >= ENOUGH_FAILED
        if not is_over and is_enough and self.failed > failing * self.ended:
            self.stopped = (
                f"{self.failed} of {self.ended} that were put back, and have ended since, failed again"
            )
        return self.stopped is None


class Watch:
    """What becomes of entries that were put back: of those put back last, how many fail again."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._open: dict[tuple[str, str], int] = {}  # since when, of those that have not ended yet
        self._failed = self._ended = 0

    def add(self, queue: str, since: int, ids: Iterable[str]) -> None:
        """These were put back into that queue, at that time or later."""
        self._open.update({(queue, each): since for each in ids})
        while len(self._open) > _WATCHED:
            del self._open[next(iter(self._open))]

    def look(self) -> tuple[int, int]:
        """How many have failed again, of how many whose attempt has ended since."""
        for (queue, each), since in list(self._open.items()):
            failed = self._has_failed(queue, each, since)
            if failed is not None:
                del self._open[queue, each]
                self._ended += 1
                self._failed += failed
        return self._failed, self._ended

    def _has_failed(self, queue: str, each: str, since: int) -> bool | None:
        """Whether its first attempt since has failed; None if it has not ended."""
        try:
            stored = self._storage.get(queue, each)
        except (EntryNotFound, QueueNotFound):
            return False  # it is over, and no dead letter
        last = last_failure(stored.history)
        if stored.status is EntryStatus.DEAD or (last is not None and from_datetime(last.ended_at) > since):
            return True
        return None
