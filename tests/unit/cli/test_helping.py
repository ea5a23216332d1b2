"""help, completion and the manual page."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from duraq.cli import COMMANDS, EXAMPLES
from duraq.cli.failing import Code
from duraq.cli.helping import TOPICS, _fitting, topic_text

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("topic", TOPICS)
def test_topics(duraq, topic):
    """Each topic can be read, without the marks of links."""
    text = duraq.ok("help", topic)
    assert text.startswith("# ")
    assert "](" not in text


@pytest.mark.parametrize("width", [60, 100])
@pytest.mark.parametrize("topic", TOPICS)
def test_topics_on_a_screen(topic, width):
    """On a screen nothing is lost of a topic, and only code is wider than the screen."""
    text = topic_text(topic)
    lines = list(_fitting(text.split("\n"), width))
    code = {
        f"    {line}"
        for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
        for line in block.split("\n")
    }
    assert [line for line in lines if len(line) > width and line not in code] == []
    marks = "|`-: \n"
    shown = "".join(lines).translate(str.maketrans("", "", marks))
    rules = re.sub(r"^\|[-:| ]+\|$", "", text, flags=re.MULTILINE)
    whole = re.sub(r"^```\w*$", "", rules, flags=re.MULTILINE).translate(str.maketrans("", "", marks))
    assert sorted(shown) == sorted(whole)


def test_filters_are_told_of_in_one_way():
    """What `help filters` says is what docs/WHERE.md says."""
    assert topic_text("filters") == (DOCS / "WHERE.md").read_text()


def test_units_are_told_of_in_one_way():
    """The unit that `help systemd` shows is the one in docs/systemd."""
    unit = (DOCS / "systemd" / "duraq-run@.service").read_text()
    shown = re.findall(r"```ini\n(.*?)```", topic_text("systemd"), re.DOTALL)[0]
    assert unit.partition("[Unit]")[2] == shown.partition("[Unit]")[2]


def test_help_of_commands(duraq):
    """`help` tells of a command as --help does, and of what there is."""
    assert duraq.ok("help", "dlq", "retry") == duraq.ok("dlq", "retry", "--help")
    text = duraq.ok("help")
    assert all(name in text for name in (*COMMANDS, *TOPICS))
    result = duraq("help", "nosuch")
    assert (result.exit_code, "filters" in result.stderr) == (Code.USAGE, True)


def test_the_manual_page():
    """docs/duraq.1 is what the commands say of themselves now; `make man` makes it so."""
    spec = importlib.util.spec_from_file_location("make_man", DOCS / "make_man.py")
    make_man = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_man)
    assert (DOCS / "duraq.1").read_text() == make_man.page()


def test_the_examples_of_the_manual_page():
    """They are shown as they are to be typed, quotes and all: roff would take those of arguments away."""
    text = (DOCS / "duraq.1").read_text()
    examples = text[text.index(".SH EXAMPLES") : text.index(".SH OPTIONS")]
    assert not set(examples) & set("\"'")
    if shutil.which("groff"):
        command = ["groff", "-man", "-Tutf8", "-P-cbou", DOCS / "duraq.1"]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for line, _ in EXAMPLES:
            assert f" {line}\n" in shown


# -- completion --------------------------------------------------------------------------------------------


@pytest.fixture
def bash(duraq, root, tmp_path):
    """What bash offers behind some words."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "duraq"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m duraq "$@"\n')
    program.chmod(0o700)
    (tmp_path / "script").write_text(duraq.ok("completion", "bash"))
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "DURAQ_ROOT": str(root),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }

    def offered(*words):
        typed = " ".join(f"'{word}'" for word in ("duraq", *words))
        code = (
            f"source {tmp_path / 'script'}; COMP_WORDS=({typed}); COMP_CWORD={len(words)};"
            '_duraq_completion duraq; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.split()

    return offered


def test_in_bash(duraq, bash, storage, root):
    """A real bash offers commands, queues, states, fields, events and topics."""
    duraq.ok("create", "jobs", "mail", "mail-archive")
    (root / "no-queue").mkdir()
    assert bash("sta") == ["stats"]
    assert bash("stats", "") == ["jobs", "mail", "mail-archive"]
    assert bash("move", "jobs", "--to", "j") == ["jobs"]
    assert bash("ls", "mail-archive", "--fields", "id,pri") == ["id,priority"]
    assert bash("ls", "jobs", "--state", "r") == ["ready"]
    assert bash("ls", "jobs", "-w", "pay") == ["payload"]
    assert bash("tail", "--event", "lease,de") == ["lease,dead"]
    assert bash("config", "get", "attention.max_d") == ["attention.max_dead_lately", "attention.max_dead"]


def test_queues_are_offered_from_where_the_line_says(duraq, bash, tmp_path):
    """Queues of the storage that the line itself names; none, and no error, where there is no storage."""
    assert bash("stats", "") == []
    duraq.ok("-C", str(tmp_path / "other"), "put", "letters", "1")
    assert bash("-C", str(tmp_path / "other"), "stats", "") == ["letters"]
    assert bash("stats", "-C", str(tmp_path / "other"), "") == ["letters"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(duraq, shell):
    """Each shell has a script, which names the program."""
    assert "_DURAQ_COMPLETE" in duraq.ok("completion", shell)


def test_completing_reads_no_journal(duraq, root):
    """For a name to be offered nothing is opened, whatever state the storage is in."""
    duraq.ok("put", "jobs", "1")
    for file in root.rglob("*"):
        if file.is_file():
            file.unlink()
    environment = {"COMP_WORDS": "duraq stats j", "COMP_CWORD": "2", "_DURAQ_COMPLETE": "bash_complete"}
    _, out, err = duraq.run(env=os.environ | environment | {"DURAQ_ROOT": str(root)})
    assert (out, err) == (b"plain,jobs\n", b"")
