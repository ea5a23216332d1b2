"""run: work a queue with any program. The payload on its stdin, its exit status decides.

0     done
65    (EX_DATAERR) dead at once
75    (EX_TEMPFAIL) a failed attempt, of which the program says that the next may succeed
else  a failed attempt; the end of its stderr is the error
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import orjson

from duraq.cli.completing import QUEUE
from duraq.cli.failing import Code, CommandError
from duraq.cli.feed import WAITED_FOR, say_if_paused
from duraq.cli.guard import Guard
from duraq.cli.notify import OURS, Systemd
from duraq.cli.options import DURATION, Settings, common, settings
from duraq.cli.output import show_rows
from duraq.cli.programs import BadData, CannotStart, ProgramFailed, Programs, TemporaryFailure
from duraq.errors import DuraqError, QueueNotFound
from duraq.model import AttemptError, EntryStatus, QueueEntry
from duraq.queue import Queue
from duraq.retry import ExponentialBackoff
from duraq.worker import Worker, WorkerStats, signals_to

EX_DATAERR, EX_TEMPFAIL = 65, 75
_LONGEST_WAIT = 0.5  # seconds
_STATUS = 5.0  # between two of what is said of how it goes, if that changes
_TO_END = timedelta(seconds=15)  # after the grace: programs that do not end are killed, and files closed
STOPPING = b"stopping when what runs is done; once more to stop it now\n"


class _Codes(click.ParamType[frozenset[int]]):
    """65,66: exit statuses."""

    name = "codes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[int]:
        if isinstance(value, frozenset):
            return value
        numbers = value.split(",")
        if not all(number.isascii() and number.isdigit() and 0 < int(number) < 256 for number in numbers):
            self.fail(f"{value!r} is not a list of exit statuses such as 65,66", param, ctx)
        return frozenset(map(int, numbers))


class _ProgramQueue(Queue[Any]):
    """A queue whose entries' errors come from programs."""

    def mark_failed(
        self,
        entry: QueueEntry[Any] | str,
        error: BaseException | AttemptError | str | None = None,
        *,
        retry_in: timedelta | None = None,
        dead: bool = False,
    ) -> EntryStatus:
        if isinstance(error, ProgramFailed):
            # A traceback would show how duraq waited; what the program said stands in its place.
            dead = dead or isinstance(error, BadData)
            error = error.as_text()
        return super().mark_failed(entry, error, retry_in=retry_in, dead=dead)


@click.command()
@click.argument("queue", type=QUEUE)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-j", "--jobs", type=click.IntRange(1), default=1, help="Programs at once.")
@click.option("--lease", type=DURATION, default=timedelta(minutes=5), help="Renewed while the program runs.")
@click.option("--max-attempts", type=click.IntRange(1), default=5, help="Then to the dead letters (5).")
@click.option(
    "--backoff", type=DURATION, default=timedelta(seconds=1), help="Before the second attempt (1s)."
)
@click.option("--dead-on", type=_Codes(), default=frozenset(), help="These exit statuses too mean: dead.")
@click.option("--retry-on", type=_Codes(), default=frozenset(), help="These too mean what 75 does.")
@click.option("--grace", type=DURATION, default=timedelta(seconds=30), help="For programs at SIGTERM (30s).")
@click.option("--once", is_flag=True, help="One entry, then end; exit status 3 if there was none.")
@click.option(
    "--drain", is_flag=True, help="End when nothing is ready; what is to be tried again later stays."
)
@click.option("--notify", is_flag=True, help="Tell systemd how it goes (Type=notify, WatchdogSec=).")
@common
def run(
    queue: str,
    command: tuple[str, ...],
    jobs: int,
    lease: timedelta,
    max_attempts: int,
    backoff: timedelta,
    dead_on: frozenset[int],
    retry_on: frozenset[int],
    grace: timedelta,
    once: bool,
    drain: bool,
    notify: bool,
) -> int:
    """Work QUEUE with COMMAND: the payload, as JSON, on its stdin; its exit status decides.

    0 is done, 65 is dead at once, all else (75 too, which says so in its error) a failed attempt that is
    tried again until --max-attempts. Put -- before a COMMAND that has options. It finds $DURAQ_ID,
    $DURAQ_QUEUE, $DURAQ_ATTEMPT and $DURAQ_ROOT in its environment. `duraq help systemd` has a unit for it.
    """
    said = settings()
    if shutil.which(command[0]) is None:
        # Found out now, it costs no entry an attempt.
        raise _no_program(command)
    policy = ExponentialBackoff(max_attempts=max_attempts, base_delay=backoff)
    root = said.url()
    with closing(Guard()) as guard, said.open() as storage:
        programs = Programs(command, guard, to_stderr=said.is_json)
        systemd = Systemd(os.environ if notify else {})
        inherited = {name: text for name, text in os.environ.items() if name not in OURS}

        def handle(entry: QueueEntry[Any]) -> None:
            environment = {
                **inherited,
                "DURAQ_ROOT": root,
                "DURAQ_ID": entry.id,
                "DURAQ_QUEUE": entry.queue,
                "DURAQ_ATTEMPT": str(entry.attempts),
            }
            payload = orjson.dumps(entry.data, option=orjson.OPT_APPEND_NEWLINE)
            status, errors = programs.run(payload, environment, entry.lost or threading.Event())
            if status in {EX_DATAERR, *dead_on}:
                raise BadData(status, errors)
            if status in {EX_TEMPFAIL, *retry_on}:
                raise TemporaryFailure(status, errors)
            if status:
                raise ProgramFailed(status, errors)

        working = _ProgramQueue(queue, storage, retry_policy=policy, lock_duration=lease)
        _say_why_nothing_comes(said, working, storage.queues(), waits=not (drain or once))
        pulse = None if systemd.watchdog is None else (lambda: systemd.tell(WATCHDOG=1), systemd.watchdog / 2)
        worker = Worker(working, handle, threads=jobs, grace=grace, pulse=pulse)
        told = _Told(said, systemd, working, grace)
        try:
            stats, signals = _work(told, worker, drain=drain or once, limit=1 if once else None)
        except CannotStart as error:
            raise CommandError(Code.UNEXPECTED, str(error), "its entry was given back") from None
        finally:
            # After the grace: a program that still runs works on an entry that was given back.
            programs.end()
    counts = {name: getattr(stats, name) for name in ("completed", "failed", "dead", "released", "lost")}
    said.say(", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing to take")
    if said.output is not None:
        show_rows(said, "duraq.run/1", ("queue", *counts), [{"queue": queue, **counts}], name="queue")
    if signals:
        return Code.TERMINATED if signal.SIGTERM in signals else Code.INTERRUPTED
    return Code.NOTHING if once and not any(counts.values()) else Code.DONE


