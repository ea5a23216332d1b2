"""What a command says of an error, to a person or to a program."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import click

from duraq.cli.failing import Code, CommandError, code_of
from duraq.cli.options import Settings
from duraq.errors import InvalidFilter, NotAStorage
from duraq.journal.opening import UNMARKED
from duraq.safe_text import ascii_json, safe_lines, safe_text, without_password


def report(said: Settings, error: Exception, *, as_json: bool | None = None) -> Code:
    """Say it on stderr; returns its exit code."""
    code, message, hint, context = _explain(said, error)
    message, hint = without_password(message), None if hint is None else without_password(hint)
    if said.is_json if as_json is None else as_json:
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
        trace = "".join(traceback.format_exception(error))
        click.echo(safe_lines(without_password(trace)), err=True)
    return code


def _explain(said: Settings, error: Exception) -> tuple[Code, str, str | None, str]:
    """Code, message, hint, and what stands before the message."""
    if isinstance(error, click.UsageError):
        context = "" if error.ctx is None else error.ctx.get_usage()
        command = "duraq" if error.ctx is None else error.ctx.command_path
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            return Code.USAGE, "no command was given", None, error.format_message()
        # What there is to choose from stands in lines of its own, with tabs.
        message = " ".join(error.format_message().split())
        return Code.USAGE, message, f"see {command} --help", context
    if isinstance(error, InvalidFilter):
        return Code.USAGE, f"--where: {error.reason}", None, error.excerpt
    if isinstance(error, click.ClickException):
        return Code.UNEXPECTED, error.format_message(), None, ""
    code = code_of(error)
    hint: str | None = getattr(error, "hint", None)
    message = str(error)
    if isinstance(error, NotAStorage):
        hint = _way_to_a_storage(said, error)
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        message = f"{os.fsdecode(error.filename)}: {error.strerror}"
    elif code is Code.UNEXPECTED and not isinstance(error, CommandError | OSError) and not _is_ours(error):
        message = f"unexpected {type(error).__name__}: {message}"
    return code, message, hint, ""


def _way_to_a_storage(said: Settings, error: NotAStorage) -> str | None:
    """What names the storage, and what else might; nothing if the error is about another directory."""
    root, rule = said.found_root()
    is_url = ":" in root.partition("/")[0]
    if error.path is not None and not is_url and Path(error.path).absolute() != Path(root).absolute():
        return error.hint
    named = f"the storage {without_password(root)!r} was named by {rule}"
    if not is_url and Path(root).is_file():
        return f"{named}; is it sqlite:{root}?"
    if not is_url and _lacks_marker(Path(root)):
        return f"{named}; there is a journal in it: {UNMARKED}"
    if not is_url and _has_something(Path(root)):
        return f"{named}; it is not empty, and left alone; -C names another"
    return f"{named}; duraq init makes one, as put does, -C names another"


def _lacks_marker(root: Path) -> bool:
    """Whether that is a storage, but for the file that says so."""
    try:
        return (root / "journal").is_dir()
    except OSError:
        return False


def _has_something(root: Path) -> bool:
    try:
        return any(root.iterdir())
    except OSError:
        return False


def _is_ours(error: Exception) -> bool:
    return type(error).__module__.startswith("duraq.")
