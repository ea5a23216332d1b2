"""Whatever others do while a storage is moved, in either, no entry is lost, and none is worked in both."""

import shutil
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta

import pytest
from moved import Stopped, before_commit, notes, on_server, removes, sends, stop

import duraq
from duraq import (
    ActNotFound,
    CannotMigrate,
    Counts,
    DeadLetterQueue,
    EntryStatus,
    FixedDelay,
    InvalidOption,
    Queue,
    migrate,
)
from duraq.migration import Migration, give_up, running
from duraq.migration.carrying import Carrier, Ends
from duraq.operations import Enqueue, Expire, Remove, Restore
from duraq.storage.transacting import TransactingStorage
from duraq.testing import FakeClock

AT_ONCE = timedelta(0)
NAMES = ["a", "b", "c", "d"]
ONCE = FixedDelay(max_attempts=1, delay=timedelta(0))


@pytest.fixture
def source(tmp_path):
    """The URL of a storage with one queue, `jobs`."""
    return filled(f"file:{tmp_path}/source")


@pytest.fixture
def target(tmp_path):
    """The URL of a database that is not there yet."""
    return f"sqlite:{tmp_path}/target.db"


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


def move(storage, names, to):
    """Put these dead letters of `jobs` into another queue."""
    for name in names:
        letter = storage.get("jobs", name)
        entry = letter.unheld()
        entry.status = EntryStatus.READY
        restore = Restore(name, letter.payload, entry, changed=True)
        storage.commit({"jobs": [Remove(name, letter.last_token)], to: [restore]})


def killed(monkeypatch, source, target, is_it):
    """Move it, and be killed before the first commit of which ``is_it`` says so."""
    with monkeypatch.context() as patched:
        before_commit(patched, is_it, stop)
        with pytest.raises(Stopped):
            migrate(source, target)


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


@pytest.mark.parametrize("target", ["file:{}/target", "lmdb:{}/target"])
def test_given_up(target, source, tmp_path, monkeypatch):
    """Given up in the middle, what has arrived is worked in the target, and the rest in the source."""
    monkeypatch.setattr("duraq.migration.carrying.AT_ONCE", 2)
    target = target.format(tmp_path)
    killed(monkeypatch, source, target, removes("jobs"))
    with monkeypatch.context() as patched:
        # Killed on the way, it is done again.
        before_commit(
            patched, lambda changes: notes("out/jobs")(changes) and not removes("jobs")(changes), stop
        )
        with pytest.raises(Stopped):
            give_up(source, target)
    (found,) = give_up(source, target)
    assert (found.queue, found.arrived, found.left) == ("jobs", 2, 2)
    assert (work(source), work(target)) == (["c", "d"], ["a", "b"])
    with pytest.raises(CannotMigrate, match="there is nothing to give up"):
        give_up(source, target)
    with duraq.open(source) as storage:
        Queue("jobs", storage).enqueue("e", id="e")
    assert migrate(source, f"sqlite:{tmp_path}/other.db").complete
    assert work(f"sqlite:{tmp_path}/other.db") == ["e"]


def test_given_up_while_it_runs(source, target, monkeypatch):
    """A run that goes on while its migration is given up ends there, and nothing is in both."""
    monkeypatch.setattr("duraq.migration.carrying.AT_ONCE", 2)
    before_commit(monkeypatch, removes("jobs"), lambda: give_up(source, target))
    moved = migrate(source, target)
    assert "was given up meanwhile" in str(moved.queues["jobs"].problem)
    assert (work(source), work(target)) == (["c", "d"], ["a", "b"])


def test_a_source_that_is_no_more(source, target, tmp_path, monkeypatch):
    """Given up without the source, what has arrived is worked, and leaves the source should it come back."""
    monkeypatch.setattr("duraq.migration.carrying.AT_ONCE", 2)
    killed(monkeypatch, source, target, removes("jobs"))
    (tmp_path / "source").rename(tmp_path / "kept")
    with pytest.raises(CannotMigrate, match="nothing to give up"):
        give_up(f"file:{tmp_path}/none", target)
    assert [each.arrived for each in give_up(source, target)] == [2]
    assert work(target) == ["a", "b"]
    # Somebody has made it anew meanwhile: that is another one.
    with duraq.open(source) as storage:
        Queue("jobs", storage).enqueue("e", id="e")
    assert migrate(source, target).complete
    (tmp_path / "source").rename(tmp_path / "anew")
    (tmp_path / "kept").rename(tmp_path / "source")
    assert migrate(source, target).complete
    assert ids(source) == []
    assert work(target) == ["e", "c", "d"]


