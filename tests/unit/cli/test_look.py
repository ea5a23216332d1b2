"""stats, ls, peek, show, tail."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from duraq import FileStorage, Queue
from duraq.cli.failing import Code
from duraq.journal.log import Sizes
from duraq.testing import FakeClock

HOUR = timedelta(hours=1)


def statuses(duraq):
    return {row["queue"]: row["status"] for row in duraq.json("stats")["rows"]}


def test_stats(duraq, queue, storage):
    """A line for each queue: what it holds, and its word; the worst comes first."""
    queue.enqueue_many([1, 2, 3])
    queue.enqueue(4, delay=HOUR)
    queue.mark_failed(queue.dequeue(), dead=True)
    queue.dequeue()
    Queue("calm", storage).enqueue(1)
    Queue("stopped", storage).enqueue(1)
    Queue("stopped", storage).pause()
    rows = duraq.json("stats")["rows"]
    assert [(row["queue"], row["status"]) for row in rows] == [
        ("stopped", "PAUSED"),
        ("jobs", "DEAD"),
        ("calm", "OK"),
    ]
    (row,) = duraq.json("stats", "jobs")["rows"]
    assert (row["ready"], row["scheduled"], row["leased"], row["dead"], row["workers"]) == (1, 1, 1, 1, 1)


def test_nobody_works(duraq, root):
    """A queue that nobody has worked for a while says so."""
    clock = FakeClock()
    with FileStorage(root, clock=clock) as storage:
        Queue("jobs", storage).enqueue(1)
    # The entry was made long ago, by the clock that the commands go by.
    assert statuses(duraq) == {"jobs": "NO CONSUMER"}


def test_nothing_there_yet(duraq, storage):
    """An empty storage is no error; at a terminal it is told how to begin."""
    assert duraq.json("stats")["rows"] == []
    assert duraq.ok("ls", "--no-header") == ""
    code, screen = duraq.at_terminal("stats")
    assert code == 0
    assert "duraq put" in screen


def test_damage(duraq, root):
    """A damaged queue is CORRUPT, comes first, and makes the exit code; the others are told all the same."""
    with FileStorage(root, durability="process", sizes=Sizes(journal=1 << 14, segment=2000)) as storage:
        queue = Queue("jobs", storage)
        Queue("calm", storage).enqueue(1)
        # So many that the journal does not know the first any more, and could not mend it.
        for number in range(300):
            queue.enqueue(number)
    segment = min((root / "jobs" / "segments").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'"data":0', b'"data":1'))
    result = duraq("stats", "--json")
    assert result.exit_code == Code.DAMAGED
    rows = json.loads(result.stdout)["rows"]
    assert [(row["queue"], row["status"]) for row in rows] == [("jobs", "CORRUPT"), ("calm", "OK")]
    # What lies before the damage is not all there is.
    assert {rows[0][name] for name in ("ready", "dead", "oldest_ready", "workers")} == {None}
    assert f"{segment.name}: byte 0: the checksum is wrong" in rows[0]["why"]
    assert duraq("ls", "jobs").exit_code == Code.DAMAGED
    shown = duraq("show", "nosuch")
    assert shown.exit_code == Code.DAMAGED
    assert "entry nosuch is not in what can be read: " in shown.stderr


def test_ls(duraq, queue):
    """Entries of a queue, in some state or any, from some place on."""
    ids = queue.enqueue_many(range(5))
    later = queue.enqueue("later", delay=HOUR)
    assert duraq.ok("ls", "jobs", "-o", "ids").split() == [*ids, later]
    assert duraq.ok("ls", "jobs", "-o", "ids", "--state", "scheduled").split() == [later]
    assert "READY AT" in duraq.ok("ls", "jobs", "-o", "table", "--state", "scheduled")
    assert duraq.ok("ls", "jobs", "-o", "ids", "-l", "2", "--offset", "1").split() == ids[1:3]


def test_peek(duraq, queue):
    """The next entries, in the order of delivery, without leasing them."""
    queue.enqueue(1)
    first = queue.enqueue(2, priority=5)
    assert duraq.ok("peek", "jobs", "-o", "ids").split() == [first]
    assert len(duraq.json("peek", "jobs", "-n", "5")["rows"]) == 2
    assert queue.counts().ready == 2


def test_show(duraq, queue):
    """One entry in full: as text for people, as one object for programs."""
    entry_id = queue.enqueue({"n": 1})

    def handle(_entry):
        raise ValueError("no such user")

    with pytest.raises(ValueError, match="no such user"):
        queue.process_next(handle)
    text = duraq.ok("show", entry_id, "-o", "table")
    assert entry_id in text
    assert '{"n":1}' in text
    assert "ValueError: no such user" in text
    assert "Traceback" in text
    shown = duraq.json("show", entry_id)
    assert (shown["schema"], shown["id"], shown["payload"]) == ("duraq.entry/1", entry_id, {"n": 1})
    assert [error["type"] for error in shown["errors"]] == ["ValueError"]
    assert [record["op"] for record in shown["life"]] == ["enqueue", "lease", "fail"]
    assert shown["life"][0]["record"]["data"] == {"n": 1}


def test_show_several(duraq, queue):
    """Several entries are rows; one that is missing keeps the others from nothing."""
    ids = queue.enqueue_many([1, 2])
    assert [row["id"] for row in duraq.json("show", *ids)["rows"]] == ids
    result = duraq("show", ids[0], "nosuch", "--jsonl")
    assert result.exit_code == Code.PARTLY
    assert json.loads(result.stdout)["id"] == ids[0]
    assert json.loads(result.stderr)["error"]["code"] == Code.NOT_FOUND
    assert duraq.ok("ls", "jobs", "-o", "ids") == duraq.ok("show", "-", "-o", "ids", stdin=" ".join(ids))


def test_show_what_is_over(duraq, queue):
    """A completed entry can be shown as long as its records are there."""
    entry_id = queue.enqueue(1)
    queue.mark_completed(queue.dequeue())
    assert duraq.json("show", entry_id)["status"] == "completed"


def test_raw(duraq, queue):
    """Raw is the payload's bytes and nothing else; at a terminal it is ASCII."""
    entry_id = queue.enqueue({"t": "ü\u202e"})
    assert duraq.run("show", "--raw", entry_id)[1] == '{"t":"ü\u202e"}\n'.encode()
    code, screen = duraq.at_terminal("show", "--raw", entry_id)
    assert (code, screen.rstrip()) == (0, '{"t":"\\u00fc\\u202e"}')


