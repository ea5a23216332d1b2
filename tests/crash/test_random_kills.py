"""Four producers and four consumers at once, and a killer among the consumers.

Every process says on a pipe what it was told: a producer which entry is durable, a consumer which entry it
was given, under which token, and that it is completed. From that alone four numbers are counted: lost,
unexpected, duplicated, recovered.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf
from pathlib import Path
from random import Random

import pytest
from evidence import count

from duraq import FileStorage, FixedDelay, Queue, QueueFull
from duraq.journal.log import Sizes

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SIZES = Sizes(journal=256 << 10, segment=64 << 10)
ENTRIES, SECONDS, KILLS = (20_000, 60.0, 100) if DEEP else (2_000, 0.0, 25)
# Seconds between two kills. Whoever takes a victim's place first reads all that happened, which takes longer
# the more that is.
KILL_EVERY = 0.3 if DEEP else 0.05
PRODUCERS = CONSUMERS = 4
POLICY = FixedDelay(delay=timedelta(0), max_attempts=10_000)

pytestmark = pytest.mark.timeout(3600)

Say = Callable[[str], None]


class Actor:
    """A child process, what it said so far, and a pipe on which it is told to stop."""

    def __init__(self, act: Callable[[Path, str, Say, int], None], root: Path, name: str, stop: int) -> None:
        self.name = name
        self.killed = False
        self._said = b""
        self._status: int | None = None
        self.output, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                act(root, name, lambda line: os.write(write, f"{line}\n".encode()), stop)
                status = 0
            except BaseException:  # noqa: BLE001 - it must not get back into pytest
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(write)

    def listen(self) -> bool:
        """Read what it has to say; False when it has ended."""
        more = os.read(self.output, 1 << 16)
        self._said += more
        return bool(more)

    def kill(self) -> int:
        self.killed = True
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
        return self.end()

    def end(self) -> int:
        """Hear it out, wait for its end, and return its exit status."""
        if self._status is None:
            while self.listen():
                pass
            os.close(self.output)
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    @property
    def said(self) -> list[list[str]]:
        return [line.split() for line in self._said.decode().splitlines()]


def told_to_stop(stop: int, seconds: float = 0.0) -> bool:
    # The byte in the pipe is never read: so it tells everyone.
    return bool(select.select([stop], [], [], seconds)[0])


def produce(root: Path, name: str, say: Say, stop: int) -> None:
    """Entries, one by one and in batches, until told to stop; at least its share."""
    with FileStorage(root, sizes=SIZES) as storage:
        queue = Queue("jobs", storage, str, max_size=1000)
        chance, number = Random(name), 0
        while number < ENTRIES / PRODUCERS or not told_to_stop(stop):
            ids = [f"{name}-{number + n}" for n in range(chance.choice((1, 1, 1, 10)))]
            try:
                queue.enqueue_many([entry_id * 20 for entry_id in ids], ids=ids)
            except QueueFull:
                told_to_stop(stop, 0.005)
                continue
            number += len(ids)
            say(f"enqueued {' '.join(ids)}")


def consume(root: Path, name: str, say: Say, stop: int) -> None:
    """Take one entry after the other until told to stop and there is none left."""
    chance = Random(name)
    with FileStorage(root, sizes=SIZES) as storage:
        queue = Queue("jobs", storage, str, retry_policy=POLICY)
        while True:
            entry = queue.dequeue(wait=timedelta(seconds=0.2))
            if entry is None:
                if told_to_stop(stop) and not len(queue):
                    return
                continue
            assert entry.data == entry.id * 20
            assert all(attempt.cause == "worker_died" for attempt in entry.errors)
            say(f"took {entry.id} {entry.token} {entry.attempts}")
            time.sleep(chance.random() * 0.004)  # the work
            queue.mark_completed(entry)
            say(f"done {entry.id} {entry.token}")


@dataclass
class Verdict:
    """What the processes said, put beside what the storage has written down."""

    enqueued: set[str] = field(default_factory=set)
    taken: dict[tuple[str, int], Actor] = field(default_factory=dict)  # by id and token
    done: set[tuple[str, int]] = field(default_factory=set)
    written: set[tuple[str, int]] = field(default_factory=set)  # completions, in the segments

    def hear(self, actor: Actor) -> None:
        for what, *words in actor.said:
            if what == "enqueued":
                self.enqueued.update(words)
            elif what == "took":
                self.taken[words[0], int(words[1])] = actor
            else:
                self.done.add((words[0], int(words[1])))

    def read(self, root: Path) -> None:
        for path in root.glob("jobs/segments/*.jsonl"):
            for line in path.read_bytes().splitlines():
                fields = json.loads(line)
                if fields["op"] == "complete":
                    self.written.add((fields["id"], fields["token"]))

    @property
    def lost(self) -> set[str]:
        """Durable, or said to be completed, and no completion to be found."""
        return (self.enqueued | {entry for entry, _ in self.done}) - {entry for entry, _ in self.written}

    @property
    def unexpected(self) -> set[str]:
        """Never enqueued; or completed under a lease that nobody was given."""
        return ({entry for entry, _ in self.taken} - self.enqueued) | {
            entry for entry, _ in self.written - set(self.taken)
        }

    @property
    def duplicated(self) -> set[str]:
        """Delivered again although the lease before had not ended: its holder lived, or had completed it."""
        deliveries = sorted(self.taken, key=lambda delivery: delivery[1])
        last = dict(deliveries)
        again = {(entry, token) for entry, token in deliveries if token != last[entry]}
        return {
            entry
            for entry, token in again
            if not self.taken[entry, token].killed or (entry, token) in self.done | self.written
        }

    @property
    def recovered(self) -> set[str]:
        """Given to a process that was killed with it, and completed by another."""
        return {entry for entry, token in set(self.taken) - self.written} & {entry for entry, _ in self.done}


def act_out(root: Path, chance: Random) -> tuple[list[Actor], int]:
    """Everybody that took part, and how many were killed."""
    (stop_producing, tell_producers), (stop_consuming, tell_consumers) = os.pipe(), os.pipe()
    producers = [Actor(produce, root, f"p{n}", stop_producing) for n in range(PRODUCERS)]
    consumers = [Actor(consume, root, f"c{n}", stop_consuming) for n in range(CONSUMERS)]
    listening = {actor.output: actor for actor in producers + consumers}
    gone: list[Actor] = []
    kills, until = 0, time.monotonic() + SECONDS
    try:
        next_kill = time.monotonic()
        while any(actor in producers for actor in listening.values()):
            for output in select.select(list(listening), [], [], max(0.0, next_kill - time.monotonic()))[0]:
                if not listening[output].listen():
                    del listening[output]
            if time.monotonic() >= next_kill:
                victim = consumers.pop(chance.randrange(CONSUMERS))
                listening.pop(victim.output, None)
                assert victim.kill() == -signal.SIGKILL
                gone.append(victim)
                kills += 1
                consumers.append(Actor(consume, root, f"c{CONSUMERS + kills}", stop_consuming))
                listening[consumers[-1].output] = consumers[-1]
                next_kill = time.monotonic() + chance.expovariate(1 / KILL_EVERY)
            if kills >= KILLS and time.monotonic() >= until:
                os.write(tell_producers, b"!")
                until = inf  # once is enough
        os.write(tell_consumers, b"!")
        assert [actor.end() for actor in producers + consumers] == [0] * (PRODUCERS + CONSUMERS)
    except BaseException:
        for actor in producers + consumers:
            actor.kill()
        raise
    finally:
        for end in (stop_producing, tell_producers, stop_consuming, tell_consumers):
            os.close(end)
    return producers + consumers + gone, kills


@pytest.mark.parametrize("seed", range(2, 22 if DEEP else 3))
def test_nothing_is_lost_while_segments_go(tmp_path: Path, seed: int) -> None:
    """The same holds while old segments are removed: what nobody reports to have done, a killed one had."""
    root = tmp_path / "storage"
    actors, kills = act_out(root, Random(seed))
    verdict = Verdict()
    for actor in actors:
        verdict.hear(actor)
    unreported = verdict.enqueued - {entry for entry, _ in verdict.done}
    last = dict(sorted(verdict.taken, key=lambda delivery: delivery[1]))
    assert all(verdict.taken[entry, last[entry]].killed for entry in unreported)
    assert not verdict.duplicated
    assert not {entry for entry, _ in verdict.taken} - verdict.enqueued
    with FileStorage(root, sizes=SIZES) as storage:
        assert Queue("jobs", storage, str).entries() == []
    assert sum(path.stat().st_size for path in root.glob("jobs/segments/*.jsonl")) < 20 * SIZES.segment
    count("killed at random", kills)


def test_nobody_loses_anything(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """While consumers are killed all the time nothing is lost, made up, or delivered while it is held."""
    root = tmp_path / "storage"
    with FileStorage(root, sizes=SIZES, history=timedelta(days=1)):
        pass  # every record is to be there in the end
    actors, kills = act_out(root, Random(1))
    verdict = Verdict()
    for actor in actors:
        verdict.hear(actor)
    verdict.read(root)
    counted = {
        name: len(getattr(verdict, name)) for name in ("lost", "unexpected", "duplicated", "recovered")
    }
    counted |= {"entries": len(verdict.enqueued), "kills": kills}
    print(counted)  # noqa: T201 - shown by pytest -rP
    for name, number in counted.items():
        record_property(name, number)
    assert len(verdict.enqueued) >= ENTRIES
    assert not verdict.lost
    assert not verdict.unexpected
    assert not verdict.duplicated
    assert verdict.recovered
    assert verdict.done <= verdict.written
    with FileStorage(root, sizes=SIZES) as storage:
        assert Queue("jobs", storage, str).entries() == []
    count("killed at random", kills)
