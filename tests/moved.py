"""A storage in which there is something of everything, and all that is to be the same once it is moved."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import quote

import pytest
from conftest import _server

import duraq
from duraq import DeadLetterQueue, EntryStatus, FixedDelay, Queue, migrate
from duraq.migration.notes import Sent
from duraq.model import ACTS, KEYS
from duraq.operations import Remove, Restore
from duraq.storage.transacting import TransactingStorage

POLICY = FixedDelay(max_attempts=2, delay=timedelta(0))
HOUR = timedelta(hours=1)
NAMES = ["a", "b", "c", "d"]
REMOVED = "removed-act"


def on_server():
    """The URL of a database that is empty."""
    server = _server()
    options = quote(f"-csearch_path={server.new_schema()}", safe="")
    return f"postgresql://duraq@/postgres?host={quote(str(server.home), safe='')}&port=5432&options={options}"


def fill(storage):
    """Entries in every state, of every kind, in several queues."""
    jobs = Queue("jobs", storage, retry_policy=POLICY)
    for number in range(4):
        jobs.enqueue({"fails": number}, id=f"fails-{number}")
    for _ in range(3):
        for entry in jobs.dequeue(limit=3):
            jobs.mark_failed(entry, ValueError("no, " + entry.id))
    letters = DeadLetterQueue("jobs", None, storage)
    letters.retry("fails-0")
    again = jobs.dequeue()
    jobs.release(again)
    jobs.enqueue_many(
        [f"many-{number}" for number in range(9)], ids=[f"many-{number}" for number in range(9)]
    )
    jobs.enqueue("first", id="first", priority=9)
    jobs.enqueue("late", id="late", delay=HOUR, headers={"trace": "1", "data": "é"})
    jobs.enqueue("short", id="short", ttl=HOUR)
    jobs.enqueue("once", id="once", key="order-17")
    jobs.enqueue("done", id="done", priority=99)
    jobs.mark_completed(jobs.dequeue())
    letters.remove("fails-1", reason="not wanted")
    held = Queue("held", storage)
    held.enqueue_many(["a", "b"], ids=["a", "b"])
    held.pause("till Monday", who="ann")
    empty = Queue("empty", storage)
    empty.pause("", who="ann")
    empty.resume(who="ann")


def told(storage):
    """What must be the same in whichever storage it is."""
    found = {name: _queue(storage, name) for name in storage.queues()}
    for name in (ACTS, KEYS):
        found[name] = sorted(Sent.of(each).checksum for each in storage.entries(name))
    return found


def _queue(storage, name):
    head = storage.head(name)
    entries = storage.entries(name)
    return {
        "pause": head.pause,
        # But how many have come here from elsewhere.
        "numbers": head.ledger.totals()._replace(restored=0),
        "durations": (head.ledger.wait.image(), head.ledger.run.image(), head.ledger.completed_at),
        "counts": storage.counts(name),
        "entries": [(each.id, each.status, Sent.of(each).checksum) for each in entries],
        "order": [each.id for each in storage.entries(name, EntryStatus.READY)],
    }


def is_emptied(storage):
    """Whether no queue of it has an entry, and nobody may take one that is yet to come."""
    left = [storage.counts(name) for name in storage.queues()]
    paused = [storage.paused(name) for name in storage.queues()]
    return not any(each.length or each.dead for each in left) and all(paused)


class Stopped(BaseException):
    """Whoever moved it is gone."""


def before_commit(monkeypatch, is_it, act):
    """Have something done once, just before the first commit of which ``is_it(changes)`` says so.

    If that is ``stop``, nothing is committed any more: as of a process that was killed.
    """
    commit, acts = TransactingStorage.commit, [act]

    def watched(self, changes, limits=None):
        if act is stop and not acts:
            raise Stopped
        if acts and is_it(changes):
            acts.pop()()
        commit(self, changes, limits)

    monkeypatch.setattr(TransactingStorage, "commit", watched)


def sends(queue):
    """Whether a change has entries of that queue arrive in the target."""
    return lambda changes: any(isinstance(each, Restore) and each.source for each in changes.get(queue, ()))


def removes(queue):
    """Whether a change removes entries of that queue from one storage for another one."""
    return lambda changes: any(isinstance(each, Remove) and each.to for each in changes.get(queue, ()))


def notes(start):
    """Whether a change has a note with a name that begins like that."""
    return lambda changes: any(each.id.startswith(start) for each in changes.get("_migrations", ()))


def stop():
    """Be gone."""
    raise Stopped


# -- a small storage ----------------------------------------------------------------------------------------


def filled(url):
    """The URL, with `jobs` in it."""
    with duraq.open(url, durability="process") as storage:
        Queue("jobs", storage).enqueue_many(NAMES, ids=NAMES)
    return url


def ids(url, queue="jobs"):
    """Which entries the queue has, in order."""
    with duraq.open(url) as storage:
        return [each.id for each in storage.entries(queue)]


def pause_of(url):
    """Why `jobs` is paused."""
    with duraq.open(url) as storage:
        pause = storage.paused("jobs")
        return None if pause is None else pause.reason


def resume(url):
    """Resume `jobs`."""
    with duraq.open(url) as storage:
        Queue("jobs", storage).resume()


def work(url):
    """Complete all that can be claimed of `jobs`; returns what that was."""
    with duraq.open(url) as storage:
        jobs = Queue("jobs", storage)
        done = list(jobs.dequeue(limit=100))
        for entry in done:
            jobs.mark_completed(entry)
        return [entry.id for entry in done]


def killed(monkeypatch, source, target, is_it):
    """Move it, and be killed before the first commit of which ``is_it`` says so."""
    with monkeypatch.context() as patched:
        before_commit(patched, is_it, stop)
        with pytest.raises(Stopped):
            migrate(source, target)
