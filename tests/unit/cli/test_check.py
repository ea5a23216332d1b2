"""duraq check: what monitoring asks, with the exit codes of its plugins."""

import json
import os
import re
import signal
import subprocess
import sys
from datetime import timedelta

import pytest

from duraq import FileStorage, FixedDelay, Queue
from duraq.cli.check import Size
from duraq.testing import FakeClock

# Whatever this machine's disk is like.
CALM = ("check", "--min-free", "0", "--max-sync", "1h", "--max-lock-wait", "60s")


@pytest.fixture
def waiting(root):
    """A queue whose entry was made long ago, by the clock that the commands go by."""
    with FileStorage(root, clock=FakeClock()) as storage:
        Queue("jobs", storage).enqueue(1)


def lines(result):
    return result.stdout.splitlines()


def test_all_is_well(duraq, queue):
    """Nothing is wrong: 0, and in a pipe one status line with numbers, then a line for each component."""
    queue.enqueue(1)
    result = duraq(*CALM)
    assert result.exit_code == 0
    status, storage, metrics, jobs = lines(result)
    text, numbers = status.split(" | ")
    assert text == "DURAQ OK - all is well: storage, metrics, queue jobs"
    assert "'jobs ready'=1 " in numbers
    assert re.fullmatch(r"('[^'=]+'=\d+(\.\d+)?(s|B)? ?)+", numbers)
    assert [line.split(":")[0] for line in (storage, metrics, jobs)] == [
        "OK storage",
        "OK metrics",
        "OK queue jobs",
    ]


def test_a_warning(duraq, storage):
    """Something that somebody should look at: 1."""
    queue = Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=1, delay=timedelta(0)))
    queue.enqueue_many(range(3))
    for entry in queue.dequeue(limit=3):
        queue.mark_failed(entry)
    assert duraq(*CALM).exit_code == 0
    result = duraq(*CALM, "--max-dead", "2")
    assert result.exit_code == 1
    assert lines(result)[0].startswith("DURAQ WARNING - queue jobs: DLQ+: 3 dead letters")
    assert duraq(*CALM, "--min-attempts", "3", "--max-error-rate", "0.5").exit_code == 1


def test_critical(duraq, waiting):
    """Something that does not work: 2, and it stands first."""
    result = duraq(*CALM)
    assert result.exit_code == 2
    assert lines(result)[0].startswith("DURAQ CRITICAL - queue jobs: NO CONSUMER: 1 ready")
    assert lines(result)[1].startswith("CRITICAL queue jobs")
    assert duraq(*CALM, "--no-consumer-after", "87000h", "--max-oldest", "87000h").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [("nosuch",), ("--max-dead", "many"), ("--no-such-option",), ("--min-free", "101%"), ("-o", "xml")],
)
def test_unknown(duraq, queue, arguments):
    """What keeps the check from being made, wrong usage too, is 3, and is said on stdout."""
    queue.enqueue(1)
    result = duraq("check", *arguments)
    assert result.exit_code == 3
    assert len(lines(result)) == 1
    assert lines(result)[0].startswith("DURAQ UNKNOWN - ")


def test_no_storage(duraq, root):
    """Where there is no storage it is unknown whether all is well, and none is made."""
    assert duraq("check").exit_code == 3
    result = duraq("check", "--json")
    assert (result.exit_code, result.stdout) == (3, "")
    assert json.loads(result.stderr)["error"]["code"] == 3
    assert not root.exists()


def test_a_damaged_journal(duraq, queue, root):
    """A storage that cannot be read is no unknown one: 2."""
    queue.enqueue(1)
    (root / "journal" / "1.journal").unlink()
    result = duraq(*CALM)
    assert result.exit_code == 2
    assert "StorageDamaged" in lines(result)[0]


def test_json(duraq, waiting):
    """As JSON it is one object: the overall status, and what each component says, with its numbers."""
    result = duraq(*CALM, "--json")
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert (found["schema"], found["status"], found["health"]) == ("duraq.check/1", "CRITICAL", "unhealthy")
    rows = {row["component"]: row for row in found["rows"]}
    assert list(rows) == ["storage", "metrics", "queue jobs"]
    assert rows["queue jobs"]["details"]["ready"] == 1
    assert rows["storage"]["health"] == "healthy"


def test_at_a_terminal(duraq, queue):
    """A person gets a table, and so does whoever asks for one."""
    queue.enqueue(1)
    code, screen = duraq.at_terminal(*CALM, "--color", "never")
    assert code == 0
    assert screen.split()[:3] == ["STATUS", "COMPONENT", "MESSAGE"]
    assert duraq(*CALM, "-o", "table").stdout.split()[:3] == ["STATUS", "COMPONENT", "MESSAGE"]
    assert duraq(*CALM, "-o", "ids").stdout.split("\n")[0] == "storage"
    assert (
        duraq(*CALM, "-o", "tsv", "--fields", "component,health").stdout.split("\n")[1] == "storage\thealthy"
    )


def test_some_queues(duraq, queue, storage):
    """Only the queues that are named are checked."""
    queue.enqueue(1)
    Queue("other", storage).enqueue(1)
    rows = duraq.json(*CALM, "other")["rows"]
    assert [row["component"] for row in rows] == ["storage", "metrics", "queue other"]


def test_no_write(duraq, queue):
    """With --no-write the disk is not tried out."""
    queue.enqueue(1)
    details = {row["component"]: row["details"] for row in duraq.json(*CALM, "--no-write")["rows"]}
    assert "sync_seconds" not in details["storage"]


def test_hostile_text(duraq, queue, root):
    """What others wrote reaches no terminal as it is, and adds no numbers to the status line."""
    queue.enqueue(1)
    queue.pause("a | b \x1b[31m\n c", who="ann")
    result = duraq(*CALM)
    assert "\x1b" not in result.stdout
    assert len(lines(result)) == 4
    assert r"a \x7c b \x1b[31m\n c" in lines(result)[-1]


HOLDER = """
import sys
from duraq import FileStorage
with FileStorage(sys.argv[1]) as storage, storage._turn:
    print(flush=True)
    sys.stdin.read()
"""


def test_a_stopped_process_holds_the_lock(duraq, queue, root):
    """The command does not hang on it, says who it is, and ends with 2."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER, root], stdin=pipe, stdout=pipe) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        code, out, _ = duraq.run("check", "--min-free", "0", "--max-lock-wait", "50ms")
        process.kill()
    assert code == 2
    assert f"process {process.pid} has it, which is stopped" in out.decode()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10%", 0.1),
        ("0", 0),
        ("1000", 1000),
        ("2K", 2048),
        ("1.5M", 3 << 19),
        ("2GiB", 2 << 30),
        ("1TB", 1 << 40),
    ],
)
def test_sizes(text, size):
    """A size is a share of the disk, or bytes."""
    assert Size().convert(text, None, None) == size
