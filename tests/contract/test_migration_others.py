"""Whatever others do while a storage is moved, in either, no entry is lost, and none is worked in both."""

from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta

import pytest
from conftest import SMALL
from moved import (
    NAMES,
    Stopped,
    before_commit,
    filled,
    ids,
    killed,
    notes,
    on_server,
    pause_of,
    removes,
    resume,
    sends,
    stop,
    work,
)

import duraq
from duraq import (
    ActNotFound,
    CannotMigrate,
    Counts,
    DeadLetterQueue,
    EntryStatus,
    FileStorage,
    FixedDelay,
    InvalidOption,
    Queue,
    StorageDamaged,
    migrate,
)
from duraq.migration import Migration, give_up, plan, running
from duraq.migration.carrying import Ends
from duraq.migration.endpoints import Endpoint
from duraq.operations import Expire, Remove, Restore
from duraq.storage.transacting import TransactingStorage
from duraq.testing import FakeClock

AT_ONCE = timedelta(0)
ONCE = FixedDelay(max_attempts=1, delay=timedelta(0))


def move(storage, names, to):
    """Put these dead letters of `jobs` into another queue."""
    for name in names:
        letter = storage.get("jobs", name)
        entry = letter.unheld()
        entry.status = EntryStatus.READY
        restore = Restore(name, letter.payload, entry, changed=True)
        storage.commit({"jobs": [Remove(name, letter.last_token)], to: [restore]})


def killed_while_it_waits(monkeypatch, source, target):
    """Move it, and be killed while its leases are waited for."""
    with monkeypatch.context() as patched:
        gone = []
        before_commit(patched, lambda _: bool(gone), stop)

        def be_killed(progress):
            if progress.leased:
                gone.append(True)
                stop()

        with pytest.raises(Stopped):
            migrate(source, target, progress=be_killed)


@contextmanager
def two_runs(source, target):
    """The source's `jobs`, and two runs of one migration that have not begun; both end with this."""
    with ExitStack() as stack:
        here, there, check = (stack.enter_context(duraq.open(url)) for url in (source, target, target))
        first, second = (
            stack.enter_context(closing(iter(Migration(Ends(here, there, check, source, target), wait=60))))
            for _ in range(2)
        )
        yield Queue("jobs", here), first, second


# -- between arriving and leaving --------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["of file:", "of sqlite:", "of lmdb:", "of a server"])
def test_what_was_worked_in_the_source(source, tmp_path, target, monkeypatch):
    """What arrived, and was worked in the source that was given up by itself, is not in the target too."""
    kind = source.removeprefix("of ")
    source = filled(on_server() if kind == "a server" else f"{kind}{tmp_path}/source")
    killed(monkeypatch, source, target, removes("jobs"))
    assert ids(target) == NAMES
    give_up(source)
    with duraq.open(source) as storage:
        jobs = Queue("jobs", storage)
        jobs.mark_completed(jobs.dequeue())
        jobs.release(jobs.dequeue())
    assert migrate(source, target).complete
    assert ids(source) == []
    assert work(target) == ["b", "c", "d"]


def test_killed_while_it_takes_back(source, target, monkeypatch):
    """Killed before or after it takes back what was worked in the source, it ends the same."""
    killed(monkeypatch, source, target, removes("jobs"))
    give_up(source)
    assert work(source) == NAMES
    with duraq.open(source) as storage:
        Queue("jobs", storage).enqueue("e", id="e")
    killed(monkeypatch, source, target, lambda changes: removes("jobs")(changes) and notes("in/")(changes))
    killed(monkeypatch, source, target, sends("jobs"))
    assert migrate(source, target).complete
    assert work(target) == ["e"]


