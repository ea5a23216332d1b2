"""An entry in full, as lines of text: its payload as it is stored, its attempts, its life. Knows no Textual.

Whatever is shown here is a stranger's: all of it goes through ``safe_text``, and a line ends where the screen
says so. Numbers and escapes of a payload stay as the file has them, for no parser touches them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby, islice

from duraq.model import Attempt, Cause, EntryStatus
from duraq.operations import WITH_PAYLOAD
from duraq.safe_text import safe_lines, safe_text
from duraq.views import EntryView, Place, RecordView
from duraq_dashboard import wording
from duraq_dashboard.rows import Cell

When = Callable[[datetime], str]

# A person reads no more of a payload than this; the rest is exported, or shown by a pager.
MOST_LINES = 2000
LOOKED_AT = 1 << 18  # bytes of it
LONGEST_LINE = 20_000
_DEEPEST = 24  # levels that are indented
_HEX = 16  # bytes in a line

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\]:,]|[^\s{}\[\]:,"]++|"[^\n]*', re.DOTALL)
_LIBRARY = re.compile(r'^\s*File "(?:<frozen |[^"]*/(?:site-packages|dist-packages|lib/python\d))')
# What points into the line above it; of use only where both are as wide as they were.
_MARKS = re.compile(r" *[\^~]+ *")
_FRAME = re.compile(r'^\s*File "')


# -- the payload -------------------------------------------------------------------------------------------


def as_json(payload: bytes) -> list[Cell]:
    """The payload, one value a line; each value is spelled as it is stored."""
    text = payload[:LOOKED_AT].decode("utf-8", "backslashreplace")
    lines: list[Cell] = [safe_text(line, LONGEST_LINE) for line in islice(_indented(text), MOST_LINES + 1)]
    return _with_rest(lines, payload)


def as_stored(payload: bytes) -> list[Cell]:
    """The payload's bytes as text, in one line unless there are line ends in it."""
    text = payload[:LOOKED_AT].decode("utf-8", "backslashreplace")
    lines: list[Cell] = [safe_text(line, LONGEST_LINE) for line in text.split("\n")[: MOST_LINES + 1]]
    return _with_rest(lines, payload)


def as_hex(payload: bytes) -> list[Cell]:
    """The payload's bytes as numbers, with those beside them that are printable ASCII."""
    shown = payload[: MOST_LINES * _HEX]
    lines: list[Cell] = []
    for at in range(0, len(shown), _HEX):
        piece = shown[at : at + _HEX]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in piece)
        lines.append(f"{at:08x}  {piece.hex(' '):<{3 * _HEX - 1}}  {text}")
    if len(payload) > len(shown):
        lines.append((f"... {len(payload) - len(shown):,} more bytes", "note"))
    return lines


def _with_rest(lines: list[Cell], payload: bytes) -> list[Cell]:
    if len(lines) > MOST_LINES or len(payload) > LOOKED_AT:
        del lines[MOST_LINES:]
        lines.append((f"... there is more of it: {len(payload):,} bytes in all", "note"))
    return lines


def _indented(text: str) -> Iterator[str]:
    """JSON with a line for each value. What is no JSON comes out as it is, with a break here and there."""
    depth, line = 0, ""
    before = ""
    for found in _TOKEN.finditer(text):
        piece = found[0]
        if piece in "}]":
            depth = max(0, depth - 1)
            if before not in {"{", "["}:
                yield line
                line = _indent(depth)
        elif before in {"{", "[", ","} and before:
            yield line
            line = _indent(depth)
        line += ": " if piece == ":" else piece
        depth += piece in {"{", "["}
        before = piece
    if line:
        yield line


def _indent(depth: int) -> str:
    return "  " * min(depth, _DEEPEST)


def headers(view: EntryView) -> list[Cell]:
    """What its producer said about it beside the payload."""
    return [f"{safe_text(name, 100)}: {safe_text(text, 1000)}" for name, text in sorted(view.headers.items())]


# -- attempts ----------------------------------------------------------------------------------------------


