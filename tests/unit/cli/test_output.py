"""How rows look: for people, and for programs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from datetime import UTC, datetime, timedelta

import pytest

from duraq.cli.options import Settings
from duraq.cli.output import when
from duraq.times import span

HOSTILE = "\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\u202egnp\u2066\u200b\u2028\x7f\r\nend"
# What no output may hold, whatever went in: all that a terminal obeys or hides.
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
FORMATS = ["table", "json", "jsonl", "csv", "tsv", "ids"]


@pytest.fixture
def hostile(queue):
    """An entry whose payload, errors and reasons are out to take over the terminal."""
    entry_id = queue.enqueue({HOSTILE: [HOSTILE]})
    error = type("Evil\x1b[31m", (Exception,), {})(HOSTILE)
    queue.mark_failed(queue.dequeue(), error, dead=True)
    queue.enqueue(HOSTILE)
    queue.pause(HOSTILE, who=HOSTILE)
    return entry_id


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize(
    "command",
    [
        "stats",
        "ls",
        "ls jobs",
        "peek jobs",
        "show ID",
        "tail -n 100",
        "dlq ls",
        "dlq show ID",
        "dlq purge jobs -n",
    ],
)
def test_hostile_data(duraq, hostile, style, command):
    """Nothing that came from an entry gets through unescaped, in no format and no command."""
    result = duraq("-o", style, *command.replace("ID", hostile).split())
    assert result.exit_code == 0
    assert result.stdout
    assert not FORBIDDEN.search(result.stdout.replace("\n", ""))
    assert not FORBIDDEN.search(result.stderr.replace("\n", ""))
    if style in {"json", "jsonl"}:
        assert result.stdout.isascii()


def test_hostile_data_at_a_terminal(duraq, hostile):
    """On a terminal there are our own colours and nothing else, --raw included."""
    for command in (["stats"], ["ls", "jobs"], ["show", hostile], ["show", "--raw", hostile], ["tail"]):
        code, screen = duraq.at_terminal(*command)
        assert code == 0
        assert not FORBIDDEN.search(re.sub("\x1b\\[[0-9;]*m", "", screen).replace("\r\n", ""))


def test_hostile_arguments(duraq):
    """What was said on the command line is not passed on raw either."""
    for arguments in (
        ["\x1b[2J"],
        ["ls", "\x1b[2J"],
        ["ack", "\x1b[2J"],
        ["show", "\x9b"],
        ["put", "j", "1", "--\x1b"],
    ):
        duraq.ok("put", "jobs", "1")
        assert not FORBIDDEN.search(duraq(*arguments).stderr.replace("\n", ""))


def test_hostile_names(duraq, queue, root):
    """A damaged file's name and content are escaped in the complaint about it."""
    queue.enqueue("\x1b")
    segment = next((root / "jobs" / "segments").glob("*.jsonl"))
    segment.write_bytes(b"\x1b[2J\n" + segment.read_bytes())
    result = duraq("ls", "jobs")
    assert not FORBIDDEN.search(result.stderr.replace("\n", ""))


# -- formats -----------------------------------------------------------------------------------------------


@pytest.fixture
def three(duraq):
    lines = ['{"n":1}', '"tab\\there, \\"quoted\\", \\u00fc"', "[1.10,1E5]"]
    return duraq.ok("put", "jobs", "--jsonl", stdin="\n".join(lines)).split()


