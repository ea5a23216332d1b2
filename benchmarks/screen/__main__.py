"""``python -m benchmarks.screen``: the dashboard in a terminal, measured against what it is to cost.

A storage of ``benchmarks.screen.gen`` is made first, if none is named. On a busy machine times on the clock
are worth little, so the load is printed above them, and below some of them what the program itself took of a
processor, which is to hold the same target.
"""

from __future__ import annotations

import argparse
import compileall
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import duraq_dashboard

import duraq
from benchmarks.screen import gen
from benchmarks.screen.terminal import Cost, Terminal
from duraq import FileStorage, Queue
from duraq.inspector import Inspector

BUSY = 50  # queues
RATE = 2000  # events a second
EVENTS = 3  # of an entry that is worked: enqueued, leased, completed
SOAK = 8 * 3600 * 100  # events
VISIBLE = 16  # queues that a screen of 36 lines shows at once
PROGRAM = [sys.executable, "-m", "duraq_dashboard", "--root"]


class Row(NamedTuple):
    """A line of the table."""

    criterion: str
    what: str
    found: str
    target: str
    holds: bool | None


class Rig:
    """Where things lie, and what was found."""

    def __init__(self, storage: Path, work: Path, seconds: float, appends: int) -> None:
        self.storage, self.work = storage, work
        self.seconds, self.appends = seconds, appends
        self.rows: list[Row] = []
        self.queues = sum(
            1 for each in storage.iterdir() if (each / "segments").is_dir() and each.name[0] != "_"
        )

    def found(self, criterion: str, what: str, value: float, target: float, unit: str) -> None:
        """A number that is to be no more than its target."""
        row = Row(criterion, what, f"{value:.4g} {unit}", f"<= {target:g} {unit}", value <= target)
        self.rows.append(row)
        print(
            f"{row.criterion:>3}  {row.what:<52} {row.found:>14}  {row.target:>14}  {_word(row.holds)}",
            flush=True,
        )

    @contextmanager
    def dashboard(self, storage: Path, *, ssh: bool = False) -> Iterator[Terminal]:
        state, cache = self.work / "state", self.work / "cache"
        shutil.rmtree(state, ignore_errors=True)
        env = {"XDG_STATE_HOME": str(state), "XDG_CONFIG_HOME": str(state), "XDG_CACHE_HOME": str(cache)}
        if ssh:
            env["SSH_CONNECTION"] = "192.0.2.1 50000 192.0.2.2 22"
        with Terminal([*PROGRAM, str(storage)], env) as terminal:
            yield terminal


def _word(holds: bool | None) -> str:
    return {True: "holds", False: "MISSED", None: "-"}[holds]


def _quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def _is_up(lines: list[str]) -> bool:
    return _is_at(lines, "[1 Queues]")


def _has_all(lines: list[str], rig: Rig) -> bool:
    return any(f"{rig.queues} of {rig.queues}" in line for line in lines)


def _is_at(lines: list[str], tab: str) -> bool:
    return tab in lines[0]


def _queue(storage: FileStorage, name: str) -> Queue[int]:
    return Queue(name, storage, int)


def _per_second(before: Cost, after: Cost, what: Callable[[Cost], float]) -> float:
    return (what(after) - what(before)) / (after.at - before.at)


# -- the criteria --------------------------------------------------------------------------------------------


def latency(rig: Rig) -> None:
    """1: from the end of an append, which is durable, to the changed cell in what the terminal gets."""
    path = rig.work / "latency"
    names = [f"q{number:02d}" for number in range(VISIBLE)]
    took = []
    with FileStorage(path) as storage:
        counts = dict.fromkeys(names, 1)
        for name in names:
            _queue(storage, name).enqueue(0)
        with rig.dashboard(path) as terminal:
            terminal.until(lambda lines: sum(name in line for name in names for line in lines) >= VISIBLE)
            terminal.rest(3)
            for _ in range(rig.appends):
                terminal.rest(random.expovariate(2))
                name = random.choice(names)
                _queue(storage, name).enqueue(0)
                done = time.monotonic()
                counts[name] += 1
                took.append(terminal.until(partial(_shows, queue=name, ready=counts[name])) - done)
    shutil.rmtree(path)
    for q, target in ((0.5, 120), (0.95, 250), (0.99, 500)):
        rig.found("1", f"append to changed cell, p{q * 100:.0f}", _quantile(took, q) * 1000, target, "ms")


def _shows(lines: list[str], queue: str, ready: int) -> bool:
    for line in lines[4:]:
        words = line.split()
        if queue in words[:4]:
            return words[words.index(queue) + 1].replace(",", "") == str(ready)
    return False


