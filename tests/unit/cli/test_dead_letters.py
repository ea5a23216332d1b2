"""dlq: ls, show, retry, rm, purge."""

from __future__ import annotations

import json
import os
import sys

import pytest

from duraq import DeadLetterQueue, EntryStatus, FileStorage, Queue, acts
from duraq.cli import dead_letters
from duraq.cli.failing import Code
from duraq.journal.log import Sizes


def bury(queue, count, error="ValueError"):
    kind = type(error, (Exception,), {})
    ids = queue.enqueue_many(range(count))
    for entry in queue.dequeue(limit=count):
        queue.mark_failed(entry, kind("no"), dead=True)
    return ids


@pytest.fixture
def dead(queue):
    """Three dead letters' ids."""
    return bury(queue, 3)


def test_ls(duraq, queue, storage, dead):
    """The dead letters of some queues or of all, and no other entry."""
    queue.enqueue("alive")
    other = bury(Queue("other", storage), 1)
    assert duraq.ok("dlq", "ls", "-o", "ids").split() == [*dead, *other]
    assert duraq.ok("dlq", "ls", "other", "-o", "ids").split() == other
    assert duraq.ok("dlq", "ls", "jobs", "-o", "ids", "-l", "1", "--offset", "1").split() == dead[1:2]
    assert duraq.json("dlq", "ls")["rows"][0]["error"] == "ValueError: no"


def test_show(duraq, queue, dead):
    """A dead letter in full; an entry that lives is none."""
    alive = queue.enqueue("alive")
    assert duraq.json("dlq", "show", dead[0])["status"] == "dead"
    assert duraq("dlq", "show", alive).exit_code == Code.NOT_FOUND


def test_retry(duraq, queue, dead):
    """Those that were named go back to their queue at once, their attempts counted anew."""
    result = duraq("dlq", "retry", dead[0], dead[0], dead[2])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "2 ready" in result.stderr
    assert [queue.get(entry_id).status.value for entry_id in dead] == ["ready", "dead", "ready"]
    assert queue.get(dead[0]).attempts == 0


def test_keep_attempts(duraq, queue, dead):
    """If that is wanted, they count on from where they died."""
    duraq.ok("dlq", "retry", dead[0], "--keep-attempts")
    assert queue.get(dead[0]).attempts == 1


def test_retry_all(duraq, queue, storage, dead):
    """All of one queue, or of every queue."""
    bury(Queue("other", storage), 2)
    assert json.loads(duraq.ok("dlq", "retry", "--all", "--queue", "jobs", "--yes", "--json"))["rows"]
    assert [row["dead"] for row in duraq.json("stats", "jobs", "other")["rows"]] == [2, 0]
    duraq.ok("dlq", "retry", "--all", "--yes")
    assert duraq.json("dlq", "ls")["rows"] == []


def test_retry_of_some(duraq, queue, dead):
    """What cannot be retried keeps nothing else from it, and the exit code says partly."""
    alive = queue.enqueue("alive")
    result = duraq("dlq", "retry", dead[0], alive, "nosuch")
    assert result.exit_code == Code.PARTLY
    assert result.stderr.count("duraq: ") == 2
    assert queue.get(dead[0]).status is EntryStatus.READY


def test_somebody_was_quicker(duraq, queue, storage, dead, monkeypatch):
    """A dead letter that vanishes between the look and the deed costs only itself."""
    look = dead_letters._dead

    def look_and_lose(*arguments):
        found = look(*arguments)
        DeadLetterQueue("jobs", None, storage).remove(dead[1])
        return found

    monkeypatch.setattr(dead_letters, "_dead", look_and_lose)
    result = duraq("--json", "dlq", "rm", "--yes", *dead)
    assert result.exit_code == Code.PARTLY
    assert [(row["id"], row["status"]) for row in json.loads(result.stdout)["rows"]] == [
        (dead[0], "removed"),
        (dead[1], None),
        (dead[2], "removed"),
    ]


