"""A migration that is ended in the middle, with both ends or one; and copies of an end that are older."""

import shutil

import pytest
from moved import (
    NAMES,
    Stopped,
    before_commit,
    filled,
    ids,
    killed,
    notes,
    pause_of,
    removes,
    resume,
    sends,
    stop,
    work,
)

import duraq
from duraq import (
    CannotMigrate,
    Queue,
    migrate,
)
from duraq.migration import give_up, plan
from duraq.migration.carrying import Carrier
from duraq.operations import Enqueue


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
            Queue("jobs", storage).enqueue_many([*"efgh"], ids="efgh")
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


def test_moved_on_and_then_given_up(source, target, tmp_path, monkeypatch):
    """What has gone to another target since is not worked in the first one as well, when that is given up."""
    other = f"sqlite:{tmp_path}/other.db"
    killed(monkeypatch, source, target, removes("jobs"))
    give_up(source)
    assert migrate(source, other).complete
    assert [each.arrived for each in give_up(source, target)] == [0]
    assert (work(target), work(other)) == ([], NAMES)


@pytest.mark.parametrize("began", [True, False])
def test_a_copy_from_before(began, tmp_path, monkeypatch):
    """A source from before its queue, or anything, went: given up, what is in both is the target's."""
    source, target = filled(f"sqlite:{tmp_path}/source.db"), f"sqlite:{tmp_path}/target.db"
    with duraq.open(source) as storage:
        Queue("also", storage).enqueue("x", id="x")
    if began:
        killed(monkeypatch, source, target, lambda changes: "jobs" in changes)
    shutil.copyfile(tmp_path / "source.db", tmp_path / "older.db")
    monkeypatch.setattr("duraq.migration.carrying.AT_ONCE", 2)
    killed(monkeypatch, source, target, lambda changes: len(ids(source)) == 2 and removes("jobs")(changes))
    shutil.copyfile(tmp_path / "older.db", tmp_path / "source.db")
    (found,) = give_up(source, target)
    assert (found.queue, found.arrived, found.left, found.stuck) == ("jobs", 4, 0, {})
    assert (work(source), work(target)) == ([], NAMES)


def test_an_older_copy_that_is_not_on_its_way(source, target, tmp_path):
    """Refused after the migration was over, it can be given up, and goes on; a plan says so before."""
    migrate(source, target)
    shutil.copyfile(tmp_path / "target.db", tmp_path / "older.db")
    for name in ("late", "later"):
        resume(source)
        with duraq.open(source) as storage:
            Queue("jobs", storage).enqueue(name, id=name)
        if name == "late":
            migrate(source, target)
            shutil.copyfile(tmp_path / "older.db", tmp_path / "target.db")
    assert "do not go together" in plan(source, target).refused("jobs")
    assert "do not go together" in str(migrate(source, target).queues["jobs"].problem)
    assert [each.left for each in give_up(source, target)] == [1]
    assert plan(source, target).refused("jobs") is None
    assert migrate(source, target).complete
    assert work(target) == [*NAMES, "later"]


def test_by_another_way_to_it(source, target, tmp_path, monkeypatch):
    """A storage that is no more is known by whatever links somebody came to it."""
    (tmp_path / "link").symlink_to(tmp_path)
    killed(monkeypatch, source, target.replace("target", "link/target"), removes("jobs"))
    for path in tmp_path.glob("target.db*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    for name in ("target", "link/target"):
        with pytest.raises(CannotMigrate, match="is no more, and some queues of"):
            migrate(source, target.replace("target", name))
    assert [each.left for each in give_up(source.replace("source", "link/source"), target)] == [4]


@pytest.mark.parametrize("which", ["source", "target"])
def test_a_copy_from_before_a_queue(which, tmp_path, monkeypatch):
    """One that knows nothing of a queue is refused before anything is stopped, and can be given up."""
    source, target = filled(f"sqlite:{tmp_path}/source.db"), f"sqlite:{tmp_path}/target.db"
    migrate(source, target)
    shutil.copyfile(tmp_path / f"{which}.db", tmp_path / "older.db")
    with duraq.open(source) as storage:
        Queue("late", storage).enqueue_many([*"xyz"], ids="xyz")
    killed(
        monkeypatch, source, target, lambda changes: notes("out/late")(changes) and not ids(source, "late")
    )
    shutil.copyfile(tmp_path / "older.db", tmp_path / f"{which}.db")
    with duraq.open(target) as storage:
        Queue("other", storage).enqueue("x")
    assert "do not go together" in plan(source, target).refused("late", merge=True)
    for _ in range(2):
        moved = migrate(source, target, merge=True)
        assert {name: str(each.problem)[:10] for name, each in moved.queues.items()} == {"late": "queue late"}
    if which == "target":
        with duraq.open(target) as storage:
            assert storage.queues() == ["jobs", "other"]
    assert [each.queue for each in give_up(source, target)] == ["late"]
    assert plan(source, target).refused("late", merge=True) is None
    assert migrate(source, target, merge=True).complete
    assert ids(target, "late") == (["x", "y", "z"] if which == "source" else [])
