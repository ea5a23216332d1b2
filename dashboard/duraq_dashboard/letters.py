"""The dead letters of all queues, in a few numbers each: sorted, grouped by what they died of, and filtered.

A million of them are some arrays and no objects. What the numbers do not tell, an id or a message, is fetched
for the rows that are on the screen. All of this is made in a thread that answers questions, piece by piece,
and what is made never changes. Knows no Textual.
"""

from __future__ import annotations

import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from duraq.clock import from_datetime, to_datetime
from duraq.dead_index import Cause, DeadIndex
from duraq.errors import QueueError, StorageError
from duraq.inspector import Inspector
from duraq.views import EntryView
from duraq.where import Term, Where
from duraq_dashboard.rows import Cells, Key

# A letter's key: the number of its queue, and of its enqueue there.
_ORDER_BITS = 48
_ORDER_MASK = (1 << _ORDER_BITS) - 1
DAY = timedelta(days=1)
HOURS = 24
SLICE = 0.05  # seconds that a search takes the thread for; others have questions, too
_AT_ONCE = 64  # letters that are fetched together

SORTS = ("died", "oldest", "queue", "attempts", "error")


class Queues:
    """Numbers for queues, the same for as long as this is kept."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def number(self, name: str) -> int:
        """The number of that queue."""
        if name not in self._numbers:
            self._numbers[name] = len(self._names)
            self._names.append(name)
        return self._numbers[name]

    def split(self, key: int) -> tuple[str, int]:
        """The queue of a key, and the number of the letter's enqueue there."""
        return self._names[key >> _ORDER_BITS], key & _ORDER_MASK


class Letters:
    """All dead letters at one moment. Each has a number, from 0, which is only good here."""

    def __init__(self, indexes: Iterable[DeadIndex], queues: Queues, problems: Mapping[str, str]) -> None:
        self.indexes = tuple(index for index in indexes if len(index))
        self.queues = queues
        self.problems = problems  # of queues that cannot be read
        self._numbers = [queues.number(index.queue) << _ORDER_BITS for index in self.indexes]
        self._ends = list(accumulate(map(len, self.indexes)))
        self._by_key: array[int] | None = None

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def place(self, number: int) -> tuple[DeadIndex, int]:
        """Where that letter is."""
        which = bisect_right(self._ends, number)
        return self.indexes[which], number - (self._ends[which - 1] if which else 0)

    def key(self, number: int) -> int:
        """What tells that letter from all others, at any moment."""
        which = bisect_right(self._ends, number)
        place = number - (self._ends[which - 1] if which else 0)
        return self._numbers[which] | self.indexes[which].orders[place]

    def number(self, key: int) -> int | None:
        """The number of the letter of that key; None if it is dead no more."""
        by_key = self.by_key
        at = bisect_left(by_key, key, key=self.key)
        return by_key[at] if at < len(by_key) and self.key(by_key[at]) == key else None

    @property
    def by_key(self) -> array[int]:
        """All numbers, by key."""
        if self._by_key is None:
            self._by_key = array("I", sorted(range(len(self)), key=list(self._each(self._keys)).__getitem__))
        return self._by_key

    def each_index(self) -> Iterator[tuple[DeadIndex, range]]:
        """Each index with the numbers of its letters."""
        start = 0
        for index, end in zip(self.indexes, self._ends, strict=True):
            yield index, range(start, end)
            start = end

    def in_order(self, sort: str) -> array[int]:
        """All numbers in that order; those that are equal in it as they died, the last first."""
        numbers: Sequence[int] = sorted(range(len(self)), key=self._values("died"), reverse=True)
        if sort == "oldest":
            numbers = numbers[::-1]
        elif sort != "died":
            numbers = sorted(numbers, key=self._values(sort))
        return array("I", numbers)

    def _values(self, sort: str) -> Callable[[int], Any]:
        """The value of each letter that it is sorted by."""
        of: dict[str, Callable[[DeadIndex], Iterable[Any]]] = {
            "died": lambda index: index.died,
            "queue": lambda index: (index.queue,) * len(index),
            "attempts": lambda index: (-each for each in index.attempts),
            "error": self._errors,
        }
        return list(self._each(of[sort])).__getitem__

    def _each(self, of: Callable[[DeadIndex], Iterable[Any]]) -> Iterator[Any]:
        for index in self.indexes:
            yield from of(index)

    def _keys(self, index: DeadIndex) -> Iterable[Any]:
        number = self.queues.number(index.queue) << _ORDER_BITS
        return (number | order for order in index.orders)

    @staticmethod
    def _errors(index: DeadIndex) -> Iterable[Any]:
        causes = index.causes
        return (causes[each][::-1] for each in index.cause)


