"""Programs that work a queue and say what they do, and disks that lose their power."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress

import lived_in
import pytest
from one_thread import in_one_thread

from benchmarks.contender import Missing
from benchmarks.power.disk import KINDS, Disk

SOON = 60  # seconds; only so that a failing test ends

# Each line is one write: processes that share a pipe do not mix theirs.
PROGRAM = """
import logging, os, signal, sys, threading
from datetime import timedelta
from duraq import FileStorage, FixedDelay, Queue, Worker, run_processes, shift, worker_pool

AT_ONCE, HOUR = timedelta(0), timedelta(hours=1)
RETRIES = FixedDelay(max_attempts=3, delay=AT_ONCE)
shift._LONGEST_WAIT = timedelta(milliseconds=10)  # an idle worker sees soon that it is to stop
worker_pool._MARGIN = 60.0  # a busy machine is no failure

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def listen():
    os.read(0, 1)

def open_queue():
    return Queue("jobs", FileStorage(sys.argv[1], durability="process"), retry_policy=RETRIES)

def slow(entry):
    say("began", os.getpid(), entry.data, entry.attempts)
    listen()
    say("finished", os.getpid(), entry.data)

def endless(entry):
    say("began", os.getpid(), entry.data, entry.attempts)
    threading.Event().wait()

def stop_and_say(shift, stop=shift.Shift.stop):
    stop(shift)
    say("stopping", os.getpid())

shift.Shift.stop = stop_and_say
"""


class Program:
    """A Python program and its children, which share its stdin, where they listen, and its stdout."""

    def __init__(self, path, text, prefix=()):
        command = [*prefix, sys.executable, "-W", "error", "-c", PROGRAM + text, str(path)]
        pipe = subprocess.PIPE
        # A group of its own, so that whatever it leaves behind can be ended.
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, process_group=0)
        self.pid = self.process.pid

    def hear(self, word):
        """The rest of the next line that begins with this word, its numbers as numbers."""
        for line in self.process.stdout:
            first, *rest = line.split()
            if first == word:
                return [int(word) if word.isdigit() else word for word in rest]
        raise EOFError(word)

    def go_on(self, handlers=1):
        """Let so many handlers go on that listen."""
        self.process.stdin.write("x" * handlers)
        self.process.stdin.flush()

    def send(self, number):
        self.process.send_signal(number)

    def end(self):
        """Its exit status and all else that was said, when it and its children have ended."""
        self.process.stdin.close()
        rest = self.process.stdout.read()
        return self.process.wait(SOON), rest.splitlines()


@pytest.fixture
def start_worker(tmp_path):
    """Start a program over the storage in tmp_path; it and its children are killed in the end.

    What comes behind the text is the command that it is started by.
    """
    with ExitStack() as stack:

        def start_worker(text, *prefix):
            program = Program(tmp_path / "storage", text, prefix)
            stack.enter_context(program.process)
            stack.callback(kill_group, program.pid)
            return program

        yield start_worker


def kill_group(pid):
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """The files of a storage that was lived in: the same for every process, but for the names of workers."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_one_thread(monkeypatch)
        return lived_in.make(tmp_path_factory.mktemp("sound") / "storage")


@pytest.fixture(params=KINDS)
def disk(request, tmp_path):
    """An empty file system of each kind, whose power can be cut."""
    try:
        with Disk(tmp_path, request.param) as disk:
            yield disk
    except Missing as missing:
        pytest.skip(str(missing))
