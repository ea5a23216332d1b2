"""The dead letters of all queues, in a few numbers each: sorted, grouped by what they died of, and filtered.

A million of them are some arrays and no objects. What the numbers do not tell, an id or a message, is fetched
for the rows that are on the screen. All of this is made in a thread that answers questions, piece by piece,
and what is made never changes. Knows no Textual.
"""

from __future__ import annotations

import operator
import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, compress, islice
from typing import Any

from duraq.clock import from_datetime, from_timedelta, to_datetime
from duraq.dead_index import DeadIndex, ErrorKind, in_order
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
    """All dead letters at one moment. Each has a number, from 0, which is only good here.

    By number: ``causes``, where in ``names`` what it died of is; ``died``, in microseconds since 1970;
    ``which`` of the indexes it is in.
    """

    def __init__(self, indexes: Iterable[DeadIndex], queues: Queues, problems: Mapping[str, str]) -> None:
        self.indexes = tuple(sorted((index for index in indexes if len(index)), key=lambda each: each.queue))
        self.queues = queues
        self.problems = problems  # of queues that cannot be read
        self.names: dict[ErrorKind, int] = {}
        self.causes = array("I")
        self.which = array("H")
        self._starts = [0]
        for which, index in enumerate(self.indexes):
            numbers = [self.names.setdefault(cause, len(self.names)) for cause in index.causes]
            self.causes.extend(map(numbers.__getitem__, index.cause))
            self.which.extend(array("H", [which]) * len(index))
            self._starts.append(len(self.which))
        self._bases = [queues.number(index.queue) << _ORDER_BITS for index in self.indexes]
        self._died: array[int] | None = None
        self._by_key: array[int] | None = None
        self._orders: dict[str, array[int]] = {}

    def __len__(self) -> int:
        return self._starts[-1]

    def place(self, number: int) -> tuple[DeadIndex, int]:
        """Where that letter is."""
        which = self.which[number]
        return self.indexes[which], number - self._starts[which]

    def key(self, number: int) -> int:
        """What tells that letter from all others, at any moment."""
        which = self.which[number]
        order: int = self.indexes[which].orders[number - self._starts[which]]
        return self._bases[which] | order

    def number(self, key: int) -> int | None:
        """The number of the letter of that key; None if it is dead no more."""
        by_key = self.by_key
        at = bisect_left(by_key, key, key=self.key)
        return by_key[at] if at < len(by_key) and self.key(by_key[at]) == key else None

    @property
    def died(self) -> array[int]:
        """When each died."""
        if self._died is None:
            self._died = self.indexes[0].died if len(self.indexes) == 1 else array("q")
            if len(self.indexes) != 1:
                for index in self.indexes:
                    self._died += index.died
        return self._died

    @property
    def by_key(self) -> array[int]:
        """All numbers, by key."""
        if self._by_key is None:
            keys = array("Q")
            for base, index in zip(self._bases, self.indexes, strict=True):
                keys.extend(map(base.__or__, index.orders))
            self._by_key = in_order(keys)
        return self._by_key

    def in_order(self, sort: str) -> array[int]:
        """All numbers in that order; those that are equal in it as they died, the last first.

        Of those that died at once, by queue, the one that was enqueued last first; and all of it the other
        way round for "oldest". So the same letters are always listed in the same order.
        """
        known = self._orders.get(sort)
        if known is None:
            numbers: Sequence[int]
            if sort == "died":
                numbers = self._ties_settled(in_order(self.died, descending=True))
            elif sort == "oldest":
                numbers = self.in_order("died")[::-1]
            else:
                numbers = sorted(self.in_order("died"), key=self._values(sort))
            known = self._orders[sort] = array("I", numbers)
            # Whoever has gone on to another order seldom comes back to this one.
            self._orders = {name: order for name, order in self._orders.items() if name in {"died", sort}}
        return known

    def newest_first(self, numbers: Iterable[int]) -> array[int]:
        """These as they died, the last first."""
        chosen = bytearray(len(self))
        for number in numbers:
            chosen[number] = True
        order = self.in_order("died")
        return array("I", compress(order, map(chosen.__getitem__, order)))

    def _ties_settled(self, numbers: array[int]) -> array[int]:
        """The numbers, sorted by when they died, with those that died at once in an order as well."""
        died = array("q", map(self.died.__getitem__, numbers))
        ties = compress(range(len(died)), map(operator.eq, died, islice(died, 1, None)))
        start = end = 0  # of those at once that are being gone through
        for at in chain(ties, (len(numbers),)):
            if at >= end:
                if end - start > 1:
                    numbers[start:end] = array("I", sorted(numbers[start:end], key=self._rank))
                start = at
            end = at + 2
        return numbers

    def _rank(self, number: int) -> int:
        which = self.which[number]
        order: int = self.indexes[which].orders[number - self._starts[which]]
        return (which << _ORDER_BITS) - order

    def _values(self, sort: str) -> Callable[[int], Any]:
        """The value of each letter that it is sorted by."""
        if sort == "queue":
            names = [index.queue for index in self.indexes]
            return lambda number: names[self.which[number]]
        if sort == "error":
            ranks = {
                cause: rank for rank, cause in enumerate(sorted(self.names, key=lambda each: each[::-1]))
            }
            by_name = [ranks[cause] for cause in self.names]
            return lambda number: by_name[self.causes[number]]
        attempts = array("H")
        for index in self.indexes:
            attempts += index.attempts
        return lambda number: -attempts[number]