@pytest.mark.parametrize("kind", ["file", "sqlite", "lmdb"])
def test_entries_that_are_on_their_way(kind, tmp_path, monkeypatch):
    """Whatever somebody would do to them is refused, in both storages; new ones may come, and wait."""
    source, target = f"file:{tmp_path}/source", f"{kind}:{tmp_path}/target"
    with duraq.open(source) as storage:
        jobs = Queue("jobs", storage, retry_policy=ONCE)
        jobs.enqueue_many(NAMES, ids=NAMES)
        for entry in jobs.dequeue(limit=3):
            jobs.mark_failed(entry, "no")
        Queue("other", storage).pause()
    killed(monkeypatch, source, target, removes("jobs"))
    for url in (source, target):
        with duraq.open(url) as storage:
            jobs, letters = Queue("jobs", storage), DeadLetterQueue("jobs", None, storage)
            for act in (
                jobs.resume,
                jobs.pause,
                lambda letters=letters: letters.retry("a"),
                lambda letters=letters: letters.retry("a", data="other"),
                letters.retry_all,
                lambda letters=letters: letters.remove("b"),
                letters.remove_all,
                lambda letters=letters: letters.purge_older_than(AT_ONCE),
                lambda storage=storage: move(storage, "c", "other"),
            ):
                with pytest.raises(
                    CannotMigrate, match=r"migration .* run `duraq migrate` again, or give that"
                ):
                    act()
            assert jobs.dequeue() is None
            jobs.enqueue("e", id=f"e-{kind}")
    assert migrate(source, target).queues["jobs"].stuck == {
        f"e-{kind}": "there is another entry of that id in the target"
    }
    with duraq.open(target) as storage:
        assert [each.id for each in storage.entries("jobs")] == [*NAMES, f"e-{kind}"]
        assert storage.counts("jobs").dead == 3


def test_what_was_done_to_dead_letters_is_on_its_way(source, target, monkeypatch):
    """A removal whose record has arrived is undone in the target only, and once."""
    with duraq.open(source) as storage:
        jobs = Queue("jobs", storage, retry_policy=ONCE)
        jobs.mark_failed(jobs.dequeue(), "no")
        DeadLetterQueue("jobs", None, storage).remove("a")
    killed(monkeypatch, source, target, removes("_acts"))
    for url in (source, target):
        with duraq.open(url) as storage:
            letters = DeadLetterQueue("jobs", None, storage)
            with pytest.raises(CannotMigrate, match=r"what was done to dead letters: migration"):
                letters.undo()
            assert len(letters.acts()) == 1
    assert migrate(source, target).complete
    with duraq.open(source) as storage, pytest.raises(ActNotFound):
        DeadLetterQueue("jobs", None, storage).undo()
    with duraq.open(target) as storage:
        assert DeadLetterQueue("jobs", None, storage).undo() == 1
        assert storage.counts("jobs") == Counts(ready=3, dead=1)


def test_an_undo_that_comes_late(source, target, monkeypatch):
    """An undo that had begun before what it needs was on its way brings nothing back in the source."""
    with duraq.open(source) as storage:
        jobs = Queue("jobs", storage, retry_policy=ONCE)
        jobs.mark_failed(jobs.dequeue(), "no")
        letters = DeadLetterQueue("jobs", None, storage)
        letters.remove("a")
        with monkeypatch.context() as patched:
            before_commit(
                patched,
                lambda changes: any(isinstance(each, Restore) for each in changes.get("jobs", ())),
                lambda: killed(patched, source, target, removes("_acts")),
            )
            assert letters.undo() == 0
    assert migrate(source, target).complete
    with duraq.open(target) as storage:
        assert DeadLetterQueue("jobs", None, storage).undo() == 1
        assert storage.counts("jobs") == Counts(ready=3, dead=1)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_page_that_comes_late(is_killed, source, target, monkeypatch):
    """What arrives after its migration was given up, without a look at the target, does not stay there."""
    done = []
    with monkeypatch.context() as patched:
        if is_killed:
            before_commit(patched, removes("jobs"), stop)
        before_commit(patched, sends("jobs"), lambda: (give_up(source), done.extend(work(source))))
        if is_killed:
            with pytest.raises(Stopped):
                migrate(source, target)
        else:
            assert "was given up meanwhile" in str(migrate(source, target).queues["jobs"].problem)
    assert done == NAMES
    assert ids(target) == (NAMES if is_killed else [])
    with duraq.open(source) as storage:
        Queue("jobs", storage).enqueue("e", id="e")
    assert migrate(source, target).complete
    assert work(target) == ["e"]


