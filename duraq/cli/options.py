"""Options that every command takes, before or after its name, and the types of their values."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from duraq.cli.failing import Code, CommandError
from duraq.errors import NotAStorage

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from duraq.config import Config
    from duraq.storage.base import Storage
    from duraq.storage.file import FileStorage
    from duraq.where import Where

_DURATION = re.compile(r"[+-]?(0|([0-9.]+[a-zµμ]+)+)")
F = TypeVar("F", bound=Callable[..., Any])
FORMATS = ("table", "json", "jsonl", "csv", "tsv", "ids")


@dataclass
class Settings:
    """What the common options say. One for each call of the command line, kept in click's context."""

    root: str | None = None
    output: str | None = None
    fields: str | None = None
    color: str | None = None
    time: str | None = None
    header: bool = True
    quiet: bool = False
    verbose: int = 0
    no_input: bool = False
    ascii: bool = False
    pager: bool = True
    paging: bool = False  # what is printed goes to a pager just now

    @cached_property
    def config(self) -> Config:
        """What is settled in the user's file."""
        from duraq.config import load  # noqa: PLC0415 - only who goes by it

        return load()

    @property
    def at_terminal(self) -> bool:
        """Whether a person reads what is printed."""
        return self.paging or sys.stdout.isatty()

    @property
    def is_json(self) -> bool:
        """Whether a program reads what is said, errors included."""
        return self.output in {"json", "jsonl"}

    @property
    def style(self) -> str:
        """How rows are written: as asked for; else a table for a person and TSV for a program."""
        return self.output or ("table" if self.at_terminal else "tsv")

    @property
    def colored(self) -> bool:
        """Whether stdout may have colours."""
        if self.color not in {None, "auto"}:
            return self.color == "always"
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return False
        settled = "auto" if self.color else self.config.color
        return self.at_terminal if settled == "auto" else settled == "always"

    @property
    def can_ask(self) -> bool:
        """Whether there is a person to ask."""
        return not self.no_input and sys.stdin.isatty() and sys.stderr.isatty()

    def found_root(self) -> tuple[str, str]:
        """What names the storage, a directory or a URL, and what named that.

        Flag, $DURAQ_ROOT, ./.duraq if it is there, config, ~/.local/state/duraq.
        """
        if self.root:
            return self.root, "--root"
        if os.environ.get("DURAQ_ROOT"):
            return os.environ["DURAQ_ROOT"], "$DURAQ_ROOT"
        if Path(".duraq").is_dir():
            return ".duraq", "./.duraq"
        if self.config.root is not None:
            return self.config.root, str(self.config.path)
        state = os.environ.get("XDG_STATE_HOME")
        home = Path(state) if state else Path.home() / ".local" / "state"
        return str(home / "duraq"), "the default place"

    def place(self) -> tuple[str, str]:
        """The kind of the storage, and where it is: its directory, or the URL of a database."""
        root = self.found_root()[0]
        kind, colon, _ = root.partition(":")
        if (not colon or "/" in kind) and "=" not in root:
            return "file", root
        from duraq.storage import registry  # noqa: PLC0415 - a directory needs none of it

        kind, where = registry.taken_apart(root)
        if kind == "memory":
            raise CommandError(
                Code.USAGE,
                "memory: lasts as long as the process that has it, and so no longer than one command",
                "name a directory or a database",
            )
        return (kind, where) if kind == "file" else (kind, root)

    def storage(self) -> Path:
        """The storage's directory. Raises CommandError if it is a database."""
        kind, where = self.place()
        if kind != "file":
            raise CommandError(Code.USAGE, f"this is about the files of a storage, and {kind}: has none")
        return Path(where)

    def url(self) -> str:
        """The storage, as a process that runs elsewhere can name it. It may have a password in it."""
        kind, where = self.place()
        if kind == "file":
            return str(Path(where).absolute())
        from duraq.storage import registry  # noqa: PLC0415 - as above

        return registry.absolute(where)

    def open(self, *, create: bool = False, **options: Any) -> Storage:
        """The storage, to change."""
        kind, where = self.place()
        if kind == "file":
            return self.open_files(create=create, **options)
        from duraq.cli.databases import opened  # noqa: PLC0415 - as above

        return opened(self, where, create=create, **options)

    def open_files(self, *, create: bool = False, **options: Any) -> FileStorage:
        """The same, if it is a directory. Raises CommandError if not."""
        from duraq.cli.logs import to_stderr  # noqa: PLC0415 - only who changes something pays for it
        from duraq.storage.file import FileStorage  # noqa: PLC0415

        to_stderr(self)
        root = self.storage()
        missing = not root.exists()
        if missing and not create:
            raise NotAStorage("there is no such directory", path=root)
        storage = FileStorage(root, create=create, **options)
        if missing:
            self.say_made(storage.path)
        return storage

    def say_made(self, name: str) -> None:
        """Say that there is a new storage."""
        # A mistyped path makes one too; that should not go unnoticed.
        self.say(f"made a new storage: {name} (named by {self.found_root()[1]})")

    def say(self, text: str) -> None:
        """Say a line to a person, on stderr, unless asked to be quiet. Who wants JSON gets no talk."""
        from duraq.safe_text import safe_text  # noqa: PLC0415 - most commands succeed in silence

        if not self.quiet and not self.is_json:
            click.echo(safe_text(text), err=True)