def test_more_than_a_batch(duraq, queue, monkeypatch):
    """There is no cap: what takes several batches is done whole."""
    monkeypatch.setattr(acts, "BATCH", 2)
    dead = bury(queue, 5)
    assert duraq.ok("dlq", "retry", "--all", "--yes", "-o", "ids").split() == dead
    assert queue.counts().ready == 5


# -- consent -----------------------------------------------------------------------------------------------

ACTS = [
    ("retry", "--all"),
    ("retry", "-"),
    ("rm", "-"),
    ("rm", "ID"),
    ("purge", "jobs"),
    ("purge", "jobs", "--older-than", "0s"),
]


def run(duraq, act, dead, *more):
    arguments = [dead[0] if part == "ID" else part for part in act]
    return duraq("dlq", *arguments, *more, stdin=" ".join(dead[:1]))


@pytest.mark.parametrize("act", ACTS)
def test_nobody_to_ask(duraq, queue, dead, act):
    """Where there is no terminal and no --yes nothing is done, and the number is told."""
    result = run(duraq, act, dead)
    assert (result.exit_code, result.stdout) == (Code.USAGE, "")
    assert ("3 dead letters" in result.stderr) is ("ID" not in act and "-" not in act)
    assert queue.counts().dead == 3


@pytest.mark.parametrize("act", ACTS)
def test_expect(duraq, queue, dead, act):
    """If the number is not the expected one nothing is done; if it is, all of it."""
    count = 1 if "-" in act or "ID" in act else 3
    result = run(duraq, act, dead, "--yes", "--expect", str(count + 1))
    assert result.exit_code == Code.CONFLICT
    assert queue.counts().dead == 3
    assert run(duraq, act, dead, "--yes", "--expect", str(count)).exit_code == 0
    assert queue.counts().dead == 3 - count


@pytest.mark.parametrize("act", ACTS)
def test_dry_run(duraq, queue, dead, act):
    """A dry run shows what would be done and does nothing."""
    result = run(duraq, act, dead, "--dry-run", "-o", "ids")
    assert result.exit_code == 0
    assert result.stdout.split() == (dead[:1] if "-" in act or "ID" in act else dead)
    assert "would" in result.stderr
    assert queue.counts().dead == 3


@pytest.mark.parametrize(
    "case",
    [
        (("retry", "--all"), b"y\n", 0),
        (("retry", "--all"), b"n\n", 3),
        (("retry", "--all"), b"\n", 3),
        (("rm", "ID"), b"y\n", 2),
        (("purge", "jobs"), b"jobs\n", 0),
        (("purge", "jobs"), b"y\n", 3),
        (("purge", "jobs"), b"\n", 3),
    ],
)
def test_asking(duraq, queue, dead, case):
    """At a terminal it shows the exact number, where and what of, and asks; no answer is no."""
    arguments, answer, left = case
    arguments = [dead[0] if part == "ID" else part for part in arguments]
    code, screen = duraq.at_terminal("dlq", *arguments, answer=answer)
    count = 1 if dead[0] in arguments else 3
    assert f"{count} dead letter" in screen
    assert f"in jobs ({count})" in screen
    assert f"ValueError ({count})" in screen
    assert code == (Code.DONE if left < 3 else Code.USAGE)
    assert queue.counts().dead == left


def test_no_input(duraq, queue, dead):
    """--no-input asks nobody, terminal or not."""
    code, _ = duraq.at_terminal("dlq", "retry", "--all", "--no-input")
    assert code == Code.USAGE
    assert queue.counts().dead == 3


def test_many_causes(duraq, queue, dead):
    """Of many kinds of errors the most frequent are named."""
    for number in range(4):
        bury(queue, 1 + number, f"Error{number}")
    result = duraq("dlq", "purge", "jobs", "-n")
    assert "13 dead letters in jobs (13), died of Error3 (4)" in result.stderr
    assert "2 more" in result.stderr


