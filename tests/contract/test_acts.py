"""Acts on many dead letters: what they mean is settled first, and done once, however often they are begun."""

from datetime import timedelta

import orjson
import pytest

from duraq import (
    ActNotFound,
    Counts,
    DeadLetterQueue,
    DuplicateEntry,
    EntryNotFound,
    EntryStatus,
    GroupTooLarge,
    InvalidFilter,
    InvalidOption,
    InvalidPayload,
    NoRetry,
    Queue,
    Where,
    acts,
)
from duraq.acts import BATCH, Acts
from duraq.operations import Remove

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def bury(queue, *payloads, **options):
    """Make dead letters of new entries; returns their ids."""
    ids = queue.enqueue_many(payloads, **options)
    for entry in queue.dequeue(limit=max(1, len(ids))):
        queue.mark_failed(entry, f"{entry.data} failed", dead=True)
    return ids


def begin(dead_letters, verb, act=None):
    """Have it written down that this is to be done to all that are dead; returns a call that does it."""
    acts = Acts(dead_letters._storage)
    letters = [(entry.id, 0) for entry in dead_letters.list()]
    letters = [(entry_id, acts.check("jobs", entry_id).last_token) for entry_id, _ in letters]
    (planned,) = acts.plan([(acts.new(verb, "jobs", act), letters)])
    return planned, lambda: acts.carry_out(planned)


def everything(entry):
    """All that is said of an entry, but for which lease and object it was read by."""
    names = ("id", "data", "status", "priority", "created_at", "updated_at", "expires_at", "attempts")
    return [getattr(entry, name) for name in (*names, "errors", "key", "headers", "redriven")]


# -- putting back ------------------------------------------------------------------------------------------


def test_an_act_is_done_once(queue, dead_letters):
    """An entry that was put back and has died again is not put back again by the same act."""
    ids = bury(queue, "a", "b", "c")
    assert dead_letters.retry_all(act="monday") == 3
    again = queue.dequeue()
    queue.mark_failed(again, dead=True)
    assert dead_letters.retry_all(act="monday") == 0
    assert [entry.id for entry in dead_letters.list()] == [again.id]
    assert dead_letters.retry_all(act="tuesday") == 1
    assert {entry.id for entry in queue.entries()} == set(ids)


def test_what_dies_later_is_not_meant(queue, dead_letters):
    """An act that is carried out later, or again, leaves alone what was not dead when it was begun."""
    bury(queue, "a", "b")
    act, carry_out = begin(dead_letters, "retry")
    bury(queue, "c")
    assert [outcome.error for outcome in carry_out()] == [None, None]
    assert [entry.data for entry in dead_letters.list()] == ["c"]
    assert dead_letters.retry_all(act=act.id) == 0
    assert [entry.data for entry in dead_letters.list()] == ["c"]


def test_going_on_after_an_interruption(queue, dead_letters):
    """An act that was left in the middle is finished by beginning it again."""
    ids = bury(queue, *range(BATCH * 3))
    outcomes = begin(dead_letters, "retry", "x")[1]()
    for _ in range(BATCH):
        next(outcomes)
    outcomes.close()
    assert queue.counts() == Counts(ready=BATCH, dead=2 * BATCH)
    assert dead_letters.retry_all(act="x") == 2 * BATCH
    assert [entry.id for entry in queue.entries(EntryStatus.READY)] == ids
    assert {entry.redriven for entry in queue.entries()} == {1}


def test_somebody_else_is_quicker(queue, dead_letters):
    """What somebody else has decided on meanwhile is passed over, and the rest is done."""
    ids = bury(queue, *range(10))
    _, carry_out = begin(dead_letters, "retry")
    dead_letters.retry(ids[3])
    dead_letters.remove(ids[5])
    found = {outcome.id: outcome.error for outcome in carry_out()}
    assert set(found) == set(ids)
    assert {entry_id for entry_id, error in found.items() if error} == {ids[3], ids[5]}
    assert all(isinstance(error, EntryNotFound) for error in found.values() if error)
    assert queue.counts() == Counts(ready=9)


