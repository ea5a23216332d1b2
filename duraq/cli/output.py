"""Rows as a table, TSV, CSV, JSON or ids. A table is for a terminal; in a pipe full values go as TSV.

Nothing gets out of here that a terminal might obey: text is escaped, JSON is ASCII.
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import orjson

from duraq.cli.failing import Code, CommandError, code_of_several
from duraq.cli.options import Settings
from duraq.cli.reports import report
from duraq.safe_text import ascii_json, safe_text
from duraq.times import in_zone, span

Row = Mapping[str, Any]
CELL = 60  # characters of a cell in a table
WRAPPED = 1000  # of one that goes on in the next line
READABLE = 24  # characters of a column that are enough to read prose in
NARROWEST = 8  # a cell that gives way to the terminal's width keeps as many
PROSE = {
    "error",
    "payload",
    "what",
    "why",
    "place",
    "message",
}  # columns that are of use even when they are cut
GAP = "  "
TITLES = {"in_per_s": "IN/S", "out_per_s": "OUT/S", "signature": "SIG"}
COLORS: dict[str, dict[str, Any]] = {
    "warn": {"fg": (0xE6, 0x9F, 0x00), "bold": True},
    "crit": {"fg": (0xD5, 0x5E, 0x00), "bold": True, "reverse": True},
    "note": {"dim": True},
}


def show_rows(
    said: Settings,
    schema: str,
    columns: Sequence[str],
    rows: Iterable[Row],
    *,
    more: Sequence[str] = (),
    name: str = "id",
    whole: str = "",
) -> None:
    """Print rows in the format that was asked for. JSON gets every key, the others the columns.

    ``more`` are keys that --fields may ask for besides; ``name`` is the one that -o ids prints; ``whole`` is
    a column that is not cut in a table: as the last one it goes on in the next lines. A row may say under
    "role" in which colour its status is to be seen, if that comes first.
    """
    chosen = _chosen(said, columns, more)
    if chosen is None:
        return
    if said.style == "json":
        click.echo(ascii_json({"schema": schema, "rows": [plain(row) for row in rows]}))
    elif said.style == "jsonl":
        for row in rows:
            click.echo(ascii_json({"schema": schema, **plain(row)}))
    elif said.style == "ids":
        for row in rows:
            click.echo(safe_text(row[name]))
    elif said.style == "table":
        for line in table(said, chosen, list(rows), whole):
            click.echo(line, color=said.colored)
    else:
        _separated(said, chosen, rows)


class Stream:
    """The same, row by row as they come, for what never ends."""

    def __init__(self, said: Settings, schema: str, columns: Sequence[str], widths: Sequence[int]) -> None:
        self._said = said
        self._schema = schema
        self._columns = _chosen(said, columns, ())
        self._widths = dict(zip(columns, widths, strict=True))
        self._header = said.header

    def show(self, row: Row) -> None:
        """Print one row, at once."""
        said, columns = self._said, self._columns
        if said.style == "table" and columns is not None:
            # What came before has set no widths; a longer cell pushes its line, and only that.
            least = [self._widths[column] for column in columns]
            titles = [_title(column) for column in columns] if self._header else None
            cells = [_cell(said, row.get(column), full=False) for column in columns]
            for line in (titles, cells):
                if line is not None:
                    padded = [_pad(text, width) for text, width in zip(line, least, strict=True)]
                    click.echo(fit(GAP.join(padded).rstrip(), _screen()))
        elif columns is not None:
            said.header = self._header
            show_rows(said, self._schema, self._columns or (), [row], more=list(row))
        self._header = False
        sys.stdout.flush()


def show_one(said: Settings, schema: str, fields: Row, columns: Sequence[str]) -> None:
    """Print one thing: as one JSON object, or as a row."""
    if said.style == "json":
        click.echo(ascii_json({"schema": schema, **plain(fields)}))
    else:
        show_rows(said, schema, columns, [fields], more=list(fields))


def conclude(
    said: Settings,
    schema: str,
    rows: Sequence[Row],
    problems: Sequence[Exception],
    tally: Counter[str] | None = None,
) -> int:
    """The end of a command that did something for each of several: what became of them, and the exit code.

    Each row has a "status", or an "error". Raises the first problem if nothing was done. ``tally``: how often
    each status came, if not all of them have rows.
    """
    if tally is None:
        tally = Counter(str(row["status"]) for row in rows if row["error"] is None)
    undone = not tally
    if not (undone or said.is_json):
        for problem in problems:
            report(said, problem)
    if undone and problems:
        raise problems[0]
    if said.output is not None:
        # Only if asked for: what was done has been named on the command line.
        done = [row for row in rows if row["error"] is None]
        columns = ("id", "queue", "status", "error")
        show_rows(said, schema, columns, done if said.output == "ids" else rows, more=("token",))
    if tally:
        said.say(", ".join(f"{count} {status}" for status, count in tally.items()))
    return code_of_several(problems)


def _chosen(said: Settings, columns: Sequence[str], more: Sequence[str]) -> list[str] | None:
    if said.fields is None:
        return list(columns)
    known = [*columns, *(key for key in more if key not in columns)]
    if said.fields == "help":
        for name in known:
            click.echo(name)
        return None
    chosen = said.fields.split(",")
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise CommandError(
            Code.USAGE, f"no such field: {', '.join(unknown)}", f"there are {', '.join(known)}"
        )
    return chosen


def plain(row: Row) -> dict[str, Any]:
    """JSON's view: times RFC 3339 UTC, durations in seconds, payloads as they are."""
    return {key: _value(value) for key, value in row.items() if key != "role"}


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        # As it is stored: reading and writing it again could change a number.
        return orjson.Fragment(value)
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    return plain(value) if isinstance(value, Mapping) else value