# -- purge -------------------------------------------------------------------------------------------------


def test_purge_of_all(duraq, queue, dead):
    """Without a terminal, all of them go only if their number is named."""
    result = duraq("dlq", "purge", "jobs", "--yes")
    assert result.exit_code == Code.USAGE
    assert "--expect 3" in result.stderr
    assert queue.counts().dead == 3
    assert duraq("dlq", "purge", "jobs", "--yes", "--expect", "3").exit_code == 0
    assert queue.counts().dead == 0


def test_purge_of_the_old(duraq, queue, dead):
    """The older ones can be purged by a timer, again and again."""
    assert duraq("dlq", "purge", "jobs", "--yes", "--older-than", "1h").exit_code == 0
    assert queue.counts().dead == 3
    assert duraq("dlq", "purge", "jobs", "--yes", "--older-than", "0s").exit_code == 0
    assert queue.counts().dead == 0
    assert duraq("dlq", "purge", "jobs", "--yes", "--older-than", "0s").exit_code == 0


def test_purge_of_nothing(duraq, queue):
    """An unknown queue is an error, an empty one is not."""
    assert duraq("dlq", "purge", "nosuch", "--yes", "--older-than", "1h").exit_code == Code.NOT_FOUND
    queue.enqueue(1)
    assert duraq("dlq", "purge", "jobs", "--yes", "--expect", "0").exit_code == 0
    assert queue.counts().ready == 1


# -- acts --------------------------------------------------------------------------------------------------


def test_going_on(duraq, queue, dead):
    """An act is gone on with under its id: what died since is not meant, nor what it has done already."""
    duraq.ok("dlq", "retry", "--all", "--yes", "--act", "monday", "--expect", "3")
    queue.mark_failed(queue.dequeue(), dead=True)
    bury(queue, 1)
    result = duraq("dlq", "retry", "--all", "--yes", "--act", "monday", "--expect", "3")
    assert (result.exit_code, result.stderr) == (0, "3 passed over\n")
    assert duraq.json("stats", "jobs")["rows"][0]["dead"] == 2


def test_an_act_over_several_queues(duraq, queue, storage, dead):
    """An act that is gone on with is about the queues that it began with, whatever dies elsewhere."""
    other = bury(Queue("other", storage), 2)
    duraq.ok("dlq", "retry", "--all", "--yes", "--act", "x", "--queue", "other")
    rows = duraq.json("dlq", "retry", "--all", "--yes", "--act", "x")["rows"]
    assert {row["id"]: row["status"] for row in rows} == dict.fromkeys(other, "passed over")
    assert duraq.ok("dlq", "ls", "jobs", "-o", "ids").split() == dead
    assert {Queue("other", storage).get(entry_id).status for entry_id in other} == {EntryStatus.READY}


def test_one_id_one_act(duraq, dead):
    """Under the id of a retry nothing can be removed, and an id must be one."""
    duraq.ok("dlq", "retry", "--all", "--yes", "--act", "x")
    assert duraq("dlq", "rm", dead[0], "--yes", "--act", "x").exit_code == Code.CONFLICT
    for bad in ("a b", "../x", "a" * 65, ""):
        assert duraq("dlq", "retry", "--all", "--yes", "--act", bad).exit_code == Code.USAGE


def test_going_on_by_its_id_alone(duraq, queue, dead):
    """An act that has begun knows what it means; of one that has not it must be said."""
    for verb in ("retry", "rm"):
        assert duraq("dlq", verb, "--act", "none", "--yes").exit_code == Code.NOT_FOUND
        assert duraq("dlq", verb, "--yes").exit_code == Code.USAGE
    duraq.ok("dlq", "retry", dead[0], "--act", "x")
    assert duraq("dlq", "retry", "--act", "x", "--yes").stderr == "1 passed over\n"
    assert len(queue) == 1