def test_how_often_it_was_put_back(queue, dead_letters):
    """An entry says how often it was put back, and keeps what happened before."""
    (entry_id,) = bury(queue, "a")
    for number in (1, 2):
        dead_letters.retry(entry_id)
        entry = queue.dequeue()
        assert (entry.redriven, len(entry.errors)) == (number, number)
        queue.mark_failed(entry, "again", dead=True)
    assert dead_letters.list()[0].redriven == 2


def test_edit_and_retry(queue, dead_letters):
    """A dead letter can be put back with another payload, which it has from then on."""
    (entry_id,) = bury(queue, {"to": "nobody"})
    dead_letters.retry(entry_id, data={"to": "ann"})
    entry = queue.dequeue()
    assert (entry.data, entry.attempts) == ({"to": "ann"}, 1)
    queue.mark_failed(entry, dead=True)
    dead_letters.retry(entry_id)
    assert queue.dequeue().data == {"to": "ann"}


@pytest.mark.parametrize("change", [{}, {"data": "mine"}])
def test_a_retry_of_what_was_seen(storage, queue, dead_letters, change):
    """Who saw a letter die does not put it back after others have done so, and it has died again."""
    (entry_id,) = bury(queue, "a")
    seen = storage.get("jobs", entry_id).last_token
    dead_letters.retry(entry_id, data="theirs", token=seen)
    queue.mark_failed(queue.dequeue(), dead=True)
    with pytest.raises(EntryNotFound):
        dead_letters.retry(entry_id, token=seen, **change)
    assert dead_letters.list()[0].data == "theirs"
    dead_letters.retry(entry_id, token=storage.get("jobs", entry_id).last_token, **change)
    assert queue.dequeue().data == change.get("data", "theirs")


def test_null_is_a_payload(queue, dead_letters):
    """None given as another payload is a payload, not the lack of one."""
    (entry_id,) = bury(queue, "a")
    dead_letters.retry(entry_id, data=None)
    assert queue.dequeue().data is None


def test_a_bad_payload_changes_nothing(queue, dead_letters):
    """Another payload that would not come back equal is refused, and the dead letter is as it was."""
    (entry_id,) = bury(queue, "a")
    with pytest.raises(InvalidPayload):
        dead_letters.retry(entry_id, data=object())
    assert dead_letters.list()[0].data == "a"


@pytest.mark.needs("survives")
def test_an_edited_payload_survives(queue, dead_letters, open_storage):
    """Another payload survives seals and another process's opening."""
    ids = bury(queue, *range(40))
    for number, entry_id in enumerate(ids):
        dead_letters.retry(entry_id, data="x" * 500 + str(number))
    queue.enqueue_many(["filler" * 100] * 40)
    other = Queue("jobs", open_storage())
    assert [other.dequeue().data for _ in ids] == ["x" * 500 + str(number) for number in range(40)]


# -- removing and undoing ----------------------------------------------------------------------------------


def test_a_removal_can_be_undone(queue, dead_letters, clock):
    """What was removed comes back as it was: payload, headers, key, attempts, errors and times."""
    queue.enqueue({"n": 1}, priority=3, headers={"data": "h"}, key="k", ttl=DAY)
    queue.enqueue("b")
    for error in (ValueError("é"), "no"):
        queue.mark_failed(queue.dequeue(), error, dead=True)
    clock.advance(SECOND)
    before = [everything(entry) for entry in dead_letters.list()]
    removals = [dead_letters.remove(entry.id) for entry in dead_letters.list()]
    assert len(dead_letters) == 0
    clock.advance(6 * DAY)
    for act in removals:
        assert dead_letters.undo(act) == 1
    assert [everything(entry) for entry in dead_letters.list()] == before


