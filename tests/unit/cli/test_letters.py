"""init, create, dlq export and import."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from datetime import timedelta
from random import Random

import pytest

from duraq import DeadLetterQueue, EntryStatus, FileStorage, InvalidInput, Queue, verify
from duraq.cli.failing import Code
from duraq.letters import Imported, bring_in


def test_init(duraq, root, tmp_path):
    """A storage is made where it is wanted; one that is there is left as it is."""
    assert duraq.json("init") == {"schema": "duraq.init/1", "path": str(root), "made": True}
    marker = (root / "duraq.json").read_bytes()
    assert duraq.json("init")["made"] is False
    assert (root / "duraq.json").read_bytes() == marker
    duraq.ok("init", str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "duraq.json").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert duraq("init", str(tmp_path / "full")).exit_code == Code.NOT_FOUND


def test_create(duraq, storage):
    """A queue can be there before anything is put into it: it is listed, and not paused."""
    assert "2 created" in duraq("create", "jobs", "mail").stderr
    rows = duraq.json("stats")["rows"]
    assert [(row["queue"], row["status"], row["ready"]) for row in rows] == [
        ("jobs", "OK", 0),
        ("mail", "OK", 0),
    ]
    Queue("jobs", storage).pause()
    result = duraq("create", "jobs", "other")
    assert (result.exit_code, "1 there already, 1 created" in result.stderr) == (0, True)
    assert Queue("jobs", storage).paused is not None
    assert duraq("create", "good", "UPPER").exit_code == Code.USAGE
    assert storage.queues() == ["jobs", "mail", "other"]


def test_create_makes_no_storage(duraq, root):
    """Where there is no storage, a queue cannot be made by a slip of the pen."""
    assert duraq("create", "jobs").exit_code == Code.NOT_FOUND
    assert not root.exists()


@pytest.fixture
def lived(queue, storage):
    """Three dead letters in two queues, with all that an entry can have."""
    queue.enqueue({"é": 2**63 - 1}, priority=-7, headers={"data": "h"}, key="k", ttl=timedelta(days=1))
    queue.mark_failed(queue.dequeue(), ValueError("\x1b é"), retry_in=timedelta(0))
    queue.mark_failed(queue.dequeue(), KeyError("x"), dead=True)
    queue.enqueue(["plain"], id="order-17")
    queue.mark_failed(queue.dequeue(), "no", dead=True)
    other = Queue("other", storage)
    other.enqueue(None)
    other.mark_failed(other.dequeue(), "no", dead=True)
    return [*queue.entries(EntryStatus.DEAD), *other.entries(EntryStatus.DEAD)]


NAMES = (
    "id",
    "data",
    "queue",
    "priority",
    "created_at",
    "expires_at",
    "attempts",
    "errors",
    "key",
    "headers",
)


def all_of(entries):
    return [[getattr(entry, name) for name in (*NAMES, "headers")] for entry in entries]


def test_there_and_back(duraq, lived, tmp_path):
    """What is exported comes into another storage whole, and is exported there as it was."""
    lines = duraq.ok("dlq", "export")
    assert lines.isascii()
    assert len(lines.splitlines()) == 3
    duraq.root = tmp_path / "elsewhere"
    result = duraq("dlq", "import", "-", stdin=lines)
    assert result.exit_code == 0, result.stderr
    assert "3 dead" in result.stderr
    with FileStorage(duraq.root) as elsewhere:
        there = [*Queue("jobs", elsewhere).entries(), *Queue("other", elsewhere).entries()]
        assert all_of(there) == all_of(lived)
        assert {entry.status for entry in there} == {EntryStatus.DEAD}
    again = [json.loads(line) for line in duraq.ok("dlq", "export").splitlines()]
    before = [json.loads(line) for line in lines.splitlines()]
    for line in (*again, *before):
        del line["entry"]["updated_at"]
    assert again == before


def test_what_was_imported_works(duraq, queue, lived):
    """What was exported, purged and imported again can be put back, and worked, after what is there."""
    lines = duraq.ok("dlq", "export", "jobs")
    duraq.ok("dlq", "purge", "jobs", "--yes", "--expect", "2")
    queue.enqueue("new", priority=-7)
    assert duraq("dlq", "import", "-", stdin=lines).exit_code == 0
    duraq.ok("dlq", "retry", "--all", "--queue", "jobs", "--yes")
    taken = queue.dequeue(limit=5)
    assert [entry.data for entry in taken] == [["plain"], "new", {"é": 2**63 - 1}]
    assert len({entry.token for entry in taken}) == 3
    queue.mark_completed_many(taken)


def test_twice(duraq, lived):
    """What is there already is passed over, and says so."""
    lines = duraq.ok("dlq", "export", "-w", "id=order-17 queue:jobs")
    result = duraq("dlq", "import", "-", stdin=lines)
    assert (result.exit_code, "order-17" in result.stderr) == (Code.CONFLICT, True)
    duraq.ok("dlq", "retry", "order-17")
    lines = duraq.ok("dlq", "export") + lines
    result = duraq("dlq", "import", "-", "--queue", "third", stdin=lines)
    assert (result.exit_code, "3 dead" in result.stderr) == (0, True)
    result = duraq("dlq", "import", "-", "--queue", "third", stdin=lines)
    assert (result.exit_code, "all 3 are there already" in result.stderr) == (Code.CONFLICT, True)


def test_one_id_in_two_queues(duraq, lived, storage):
    """Of two that have one id, the first comes in, and it is said that the other did not."""
    for name in ("mail", "sms"):
        queue = Queue(name, storage)
        queue.enqueue(name, id="order-17")
        queue.mark_failed(queue.dequeue(), "no", dead=True)
    result = duraq("dlq", "import", "-", "--queue", "all", stdin=duraq.ok("dlq", "export", "mail", "sms"))
    assert (result.exit_code, "order-17" in result.stderr) == (Code.PARTLY, True)
    assert [entry.data for entry in Queue("all", storage).entries()] == ["mail"]


def test_only_checked(duraq, storage, lived, tmp_path):
    """A dry run says how many would come where, and changes nothing."""
    path = tmp_path / "letters.jsonl"
    path.write_text(duraq.ok("dlq", "export", "--since", "1h") + "\n")
    result = duraq("dlq", "import", str(path), "--queue", "third", "-n")
    assert (result.exit_code, "3 dead letters, to third (3)" in result.stderr) == (0, True)
    assert storage.queues() == ["jobs", "other"]
    assert "nothing to import" in duraq("dlq", "import", "-", stdin="\n").stderr


BAD = {
    "no JSON": "{",
    "not ours": "[]",
    "another kind": '{"op":"enqueue"}',
    "newer": '{"dead_letter":2}',
    "not whole": '{"dead_letter":1,"queue":"jobs","id":"x"}',
    "no queue": '{"dead_letter":1,"queue":"../x","id":"x","entry":{},"data":1}',
    "no id": '{"dead_letter":1,"queue":"jobs","id":"a b","entry":{},"data":1}',
}


@pytest.mark.parametrize("line", BAD.values(), ids=BAD)
def test_bad_lines(duraq, storage, lived, line):
    """If one line is not as it was exported nothing is imported, and the line is named."""
    good = duraq.ok("dlq", "export", "other")
    result = duraq("dlq", "import", "-", "--queue", "third", stdin=good + line)
    assert (result.exit_code, result.stdout) == (Code.USAGE, "")
    assert "line 2: " in result.stderr
    assert storage.queues() == ["jobs", "other"]


@pytest.mark.parametrize(
    "change",
    [
        {"token": 0},
        {"token": 2**61},
        {"token": "1"},
        {"priority": 2**40},
        {"created_at": "yesterday"},
        {"attempts": -1},
        {"history": [{}]},
        {"headers": {"a b": "c"}},
        {"key": ""},
    ],
)
def test_values_that_are_none_of_ours(duraq, storage, lived, change):
    """What DuraQ would not have written is not brought in, whoever wrote it."""
    line = json.loads(duraq.ok("dlq", "export", "other"))
    line["entry"] |= change
    assert duraq("dlq", "import", "-", "--queue", "third", stdin=json.dumps(line)).exit_code == Code.USAGE
    assert storage.queues() == ["jobs", "other"]


@pytest.fixture
def in_tokyo(monkeypatch):
    """Where days begin nine hours earlier."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