def test_an_interruption_says_how_to_go_on(duraq, dead, monkeypatch):
    """Ctrl-C in the middle ends it, and says what was done and how to go on."""

    def interrupted(_self, _act, _at_once):
        yield acts.Outcome(dead[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(acts.Acts, "carry_out", interrupted)
    result = duraq("dlq", "retry", "--all", "--yes", "--act", "x")
    assert "1 done; to go on: duraq dlq retry --act x" in result.stderr
    assert result.exit_code == Code.INTERRUPTED


def test_an_edit_is_an_act(duraq, dead):
    """That an entry was put back with another payload is listed, with why."""
    duraq.ok("dlq", "retry", dead[0], "--data", "1", "--reason", "typo")
    (row,) = duraq.json("dlq", "acts")["rows"]
    assert (row["verb"], row["count"], row["reason"], row["where"]) == ("edit", 1, "typo", f"id={dead[0]}")


def test_signatures_can_be_shown(duraq, dead):
    """What can be filtered by can be shown: type and signature of the last error."""
    rows = duraq.ok("dlq", "ls", "--fields", "type,sig", "--no-header").splitlines()
    assert len(set(rows)) == 1
    assert rows[0].startswith("ValueError\t")


def test_undo(duraq, queue, storage, dead):
    """What was removed comes back, from the last act or a named one, over all its queues."""
    other = bury(Queue("other", storage), 2)
    duraq.ok("dlq", "rm", "--yes", "--act", "first", dead[0], other[0])
    assert "duraq undo " in duraq("dlq", "rm", "--yes", dead[1]).stderr
    assert duraq.ok("undo", "-o", "ids").split() == [dead[1]]
    assert set(duraq.ok("undo", "first", "-o", "ids").split()) == {dead[0], other[0]}
    assert duraq.ok("dlq", "ls", "-o", "ids").split() == [*dead, *other]
    assert "nothing to bring back" in duraq("undo", "first", "--yes").stderr


def test_nothing_to_undo(duraq, dead):
    """There is nothing to undo where nothing was removed, under an unknown id, or after a purge."""
    assert duraq("undo").exit_code == Code.NOT_FOUND
    assert duraq("undo", "unknown").exit_code == Code.NOT_FOUND
    duraq.ok("dlq", "purge", "jobs", "--yes", "--expect", "3", "--act", "x")
    assert duraq("undo").exit_code == Code.NOT_FOUND
    assert duraq("undo", "x").exit_code == Code.USAGE


def test_acts_are_listed(duraq, dead):
    """What was done is listed, with why and by which filter."""
    duraq.ok("dlq", "retry", "--where", f"id={dead[0]}", "--yes", "--act", "x", "--reason", "mended")
    duraq.ok("dlq", "rm", dead[1], "--yes", "--act", "y")
    duraq.ok("undo")
    rows = duraq.json("dlq", "acts")["rows"]
    assert [(row["verb"], row["count"], row["reason"]) for row in rows] == [
        ("retry", 1, "mended"),
        ("remove", 1, ""),
        ("undo", 1, ""),
    ]
    assert (rows[0]["act"], rows[0]["where"], rows[2]["of"]) == ("x", f"id={dead[0]}", "y")


def test_retry_with_other_data(duraq, queue, dead, tmp_path):
    """One dead letter can be put back with another payload: as an argument, from a file or from stdin."""
    (tmp_path / "data").write_text('{"n": 2}')
    duraq.ok("dlq", "retry", dead[0], "--data", '{"n": 1}')
    duraq.ok("dlq", "retry", dead[1], "--data", f"@{tmp_path}/data")
    duraq.ok("dlq", "retry", dead[2], "--data", "-", stdin='{"n": 3}')
    assert [entry.data for entry in queue.dequeue(limit=3)] == [{"n": 1}, {"n": 2}, {"n": 3}]


@pytest.mark.parametrize(
    "more", [("--data", "{"), ("--data", "1", "--edit"), ("--edit",), ("--data", "1", "--dry-run")]
)
def test_data_that_is_refused(duraq, queue, dead, more):
    """A payload that is no JSON, or nobody at a terminal to edit it, changes nothing."""
    assert duraq("dlq", "retry", dead[0], *more).exit_code == Code.USAGE
    assert len(queue) == 0
    assert duraq("dlq", "retry", "--all", "--yes", "--data", "1").exit_code == Code.USAGE


def test_edit(duraq, queue, dead, tmp_path):
    """At a terminal the payload is edited; left as it is, nothing is done."""
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/0/17/ "$1"\n')
    editor.chmod(0o700)
    environment = {**os.environ, "DURAQ_ROOT": str(duraq.root), "TERM": "xterm"}
    edited = duraq.at_terminal("dlq", "retry", dead[0], "--edit", env=environment | {"EDITOR": str(editor)})
    assert edited[0] == 0, edited
    assert queue.dequeue().data == 17
    code, screen = duraq.at_terminal("dlq", "retry", dead[1], "--edit", env=environment | {"EDITOR": "true"})
    assert (code, "not changed" in screen) == (Code.USAGE, True)


def test_edit_again(duraq, queue, dead, tmp_path):
    """What was typed and is no JSON is not lost: it can be edited again."""
    editor = tmp_path / "editor"
    editor.write_text(
        '#!/bin/sh\nif grep -q typed "$1"; then echo 17; else echo typed; fi > "$1.new"\nmv "$1.new" "$1"\n'
    )
    editor.chmod(0o700)
    environment = {**os.environ, "DURAQ_ROOT": str(duraq.root), "TERM": "xterm", "EDITOR": str(editor)}
    code, screen = duraq.at_terminal("dlq", "retry", dead[0], "--edit", env=environment, answer=b"y\n")
    assert (code, "is not JSON" in screen, "--text" in screen) == (0, True, False)
    assert queue.dequeue().data == 17


SOMEBODY_ELSE = f"""#!{sys.executable}
import os, sys
from duraq import DeadLetterQueue, FileStorage, Queue
from pathlib import Path
with FileStorage(os.environ["DURAQ_ROOT"]) as storage:
    DeadLetterQueue("jobs", None, storage).retry(os.environ["LETTER"], data="theirs")
    queue = Queue("jobs", storage)
    queue.mark_failed(queue.dequeue(), dead=True)
Path(sys.argv[1]).write_text("17")
"""


def test_somebody_else_was_quicker(duraq, storage, dead, tmp_path):
    """What somebody else has put back while it was being edited, and has died again, is left alone."""
    editor = tmp_path / "editor"
    editor.write_text(SOMEBODY_ELSE)
    editor.chmod(0o700)
    more = {"DURAQ_ROOT": str(duraq.root), "TERM": "xterm", "EDITOR": str(editor), "LETTER": dead[0]}
    code, screen = duraq.at_terminal("dlq", "retry", dead[0], "--edit", env=os.environ | more)
    assert (code, "died again" in screen) == (Code.NOT_FOUND, True), screen
    assert DeadLetterQueue("jobs", None, storage).retrieve(dead[0]).data == "theirs"


# -- into another queue ------------------------------------------------------------------------------------


def test_move(duraq, queue, storage, dead):
    """Dead letters of one queue that match, or all, go into another one."""
    other = Queue("other", storage)
    other.enqueue("there already")
    assert duraq("move", "jobs", "--to", "other", "--yes").exit_code == Code.USAGE
    assert "3 dead letters" in duraq("move", "jobs", "--all", "--to", "other").stderr
    for more in ((), ("-n",), ("-y",)):
        assert (
            "duraq create nosuch makes it" in duraq("move", "jobs", "--all", "--to", "nosuch", *more).stderr
        )
    result = duraq("move", "jobs", "-w", "payload=1", "--to", "other", "--yes", "-o", "ids")
    assert (result.exit_code, result.stdout.split()) == (0, dead[1:2])
    assert "1 moved" in duraq("dlq", "retry", dead[2], "--to", "other", "--yes").stderr
    assert [entry.data for entry in other.dequeue(limit=5)] == ["there already", 1, 2]
    rows = duraq.json("dlq", "acts")["rows"]
    assert [(row["verb"], row["queue"], row["to"], row["where"]) for row in rows] == [
        ("move", "jobs", "other", "payload=1"),
        ("move", "jobs", "other", ""),
    ]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("move", "jobs", "--all", "--to", "nosuch"), Code.NOT_FOUND),
        (("move", "jobs", "--all", "--to", "jobs"), Code.USAGE),
        (("move", "jobs", "--all", "--to", "UPPER"), Code.USAGE),
        (("move", "jobs", "-w", "state:ready", "--to", "other"), Code.USAGE),
        (("move", "jobs", "--all", "--to", "other", "--expect", "2"), Code.CONFLICT),
        (("dlq", "retry", "--all", "--to", "other", "--keep-attempts"), Code.USAGE),
    ],
)
def test_moves_that_are_refused(duraq, storage, dead, arguments, code):
    """What cannot be moved there stays where it is, and no queue is made."""
    Queue("other", storage).enqueue(1)
    assert duraq(*arguments, "--yes").exit_code == code
    assert (storage.counts("jobs").dead, storage.queues()) == (3, ["jobs", "other"])


