"""What the tests of the command line share: calling it, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
from datetime import timedelta

import pytest
from click.testing import CliRunner

from duraq import FileStorage, FixedDelay, Queue
from duraq.cli import cli
from duraq.cli.stage import run_safely

PROGRAM = [sys.executable, "-m", "duraq"]
# Whatever the one who runs the tests has set must not matter.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in {"DURAQ_ROOT", "NO_COLOR", "JOURNAL_STREAM", "LESS"}
} | {"TERM": "xterm", "COLUMNS": "100", "PAGER": "cat", "XDG_CONFIG_HOME": "/nonexistent"}


class _Safely:
    """The whole command line, in the form in which CliRunner takes a command."""

    name = "duraq"

    def main(self, args, **_options):
        sys.exit(run_safely(cli, list(args)))


class Duraq:
    """``duraq`` on one storage."""

    def __init__(self, root):
        self.root = root
        self._started = []

    def end(self):
        """End what was started and is not over yet."""
        for process in self._started:
            process.kill()
            process.wait()
            # What it started may have them open for longer, and is not waited for.
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def __call__(self, *arguments, stdin=None):
        """Call it in this process; the result has exit_code, stdout and stderr."""
        result = CliRunner(env={"DURAQ_ROOT": str(self.root)}).invoke(_Safely(), arguments, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def ok(self, *arguments, stdin=None):
        """Call it and see that it succeeds; returns what it printed."""
        result = self(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    def json(self, *arguments, stdin=None):
        """Call it with --json and see that it succeeds; returns the value it printed."""
        return json.loads(self.ok("--json", *arguments, stdin=stdin))

    def start(self, *arguments, **options):
        """Start it as a process of its own."""
        environment = {**ENVIRONMENT, "DURAQ_ROOT": str(self.root)}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen([*PROGRAM, *arguments], **{"env": environment} | pipes | options)
        self._started.append(process)
        return process

    def run(self, *arguments, stdin=b"", **options):
        """Run it as a process of its own; returns exit code, stdout and stderr."""
        process = self.start(*arguments, **options)
        out, err = process.communicate(stdin)
        return process.returncode, out, err

    def at_terminal(self, *arguments, answer=b"", **options):
        """Run it at a terminal of 100 columns, answer its first question; returns exit code and screen."""
        master, slave = pty.openpty()
        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        process = self.start(*arguments, **streams | options)
        os.close(slave)
        screen = b""
        # The other end is gone when nobody has it open any more: that reads as an I/O error.
        with contextlib.suppress(OSError):
            while True:
                select.select([master], [], [])
                screen += os.read(master, 1 << 16)
                if answer and (b"? [" in screen or b"go on: " in screen):
                    os.write(master, answer)
                    answer = b""
        os.close(master)
        return process.wait(), screen.decode()


@pytest.fixture(autouse=True)
def _no_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def root(tmp_path):
    """Where the storage is, or will be."""
    return tmp_path / "storage"


@pytest.fixture
def duraq(root):
    """The command line."""
    duraq = Duraq(root)
    yield duraq
    duraq.end()


@pytest.fixture
def storage(root):
    """The storage, to prepare and to check things behind the command line's back."""
    with FileStorage(root, durability="process") as storage:
        yield storage


@pytest.fixture
def queue(storage):
    """A queue that gives entries up after two attempts and tries again at once."""
    return Queue("jobs", storage, retry_policy=FixedDelay(max_attempts=2, delay=timedelta(0)))
