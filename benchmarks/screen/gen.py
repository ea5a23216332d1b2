"""Makes a storage for the dashboard to look at: many queues, many records, one deep pile of dead letters."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from duraq import FileStorage
from duraq.clock import SystemClock
from duraq.model import AttemptError, Cause
from duraq.operations import Bury, Complete, Enqueue, Operation
from duraq.signature import signature

DEEP = "mail"  # the queue that has the dead letters
TOGETHER = 500  # entries in a group
KINDS = 40  # of errors
LIFE = 3  # records of an entry that is over: enqueued, leased, and its end


def make(path: Path, queues: int, records: int, dead: int, size: int) -> None:
    """That many queues and records in all, and dead letters with a payload of that size among them."""
    names = [DEEP, *(f"queue-{number:03d}" for number in range(1, queues))]
    with FileStorage(path, durability="process", clock=SystemClock()) as storage:
        for count, made in _portions(dead):
            _live(storage, DEEP, [_payload(made + n, size) for n in range(count)], die=True)
        for count, made in _portions(max(records - LIFE * dead, LIFE * queues) // LIFE):
            name = names[made // TOGETHER % len(names)]
            _live(storage, name, [_payload(n, 100) for n in range(count)], die=False)
        for number, name in enumerate(names):
            # A few wait in most queues, more in some.
            storage.commit({name: _entries([b"{}"] * (number % 7 + 1))})


def _portions(total: int) -> Iterator[tuple[int, int]]:
    for made in range(0, total, TOGETHER):
        yield min(TOGETHER, total - made), made


def _payload(number: int, size: int) -> bytes:
    head = {"number": number, "to": f"user{number % 9973}@example.org", "text": ""}
    return orjson.dumps(head | {"text": "x" * max(0, size - len(orjson.dumps(head)))})


_made = 0


def _entries(payloads: list[bytes]) -> list[Operation]:
    global _made  # noqa: PLW0603 - ids must not come twice
    found: list[Operation] = [Enqueue(f"e{_made + n:012d}", each) for n, each in enumerate(payloads)]
    _made += len(payloads)
    return found


def _live(storage: FileStorage, queue: str, payloads: list[bytes], *, die: bool) -> None:
    """Have entries with these payloads enqueued, leased and ended."""
    storage.commit({queue: _entries(payloads)})
    ends: list[Operation] = [
        Bury(entry.id, entry.token, Cause.FAILED, _error(entry.id))
        if die
        else Complete(entry.id, entry.token)
        for entry in storage.claim(queue, len(payloads), detached=True)
    ]
    storage.commit({queue: ends})


def _error(entry_id: str) -> AttemptError:
    # A few kinds are most of them, as it is wherever things break.
    kind = min(int(random.expovariate(0.25)), KINDS - 1)
    name = f"Error{kind:02d}"
    message = f"entry {entry_id} was refused: status {kind}"
    frame = f"/srv/mail/send.py:{100 + kind} in step_{kind}"
    lines = "".join(
        f'  File "/srv/mail/part_{n}.py", line {n}, in step_{kind}\n    return step_{n}(entry)\n'
        for n in range(9)
    )
    trace = f"Traceback (most recent call last):\n{lines}{name}: {message}\n"
    return AttemptError(name, message, trace, frame, signature(name, message, f"step_{kind}"), "host")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screen.gen", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--queues", type=int, default=500)
    parser.add_argument("--records", type=int, default=5_000_000)
    parser.add_argument("--dead", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=2048, help="of a dead letter's payload")
    said = parser.parse_args()
    if said.path.exists():
        sys.exit(f"{said.path} is there already")
    random.seed(1)
    begin = time.monotonic()
    make(said.path, said.queues, said.records, said.dead, said.bytes)
    print(f"{said.path}: made in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