@dataclass(frozen=True, slots=True)
class Group:
    """Letters that died of the same. ``hours``: how many did in each of the last 24, the present one last."""

    cause: ErrorKind
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

    def of_cause(self, cause: ErrorKind) -> Choice:
        """Those of them that died of that."""
        number = self.letters.names.get(cause)
        if number is None:
            return Choice(self.letters, array("I"))
        of_it = map(number.__eq__, map(self.letters.causes.__getitem__, self.numbers))
        return Choice(self.letters, array("I", compress(self.numbers, of_it)))

    def groups(self, now: datetime) -> list[Group]:
        """What they died of, what most died of first; of as many, what somebody died of last."""
        letters = self.letters
        cause, died = letters.causes.__getitem__, letters.died
        numbers = letters.newest_first(self.numbers)
        # Of several numbers for one cause the last stays: this way the oldest, the other way the newest.
        oldest = dict(zip(map(cause, numbers), numbers, strict=True))
        numbers.reverse()
        newest = dict(zip(map(cause, numbers), numbers, strict=True))
        hours: dict[int, list[int]] = {}
        hour = from_timedelta(timedelta(hours=1))
        begin = from_datetime(now) - HOURS * hour
        for number in range(HOURS):
            start = bisect_right(numbers, begin + number * hour, key=died.__getitem__)
            is_last = number + 1 == HOURS
            # What died in the future, by some clock, did so just now.
            end = (
                None if is_last else bisect_right(numbers, begin + (number + 1) * hour, key=died.__getitem__)
            )
            for each, count in Counter(map(cause, numbers[start:end])).items():
                hours.setdefault(each, [0] * HOURS)[number] = count
        names = list(letters.names)
        counts = Counter(map(cause, numbers))
        return [
            Group(
                names[each],
                count,
                to_datetime(died[oldest[each]]),
                to_datetime(died[newest[each]]),
                newest[each],
                tuple(hours.get(each, ())),
            )
            for each, count in sorted(
                counts.items(), key=lambda each: (-each[1], -died[newest[each[0]]], names[each[0]])
            )
        ]


# -- reading ----------------------------------------------------------------------------------------------


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