@pytest.mark.parametrize("where", ["source", "target"])
def test_an_id_that_is_free_again(where, tmp_path, monkeypatch):
    """If the time to live of what is on its way passes, and its id is used again, both are as they are."""
    clock, storages = FakeClock(), {}
    with ExitStack() as stack:
        for name in ("source", "target"):
            url = f"sqlite:{tmp_path}/{name}.db"
            storages[name] = stack.enter_context(duraq.open(url, clock=clock))
        here, there = storages["source"], storages["target"]
        Queue("jobs", here).enqueue("old", id="report", ttl=timedelta(minutes=1))
        Queue("jobs", here).enqueue("kept", id="kept")

        def go_on():
            clock.advance(timedelta(minutes=2))
            Queue("jobs", storages[where]).enqueue("new", id="report")

        before_commit(monkeypatch, removes("jobs"), go_on)
        run = Migration(Ends(here, there, there, "source", "target"), wait=0)
        for _ in run:
            pass
        assert run.queues["jobs"].problem is None
        assert [each.payload for each in here.entries("jobs")] == []
        assert [each.payload for each in there.entries("jobs")] == [b'"kept"', b'"new"']


def test_undone_in_both(source, target, monkeypatch):
    """That an act was undone may be noted in both storages, and keeps nothing from going."""
    with duraq.open(source) as storage:
        jobs = Queue("jobs", storage, retry_policy=ONCE)
        for entry in jobs.dequeue(limit=2):
            jobs.mark_failed(entry, "no")
        letters = DeadLetterQueue("jobs", None, storage)
        letters.remove_many(["a", "b"])
        act = letters.acts()[-1].id

        def undo_there():
            assert migrate(source, target).complete
            with duraq.open(target) as other:
                assert DeadLetterQueue("jobs", None, other).undo(act) == 2

        with monkeypatch.context() as patched:
            before_commit(
                patched,
                lambda changes: any(each.id == f"{act}/undone" for each in changes.get("_acts", ())),
                undo_there,
            )
            assert letters.undo(act) == 0
    assert migrate(source, target).complete
    with duraq.open(target) as storage:
        assert storage.counts("jobs") == Counts(ready=2, dead=2)


# -- pauses ------------------------------------------------------------------------------------------------


def test_resumed_in_the_source_while_it_is_moved(source, target, monkeypatch):
    """Somebody can resume it in the source as long as nothing has gone; then the run stops there."""
    done = []
    with monkeypatch.context() as patched:
        before_commit(patched, notes("out/jobs/1"), lambda: (resume(source), done.extend(work(source))))
        moved = migrate(source, target)
    assert done == NAMES
    assert "was paused or resumed in the source by others" in str(moved.queues["jobs"].problem)
    assert pause_of(source) is None
    with duraq.open(source) as storage:
        Queue("jobs", storage).enqueue_many(["e", "f"], ids=["e", "f"])
    assert migrate(source, target).complete
    assert work(target) == ["e", "f"]


def test_a_reason_that_is_a_migrations(source):
    """Nobody can pause a queue for a reason that would be taken for a migration's."""
    with duraq.open(source) as storage, pytest.raises(InvalidOption, match="may not look like a migration's"):
        Queue("jobs", storage).pause("migration 0123abcd: it is being filled from nowhere")


@pytest.mark.parametrize("later_first", [False, True])
def test_a_run_that_ends_while_another_one_waits(later_first, source, target):
    """A run that is stopped while it waits for a lease does not have the other one carry what is worked."""
    with two_runs(source, target) as (jobs, first, second):
        done = [jobs.dequeue()]
        assert next(first).leased == next(second).leased == 1
        if later_first:
            # It waits for what was leased meanwhile as well.
            second.close()
            assert jobs.paused is None
            done.append(jobs.dequeue())
            left = first
            assert next(left).leased == 2
        else:
            first.close()
            left = second
        assert jobs.paused is not None
        for entry in done:
            jobs.mark_completed(entry)
        for _ in left:
            pass
    assert work(target) == (["c", "d"] if later_first else ["b", "c", "d"])