def test_many_are_undone_together(queue, dead_letters):
    """What one act has removed comes back at once, in its old order, and can be put back to work."""
    ids = bury(queue, *range(BATCH + 10))
    assert dead_letters.remove_many(ids) == len(ids)
    assert queue.counts() == Counts()
    assert dead_letters.undo() == len(ids)
    assert [entry.id for entry in dead_letters.list()] == ids
    assert dead_letters.undo() == 0
    assert dead_letters.retry_all() == len(ids)
    assert [entry.data for entry in queue.dequeue(limit=len(ids))] == list(range(BATCH + 10))


def test_the_last_removal_is_undone(queue, dead_letters):
    """Without an id it is the last act that removed any which is undone, whatever was done since."""
    first, second, third = bury(queue, "a", "b", "c")
    dead_letters.remove(first)
    dead_letters.remove(second)
    dead_letters.retry(third)
    dead_letters.purge_older_than(timedelta(0))
    assert dead_letters.undo() == 1
    assert [entry.id for entry in dead_letters.list()] == [second]


def test_after_seven_days(queue, dead_letters, clock):
    """After seven days a removal is for good."""
    (entry_id,) = bury(queue, "a")
    act = dead_letters.remove(entry_id)
    clock.advance(7 * DAY)
    with pytest.raises(ActNotFound):
        dead_letters.undo(act)
    assert dead_letters.acts() == []


def test_a_purge_is_for_good(queue, dead_letters):
    """What was purged does not come back."""
    bury(queue, "a")
    assert dead_letters.purge_older_than(timedelta(0), act="x") == 1
    with pytest.raises(InvalidOption, match="purge"):
        dead_letters.undo("x")
    with pytest.raises(ActNotFound):
        dead_letters.undo()


def test_the_id_is_in_use_again(queue, dead_letters):
    """One whose id has been used again stays removed, and comes back once the id is free."""
    bury(queue, "a", "b", ids=["x", "y"])
    dead_letters.remove_many(["x", "y"], act="act")
    queue.enqueue("new", id="x")
    found = list(dead_letters.undoing("act"))
    assert [(outcome.id, type(outcome.error)) for outcome in found] in (
        [("x", DuplicateEntry), ("y", type(None))],
        [("y", type(None)), ("x", DuplicateEntry)],
    )
    queue.mark_completed(queue.dequeue())
    assert dead_letters.undo("act") == 1
    assert [entry.data for entry in dead_letters.list()] == ["a", "b"]


def test_an_interrupted_removal(queue, dead_letters):
    """A removal that was left in the middle is finished under its id, and undone as a whole."""
    ids = bury(queue, *range(BATCH * 2))
    outcomes = begin(dead_letters, "remove", "x")[1]()
    for _ in range(BATCH):
        next(outcomes)
    outcomes.close()
    assert len(dead_letters) == BATCH
    assert dead_letters.remove_many(ids, act="x") == BATCH
    assert dead_letters.undo("x") == 2 * BATCH
    assert [entry.id for entry in dead_letters.list()] == ids


# -- what was done -----------------------------------------------------------------------------------------


def test_acts_are_listed(queue, dead_letters, storage):
    """Of each act it is written down what was done to how many, when, by whom and why."""
    bury(queue, *range(3))
    other = DeadLetterQueue("other", None, storage)
    bury(Queue("other", storage), "x")
    dead_letters.retry_all(reason="mended")
    bury(queue, "d")
    removal = dead_letters.remove(dead_letters.list()[0].id, reason="spam")
    dead_letters.undo(removal, reason="was none")
    other.retry_all()
    found = [(act.verb, act.queue, act.count, act.reason, act.of) for act in dead_letters.acts()]
    assert found == [
        ("retry", "jobs", 3, "mended", ""),
        ("remove", "jobs", 1, "spam", ""),
        ("undo", "jobs", 1, "was none", removal),
    ]
    assert all(act.who and act.at.tzinfo for act in dead_letters.acts())
    assert storage.queues() == ["jobs", "other"]


