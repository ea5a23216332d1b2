"""Running a command: its errors become one line and an exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import click

from duraq.cli.failing import Code, CommandError, code_of
from duraq.cli.options import Settings
from duraq.errors import DuraqError
from duraq.safe_text import ascii_json, safe_text


class Terminated(BaseException):
    """SIGTERM came."""


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def run_safely(command: click.Command, arguments: list[str]) -> int:  # noqa: PLR0911 - one for each ending
    """Run the command and return its exit code."""
    said = Settings()
    try:
        signal.signal(signal.SIGTERM, _terminate)
        code = command.main(arguments, prog_name="duraq", standalone_mode=False, obj=said)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        if said.output in {"json", "jsonl"}:
            return _report(said, CommandError(Code.USAGE, error.format_message()))
        error.show()
        return Code.USAGE
    except (KeyboardInterrupt, click.Abort):
        return Code.INTERRUPTED
    except Terminated:
        return Code.TERMINATED
    except BrokenPipeError:
        # Whoever read has had enough. Nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Code.DONE
    except (CommandError, DuraqError, OSError) as error:
        return _report(said, error)
    return code if isinstance(code, int) else Code.DONE


def _report(said: Settings, error: Exception) -> int:
    code = code_of(error)
    hint = getattr(error, "hint", None)
    message = safe_text(error, 4000)
    if said.output in {"json", "jsonl"}:
        body = {"code": int(code), "type": type(error).__name__, "message": message, "hint": hint}
        click.echo(ascii_json({"error": body}), err=True)
    else:
        text = f"duraq: {message}"
        if isinstance(error, CommandError) and hint:
            text += f" ({safe_text(hint, 400)})"
        click.echo(text, err=True)
    return code
