"""Memory that is not needed any more."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Pieces between which something small is kept, in a thread, after a larger one.
GROWING = """
import sys, threading
from duraq_dashboard.memory import give_back

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

kept = []

def grow():
    large = b"x" * (30 << 20)
    del large
    pieces = []
    for _ in range(20):
        pieces.append(b"x" * (2 << 20))
        kept.append(b"x" * 4096)

if sys.argv[1:]:
    give_back()
before = resident()
thread = threading.Thread(target=grow)
thread.start()
thread.join()
print((resident() - before) >> 20)
"""


def test_it_goes_back():
    """What a thread needed for a while is not kept by the program; as it would be else."""
    kept = [
        int(subprocess.run([sys.executable, "-c", GROWING, *said], check=True, capture_output=True).stdout)
        for said in ([], ["give back"])
    ]
    if kept[0] < 20:
        pytest.skip("this C library gives it back by itself")
    assert kept[1] < 10


def test_where_the_library_cannot_be_told(monkeypatch):
    """With a C library of another kind nothing is done, and nothing is wrong."""
    memory = pytest.importorskip("duraq_dashboard.memory")

    class Other:
        pass

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _name: Other())
    memory.give_back()