def test_more_acts_than_a_page(queue, dead_letters):
    """All acts are listed, however many there are."""
    for number in range(230):
        bury(queue, number)
        dead_letters.retry_all(act=f"act-{number:03}")
        queue.mark_completed(queue.dequeue())
    assert [act.id for act in dead_letters.acts()] == [f"act-{number:03}" for number in range(230)]


def test_one_id_is_one_act(queue, dead_letters, storage):
    """Under the id of one act no other can be begun."""
    ids = bury(queue, "a")
    dead_letters.retry_all(act="x")
    with pytest.raises(InvalidOption, match="x"):
        dead_letters.remove_many(ids, act="x")
    with pytest.raises(InvalidOption, match="x"):
        DeadLetterQueue("other", None, storage).retry_all(act="x")


@pytest.mark.parametrize("act", ["a b", "../x", "a/b", "a" * 101, 1, b"x"])
def test_no_act(queue, dead_letters, act):
    """What cannot be an act's id is refused before anything is done."""
    bury(queue, "a")
    with pytest.raises(InvalidOption):
        dead_letters.retry_all(act=act)
    assert len(dead_letters) == 1


def test_unknown(queue, dead_letters):
    """There is nothing to undo where nothing was removed, or under an id that nobody has used."""
    for act in (None, "unknown"):
        with pytest.raises(ActNotFound):
            dead_letters.undo(act)


def test_in_a_transaction(storage):
    """An act in a transaction happens with it or not at all."""
    queue = Queue("jobs", storage, retry_policy=NoRetry())
    dead_letters = DeadLetterQueue("jobs", None, storage)
    bury(queue, "a", "b")

    class Stop(Exception):
        pass

    def undone():
        with storage.transaction():
            assert dead_letters.retry_all() == 2
            raise Stop

    with pytest.raises(Stop):
        undone()
    assert (len(dead_letters), list(dead_letters.acts())) == (2, [])
    with storage.transaction():
        removed = dead_letters.list()[0].id
        act = dead_letters.remove(removed)
        assert dead_letters.undo(act) == 1
        dead_letters.retry(removed, data="c")
    assert [entry.data for entry in queue.dequeue(limit=5)] == ["c"]


# -- what a reviewer found ---------------------------------------------------------------------------------


@pytest.mark.needs("survives")
@pytest.mark.parametrize("then", ["nothing", "lease"])
@pytest.mark.needs("files")
def test_an_edited_payload_needs_no_older_record(tmp_path, queue, dead_letters, open_storage, then):
    """An entry that was edited is there, with that payload, when all that was written before it is gone."""
    (entry_id,) = bury(queue, {"old": 1})
    dead_letters.retry(entry_id, data={"new": 1})
    if then == "lease":
        assert queue.dequeue().data == {"new": 1}
    for _ in range(30):
        queue.enqueue_many(["x" * 400] * 30)
        queue.mark_completed_many([entry for entry in queue.dequeue(limit=30) if entry.id != entry_id])
    queue.storage.compact("jobs")
    queue.storage.close()
    for path in tmp_path.rglob("*.checkpoint"):
        path.unlink()
    for path in tmp_path.rglob("*.index"):
        path.unlink()
    entry = Queue("jobs", open_storage()).get(entry_id)
    assert (entry.data, entry.redriven) == ({"new": 1}, 1)


def test_a_large_removal_is_undone(storage):
    """However large all that was removed is, it comes back."""
    storage.max_payload_bytes = 3 << 20
    queue, dead_letters = Queue("jobs", storage), DeadLetterQueue("jobs", None, storage)
    for number in range(30):
        bury(queue, str(number) * (1 << 20 if number < 10 else 1 << 19))
    assert dead_letters.remove_all(act="x") == 30
    assert dead_letters.undo("x") == 30