def first_paint(rig: Rig) -> None:
    """6: to a frame with chrome, and to all queues."""
    chrome, rows, spent, spent_in_all = [], [], [], []
    total = rig.queues
    for _ in range(3):
        with rig.dashboard(rig.storage) as terminal:
            chrome.append(terminal.until(_is_up) - terminal.started_at)
            spent.append(terminal.cost().cpu)
            rows.append(terminal.until(partial(_has_all, rig=rig), 300) - terminal.started_at)
            spent_in_all.append(terminal.cost().cpu)
    rig.found("6", "start to chrome, warm, median of 3", statistics.median(chrome) * 1000, 400, "ms")
    rig.found("6", "its own time until then", statistics.median(spent) * 1000, 400, "ms")
    rig.found("6", f"start to all {total} queues, the first time", rows[0], 1.5, "s")
    rig.found("6", "its own time until then", spent_in_all[0], 1.5, "s")
    rig.found("6", f"start to all {total} queues, again", min(rows[1:]), 1.5, "s")
    rig.found("6", "its own time until then", min(spent_in_all[1:]), 1.5, "s")
    for command, target in ((["--help"], 80), (["-C", str(rig.storage), "stats", "--json"], 150)):
        took = []
        for _ in range(5):
            begin = time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "duraq", *command],
                check=False,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "XDG_CACHE_HOME": str(rig.work / "cache")},
            )
            took.append(time.monotonic() - begin)
        rig.found(
            "6", f"duraq {command[-2] if len(command) > 1 else command[0]}", min(took) * 1000, target, "ms"
        )


def idle(rig: Rig) -> None:
    """3: nothing happens in 500 queues."""
    with rig.dashboard(rig.storage) as terminal:
        terminal.until(partial(_has_all, rig=rig), 300)
        # Until ages are shown in minutes, and what was drawn is over.
        terminal.rest(30)
        before = terminal.cost()
        terminal.rest(rig.seconds)
        after, memory = terminal.cost(), terminal.rss()
    rig.found("3", "idle, of one core", 100 * _per_second(before, after, lambda c: c.cpu), 1.0, "%")
    rig.found("3", "idle, wakeups", _per_second(before, after, lambda c: c.wakeups), 15, "/s")
    rig.found("3", "idle, to the terminal", _per_second(before, after, lambda c: c.written), 100, "B/s")
    rig.found("7", "memory, open", memory, 150, "MB")


LOAD = """
import sys, time
import duraq
storage = duraq.FileStorage(sys.argv[1], durability="process")
queues = [duraq.Queue(f"q{number:02d}", storage) for number in range(int(sys.argv[2]))]
at, number = time.monotonic(), 0
while True:
    queue = queues[number % len(queues)]
    queue.enqueue({"number": number})
    queue.mark_completed(queue.dequeue())
    number += 1
    at += int(sys.argv[4]) / float(sys.argv[3])
    time.sleep(max(0.0, at - time.monotonic()))
"""


@contextmanager
def _load(path: Path) -> Iterator[None]:
    numbers = [str(BUSY), str(RATE), str(EVENTS)]
    with subprocess.Popen([sys.executable, "-c", LOAD, str(path), *numbers]) as load:
        try:
            time.sleep(2)
            yield
        finally:
            load.kill()


def busy(rig: Rig) -> None:
    """4 and 5: 2,000 events a second in 50 queues."""
    path = rig.work / "busy"
    with _load(path):
        for ssh in (False, True):
            with rig.dashboard(path, ssh=ssh) as terminal:
                terminal.until(_is_up)
                terminal.rest(5)
                before = terminal.cost()
                terminal.rest(rig.seconds / 2)
                after = terminal.cost()
                where = "over ssh" if ssh else "local"
                kilobytes = _per_second(before, after, lambda c: c.written) / 1000
                rig.found("5", f"busy, to the terminal, {where}", kilobytes, 6 if ssh else 20, "KB/s")
                if ssh:
                    continue
                rig.found(
                    "4", "busy, of one core", 100 * _per_second(before, after, lambda c: c.cpu), 25, "%"
                )
                rig.found("4", "busy, frames", _per_second(before, after, lambda c: c.frames), 10, "/s")
                p95, spent = _keys(terminal)
                rig.found("4", "busy, key to repaint, p95", p95 * 1000, 50, "ms")
                rig.found("4", "its own time from key to repaint, on average", spent * 1000, 50, "ms")
                rig.found("5", "full clears after the start", terminal.cost().clears - before.clears, 0, "")
    shutil.rmtree(path)


def _keys(terminal: Terminal) -> tuple[float, float]:
    """From a key to what it does, the next tab and back: p95, and what it takes of a processor on average."""
    took, spent = [], 0.0
    for _ in range(20):
        for key, tab in ((b"5", "[5 Health]"), (b"1", "[1 Queues]")):
            terminal.rest(0.15)
            before = terminal.cost().cpu
            at = terminal.send(key)
            took.append(terminal.until(partial(_is_at, tab=tab)) - at)
            spent += terminal.cost().cpu - before
    return _quantile(took, 0.95), spent / len(took)