def test_the_last_of_all_times(duraq, lived):
    """The last moment that a year has a number for is a time like any other, wherever that is."""
    line = json.loads(duraq.ok("dlq", "export", "other"))
    line["entry"]["created_at"] = line["entry"]["history"][0]["ended_at"] = "9999-12-31T23:59:59.999999Z"
    assert duraq("dlq", "import", "-", "--queue", "third", stdin=json.dumps(line)).exit_code == 0
    again = json.loads(duraq.ok("dlq", "export", "third"))
    assert again["entry"]["created_at"] == line["entry"]["created_at"]
    assert "9999-12-31 23:59:59+00:00" in duraq.ok("ls", "third", "--time", "local")


def test_from_where(duraq, storage):
    """A file that is not there, or nothing in a pipe, is no import."""
    assert duraq("dlq", "import", "/nosuch").exit_code == Code.USAGE
    assert duraq("dlq", "export", "nosuch").exit_code == Code.NOT_FOUND
    assert duraq.ok("dlq", "export") == ""


OTHERS = (None, True, -1, 0, 2**63, 2**64, 1.5, "", "x" * 300, [], [{}], {"a": 1}, "\x00")
TIMES = ("2026-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z", "9999-99-99")


def changed(value, random):
    """The value with something in it that is another one, or not there."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        key = random.choice(sorted(value))
        if random.random() < 0.1:
            return {name: each for name, each in value.items() if name != key}
        return {**value, key: changed(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.8:
        return [changed(value[0], random), *value[1:]]
    return random.choice([*OTHERS, *TIMES])


def test_whatever_is_taken_is_kept(duraq, storage, lived, root):
    """Of lines that somebody has changed each is refused or becomes a sound dead letter."""
    random = Random(4711)
    whole = json.loads(duraq.ok("dlq", "export", "jobs").splitlines()[0])
    taken = []
    for number in range(1500):
        line = changed(whole, random)
        if isinstance(line, dict):
            line["id"] = f"letter-{number}"
        with suppress(InvalidInput, ValueError):
            taken.append(Imported.of(line, 1 << 20).moved_to("jobs"))
    assert 100 < len(taken) < 1000
    assert all(brought.outcome.error is None for brought in bring_in(storage, taken))
    assert len(DeadLetterQueue("jobs", None, storage).list()) == len(taken) + 2
    storage.close()
    report = verify(root)
    assert (report.sound, report.findings) == (True, [])