@dataclass(frozen=True, slots=True)
class Group:
    """Letters that died of the same. ``hours``: how many did in each of the last 24, the present one last."""

    cause: Cause
    letters: int
    first: datetime
    last: datetime
    newest: int  # the number of the one that died last
    hours: tuple[int, ...] = ()


class Choice:
    """Some of the letters, in an order: the rows of a list. ``numbers``: theirs."""

    def __init__(self, letters: Letters, numbers: array[int]) -> None:
        self.letters = letters
        self.numbers = numbers
        self._places: array[int] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def key(self, number: int) -> Key:
        return self.letters.key(self.numbers[number])

    def find(self, key: Key) -> int | None:
        assert isinstance(key, int)
        found = self.letters.number(key)
        if found is None:
            return None
        place = self.places[found]
        return place - 1 if place else None

    def cells(self, number: int) -> Cells | None:  # noqa: ARG002 - none of them is here
        return None

    def still(self, keys: set[Key]) -> set[Key]:
        if len(keys) * 16 > len(self):
            return keys.intersection(map(self.key, range(len(self))))
        return {key for key in keys if self.find(key) is not None}

    @property
    def places(self) -> array[int]:
        """Of each letter: one more than where it stands in this order; 0 if it is none of these."""
        if self._places is None:
            self._places = array("I", bytes(4 * len(self.letters)))
            for place, number in enumerate(self.numbers, start=1):
                self._places[number] = place
        return self._places

    def of_cause(self, cause: Cause) -> Choice:
        """Those of them that died of that."""
        wanted = {
            id(index): {number for number, each in enumerate(index.causes) if each == cause}
            for index in self.letters.indexes
        }
        found = array("I")
        for number in self.numbers:
            index, place = self.letters.place(number)
            if index.cause[place] in wanted[id(index)]:
                found.append(number)
        return Choice(self.letters, found)

    def groups(self, now: datetime) -> list[Group]:
        """What they died of, what most died of first."""
        counts: Counter[Cause] = Counter()
        first: dict[Cause, int] = {}
        last: dict[Cause, int] = {}
        hours: dict[Cause, list[int]] = {}
        end = from_datetime(now)
        causes = {id(index): index.causes for index in self.letters.indexes}
        for number in self.numbers:
            index, place = self.letters.place(number)
            cause, died = causes[id(index)][index.cause[place]], index.died[place]
            counts[cause] += 1
            if cause not in last or died > self._died(last[cause]):
                last[cause] = number
            if cause not in first or died < self._died(first[cause]):
                first[cause] = number
            hour = (end - died) // 3_600_000_000
            if hour < HOURS:
                hours.setdefault(cause, [0] * HOURS)[HOURS - 1 - max(0, hour)] += 1
        return [
            Group(
                cause,
                letters,
                to_datetime(self._died(first[cause])),
                to_datetime(self._died(last[cause])),
                last[cause],
                tuple(hours.get(cause, ())),
            )
            for cause, letters in counts.most_common()
        ]

    def _died(self, number: int) -> int:
        index, place = self.letters.place(number)
        return index.died[place]


# -- gathering ---------------------------------------------------------------------------------------------


def gather(
    inspector: Inspector,
    queues: Queues,
    before: Letters | None,
    stop: threading.Event,
    tell: Callable[[int], None],
) -> Letters | None:
    """All dead letters there are; None if it was stopped. ``tell``: how many have been counted so far.

    A queue that cannot be read keeps only itself out, and is among the problems.
    """
    known = {} if before is None else {index.queue: index for index in before.indexes}
    found: list[DeadIndex] = []
    problems: dict[str, str] = {}
    counted = 0
    for name in inspector.queues():
        try:
            index = inspector.dead_index(
                name,
                stop=stop,
                before=known.get(name),
                progress=lambda so_far, _: tell(counted + len(so_far)),  # noqa: B023 - called within the loop
            )
        except (StorageError, QueueError) as error:
            problems[name] = str(error)
            continue
        if index is None:
            return None
        counted += len(index)
        found.append(index)
    letters = Letters(found, queues, problems)
    # Here, and not where a frame is drawn.
    assert len(letters.by_key) == len(letters)
    return letters


