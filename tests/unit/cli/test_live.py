"""top, stats --watch, tail with a filter, and times: looking at what goes on."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import termios
from datetime import UTC, datetime, timedelta

import click
import pyte
import pytest

from duraq import Queue
from duraq.cli.failing import Code
from duraq.cli.frames import Frames
from duraq.cli.options import PAST
from duraq.cli.output import wrapped

HOUR = timedelta(hours=1)


class Screen:
    """A terminal in which the command line runs; what it writes is drawn, and kept."""

    def __init__(self, duraq, *arguments, rows=12, columns=100, **environment):
        self.written = b""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        subprocess.run(["stty", "rows", str(rows), "cols", str(columns)], stdin=slave, check=True)
        streams = {"stdin": slave, "stdout": slave, "stderr": slave, "start_new_session": True}
        environment = {**os.environ, "DURAQ_ROOT": str(duraq.root), "TERM": "xterm"} | environment
        environment.pop("COLUMNS", None)
        self.process = duraq.start(*arguments, env=environment, **streams)
        os.close(slave)

    def until(self, text):
        """Read until it is to be seen; returns the lines."""
        while text not in "\n".join(self.lines):
            self._read()
        return self.lines

    def end(self):
        """Read to the end; returns the exit code."""
        try:
            while True:
                self._read()
        except OSError:
            os.close(self._master)
            return self.process.wait()

    def type(self, keys):
        os.write(self._master, keys)

    def _read(self):
        piece = os.read(self._master, 1 << 16)
        self.written += piece
        self._stream.feed(piece)

    @property
    def lines(self):
        """What is to be seen, without the empty lines at the end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip("\n").split("\n")


# -- top ---------------------------------------------------------------------------------------------------


def test_top_in_a_pipe(duraq, queue, storage):
    """In a pipe there is one frame, with what came and went in the last minute."""
    queue.enqueue_many([1, 2, 3])
    queue.mark_completed(queue.dequeue())
    Queue("calm", storage).enqueue(1)
    header, *rows = duraq.ok("top").splitlines()
    assert header.split("\t")[-3:-1] == ["in_per_s", "out_per_s"]
    assert [row.split("\t")[1] for row in rows] == ["jobs", "calm"]
    (row,) = duraq.json("top", "jobs")["rows"]
    assert (row["ready"], row["in_per_s"] > 0, row["wait_p95"] is not None) == (2, True, True)
    assert duraq.ok("top", "--rows", "1", "--once", "-o", "ids").split() == ["jobs"]
    assert duraq("top", "nosuch").exit_code == Code.NOT_FOUND
    assert duraq("top", "--rows", "0").exit_code == Code.USAGE


def test_top_at_a_terminal(duraq, queue):
    """What changes is drawn over what was there, nothing else is written, and the last frame stays."""
    queue.enqueue(1)
    screen = Screen(duraq, "top", "--interval", "100ms", columns=250, NO_COLOR="1")
    screen.until("jobs")
    assert f"{duraq.root}" in screen.lines[0]
    assert "ready 1 " in screen.lines[0]
    queue.enqueue_many(range(41))
    lines = screen.until("ready 42 ")
    assert lines[1].split()[:5] == ["STATUS", "QUEUE", "READY", "LEASED", "DEAD"]
    assert [line.split()[1:3] for line in lines[2:]] == [["jobs", "42"]]
    assert b"\x1b[?1049h" not in screen.written
    screen.process.send_signal(signal.SIGINT)
    assert screen.end() == 0
    assert "ready 42 " in screen.lines[0]


def test_a_key_ends_it(duraq, queue):
    """q ends what is drawn again and again; no key is drawn, and the terminal is as it was before."""
    queue.enqueue(1)
    screen = Screen(duraq, "top", "--interval", "100ms", columns=250, NO_COLOR="1")
    screen.until("jobs")
    assert screen.lines[0].endswith("q ends")
    before = screen.lines
    screen.type(b"x\nq")
    assert screen.process.wait() == 0
    assert termios.tcgetattr(screen._master)[3] & (termios.ICANON | termios.ECHO)
    assert screen.end() == 0
    assert screen.lines[1:2] == before[1:2]
    assert "x" not in "".join(screen.lines[3:])