def _cell(said: Settings, value: Any, *, full: bool, most: int = CELL) -> str:
    if value is None:
        return "" if full else "-"
    if isinstance(value, datetime):
        return when(said, value, full=full)
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}" if full else span(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    elif not full and isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = ", ".join(value) or "-"
    elif isinstance(value, list | tuple | Mapping):
        value = ascii_json(_value(value))
    return safe_text(value) if full else safe_text(value, most)


def when(said: Settings, moment: datetime, *, full: bool = False) -> str:
    """A time as --time wants it; by itself relative for people, UTC in a pipe."""
    style = said.time or ("utc" if full else said.config.time or "relative")
    if style == "unix":
        return f"{moment.timestamp():.3f}"
    if style == "local":
        return in_zone(moment).isoformat(sep=" ", timespec="seconds")
    if style == "utc":
        return str(_value(moment))
    ago = datetime.now(UTC) - moment
    return f"{span(ago)} ago" if ago >= timedelta(0) else f"in {span(-ago)}"


# -- tables ------------------------------------------------------------------------------------------------


def table(said: Settings, columns: list[str], rows: list[Row], whole: str = "") -> list[str]:
    """The lines of a table."""
    # A place that is cut is none.
    most = [WRAPPED if name in {whole, "place"} else CELL for name in columns]
    cells = [
        [
            _cell(said, row.get(name), full=False, most=limit)
            for name, limit in zip(columns, most, strict=True)
        ]
        for row in rows
    ]
    titles = [_title(name) for name in columns]
    # A table that was asked for in a pipe has all the room it wants.
    room = _screen() if said.at_terminal else None
    widest = [max(_width(text) for text in column) for column in zip(titles, *cells, strict=True)]
    rest = _last_whole(columns, cells, widest, room) if columns[-1:] == [whole] else []
    widths = _fitting(columns, widest, room)
    right = [
        bool(rows) and all(isinstance(row.get(name), int | float | None) for row in rows) for name in columns
    ]
    lines = [_styled(said, _line(titles, widths, right), "note")] if said.header else []
    for number, (row, line) in enumerate(zip(rows, cells, strict=True)):
        text = _line(line, widths, right)
        first = _pad(fit(line[0], widths[0]), widths[0])
        if columns[0] == "status" and "role" in row and text.startswith(first.rstrip()):
            text = _styled(said, first.rstrip(), row["role"]) + text[len(first.rstrip()) :]
        lines += [text, *(rest[number] if rest else ())]
    return lines


