"""Under one idempotency key there is one entry, in whichever storage, and however often they are moved."""

import shutil
from contextlib import ExitStack
from datetime import timedelta

import pytest
from moved import NAMES, before_commit, ids, killed, notes, on_server, removes, sends

import duraq
from duraq import (
    FixedDelay,
    Queue,
    migrate,
)
from duraq.migration import Migration, give_up
from duraq.migration.carrying import Ends
from duraq.operations import Adopt, Expire, Remove
from duraq.testing import FakeClock

AT_ONCE = timedelta(0)
ONCE = FixedDelay(max_attempts=1, delay=timedelta(0))


def test_a_key_in_both(source, target):
    """Under one key there is one entry in the end, in whichever storage it was enqueued first, and second."""
    migrate(source, target)
    with duraq.open(source) as here, duraq.open(target) as there:
        old, new = Queue("jobs", here), Queue("jobs", there)
        for number, (first, second) in enumerate([(old, new), (new, old)]):
            first.enqueue("work", key=f"k{number}")
            second.enqueue("work", key=f"k{number}")
        only = old.enqueue("only here", key="k2")
        kept = [each.id for each in there.entries("jobs")]
    moved = migrate(source, target)
    assert len(moved.queues["jobs"].known) == 2
    assert ids(source) == []
    assert ids(target) == [*kept, only]
    with duraq.open(target) as storage:
        assert Queue("jobs", storage).enqueue("again", key="k2") == only


def test_a_key_whose_window_has_passed(tmp_path):
    """What the target knows of a key from before, for its clock is behind, does not end what came since."""
    clock, behind = FakeClock(), FakeClock()
    with ExitStack() as stack:
        here = stack.enter_context(duraq.open(f"file:{tmp_path}/source", clock=clock))
        there = stack.enter_context(duraq.open(f"sqlite:{tmp_path}/target.db", clock=behind))
        jobs = Queue("jobs", here)
        for name in "ab":
            jobs.enqueue(name, id=name, key="k", key_window=timedelta(seconds=10))
            for _ in Migration(Ends(here, there, there, "source", "target"), wait=0):
                pass
            clock.advance(timedelta(seconds=20))
        assert [each.id for each in there.entries("jobs")] == ["a", "b"]
        assert Queue("jobs", there).enqueue("again", key="k") == "b"


def test_a_key_that_is_enqueued_just_now(source, target, monkeypatch):
    """A key that comes into the target just before its entry does is seen."""
    migrate(source, target)
    with duraq.open(source) as here, duraq.open(target) as there:
        Queue("jobs", here).enqueue("work", key="k")
        copied = [False]

        def enqueue():
            copied[0] = True
            Queue("jobs", there).enqueue("work", id="new", key="k")

        monkeypatch.setattr("duraq.migration.carrying.Ends.copy_keys", lambda _: None)
        before_commit(monkeypatch, sends("jobs"), enqueue)
        moved = migrate(source, target)
    assert copied[0]
    assert len(moved.queues["jobs"].known) == 1
    assert ids(target) == [*NAMES, "new"]


@pytest.mark.parametrize(
    "kinds", [("file", "sqlite"), ("sqlite", "lmdb"), ("lmdb", "server"), ("server", "file")]
)
def test_there_and_back_under_one_key(kinds, tmp_path):
    """Of two entries under one key one is left, also on the way back, and all are told of that one."""
    here, there = (on_server() if kind == "server" else f"{kind}:{tmp_path}/{kind}" for kind in kinds)
    for url, name in ((here, "first"), (there, "second")):
        with duraq.open(url) as storage:
            Queue("jobs", storage).enqueue("work", id=name, key="k")
    assert migrate(here, there, merge=True).queues["jobs"].known == ["first"]
    assert migrate(there, here).queues["jobs"].known == []
    for url in (here, there):
        with duraq.open(url) as storage:
            assert Queue("jobs", storage).enqueue("again", key="k") == "second"
    assert (ids(here), ids(there)) == (["second"], [])


def test_a_key_whose_entry_never_came(tmp_path):
    """A storage that was only told of a key ends no entry for it, and has none ended elsewhere."""
    first, second, third = (f"{kind}:{tmp_path}/{kind}" for kind in ("file", "sqlite", "lmdb"))
    for url in (first, third):
        with duraq.open(url) as storage:
            Queue("jobs", storage).enqueue("work", id=f"in-{url[:4]}", key="k")
    with duraq.open(first) as storage:
        jobs = Queue("jobs", storage)
        held = jobs.dequeue()
        # Its keys have come to the second one, and it has not.
        assert not migrate(first, second, wait=AT_ONCE).complete
        jobs.release(held)
    assert migrate(first, third, merge=True).queues["jobs"].known == ["in-file"]
    assert migrate(third, second).queues["jobs"].known == []
    assert [ids(url) for url in (first, second, third)] == [[], ["in-lmdb"], []]