def attempts(view: EntryView, when: When, *, whole: bool = False) -> list[Cell]:
    """What went wrong, the newest first. ``whole``: frames of libraries, too."""
    lines: list[Cell] = []
    for attempt in reversed(view.history):
        if lines:
            lines.append("")
        lines += _attempt(attempt, when, whole=whole)
    return lines or [("No attempt of it has failed.", "note")]


def _attempt(attempt: Attempt, when: When, *, whole: bool) -> Iterator[Cell]:
    error = attempt.error
    took = wording.seconds(max(0.0, (attempt.ended_at - attempt.started_at).total_seconds()))
    head = f"{attempt.number}  {when(attempt.ended_at)}  {took}  {attempt.cause.value}  {holder(attempt)}"
    yield head.rstrip(), "note" if attempt.cause is Cause.RELEASED else "flow"
    for line in safe_lines(f"{error.type}: {error.message}", LONGEST_LINE).rstrip().split("\n"):
        yield f"  {line}"
    if error.frame:
        yield f"  at {safe_text(error.frame, 600)}", "note"
    if error.traceback.strip():
        yield from traceback_lines(error.traceback, whole=whole)
    if error.signature:
        yield f"  signature {safe_text(error.signature, 100)}", "note"


def holder(attempt: Attempt) -> str:
    """Who worked it."""
    if attempt.pid is None:
        return "no process"
    host = safe_text(attempt.error.host, 60)
    return f"pid {attempt.pid}@{host}" if host else f"pid {attempt.pid}"


def traceback_lines(text: str, *, whole: bool = False) -> Iterator[Cell]:
    """A traceback. Unless it is wanted whole, frames of libraries are only counted."""
    lines = safe_lines(text, 64 * 1024).rstrip().split("\n")
    if not whole:
        lines = [line for line in lines if not _MARKS.fullmatch(line)]
    pieces = [(is_library and not whole, list(piece)) for is_library, piece in _frames(lines)]
    for is_hidden, run in groupby(pieces, key=lambda piece: piece[0]):
        frames = [frame for _, frame in run]
        if is_hidden:
            plural = "frame" if len(frames) == 1 else "frames"
            yield f"    + {len(frames)} library {plural} (Enter shows)", "note"
            continue
        for frame in frames:
            for line in frame:
                yield f"  {line[:LONGEST_LINE]}"


def _frames(lines: Sequence[str]) -> Iterator[tuple[bool, list[str]]]:
    """The traceback in pieces: frames, each with whether it is a library's, and what stands between them."""
    piece: list[str] = []
    for line in lines:
        # A frame is followed by its code, indented deeper; anything else begins a new piece.
        follows = bool(piece) and _FRAME.match(piece[0]) is not None and line.startswith("    ")
        if not follows and piece:
            yield _LIBRARY.match(piece[0]) is not None, piece
            piece = []
        piece.append(line)
    if piece:
        yield _LIBRARY.match(piece[0]) is not None, piece


# -- its life ----------------------------------------------------------------------------------------------

_DONE = {
    "enqueue": "enqueued",
    "lease": "leased",
    "extend": "lease extended",
    "fail": "failed",
    "dead": "DEAD",
    "release": "given back",
    "requeue": "put back",
    "remove": "removed",
    "restore": "brought back",
    "complete": "completed",
    "expire": "expired",
    "keep": "rewritten",
}
_ROLES = {
    "fail": "warn",
    "dead": "crit",
    "complete": "flow",
    "expire": "warn",
    "keep": "note",
    "extend": "note",
}


def timeline(life: Sequence[RecordView], when: When) -> list[Cell]:
    """What its records tell, oldest first, and how long it was from each to the next."""
    lines: list[Cell] = []
    before: datetime | None = None
    width = _width(life, when)
    for record in life:
        passed = timedelta(0) if before is None else record.at - before
        # The clock may have been set back; nothing lasts less than no time.
        gap = "" if before is None else f"+{wording.seconds(max(0.0, passed.total_seconds()))}"
        what = _DONE.get(record.op, safe_text(record.op, 20))
        line = f"{when(record.at):>{width}}  {gap:>8}  {what:<14}  {_detail(record, when)}".rstrip()
        lines.append((line, _ROLES.get(record.op, "")))
        before = record.at
    if not lines:
        return [("No record of it is on disk any more.", "note")]
    if life[0].op != "enqueue":
        lines.insert(0, ("What happened to it before is no longer on disk.", "note"))
    return lines


