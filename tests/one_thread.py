"""The engine without its threads: the disk in memory knows one only, and what happened is to happen again."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from duraq.journal import recycling
from duraq.storage import upkeep

# Whose ``threading`` is to be INSTEAD.
MODULES = (recycling, upkeep)


class Inline:
    """Stands in for a thread: it does what it is for where it is started."""

    def __init__(self, target, **_):
        self.start, self.is_alive, self.join = target, lambda: False, lambda: None


INSTEAD = SimpleNamespace(Lock=threading.Lock, RLock=threading.RLock, Thread=Inline)


def in_one_thread(monkeypatch):
    """Until the end of the test, or of the context."""
    for module in MODULES:
        monkeypatch.setattr(module, "threading", INSTEAD)
