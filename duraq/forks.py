"""What a fork must not carry into the child.

A forked child shares its parent's open files, and O_CLOEXEC helps only once it calls exec. A child that keeps
them keeps its parent's lease locked after the parent has died; one that unlocks them frees the lease of a
parent that lives. So a child closes them, at once and without unlocking, whether or not it ever uses DuraQ.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """Owns descriptors that a forked child must not keep."""

    def after_fork_in_child(self) -> None:
        """Close them: no unlock, no unlink, no lock of another thread, no error."""


# Held from opening such a descriptor until its owner knows it: a fork by another thread in between would
# leave the child a copy that nobody closes. Re-entrant, for a signal handler that forks.
no_fork = threading.RLock()

_forkables: WeakSet[Forkable] = WeakSet()


def register(forkable: Forkable) -> None:
    """Call the object's ``after_fork_in_child`` in every child forked through Python, while it lives."""
    with no_fork:
        _forkables.add(forkable)


def _after_in_child() -> None:
    no_fork.release()
    # Each, whatever becomes of another.
    with ExitStack() as stack:
        for forkable in list(_forkables):
            stack.callback(forkable.after_fork_in_child)


os.register_at_fork(before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=_after_in_child)
