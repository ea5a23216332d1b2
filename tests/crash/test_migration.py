"""A storage that is moved while it is worked, by somebody who is killed: none lost, none there twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from itertools import count as numbered
from random import Random

import pytest
from conftest import SMALL
from evidence import count
from moved import fill, is_emptied, on_server, told

import duraq
from duraq import Queue, migrate
from duraq.migration import Migration, carrying
from duraq.migration.carrying import Ends
from duraq.migration.notes import Sent
from duraq.storage.transacting import TransactingStorage

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}

pytestmark = pytest.mark.timeout(3600)


def opened(url):
    """The storage, not durable and not large: that is not what is asked here."""
    small = {"sizes": SMALL} if url.startswith("file:") else {}
    return duraq.open(url, durability="process", **small)


class Killed(BaseException):
    """What is left of a process that is no more."""


@pytest.fixture
def kill_before(monkeypatch):
    """Have the commit of that number, of whichever storage, be the end of who makes it; returns a counter."""
    commit = TransactingStorage.commit

    def kill_before(number):
        made = [0]

        def counted(self, changes, limits=None):
            made[0] += 1
            if made[0] == number:
                raise Killed
            commit(self, changes, limits)

        monkeypatch.setattr(TransactingStorage, "commit", counted)
        return made

    return kill_before


def one_run(source, target):
    """Move it."""
    with ExitStack() as stack:
        here, there, check = (stack.enter_context(opened(url)) for url in (source, target, target))
        for _ in Migration(Ends(here, there, check, source, target), wait=60):
            pass


def all_of(url):
    """Every entry by queue and id, as a checksum, and whether the queue is paused."""
    with duraq.open(url, durability="process") as storage:
        return {
            name: (storage.paused(name), {each.id: Sent.of(each).checksum for each in storage.entries(name)})
            for name in storage.queues()
        }


def check_between(source, target, before):
    """Whatever has moved, each entry is there, as it was; one that is in both can be claimed in neither."""
    here, there = all_of(source), all_of(target)
    for queue, (_, entries) in before.items():
        paused, left = here[queue]
        kept, moved = there.get(queue, (None, {}))
        assert left | moved == entries
        assert moved | left == entries
        if moved.keys() & left.keys():
            assert paused is not None
            assert kept is not None


@pytest.mark.parametrize("way", [("file:{}/a", "sqlite:{}/b", 1), ("sqlite:{}/a", "file:{}/b", 2)])
def test_killed_before_each_commit(tmp_path, monkeypatch, kill_before, way):
    """Killed before any one commit, and run again, a migration ends as it does in one run."""
    first, second, start = way
    monkeypatch.setattr(carrying, "AT_ONCE", 6)
    # Every day each of them in one direction or the other.
    for number in numbered(start, 1 if DEEP else 2):
        home = tmp_path / str(number)
        home.mkdir()
        source, target = first.format(home), second.format(home)
        with opened(source) as storage:
            fill(storage)
            was = told(storage)
        before = all_of(source)
        made = kill_before(number)
        try:
            one_run(source, target)
        except Killed:
            kill_before(0)
            check_between(source, target, before)
            one_run(source, target)
        else:
            kill_before(0)
        with opened(target) as storage:
            assert told(storage) == was
        with opened(source) as storage:
            assert is_emptied(storage)
        if made[0] < number:
            break
        count("migrated")
    assert number > 15


MOVER = """
import os, signal, sys
from duraq import migrate
from duraq.storage.transacting import TransactingStorage

source, target, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
commit = TransactingStorage.commit

def counted(self, changes, limits=None):
    global number
    number -= 1
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    commit(self, changes, limits)

def say(progress):
    os.write(1, f"{progress.done}\\n".encode())

TransactingStorage.commit = counted
migrate(source, target, progress=say)
"""


def mover(source, target, number=0):
    """A process that moves it, and is killed before the commit of that number."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", MOVER, source, target, str(number)], stdout=subprocess.PIPE
    )


