"""Running a command: whatever happens, it ends with an exit code and at most a few safe lines."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import FrameType

import click

from duraq.cli.failing import Code
from duraq.cli.options import Settings


class Terminated(BaseException):
    """SIGTERM came."""


def run_safely(command: click.Command, arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    said = Settings()
    with _terminable() as came:
        try:
            code = _call(command, list(arguments), said)
            sys.stdout.flush()
        except click.exceptions.Exit as done:
            return done.exit_code
        except (KeyboardInterrupt, EOFError, click.Abort, Terminated):
            # Code in C that was interrupted may call every signal an interrupt.
            return Code.TERMINATED if came else Code.INTERRUPTED
        except BrokenPipeError:
            # Whoever read has had enough. Nothing may be flushed into the closed pipe at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Code.DONE
        except Exception as error:  # noqa: BLE001 - the last stop: a person gets a line, not a traceback
            from duraq.cli.reports import report  # noqa: PLC0415 - what is written well has no use for it

            return report(said, error, as_json=said.is_json or _wants_json(arguments))
    return code if isinstance(code, int) else Code.DONE


def _call(command: click.Command, arguments: list[str], said: Settings) -> object:
    if "_DURAQ_COMPLETE" in os.environ:
        # A shell asks what could come next.
        return command.main(arguments, prog_name="duraq", obj=said)
    # Not main(): that has ways of its own with interrupts and closed pipes.
    with command.make_context("duraq", arguments, obj=said) as context:
        return command.invoke(context)


@contextmanager
def _terminable() -> Iterator[list[int]]:
    """SIGTERM ends the command as Ctrl-C does: what is open is closed, and waiters leave the line."""
    came: list[int] = []

    def terminate(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether errors are to be JSON, told from arguments that may not have been understood."""
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--json" in ours or ("--jsonl" in ours and "put" not in ours):
        return True
    values = [value for option, value in pairwise(ours) if option in {"-o", "--output"}]
    return any(value in {"json", "jsonl"} for value in values)
