"""run: a queue worked with any program."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from pathlib import Path

import pytest

from duraq import Cause, EntryStatus
from duraq.cli.failing import Code
from duraq.cli.run import STOPPING


def sh(script):
    """A command that the shell runs."""
    return ("--", "sh", "-c", script)


def test_done(duraq, queue):
    """The payload is on the program's stdin, its output is ours, and exit 0 completes the entry."""
    queue.enqueue({"n": 1, "t": "ü"})
    code, out, err = duraq.run("run", "jobs", "--once", "--", "cat")
    assert (code, out.decode(), err) == (0, '{"n":1,"t":"ü"}\n', b"1 completed\n")
    assert len(queue) == 0


def test_environment(duraq, queue, root):
    """The program knows the entry's id, queue and attempt, and its own duraq commands mean this storage."""
    entry_id = queue.enqueue(1)
    script = 'echo "$DURAQ_ID $DURAQ_QUEUE $DURAQ_ATTEMPT $DURAQ_ROOT"'
    _, out, _ = duraq.run("-C", str(root), "run", "jobs", "--once", *sh(script), cwd="/")
    assert out.decode().split() == [entry_id, "jobs", "1", str(root)]


@pytest.mark.parametrize(
    "case",
    [
        ("echo first >&2; echo last >&2; exit 3", (), "scheduled", "ProgramFailed", "exit status 3: last"),
        ("exit 1", (), "scheduled", "ProgramFailed", "exit status 1"),
        ("kill -SEGV $$", (), "scheduled", "ProgramFailed", "killed by SIGSEGV"),
        ("kill -35 $$", (), "scheduled", "ProgramFailed", "killed by signal 35"),
        ("exit 65", (), "dead", "BadData", "exit status 65"),
        ("exit 75", (), "scheduled", "TemporaryFailure", "exit status 75"),
        ("exit 9", ("--dead-on", "8,9"), "dead", "BadData", "exit status 9"),
        ("exit 65", ("--dead-on", "9"), "dead", "BadData", "exit status 65"),
        ("exit 9", ("--retry-on", "9"), "scheduled", "TemporaryFailure", "exit status 9"),
        ("exit 1", ("--max-attempts", "1"), "dead", "ProgramFailed", "exit status 1"),
    ],
)
def test_failed(duraq, queue, case):
    """How the program ended decides what becomes of the entry, and its stderr says why."""
    script, options, status, kind, message = case
    entry_id = queue.enqueue(1)
    code, _, _ = duraq.run("run", "jobs", "--once", *options, *sh(script))
    entry = queue.get(entry_id)
    (attempt,) = entry.errors
    assert (code, entry.status, attempt.cause) == (0, status, Cause.FAILED)
    assert (attempt.error.type, attempt.error.message) == (kind, message)


def test_stderr(duraq, queue):
    """The program's stderr is ours too; its last 8 KB are kept with the error."""
    entry_id = queue.enqueue(1)
    script = 'i=0; while [ $i -lt 2000 ]; do echo "line $i" >&2; i=$((i+1)); done; exit 1'
    _, _, err = duraq.run("run", "jobs", "--once", *sh(script))
    assert err.startswith(b"line 0\nline 1\n")
    kept = queue.get(entry_id).errors[0].error.traceback
    assert kept.endswith("line 1998\nline 1999")
    assert 8 * 1024 - 20 < len(kept) <= 8 * 1024


def test_stderr_that_stays_open(duraq, queue):
    """A process that the program leaves behind is not waited for."""
    queue.enqueue(1)
    script = "sleep 1000 >/dev/null & echo $!"
    code, out, _ = duraq.run("run", "jobs", "--once", *sh(script), stderr=None)
    os.kill(int(out), signal.SIGKILL)
    assert code == 0
    assert len(queue) == 0


@pytest.mark.parametrize("script", ["exec <&-; sleep 0.1", "true"])
def test_payload_that_is_not_read(duraq, queue, script):
    """A program need not read its payload, however long that is."""
    queue.enqueue("x" * 500_000)
    code, _, _ = duraq.run("run", "jobs", "--once", *sh(script))
    assert code == 0
    assert len(queue) == 0


