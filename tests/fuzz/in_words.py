"""Texts from strangers: what they type, what they enqueue, and what of it is shown."""

from __future__ import annotations

import io
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from importlib import import_module
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

import click
import orjson

from duraq import options, pattern
from duraq.cli import COMMANDS, cli
from duraq.cli.failing import CommandError
from duraq.cli.input import json_lines, parse_json
from duraq.cli.options import DURATION, MOMENT, PAST, PERCENT, RATE, Settings
from duraq.cli.reports import report
from duraq.config import Config
from duraq.errors import InvalidFilter, InvalidInput, InvalidOption, InvalidPayload, PayloadUndecodable
from duraq.model import Attempt, AttemptError, Cause, EntryStatus, check_queue_name
from duraq.payload import PayloadCodec
from duraq.safe_text import ascii_json, safe_lines, safe_text
from duraq.views import EntryView
from duraq.where import Where

# -- what is shown -----------------------------------------------------------------------------------------

# Signs that precede a number: formats for Unicode, and yet seen.
_SEEN = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def check_shown(text: str) -> None:
    """Nothing in it that a terminal obeys, that reorders, hides or ends a line, or is no character."""
    for character in _SEEN.sub("", text):
        code = ord(character)
        is_none = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
        assert unicodedata.category(character) not in _HIDDEN, ascii(text)
        assert not is_none, ascii(text)
    text.encode()


def shown(data: bytes) -> None:
    """Whatever the text, what is shown of it is safe and short enough, and is the same when shown again."""
    limit = data[0] if data else 0
    for text in (
        data.decode("utf-8", "surrogateescape"),
        data.decode("latin-1"),
        data[: len(data) & ~1].decode("utf-16-le", "surrogatepass"),
    ):
        said = safe_text(text)
        check_shown(said)
        assert safe_text(said) == said
        cut = safe_text(text, limit)
        assert len(cut) <= limit
        assert cut == said if len(said) <= limit else cut.endswith("..."[:limit])
        lines = safe_lines(text)
        check_shown(lines.replace("\n", ""))
        assert safe_lines(lines) == lines
        assert len(safe_lines(text, limit)) <= max(limit, 3)
        written = ascii_json({text: [text]})
        assert written.isascii()
        assert written.isprintable()
        json.loads(written)


# -- nothing runs ------------------------------------------------------------------------------------------

# What they import when it is needed: importing runs code.
_modules = {name if "." in name else f"duraq.cli.{name}" for name, _ in COMMANDS.values()}
for _name in ("difflib", "durationpy", "encodings.ascii", "regex", *sorted(_modules)):
    import_module(_name)

_RUNS = {
    "exec",
    "compile",
    "open",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
}
_watching = False


def _audit(event: str, details: object) -> None:
    if _watching and event in _RUNS:
        raise AssertionError(event, details)


sys.addaudithook(_audit)


@contextmanager
def nothing_runs() -> Iterator[None]:
    """No code is compiled or executed meanwhile, no program started, no file opened and nobody called."""
    global _watching  # noqa: PLW0603 - a hook cannot be taken away
    _watching = True
    try:
        yield
    finally:
        _watching = False


# -- filters -----------------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
_ERROR = AttemptError("HTTPError", "503 from psp.example: timeout", signature="9f3c02ab", host="app1")
_HOUR = timedelta(hours=1)
DEAD = EntryView(
    queue="billing",
    id="0190a1b2-order",
    status=EntryStatus.DEAD,
    priority=-1,
    payload=b'{"user":{"id":42,"name":"Ann"},"items":[{"sku":"A-1"}],"vip":null,"zip":"8000","x":1.5,"y":true}',
    created_at=NOW - 2 * _HOUR,
    updated_at=NOW - _HOUR,
    ready_at=None,
    expires_at=None,
    attempts=5,
    token=17,
    worker="",
    leased_at=None,
    deadline_at=None,
    history=(Attempt(5, Cause.FAILED, _ERROR, "4711-9f3c02ab", NOW - 2 * _HOUR, NOW - _HOUR),),
    key="order-12",
    headers={"trace-id": "5f1c9a1e"},
)
READY = EntryView(
    "mail", "b", EntryStatus.READY, 0, b"[" * 2000 + b"]" * 2000, NOW, NOW, NOW, NOW, 0, 0, "", None, None, ()
)