def test_a_run_after_one_that_was_killed_while_it_waited(source, target, monkeypatch):
    """A queue whose leases end too late is worked again, though another run was killed while it waited."""
    with duraq.open(source) as storage:
        jobs = Queue("jobs", storage)
        held = jobs.dequeue()
        killed_while_it_waits(monkeypatch, source, target)
        assert jobs.paused is not None
        assert not migrate(source, target, wait=AT_ONCE).complete
        assert jobs.paused is None
        jobs.mark_completed(held)
    assert migrate(source, target).complete
    assert work(target) == ["b", "c", "d"]


def test_a_run_that_ends_while_another_one_carries(source, target):
    """A run that was stopped while it waited leaves the pause to the one that carries already."""
    with two_runs(source, target) as (jobs, first, second):
        held = jobs.dequeue()
        assert next(first).leased == next(second).leased == 1
        jobs.mark_completed(held)
        assert next(second).done == 3
        first.close()
        assert jobs.paused is not None
        for _ in second:
            pass
    assert work(target) == ["b", "c", "d"]


@pytest.mark.parametrize("comes_back", [True, False])
def test_there_and_back_and_there(source, target, comes_back):
    """A queue whose pause was lifted, or that came back, can be moved again."""
    assert migrate(source, target).complete
    if comes_back:
        assert migrate(target, source).complete
    else:
        resume(source)
    with duraq.open(source) as storage:
        Queue("jobs", storage).enqueue("e", id="e")
    assert migrate(source, target).complete
    assert work(target) == [*NAMES, "e"]


def test_killed_while_it_waited(source, target, tmp_path, monkeypatch):
    """A queue of which nothing has gone, and which was resumed, can be moved, to another target as well."""
    killed(monkeypatch, source, target, notes("out/jobs/1"))
    with pytest.raises(CannotMigrate, match="another migration, which is not over"):
        migrate(source, f"sqlite:{tmp_path}/other.db")
    resume(source)
    assert migrate(source, f"sqlite:{tmp_path}/other.db").complete
    assert work(f"sqlite:{tmp_path}/other.db") == NAMES
    assert migrate(source, target).complete
    assert work(target) == []


def test_closed_but_not_noted(source, target, monkeypatch):
    """A run after one that was killed when all was there does not touch the target, which is worked."""
    killed(monkeypatch, source, target, lambda changes: notes("out/jobs")(changes) and not ids(source))
    with duraq.open(target) as storage:
        jobs = Queue("jobs", storage)
        held = jobs.dequeue()
        jobs.pause("lunch")
        before = jobs.paused
        with monkeypatch.context() as patched:
            # Nothing is done to the target's queue, not even for a moment.
            before_commit(patched, lambda changes: "jobs" in changes and notes("in/")(changes), pytest.fail)
            assert migrate(source, target).complete
        assert jobs.paused == before
        jobs.mark_completed(held)
    resume(source)
    assert migrate(source, target).queues == {}


@pytest.mark.parametrize("numbers", [(0, 0), (1, 3)])
def test_interrupted_while_it_pauses(numbers, source, target, monkeypatch):
    """Ctrl-C in the midst of a note, written or not, leaves a queue of which nothing has gone as it was."""
    for number, after in zip(numbers, (False, True), strict=True):
        with monkeypatch.context() as patched:
            interrupt_at(patched, notes(f"out/jobs/{number}"), after=after)
            with pytest.raises(KeyboardInterrupt):
                migrate(source, target)
        assert pause_of(source) is None
    assert migrate(source, target).complete
    assert work(target) == NAMES


def interrupt_at(monkeypatch, is_it, *, after):
    """Have a Ctrl-C come just before or after the first commit of which ``is_it(changes)`` says so."""
    commit, left = TransactingStorage.commit, [True]

    def watched(self, changes, limits=None):
        if not (left and is_it(changes)):
            return commit(self, changes, limits)
        left.pop()
        if after:
            commit(self, changes, limits)
        raise KeyboardInterrupt

    monkeypatch.setattr(TransactingStorage, "commit", watched)


