"""dlq: ls, show, retry, rm, purge."""

from __future__ import annotations

import json

import pytest

from duraq import DeadLetterQueue, EntryStatus, Queue
from duraq.cli import dead_letters
from duraq.cli.failing import Code


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
    monkeypatch.setattr(dead_letters, "BATCH", 2)
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