def test_an_act_named_like_a_part_of_another(queue, dead_letters):
    """No act's id can be taken for something that belongs to another one."""
    bury(queue, "a", "b")
    dead_letters.remove_many([dead_letters.list()[0].id], act="v1.0")
    assert dead_letters.retry_all(act="v1") == 1
    assert dead_letters.undo("v1.0") == 1
    for name in ("v1/undone", "v1.0/was/0", "v1/0"):
        with pytest.raises(ActNotFound):
            dead_letters.undo(name)


@pytest.mark.parametrize("verb", ["purge", "remove", "retry"])
def test_a_new_death_is_another_one(queue, dead_letters, verb):
    """What was put back by somebody else and has died again was not meant by an act that began before."""
    (entry_id,) = bury(queue, "a")
    _, carry_out = begin(dead_letters, verb)
    for _ in range(2):
        dead_letters.retry(entry_id)
        queue.mark_failed(queue.dequeue(), "again", dead=True)
    assert [type(outcome.error) for outcome in carry_out()] == [EntryNotFound]
    assert [entry.redriven for entry in dead_letters.list()] == [2]


def test_two_acts_in_turn(queue, dead_letters):
    """An act does not put back what it has put back before, whatever another act has done meanwhile."""
    bury(queue, "a")
    for act, wanted in (("A", 1), ("B", 1), ("A", 0), ("B", 0)):
        assert dead_letters.retry_all(act=act) == wanted
        for entry in queue.dequeue(limit=5):
            queue.mark_failed(entry, dead=True)


def test_an_act_that_was_undone_is_over(queue, dead_letters):
    """What was removed and brought back is not removed again by the same act."""
    bury(queue, "a")
    assert dead_letters.remove_all(act="x") == 1
    assert dead_letters.undo("x") == 1
    with pytest.raises(InvalidOption, match="undone"):
        dead_letters.remove_all(act="x")
    assert len(dead_letters) == 1


def test_two_plan_the_same_act(storage, queue, dead_letters, monkeypatch):
    """Of two that plan one act at once, the first to have it written down says what it means."""
    monkeypatch.setattr(acts, "_CHUNK", 2)
    monkeypatch.setattr(acts, "_CHUNKS_AT_ONCE", 1)
    ids = bury(queue, *range(10))

    def letters(chosen, then=lambda: None):
        for entry_id in chosen:
            yield entry_id, 0
        then()

    one, other = Acts(storage), Acts(storage)
    first = []

    def meanwhile():
        first.extend(other.plan([(other.new("retry", "jobs", "act"), letters(ids[:5]))]))

    (second,) = one.plan([(one.new("retry", "jobs", "act"), letters(ids[5:], meanwhile))])
    assert second == first[0]
    assert [entry_id for entry_id, _ in one.letters(second)] == ids[:5]


def test_long_histories_are_removed(queue, dead_letters, monkeypatch):
    """What is written of a removed entry's errors counts, so that no batch grows too large."""
    monkeypatch.setattr(acts, "_BATCH_BYTES", 100_000)
    ids = queue.enqueue_many(range(30))
    for _ in range(3):
        for entry in queue.dequeue(limit=30):
            queue.mark_failed(entry, "\1" * 4000, retry_in=timedelta(0))
    for entry in queue.dequeue(limit=30):
        queue.mark_failed(entry, dead=True)
    assert dead_letters.remove_all() == len(ids)
    assert dead_letters.undo() == len(ids)


def test_seven_days_from_the_removal(queue, dead_letters, clock):
    """What an act removes on its last day comes back for seven days, and then the act cannot go on."""
    bury(queue, "a", "b")
    _, carry_out = begin(dead_letters, "remove", "x")
    clock.advance(7 * DAY - SECOND)
    assert dead_letters.remove_many([dead_letters.list()[0].id], act="x") == 2
    clock.advance(6 * DAY)
    with pytest.raises(ActNotFound):
        dead_letters.remove_all(act="x")
    assert dead_letters.undo("x") == 2
    with pytest.raises(ActNotFound):
        list(carry_out())