def test_a_target_that_is_no_more(source, target, tmp_path, monkeypatch):
    """What was on its way to it is worked in the source, once that is given up; until then none is made."""
    killed(monkeypatch, source, target, removes("jobs"))
    for path in tmp_path.glob("target.db*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(CannotMigrate, match=r"is no more, and some queues of .* were on their way"):
        migrate(source, target)
    assert not (tmp_path / "target.db").exists()
    with pytest.raises(CannotMigrate, match="nothing to give up"):
        give_up(source, f"sqlite:{tmp_path}/none.db")
    assert [each.left for each in give_up(source, target)] == [4]
    assert migrate(source, target).complete
    assert work(target) == NAMES


@pytest.mark.parametrize("lost", ["source", "target"])
def test_one_of_them_was_made_anew(lost, source, target, tmp_path, monkeypatch):
    """If one was lost and is there anew, the other one is refused, and worked once that is given up."""
    killed(monkeypatch, source, target, removes("jobs"))
    for path in tmp_path.glob("source" if lost == "source" else "target.db*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    with duraq.open(source if lost == "source" else target) as storage:
        Queue("jobs", storage).enqueue("e", id="e")
    if lost == "source":
        assert "the target has it in another migration" in str(
            migrate(source, target, merge=True).queues["jobs"].problem
        )
    else:
        with pytest.raises(CannotMigrate, match="another migration, which is not over"):
            migrate(source, target, merge=True)
    assert [each.queue for each in give_up(source, target)] == ["jobs"]
    assert migrate(source, target, merge=True).complete
    assert sorted(work(target)) == [*NAMES, "e"]


def test_given_up_by_itself(source, target, monkeypatch):
    """Whatever is on its way from or to a storage is given up without the other one; else that is told."""
    for url in (source, target):
        duraq.open(url).close()
        with pytest.raises(CannotMigrate, match="no queue is on its way from or to"):
            give_up(url)
    killed(monkeypatch, source, target, removes("jobs"))
    assert [(each.queue, each.arrived, each.left) for each in give_up(target)] == [("jobs", 4, 0)]
    assert work(target) == NAMES
    # The source still waits for it: what was worked there leaves it now.
    with pytest.raises(CannotMigrate, match="its entries are on their way to"):
        resume(source)
    assert migrate(source, target).complete
    assert (ids(source), ids(target)) == ([], [])


def test_given_up_but_for_one(source, target, monkeypatch):
    """A queue that cannot be given up is named, and the others are given up all the same."""
    with duraq.open(source) as storage:
        Queue("also", storage).enqueue("x", id="x")
    killed(monkeypatch, source, target, removes("also"))
    problem = CannotMigrate("queue also: not now")
    settle = Carrier.settle

    def refuse(self):
        if self.queue == "also":
            raise problem
        settle(self)

    with monkeypatch.context() as patched:
        patched.setattr(Carrier, "settle", refuse)
        killed(patched, source, target, removes("jobs"))
        patched.setattr(Carrier, "settle", refuse)
        assert [(each.queue, each.problem) for each in give_up(source, target)] == [
            ("also", problem),
            ("jobs", None),
        ]
    assert (work(target), ids(target, "also")) == (NAMES, ["x"])
    assert [(each.queue, each.problem) for each in give_up(source, target)] == [("also", None)]


def test_given_up_before_anything_has_gone(source, target, monkeypatch):
    """A run whose migration is given up just before it fills the target leaves that as it was."""

    def fills(changes):
        return "jobs" in changes and notes("in/")(changes)

    for _ in range(2):
        with monkeypatch.context() as patched:
            before_commit(patched, fills, lambda: give_up(source, target))
            assert "was given up meanwhile" in str(migrate(source, target).queues["jobs"].problem)
        assert (pause_of(source), pause_of(target)) == (None, None)
    assert migrate(source, target).complete


def test_a_target_that_comes_back(source, target, tmp_path, monkeypatch):
    """What had arrived in a target that was then given up, for it was away, is in it when it is back."""
    monkeypatch.setattr("duraq.migration.carrying.AT_ONCE", 2)
    killed(monkeypatch, source, target, lambda changes: sends("jobs")(changes) and len(ids(source)) == 2)
    away = [path.rename(tmp_path / f"away-{path.name}") for path in tmp_path.glob("target.db*")]
    give_up(source, target)
    migrate(source, f"sqlite:{tmp_path}/other.db")
    for path in away:
        path.rename(tmp_path / path.name.removeprefix("away-"))
    assert migrate(source, target).complete
    assert ids(f"sqlite:{tmp_path}/other.db") == ["c", "d"]
    assert work(target) == ["a", "b"]


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


@pytest.mark.parametrize("which", ["source", "target"])
@pytest.mark.parametrize("moment", ["arrived", "over"])
def test_an_older_copy(which, moment, tmp_path, monkeypatch):
    """If one of the two is an older copy that is refused; given up, none that is in the target goes again."""
    source, target = filled(f"sqlite:{tmp_path}/source.db"), f"sqlite:{tmp_path}/target.db"
    monkeypatch.setattr("duraq.migration.carrying.AT_ONCE", 2)
    if moment == "arrived":
        killed(monkeypatch, source, target, removes("jobs"))
    else:
        migrate(source, target)
        with duraq.open(source) as storage:
            Queue("jobs", storage).enqueue_many("efgh", ids="efgh")
    path = tmp_path / f"{which}.db"
    shutil.copyfile(path, tmp_path / "older.db")
    killed(monkeypatch, source, target, lambda changes: len(ids(source)) == 0 and notes("in/")(changes))
    shutil.copyfile(tmp_path / "older.db", path)
    for _ in range(2):
        moved = migrate(source, target)
        assert "do not go together: one of them is an older copy" in str(moved.queues["jobs"].problem)
    give_up(source, target)
    assert pause_of(source) is None or moment == "over"
    assert migrate(source, target).complete
    was = NAMES if moment == "arrived" else [*NAMES, *"efgh"]
    assert ids(target) == (was if which == "source" else was[: 2 if moment == "arrived" else 4])


def test_a_note_that_is_not_understood(source, target):
    """What another version has noted is refused, by name, before anything is changed."""
    with duraq.open(source) as storage:
        storage.commit({"_migrations": [Enqueue("out", b'{"id": "0123abcd"}')]})
    with pytest.raises(CannotMigrate, match="not understood: 'out'; another version of duraq has written"):
        migrate(source, target)
    assert pause_of(source) is None


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
