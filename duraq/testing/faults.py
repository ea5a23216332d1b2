"""What can be made to go wrong with a process's calls, and what a test is told when it does."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

SYNCS = frozenset({"datasync", "sync"})
# The calls that change the disk; those that open count only when they make something.
MUTATING = SYNCS | {"pwrite", "truncate", "rename", "unlink", "rmdir", "open_file", "open_dir", "open_root"}
READING = frozenset(
    {"pread", "size", "identity", "has_name", "space", "mark", "names", "file_names", "exists"}
)
LOCKING = frozenset({"lock", "unlock", "try_lock", "share_lock"})
CALLS = MUTATING | READING | LOCKING | {"close", "start_writing"}


class Crashed(BaseException):
    """The process that made the call is dead; no ``except Exception`` of the code under test survives it."""


class WouldDeadlock(BaseException):
    """A lock was waited for in a test of one thread, so nobody can ever give it up."""


def os_error(number: int, path: str) -> OSError:
    """The OSError, of the right subclass, that the system call would raise."""
    return OSError(number, os.strerror(number), path)


@dataclass(slots=True)
class Fault:
    """An injected failure; ``hits`` says how often it has struck."""

    call: str
    error: int
    when: int
    times: int | None
    name: str | None
    short: int | None
    hits: int = 0

    def strikes(self, call: str, path: str) -> bool:
        """Whether it strikes this call, which it counts if it matches."""
        if call != self.call or self.hits == self.times or not self._names(path):
            return False
        self.when -= 1
        if self.when > 0:
            return False
        self.hits += 1
        return True

    def _names(self, path: str) -> bool:
        """Whether the pattern matches the path or its last part; of a rename, those of either side."""
        pattern = "*" if self.name is None else self.name
        return any(
            fnmatchcase(side, pattern) or fnmatchcase(side.rpartition("/")[2], pattern)
            for side in path.split(" -> ")
        )


class FaultyProcess:
    """Counts the calls of a process that change the disk, and makes those fail that a test chose.

    ``calls`` is how many there were, ``syncs`` how many of them were syncs, ``trace`` lists all of them as
    (call, path, size).
    """

    def __init__(self) -> None:
        self.calls = 0
        self.syncs = 0
        self.trace: list[tuple[str, str, int]] = []
        self._faults: list[Fault] = []
        self._crash_in = 0
        self._crash_at: frozenset[str] = frozenset()
        self._tear = False
        self._dead = False

    def fail(
        self,
        call: str,
        error_number: int = errno.EIO,
        *,
        when: int = 1,
        times: int | None = 1,
        name: str | None = None,
        short: int | None = None,
    ) -> Fault:
        """Make the ``when``-th next such call of this process, and ``times - 1`` after it, raise an OSError.

        ``times=None`` is for ever. ``name`` is a pattern for the file's name or path. With ``short``, the
        first of them writes only that many bytes (all but so many, if negative) and says so, as a full disk
        does.
        A failing sync loses, for good, what it was to make durable.
        """
        if call not in CALLS:
            raise ValueError(f"no such call: {call!r}; one of {', '.join(sorted(CALLS))}")
        if short is not None and call != "pwrite":
            raise ValueError(f"only a pwrite can be short, not {call}")
        fault = Fault(call, error_number, when, times, name, short)
        self._faults.append(fault)
        return fault

    def crash_after(self, calls: int, *, at: Collection[str] = MUTATING, tear: bool = False) -> None:
        """Die at the ``calls``-th next call among ``at``, before it takes effect; it raises Crashed.

        With ``tear``, the first half of a pwrite still takes effect, as a kill between two pages leaves it.
        """
        if calls < 1 or not MUTATING.issuperset(at):
            raise ValueError(f"a crash comes at the 1st or a later call of {', '.join(sorted(MUTATING))}")
        self._crash_in, self._crash_at, self._tear = calls, frozenset(at), tear

    def heal(self) -> None:
        """Plan no more failures and no crash; what they did stays done."""
        self._faults.clear()
        self._crash_in = 0

    def die(self) -> None:
        """End this process like SIGKILL: every later call raises Crashed, but ``close``: it does nothing."""
        self._dead = True

    @property
    def is_dead(self) -> bool:
        """Whether it has died."""
        return self._dead

    def _check_alive(self) -> None:
        if self._dead:
            raise Crashed("the process is dead; process() starts another")

    def _begin(self, call: str, path: str, size: int = 0, *, changes: bool = False) -> int | None:
        """Count the call, and die or fail at it if that is planned; says how short a write shall be."""
        self._check_alive()
        if changes:
            self.calls += 1
            self.syncs += call in SYNCS
            self.trace.append((call, path, size))
            if self._crash_in and call in self._crash_at:
                self._crash_in -= 1
                if not self._crash_in:
                    self.die()
                    raise Crashed(f"at call {self.calls}: {call}({path})")
        # Every fault sees every call, so that "the n-th from now" means the same whatever else is planned.
        struck = [fault for fault in self._faults if fault.strikes(call, path)]
        if not struck:
            return None
        if struck[0].short is not None and struck[0].hits == 1:
            return struck[0].short
        raise os_error(struck[0].error, path)