def where(data: bytes) -> None:
    """A filter is refused, with the place, or is one; written again it is the same, and selects the same."""
    text = data.decode("utf-8", "surrogateescape")
    # A search that does not end is to be ended sooner than a person would have it.
    with nothing_runs(), patch.object(pattern, "PATIENCE", 0.02):
        try:
            found = Where.parse(text, NOW)
        except InvalidFilter as refused:
            error = refused
        else:
            error = None
        if error is not None:
            assert 0 <= error.position <= len(text)
            check_shown(error.excerpt.replace("\n", ""))
            return
        again = Where.parse(str(found), NOW)
        assert str(again) == str(found)
        assert again.states() == found.states()
        assert again.queues(["mail", "billing"]) == found.queues(["mail", "billing"])
        for entry in (DEAD, READY):
            said = [_match(each, entry) for each in (found, again)]
            assert None in said or said[0] is said[1]


def _match(found: Where, entry: EntryView) -> bool | None:
    try:
        return found.matches(entry)
    except InvalidOption:
        return None


# -- the command line --------------------------------------------------------------------------------------


def arguments(data: bytes) -> None:
    """Arguments are understood, or refused in a line that is safe to show; until then nothing is done."""
    given = [each.decode("utf-8", "surrogateescape") for each in data.split(b"\0")]
    with nothing_runs():
        for each in given:
            _check_values(each)
        _check_said(_parsed(given))


def _check_values(text: str) -> None:
    kinds = ((DURATION, timedelta), (MOMENT, datetime), (PAST, datetime), (RATE, float), (PERCENT, float))
    for kind, expected in kinds:
        with suppress(click.UsageError):
            assert isinstance(kind.convert(text, None, None), expected)
            assert kind is not DURATION or re.fullmatch(r"[+-]?([0-9.]+[a-zµμ]+|0)+", text)
    for check in (check_queue_name, options.entry_id):
        with suppress(InvalidInput):
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]*", check(text))
    for take in (options.key, lambda name: options.headers({name: name})):
        with suppress(InvalidInput):
            take(text)


def _parsed(given: list[str]) -> Exception | None:
    """Parse them as click does, and call nothing."""
    said = Settings()
    said.config = Config(Path("config.toml"))  # what the user has settled is read from a file
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), ExitStack() as entered:
        try:
            context = cli.make_context("duraq", list(given), obj=said)
            command: click.Command = cli
            while isinstance(command, click.Group):
                entered.enter_context(context)
                words = [*context._protected_args, *context.args]
                if not words:
                    break
                name, found, rest = command.resolve_command(context, words)
                assert found is not None
                context, command = found.make_context(name, rest, parent=context), found
        except (click.ClickException, CommandError, InvalidInput) as error:
            return error
        except click.exceptions.Exit:
            return None
    return None


def _check_said(error: Exception | None) -> None:
    for as_json in () if error is None else (False, True):
        with redirect_stderr(io.StringIO()) as said:
            report(Settings(), error, as_json=as_json)
        check_shown(said.getvalue().replace("\n", ""))


# Once before anybody watches, for what click imports only then.
for _once in (["--help"], ["nosuch"], ["put"]):
    _check_said(_parsed(_once))


# -- payloads ----------------------------------------------------------------------------------------------


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Order:
    """Something of everything that a typed payload may have."""

    id: int
    at: datetime | None = None
    by: UUID | None = None
    items: list[tuple[str, float]] = field(default_factory=list)
    colours: dict[str, Colour] = field(default_factory=dict)
    scan: bytes = b""
    wait: timedelta = timedelta(0)


LARGEST = 1 << 16
CODECS = [PayloadCodec(kind, LARGEST) for kind in (None, str, int, float, dict, list, Order, list[Order])]


def payload(data: bytes) -> None:
    """Bytes are refused, or are a value that comes back equal; or one that is not taken, with a reason."""
    for read in (parse_json, json_lines):
        try:
            value = read(data)
        except InvalidInput:
            continue
        _check_comes_back(CODECS[0], value)
    for codec in CODECS:
        try:
            value = codec.decode(data)
        except PayloadUndecodable as error:
            check_shown(str(error))
            continue
        _check_comes_back(codec, value)
        with suppress(ValueError, RecursionError):
            assert json.loads(ascii_json(orjson.loads(data))) == orjson.loads(data)


def _check_comes_back(codec: PayloadCodec[object], value: object) -> None:
    try:
        written = codec.encode(value)
    except InvalidPayload as error:
        check_shown(str(error))
        return
    assert b"\n" not in written
    assert codec.decode(written) == value
