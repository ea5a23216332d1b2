"""How long the ``duraq`` command takes, from its start to its end, beside a Python that does nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contender import Lost
from benchmarks.stage import Stage
from benchmarks.workload import Figures


def startup(stage: Stage, count: int) -> Figures:
    """Milliseconds of each command, ``count`` times."""
    installed = Path(sys.executable).with_name("duraq")
    duraq = [str(installed)] if installed.exists() else [sys.executable, "-m", "duraq"]
    root = str(stage.directory / "commands")
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "help": [*duraq, "--help"],
        "put": [*duraq, "put", "--root", root, "--quiet", "jobs", '{"n": 1}'],
    }
    _milliseconds(commands["put"])  # the first one makes the storage
    return {metric: [_milliseconds(command) for _ in range(count)] for metric, command in commands.items()}


def _milliseconds(command: Sequence[str]) -> float:
    begin = time.perf_counter()
    found = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - begin
    if found.returncode:
        raise Lost(f"{' '.join(command[1:])} ended with status {found.returncode}: {found.stderr.strip()}")
    return seconds * 1000