def test_frames(monkeypatch, capsys):
    """Only lines that differ are written again, and nothing if none does; what is too much is left out."""
    monkeypatch.setenv("LINES", "4")
    monkeypatch.setenv("COLUMNS", "80")
    screen = pyte.Screen(80, 4)
    stream = pyte.Stream(screen)
    frames = Frames()

    def show(*lines):
        frames.show(lines)
        written = capsys.readouterr().out
        stream.feed(written.replace("\n", "\r\n"))
        return written

    show("a", "b", "c", "d")
    assert [line.rstrip() for line in screen.display] == ["a", "b", "c", ""]
    assert show("a", "b", "c", "d") == ""
    assert "b" not in show("a", "b", "x", "d")
    show("y")
    assert [line.rstrip() for line in screen.display] == ["y", "", "", ""]


def test_stats_again_and_again(duraq, queue):
    """`stats --watch` is the same table, drawn again as it changes."""
    queue.enqueue(1)
    screen = Screen(duraq, "stats", "--watch", "100ms", NO_COLOR="1")
    screen.until("jobs")
    queue.pause("for a while")
    assert screen.until("PAUSED")[1].startswith("PAUSED")
    screen.process.send_signal(signal.SIGINT)
    assert screen.end() == 0
    assert duraq("stats", "--watch", "10ms").exit_code == 0, "in a pipe there is nothing to draw over"


def test_stats_by(duraq, queue, storage):
    """Entries are counted by state, by signature or by key, the most frequent first."""
    other = Queue("other", storage)
    for each in (queue, other):
        each.enqueue(1, key="k")
        each.mark_failed(each.dequeue(), ValueError("x"), dead=True)
    queue.enqueue_many([1, 2, 3])
    rows = duraq.json("stats", "--by", "state")["rows"]
    assert [(row["state"], row["entries"], row["queues"]) for row in rows] == [
        ("ready", 3, ["jobs"]),
        ("dead", 2, ["jobs", "other"]),
    ]
    assert "  jobs, other\n" in duraq.ok("stats", "--by", "state", "-o", "table")
    (row,) = duraq.json("stats", "--by", "sig")["rows"]
    assert (row["dead"], row["error"]) == (2, "ValueError: x")
    assert [(row["key"], row["dead"]) for row in duraq.json("stats", "jobs", "--by", "key")["rows"]] == [
        ("k", 1)
    ]
    assert duraq("stats", "--by", "key", "--watch").exit_code == Code.USAGE


# -- long texts --------------------------------------------------------------------------------------------


def test_why_is_not_cut(duraq, queue):
    """At a terminal the reason goes on in the next line, whole."""
    queue.enqueue(1)
    words = [f"word{number}" for number in range(30)]
    queue.pause(" ".join(words))
    screen = Screen(duraq, "stats", columns=80, rows=30)
    screen.end()
    text = " ".join(screen.lines)
    assert [word for word in text.split() if word.startswith("word")] == words
    assert max(map(len, screen.lines)) <= 80


@pytest.mark.parametrize("first", [0, 5, 20])
@pytest.mark.parametrize(
    "text", ["", "a", "many short words in a row", "x" * 50, "日本語" * 10, "ab " + "y" * 25]
)
def test_wrapping(text, first):
    """Nothing is lost when a text is broken into lines, and no line is longer than it may be."""
    lines = wrapped(text, first, 10)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    widths = [sum(2 if ord(character) > 255 else 1 for character in line) for line in lines]
    assert widths[0] <= first
    assert all(width <= 10 for width in widths[1:])


# -- records -----------------------------------------------------------------------------------------------


@pytest.fixture
def lived(queue):
    """Two entries with a life; returns their ids."""
    ids = queue.enqueue_many([{"to": "ann"}, {"to": "bob"}], headers={"h": "1"})
    first, second = queue.dequeue(limit=2)
    queue.mark_completed(first)
    queue.mark_failed(second, ValueError("no such user"), dead=True)
    return ids