def fill_many(url, number):
    """So many entries in two queues, of several priorities; returns all of them by queue."""
    with duraq.open(url, durability="process") as storage:
        for at in range(0, number, 1000):
            names = [f"e{each}" for each in range(at, min(number, at + 1000))]
            queue = Queue("ab"[at * 3 // number == 2], storage)
            queue.enqueue_many([{"n": name} for name in names], ids=names, priority=at // 1000 % 3)
    return all_of(url)


def check_over(source, target, before):
    """All of it is in the target, once, as it was and in the same order; nothing is in the source."""
    after = all_of(target)
    assert after == before
    for queue, (_, entries) in before.items():
        assert list(after[queue][1]) == list(entries)
    with duraq.open(source) as storage:
        assert is_emptied(storage)


def test_killed_by_the_system(tmp_path):
    """A process that is killed between arriving and leaving, and at other places, loses nothing."""
    source, target = f"file:{tmp_path}/a", f"sqlite:{tmp_path}/b.db"
    before = fill_many(source, 2000)
    # What a page's mark stands for has arrived and not left; left, and nothing has come; the last one, again.
    for number in (6, 2, 3, 2):
        with mover(source, target, number) as process:
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        check_between(source, target, before)
    with mover(source, target) as process:
        process.communicate()
    assert process.returncode == 0
    check_over(source, target, before)


@pytest.mark.skipif(not DEEP, reason="20 kills among 100,000 entries take minutes: DURAQ_TEST_DEEP=1")
@pytest.mark.parametrize(
    ("first", "second"),
    [("file:{}/a", "sqlite:{}/b"), ("sqlite:{}/a", "file:{}/b"), ("file:{}/a", "on server")],
)
def test_killed_at_any_moment(tmp_path, first, second):
    """100,000 entries, and 20 kills all over their way: nothing is lost, and nothing there twice."""
    source = first.format(tmp_path)
    target = on_server() if second == "on server" else second.format(tmp_path)
    entries, kills, chance = 100_000, 20, Random(1)
    before = fill_many(source, entries)
    for kill in range(kills):
        left = sum(len(each) for _, each in all_of(source).values())
        with mover(source, target) as process:
            assert process.stdout is not None
            until = left // (kills + 1 - kill)
            while int(process.stdout.readline() or entries) < until:
                pass
            # Some moment of the page that is on its way just now.
            threading.Event().wait(chance.uniform(0, 0.05))
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        check_between(source, target, before)
        count("migrated")
    with mover(source, target) as process:
        process.communicate()
    assert process.returncode == 0
    check_over(source, target, before)


PRODUCER = """
import os, select, sys, duraq
from duraq import Queue

queue = Queue("jobs", duraq.open(sys.argv[1]))
for number in range(400):
    if select.select([0], [], [], 0)[0]:
        break
    name = f"{sys.argv[2]}-{number}"
    queue.enqueue(name, id=name, key=name)
    os.write(1, f"{name}\\n".encode())
"""
WORKER = """
import os, select, sys, duraq
from datetime import timedelta
from duraq import Queue

queue = Queue("jobs", duraq.open(sys.argv[1]))
while True:
    for entry in queue.dequeue(limit=1, wait=timedelta(seconds=0.1)):
        assert entry.id == entry.data
        queue.mark_completed(entry)
        os.write(1, f"{entry.id}\\n".encode())
        break
    else:
        if select.select([0], [], [], 0)[0]:
            break
"""


def test_moved_while_it_is_worked(tmp_path):
    """Producers and workers of other processes go on: each entry is done once, here or there."""
    source, target = f"file:{tmp_path}/a", f"sqlite:{tmp_path}/b.db"
    for url in (source, target):
        duraq.open(url).close()
    with ExitStack() as stack:

        def start(text, *arguments):
            command = [sys.executable, "-W", "error", "-c", text, *arguments]
            # Without a buffer: what a line that is waited for left in it, `communicate` would not see.
            process = subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(process.kill)
            return process

        producers = [start(PRODUCER, source, name) for name in "ab"]
        workers = [start(WORKER, url) for url in (source, source, target, target)]
        heard = [producers[0].stdout.readline(), workers[0].stdout.readline()]
        done = migrate(source, target)
        assert done.queues["jobs"].problem is None
        made = b"".join([heard[0], *(process.communicate(b".")[0] for process in producers)]).split()
        assert migrate(source, target).complete
        worked = b"".join([heard[1], *(process.communicate(b".")[0] for process in workers)]).split()
        assert [process.returncode for process in (*producers, *workers)] == [0] * 6
    assert sorted(worked) == sorted(made)
    assert is_all_done(source)
    assert is_all_done(target)


def is_all_done(url):
    """Whether there is nothing in it."""
    with duraq.open(url) as storage:
        return not any(storage.counts(name).length for name in storage.queues())