def test_large_payload_and_output(duraq, queue):
    """Payload, output and errors of any size pass each other without getting stuck."""
    queue.enqueue("x" * 900_000)
    code, out, err = duraq.run("run", "jobs", "--once", *sh("tee /dev/stderr"))
    assert (code, len(out)) == (0, 900_003)
    assert out in err


def test_once(duraq, queue):
    """Once is one entry; if there is none, the exit code says so."""
    queue.enqueue_many([1, 2])
    assert duraq.run("run", "jobs", "--once", "--", "cat")[:2] == (0, b"1\n")
    assert duraq.run("run", "jobs", "--once", "--", "cat")[:2] == (0, b"2\n")
    assert duraq.run("run", "jobs", "--once", "--", "cat")[0] == Code.NOTHING


def test_drain(duraq, queue):
    """Draining ends when nothing is left that could be worked now."""
    queue.enqueue_many(range(20))
    code, out, err = duraq.run("run", "jobs", "--drain", "-j", "3", "--", "cat")
    assert (code, sorted(map(int, out.split()))) == (0, list(range(20)))
    assert err == b"20 completed\n"


def test_what_a_dead_worker_left(duraq, queue):
    """An entry whose worker was killed is taken by the next call, though that saw nothing of it happen."""
    queue.enqueue(1)
    process = duraq.start("run", "jobs", *sh("echo $$; exec sleep 1000"))
    process.stdout.readline()
    process.kill()
    process.wait()
    code, out, _ = duraq.run("run", "jobs", "--once", "--", "cat")
    assert (code, out) == (0, b"1\n")


def test_a_killed_run_takes_its_programs_along(duraq, queue):
    """A program does not outlive the run that gave it its payload, for its entry is another's by then."""
    queue.enqueue(1)
    process = duraq.start("run", "jobs", *sh("read payload; trap '' TERM INT; echo $$; exec sleep 600"))
    program = int(process.stdout.readline())
    process.kill()
    with contextlib.suppress(ProcessLookupError):
        gone = os.pidfd_open(program)
        assert select.select([gone], [], [], 60)[0]
        os.close(gone)


def test_no_such_program(duraq, queue):
    """A program that is not there is found out before an entry is touched."""
    entry_id = queue.enqueue(1)
    assert duraq("run", "jobs", "--", "no-such-program").exit_code == Code.USAGE
    assert queue.get(entry_id).attempts == 0


def test_program_that_cannot_start(duraq, queue, tmp_path):
    """A program that cannot be started costs no attempt: the entry is given back and the worker ends."""
    entry_id = queue.enqueue(1)
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    code, _, err = duraq.run("run", "jobs", "--", str(script))
    assert code == Code.UNEXPECTED
    assert b"given back" in err
    entry = queue.get(entry_id)
    assert (entry.status, entry.attempts) == (EntryStatus.READY, 0)
    assert [attempt.cause for attempt in entry.errors] == [Cause.RELEASED]


@pytest.mark.parametrize(
    "arguments",
    [("--nosuch", "--", "true"), ("--dead-on", "x", "true"), ("--dead-on", "0", "true"), ("true", "-x")],
)
def test_mistyped_options(duraq, queue, arguments):
    """A mistyped option is no part of the program's command."""
    entry_id = queue.enqueue(1)
    assert duraq("run", "jobs", *arguments).exit_code == Code.USAGE
    assert queue.get(entry_id).attempts == 0


def test_as_json(duraq, queue):
    """As JSON stdout is our answer alone; the program's output goes to stderr."""
    queue.enqueue(1)
    _, out, err = duraq.run("--json", "run", "jobs", "--drain", "--", "cat")
    answer = json.loads(out)
    assert answer["schema"] == "duraq.run/1"
    assert answer["rows"] == [
        {"queue": "jobs", "completed": 1, "failed": 0, "dead": 0, "released": 0, "lost": 0}
    ]
    assert err == b"1\n"