def ops(duraq, *arguments):
    return [row["op"] for row in duraq.json("tail", *arguments)["rows"]]


def test_tail_of_some_events(duraq, lived):
    """Only the events that were asked for, and as many of these."""
    assert ops(duraq, "--event", "lease,dead") == ["lease", "lease", "dead"]
    assert ops(duraq, "--event", "lease", "-n", "1") == ["lease"]
    result = duraq("tail", "--event", "leese")
    assert (result.exit_code, "did you mean lease?" in result.stderr) == (Code.USAGE, True)


@pytest.mark.parametrize(
    ("filter_", "found"),
    [
        ("payload.to=ann", ["enqueue"]),
        ("event:dead", ["dead"]),
        ("err:ValueError", ["dead"]),
        ("sig:nosuch", []),
        ("state:leased", ["lease", "lease"]),
        ("header.h=1", ["enqueue", "enqueue"]),
        ("attempts>=1", ["lease", "lease"]),
        ("queue:other", []),
        ("-event:enqueue,lease", ["complete", "dead"]),
        ('"no such"', ["dead"]),
        ("age<1h -event:enqueue event:complete", ["complete"]),
    ],
)
def test_tail_with_a_filter(duraq, lived, filter_, found):
    """A filter asks what the records themselves say."""
    assert ops(duraq, "-w", filter_) == found


def test_tail_of_one_entry(duraq, lived):
    """The life of one entry, among all others."""
    assert ops(duraq, "-w", f"id={lived[1]}") == ["enqueue", "lease", "dead"]


def test_tail_of_a_stretch_of_time(duraq, lived):
    """With --since all records from then on, however many; with --until none behind it."""
    assert len(ops(duraq, "--since", "-1h")) == 6
    assert ops(duraq, "--since", "1h", "-n", "2") == ["complete", "dead"]
    assert ops(duraq, "--since", "now") == []
    assert ops(duraq, "--until", "yesterday") == []


def test_following_with_a_filter(duraq, queue, lived):
    """Those before that match, then each that matches as it is written; none twice, none left out."""
    process = duraq.start("tail", "-f", "--jsonl", "--event", "enqueue", "-n", "1")
    first = json.loads(process.stdout.readline())
    assert first["id"] == lived[1]
    queue.mark_completed(queue.enqueue("x") and queue.dequeue())
    later = queue.enqueue("y")
    assert [json.loads(process.stdout.readline())["op"] for _ in range(2)] == ["enqueue"] * 2
    process.send_signal(signal.SIGINT)
    assert process.wait() == Code.INTERRUPTED
    assert later != first["id"]


# -- times and order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("-1h", HOUR),
        ("90m", 1.5 * HOUR),
        ("now", timedelta(0)),
        ("@0", None),
        ("2026-01-24 10:00", None),
        ("2026-01-24T10:00:00Z", None),
        ("today", None),
        ("yesterday", None),
    ],
)
def test_times(text, ago):
    """A time may be given by how long ago it is, by a day's name, or as it is."""
    moment = PAST.convert(text, None, None)
    assert moment.tzinfo is not None
    if ago is not None:
        assert timedelta(0) <= datetime.now(UTC) - ago - moment < timedelta(minutes=1)
    if text.endswith("day"):
        assert moment.astimezone().timetz().replace(tzinfo=None).isoformat() == "00:00:00"
        assert datetime.now(UTC) - moment < timedelta(hours=50)


@pytest.mark.parametrize("text", ["", "soon", "-", "1", "5 minutes", "2026-13-01", "@x", "-999999999h"])
def test_no_times(text):
    """What is no time is refused."""
    with pytest.raises(click.BadParameter):
        PAST.convert(text, None, None)


def test_entries_of_a_stretch_of_time(duraq, queue):
    """Entries, and dead letters, by when they were last changed."""
    queue.enqueue_many([1, 2])
    queue.mark_failed(queue.dequeue(), dead=True)
    for command in (("ls", "jobs"), ("dlq", "ls")):
        assert duraq.json(*command, "--since", "1h")["rows"]
        assert duraq.json(*command, "--until", "-1h")["rows"] == []


