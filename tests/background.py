"""What the engine does in the background, done where it begins: then every run makes the same calls."""

import threading
from types import SimpleNamespace

from duraq.journal import recycling
from duraq.storage import upkeep


class Inline:
    """Stands in for a thread: the disk in memory knows one only, and what was found is to happen again."""

    def __init__(self, target, **_):
        self.start, self.is_alive, self.join = target, lambda: False, lambda: None


def in_one_thread(monkeypatch):
    instead = SimpleNamespace(Lock=threading.Lock, RLock=threading.RLock, Thread=Inline)
    for module in (recycling, upkeep):
        monkeypatch.setattr(module, "threading", instead)