# -- signals -----------------------------------------------------------------------------------------------


def started(process):
    """The pid of the program, which it says when it is ready."""
    return int(process.stdout.readline())


def stop(process, number=signal.SIGTERM):
    """Tell it to stop, and see that it knows."""
    process.send_signal(number)
    while process.stderr.readline() != STOPPING:
        pass


def is_alive(pid):
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, Code.TERMINATED), (signal.SIGINT, Code.INTERRUPTED)]
)
def test_graceful_stop(duraq, queue, tmp_path, number, code):
    """At a signal no entry is taken any more, and the program that runs is left to finish."""
    queue.enqueue_many([1, 2])
    script = f"echo $$; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo finished"
    process = duraq.start("run", "jobs", "-v", *sh(script))
    started(process)
    process.send_signal(number)
    while b"worker stopping" not in process.stderr.readline():
        pass
    (tmp_path / "go").touch()
    out, err = process.communicate()
    assert (process.returncode, out) == (code, b"finished\n")
    assert b"1 completed" in err
    assert queue.counts().ready == 1


def test_interrupt_at_the_terminal(duraq, queue, tmp_path):
    """A Ctrl-C, which a terminal sends to all of its processes, does not reach the program."""
    queue.enqueue(1)
    script = f"echo $$; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
    process = duraq.start("run", "jobs", *sh(script), start_new_session=True)
    started(process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr.readline() == STOPPING
    (tmp_path / "go").touch()
    assert process.wait() == Code.INTERRUPTED
    assert len(queue) == 0


@pytest.mark.parametrize("more", [["--grace", "0"], []])
def test_end_of_grace(duraq, queue, more):
    """When the grace is over, or at a second signal, the program is ended, its entry given back."""
    entry_id = queue.enqueue(1)
    process = duraq.start("run", "jobs", *more, *sh("echo $$; exec sleep 1000"))
    child = started(process)
    stop(process)
    if not more:
        process.terminate()
    _, err = process.communicate()
    assert process.returncode == Code.TERMINATED
    assert b"1 released" in err
    assert not is_alive(child)
    entry = queue.get(entry_id)
    assert (entry.status, entry.attempts) == (EntryStatus.READY, 0)


def test_program_that_does_not_listen(duraq, queue, monkeypatch):
    """A program that ignores SIGTERM is killed in the end."""
    queue.enqueue(1)
    script = 'trap "" TERM; echo $$; while :; do sleep 0.1; done'
    process = duraq.start("run", "jobs", "--grace", "0", *sh(script))
    child = started(process)
    process.terminate()
    process.communicate()
    assert not is_alive(child)


def test_lease_lost(duraq, queue):
    """A program whose lease is lost is ended: somebody else may have its entry by now."""
    queue.enqueue(1, id="one")
    process = duraq.start("run", "jobs", "--lease", "200ms", *sh("echo $$; exec sleep 1000"))
    child = started(process)
    # Stopped, it cannot renew its lease, as on a machine that was put to sleep.
    process.send_signal(signal.SIGSTOP)
    while not (entry := queue.dequeue()):
        time.sleep(0.01)
    process.send_signal(signal.SIGCONT)
    while is_alive(child):
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate()
    assert b"1 lost" in err
    assert (entry.id, entry.attempts) == ("one", 2)
    queue.mark_completed(entry)


def test_a_program_that_cannot_be_run(duraq, queue, tmp_path, monkeypatch):
    """What keeps COMMAND from being run is said with the way out, before it costs an entry an attempt."""
    queue.enqueue(1)
    (tmp_path / "send").write_text("#!/bin/sh\n")
    monkeypatch.chdir(tmp_path)
    ways_out = {"./send": "chmod +x", "send": "is it ./send?", "sh -c true": "one by one", "nosuch": ""}
    for command, way_out in ways_out.items():
        said = duraq("run", "jobs", "--once", "--", command)
        assert said.exit_code == Code.USAGE
        assert repr(command) in said.stderr
        assert way_out in said.stderr
    assert queue.counts().ready == 1
