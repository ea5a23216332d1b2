"""put, pause, resume."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest

from duraq import EntryStatus
from duraq.cli.failing import Code
from duraq.cli.options import MOMENT


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ('"text"', "text"),
        ("null", None),
        (' {"a" : [1, 2.5, true], "ü": "\\u00fc"} ', {"a": [1, 2.5, True], "ü": "ü"}),
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("[]", []),
    ],
)
def test_payload(duraq, queue, tmp_path, text, value):
    """A payload is one JSON value: as an argument, from a file, or on stdin with a dash or without."""
    (tmp_path / "payload").write_text(text)
    for arguments, stdin in ([text], None), ([f"@{tmp_path}/payload"], None), (["-"], text), ([], text):
        entry_id = duraq.ok("put", "jobs", "--", *arguments, stdin=stdin).strip()
        assert queue.get(entry_id).data == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        "1e999",
        "[1,]",
        "'a'",
        "1 2",
        '{"a":1,"a":2}',
        "18446744073709551616",
        '"\\ud800"',
        "[" * 200 + "]" * 200,
    ],
)
def test_what_would_not_come_back(duraq, root, text):
    """What is no JSON, or would not come back as it was given, is refused, and leaves nothing behind."""
    result = duraq("put", "jobs", "-", stdin=text)
    assert (result.exit_code, result.stdout) == (Code.USAGE, "")
    assert not (root / "jobs").exists()


def test_text(duraq, queue):
    """Plain text need not be quoted."""
    entry_id = duraq.ok("put", "jobs", "--text", 'not "JSON"').strip()
    assert queue.get(entry_id).data == 'not "JSON"'


def test_options(duraq, queue):
    """Id, priority, delay and time to live are the entry's."""
    before = datetime.now(UTC)
    arguments = ["--id", "mine", "--priority", "7", "--delay", "1h30m", "--ttl", "2h"]
    assert duraq.ok("put", "jobs", "1", *arguments) == "mine\n"
    entry = queue.get("mine")
    assert (entry.priority, entry.status) == (7, EntryStatus.SCHEDULED)
    assert timedelta(hours=1.5) <= entry.scheduled_for - before < timedelta(hours=1.6)
    assert timedelta(hours=2) <= entry.expires_at - before < timedelta(hours=2.1)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2036-01-02T03:04:05Z", datetime(2036, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2036-01-02 03:04+02:00", datetime(2036, 1, 2, 1, 4, tzinfo=UTC)),
        ("@2082758645.5", datetime(2036, 1, 1, 0, 4, 5, 500000, tzinfo=UTC)),
    ],
)
def test_at(duraq, queue, text, moment):
    """A time is ISO 8601 or seconds since 1970."""
    duraq.ok("put", "jobs", "1", "--id", "mine", "--at", text)
    assert queue.get("mine").scheduled_for == moment