def test_nothing_left_in_a_transaction(storage, queue, dead_letters):
    """In a transaction too, an act of which nothing is left does nothing."""
    bury(queue, "a")
    _, carry_out = begin(dead_letters, "remove", "x")
    dead_letters.retry_all()
    with storage.transaction():
        assert [type(outcome.error) for outcome in carry_out()] == [EntryNotFound]
        storage.commit({"jobs": []})


@pytest.mark.parametrize("act", ["remove", "edit", "remove_all"])
def test_what_died_in_the_same_transaction(storage, act):
    """What became a dead letter in a transaction can be put back in it, and removed or edited after it."""
    queue = Queue("jobs", storage, retry_policy=NoRetry())
    dead_letters = DeadLetterQueue("jobs", None, storage)
    calls = {
        "remove": lambda: dead_letters.remove("x"),
        "edit": lambda: dead_letters.retry("x", data=2),
        "remove_all": dead_letters.remove_all,
    }
    with storage.transaction():
        queue.enqueue(1, id="x")
        queue.mark_failed(queue.dequeue(), dead=True)
        with pytest.raises(InvalidOption, match="transaction"):
            calls[act]()
        assert dead_letters.retry_all() == 1
        queue.mark_failed(queue.dequeue(), dead=True)
    calls[act]()
    assert len(dead_letters) == 0


@pytest.mark.needs("survives")
@pytest.mark.needs("files")
def test_when_it_was_edited(queue, dead_letters, clock, storage, tmp_path):
    """Since when an edited entry is ready is the same for all, however long its transaction lasted."""
    (entry_id,) = bury(queue, "a")
    with storage.transaction():
        dead_letters.retry(entry_id, data="b")
        clock.advance(DAY)
    (segment,) = (tmp_path / "storage" / "jobs" / "segments").glob("*.jsonl")
    requeue, keep = map(orjson.loads, segment.read_bytes().splitlines()[-2:])
    assert (requeue["op"], keep["op"], keep["entry"]["updated_at"]) == ("requeue", "keep", requeue["at"])


def test_one_that_is_too_large_hinders_no_other(storage, queue, dead_letters, monkeypatch):
    """A removal that fits into no group is passed over, and the others are done."""
    ids = bury(queue, "a", "b", "c")
    commit = storage.commit

    def refusing(changes, limits=None):
        if any(isinstance(each, Remove) and each.id == ids[1] for each in changes.get("jobs", ())):
            raise GroupTooLarge("no")
        commit(changes, limits)

    monkeypatch.setattr(storage, "commit", refusing)
    assert dead_letters.remove_all() == 2
    assert [entry.id for entry in dead_letters.list()] == [ids[1]]


# -- by a filter -------------------------------------------------------------------------------------------


def test_what_matches_is_put_back(queue, dead_letters):
    """With a filter only what matches is listed, put back, removed and purged, and the act says so."""
    bury(queue, *range(8))
    assert [entry.data for entry in dead_letters.list(2, 1, where="payload<5")] == [1, 2]
    assert dead_letters.retry_all(where='err:"0 failed"') == 1
    assert dead_letters.retry_all(where=Where.parse('err:"1 failed","2 failed"')) == 2
    assert dead_letters.remove_all(where="payload=3") == 1
    assert dead_letters.purge_older_than(timedelta(0), where="payload>5") == 2
    assert [entry.data for entry in dead_letters.list()] == [4, 5]
    assert [act.where for act in dead_letters.acts()][2:] == ["payload=3", "payload>5"]


def test_a_filter_that_is_none(queue, dead_letters):
    """A filter that is not understood, or empty, changes nothing."""
    bury(queue, "a")
    for text in ("nonsense:x", ""):
        for call in (dead_letters.retry_all, dead_letters.remove_all, dead_letters.list):
            with pytest.raises(InvalidFilter):
                call(where=text)
        with pytest.raises(InvalidFilter):
            dead_letters.purge_older_than(timedelta(0), where=text)
    assert len(dead_letters) == 1