def test_a_target_that_cannot_have_it_now(source, target, tmp_path, monkeypatch):
    """A queue that the target is moving itself, or is being filled with, stays worked in the source."""
    other = filled(f"file:{tmp_path}/other")
    killed(monkeypatch, other, target, removes("jobs"))
    refused = migrate(source, target, merge=True).queues["jobs"].problem
    assert "the target has it in another migration: migration" in str(refused)
    assert pause_of(source) is None
    assert migrate(other, target).complete
    killed(monkeypatch, target, f"sqlite:{tmp_path}/third.db", removes("jobs"))
    refused = migrate(source, target, merge=True).queues["jobs"].problem
    assert "the target is moving it to sqlite:" in str(refused)
    assert pause_of(source) is None


def test_paused_while_its_leases_are_waited_for(source, target):
    """Whoever pauses it while its leases are waited for finds it so when the wait is over in vain."""
    with duraq.open(source) as storage:
        jobs = Queue("jobs", storage)
        held = jobs.dequeue()
        moved = migrate(
            source,
            target,
            wait=timedelta(seconds=60),
            progress=lambda each: jobs.pause("an incident", who="ann") if each.leased else None,
        )
        assert "was paused or resumed in the source" in str(moved.queues["jobs"].problem)
        assert jobs.paused.reason == "an incident"
        jobs.mark_completed(held)
    assert migrate(source, target).complete
    assert pause_of(target) == "an incident"


def test_a_lease_that_comes_late(source, target, monkeypatch):
    """A transaction that ends under way with a lease of its own is waited for, or the rest stays worked."""
    with duraq.open(source) as storage:
        jobs = Queue("jobs", storage)
        transaction = storage.transaction()
        with ExitStack() as begun:
            begun.enter_context(transaction)
            jobs.enqueue("own", id="own", priority=9)
            own = jobs.dequeue()
            before_commit(monkeypatch, sends("jobs"), begun.close)
            moved = migrate(source, target, wait=AT_ONCE)
        assert "1 entries are still leased: own by" in str(moved.queues["jobs"].problem)
        assert (jobs.paused, pause_of(target)) == (None, None)
        assert [each.id for each in jobs.entries()] == ["own"]
        jobs.mark_completed(own)
    assert migrate(source, target).complete
    assert work(target) == NAMES


def test_what_stayed_behind(source, target, tmp_path):
    """Whoever wants to move it elsewhere is told how; a plan says the same."""
    with duraq.open(target) as storage:
        Queue("jobs", storage).enqueue("other", id="a")
    assert not migrate(source, target, merge=True).complete
    other = f"sqlite:{tmp_path}/other.db"
    with pytest.raises(CannotMigrate, match=r"1 of its entries stayed behind.* or `duraq resume jobs`"):
        migrate(source, other)
    assert "another migration is not over" in plan(source, other).refused("jobs")
    resume(source)
    assert migrate(source, other).complete
    assert ids(other) == ["a"]


def test_a_plan_of_a_target_that_is_busy(source, target, tmp_path, monkeypatch):
    """A plan refuses what the target is filled with by others, or is moving itself, as a run does."""
    other = filled(f"file:{tmp_path}/other")
    killed(monkeypatch, other, target, removes("jobs"))
    refused = plan(source, target).refused("jobs", merge=True)
    assert refused.startswith("the target has it in another migration: migration ")
    assert migrate(other, target).complete
    killed(monkeypatch, target, f"sqlite:{tmp_path}/third.db", removes("jobs"))
    assert plan(source, target).refused("jobs", merge=True).startswith("the target is moving it to sqlite:")