def test_sorting(duraq, queue):
    """By any column with an order, either way round; what has nothing there comes last."""
    ids = [queue.enqueue(number, priority=priority) for number, priority in enumerate((3, 9, 1))]
    queue.mark_failed(queue.dequeue(), ValueError("x"), dead=True)
    assert duraq.ok("ls", "jobs", "--sort", "priority", "-o", "ids").split() == [ids[2], ids[0], ids[1]]
    assert duraq.ok("ls", "jobs", "--sort", "-priority", "-o", "ids", "-l", "1").split() == [ids[1]]
    assert duraq.ok("ls", "jobs", "--sort", "error", "-o", "ids").split()[0] == ids[1]
    assert duraq.ok("dlq", "ls", "--sort", "created_at", "-o", "ids").split() == [ids[1]]
    assert duraq.ok("ls", "--sort", "-ready", "-o", "ids").split() == ["jobs"]
    assert duraq("ls", "jobs", "--sort", "payload").exit_code == Code.USAGE


# -- page by page ------------------------------------------------------------------------------------------


@pytest.fixture
def pager(tmp_path):
    """A pager that says where it begins and ends."""
    path = tmp_path / "pager"
    path.write_text("#!/bin/sh\necho begins\ncat\necho ends\n")
    path.chmod(0o700)
    return path


@pytest.mark.parametrize("command", [("show", "ID"), ("tail",)])
def test_page_by_page(duraq, queue, pager, command):
    """At a terminal what may be long goes through $PAGER, and not in a pipe."""
    entry_id = queue.enqueue(1)
    arguments = [entry_id if part == "ID" else part for part in command]
    screen = Screen(duraq, *arguments, PAGER=str(pager), NO_COLOR="1")
    assert screen.end() == 0
    assert (screen.lines[0], screen.lines[-1]) == ("begins", "ends")
    assert entry_id in "\n".join(screen.lines)
    assert "begins" not in duraq.ok(*arguments)


@pytest.mark.parametrize(("more", "named"), [(("--no-pager",), "PAGER"), ((), "/nosuch"), ((), "")])
def test_no_pager(duraq, queue, pager, more, named):
    """Without a pager, or if none is wanted, it is printed as it is."""
    queue.enqueue(1)
    screen = Screen(duraq, "ls", "jobs", *more, PAGER=str(pager) if named == "PAGER" else named)
    assert screen.end() == 0
    assert "begins" not in screen.lines


def test_enough_was_seen(duraq, queue, tmp_path):
    """A pager that is left early ends the command quietly."""
    queue.enqueue_many(range(3000))
    path = tmp_path / "pager"
    path.write_text("#!/bin/sh\nhead -n 1\n")
    path.chmod(0o700)
    screen = Screen(duraq, "ls", "jobs", PAGER=str(path), NO_COLOR="1")
    assert screen.end() == 0
    assert len(screen.lines) == 1


def test_only_ascii(duraq, queue):
    """With --ascii nothing beyond ASCII is printed, whatever is in the storage."""
    entry_id = queue.enqueue("naïve 日本")
    code, out, err = duraq.run("show", entry_id, "--ascii")
    assert (code, err, out.isascii()) == (0, b"", True)
    assert re.search(rb"na\\xefve", out)
    code, out, _ = duraq.run("--ascii", "ls", "jobs")
    assert (code, out.isascii()) == (0, True)


def test_show_in_a_pipe(duraq, queue):
    """An entry in full is text for people in a pipe as well, with times that do not change."""
    entry_id = queue.enqueue({"n": 1})
    text = duraq.ok("show", entry_id)
    assert text.startswith(f"{entry_id}  ready  in jobs")
    assert re.search(r"enqueued  \d{4}-\d\d-\d\dT", text)
    assert duraq.ok("show", entry_id, "-o", "tsv").startswith("id\t")
