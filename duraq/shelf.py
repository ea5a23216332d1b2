"""Where the fold leaves the entries that it does not keep in memory.

A deep queue is mostly entries that nobody touches for a long time. The fold keeps what was touched lately;
the rest lies on a shelf, in order, and is taken off it one by one. What is on the shelf cannot be changed
there: an entry that a record changes is taken off first. ``duraq.journal.runs`` keeps one in files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from duraq.entry import Entry
from duraq.model import Counts, EntryStatus


class Mislaid(Exception):
    """What should lie on the queue's shelf is not there: its state must be made again from the records."""

    def __init__(self, queue: str, why: str) -> None:
        super().__init__(f"queue {queue}: {why}")
        self.queue = queue


class Shelf(Protocol):
    """Entries that are scheduled, ready or dead. Each method that reads may raise Mislaid."""

    @property
    def tally(self) -> Counts:
        """How many lie here in each state, as of the last ``advance``. None is leased."""

    @property
    def any_ready(self) -> bool:
        """Whether any of them could be delivered, as of the last ``advance``."""

    @property
    def may_expire(self) -> bool:
        """Whether any of them has a TTL."""

    def advance(self, now: int) -> None:
        """Scheduled entries whose time has come are ready."""

    def next_event(self) -> int | None:
        """The wall time at which the next scheduled entry is ready, if there is one."""

    def first(self) -> tuple[int, int] | None:
        """Where the first ready entry stands in the order of delivery, or None."""

    def peek(self, limit: int) -> list[Entry]:
        """The first ready entries, in the order of delivery. They stay where they are."""

    def find(self, entry_id: str) -> Entry | None:
        """The entry of that id, or None. It stays where it is."""

    def take(self, entry_id: str) -> Entry:
        """Take the entry off the shelf. Raises KeyError if it is not there."""

    def replace(self, entry_id: str, seq: int) -> None:
        """Take it off the shelf unread, if it is there; ``seq`` is the number of its enqueue."""

    def expired(self, now: int, limit: int) -> list[Entry]:
        """Entries whose TTL passed, at most ``limit``. They stay where they are."""

    def count_expired(self, now: int) -> Counts:
        """How many those are in all, by state."""

    def walk(self, status: EntryStatus | None) -> Iterator[Entry]:
        """Entries in that state (None: all): ready ones in the order of delivery, others as enqueued."""

    def by_age(self) -> Iterator[Entry]:
        """The ready ones, as enqueued."""

    def behind(self, seq: int, status: EntryStatus | None = None) -> Iterator[Entry]:
        """All (in that state) that were enqueued as a later number than that, as enqueued."""

    def lived(self, before: int) -> Iterator[Entry]:
        """Those that were enqueued before that number and have been leased since, in no order."""


class EmptyShelf:
    """For a fold that keeps everything in memory."""

    tally = Counts()
    any_ready = False
    may_expire = False

    def advance(self, now: int) -> None:
        """Nothing changes here."""

    def next_event(self) -> int | None:
        return None

    def first(self) -> tuple[int, int] | None:
        return None

    def peek(self, limit: int) -> list[Entry]:  # noqa: ARG002 - nothing is here, however many are wanted
        return []

    def find(self, entry_id: str) -> Entry | None:  # noqa: ARG002 - whatever is looked for
        return None

    def take(self, entry_id: str) -> Entry:
        raise KeyError(entry_id)

    def replace(self, entry_id: str, seq: int) -> None:
        """Nothing is here."""

    def expired(self, now: int, limit: int) -> list[Entry]:  # noqa: ARG002 - as above
        return []

    def count_expired(self, now: int) -> Counts:  # noqa: ARG002 - as above
        return Counts()

    def walk(self, status: EntryStatus | None) -> Iterator[Entry]:  # noqa: ARG002 - as above
        return iter(())

    def by_age(self) -> Iterator[Entry]:
        return iter(())

    def behind(self, seq: int, status: EntryStatus | None = None) -> Iterator[Entry]:  # noqa: ARG002 - as above
        return iter(())

    def lived(self, before: int) -> Iterator[Entry]:  # noqa: ARG002 - as above
        return iter(())