def test_where_is(duraq, queue):
    """Each record is named by file, line and byte, so that plain tools find it."""
    queue.enqueue(0)
    entry_id = queue.enqueue(1)
    queue.enqueue(2)
    (place,) = duraq.ok("show", "--where-is", entry_id).splitlines()
    file, line, byte = place.rsplit(":", 2)
    found = subprocess.run(["sed", "-n", f"{line}p", file], capture_output=True, check=True).stdout
    assert json.loads(found)["id"] == entry_id
    with Path(file).open("rb") as segment:
        segment.seek(int(byte))
        assert segment.readline() == found


ALIKE = ("01a20e32-58a9-7455-bac3-0000000000aa", "01a20e32-58a9-7455-bac3-1000000000aa")


def test_show_by_a_part_of_the_id(duraq, queue, storage):
    """A part of an id is as good as the id where it means one entry only; else all that it may are named."""
    for entry_id in ALIKE:
        queue.enqueue({"id": '"id":"01a20e32-58a9-7455-bac3-2000000000aa"'}, id=entry_id)
    Queue("other", storage).enqueue(1, id="order-0000000001")
    for part, entry_id in (
        ("01a20e32-58a9-7455-bac3-0", ALIKE[0]),
        ("..1000000000aa", ALIKE[1]),
        ("..-1000000000aa", ALIKE[1]),
        ("1000000000aa", ALIKE[1]),
        ("..00000001", "order-0000000001"),
    ):
        assert duraq.json("show", part)["id"] == entry_id
        assert f"{part} is " in duraq("show", part, "--raw").stderr
    for part in ("01a20e32", "01a20e32-58a9", "..000000aa"):
        done = duraq("show", part)
        assert done.exit_code == Code.CONFLICT
        assert f"several entries are called {part}: jobs/{ALIKE[0]}, jobs/{ALIKE[1]}" in done.stderr
    # Too short, of an id that is one's own, in another queue, or only in a payload.
    for part in ("01a20e3", "..00000aa", "order-00000000", "01a20e32-58a9-7455-bac3-2", "1" * 8, "01a20e32*"):
        assert duraq("show", part).exit_code == Code.NOT_FOUND
    assert "has 8 characters at least" in duraq("show", "01a2").stderr
    assert duraq("show", "..1000000000aa", "--queue", "other").exit_code == Code.NOT_FOUND
    queue.mark_completed(queue.dequeue())
    assert duraq.json("show", "01a20e32-58a9-7455-bac3-0")["status"] == "completed"


def test_tail(duraq, queue, storage):
    """The newest records, of all queues or some."""
    Queue("other", storage).enqueue("x", id="other")
    queue.enqueue({"n": 1}, id="one")
    queue.dequeue()
    rows = duraq.json("tail")["rows"]
    assert [(row["queue"], row["op"], row["id"]) for row in rows] == [
        ("other", "enqueue", "other"),
        ("jobs", "enqueue", "one"),
        ("jobs", "lease", "one"),
    ]
    assert [row["op"] for row in duraq.json("tail", "jobs", "-n", "1")["rows"]] == ["lease"]


@pytest.mark.parametrize("style", ["jsonl", "tsv", "table", "ids", "csv"])
def test_follow(duraq, queue, style):
    """Following prints each record as it is written, in any format that can be cut off."""
    queue.enqueue(1, id="one")
    process = duraq.start("tail", "-f", "-n", "1", "-o", style)
    for name in ("one", "two", "three"):
        line = process.stdout.readline()
        while name.encode() not in line:
            # The header.
            line = process.stdout.readline()
        queue.enqueue(2, id={"one": "two", "two": "three"}.get(name, "four"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("stats",),
        ("ls",),
        ("ls", "jobs"),
        ("peek", "jobs"),
        ("show", "one"),
        ("tail",),
        ("dlq", "ls"),
        ("dlq", "purge", "jobs", "-n"),
    ],
)
def test_nothing_is_written(duraq, queue, root, arguments):
    """Looking changes no file and no time of one."""
    queue.enqueue(1, id="one")

    def times():
        return {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}

    before = times()
    duraq.ok(*arguments)
    assert times() == before


def test_stats_of_a_damaged_queue_of_the_storages_own(duraq, queue, root):
    """A queue of the storage's own that cannot be read is shown, and nothing of it else."""
    with FileStorage(root) as storage:
        # So many that the journal no longer has the first ones.
        for number in range(3):
            Queue("jobs", storage).enqueue("x" * (900 << 10), key=f"k{number}")
            Queue("jobs", storage).enqueue_many(["x" * (900 << 10)] * 4)
    assert [row["queue"] for row in duraq.json("stats")["rows"]] == ["jobs"]
    (segment,) = (root / "_keys" / "segments").glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b"enqueue", b"enqueux", 1))
    result = duraq("--json", "stats")
    rows = json.loads(result.stdout)["rows"]
    assert (result.exit_code, {row["queue"]: row["status"] for row in rows}["_keys"]) == (7, "CORRUPT")