def test_a_run_that_stalls_before_it_ends_an_entry(source, target, monkeypatch):
    """What is known in the target is not ended if the target was emptied meanwhile."""
    for url in (source, target):
        with duraq.open(url) as storage:
            Queue("jobs", storage).enqueue("work", id=f"in-{url[:4]}", key="k")

    def ends(changes):
        return "_keys" in changes and any(isinstance(each, Remove) for each in changes.get("jobs", ()))

    def go_back():
        give_up(source, target)
        migrate(target, source, merge=True)

    before_commit(monkeypatch, ends, go_back)
    migrate(source, target, merge=True)
    assert sorted(ids(source) + ids(target)) == [*NAMES, "in-file"]


def test_a_page_with_what_was_just_ended(tmp_path, target, monkeypatch):
    """What one run has ended, for the target has its key, does not arrive by the page of another one."""
    source = f"file:{tmp_path}/source"
    with duraq.open(source) as storage:
        Queue("jobs", storage).enqueue("work", id="in-source", key="k")
        (key,) = storage.entries("_keys")

    def come_between():
        with duraq.open(target) as storage:
            storage.commit({"_keys": [Expire(key.id)]})
            Queue("jobs", storage).enqueue("work", id="in-target", key="k")
        killed(monkeypatch, source, target, lambda changes: notes("in/")(changes) and not ids(source))

    before_commit(monkeypatch, sends("jobs"), come_between)
    assert migrate(source, target, merge=True).complete
    assert (ids(source), ids(target)) == ([], ["in-target"])


def test_two_of_a_page_under_one_key(tmp_path):
    """A dead letter whose key's window has passed does not keep the key of a newer entry from being seen."""
    first, source, target = (f"sqlite:{tmp_path}/{name}.db" for name in ("first", "source", "target"))
    with duraq.open(first) as storage:
        jobs = Queue("jobs", storage, retry_policy=ONCE)
        jobs.enqueue("work", id="a", key="k", key_window=timedelta(microseconds=1))
        jobs.mark_failed(jobs.dequeue(), "no")
    for url, name in ((source, "b"), (target, "c")):
        with duraq.open(url) as storage:
            Queue("jobs", storage).enqueue("work", id=name, key="k")
    migrate(first, source, merge=True)
    assert ids(source) == ["b", "a"]
    assert migrate(source, target, merge=True).queues["jobs"].known == ["b"]
    assert ids(target) == ["c", "a"]


def test_a_key_of_what_an_older_copy_has_twice(tmp_path, monkeypatch):
    """What giving up takes out of an older copy is no reason there to end another entry."""
    source, target, third = (f"sqlite:{tmp_path}/{name}.db" for name in ("source", "target", "third"))
    for url, name in ((source, "e"), (third, "c")):
        with duraq.open(url) as storage:
            Queue("jobs", storage).enqueue("work", id=name, key="k")
    killed(monkeypatch, source, target, removes("jobs"))
    shutil.copyfile(tmp_path / "source.db", tmp_path / "older.db")
    assert migrate(source, target).complete
    with duraq.open(source) as storage:
        Queue("jobs", storage).resume()
        Queue("jobs", storage).enqueue("work", id="f")
    assert migrate(source, target).complete
    shutil.copyfile(tmp_path / "older.db", tmp_path / "source.db")
    give_up(source, target)
    assert migrate(target, third, merge=True).queues["jobs"].known == ["e"]
    assert migrate(third, source, merge=True).queues["jobs"].known == []
    assert sorted(ids(source)) == ["c", "f"]


def test_keys_of_a_lease_that_comes_late(source, target, monkeypatch):
    """When a queue that stays half in the source is worked in the target, its keys are known there."""
    asked = []

    def ask():
        with duraq.open(target) as storage:
            asked.append(Queue("jobs", storage).enqueue("late", key="k"))

    def opens(changes):
        return any(isinstance(each, Adopt) and each.pause is None for each in changes.get("jobs", ()))

    with duraq.open(source) as storage, ExitStack() as begun:
        jobs = Queue("jobs", storage)
        begun.enter_context(storage.transaction())
        jobs.enqueue("own", id="own", priority=9)
        jobs.dequeue()
        before_commit(monkeypatch, opens, ask)
        before_commit(
            monkeypatch, sends("jobs"), lambda: (begun.close(), jobs.enqueue("late", id="late", key="k"))
        )
        assert not migrate(source, target, wait=AT_ONCE).complete
    assert asked == ["late"]