def test_a_source_that_is_damaged_later(target, tmp_path, monkeypatch):
    """Damage that is there when it is moved again is refused before the target's queue is stopped."""
    source = f"file:{tmp_path}/source"
    small = {"sizes": SMALL, "durability": "process"}
    # What the journal has not forgotten is not damaged: it is written again.
    monkeypatch.setattr(Endpoint, "open", lambda each: duraq.open(each.url, **small if each.is_file else {}))
    for names in (NAMES, [f"many-{number}" for number in range(900)]):
        with FileStorage(tmp_path / "source", **small) as storage:
            for name in names:
                Queue("jobs", storage).enqueue("x" * 90, id=name)
        if names == NAMES:
            migrate(source, target)
    files = (tmp_path / "source/jobs/segments").glob("*.jsonl")
    path = min(each for each in files if b'"many-3"' in each.read_bytes())
    path.write_bytes(path.read_bytes().replace(b'"many-3"', b'"mony-3"', 1))
    with pytest.raises(StorageDamaged, match="duraq repair"):
        migrate(source, target)
    assert (pause_of(target), ids(target)) == (None, NAMES)


# -- more than one migration -------------------------------------------------------------------------------


def test_two_targets_at_once(source, target, tmp_path, monkeypatch):
    """Of two migrations to two targets one has the queue, whatever they have read before."""
    other = f"sqlite:{tmp_path}/other.db"
    with duraq.open(source) as storage:
        Queue("jobs", storage).pause("lunch")
    with monkeypatch.context() as patched:
        before_commit(patched, notes("out/jobs"), lambda: killed(patched, source, target, removes("jobs")))
        moved = migrate(source, other)
    assert "another migration, which is not over" in str(moved.queues["jobs"].problem)
    assert migrate(source, target).complete
    assert (ids(source), ids(target), ids(other)) == ([], NAMES, [])
    assert pause_of(target) == "lunch"


def test_begun_twice_at_once(source, target, monkeypatch):
    """Two runs that begin at once are of one migration; if one is killed the other goes on."""
    for start in ("in/", "away/"):
        with monkeypatch.context() as patched:
            before_commit(patched, notes(start), lambda: killed(patched, source, target, removes("jobs")))
            assert migrate(source, target).complete
        assert work(target) == NAMES
        resume(source)
        with duraq.open(source) as storage, duraq.open(target) as other:
            Queue("jobs", storage).enqueue_many(NAMES, ids=NAMES)
            assert other.paused("jobs") is None
        for url in (source, target):
            forget(url)


def forget(url):
    """Make a storage as it was before it was moved."""
    with duraq.open(url) as storage:
        storage.commit({"_migrations": [Expire(each.id) for each in storage.entries("_migrations")]})


def test_removals_that_went_to_two_targets(source, target, tmp_path):
    """What was removed of the dead letters can be brought back wherever it went, after another target too."""
    for url in (target, f"sqlite:{tmp_path}/other.db", target):
        with duraq.open(source) as storage:
            jobs = Queue("jobs", storage, retry_policy=ONCE)
            jobs.resume()
            entry_id = jobs.enqueue("x")
            for entry in jobs.dequeue(limit=100):
                jobs.mark_failed(entry, dead=entry.id == entry_id)
            DeadLetterQueue("jobs", None, storage).remove(entry_id)
        assert migrate(source, url).complete
    with duraq.open(target) as storage:
        assert len(DeadLetterQueue("jobs", None, storage).acts()) == 2


# -- what is enqueued meanwhile ----------------------------------------------------------------------------


def test_a_source_that_is_fed_all_the_time(source, target, monkeypatch):
    """If the source is fed without an end it comes to an end all the same, and the target is worked."""
    monkeypatch.setattr(running, "ROUNDS", 3)
    fed = []

    def feed():
        assert len(fed) < 20
        fed.append(str(len(fed)))
        with duraq.open(source, durability="process") as storage:
            Queue("jobs", storage).enqueue(fed[-1], id=fed[-1])

    with monkeypatch.context() as patched:
        commit = duraq.storage.transacting.TransactingStorage.commit

        def watched(self, changes, limits=None):
            if sends("jobs")(changes):
                feed()
            commit(self, changes, limits)

        patched.setattr(duraq.storage.transacting.TransactingStorage, "commit", watched)
        moved = migrate(source, target)
    assert moved.left == 1
    assert pause_of(target) is None
    assert migrate(source, target).complete
    assert work(target) == [*NAMES, *fed]
