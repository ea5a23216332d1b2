"""A program whose system calls are recorded: processes that share a storage and do all that changes it.

    recorded.py DIRECTORY SEED PROCESSES STEPS

Each says on stdout, with one write a line, what it is about to commit, and then that it was told it is done:

    ? complete/a/p1-0 enqueue/b/p1-1
    !
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from random import Random
from zlib import crc32

from duraq import DeadLetterQueue, FileStorage, NoRetry, Queue, QueueEntry, QueueNotFound
from duraq.journal.log import Sizes

# So small that segments are sealed and the journal is recycled all the time.
SIZES = Sizes(journal=8 << 10, segment=2 << 10)
QUEUES = ("a", "b")
A_MOMENT = timedelta(milliseconds=20)
ENDS = ("complete", "complete", "move", "move", "fail", "bury", "release")


def payload(entry_id: str) -> str:
    """What an entry of that id holds."""
    return entry_id * (crc32(entry_id.encode()) % 60)


def priority(entry_id: str) -> int:
    """For those that are enqueued one by one."""
    return crc32(entry_id.encode()) % 3


class Process:
    """One of the processes, with its own storage."""

    def __init__(self, root: str, name: str, seed: str, steps: int) -> None:
        self.name, self.steps = name, steps
        self.chance = Random(f"{name} {seed}")
        self.storage = FileStorage(root, sizes=SIZES)
        self.queues = {each: Queue(each, self.storage, str, retry_policy=NoRetry()) for each in QUEUES}
        self.made = 0

    def run(self) -> None:
        does = (self.enqueue, self.enqueue_many, self.enqueue_in_both, self.work, self.work_many, self.tend)
        for step in self.chance.choices(does, (4, 2, 2, 9, 2, 2), k=self.steps):
            step(self.chance.choice(QUEUES))
        self.storage.close()

    def enqueue(self, queue: str) -> None:
        made = self.new(1)
        with self.told("enqueue", queue, made):
            self.put(queue, made)

    def enqueue_many(self, queue: str) -> None:
        made = self.new(self.chance.randrange(2, 6))
        with self.told("enqueue", queue, made):
            self.queues[queue].enqueue_many([payload(each) for each in made], ids=made)

    def enqueue_in_both(self, queue: str) -> None:
        made, others = self.new(2), self.new(2)
        with self.told("enqueue", "a", made, "enqueue", "b", others), self.storage.transaction():
            self.put("a", made)
            self.put("b", others)

    def work(self, queue: str) -> None:
        entry = self.queues[queue].dequeue(wait=A_MOMENT)
        if entry is None:
            return
        if self.chance.random() < 0.2:
            self.queues[queue].extend(entry)
        how = self.chance.choice(ENDS)
        if how == "move":
            self.move(queue, entry)
            return
        with self.told(how, queue, [entry.id]):
            self.end(how, self.queues[queue], entry)

    def move(self, queue: str, entry: QueueEntry[str]) -> None:
        """A transaction: what comes of an entry, in the other queue, and its end."""
        (other,) = {*QUEUES} - {queue}
        made = self.new(2)
        with self.told("complete", queue, [entry.id], "enqueue", other, made), self.storage.transaction():
            self.queues[queue].mark_completed(entry)
            self.put(other, made)

    def end(self, how: str, queue: Queue[str], entry: QueueEntry[str]) -> None:
        if how == "complete":
            queue.mark_completed(entry)
        elif how == "release":
            queue.release(entry)
        elif how == "bury":
            queue.mark_failed(entry, "never", dead=True)
        else:
            queue.mark_failed(entry, "not today", retry_in=timedelta(0))

    def work_many(self, queue: str) -> None:
        entries = self.queues[queue].dequeue(limit=3)
        if entries:
            with self.told("complete", queue, [entry.id for entry in entries]):
                self.queues[queue].mark_completed_many(entries)

    def tend(self, queue: str) -> None:
        """Whatever else there is to do, by one of the processes: two would retry the same dead letter."""
        with suppress(QueueNotFound):  # nobody has come to it yet
            self.storage.compact(queue)
        letters = DeadLetterQueue(queue, str, self.storage)
        for entry in letters.list()[:1] if self.name == "p0" else ():
            with self.told("retry", queue, [entry.id]):
                letters.retry(entry.id)

    def put(self, queue: str, ids: list[str]) -> None:
        for each in ids:
            self.queues[queue].enqueue(payload(each), id=each, priority=priority(each))

    def new(self, number: int) -> list[str]:
        self.made += number
        return [f"{self.name}-{each}" for each in range(self.made - number, self.made)]

    @contextmanager
    def told(self, *changes: str | list[str]) -> Iterator[None]:
        """Say what is about to be done (how, queue and entries, and again), and that it is."""
        words = [
            f"{how}/{queue}/{each}"
            for how, queue, ids in zip(changes[::3], changes[1::3], changes[2::3], strict=True)
            for each in ids
        ]
        say(f"? {' '.join(words)}")
        yield
        say("!")


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main(root: str, seed: str, processes: str, steps: str) -> int:
    """Run them all; says whether one ended badly."""
    children = []
    for number in range(int(processes)):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                Process(root, f"p{number}", seed, int(steps)).run()
                status = 0
            except BaseException:  # noqa: BLE001 - it must not go on as if it were the parent
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
