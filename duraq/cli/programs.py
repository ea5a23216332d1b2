"""One child process for each entry: its payload on stdin, the end of its stderr kept, its exit awaited."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import IO

from duraq.cli.guard import Guard
from duraq.model import AttemptError

STDERR_BYTES = 8 * 1024
# How often a program's lease is looked at, in seconds; its output and its end are noticed at once.
_LOOK = 0.5
# How long a program that is of no use any more may take to end after SIGTERM.
_PATIENCE = 5.0


class ProgramFailed(Exception):
    """The program did not exit with 0."""

    def __init__(self, status: int, errors: bytes) -> None:
        how = f"killed by {_signal_name(-status)}" if status < 0 else f"exit status {status}"
        self.errors = errors.decode("utf-8", "backslashreplace").strip()
        last = self.errors.rpartition("\n")[2]
        super().__init__(f"{how}: {last}" if last else how)

    def as_text(self) -> AttemptError:
        """What the entry's history keeps: how it ended, and the end of stderr."""
        return AttemptError(type(self).__name__, str(self), self.errors)


class BadData(ProgramFailed):
    """The program said that the payload can never be worked."""


class TemporaryFailure(ProgramFailed):
    """The program said that it may work later."""


class CannotStart(BaseException):
    """The program cannot be started. Not an Exception: it is no fault of the entry, and ends the worker."""


class Programs:
    """Runs programs and knows which are running."""

    def __init__(self, command: Sequence[str], guard: Guard, *, to_stderr: bool = False) -> None:
        self._command = command
        self._guard = guard
        self._stdout = 2 if to_stderr else None
        self._running: set[subprocess.Popen[bytes]] = set()
        # Who holds it knows that no program in the set has been reaped, so that its pid is still its own.
        self._changed = threading.Condition()

    def run(self, payload: bytes, environment: Mapping[str, str], lost: threading.Event) -> tuple[int, bytes]:
        """Run the program to its end; returns its exit status (negative: the signal) and stderr's end.

        Once ``lost`` is set the program is told to end: what it does counts no more. Raises CannotStart.
        """
        try:
            # Its own process group: a Ctrl-C at the terminal is for duraq, which lets programs finish.
            child = subprocess.Popen(  # noqa: S603 - the command is what the caller asked for
                self._command,
                stdin=subprocess.PIPE,
                stdout=self._stdout,
                stderr=subprocess.PIPE,
                env=environment,
                process_group=0,
            )
        except OSError as error:
            raise CannotStart(f"{self._command[0]}: {error.strerror}") from error
        assert child.stdin is not None
        assert child.stderr is not None
        with child.stdin, child.stderr:
            with self._changed:
                self._running.add(child)
            self._guard.add(child.pid)
            errors = self._attend(child, child.stdin, child.stderr, payload, lost)
            with self._changed:
                self._running.discard(child)
                # Before it is reaped: until then nobody else has its number.
                self._guard.discard(child.pid)
                status = child.wait()
                self._changed.notify_all()
            return status, errors

    def end(self) -> None:
        """End all programs that still run, and wait for them."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with self._changed:
                for child in self._running:
                    _kill(child, number)
                self._changed.wait_for(lambda: not self._running, _PATIENCE)

    def _attend(
        self,
        child: subprocess.Popen[bytes],
        stdin: IO[bytes],
        stderr: IO[bytes],
        payload: bytes,
        lost: threading.Event,
    ) -> bytes:
        """Feed the program, pass its stderr on, and return the end of that when the program has ended."""
        tail = b""
        left = memoryview(payload)
        kill_at = 0.0
        with ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            ended = os.pidfd_open(child.pid)
            stack.callback(os.close, ended)
            for pipe in (stdin, stderr):
                os.set_blocking(pipe.fileno(), False)
            selector.register(ended, selectors.EVENT_READ)
            selector.register(stderr, selectors.EVENT_READ)
            selector.register(stdin, selectors.EVENT_WRITE)
            while True:
                ready = {key.fileobj for key, _ in selector.select(_LOOK)}
                if stdin in ready:
                    left = _feed(stdin, left)
                    if not left:
                        selector.unregister(stdin)
                        with suppress(BrokenPipeError):
                            stdin.close()
                if stderr in ready:
                    piece = _read(stderr)
                    tail = (tail + (piece or b""))[-STDERR_BYTES:]
                    if piece == b"":
                        selector.unregister(stderr)
                if ended in ready:
                    # What it left in the pipe; whoever else holds the other end is not waited for.
                    while piece := _read(stderr):
                        tail = (tail + piece)[-STDERR_BYTES:]
                    return tail
                if lost.is_set() and time.monotonic() >= kill_at:
                    with self._changed:
                        _kill(child, signal.SIGKILL if kill_at else signal.SIGTERM)
                    kill_at = time.monotonic() + _PATIENCE


def _feed(stdin: IO[bytes], left: memoryview) -> memoryview:
    """Write what the pipe takes; what is left. Nothing, if the program does not care to read it."""
    try:
        return left[os.write(stdin.fileno(), left) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]


def _read(stderr: IO[bytes]) -> bytes | None:
    """What is there, which also goes to our own stderr; b"" at the end, None if there is nothing yet."""
    try:
        piece = os.read(stderr.fileno(), 1 << 16)
    except BlockingIOError:
        return None
    try:
        os.write(2, piece)
    except OSError as error:
        # A log that nobody takes any more must not fail the work.
        if error.errno not in {errno.EPIPE, errno.EAGAIN, errno.ENOSPC, errno.EIO}:
            raise
    return piece


def _kill(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
