"""run: work a queue with any program. The payload on its stdin, its exit status decides.

0    done
65   (EX_DATAERR) dead at once      75  (EX_TEMPFAIL) tried again
else a failed attempt; the end of its stderr is the error
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta

import click
import orjson

from duraq import ExponentialBackoff, FileStorage, Queue, QueueEntry, QueueManager
from duraq.cli.failing import Code
from duraq.cli.options import DURATION, common, settings
from duraq.worker import Worker, WorkerStats

STDERR_BYTES = 8 * 1024
EX_DATAERR, EX_TEMPFAIL = 65, 75


class ProgramFailed(Exception):
    """The program did not exit with 0."""


class BadData(ProgramFailed):
    """The program said that the payload can never be worked (65)."""


class TemporaryFailure(ProgramFailed):
    """The program said that it may work later (75)."""


class _Policy(ExponentialBackoff):
    """Bad data is dead at once; everything else as ever."""

    def should_move_to_dead_letter(self, attempts: int, error: object | None = None) -> bool:
        return isinstance(error, BadData) or super().should_move_to_dead_letter(attempts, error)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("queue")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-j", "--jobs", type=click.IntRange(1), default=1, help="Programs at once.")
@click.option("--lease", type=DURATION, default=timedelta(minutes=5), help="Renewed while the program runs.")
@click.option("--max-attempts", type=click.IntRange(1), default=5, help="Then to the dead letters.")
@click.option("--backoff", type=DURATION, default=timedelta(seconds=1), help="Before the second attempt.")
@click.option("--grace", type=DURATION, default=timedelta(seconds=30), help="For programs at SIGTERM.")
@click.option("--once", is_flag=True, help="One entry, then end; exit status 3 if there was none.")
@click.option("--drain", is_flag=True, help="End when nothing is left.")
@common
def run(
    queue: str,
    command: tuple[str, ...],
    jobs: int,
    lease: timedelta,
    max_attempts: int,
    backoff: timedelta,
    grace: timedelta,
    once: bool,
    drain: bool,
) -> int:
    """Work QUEUE with COMMAND: the payload, as JSON, on its stdin; its exit status decides.

    The program finds $DURAQ_ID, $DURAQ_QUEUE and $DURAQ_ATTEMPT in its environment.
    """
    said = settings()
    policy = _Policy(max_attempts=max_attempts, base_delay=backoff)
    programs = _Programs(command)
    with FileStorage(said.storage(), create=False) as storage:
        working: Queue[object] = QueueManager(storage).queue(queue, retry_policy=policy, lock_duration=lease)
        worker: Worker[object] = Worker(working, programs, threads=jobs, grace=grace)
        stats = worker.run(drain=drain or once, limit=1 if once else None)
        programs.end()
    said.say(_summary(stats))
    taken = stats.completed + stats.failed + stats.dead + stats.released + stats.lost
    return Code.NOTHING if once and not taken else Code.DONE


def _summary(stats: WorkerStats) -> str:
    failed = f"{stats.failed} to be tried again, {stats.dead} dead"
    return f"{stats.completed} done, {failed}, {stats.released} given back"


class _Programs:
    """The handler: one child process for each entry."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def __call__(self, entry: QueueEntry[object]) -> None:
        environment = {
            **os.environ,
            "DURAQ_ID": entry.id,
            "DURAQ_QUEUE": entry.queue,
            "DURAQ_ATTEMPT": str(entry.attempts),
        }
        # Its own process group: a Ctrl-C at the terminal is for duraq, which lets programs finish.
        child = subprocess.Popen(  # noqa: S603 - the command is what the caller asked for
            self._command,
            stdin=subprocess.PIPE,
            stdout=sys.stdout.fileno(),
            stderr=subprocess.PIPE,
            env=environment,
            process_group=0,
        )
        with self._lock:
            self._running.add(child)
        try:
            errors = _talk(child, orjson.dumps(entry.data, option=orjson.OPT_APPEND_NEWLINE))
        finally:
            with self._lock:
                self._running.discard(child)
        _judge(child.returncode, errors)

    def end(self) -> None:
        """After the grace: a program that still runs works on an entry that was given back."""
        with self._lock:
            running = list(self._running)
        for number in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + 1
            for child in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, number)
            for child in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.0, until - time.monotonic()))


def _talk(child: subprocess.Popen[bytes], payload: bytes) -> bytes:
    """Give the child its payload, pass its stderr on, and return the end of that."""
    assert child.stdin is not None
    assert child.stderr is not None

    def feed() -> None:
        # A program need not read what it is given.
        with contextlib.suppress(BrokenPipeError), child.stdin as pipe:  # type: ignore[union-attr]
            pipe.write(payload)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    end = b""
    with child.stderr:
        while piece := child.stderr.read1(STDERR_BYTES):  # type: ignore[attr-defined]
            os.write(sys.stderr.fileno(), piece)
            end = (end + piece)[-STDERR_BYTES:]
    child.wait()
    feeder.join()
    return end


def _judge(status: int, errors: bytes) -> None:
    if status == 0:
        return
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    text = errors.decode("utf-8", "backslashreplace").strip()
    kind = {EX_DATAERR: BadData, EX_TEMPFAIL: TemporaryFailure}.get(status, ProgramFailed)
    raise kind(f"{how}: {text}" if text else how)