def _width(life: Sequence[RecordView], when: When) -> int:
    """Of their times: some have a date when midnight lies between them, and all stand in one column."""
    return max((len(when(record.at)) for record in life), default=0)


def _detail(record: RecordView, when: When) -> str:
    fields = record.fields
    pieces = []
    if record.op == "lease":
        pieces.append(f"attempt {fields.get('attempt', '?')} by {safe_text(fields.get('worker') or '-', 60)}")
    error = fields.get("error")
    if isinstance(error, dict):
        first = str(error.get("message", "")).split("\n", 1)[0]
        pieces.append(safe_text(f"{fields.get('cause', '')} {error.get('type', '')}: {first}", 300))
    if record.op == "requeue" and fields.get("act"):
        pieces.append(f"act {safe_text(fields['act'], 60)}")
    if record.op == "remove" and fields.get("to"):
        pieces.append(f"to {safe_text(fields['to'], 200)}")
    if record.op == "fail" and fields.get("ready_at"):
        pieces.append(f"again {when(datetime.fromisoformat(fields['ready_at']))}")
    return "  ".join(pieces)


# -- on disk -----------------------------------------------------------------------------------------------


def on_disk(view: EntryView, life: Sequence[RecordView], path: str, when: When) -> list[Cell]:
    """Where each of its records lies, and commands that show them without this program."""
    width = _width(life, when)
    lines: list[Cell] = [
        f"{safe_text(record.op, 20):<9} {when(record.at):<{width}}  {_place(record.place)}" for record in life
    ]
    lines += [("$ " + command, "flow") for command in commands(view, life, path)]
    return lines


def _place(place: Place) -> str:
    end = place.byte + place.length
    return f"{safe_text(place.file, 200)}  line {place.line:,}  bytes {place.byte:,}-{end:,}"


def shell(*arguments: str) -> str:
    """A command, to be pasted into a shell."""
    return safe_text(shlex.join(arguments), 4000)


def commands(view: EntryView, life: Sequence[RecordView], path: str) -> list[str]:
    """To be pasted into a shell."""
    found = [shell("duraq", "-C", path, "show", view.id, "--queue", view.queue, "--json")]
    written = [record for record in life if record.op in WITH_PAYLOAD]
    if written:
        place = written[-1].place
        found.append(shell("sed", "-n", f"{place.line}p", f"{path}/{place.file}") + " | jq .")
    return found


def headline(view: EntryView, now: datetime) -> str:
    """The entry in one line."""
    state = view.status.value.upper() if view.status is EntryStatus.DEAD else view.status.value
    pieces = [state, f"{wording.plural(view.attempts, 'attempt')}", f"queue {view.queue}"]
    if view.key is not None:
        pieces.append(f"key {safe_text(view.key, 60)}")
    if view.priority:
        pieces.append(f"priority {view.priority}")
    if view.redriven:
        pieces.append(f"put back {view.redriven}x")
    pieces.append(f"enqueued {wording.age(now - view.created_at)} ago")
    pieces.append(wording.size(len(view.payload)))
    return "  ".join(pieces)


def in_full(view: EntryView, life: Sequence[RecordView], path: str, when: When) -> str:
    """All of it as one text, for a pager."""
    parts: dict[str, Sequence[Cell]] = {
        "": [f"{view.id}  {view.status.value}  queue {view.queue}"],
        "payload": as_json(view.payload),
        "headers": headers(view),
        "attempts": attempts(view, when, whole=True),
        "timeline": timeline(life, when) if life else [],
        "on disk": on_disk(view, life, path, when),
    }
    lines: list[str] = []
    for title, part in parts.items():
        if part:
            lines += ["", title] if title else []
            lines += [line if isinstance(line, str) else line[0] for line in part]
    return "\n".join(lines)
