"""get, ack, nack, extend."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from duraq import Cause, EntryStatus
from duraq.cli.failing import Code


@pytest.fixture
def token(duraq, queue):
    """A leased entry's token."""
    queue.enqueue({"n": 1}, id="one")
    return duraq.ok("get", "jobs", "-o", "ids").strip()


def test_get(duraq, queue):
    """What is got is leased, in order, and belongs to no process: only its deadline ends it."""
    queue.enqueue(1, id="one")
    queue.enqueue(2, id="two", priority=9)
    rows = duraq.json("get", "jobs", "-n", "5", "--lease", "1h")["rows"]
    assert [(row["token"], row["payload"], row["attempts"]) for row in rows] == [
        ("jobs/two/1", 2, 1),
        ("jobs/one/2", 1, 1),
    ]
    deadline = datetime.fromisoformat(rows[0]["deadline_at"])
    assert timedelta(minutes=59) < deadline - datetime.now(UTC) <= timedelta(hours=1)
    entry = queue.get("one")
    assert (entry.status, entry.worker) == (EntryStatus.LEASED, "")


def test_nothing_to_get(duraq, queue):
    """With nothing to take the exit code says so, and only JSON says more."""
    queue.enqueue(1)
    queue.dequeue()
    result = duraq("get", "jobs")
    assert (result.exit_code, result.stdout, result.stderr) == (Code.NOTHING, "", "")
    result = duraq("get", "jobs", "--json")
    assert result.exit_code == Code.NOTHING
    assert json.loads(result.stdout) == {"schema": "duraq.get/1", "rows": []}
    assert duraq("get", "jobs", "--wait", "10ms").exit_code == Code.NOTHING


def test_wait(duraq, queue):
    """It waits for an entry to come, even of a queue that does not exist yet."""
    process = duraq.start("get", "jobs", "--wait", "1h", "-o", "ids")
    entry_id = queue.enqueue(1)
    assert process.communicate()[0].decode() == f"jobs/{entry_id}/1\n"


def test_deadline(duraq, queue):
    """What is not ended by its deadline is delivered again, counted, its old token worth nothing."""
    queue.enqueue(1, id="one")
    old = duraq.ok("get", "jobs", "--lease", "1us", "-o", "ids").strip()
    row = duraq.json("get", "jobs")["rows"][0]
    assert (row["id"], row["attempts"]) == ("one", 2)
    assert queue.get("one").errors[0].cause is Cause.TIMED_OUT
    assert duraq("ack", old).exit_code == Code.CONFLICT
    assert duraq("ack", row["token"]).exit_code == 0


@pytest.mark.parametrize("option", [("--lease", "0"), ("--lease", "-1s"), ("--wait", "-1s"), ("-n", "0")])
def test_get_out_of_range(duraq, queue, option):
    """A lease of no length, and the like, is refused."""
    queue.enqueue(1)
    assert duraq("get", "jobs", *option).exit_code == Code.USAGE


def test_ack(duraq, queue, token):
    """An entry that is acked is over; another ack of it is a conflict."""
    result = duraq("ack", token)
    assert (result.exit_code, result.stdout) == (0, "")
    assert len(queue) == 0
    assert duraq("ack", token).exit_code == Code.CONFLICT


def test_ack_of_some(duraq, queue, token):
    """If some could be done and some not, the exit code says partly, and JSON says which."""
    result = duraq("--json", "ack", token, "jobs/nosuch/1")
    assert result.exit_code == Code.PARTLY
    rows = json.loads(result.stdout)["rows"]
    assert [(row["token"], row["status"]) for row in rows] == [(token, "completed"), ("jobs/nosuch/1", None)]
    assert "has ended" in rows[1]["error"]


def test_tokens_from_stdin(duraq, queue):
    """A dash stands for the tokens on stdin, each of which counts once."""
    queue.enqueue_many([1, 2, 3])
    tokens = duraq.ok("get", "jobs", "-n", "3", "-o", "ids")
    assert duraq("ack", "-", stdin=tokens + tokens).exit_code == 0
    assert len(queue) == 0


def test_tokens_from_a_terminal(duraq, token):
    """A dash at a terminal does not sit and wait."""
    code, screen = duraq.at_terminal("ack", "-")
    assert code == Code.USAGE
    assert "terminal" in screen


@pytest.mark.parametrize(
    "token", ["", "jobs", "jobs/one", "jobs/one/x", "/one/1", "jobs//1", "UPPER/one/1", "jobs/one/\u0661"]
)
def test_no_token(duraq, queue, token):
    """What is no token is refused before anything is done."""
    queue.enqueue(1, id="one")
    good = duraq.ok("get", "jobs", "-o", "ids").strip()
    assert duraq("ack", good, token).exit_code == Code.USAGE
    assert len(queue) == 1


def test_token_with_slashes(duraq, queue):
    """An id may hold slashes."""
    queue.enqueue(1, id="a/b/c")
    token = duraq.ok("get", "jobs", "-o", "ids").strip()
    assert token == "jobs/a/b/c/1"
    assert duraq("ack", token).exit_code == 0


def test_nack(duraq, queue, token):
    """A nack ends the attempt with its error, and the entry is tried again later."""
    assert "scheduled" in duraq("nack", token, "--error", "no route").stderr
    entry = queue.get("one")
    assert (entry.status, entry.attempts) == (EntryStatus.SCHEDULED, 1)
    assert (entry.errors[0].cause, entry.errors[0].error.message) == (Cause.FAILED, "no route")


def test_nack_options(duraq, queue, token):
    """A nack may say when it is tried again, or that it is not."""
    duraq.ok("nack", token, "--retry-in", "0")
    assert queue.get("one").status is EntryStatus.READY
    token = duraq.ok("get", "jobs", "-o", "ids").strip()
    duraq.ok("nack", token, "--dead")
    assert queue.get("one").status is EntryStatus.DEAD


def test_nack_of_the_last_attempt(duraq, queue):
    """The fifth failure is the last."""
    queue.enqueue(1, id="one")
    for more in (["--retry-in", "0"],) * 4 + ([],):
        token = duraq.ok("get", "jobs", "-o", "ids").strip()
        duraq.ok("nack", token, *more)
    assert queue.get("one").status is EntryStatus.DEAD


def test_extend(duraq, queue, token):
    """A lease can be held for longer."""
    duraq.ok("extend", token, "--lease", "2h")
    assert queue.get("one").lease_deadline - datetime.now(UTC) > timedelta(minutes=119)
    assert duraq("extend", "jobs/one/9").exit_code == Code.CONFLICT


def test_what_died_in_other_hands(duraq, queue):
    """Who takes entries by hand gives back what others have lost, and buries it only if told how often."""
    queue.enqueue(1, id="one")
    for attempt in range(1, 8):
        (row,) = duraq.json("get", "jobs", "--lease", "1ms", "--wait", "10s")["rows"]
        assert row["attempts"] == attempt
    assert duraq("get", "jobs", "--wait", "1s", "--max-attempts", "7").exit_code == Code.NOTHING
    assert queue.counts().dead == 1


def test_how_often_what_failed_is_tried(duraq, queue, token):
    """What failed by hand is tried as often as nack says, five times by default."""
    duraq.ok("nack", token, "--retry-in", "0", "--max-attempts", "2")
    token = duraq.ok("get", "jobs", "-o", "ids").strip()
    duraq.ok("nack", token, "--max-attempts", "2")
    assert queue.counts().dead == 1