# -- carefully ---------------------------------------------------------------------------------------------


def test_only_so_many(duraq, queue, dead):
    """--max takes the first of them, and says so before."""
    assert "2 dead letters" in duraq("dlq", "retry", "--all", "--max", "2", "-n").stderr
    duraq.ok("dlq", "retry", "--all", "--max", "2", "--yes", "--expect", "2")
    assert [queue.get(entry_id).status.value for entry_id in dead] == ["ready", "ready", "dead"]


def test_stopping(duraq, queue, dead, monkeypatch):
    """What fails again and again is not put back further; it says how to go on, and ends with 'partly'."""

    def look(self):
        return 11, 12

    monkeypatch.setattr("duraq.bulk.Watch.look", look)
    result = duraq(
        "dlq", "retry", "--all", "--yes", "--rate", "1000/s", "--stop-if-failing", "5%", "--act", "x"
    )
    assert result.exit_code == 0, "all three are one batch"
    monkeypatch.setattr("duraq.bulk._BATCHES", 1000)
    bury(queue, 5)
    result = duraq(
        "dlq", "retry", "--all", "--yes", "--rate", "1000/s", "--stop-if-failing", "5%", "--act", "y"
    )
    assert result.exit_code == Code.PARTLY
    assert "stopped: 11 of 12" in result.stderr
    assert "4 are still to be; to go on: duraq dlq retry --act y" in result.stderr