def test_local_times(monkeypatch):
    """A time without a zone is local, and a day begins at its own midnight."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert MOMENT.convert("2036-07-01T12:00", None, None) == datetime(2036, 7, 1, 10, tzinfo=UTC)
        today, tomorrow = (MOMENT.convert(day, None, None) for day in ("today", "tomorrow"))
        assert today.astimezone().time() == tomorrow.astimezone().time() == datetime.min.time()
        assert tomorrow.astimezone().date() - today.astimezone().date() == timedelta(days=1)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_lines(duraq, queue):
    """JSON lines from stdin are a batch in their order; empty lines are none; the options hold for each."""
    ids = duraq.ok("put", "jobs", "--jsonl", "--priority", "3", stdin='1\n\n{"a": 2}\r\n"three"').split()
    assert [queue.get(entry_id).data for entry_id in ids] == [1, {"a": 2}, "three"]
    assert {entry.priority for entry in queue.entries()} == {3}


def test_lines_are_one_batch(duraq, root):
    """If one line cannot be taken, none is, and the complaint names it."""
    result = duraq("put", "jobs", "--jsonl", stdin="1\n2\n{\n")
    assert result.exit_code == Code.USAGE
    assert "line 3" in result.stderr
    assert not (root / "jobs").exists()


def test_no_lines(duraq):
    """No lines are no entries, and no error."""
    assert duraq.ok("put", "jobs", "--jsonl", stdin="") == ""


@pytest.mark.parametrize("arguments", [("1",), ("--id", "mine"), ("@file",)])
def test_lines_with_a_payload(duraq, arguments):
    """JSON lines come from stdin only, and each has an id of its own."""
    assert duraq("put", "jobs", "--jsonl", *arguments, stdin="1").exit_code == Code.USAGE


def test_as_json(duraq):
    """As JSON the answer names the queue and the ids."""
    answer = json.loads(duraq.ok("--jsonl", "put", "jobs", "1", "--id", "mine"))
    assert answer == {"schema": "duraq.put/1", "queue": "jobs", "ids": ["mine"], "added": True}


@pytest.mark.parametrize(
    "arguments", [["put", "jobs"], ["put", "jobs", "--jsonl"], ["put", "jobs", "@/dev/zero"]]
)
def test_input_without_an_end(duraq, root, monkeypatch, arguments):
    """Input that never ends is refused once it is more than anybody puts in, and nothing is made."""
    monkeypatch.setattr("duraq.cli.input.LONGEST", 1 << 20)
    result = duraq(*arguments, stdin=b"1\n" * (1 << 20))
    assert result.exit_code == Code.USAGE
    assert "more than 1 MiB" in result.stderr
    assert not root.exists()
    monkeypatch.undo()
    assert duraq("put", "jobs", stdin=b" " * (1 << 20) + b"1").exit_code == Code.DONE


def test_stdin_is_a_terminal(duraq, root):
    """Where a payload was expected and stdin is a terminal it does not sit and wait."""
    for arguments in (["put", "jobs"], ["put", "jobs", "--jsonl"], ["put", "jobs", "-"]):
        code, screen = duraq.at_terminal(*arguments)
        assert code == Code.USAGE
        assert "terminal" in screen
    assert not root.exists()


def test_pause(duraq, queue):
    """A paused queue delivers nothing until it is resumed, and stats says who paused it and why."""
    queue.enqueue(1)
    duraq.ok("pause", "jobs", "--reason", "incident 4411")
    assert duraq("get", "jobs").exit_code == Code.NOTHING
    (row,) = duraq.json("stats")["rows"]
    assert (row["status"], row["paused"]["reason"]) == ("PAUSED", "incident 4411")
    duraq.ok("resume", "jobs")
    assert duraq.json("stats")["rows"][0]["paused"] is None
    assert duraq("get", "jobs").exit_code == 0


def test_pause_unknown(duraq, queue):
    """If one of the queues does not exist none is paused, and none is made."""
    queue.enqueue(1)
    assert duraq("pause", "jobs", "nosuch").exit_code == Code.NOT_FOUND
    assert queue.paused is None
    assert duraq.ok("ls", "-o", "ids") == "jobs\n"


def test_put_once(duraq, queue):
    """put with a key adds one entry, however often it is called, and prints the same id each time."""
    assert duraq.json("put", "jobs", '"a"', "--id", "x", "--key", "0")["added"] is True
    assert duraq.json("put", "jobs", '"a"', "--id", "x", "--key", "0")["added"] is False
    duraq.ok("ack", duraq.ok("get", "jobs", "-o", "ids").strip())
    first = duraq.ok("put", "jobs", '"a"', "--key", "order 17")
    again = duraq("put", "jobs", '"a"', "--key", "order 17")
    assert (again.stdout, again.stderr) == (
        first,
        f"nothing added: key 'order 17' was used for {first.strip()} before\n",
    )
    assert duraq.json("put", "jobs", '"b"', "--key", "order 17")["added"] is False
    assert duraq.ok("put", "jobs", '"a"', "--key", "order 17", "--key-window", "2h") == first
    assert len(queue) == 1


def test_put_headers(duraq):
    """put writes headers, and show and ls give them back."""
    entry_id = duraq.ok("put", "jobs", '"a"', "--header", "trace=1=2", "--header", "b=").strip()
    (row,) = duraq.json("ls", "jobs")["rows"]
    assert row["headers"] == {"trace": "1=2", "b": ""}
    assert "trace: 1=2" in duraq.at_terminal("show", entry_id)[1]


@pytest.mark.parametrize("arguments", [("--header", "a"), ("--header", "a b=c"), ("--key", "")])
def test_put_refuses(duraq, queue, arguments):
    """A header without a value or with a bad name, and an empty key, are refused, and nothing is written."""
    assert duraq("put", "jobs", '"a"', *arguments).exit_code == Code.USAGE
    assert len(queue) == 0


@pytest.mark.parametrize("text", ["1h?30m", "1h 30m", "1d-2h", "1h30", "h", "", "1..5s", "\u0661h", "5 m"])
def test_no_duration(duraq, queue, text):
    """A duration of which a part is not understood is refused, and not read without that part."""
    result = duraq("put", "jobs", '"a"', "--delay", text)
    assert (result.exit_code, "is not a duration" in result.stderr) == (Code.USAGE, True)
    assert len(queue) == 0


def test_who_wonders_at_a_paused_queue(duraq, queue):
    """Whoever puts into a paused queue, or takes from one, learns that it is paused, by whom and why."""
    queue.enqueue(1)
    duraq.ok("pause", "jobs", "--reason", "psp down")
    for arguments in (["put", "jobs", "1"], ["get", "jobs"], ["run", "jobs", "--drain", "--", "true"]):
        assert "jobs is paused by" in (said := duraq(*arguments).stderr)
        assert said.count("(psp down): duraq resume jobs has it delivered again") == 1
    duraq.ok("resume", "jobs")
    assert duraq("put", "jobs", "1").stderr == ""


def test_a_slip_of_the_pen(duraq, queue):
    """A queue's name that is nearly right is found; who waits for one that is not there learns that."""
    queue.enqueue(1)
    for arguments in (["ls", "jbos"], ["get", "jbos"], ["pause", "jbos"], ["verify", "jbos"]):
        result = duraq(*arguments)
        assert (result.exit_code, "did you mean 'jobs'?" in result.stderr) == (Code.NOT_FOUND, True)
    said = duraq("run", "jbos", "--drain", "--", "true").stderr
    assert "there is no queue 'jbos' (did you mean 'jobs'?); it comes into being by its first entry" in said
    assert queue.storage.queues() == ["jobs"]


