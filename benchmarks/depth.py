"""What depth costs: the rate of cycles, a worker's memory, its first lease, and the bytes on the disk.

Each round starts a worker process on the queue as it lies there, with nobody else having it open; where
there is a server, it is started anew too, and its memory and start count.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.contender import Lost
from benchmarks.depth_worker import Order, Report
from benchmarks.proc import memory_bytes
from benchmarks.single import expect_next, top_up
from benchmarks.stage import Stage
from benchmarks.workload import Figures

WORKER_SECONDS = 3600.0


def fill(stage: Stage) -> None:
    """By batches, and without a sync for each where the queue can do without."""
    with stage.filling() as contender:
        top_up(stage, contender, stage.variant)


def depth(stage: Stage, count: int) -> Figures:
    stage.stop_server()
    begin = time.monotonic_ns()
    stage.start_server()
    report = _worker((stage.opener, count))
    memory = report.memory_bytes
    if stage.server_pid is not None:
        memory += memory_bytes(stage.server_pid)
    expect_next(stage, report.worked)
    on_disk = stage.bytes_on_disk()
    with stage.opener() as contender:
        contender.tidy()
        top_up(stage, contender, stage.variant)
    return {
        "": [report.cycles_per_second],
        "start": [(report.first_ns - begin) / 1e6],
        "memory": [memory / 1e6],
        "disk": [on_disk / 1e6],
    }


def _worker(order: Order) -> Report:
    command = (sys.executable, "-m", "benchmarks.depth_worker")
    found = subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        input=pickle.dumps(order),
        stdout=subprocess.PIPE,
        timeout=WORKER_SECONDS,
        check=False,
    )
    if found.returncode:
        raise Lost(f"the worker ended with status {found.returncode}, of the error that it printed")
    return Report(*pickle.loads(found.stdout))
