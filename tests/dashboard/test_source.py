"""The threads that read a storage for the screens."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
from duraq_dashboard import source as sources
from duraq_dashboard.looker import Looker
from duraq_dashboard.source import StorageSource

from duraq import FileStorage, NotAStorage, Queue
from duraq.journal.log import Sizes

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
SMALL = Sizes(journal=1 << 16, segment=8000)


class Seen:
    """What a source has told, each time it has."""

    def __init__(self):
        self.snapshots = []
        self._changed = threading.Condition()

    def __call__(self, snapshot):
        with self._changed:
            self.snapshots.append(snapshot)
            self._changed.notify_all()

    def until(self, holds):
        """The first of them of which that is true."""
        with self._changed:
            at = 0
            while True:
                for snapshot in self.snapshots[at:]:
                    if holds(snapshot):
                        return snapshot
                at = len(self.snapshots)
                assert self._changed.wait(30), self.snapshots[-1:]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "storage"


@pytest.fixture
def storage(path):
    with FileStorage(path, durability="process", sizes=SMALL) as storage:
        yield storage


@pytest.fixture
def source(path):
    source = StorageSource(path)
    yield source
    source.stop()


@pytest.fixture
def seen(source):
    seen = Seen()
    source.start(seen)
    return seen


def ready(snapshot, queue):
    found = snapshot.queues.get(queue)
    return 0 if found is None else found.view.counts.ready


def test_what_is_written_is_seen(storage, seen):
    """What is written is told, in the end all of it, and each snapshot has a higher number."""
    for number in range(1, 4):
        Queue("jobs", storage).enqueue(number)
        seen.until(lambda snapshot, number=number: ready(snapshot, "jobs") == number)
    numbers = [snapshot.number for snapshot in seen.snapshots]
    assert numbers == sorted(set(numbers))


def test_still_means_still(storage, source, seen):
    """As long as nothing changes nothing is told, and that it is looked at is known all the same."""
    Queue("jobs", storage).enqueue(1)
    seen.until(lambda snapshot: ready(snapshot, "jobs") == 1)
    time.sleep(0.3)
    last, looked_at = seen.snapshots[-1], source.looked_at
    while source.looked_at < looked_at + timedelta(seconds=2.5):
        time.sleep(0.05)
    assert seen.snapshots[-1] is last


def test_when_that_is_wanted(storage, source, seen):
    """If somebody wants a look, it is told at once what there is, new or not."""
    Queue("jobs", storage).enqueue(1)
    number = seen.until(lambda snapshot: ready(snapshot, "jobs") == 1 and snapshot.tried).number
    count = len(seen.snapshots)
    source.look_now()
    seen.until(lambda _: len(seen.snapshots) > count)
    assert seen.snapshots[count].number == number


def test_gone_until_that_is_noted(storage, path, source, seen):
    """A queue that vanishes is told to be gone, until that is noted."""
    Queue("jobs", storage).enqueue(1)
    seen.until(lambda snapshot: ready(snapshot, "jobs") == 1)
    (path / "jobs").rename(path.parent / "jobs")
    # The first of them may be of before there was one.
    seen.until(lambda snapshot: "jobs" in snapshot.queues and snapshot.queues["jobs"].gone)
    count = len(seen.snapshots)
    source.acknowledge("jobs")
    seen.until(lambda snapshot: snapshot in seen.snapshots[count:] and not snapshot.queues)


@pytest.mark.parametrize("turn", range(50 if DEEP else 1))
def test_a_burst(storage, path, seen, turn):
    """However much is written at once, by others and into new queues, in the end it agrees with stats."""
    code = (
        "import sys, duraq\n"
        "from duraq.journal.log import Sizes\n"
        "sizes = Sizes(journal=1 << 16, segment=8000)\n"
        "storage = duraq.FileStorage(sys.argv[1], durability='process', sizes=sizes)\n"
        "for turn in range(40):\n"
        "    queue = duraq.Queue(f'{sys.argv[2]}-{turn % 7}', storage)\n"
        "    queue.enqueue_many(range(50))\n"
        "    for entry in queue.dequeue(limit=40): queue.mark_completed(entry)\n"
        "    for entry in queue.dequeue(limit=3): queue.mark_failed(entry, 'no', dead=True)\n"
        "storage.compact(f'{sys.argv[2]}-0')\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, path, name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    Queue("last", storage).enqueue(1)
    snapshot = seen.until(lambda snapshot: "last" in snapshot.queues)
    time.sleep(2.5)  # a sweep
    snapshot = seen.snapshots[-1]
    stats = [sys.executable, "-m", "duraq", "--root", str(path), "stats", "--json"]
    done = subprocess.run(stats, check=True, capture_output=True)
    rows = {row["queue"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows.keys() == snapshot.queues.keys()
    for name, now in snapshot.queues.items():
        counts = now.view.counts
        row = rows[name]
        assert (row["ready"], row["scheduled"], row["leased"], row["dead"]) == (
            counts.ready,
            counts.scheduled,
            counts.leased,
            counts.dead,
        )
        assert row["status"] == now.word


def test_no_dead_thread(storage, source, monkeypatch, caplog):
    """What nobody has thought of goes to the log, and the watching goes on."""
    failed = threading.Event()
    look = Looker.look

    def fail(self, **options):
        if not failed.is_set():
            failed.set()
            raise ZeroDivisionError("nobody has thought of this")
        return look(self, **options)

    monkeypatch.setattr(Looker, "look", fail)
    caplog.set_level(logging.CRITICAL, "duraq.dashboard")
    Queue("jobs", storage).enqueue(1)
    seen = Seen()
    source.start(seen)
    seen.until(lambda snapshot: ready(snapshot, "jobs") == 1)
    assert failed.is_set()


def ask(source, question):
    """The answer to a question."""
    answers = []
    answered = threading.Event()

    def answer(found):
        answers.append(found)
        answered.set()

    source.ask(question, answer)
    assert answered.wait(30)
    return answers[0]


def test_answers(storage, source):
    """A question is answered with an inspector that has just looked, the same one each time."""
    queue = Queue("jobs", storage)
    inspectors = set()
    for number in range(3):
        queue.enqueue(number)

        def question(inspector, _stop):
            inspectors.add(inspector)
            return inspector.counts("jobs").ready

        assert ask(source, question) == number + 1
    assert len(inspectors) == 1


def test_an_error_is_an_answer(path, source):
    """Whatever keeps a question from being answered is the answer, and the next one may have another."""
    assert isinstance(ask(source, lambda inspector, _stop: inspector.queues()), NotAStorage)
    assert isinstance(ask(source, lambda _inspector, _stop: 1 / 0), NotAStorage)
    with FileStorage(path):
        assert ask(source, lambda inspector, _stop: inspector.queues()) == []
        assert isinstance(ask(source, lambda _inspector, _stop: 1 / 0), ZeroDivisionError)


@pytest.mark.usefixtures("storage")
def test_a_long_answer_holds_up_no_other(source, monkeypatch):
    """While one question takes long the others are answered; what is given up is not answered at all."""
    monkeypatch.setattr(sources, "PATIENCE", 0.0)
    begun = threading.Event()
    answers = []

    def question(_inspector, stop):
        begun.set()
        assert stop.wait(30)
        return "too late"

    given_up = source.ask(question, answers.append)
    assert begun.wait(30)
    assert ask(source, lambda _inspector, _stop: "soon") == "soon"
    given_up.set()
    source.stop()
    assert answers == []


@pytest.mark.usefixtures("storage")
def test_a_question_that_was_given_up_is_not_asked(source):
    """Who is not interested any more when it is his turn costs nobody any time."""
    asked = []
    first = threading.Event()
    source.ask(lambda _inspector, _stop: first.wait(30), lambda _: None)
    source.ask(lambda _inspector, _stop: asked.append(1), lambda _: None).set()
    first.set()
    assert ask(source, lambda _inspector, _stop: len(asked)) == 0


def test_stopped(storage, path):
    """A source that is stopped has no thread left, begun or not; stopping again does nothing."""
    before = set(threading.enumerate())
    source = StorageSource(path)
    source.stop()
    source = StorageSource(path)
    source.start(Seen())
    ask(source, lambda inspector, _stop: inspector.queues())
    source.stop()
    source.stop()
    assert set(threading.enumerate()) <= before
