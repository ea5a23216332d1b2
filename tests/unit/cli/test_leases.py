"""leases, workers, release."""

from __future__ import annotations

import json
import os
from datetime import timedelta

import pytest

from duraq import Cause, EntryStatus
from duraq.cli.failing import Code


@pytest.fixture
def held(queue):
    """An entry that this process holds."""
    queue.enqueue(1, id="one")
    return queue.dequeue()


def got(duraq, queue, entry_id="two"):
    """The token of an entry that nobody's process holds."""
    queue.enqueue(2, id=entry_id, priority=9)
    return duraq.ok("get", "jobs", "-o", "ids").strip()


def test_leases(duraq, queue, held):
    """Each lease is shown with who holds it and whether that one lives, the next deadline first."""
    token = got(duraq, queue)
    queue.extend(held, timedelta(hours=1))
    rows = duraq.json("leases")["rows"]
    assert [(row["id"], row["holder"], row["pid"], row["late"]) for row in rows] == [
        ("two", "no process", None, False),
        ("one", "alive", os.getpid(), False),
    ]
    assert duraq.ok("leases", "-o", "ids").split() == [token, f"jobs/one/{held.token}"]
    assert duraq.json("leases", "--expired")["rows"] == []
    assert duraq.json("leases", "jobs")["rows"] == rows
    assert duraq("leases", "nosuch").exit_code == Code.NOT_FOUND


def test_expired_leases(duraq, queue, held):
    """With --expired only those are shown that are past their deadline, or whose holder is dead."""
    queue.enqueue(2, id="two")
    duraq.ok("get", "jobs", "--lease", "1us")
    (row,) = duraq.json("leases", "--expired")["rows"]
    assert (row["id"], row["late"]) == ("two", True)
    assert held.id not in duraq.ok("leases", "--expired", "-o", "tsv")


def test_workers(duraq, queue, held, storage):
    """Each worker is shown with its process, what it holds and how it was called, until it has closed."""
    (row,) = duraq.json("workers")["rows"]
    assert (row["worker"], row["pid"], row["state"], row["holds"]) == (
        held.worker,
        os.getpid(),
        "alive",
        {"jobs": 1},
    )
    assert row["argv"]
    assert row["host"] == os.uname().nodename
    storage.close()
    assert duraq.json("workers")["rows"] == []


def test_a_dead_worker(duraq, queue):
    """A worker that was killed is shown as dead, with what it holds and what comes of that."""
    queue.enqueue(1, id="one")
    process = duraq.start("run", "jobs", "--", "sleep", "1000")
    while not (rows := duraq.json("workers")["rows"]) or not rows[0]["holds"]:
        assert process.poll() is None
    process.kill()
    process.wait()
    # What it forked to end its program may hold its lock for a moment longer.
    while (row := duraq.json("workers")["rows"][0])["alive"]:
        pass
    assert (row["pid"], row["state"], row["alive"], row["holds"]) == (process.pid, "dead", False, {"jobs": 1})
    assert row["command"].endswith("run jobs -- sleep 1000")
    assert f"{row['worker']}, which is dead: whoever works the queue next takes it" in duraq.ok("show", "one")
    (stats,) = duraq.json("stats")["rows"]
    told = "1 held by a dead worker; whoever works the queue next takes it"
    assert (stats["status"], stats["why"]) == ("OK", told)


@pytest.mark.parametrize("by", ["token", "id"])
def test_release(duraq, queue, held, by):
    """A lease is ended by its token or its entry's id; the entry is ready, and says who ended it and why."""
    word = f"jobs/one/{held.token}" if by == "token" else "one"
    result = duraq("release", word, "--yes", "--reason", "it hangs")
    assert (result.exit_code, result.stderr) == (Code.DONE, "1 ready\n")
    entry = queue.get("one")
    assert (entry.status, entry.attempts, entry.errors[0].cause) == (EntryStatus.READY, 0, Cause.RELEASED)
    assert entry.errors[0].error.message.endswith(": it hangs; not counted")


def test_release_asks(duraq, queue, held):
    """If the holder lives, or nobody knows, it is asked first; without a terminal nothing is done."""
    got(duraq, queue)
    for name in ("one", "two"):
        result = duraq("release", name)
        assert result.exit_code == Code.USAGE
        assert "may then be done twice" in result.stderr
    code, screen = duraq.at_terminal("release", "one", answer=b"n\n")
    assert code == Code.USAGE
    assert f"worker {held.worker}, which lives" in screen.replace("\r\n", "")
    assert queue.counts().leased == 2
    assert duraq.at_terminal("release", "one", answer=b"y\n")[0] == Code.DONE
    assert queue.counts().leased == 1


def test_a_dead_holder_is_not_asked_for(duraq, queue):
    """The lease of a worker that is dead is ended without a question."""
    queue.enqueue(1, id="one")
    process = duraq.start("run", "jobs", "--", "sleep", "1000")
    while not queue.counts().leased:
        assert process.poll() is None
    process.kill()
    process.wait()
    assert duraq("release", "one").exit_code == Code.DONE
    assert queue.get("one").attempts == 0


def test_what_cannot_be_released(duraq, queue, held):
    """What is not there is not found, what is not leased is a conflict, and holds up no other."""
    queue.enqueue(2, id="two")
    assert duraq("release", "nosuch", "-y").exit_code == Code.NOT_FOUND
    result = duraq("release", "two", "-y")
    assert result.exit_code == Code.CONFLICT
    assert "entry two is ready, not leased" in result.stderr
    result = duraq("release", f"jobs/one/{held.token + 1}", "-y")
    assert result.exit_code == Code.CONFLICT
    result = duraq("release", "two", "one", "-y", "--json")
    assert result.exit_code == Code.PARTLY
    rows = json.loads(result.stdout)["rows"]
    assert [(row["id"], row["status"]) for row in rows] == [(None, None), ("one", "ready")]


def test_an_id_with_slashes(duraq, queue):
    """An id that looks like a token of a queue that is not there is an id."""
    queue.enqueue(1, id="mail/7/1")
    queue.dequeue()
    assert duraq("release", "mail/7/1", "-y").exit_code == Code.DONE
