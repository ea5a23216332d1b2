"""Rows as a table, TSV, CSV, JSON or ids. A table is for a terminal; in a pipe full values go as TSV."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import orjson

from duraq.cli.failing import Code, CommandError
from duraq.cli.options import Settings
from duraq.safe_text import ascii_json, safe_text

Row = Mapping[str, Any]
CELL = 60  # characters of a cell in a table


def show_rows(said: Settings, schema: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Print rows in the format that was asked for. JSON gets every key, the others the columns."""
    chosen = _chosen(said, columns)
    style = said.output or ("table" if sys.stdout.isatty() else "tsv")
    if style == "json":
        click.echo(ascii_json({"schema": schema, "rows": [_plain(row) for row in rows]}))
    elif style == "jsonl":
        for row in rows:
            click.echo(ascii_json({"schema": schema, **_plain(row)}))
    elif style == "ids":
        for row in rows:
            click.echo(row.get("id") or row.get("queue"))
    elif style == "table":
        _table(said, chosen, list(rows))
    else:
        _separated(said, style, chosen, rows)


def show_one(said: Settings, schema: str, fields: Row, text: str) -> None:
    """Print one thing: as JSON if that was asked for, else as text that is safe already."""
    if said.output in {"json", "jsonl"}:
        click.echo(ascii_json({"schema": schema, **_plain(fields)}))
    elif said.output == "ids":
        click.echo(fields["id"])
    else:
        click.echo(text)


def _chosen(said: Settings, columns: Sequence[str]) -> list[str]:
    if said.fields is None:
        return list(columns)
    if said.fields == "help":
        raise CommandError(Code.USAGE, f"fields: {', '.join(columns)}")
    chosen = said.fields.split(",")
    unknown = [name for name in chosen if name not in columns]
    if unknown:
        raise CommandError(Code.USAGE, f"no such field: {', '.join(unknown)}; there are {', '.join(columns)}")
    return chosen


def _plain(row: Row) -> dict[str, Any]:
    """JSON's view: times RFC 3339 UTC, durations in seconds, payloads as they are."""
    return {key: _value(value) for key, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return orjson.loads(value)
    if isinstance(value, (list, tuple)):
        return [_value(item) for item in value]
    return _plain(value) if isinstance(value, Mapping) else value


def _cell(said: Settings, value: Any, *, full: bool) -> str:
    if value is None:
        return "" if full else "-"
    if isinstance(value, datetime):
        return when(said, value, full=full)
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}" if full else span(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return safe_text(value) if full else safe_text(value, CELL)


def when(said: Settings, moment: datetime, *, full: bool = False) -> str:
    """A time as --time wants it; in full (in a pipe) never relative."""
    if said.time == "unix":
        return f"{moment.timestamp():.3f}"
    if said.time == "local":
        return moment.astimezone().isoformat(sep=" ", timespec="seconds")
    if said.time == "utc" or full:
        return str(_value(moment))
    ago = datetime.now(UTC) - moment
    return f"{span(ago)} ago" if ago >= timedelta(0) else f"in {span(-ago)}"


def span(length: timedelta) -> str:
    """A duration for people: 12s, 3m, 2h, 5d."""
    seconds = length.total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.1f}s"


def _table(said: Settings, columns: list[str], rows: list[Row]) -> None:
    cells = [[_cell(said, row.get(name), full=False) for name in columns] for row in rows]
    titles = [name.upper().replace("_", " ") for name in columns]
    widths = [max([len(title), *(len(line[at]) for line in cells)]) for at, title in enumerate(titles)]
    numeric = [
        all(isinstance(row.get(name), (int, float)) for row in rows) and bool(rows) for name in columns
    ]
    for line in [titles, *cells] if said.header else cells:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def _separated(said: Settings, style: str, columns: list[str], rows: Iterable[Row]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n") if style == "csv" else None

    def put(values: list[str]) -> None:
        if writer is None:
            click.echo("\t".join(values))
        else:
            writer.writerow(values)
            click.echo(buffer.getvalue(), nl=False)
            buffer.seek(0)
            buffer.truncate()

    if said.header:
        put(columns)
    for row in rows:
        put([_cell(said, row.get(name), full=True) for name in columns])
