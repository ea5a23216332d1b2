"""What comes in: payloads as JSON, taken exactly or not at all, and lists of ids from stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, BinaryIO

import click
import orjson

from duraq.cli.failing import Code, CommandError
from duraq.cli.foreground import left_to_program
from duraq.errors import InvalidInput
from duraq.safe_text import safe_text

STDIN = "-"
# Four times what one call may write: JSON can be written at length.
LONGEST = 256 << 20


def from_stdin(what: str) -> bytes:
    """All of stdin; refuses to sit before a terminal that nobody knows to be waited for."""
    if sys.stdin.isatty():
        raise CommandError(Code.USAGE, f"{what} is to come from stdin, which is a terminal", "see --help")
    return limited(sys.stdin.buffer, "stdin")


def limited(source: BinaryIO, name: str) -> bytes:
    """All there is, unless that is more than anybody puts in: it may have no end."""
    found = source.read(LONGEST + 1)
    if len(found) > LONGEST:
        raise CommandError(
            Code.USAGE, f"more than {LONGEST >> 20} MiB come from {name}", "put it in in parts"
        )
    return found


def words(given: Iterable[str], what: str) -> list[str]:
    """Ids or tokens, each once and in order; ``-`` stands for those on stdin."""
    found: list[str] = []
    for word in given:
        found += from_stdin(what).decode("utf-8", "backslashreplace").split() if word == STDIN else [word]
    return list(dict.fromkeys(found))


def parse_json(raw: bytes, where: str = "the payload", *, hint: str = "") -> Any:
    """The value of a JSON text. Raises InvalidInput if it is none, or if anything in it would be lost."""
    try:
        value = orjson.loads(raw)
        if orjson.dumps(value) == raw:
            return value
        return _exactly(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where} is not JSON: {error}{hint}") from None


def edited(payload: bytes) -> bytes:
    """The JSON that a person has made of a payload in an editor; what is no JSON can be edited again.

    Raises CommandError if it is as it was, InvalidInput if the person gives up.
    """
    import json  # noqa: PLC0415 - as below

    # Escapes stay escapes: what strangers wrote must not reach the editor's terminal as it is.
    text = before = json.dumps(orjson.loads(payload), indent=2).replace("\x7f", "\\u007f")
    while True:
        with left_to_program():
            after = click.edit(text, extension=".json")
        if after is None or after.strip() == before.strip():
            raise CommandError(Code.USAGE, "the payload was not changed; nothing was done")
        raw = after.encode("utf-8", "surrogateescape")
        try:
            parse_json(raw)
        except InvalidInput as error:
            click.echo(safe_text(error, 400), err=True)
            if not click.confirm("Go on editing what you have typed?", default=True, err=True):
                raise
            text = after
        else:
            return raw


def json_lines(raw: bytes) -> list[Any]:
    """The values of JSON lines; empty lines are none."""
    return [
        parse_json(line, f"line {number}")
        for number, line in enumerate(raw.split(b"\n"), start=1)
        if line.strip()
    ]


def _exactly(raw: bytes) -> Any:
    """The value as the standard library reads it.

    Slower, but it keeps integers of any length, so that they can be refused where they do not fit, and it
    shows keys that occur twice. orjson has seen to it that the text is JSON.
    """
    import json  # noqa: PLC0415 - for JSON that is not written as tightly as ours

    return json.loads(raw, object_pairs_hook=_once_each)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return found
