"""Whatever strangers have put into a storage, around it, or into the environment: no command prints it raw.

Every command, in every format, in a pipe and at a terminal, on a storage in which every text there can be is
out to take over a terminal, to hide, or to pass for a line of ours.
"""

from __future__ import annotations

import json
import os
import re
import shlex

import pytest

from duraq import DeadLetterQueue, Queue
from duraq.cli import COMMANDS
from duraq.model import AttemptError

ESCAPES = "\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\x00\x7f"
HIDDEN = "\u202egnp\u2066\u200b\ufeff\U000e0041"
LINES = "\r\n\u2028\x0bduraq: all is well"
HOSTILE = ESCAPES + HIDDEN + LINES
# What a terminal obeys, what reorders, and what hides. Line ends are looked at apart.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e0fff]"
)
OURS = re.compile("\x1b\\[[0-9;]*m")  # colours
NAME = HOSTILE.replace("\x00", "").replace("/", "")

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
FORMATS = ("table", "json", "jsonl", "csv", "tsv", "ids")
# One call of each command at least; what is between braces is filled in.
CALLS = (
    *(
        "stats",
        "stats jobs",
        "ls",
        "ls jobs",
        "ls --where payload:x",
        "ls jobs --state dead",
        "peek jobs -n 9",
    ),
    *("show {dead}", "show {dead} {ready}", "show --raw {dead}", "show --where-is {dead}", "show nosuch"),
    *(
        "tail -n 100",
        "check --no-write",
        "check --no-write -o nagios",
        "metrics",
        "metrics --format openmetrics",
    ),
    *("dlq ls", "dlq show {dead}", "dlq retry --all -n", "dlq rm {dead} -n", "dlq purge jobs -n", "dlq acts"),
    *("dlq retry {dead}", "dlq rm --where payload:x -y", "undo", "undo nosuch", "pause jobs", "resume jobs"),
    *(
        "compact",
        "compact jobs",
        "put jobs 1",
        "put jobs {{",
        "get jobs",
        "ack jobs/nosuch/1",
        "nack jobs/a/b",
    ),
    *(
        "extend jobs/nosuch/1",
        "run jobs --once -- false",
        "demo nosuch",
        "verify",
        "verify broken",
        "repair -n",
        "repair broken",
        "backup nosuch/nosuch",
        "restore nosuch",
        "ls broken",
        "stats broken",
        "tail broken",
    ),
    *("errors", "errors --raw-messages", "dlq errors", "dlq errors --raw-messages --by type"),
    *("leases", "workers", "release nosuch", "top", "move jobs --all --to broken -n"),
    *("init", "init nosuch/nosuch", "create jobs", "create made", "dlq export", "dlq import nosuch"),
    *("migrate nosuch other", "migrate -n storage other", "migrate storage other", "migrate storage storage"),
    *("config get", "help files", "help nosuch", "completion zsh"),
    *("stats --by key", "ls jobs --sort -error", "tail -w payload:x --event fail,dead --since 1h"),
)


@pytest.fixture
def hostile(queue, storage, root, tmp_path, monkeypatch):
    """Ids of a dead letter and of a ready entry of such a storage."""
    monkeypatch.chdir(tmp_path)  # what some of the commands make is made there
    dead = queue.enqueue({HOSTILE: [HOSTILE], "x": 1}, key=HOSTILE, headers={"h": HOSTILE})
    error = AttemptError(HOSTILE, HOSTILE, f"Traceback\n  {HOSTILE}", HOSTILE)
    queue.mark_failed(queue.dequeue(), error, dead=True)
    ready = queue.enqueue(HOSTILE)
    other = queue.enqueue(["x", HOSTILE])
    queue.mark_failed(queue.dequeue(), type(NAME, (Exception,), {})(HOSTILE), dead=True)
    DeadLetterQueue("jobs", None, storage).remove(ready)
    assert queue.get(other).data[1] == HOSTILE
    queue.pause(HOSTILE, who=HOSTILE)
    # Beside it lies what is no queue, and one that is damaged.
    (root / NAME / "segments").mkdir(parents=True)
    (root / "jobs" / "segments" / NAME).write_text(HOSTILE)
    (root / "leases" / NAME).write_text(HOSTILE)
    said = {"argv": [HOSTILE], "host": HOSTILE, "unit": HOSTILE, "boot_id": HOSTILE}
    (root / "leases" / "4711-0123abcd.json").write_text(json.dumps(said))
    Queue("broken", storage).enqueue(HOSTILE)
    segment = next((root / "broken" / "segments").glob("*.jsonl"))
    segment.write_bytes(f'{{"op":"{HOSTILE}"}}\n'.encode() + segment.read_bytes())
    (root / "broken" / "damaged.json").write_text(f'{{"why":"\\u001b{HIDDEN}","path":"\\u009b","byte":0}}')
    return {"dead": dead, "ready": other}