@pytest.mark.parametrize(
    "more", [("--rate", "0"), ("--rate", "5/d"), ("--stop-if-failing", "5"), ("--stop-if-failing", "101")]
)
def test_no_such_pace(duraq, queue, dead, more):
    """A rate or a share that is none, or a share without a rate, is refused before anything is done."""
    assert duraq("dlq", "retry", "--all", "--yes", *more).exit_code == Code.USAGE
    assert queue.counts().dead == 3


def test_what_can_be_undone(duraq, queue, dead):
    """Only removals are listed by `undo --list`."""
    duraq.ok("dlq", "retry", dead[0])
    duraq.ok("dlq", "rm", "--yes", "--act", "x", dead[1])
    assert [row["act"] for row in duraq.json("undo", "--list")["rows"]] == ["x"]
    assert queue.counts().dead == 1


def test_by_a_part_of_the_id(duraq, queue):
    """A part of an id that no other has is enough to retry, edit or remove a letter; all of it is said."""
    ids = bury(queue, 3)
    for entry_id, command in zip(ids, (("retry",), ("rm", "--yes"), ("retry", "--data", "9")), strict=True):
        part = f"..{entry_id[-12:]}"
        done = duraq("dlq", command[0], part, *command[1:])
        assert done.exit_code == Code.DONE
        assert f"{part} is jobs/{entry_id}" in done.stderr
    assert duraq.ok("dlq", "ls", "-o", "ids") == ""
    assert sorted(entry.data for entry in queue.dequeue(limit=9)) == [0, 9]