def soak(rig: Rig) -> None:
    """7: as many events as a hundred a second are in eight hours, as fast as the load of 4 has them."""
    path = rig.work / "soak"
    with _load(path), rig.dashboard(path) as terminal:
        terminal.until(_is_up)
        # What a screen needs when it is opened first is no growth.
        _tour(terminal)
        terminal.rest(60)
        begin, before = _events(path), terminal.rss()
        while (events := _events(path) - begin) < SOAK:
            _tour(terminal)
            terminal.rest(20)
        rig.found("7", f"memory, growth in {events:,} events", terminal.rss() - before, 5, "MB")
    shutil.rmtree(path)


def _tour(terminal: Terminal) -> None:
    """Each tab once, and back to the first."""
    for key in (b"2", b"3", b"4", b"5", b"6", b"1"):
        terminal.send(key)
        terminal.rest(1)


def _events(path: Path) -> int:
    with Inspector(path) as inspector:
        return sum(EVENTS * inspector.metrics(queue).counters.enqueued for queue in inspector.queues())


def dead_letters(rig: Rig) -> None:
    """7 and 8: a million dead letters."""
    with rig.dashboard(rig.storage) as terminal:
        terminal.until(_is_up)
        terminal.until(partial(_has_all, rig=rig), 300)
        terminal.rest(2)
        before_it = terminal.cost().cpu
        at = terminal.send(b"2")
        rig.found("8", "first rows", (terminal.until(_has_rows) - at) * 1000, 300, "ms")
        rig.found("8", "its own time until then", (terminal.cost().cpu - before_it) * 1000, 300, "ms")
        rig.found("8", "all counted and grouped", terminal.until(_is_whole, 120) - at, 6, "s")
        rig.found("8", "its own time until then", terminal.cost().cpu - before_it, 6, "s")
        terminal.rest(1)
        rig.found("7", "memory, list and groups", terminal.rss(), 150, "MB")
        before = _rows_shown(terminal.lines())
        at = terminal.send(b"G")
        end = terminal.until(lambda lines: _has_rows(lines) and _rows_shown(lines) != before, 30)
        rig.found("8", "to the end", (end - at) * 1000, 100, "ms")
        terminal.rest(1)
        rig.found("7", "memory, at the end", terminal.rss(), 150, "MB")
        whole = _counted(terminal.lines())
        terminal.send(b"/")
        terminal.rest(1)
        terminal.send(b"type:Error07")
        terminal.rest(0.5)
        at = terminal.send(b"\r")
        end = terminal.until(partial(_is_filtered, before=whole), 60)
        rig.found("8", "filter by type, an indexed field", (end - at) * 1000, 300, "ms")
        terminal.rest(3)
        rig.found("7", "memory, filtered", terminal.rss(), 150, "MB")


def _rows_shown(lines: list[str]) -> list[str]:
    return [line.rpartition("[ ]")[2] for line in lines if "[ ]" in line]


def _has_rows(lines: list[str]) -> bool:
    return "[2 DLQ]" in lines[0] and any("Error" in row for row in _rows_shown(lines))


def _counted(lines: list[str]) -> str:
    return next((line.partition("Dead letters")[2] for line in lines if "Dead letters" in line), "")


def _is_filtered(lines: list[str], before: str) -> bool:
    return _counted(lines) != before and _has_rows(lines)


def _is_whole(lines: list[str]) -> bool:
    words = _counted(lines).split()
    return "of" in words and words[words.index("of") - 1] == words[words.index("of") + 1] != "0"


CRITERIA = {
    "latency": latency,
    "first": first_paint,
    "dead": dead_letters,
    "idle": idle,
    "busy": busy,
    "soak": soak,
}
SELDOM = {"soak"}  # takes half an hour, and is done when it is asked for


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screen", description=__doc__)
    parser.add_argument("only", nargs="*", help=f"of {', '.join(CRITERIA)}; default: all but soak")
    parser.add_argument("--storage", type=Path, help="one that was made before; else it is made, and removed")
    parser.add_argument("--in", dest="where", type=Path, help="where to make it", default=None)
    parser.add_argument("--queues", type=int, default=500)
    parser.add_argument("--records", type=int, default=5_000_000)
    parser.add_argument("--dead", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=2048, help="of a dead letter's payload")
    parser.add_argument("--seconds", type=float, default=60, help="to be idle for; half of it busy")
    parser.add_argument("--appends", type=int, default=500)
    said = parser.parse_args()
    random.seed(1)
    for name in ("SSH_CONNECTION", "SSH_TTY", "NO_COLOR", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(dir=said.where) as work:
        storage = said.storage
        if storage is None:
            storage = Path(work) / "storage"
            gen.make(storage, said.queues, said.records, said.dead, said.bytes)
        rig = Rig(storage, Path(work), said.seconds, said.appends)
        # As where it is installed: modules are compiled once and for all.
        for package in (duraq, duraq_dashboard):
            compileall.compile_dir(package.__path__[0], quiet=1)
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        for name, criterion in CRITERIA.items():
            if name in (said.only or CRITERIA.keys() - SELDOM):
                criterion(rig)
    missed = sum(row.holds is False for row in rig.rows)
    print(f"{len(rig.rows)} numbers, {missed} missed")


if __name__ == "__main__":
    main()