def check(text: str) -> None:
    found = UNSAFE.search(text.replace("\n", ""))
    assert not found, ascii(text)
    # What was said by somebody else never begins a line.
    assert not re.search("^duraq: all is well", text, re.MULTILINE)


def test_every_command_is_called():
    """No command is left out below."""
    # What the dashboard shows is looked at where its screens are.
    assert {shlex.split(call)[0] for call in CALLS} == set(COMMANDS) - {"dash"}


@pytest.mark.parametrize("style", FORMATS)
def test_in_a_pipe(duraq, hostile, style):
    """No command prints anything raw, in no format, neither on stdout nor on stderr."""
    first = FORMATS.index(style)
    for call in CALLS if DEEP else CALLS[first % 3 :: 3]:
        if style == "ids" and "-o" in call:
            continue
        result = duraq("-v", "-o", style, *shlex.split(call.format(**hostile)))
        assert result.exit_code != 1 or call.startswith(("check", "run")), (call, result.stderr)
        check(result.stderr)
        if "--raw" in call:
            continue  # in a pipe that is what it is for
        check(result.stdout)
        if style.startswith("json") and not call.startswith(("metrics", "check --no-write -o", "run")):
            assert result.stdout.isascii()


def test_at_a_terminal(duraq, hostile):
    """On a terminal there are our own colours and nothing else, whatever is shown."""
    for call in (
        "stats",
        "ls jobs",
        "show {dead}",
        "show --raw {dead}",
        "tail -n 100",
        "dlq acts",
        "ls broken",
    ):
        _, screen = duraq.at_terminal(*shlex.split(call.format(**hostile)))
        check(OURS.sub("", screen).replace("\r\n", "\n"))
    _, screen = duraq.at_terminal("dlq", "rm", hostile["dead"], answer=b"n\n")
    check(OURS.sub("", screen).replace("\r\n", "\n"))


def test_hostile_surroundings(duraq, tmp_path):
    """Neither the storage's own path nor who runs a command is passed on raw, and neither is refused."""
    duraq.root = tmp_path / NAME
    strange = {"LOGNAME": "\udcff\x1b[2J", "COLUMNS": "x", "TZ": "\x1b", "TERM": "\x1b"}
    environment = {**os.environ, "DURAQ_ROOT": str(duraq.root), **strange}
    for call in (
        "put jobs 1",
        "pause jobs",
        "stats",
        "ls",
        "tail",
        "check",
        "show --where-is nosuch",
        "ls nosuch",
    ):
        code, out, err = duraq.run(*call.split(), env=environment)
        assert code in {0, 1, 4}, (call, err)
        for text in (out, err):
            check(text.decode())
        assert err.count(b"\n") <= 1, err
    duraq.root.joinpath("duraq.json").write_text("{")
    check(duraq("-v", "stats").stderr)


def test_the_log_of_a_worker(duraq, hostile, queue, tmp_path):
    """What a program says before it fails, and what fails in the library, is logged without being obeyed."""
    queue.resume()
    script = tmp_path / "fail"
    script.write_text(f"#!/bin/sh\nprintf '%s' '{ESCAPES.replace(chr(0), '')}' >&2\nexit 1\n")
    script.chmod(0o755)
    queue.enqueue(1)
    result = duraq.run("-vv", "run", "jobs", "--drain", "--max-attempts", "1", "--", str(script))
    shown = duraq("dlq", "ls").stdout
    assert "exit status 1" in shown
    for text in (result[2].decode().replace(ESCAPES.replace("\0", ""), ""), shown):
        check(text)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(duraq, hostile, shell):
    """What a shell is offered to complete is of our own making."""
    for words in ("duraq ", "duraq dlq retry --queue "):
        environment = {**os.environ, "DURAQ_ROOT": str(duraq.root), "_DURAQ_COMPLETE": f"{shell}_complete"}
        environment |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))}
        _, out, err = duraq.run(env=environment)
        check(out.decode())
        check(err.decode())
