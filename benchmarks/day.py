"""A day's life of one queue in fast motion: ``make bench-day``, with ``DAY=2000000`` entries by default.

Four processes enqueue and four consume: priorities, delays, times to live, retries, and some entries that
fail until they are buried. All the time it is looked at how much of the disk the queue takes, beside what
lives in it, and how much memory each process takes. In the end each entry must have been completed once, be
buried, or have passed its time to live. Exit status 1 if anything of that does not hold.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from benchmarks.proc import memory_bytes
from duraq import DeadLetterQueue, FileStorage, FixedDelay, Queue

PRODUCERS, CONSUMERS, BATCH, DEPTH = 4, 4, 20, 2_000
BURIED = 1_000
SEGMENT = 1 << 20
SAMPLE_SECONDS = 1.0
POLICY = FixedDelay(delay=timedelta(milliseconds=500), max_attempts=3)

spawn = multiprocessing.get_context("spawn")


class Sample(NamedTuple):
    """One look at everything."""

    seconds: float
    disk: int  # bytes of the segments
    beside: int  # and of what lies beside them
    live: int  # bytes of what lives
    memory: list[int]


def produce(root: str, name: int, count: int) -> None:
    chance = Random(name)
    with FileStorage(root) as storage:
        queue: Queue[dict[str, Any]] = Queue("day", storage, dict[str, Any])
        number = 0
        while number < count:
            share = min(BATCH, count - number)
            ids = [f"{name}-{number + each}" for each in range(share)]
            kind = chance.random()
            options: dict[str, Any] = {"priority": chance.choice((0, 0, 0, 5, -5))}
            if kind < 0.1:
                options["delay"] = timedelta(seconds=chance.random() * 3)
            elif kind < 0.2:
                options["ttl"] = timedelta(seconds=1 + chance.random() * 20)
            every = count * PRODUCERS // BURIED
            bad = [(number + each) % every == 0 and "ttl" not in options for each in range(share)]
            items = [{"bad": each, "text": "x" * chance.randrange(300)} for each in bad]
            queue.enqueue_many(items, ids=ids, **options)
            number += share
            while len(queue) > DEPTH:
                time.sleep(0.01)  # the load's own pace


def consume(root: str, name: int, done: Any, output: str) -> None:
    chance = Random(-name)
    with FileStorage(root) as storage, Path(output).open("w") as completed:
        queue: Queue[dict[str, Any]] = Queue("day", storage, dict[str, Any], retry_policy=POLICY)
        while True:
            entries = queue.dequeue(limit=BATCH, wait=timedelta(seconds=0.2))
            if not entries and done.is_set() and not len(queue):
                return
            good = []
            for entry in entries:
                if entry.data["bad"] or (entry.attempts == 1 and chance.random() < 0.05):
                    queue.mark_failed(entry, ValueError("today is not the day"))
                else:
                    good.append(entry)
            queue.mark_completed_many(good)
            completed.writelines(f"{entry.id}\n" for entry in good)


def sizes(directory: Path) -> tuple[int, int]:
    """Bytes of the segments, and of what lies beside them."""
    found = Counter[bool]()
    for path in directory.iterdir():
        try:
            found[path.suffix == ".jsonl"] += path.stat().st_size
        except FileNotFoundError:
            continue  # removed meanwhile
    return found[True], found[False]


def watch(root: Path, workers: list[Any], samples: list[Sample], stop: threading.Event) -> None:
    start = time.monotonic()
    with FileStorage(root) as storage:
        while not stop.wait(SAMPLE_SECONDS):
            # In one turn: what others write or end meanwhile would count in one of them only.
            with storage._turn:  # noqa: SLF001 - nobody else needs to know
                storage._state("day")  # noqa: SLF001
                live = storage._queues["day"].folded.live_bytes  # noqa: SLF001
                disk, beside = sizes(root / "day" / "segments")
            memory = [memory_bytes(worker.pid) for worker in workers if worker.is_alive()]
            samples.append(Sample(time.monotonic() - start, disk, beside, live, memory))
            print(
                f"\r{samples[-1].seconds:6.0f} s  disk {disk / 1e6:6.2f} MB (+{beside / 1e6:.2f})  "
                f"live {live / 1e6:6.2f} MB  memory {max(memory, default=0) / 1e6:5.1f} MB",
                end="",
                file=sys.stderr,
                flush=True,
            )
    print(file=sys.stderr)


def live_a_day(root: Path, count: int) -> tuple[list[Sample], float]:
    done = spawn.Event()
    share = count // PRODUCERS
    producers = [
        spawn.Process(target=produce, args=(str(root), name, share), daemon=True) for name in range(PRODUCERS)
    ]
    consumers = [
        spawn.Process(target=consume, args=(str(root), name, done, str(root) + f".{name}"), daemon=True)
        for name in range(1, CONSUMERS + 1)
    ]
    with FileStorage(root) as storage:
        Queue("day", storage, dict[str, Any]).pause("not yet")
        Queue("day", storage, dict[str, Any]).resume()
    begun = time.monotonic()
    for worker in producers + consumers:
        worker.start()
    samples: list[Sample] = []
    stop = threading.Event()
    watcher = threading.Thread(target=watch, args=(root, producers + consumers, samples, stop))
    watcher.start()
    for worker in producers:
        worker.join()
    done.set()
    for worker in consumers:
        worker.join()
    seconds = time.monotonic() - begun
    stop.set()
    watcher.join()
    if any(worker.exitcode for worker in producers + consumers):
        raise SystemExit("a process failed")
    return samples, seconds


def excess(sample: Sample) -> int:
    """By how many bytes the queue was longer than it may be."""
    return sample.disk - 2 * sample.live - 2 * SEGMENT


def judge(root: Path, count: int, samples: list[Sample], seconds: float) -> bool:
    completed = Counter[str]()
    for name in range(1, CONSUMERS + 1):
        completed.update(Path(f"{root}.{name}").read_text().split())
    with FileStorage(root) as storage:
        letters: DeadLetterQueue[dict[str, Any]] = DeadLetterQueue("day", dict[str, Any], storage)
        dead = {entry.id for entry in letters.list()}
        left = len(Queue("day", storage, dict[str, Any]))
    twice = sum(1 for times in completed.values() if times > 1)
    missing = count - len(completed) - len(dead)
    worst = max(map(excess, samples))
    over = sum(excess(sample) > 0 for sample in samples)
    quarter = len(samples) // 4
    second = [max(sample.memory) for sample in samples[quarter : 2 * quarter] if sample.memory]
    last = [max(sample.memory) for sample in samples[3 * quarter :] if sample.memory]
    growth = (sum(last) / len(last)) / (sum(second) / len(second)) - 1
    print(f"{count} entries in {seconds:.0f} s: {count / seconds:.0f} lives/s")
    print(f"completed {len(completed)}, buried {len(dead)}, expired {missing}, left {left}, twice {twice}")
    print(
        f"disk: {max(sample.disk for sample in samples) / 1e6:.1f} MB at most, beside it "
        f"{max(sample.beside for sample in samples) / 1e6:.1f} MB; "
        f"over 2 x live + 2 segments in {over} of {len(samples)} samples, by {worst / 1e6:.2f} MB at most, "
        f"then at {max(samples, key=excess).seconds:.0f} s"
    )
    print(
        f"memory: {max(max(sample.memory) for sample in samples if sample.memory) / 1e6:.1f} MB at most, "
        f"last quarter against second {growth:+.1%}"
    )
    # Those with a time to live are every tenth, and few of them come that late.
    return not twice and not left and not over and growth <= 0.05 and 0 <= missing < count // 20


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    with tempfile.TemporaryDirectory(prefix="duraq-day-", dir=".") as directory:
        root = Path(directory).absolute() / "storage"
        samples, seconds = live_a_day(root, count)
        return 0 if judge(root, count, samples, seconds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
