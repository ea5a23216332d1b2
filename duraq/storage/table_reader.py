"""Queues in a database, read by somebody who may only read. What an Inspector stands on, as on a Reader.

It sees one moment of the database, from one ``refresh`` to the next. It takes no lock that anybody who writes
waits for, makes nothing and changes nothing, and tells who lives and who waits as the storage itself does.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack

from duraq.clock import Clock, SystemClock
from duraq.entry import Entry
from duraq.errors import NotAStorage, QueueNotFound, StorageBusy, StorageClosed, StorageError
from duraq.journal import wording
from duraq.journal.described import Description
from duraq.journal.reading import ReaderFileSystem
from duraq.journal.waiters import count_living
from duraq.model import is_users
from duraq.state import QueueState
from duraq.storage.as_of import ReadableRows, RowsAsOf
from duraq.storage.beside import SUFFIX, absolute
from duraq.storage.sql import VERSION
from duraq.storage.table import Known, check_version
from duraq.views import EntryView, entry_view
from duraq.workers import Living

HINT = "this user must be able to read it"


def written_meanwhile(path: str) -> StorageBusy:
    """What is said when somebody writes what is read without a lock."""
    return StorageBusy("somebody has begun to write it meanwhile", path=path, hint="look again")


class Seen:
    """One queue at that moment."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self.problem: StorageError | None = None

    @property
    def state(self) -> QueueState:
        return self._known.state

    @property
    def live_bytes(self) -> int:
        return self._known.head.payload_bytes


class TableReader(ABC):
    """See AnyReader. A subclass supplies the database."""

    errors: tuple[type[Exception], ...]

    def __init__(self, path: str) -> None:
        """``path``: what errors and screens call it, and so without a password."""
        self.path = path
        self.clock: Clock
        self._seen: dict[str, Seen] = {}
        self._rows: RowsAsOf | None = None

    # -- what a subclass supplies ----------------------------------------------------------------------

    @abstractmethod
    def _look(self) -> ReadableRows:
        """The rows as of now, in the place of those before."""

    @abstractmethod
    def close(self) -> None:
        """Give up everything. Idempotent."""

    @abstractmethod
    def is_alive(self, worker: str) -> bool | None:
        """Whether a worker lives; None if this reader may not know."""

    @abstractmethod
    def described(self) -> Mapping[str, Description]:
        """The workers that have left a word here, living or dead."""

    @abstractmethod
    def waiting(self, queue: str) -> int:
        """Consumers that block on the queue, as far as that is known to others."""

    @abstractmethod
    def refused(self, error: Exception, queue: str = "") -> StorageError:
        """What was refused to a reader, in our words."""

    # -- looking ---------------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Look again; returns whether it is the first time."""
        first = self._rows is None
        self._seen.clear()
        self._rows = RowsAsOf(self._look())
        return first

    def _check_version(self, version: int | None) -> None:
        """Raise NotAStorage if the database has no queues of ours in it, and UnsupportedVersion."""
        if version is None:
            raise NotAStorage("there are no queues of DuraQ in it", path=self.path)
        check_version(version, VERSION, self.path)

    def _rows_now(self) -> RowsAsOf:
        if self._rows is None:
            raise StorageClosed("this inspector is closed", path=self.path)
        return self._rows

    def queues(self) -> list[str]:
        """Names of the queues that exist, sorted."""
        return sorted(filter(is_users, self._rows_now().names()))

    def has_queue(self, queue: str) -> bool:
        """Whether there is one of that name, be it the storage's own."""
        return queue in self._seen or self._rows_now().head(queue) is not None

    def check_queue(self, queue: str) -> None:
        """Raise QueueNotFound unless there is one."""
        if not self.has_queue(queue):
            raise QueueNotFound.among(queue, self.queues())

    def fold(self, queue: str) -> Seen:
        """The queue. Raises QueueNotFound."""
        seen = self._seen.get(queue)
        if seen is None:
            rows = self._rows_now()
            head = rows.head(queue)
            if head is None:
                raise QueueNotFound.among(queue, self.queues())
            seen = self._seen[queue] = Seen(Known(queue, head, rows))
        return seen

    def state(self, queue: str) -> QueueState:
        """The queue's state. Raises what keeps it from being read."""
        return self.fold(queue).state

    def place(self, queue: str) -> object:
        """What is another once the queue is looked at anew."""
        return self.fold(queue)

    def entry_view(self, queue: str, entry: Entry) -> EntryView | None:
        """The entry with its payload."""
        known = entry.where
        return entry_view(
            queue, entry, known if isinstance(known, bytes) else self._rows_now().payload(queue, entry.id)
        )

    def bytes_on_disk(self, queue: str) -> int:
        """How long its payloads are, all together."""
        return self.fold(queue).live_bytes

    def mislay(self, queue: str) -> None:
        """Have the queue looked at anew."""
        self._seen.pop(queue, None)


class BesideReader(TableReader):
    """Of a database file: who lives and who waits stands in the directory beside it, if there is one."""

    def __init__(self, path: str) -> None:
        super().__init__(absolute(path))
        # The same under whatever name it is opened; messages speak of the one that was given.
        self._real = os.path.realpath(self.path)
        self.clock = SystemClock()
        self._fs = ReaderFileSystem()
        self._beside = ExitStack()
        self._living = Living(self._fs)
        self._queues_home = -1
        self._denied = False  # whether only others may know who lives

    @abstractmethod
    def _leave(self) -> None:
        """Give up the database. Idempotent."""

    def refresh(self) -> bool:
        self._leave()
        self._real = os.path.realpath(self.path)  # a link may lead elsewhere by now
        first = super().refresh()
        # It may have come into being since, or be another one.
        self._leave_beside()
        try:
            self._look_beside()
        except FileNotFoundError:
            self._leave_beside()  # nobody has ever worked here, or all was cleared away
        except PermissionError:
            self._leave_beside()
            self._denied = True
        return first

    def _look_beside(self) -> None:
        home = self._fs.open_root(self._real + SUFFIX)
        self._beside.callback(self._fs.close, home)
        self._beside.callback(self._living.close)
        self._living.look_in(home, self.clock)
        self._queues_home = self._fs.open_dir(home, "queues")
        self._beside.callback(self._fs.close, self._queues_home)

    def _leave_beside(self) -> None:
        self._beside.close()
        self._queues_home, self._denied = -1, False

    def close(self) -> None:
        self._seen.clear()
        self._rows = None
        self._leave_beside()
        self._leave()

    def is_alive(self, worker: str) -> bool | None:
        return None if self._denied else self._living.is_alive(worker)

    def described(self) -> Mapping[str, Description]:
        return self._living.described()

    def waiting(self, queue: str) -> int:
        return 0 if self._queues_home < 0 else count_living(self._fs, self._queues_home, queue)

    def refused(self, error: Exception, queue: str = "") -> StorageError:  # noqa: ARG002 - all are in one file
        if isinstance(error, OSError):
            return wording.of(error, self.path, hint=HINT)
        return StorageError(str(error), path=self.path)