def _no_program(command: tuple[str, ...]) -> CommandError:
    program = command[0]
    if Path(program).is_file():
        if "/" in program:
            return CommandError(
                Code.USAGE, f"{program!r} is not executable", "chmod +x, or name what runs it"
            )
        return CommandError(Code.USAGE, f"there is no program {program!r} in $PATH", f"is it ./{program}?")
    if len(command) == 1 and " " in program:
        hint = "give its words one by one, or let a shell read it: sh -c '...'"
        return CommandError(Code.USAGE, f"there is no program {program!r}", hint)
    return CommandError(Code.USAGE, f"there is no program {program!r}")


def _say_why_nothing_comes(said: Settings, queue: Queue[Any], there: list[str], *, waits: bool) -> None:
    if queue.name not in there:
        missing = QueueNotFound.among(queue.name, there)
        said.say(f"{missing}; {WAITED_FOR if waits else 'it comes into being by its first entry'}")
    # Leases are judged as far as they are known; this process has seen none yet.
    queue.counts()
    say_if_paused(said, queue)


class _Told:
    """Who is told how it goes: somebody at a terminal, and systemd."""

    def __init__(self, said: Settings, systemd: Systemd, queue: Queue[Any], grace: timedelta) -> None:
        self._said = said
        self._systemd = systemd
        self._queue = queue
        self._grace = grace
        self._status_at = 0.0

    def begun(self) -> None:
        """The storage is open, and entries are taken."""
        self._systemd.tell(READY=1)

    def stopping(self) -> None:
        """No more entries are taken; what runs may go on for the grace. Called by a signal handler."""
        patience = (self._grace + _TO_END) // timedelta(microseconds=1)
        self._systemd.tell(STOPPING=1, EXTEND_TIMEOUT_USEC=patience, STATUS="stopping when what runs is done")
        if not self._said.quiet and not self._said.is_json:
            # Not through sys.stderr: the signal may have come in the middle of a write to it.
            os.write(2, STOPPING)

    def goes_on(self) -> None:
        """Another moment has passed."""
        now = time.monotonic()
        if not self._systemd.is_there or now < self._status_at:
            return
        self._status_at = now + _STATUS
        with suppress(DuraqError):
            counts = self._queue.counts()
            self._systemd.status(
                f"{self._queue.name}: {counts.ready} ready, {counts.leased} being worked, {counts.dead} dead"
            )


def _work(
    told: _Told, worker: Worker[Any], *, drain: bool, limit: int | None
) -> tuple[WorkerStats, list[int]]:
    """Run the worker in a thread of its own, so that this one learns which signals stopped it."""
    signals: list[int] = []
    outcome: list[WorkerStats | BaseException] = []

    def stop(number: int) -> None:
        signals.append(number)
        worker.stop(now=len(signals) > 1)
        if len(signals) == 1:
            told.stopping()

    def work() -> None:
        try:
            outcome.append(worker.run(drain=drain, limit=limit))
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            outcome.append(error)

    thread = threading.Thread(target=work, name="duraq-run")
    with signals_to(stop, signal.SIGTERM, signal.SIGINT):
        thread.start()
        told.begun()
        while thread.is_alive():
            if not signals:
                told.goes_on()
            # A signal that comes just before the wait does not end it; its handler runs at the next turn.
            thread.join(_LONGEST_WAIT)
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result, signals