def _last_whole(
    columns: list[str], cells: list[list[str]], widest: list[int], room: int | None
) -> list[list[str]]:
    """Shorten each row's last cell to what fits, and return the lines in which it goes on."""
    if room is None:
        return []
    before = sum(widest[:-1]) + len(GAP) * (len(columns) - 1)
    # Rather below its row than in a column too narrow to be read.
    indent = before if room - before >= READABLE else min(READABLE // 6, room // 4)
    first = room - before if room - before >= READABLE else 0
    rest = []
    for line in cells:
        pieces = wrapped(line[-1], first, room - indent)
        line[-1] = pieces[0]
        rest.append([" " * indent + piece for piece in pieces[1:]])
    widest[-1] = max([len(columns[-1]) if first else 0, *(_width(line[-1]) for line in cells)])
    return rest


def wrapped(text: str, first: int, width: int) -> list[str]:
    """The text in lines of at most that width, the first of them of at most ``first``; broken at spaces."""
    lines, room = [""], first
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if _width(joined) <= room:
            lines[-1] = joined
            continue
        if lines[-1] or len(lines) == 1:
            lines.append("")
            room = width
        while _width(word) > width:
            head = _head(word, width)
            lines[-1] = head
            lines.append("")
            word = word[len(head) :]  # noqa: PLW2901 - what is left of it
        lines[-1] = word
    return lines


def _head(text: str, width: int) -> str:
    """As much of the text as fits, but something."""
    used = 0
    for number, character in enumerate(text):
        used += _character_width(character)
        if used > width:
            return text[: max(1, number)]
    return text


def _title(name: str) -> str:
    return TITLES.get(name) or name.upper().replace("_", " ")


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        _pad(fit(text, width), width, right=is_right)
        for text, width, is_right in zip(cells, widths, right, strict=False)
    ]
    return GAP.join(padded).rstrip()


def _fitting(columns: list[str], widths: list[int], room: int | None) -> list[int]:
    """Widths that fit the screen, for as many columns as do.

    Prose gives way first, the widest most; then the last columns go. Ids and numbers are never cut.
    """
    kept = list(widths)
    while room is not None and len(kept) > 1 and sum(kept) + len(GAP) * (len(kept) - 1) > room:
        prose = [at for at in range(len(kept)) if columns[at] in PROSE and kept[at] > NARROWEST]
        if prose:
            kept[max(prose, key=kept.__getitem__)] -= 1
        else:
            del kept[-1]
    return kept


def _screen() -> int:
    return shutil.get_terminal_size().columns


def _width(text: str) -> int:
    """How many cells of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def fit(text: str, width: int) -> str:
    """The text, cut with three dots if it is wider than that."""
    if _width(text) <= width:
        return text
    kept, used = [], 0
    for character in text:
        used += _character_width(character)
        if used > max(0, width - 3):
            break
        kept.append(character)
    return "".join(kept) + "..."[:width]


def _pad(text: str, width: int, *, right: bool = False) -> str:
    space = " " * max(0, width - _width(text))
    return space + text if right else text + space


def _styled(said: Settings, text: str, role: str | None) -> str:
    return click.style(text, **COLORS[role]) if said.colored and role in COLORS else text


# -- for programs ------------------------------------------------------------------------------------------


def _separated(said: Settings, columns: list[str], rows: Iterable[Row]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n") if said.style == "csv" else None

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