def fetch(inspector: Inspector, letters: Letters, keys: Iterable[int]) -> dict[int, EntryView]:
    """The letters of these keys, in full; those that are dead no more are left out."""
    by_index: dict[str, tuple[DeadIndex, list[int], list[int]]] = {}
    for key in keys:
        number = letters.number(key)
        if number is None:
            continue
        index, place = letters.place(number)
        _, chosen, places = by_index.setdefault(index.queue, (index, [], []))
        chosen.append(key)
        places.append(place)
    found: dict[int, EntryView] = {}
    for index, chosen, places in by_index.values():
        views = inspector.letters(index, places)
        found.update((key, view) for key, view in zip(chosen, views, strict=True) if view is not None)
    return found


# -- filtering ---------------------------------------------------------------------------------------------


@dataclass
class Search:
    """Which of the letters a filter means. What the numbers tell is answered at once; else each is read.

    It goes on a slice at a time; ``found`` has those that match so far, in order.
    """

    letters: Letters
    where: Where | None
    order: array[int]
    found: array[int] = field(default_factory=lambda: array("I"))
    looked_at: int = 0
    candidates: array[int] = field(init=False)
    gone: int = 0  # letters that were dead no more when they were read

    def __post_init__(self) -> None:
        terms = () if self.where is None else self.where.terms
        cheap = [term for term in terms if term.field.name in _IN_INDEX]
        self._is_cheap = len(cheap) == len(terms)
        self.candidates = self._admitted(cheap) if cheap else self.order
        if self._is_cheap:
            self.found, self.looked_at = self.candidates, len(self.candidates)

    @property
    def is_over(self) -> bool:
        """Whether all were looked at."""
        return self.looked_at >= len(self.candidates)

    def step(self, inspector: Inspector, stop: threading.Event, slice_: float = SLICE) -> None:
        """Look at some more."""
        assert self.where is not None
        until = time.monotonic() + slice_
        while not self.is_over and not stop.is_set() and time.monotonic() < until:
            batch = self.candidates[self.looked_at : self.looked_at + _AT_ONCE]
            keys = {self.letters.key(number): number for number in batch}
            views = fetch(inspector, self.letters, keys)
            self.gone += len(keys) - len(views)
            for key, number in keys.items():
                view = views.get(key)
                if view is not None and self.where.matches(view):
                    self.found.append(number)
            self.looked_at += len(batch)

    def _admitted(self, terms: Sequence[Term]) -> array[int]:
        """Those of which the terms hold, by what the index says of them."""
        found = array("I")
        admits = {id(index): _Admits(index, terms) for index in self.letters.indexes}
        for number in self.order:
            index, place = self.letters.place(number)
            if admits[id(index)](place):
                found.append(number)
        return found


_IN_INDEX = frozenset({"queue", "state", "type", "sig", "attempts", "since", "until"})


class _Admits:
    """Of one index: whether terms hold of a letter. What many have in common is asked once."""

    def __init__(self, index: DeadIndex, terms: Sequence[Term]) -> None:
        self._index = index
        of_queue = {"queue": [index.queue], "state": ["dead"]}
        self._is_queue = all(
            term.holds(of_queue[term.field.name]) for term in terms if term.field.name in of_queue
        )
        of_cause = [term for term in terms if term.field.name in {"type", "sig"}]
        self._causes = [
            all(term.holds(_known(cause, term.field.name)) for term in of_cause) for cause in index.causes
        ]
        self._attempts = [term for term in terms if term.field.name == "attempts"]
        self._times = [term for term in terms if term.field.name in {"since", "until"}]

    def __call__(self, place: int) -> bool:
        index = self._index
        return (
            self._is_queue
            and self._causes[index.cause[place]]
            and all(term.holds([index.attempts[place]]) for term in self._attempts)
            and all(term.holds([index.died[place]]) for term in self._times)
        )


def _known(cause: Cause, name: str) -> list[str]:
    value = cause.type if name == "type" else cause.signature
    return [value] if value else []