def test_json(duraq, three):
    """JSON is one object with a schema; times are RFC 3339 UTC, payloads are as they were stored."""
    result = duraq.json("ls", "jobs")
    assert result["schema"] == "duraq.entries/1"
    assert [row["id"] for row in result["rows"]] == three
    assert [row["payload"] for row in result["rows"]] == [{"n": 1}, 'tab\there, "quoted", ü', [1.1, 1e5]]
    made = result["rows"][0]["created_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made)
    assert datetime.now(UTC) - datetime.fromisoformat(made) < timedelta(minutes=5)


def test_jsonl(duraq, three):
    """JSON lines are an object for each row, each with the schema."""
    rows = [json.loads(line) for line in duraq.ok("ls", "jobs", "--jsonl").splitlines()]
    assert [row["id"] for row in rows] == three
    assert {row["schema"] for row in rows} == {"duraq.entries/1"}


def test_tsv_in_a_pipe(duraq, three):
    """In a pipe rows are TSV with a header: full values, no colour, one row a line."""
    header, *rows = [line.split("\t") for line in duraq.ok("ls", "jobs").splitlines()]
    assert header[0] == "id"
    assert {len(row) for row in rows} == {len(header)}
    assert [row[0] for row in rows] == three
    assert rows[1][header.index("payload")] == r'"tab\there, \"quoted\", ü"'
    assert duraq.ok("ls", "jobs", "--no-header").splitlines() == ["\t".join(row) for row in rows]


def test_csv(duraq, three):
    """CSV can be read by what reads CSV."""
    rows = list(csv.DictReader(io.StringIO(duraq.ok("ls", "jobs", "-o", "csv"))))
    assert [row["id"] for row in rows] == three
    assert json.loads(rows[1]["payload"]) == 'tab\there, "quoted", ü'


def test_ids(duraq, three):
    """Ids come one a line, for xargs and for a dash."""
    assert duraq.ok("ls", "jobs", "-o", "ids").split() == three
    assert duraq.ok("ls", "-o", "ids").split() == ["jobs"]
    tokens = duraq.ok("get", "jobs", "-n", "3", "-o", "ids")
    assert duraq("ack", "-", stdin=tokens).exit_code == 0
    assert duraq.json("stats")["rows"][0]["ready"] == 0


def test_fields(duraq, three):
    """Columns can be chosen and put in order, those that are not shown by themselves too, and be listed."""
    assert (
        duraq.ok("ls", "jobs", "--fields", "payload,updated_at,id").split("\n")[0]
        == "payload\tupdated_at\tid"
    )
    listed = duraq.ok("ls", "jobs", "--fields", "help").split()
    assert {"id", "payload", "errors", "worker"} <= set(listed)
    for style in FORMATS:
        assert duraq.ok("ls", "jobs", "-o", style, "--fields", ",".join(listed))


@pytest.mark.parametrize(
    ("style", "pattern"),
    [
        ("utc", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"),
        ("local", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"),
        ("unix", r"\d{10}\.\d{3}"),
        ("relative", r"[\dms.]+ ago"),
    ],
)
def test_times(duraq, three, style, pattern):
    """Times look as they are wanted."""
    line = duraq.ok("ls", "jobs", "--fields", "created_at", "--no-header", "--time", style).split("\n")[0]
    assert re.fullmatch(pattern, line)


def test_relative_times():
    """A time to come is told from one that has passed."""
    now = datetime.now(UTC)
    assert when(Settings(), now - timedelta(hours=3, minutes=5)) == "3h05m ago"
    assert when(Settings(), now + timedelta(hours=1, seconds=1)) == "in 1h"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (0.44, "0.4s"),
        (9.96, "10.0s"),
        (12.7, "12s"),
        (124, "2m04s"),
        (3600, "1h"),
        (7500, "2h05m"),
        (10**6, "11d13h"),
    ],
)
def test_durations(seconds, shown):
    """Durations for people name the two units that matter."""
    assert span(timedelta(seconds=seconds)) == shown


# -- tables ------------------------------------------------------------------------------------------------


def test_table_at_a_terminal(duraq, three):
    """At a terminal rows are a table: numbers to the right, no line wider than the screen."""
    duraq.ok("put", "jobs", "--text", "x" * 500)
    code, screen = duraq.at_terminal("ls", "jobs", "--color", "never")
    header, *rows = screen.splitlines()
    assert code == 0
    assert header.startswith("ID")
    assert len(rows) == 4
    assert all(len(line) <= 100 for line in screen.splitlines())
    assert "..." in rows[3]
    assert three[0] in rows[0]


def test_narrow_terminal(duraq, three):
    """On a narrow screen prose gives way, then columns go; an id is never cut."""
    for columns in (40, 60, 80, 100):
        environment = {**os.environ, "DURAQ_ROOT": str(duraq.root), "COLUMNS": str(columns), "NO_COLOR": "1"}
        _, screen = duraq.at_terminal("ls", "jobs", env=environment)
        lines = screen.splitlines()
        assert [line.split()[0] for line in lines] == ["ID", *three]
        assert all(len(line) <= columns for line in lines)
        assert ("PAYLOAD" in lines[0]) is (columns == 100)


def test_wide_characters(duraq):
    """Characters that take two cells are counted as two, and combining ones as none."""
    for name in ("日本語", "e\u0301te\u0301", "plain"):
        duraq.ok("put", "jobs", "--text", name)
    lines = duraq.ok("ls", "jobs", "-o", "table", "--fields", "payload,queue").splitlines()
    assert lines[1:] == ['"日本語"  jobs', '"e\u0301te\u0301"     jobs', '"plain"   jobs']


@pytest.mark.parametrize(
    ("environment", "arguments", "colored"),
    [
        ({}, (), True),
        ({"NO_COLOR": "1"}, (), False),
        ({"NO_COLOR": ""}, (), True),
        ({"TERM": "dumb"}, (), False),
        ({"NO_COLOR": "1"}, ("--color", "always"), True),
        ({}, ("--color", "never"), False),
    ],
)
def test_color(duraq, three, environment, arguments, colored):
    """Colour is for terminals that can and people who want it; the flag has the last word."""
    duraq.ok("pause", "jobs")
    environment = {"DURAQ_ROOT": str(duraq.root), "TERM": "xterm", "PATH": ""} | environment
    _, screen = duraq.at_terminal("stats", *arguments, env=environment)
    assert ("\x1b[" in screen) is colored
    assert "PAUSED" in screen


def test_color_in_a_pipe(duraq, three):
    """A pipe gets colour only if that was asked for."""
    duraq.ok("pause", "jobs")
    assert "\x1b" not in duraq.ok("stats", "-o", "table")
    assert "\x1b[" in duraq.ok("stats", "-o", "table", "--color", "always")


# -- talk --------------------------------------------------------------------------------------------------


def test_quiet(duraq, three):
    """--quiet silences talk, and errors never."""
    assert "paused" in duraq("pause", "jobs").stderr
    assert duraq("-q", "pause", "jobs").stderr == ""
    assert duraq("-q", "pause", "nosuch").stderr != ""


def test_log(duraq, three, tmp_path):
    """The library's log is on stderr with -v, and tells systemd's journal how bad it is."""
    duraq.ok("get", "jobs", "--lease", "1us")
    assert "came back" in duraq("-v", "get", "jobs", "--lease", "1us").stderr
    assert "came back" not in duraq("get", "jobs", "--lease", "1us").stderr
    with (tmp_path / "log").open("wb") as log:
        about = os.fstat(log.fileno())
        environment = {
            **os.environ,
            "DURAQ_ROOT": str(duraq.root),
            "JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}",
        }
        duraq.run("-v", "get", "jobs", env=environment, stderr=log)
    assert (tmp_path / "log").read_text().startswith("<6>")
