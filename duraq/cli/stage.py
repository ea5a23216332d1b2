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

from duraq.cli.failing import Code, CommandError, code_of
from duraq.cli.options import Settings
from duraq.errors import NotAStorage


class Terminated(BaseException):
    """SIGTERM came."""


def run_safely(command: click.Command, arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    said = Settings()
    with _terminable() as came:
        try:
            code = command.main(list(arguments), prog_name="duraq", standalone_mode=False, obj=said)
            sys.stdout.flush()
        except click.exceptions.Exit as done:
            return done.exit_code
        except (KeyboardInterrupt, click.Abort, Terminated):
            # Code in C that was interrupted may call every signal an interrupt.
            return Code.TERMINATED if came else Code.INTERRUPTED
        except BrokenPipeError:
            # Whoever read has had enough. Nothing may be flushed into the closed pipe at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Code.DONE
        except Exception as error:  # noqa: BLE001 - the last stop: a person gets a line, not a traceback
            return _report(said, error, as_json=said.is_json or _wants_json(arguments))
    return code if isinstance(code, int) else Code.DONE


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


def _report(said: Settings, error: Exception, *, as_json: bool) -> int:
    # Here, for orjson comes with it and --help has no use for that.
    from duraq.safe_text import ascii_json, safe_lines, safe_text  # noqa: PLC0415

    code, message, hint, context = _explain(said, error)
    if as_json:
        body = {"code": int(code), "type": type(error).__name__, "message": message, "hint": hint}
        click.echo(ascii_json({"error": body}), err=True)
        return code
    if context:
        click.echo(safe_lines(context), err=True)
    text = f"duraq: {safe_text(message, 4000)}"
    # The hint of a storage's error is part of its message.
    if hint and hint not in message:
        text += f" ({safe_text(hint, 400)})"
    click.echo(text, err=True)
    if code is Code.UNEXPECTED and said.verbose:
        import traceback  # noqa: PLC0415 - for whoever asks for it

        click.echo(safe_lines("".join(traceback.format_exception(error))), err=True)
    return code


def _explain(said: Settings, error: Exception) -> tuple[Code, str, str | None, str]:
    """Code, message, hint, and what stands before the message."""
    if isinstance(error, click.UsageError):
        context = "" if error.ctx is None else error.ctx.get_usage()
        command = "duraq" if error.ctx is None else error.ctx.command_path
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            return Code.USAGE, "nothing to do", None, error.format_message()
        return Code.USAGE, error.format_message(), f"see {command} --help", context
    if isinstance(error, click.ClickException):
        return Code.UNEXPECTED, error.format_message(), None, ""
    code = code_of(error)
    hint: str | None = getattr(error, "hint", None)
    message = str(error)
    if isinstance(error, NotAStorage):
        root, rule = said.found_root()
        hint = f"the storage {str(root)!r} was named by {rule}"
    elif code is Code.UNEXPECTED and not isinstance(error, CommandError | OSError) and not _is_ours(error):
        message = f"unexpected {type(error).__name__}: {message}"
    return code, message, hint, ""


def _is_ours(error: Exception) -> bool:
    return type(error).__module__.startswith("duraq.")