class Search:
    """Which of the letters a filter means. What the numbers tell is answered at once; else each is read.

    It goes on a slice at a time: ``looked_at`` of the ``candidates``, which must be read.
    """

    def __init__(self, letters: Letters, where: Where | None, order: array[int]) -> None:
        terms = () if where is None else where.terms
        cheap = [term for term in terms if term.field.name in _IN_INDEX]
        others = [term for term in terms if term.field.name not in _IN_INDEX]
        self.letters = letters
        self.looked_at = 0
        self._where = where
        self._order = order
        admitted = self._admitted(cheap) if cheap else order
        self._sure, self.candidates = (
            self._told_by_type(others, admitted) if others else (admitted, array("I"))
        )
        self._read = array("I")  # those of the candidates that match
        self._rank: array[int] | None = None

    @property
    def is_over(self) -> bool:
        """Whether all were looked at."""
        return self.looked_at >= len(self.candidates)

    def __len__(self) -> int:
        return len(self._sure) + len(self._read)

    @property
    def found(self) -> array[int]:
        """Those that match so far, in order. It does not change any more."""
        if not self._read or not self._sure:
            return array("I", self._read or self._sure)
        if self._rank is None:
            self._rank = array("I", bytes(4 * len(self.letters)))
            for rank, number in enumerate(self._order):
                self._rank[number] = rank
        return array("I", sorted([*self._sure, *self._read], key=self._rank.__getitem__))

    def step(self, inspector: Inspector, stop: threading.Event, slice_: float = SLICE) -> None:
        """Look at some more."""
        assert self._where is not None
        until = time.thread_time() + slice_
        while not self.is_over and not stop.is_set() and time.thread_time() < until:
            batch = self.candidates[self.looked_at : self.looked_at + _AT_ONCE]
            keys = {self.letters.key(number): number for number in batch}
            views = fetch(inspector, self.letters, keys)
            for key, number in keys.items():
                view = views.get(key)
                if view is not None and self._where.matches(view):
                    self._read.append(number)
            self.looked_at += len(batch)

    def _admitted(self, terms: Sequence[Term]) -> array[int]:
        """Those of which the terms hold, by what the index says of them."""
        letters, numbers = self.letters, self._order
        fields = {term.field.name for term in terms}
        # What many have in common is asked once.
        if fields & {"queue", "state"}:
            held = [_hold(terms, {"queue": [index.queue], "state": ["dead"]}) for index in letters.indexes]
            numbers = array(
                "I", compress(numbers, map(held.__getitem__, map(letters.which.__getitem__, numbers)))
            )
        if fields & {"type", "sig"}:
            held = [
                _hold(terms, {"type": _known(cause.type), "sig": _known(cause.signature)})
                for cause in letters.names
            ]
            numbers = array(
                "I", compress(numbers, map(held.__getitem__, map(letters.causes.__getitem__, numbers)))
            )
        if fields & {"attempts", "since", "until"}:
            numbers = array("I", (number for number in numbers if self._holds(terms, number)))
        return numbers

    def _told_by_type(self, terms: Sequence[Term], numbers: array[int]) -> tuple[array[int], array[int]]:
        """Those of which the terms hold by the type of the error alone, and those that must be read."""
        letters = self.letters
        if all(term.field.name != "err" for term in terms):
            return array("I"), numbers
        told = [_by_type(terms, cause.type) for cause in letters.names]

        def those(verdict: bool | None) -> array[int]:
            chosen = [each is verdict for each in told]
            return array(
                "I", compress(numbers, map(chosen.__getitem__, map(letters.causes.__getitem__, numbers)))
            )

        return those(True), those(None)

    def _holds(self, terms: Sequence[Term], number: int) -> bool:
        index, place = self.letters.place(number)
        died = [index.died[place]]
        return _hold(terms, {"attempts": [index.attempts[place]], "since": died, "until": died})


_IN_INDEX = frozenset({"queue", "state", "type", "sig", "attempts", "since", "until"})


def _hold(terms: Sequence[Term], values: Mapping[str, Sequence[object]]) -> bool:
    """Whether those of the terms hold that ask for these fields."""
    return all(term.holds(values[term.field.name]) for term in terms if term.field.name in values)


def _by_type(terms: Sequence[Term], kind: str) -> bool | None:
    """Whether they hold of an error of that type; None if that depends on what else there is to it."""
    told = [
        term.holds([kind]) if term.field.name == "err" and any(test(kind) for test in term.tests) else None
        for term in terms
    ]
    if False in told:
        return False
    return None if None in told else True


def _known(value: str) -> list[str]:
    return [value] if value else []
