"""Noticing at little cost that a storage has changed, and which of its queues.

Every writer writes the journal's control block with every frame. So one read of 44 bytes tells whether
anything was committed since, by whomever; and that is the truth and no hint: no event can be lost, no limit
be reached, and it works on every file system. What it cannot tell is what nobody commits: files that somebody
removes, copies or mends, consumers that begin to wait. For these, and for which queues have changed, there
are marks.

The lines come into the segments a moment after the block is written: whoever looks just then looks once more
shortly after.
"""

from __future__ import annotations

from contextlib import suppress

from duraq.journal import control, reading
from duraq.journal.filesystem import Mark
from duraq.journal.segment import file_name
from duraq.model import is_users
from duraq.reader import Reader

# Of a queue: its active segment; the names of its segments; who waits for it.
Marks = tuple[Mark | None, Mark | None, Mark | None]

_DENIED = (0, 0, 0, 0)


class Watcher:
    """Watches what a reader reads. For one thread, as the reader is."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._begun = False
        self._root = -1  # the reader's directory that ``_lock`` is in
        self._lock = -1
        self._listed: Mark | None = None  # the storage's directory when its queues were listed
        self._known: dict[str, Marks | None] = {}  # None: nothing yet
        # A file system tells times in steps of some milliseconds: what was changed again within one looks
        # unchanged. So what has changed is looked at twice.
        self._again: set[str] = set()

    def close(self) -> None:
        """Give up the descriptor. Idempotent."""
        if self._lock >= 0:
            self._reader.fs.close(self._lock)
        self._lock = self._root = -1

    def pulse(self) -> bytes:
        """What is different once anybody has committed anything; empty if nobody ever opened the storage."""
        if self._root != self._reader.root or self._lock < 0:
            self._open()
        return b"" if self._lock < 0 else control.pulse(self._reader.fs, self._lock)

    def _open(self) -> None:
        self.close()
        fs, self._root = self._reader.fs, self._reader.root
        with suppress(FileNotFoundError):
            directory = fs.open_dir(self._root, "journal")
            try:
                self._lock = fs.open_file(directory, "lock", writable=False)
            finally:
                fs.close(directory)

    def changed(self, *, thorough: bool = True) -> set[str]:
        """The queues that may have changed since this was asked last; new ones and those that are gone, too.

        Not ``thorough``: only where something was written, one call for each queue. To be asked before they
        are looked at.
        """
        reader = self._reader
        begun, self._begun = self._begun, True
        # Of what is made up in memory, from the journal, no file tells how far it was read.
        thorough = thorough or not reader.view.settled
        if thorough:
            # Somebody may have put another in its place.
            self.close()
        self._find_new(thorough=thorough)
        found = {name for name in list(self._known) if self._has_changed(name, thorough=thorough)}
        if thorough:
            again, self._again = self._again & self._known.keys(), found
            found = found | again
        else:
            self._again |= found
        if reader.view.settled:
            return found
        return {*reader.queues(), *self._known, *found} if found or not begun else set()

    def _find_new(self, *, thorough: bool) -> None:
        fs, root = self._reader.fs, self._reader.root
        mark = self._mark(".")
        if not thorough and mark == self._listed:
            return
        self._listed = mark
        for name in fs.names(root):
            # Of the others it is known whether they are queues; of these it may come true at any time.
            if name not in self._known and is_users(name) and reading.is_queue(fs, root, name):
                self._known[name] = None

    def _has_changed(self, queue: str, *, thorough: bool) -> bool:
        active = self._reader.active(queue)
        written = None if active is None else self._mark(f"{queue}/segments/{file_name(active)}")
        known = self._known[queue]
        if known is not None and not thorough and written == known[0]:
            return False
        segments, waiters = self._mark(f"{queue}/segments"), self._mark(f"{queue}/waiters")
        if segments is None:
            del self._known[queue]  # its directory was removed, or it is none
            return True
        self._known[queue] = found = (written, segments, waiters)
        return found != known

    def _mark(self, path: str) -> Mark | None:
        try:
            return self._reader.fs.mark(self._reader.root, path)
        except PermissionError:
            return _DENIED  # whoever looks is told
