"""What is settled in a file: read, refused, changed, and gone by."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from duraq import InvalidOption, Queue
from duraq.attention import DEFAULT
from duraq.cli.failing import Code
from duraq.config import NAMES, changed, load, parse

PATH = Path("config.toml")


@pytest.fixture
def file():
    """The file, which is not there yet."""
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "duraq" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


def test_nothing_settled():
    """Without a file the defaults hold."""
    found = load(Path("/nonexistent"))
    assert (found.root, found.color, found.time, found.thresholds) == (None, "auto", None, DEFAULT)


def test_what_can_be_settled():
    """The storage, colour, times, and every threshold."""
    found = parse(
        'root = "~/queues"\ncolor = "never"\ntime = "local"\n'
        '[attention]\nmax_oldest_ready = "1h30m"\nmax_dead = 7\nmax_error_rate = 1\nmin_attempts = 0\n',
        PATH,
    )
    assert (found.root, found.color, found.time) == (str(Path("~/queues").expanduser()), "never", "local")
    assert found.thresholds.max_oldest_ready == timedelta(hours=1, minutes=30)
    assert (found.thresholds.max_dead, found.thresholds.max_error_rate) == (7, 1.0)
    assert set(found.values) == set(NAMES)
    assert "attention.max_dead" in found.given


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('rot = "/x"', "did you mean root?"),
        ("[attention]\nmax_ded = 1", "did you mean attention.max_dead?"),
        ("max_dead = 1", "did you mean attention.max_dead?"),
        ("[attention.max_dead]\nx = 1", "attention.max_dead is a whole number"),
        ("attention = 1", "attention is a table"),
        ('color = "green"', "color is one of auto, always, never"),
        ("root = 1", "root is a directory"),
        ('[attention]\nmax_dead = "many"', "whole number"),
        ("[attention]\nmax_dead = true", "whole number"),
        ("[attention]\nmax_error_rate = 2", "0 to 1"),
        ("[attention]\nmax_oldest_ready = 90", "duration"),
        ('[attention]\nmax_oldest_ready = "1h?5m"', "duration"),
        ('[attention]\nerror_rate_window = "0"', "error_rate_window"),
        ("root = ", "not TOML"),
    ],
)
def test_what_is_refused(text, says):
    """What is unknown, or no such value, is refused, and the file and what may be meant are named."""
    with pytest.raises(InvalidOption) as caught:
        parse(text, PATH)
    assert str(PATH) in str(caught.value)
    assert says in str(caught.value)


def test_changing():
    """A setting is put where it belongs, and whatever else stands in the file stays as it is."""
    text = changed("", "attention.max_dead", "5")
    assert text == "[attention]\nmax_dead = 5\n"
    text = changed("# mine\n" + text, "root", 'a "b" \\c')
    assert text == '# mine\nroot = "a \\"b\\" \\\\c"\n[attention]\nmax_dead = 5\n'
    assert parse(text, PATH).root == 'a "b" \\c'
    text = changed(text, "attention.stuck_after", "1m")
    text = changed(text, "attention.max_dead", "6")
    assert text.endswith('[attention]\nmax_dead = 6\nstuck_after = "1m"\n')
    assert changed(changed(text, "root", None), "attention.max_dead", None) == (
        '# mine\n[attention]\nstuck_after = "1m"\n'
    )
    with pytest.raises(InvalidOption, match="did you mean root"):
        changed("", "roto", "x")


def test_the_command(duraq, file):
    """`config` prints, changes and finds the file; what is no value leaves it as it was."""
    assert duraq.ok("config", "path").strip() == str(file)
    assert duraq.ok("config", "get", "color").strip() == "auto"
    duraq.ok("config", "set", "color", "never")
    duraq.ok("config", "set", "attention.max_oldest_ready", "1h")
    assert duraq.ok("config", "get", "attention.max_oldest_ready").strip() == "1h"
    rows = {row["name"]: row for row in duraq.json("config", "get")["rows"]}
    assert (rows["color"]["value"], rows["color"]["from"], rows["time"]["from"]) == (
        "never",
        "file",
        "default",
    )
    before = file.read_bytes()
    for arguments in (("color", "green"), ("attention.max_dead", "x"), ("color",), ("nosuch", "1")):
        assert duraq("config", "set", *arguments).exit_code == Code.USAGE
    assert file.read_bytes() == before
    duraq.ok("config", "set", "color", "--unset")
    assert duraq.ok("config", "get", "color").strip() == "auto"


def test_the_storage(duraq, root, file, tmp_path, monkeypatch):
    """The storage that is settled is used where nothing else names one, and named as the reason."""
    other = tmp_path / "other"
    duraq.ok("-C", str(other), "put", "there", "1")
    duraq.ok("put", "here", "1")
    file.write_text(f'root = "{other}"\n')
    monkeypatch.chdir(tmp_path)
    assert duraq.ok("ls", "-o", "ids").split() == ["here"]
    monkeypatch.delenv("DURAQ_ROOT", raising=False)
    environment = {name: value for name, value in os.environ.items() if name != "DURAQ_ROOT"}
    assert duraq.run("ls", "-o", "ids", env=environment)[1].split() == [b"there"]
    file.write_text(f'root = "{tmp_path / "nosuch"}"\n')
    assert f"named by {file}".encode() in duraq.run("ls", env=environment)[2]


def test_thresholds(duraq, queue, file):
    """`stats` and `check` go by what is settled, unless they are told otherwise."""
    queue.enqueue_many(range(3))
    for entry in queue.dequeue(limit=3):
        queue.mark_failed(entry, "no", dead=True)
    assert duraq.json("stats")["rows"][0]["status"] == "DEAD"
    assert duraq("check", "--no-write").exit_code == 0
    file.write_text("[attention]\nmax_dead = 2\n")
    assert duraq.json("stats")["rows"][0]["status"] == "DLQ+"
    assert duraq("check", "--no-write").exit_code == 1
    assert duraq("check", "--no-write", "--max-dead", "3").exit_code == 0
    file.write_text("[attention]\nmax_ded = 2\n")
    assert duraq("check", "--no-write").exit_code == 3
    result = duraq("stats")
    assert (result.exit_code, "did you mean attention.max_dead?" in result.stderr) == (Code.USAGE, True)


def test_colour_and_times(duraq, queue, file):
    """Colour and times are as settled at a terminal; the command line and NO_COLOR come before it."""
    Queue("jobs", queue.storage).pause("x")
    queue.enqueue(1)
    environment = {**os.environ, "DURAQ_ROOT": str(duraq.root), "TERM": "xterm", "PAGER": ""}
    file.write_text('color = "never"\ntime = "utc"\n')
    assert "\x1b" not in duraq.at_terminal("stats", env=environment)[1]
    assert "\x1b" in duraq.at_terminal("stats", "--color", "always", env=environment)[1]
    assert "T" in duraq.at_terminal("ls", "jobs", "--fields", "created_at", "--no-header", env=environment)[1]
    file.write_text('color = "always"\n')
    assert "\x1b" not in duraq.at_terminal("stats", env=environment | {"NO_COLOR": "1"})[1]
