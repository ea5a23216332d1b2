"""What the dashboard itself takes of the machine. Knows no Textual."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """What this process has cost so far: seconds of a processor, bytes written, seconds it has lived."""

    cpu: float
    written: int
    lived: float

    @classmethod
    def now(cls) -> Cost:
        """As of now. Nearly all that a dashboard writes is what it draws."""
        times = os.times()
        try:
            lines = Path("/proc/self/io").read_text("ascii").splitlines()
            written = int(next(line for line in lines if line.startswith("wchar:")).split()[1])
        except (OSError, ValueError, StopIteration):
            written = 0
        return cls(times.user + times.system, written, time.monotonic())


def memory() -> int:
    """Bytes that this process has in memory; 0 if that is not known."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return 0