def test_a_slip_of_the_pen_is_waited_for(duraq, queue, root):
    """Who waits for a queue that is not there is told that it is made by that, and can remove it again."""
    queue.enqueue(1)
    said = duraq("get", "jbos", "--wait", "1ms").stderr
    assert "there is no queue 'jbos' (did you mean 'jobs'?); it is made, empty, and waited for" in said
    process = duraq.start("run", "jbso", "--", "true")
    assert b"(did you mean 'jobs'?); it is made, empty, and waited for" in process.stderr.readline()
    process.terminate()
    process.wait()
    queue.storage.close()
    for name in ("jbos", "jbso"):
        shutil.rmtree(root / name, ignore_errors=True)
    duraq.ok("verify")
    assert [row["queue"] for row in duraq.json("stats")["rows"]] == ["jobs"]


def test_advice_that_can_be_followed(duraq, queue):
    """Where plain text can be put in the option for it is named, and nowhere else."""
    queue.enqueue(1)
    queue.mark_failed(queue.dequeue(), "no", dead=True)
    (letter,) = duraq.ok("dlq", "ls", "-o", "ids").split()
    put, retried = duraq("put", "jobs", "{bad"), duraq("dlq", "retry", letter, "--data", "{bad")
    assert ("--text" in put.stderr, "--text" in retried.stderr) == (True, False)
    assert "at `$`" not in put.stderr + retried.stderr


def test_a_payload_that_is_too_large(duraq, storage):
    """put takes as much as a program does unless told otherwise, and says how to be told."""
    text = "x" * (1 << 20)
    refused = duraq("put", "jobs", "-", "--text", stdin=text)
    assert refused.exit_code == Code.USAGE
    assert "the limit is 1048576 (--max-bytes takes more, up to 16 MiB)" in refused.stderr
    duraq.ok("put", "jobs", "-", "--text", "--max-bytes", str(2 << 20), stdin=text)
    assert len(storage.entries("jobs")) == 1
