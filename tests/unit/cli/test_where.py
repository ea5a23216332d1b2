"""--where of ls and of dlq."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from duraq import Queue
from duraq.cli.failing import Code
from duraq.inspector import Inspector


class HTTPError(Exception):
    pass


def bury(queue, *payloads, error=None):
    ids = queue.enqueue_many(payloads)
    for entry in queue.dequeue(limit=len(ids)):
        queue.mark_failed(entry, error or ValueError("no"), dead=True)
    return ids


@pytest.fixture
def other(storage):
    """Another queue."""
    return Queue("other", storage)


@pytest.fixture
def dead(queue, other):
    """The ids of dead letters: two of jobs with one error, one of jobs and one of other with another."""
    first = bury(queue, {"n": 1}, {"n": 2})
    second = bury(queue, {"n": 3}, error=HTTPError("503 \x1b[31m"))
    return [*first, *second, *bury(other, {"n": 4}, error=HTTPError("503"))]


def ids(duraq, *arguments):
    return duraq.ok(*arguments, "-o", "ids").split()


def test_ls(duraq, queue, other):
    """The entries of one queue or of all that match, in any state; the limit is of those that match."""
    names = queue.enqueue_many([{"n": n} for n in range(6)])
    there = other.enqueue({"n": 5})
    assert ids(duraq, "ls", "jobs", "--where", "payload.n>2 payload.n<5") == names[3:5]
    assert ids(duraq, "ls", "-w", "payload.n=5") == [names[5], there]
    assert ids(duraq, "ls", "-w", "payload.n>1", "-l", "2", "--offset", "3") == [names[5], there]
    assert ids(duraq, "ls", "jobs", "-w", "payload.n>1", "-l", "2", "--offset", "1") == names[3:5]
    assert ids(duraq, "ls", "jobs", "-w", "state:ready", "--state", "leased") == []
    assert ids(duraq, "ls", "jobs", "-w", "state:ready", "--offset", str(10**30)) == []
    assert duraq.ok("ls", "-w", "queue:other").startswith("id\tqueue\tstatus\t")


def test_dlq_ls(duraq, queue, dead):
    """The dead letters that match, and no entry that lives."""
    queue.enqueue({"n": 1})
    assert ids(duraq, "dlq", "ls", "-w", "payload.n<3") == dead[:2]
    assert ids(duraq, "dlq", "ls", "-w", "err:httperror") == dead[2:]
    assert ids(duraq, "dlq", "ls", "other", "-w", "err:httperror") == dead[3:]
    assert ids(duraq, "dlq", "ls", "-w", "state:ready") == []


def test_only_queues_that_can_match_are_read(duraq, queue, dead, monkeypatch):
    """A queue of which nothing can match, by its name or by the state, is not looked into."""
    looked = []
    each_entry = Inspector.each_entry

    def look(self, name, *arguments, **options):
        looked.append(name)
        return each_entry(self, name, *arguments, **options)

    monkeypatch.setattr(Inspector, "each_entry", look)
    assert ids(duraq, "dlq", "ls", "-w", "queue:other") == dead[3:]
    assert ids(duraq, "ls", "-w", "-queue:jobs") == dead[3:]
    assert ids(duraq, "dlq", "ls", "-w", "state:ready") == []
    assert looked == ["other", "other"]


ACTS = [("retry", "--where"), ("rm", "--where"), ("purge", "jobs", "--where")]
TWO = "queue:jobs payload.n<3"


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act[0])
def test_acts(duraq, queue, dead, act):
    """Exactly what matches is retried, removed or purged, and nothing else."""
    done = json.loads(duraq.ok("dlq", *act, TWO, "--yes", "--json"))
    assert [row["id"] for row in done["rows"]] == dead[:2]
    assert ids(duraq, "dlq", "ls") == dead[2:]
    assert queue.counts().ready == (2 if act[0] == "retry" else 0)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act[0])
def test_consent(duraq, queue, dead, act):
    """A filter selects many at once: the number is told, --yes is needed, --expect and --dry-run hold."""
    result = duraq("dlq", *act, TWO)
    assert (result.exit_code, result.stdout) == (Code.USAGE, "")
    assert "2 dead letters in jobs (2), died of ValueError (2)" in result.stderr
    assert duraq("dlq", *act, TWO, "--yes", "--expect", "3").exit_code == Code.CONFLICT
    assert ids(duraq, "dlq", *act, TWO, "--dry-run") == dead[:2]
    assert queue.counts().dead == 3
    assert duraq("dlq", *act, TWO, "--yes", "--expect", "2").exit_code == Code.DONE
    assert queue.counts().dead == 1


@pytest.mark.parametrize(("answer", "left"), [(b"y\n", 1), (b"\n", 3)])
def test_asking(duraq, queue, dead, answer, left):
    """At a terminal it shows the exact number and asks."""
    _, screen = duraq.at_terminal("dlq", "rm", "-w", TWO, answer=answer)
    assert "Remove 2 dead letters in jobs (2), died of ValueError (2)?" in screen
    assert queue.counts().dead == left


def test_further_limits(duraq, queue, dead):
    """--queue and --older-than narrow what matches; where nothing does, nothing is done."""
    assert ids(duraq, "dlq", "retry", "-w", "payload.n>0", "--queue", "other", "--dry-run") == dead[3:]
    assert ids(duraq, "dlq", "purge", "jobs", "-w", "payload.n>0", "--older-than", "1h", "-n") == []
    result = duraq("dlq", "rm", "-w", "err:nosuch", "--yes")
    assert (result.exit_code, result.stderr) == (Code.DONE, "nothing to remove\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("retry",),
        ("retry", "--all", "-w", "age>1h"),
        ("retry", "some-id", "-w", "age>1h"),
        ("rm",),
        ("rm", "some-id", "-w", "age>1h"),
    ],
)
def test_one_way_to_say_which(duraq, queue, dead, arguments):
    """Ids, --all and a filter exclude each other, and one of them must be there."""
    result = duraq("dlq", *arguments, "--yes")
    assert result.exit_code == Code.USAGE
    assert "--where FILTER" in result.stderr
    assert queue.counts().dead == 3


def test_not_understood(duraq, queue, dead):
    """A filter that is not understood is shown with a caret, safe for a terminal; in JSON it is a message."""
    result = duraq("dlq", "rm", "--yes", "-w", "queue:jobs \x1b]quue:x")
    assert (result.exit_code, result.stdout) == (Code.USAGE, "")
    shown, caret, message = result.stderr.splitlines()
    assert shown == "  queue:jobs \\x1b]quue:x"
    assert caret == "             ^"
    assert message.startswith("duraq: --where: there is no field \\x1b]quue")
    result = duraq("--json", "ls", "-w", "")
    assert "empty" in json.loads(result.stderr)["error"]["message"]


def test_hostile_text_is_shown_escaped(duraq, queue, dead):
    """What a filter finds is printed as safely as anything else."""
    _, screen = duraq.at_terminal("dlq", "ls", "-w", "err:503")
    assert "\\x1b[31m" in screen
    assert "\x1b[31m" not in screen


@pytest.mark.parametrize(
    "command", [("ls",), *(("dlq", name) for name in ("ls", "retry", "rm", "purge"))], ids=" ".join
)
def test_help(duraq, command):
    """The help of each command that takes a filter has an example of one, and names the document."""
    text = duraq.ok(*command, "--help")
    assert "-w, --where FILTER" in text
    assert "docs/WHERE.md" in text
    assert "  queue:mail,billing err:HTTPError" in text


def test_who_gives_no_filter_pays_for_none(duraq, queue):
    """Looking without a filter imports nothing of them."""
    queue.enqueue(1)
    code = (
        "import sys; from duraq.cli import cli; from duraq.cli.stage import run_safely;"
        f"run_safely(cli, ['-C', {str(duraq.root)!r}, 'ls', 'jobs']);"
        "assert not {'duraq.where', 'duraq.fields', 'duraq.pattern'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