def test_what_may_be_several_is_none(duraq, queue):
    """Nothing is done to any dead letter by a part that several ids have."""
    for number in range(2):
        queue.enqueue(number, id=f"01a20e32-58a9-7455-bac3-{number}000000000aa")
        queue.mark_failed(queue.dequeue(), "no", dead=True)
    for command in ("retry", "rm"):
        done = duraq("dlq", command, "01a20e32-58a9", "--yes")
        assert done.exit_code == Code.CONFLICT
        assert "0000000000aa" in done.stderr
        assert "1000000000aa" in done.stderr
    assert len(duraq.ok("dlq", "ls", "-o", "ids").split()) == 2


# -- damage ------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(root):
    """Dead letters in two sound queues, and between them one in a queue that is damaged."""
    with FileStorage(root, durability="process", sizes=Sizes(journal=1 << 14, segment=2000)) as storage:
        ids = {name: bury(Queue(name, storage), 1) for name in ("aaa", "jobs", "zzz")}
        # So many that the journal does not know the first any more, and could not mend it.
        for number in range(300):
            Queue("jobs", storage).enqueue(number)
    segment = min((root / "jobs" / "segments").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'"data":0', b'"data":1'))
    for file in segment.parent.glob("*.checkpoint"):
        file.unlink()
    return [*ids["aaa"], *ids["zzz"]]


@pytest.mark.parametrize(
    "command", [("dlq", "ls", "-o", "ids"), ("dlq", "export"), ("ls", "--where", "state:dead", "-o", "ids")]
)
def test_looking_past_a_damaged_queue(duraq, damaged, command):
    """Of all queues the sound ones are shown, the damaged one is named at the end with the way out: 7."""
    done = duraq(*command)
    assert done.exit_code == Code.DAMAGED
    shown = [json.loads(line)["id"] if line.startswith("{") else line for line in done.stdout.splitlines()]
    assert shown == damaged
    *_, last = done.stderr.splitlines()
    assert "queue jobs" in last or "jobs/segments" in last
    assert "duraq repair" in last
    assert duraq("dlq", "ls", "jobs").exit_code == Code.DAMAGED


def test_changing_past_a_damaged_queue(duraq, damaged):
    """What is meant in sound queues is done, the damaged one is named, and the exit code is 7."""
    dry = duraq("dlq", "retry", "--all", "--dry-run", "-o", "ids")
    assert (dry.exit_code, dry.stdout.split()) == (Code.DAMAGED, damaged)
    done = duraq("dlq", "retry", "--all", "--yes")
    assert done.exit_code == Code.DAMAGED
    assert "2 ready" in done.stderr
    assert "jobs/segments" in done.stderr
    assert "duraq repair" in done.stderr
    assert duraq("dlq", "ls", "-o", "ids").stdout == ""
    again = duraq("dlq", "retry", "--all", "--yes")
    assert again.exit_code == Code.DAMAGED


def test_what_died_past_a_damaged_queue(duraq, damaged):
    """The dead letters of sound queues are put together, the damaged one is named, and the exit code is 7."""
    done = duraq("dlq", "errors", "--json")
    assert done.exit_code == Code.DAMAGED
    assert json.loads(done.stdout)["rows"][0]["queues"] == {"aaa": 1, "zzz": 1}
    assert "jobs/segments" in done.stderr