def settings() -> Settings:
    """The settings of the running command."""
    return click.get_current_context().ensure_object(Settings)


def _store(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    # What is not given leaves what stood before the command's name.
    if value is not None and not (parameter.name == "verbose" and value == 0):
        name = "output" if parameter.name in {"json", "jsonl"} else str(parameter.name)
        setattr(context.ensure_object(Settings), name, parameter.name if name != parameter.name else value)


def _only_ascii(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
    if value:
        import codecs  # noqa: PLC0415 - for those who want it
        from encodings import ascii as plain  # noqa: PLC0415

        # By another name: of what is called ASCII, click believes that it was not meant.
        found = plain.getregentry()
        found.name = "duraq-ascii"
        codecs.register(lambda name: found if name == "duraq_ascii" else None)
        for stream in (sys.stdout, sys.stderr):
            # From here on; nothing was printed before.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="duraq_ascii", errors="backslashreplace")
        context.ensure_object(Settings).ascii = True


def _some_fields(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from duraq.cli.completing import last_of_many  # noqa: PLC0415 - when somebody presses Tab
    from duraq.cli.overview import QUEUE_COLUMNS  # noqa: PLC0415
    from duraq.cli.rows import ENTRY_COLUMNS, ENTRY_MORE  # noqa: PLC0415

    of_entries = dict.fromkeys((*ENTRY_COLUMNS, *ENTRY_MORE))
    names = QUEUE_COLUMNS if ctx.info_name in {"stats", "top"} else tuple(of_entries)
    return last_of_many(incomplete, ",", names)


class Option:
    """A decorator that knows the names of its option."""

    def __init__(self, *names: str, **attributes: Any) -> None:
        self.names = names
        self._attributes = attributes

    def __call__(self, command: F) -> F:
        decorate = click.option(
            *self.names, expose_value=False, is_eager=True, **{"callback": _store} | self._attributes
        )
        return decorate(command)


def common(command: F, *, without: str = "") -> F:
    """Give a command the common options (but for one, if it has another of that name)."""
    for option in reversed(
        [
            Option("-C", "--root", metavar="DIR|URL", help="The storage."),
            Option("-o", "--output", type=click.Choice(FORMATS), help="Default: table, or tsv in a pipe."),
            Option("--json", is_flag=True, default=None, help="Short for -o json."),
            Option("--jsonl", is_flag=True, default=None, help="Short for -o jsonl."),
            Option(
                "--fields", metavar="A,B", shell_complete=_some_fields, help="Which columns, in which order."
            ),
            Option("--color", type=click.Choice(["auto", "always", "never"]), help="When to use colour."),
            Option("--ascii", is_flag=True, callback=_only_ascii, help="No character beyond ASCII."),
            Option("--time", type=click.Choice(["relative", "local", "utc", "unix"]), help="How times look."),
            Option("--no-header", "header", flag_value=False, default=None, help="No line of column names."),
            Option("-q", "--quiet", is_flag=True, default=None, help="No talk on stderr."),
            Option("-v", "--verbose", count=True, help="More talk on stderr."),
            Option("--no-input", is_flag=True, default=None, help="Never ask."),
            Option("--no-pager", "pager", flag_value=False, default=None, help="Never page by page."),
        ]
    ):
        if without not in option.names:
            command = option(command)
    return command


class Duration(click.ParamType[timedelta]):
    """30s, 1h30m, 250ms; 0."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        import durationpy  # noqa: PLC0415 - only who gives a duration pays for it

        try:
            # It passes over what stands between two pieces, so that 1h?30m would be 90 minutes.
            if _DURATION.fullmatch(value) is None:
                raise durationpy.DurationError  # noqa: TRY301
            return timedelta(0) if value == "0" else durationpy.from_str(value)
        except (durationpy.DurationError, OverflowError):
            self.fail(f"{value!r} is not a duration such as 30s, 1h30m or 250ms", param, ctx)


class Moment(click.ParamType[datetime]):
    """2026-11-24T10:00 (local time), the same with an offset, tomorrow, or @UNIX."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if value.startswith("@"):
                return datetime.fromtimestamp(float(value[1:]), UTC)
            if value in _DAYS:
                midnight = datetime.now(UTC).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
                # Through a naive time, for a day is not always 24 hours long.
                day = midnight.replace(tzinfo=None) + timedelta(days=_DAYS[value])
                return day.astimezone(UTC)
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            self.fail(
                f"{value!r} is not a time such as 2026-11-24T10:00, tomorrow or @1795514400", param, ctx
            )


class Rate(click.ParamType[float]):
    """50/s, 10/m, 3/h: so many a second, a minute, an hour."""

    name = "rate"
    _FORM = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(?:/([smh]))?")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = self._FORM.fullmatch(value)
        if found is None or not float(found[1]):
            self.fail(f"{value!r} is not a rate such as 50/s or 10/m", param, ctx)
        return float(found[1]) / {"m": 60, "h": 3600}.get(found[2], 1)


class Percent(click.ParamType[float]):
    """5, 5%, 0.5%: a share, of a hundred."""

    name = "percent"
    _FORM = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)%?")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = self._FORM.fullmatch(value)
        if found is None or float(found[1]) > 100:
            self.fail(f"{value!r} is not a share such as 5%", param, ctx)
        return float(found[1]) / 100


class Past(Moment):
    """-1h or 1h (ago), now, yesterday, and whatever a Moment is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        if value == "now":
            return datetime.now(UTC)
        if _DURATION.fullmatch(value.removeprefix("-")):
            ago: timedelta = DURATION.convert(value.removeprefix("-"), param, ctx)
            try:
                return datetime.now(UTC) - ago
            except OverflowError:
                self.fail(f"{value!r} is too long ago", param, ctx)
        return super().convert(value, param, ctx)


class Filter(click.ParamType["Where"]):
    """queue:mail err:HTTPError age>1h, as docs/WHERE.md has it."""

    name = "filter"

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> Where:
        from duraq.where import Where  # noqa: PLC0415 - only who gives a filter pays for it

        return value if isinstance(value, Where) else Where.parse(value)

    def shell_complete(
        self, _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from duraq.cli.completing import last_of_many  # noqa: PLC0415 - when somebody presses Tab
        from duraq.fields import FIELDS  # noqa: PLC0415

        return last_of_many(incomplete, " ", FIELDS)


_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
DURATION = Duration()
MOMENT = Moment()
PAST = Past()
RATE, PERCENT = Rate(), Percent()
FILTER_HELP = """\b
A FILTER is terms that must all hold, for instance
  queue:mail,billing err:HTTPError -err:~"time.?out" attempts>=5 age>1h payload.user.id=42
docs/WHERE.md has all fields and operators.
"""


def filtered(command: F) -> F:
    """Give a command the option that names the entries that are meant."""
    return click.option("-w", "--where", type=Filter(), metavar="FILTER", help="Only entries that match.")(
        command
    )


def in_time(command: F) -> F:
    """Give a command the options that name a stretch of time, as ``since`` and ``until``."""
    for option in (
        click.option("--until", type=PAST, metavar="T", help="Up to then; in the same forms."),
        click.option(
            "--since", type=PAST, metavar="T", help="From then on: -1h, 90m, today, 2026-11-24 10:00, @UNIX."
        ),
    ):
        command = option(command)
    return command
