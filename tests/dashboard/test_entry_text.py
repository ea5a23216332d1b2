"""An entry as text: its payload is not altered, its errors are readable, its life is what the records say."""

import json
import os
import string
import traceback
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from duraq_dashboard import entry_text, wording
from duraq_dashboard.dead_rows import group_lines
from duraq_dashboard.letters import Group
from duraq_dashboard.widgets.text_lines import TextLines
from duraq_dashboard.wording import Times
from hypothesis import given, settings
from hypothesis import strategies as st

from duraq import FileStorage, Queue, dead_index
from duraq.inspector import Inspector
from duraq.model import Attempt, AttemptError, Cause
from duraq.testing import FakeClock

DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
NOW = datetime(2026, 11, 29, 10, 42, 17, tzinfo=UTC)
PANE = 41  # columns in the pane of the groups
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def when(moment):
    return f"{moment:%H:%M:%S}"


def text(lines):
    """The lines without their roles."""
    return [line if isinstance(line, str) else line[0] for line in lines]


@settings(max_examples=2000 if DEEP else 30)
@given(JSON)
def test_payload_is_the_same_json(value):
    """A payload that is shown with a line for each value is the same JSON, and each line has one value."""
    payload = json.dumps(value, separators=(",", ":")).encode()
    lines = text(entry_text.as_json(payload))
    assert json.loads("\n".join(lines)) == value
    assert json.dumps(json.loads("\n".join(lines)), separators=(",", ":")).encode() == payload


@pytest.mark.parametrize(
    "number", ["12345678901234567890123", "1.10", "1E400", "-0.0", "0.1000000000000000055511151231257827"]
)
def test_numbers_are_not_altered(number):
    """A number is shown digit by digit as it is stored, however many there are."""
    assert f'  "n": {number}' in text(entry_text.as_json(b'{"n":' + number.encode() + b"}"))


def test_payloads_in_other_forms():
    """A payload can be seen as the bytes that are stored."""
    assert text(entry_text.as_hex(b'{"a":1}\x00\xff')) == [
        '00000000  7b 22 61 22 3a 31 7d 00 ff                       {"a":1}..'
    ]
    assert text(entry_text.as_stored(b'{"a":"\xff\x1b[2J"}')) == ['{"a":"\\xff\\x1b[2J"}']


def test_long_payloads_are_cut():
    """Of a payload that nobody would read to its end the beginning is shown, and how long it is."""
    many = orjson.dumps(list(range(100_000)))
    lines = text(entry_text.as_json(many))
    assert len(lines) == entry_text.MOST_LINES + 1
    assert lines[-1] == f"... there is more of it: {len(many):,} bytes in all"
    one = b'"' + b"x" * 10_000_000 + b'"'
    for form in (entry_text.as_json, entry_text.as_hex, entry_text.as_stored):
        assert sum(map(len, text(form(one)))) < 400_000


def _attempt(number, error, cause=Cause.FAILED):
    return Attempt(number, cause, error, "4711-9f3c02ab", NOW, NOW + timedelta(seconds=30))


def test_library_frames_are_counted():
    """In a traceback an application's frames are shown, and a library's are counted until they are wanted."""
    try:
        string.Formatter().format("{missing}")
    except KeyError as error:
        lines = traceback.format_exception(error)
    found = "".join(lines).replace("/usr/lib/python3", "/opt/lib/python3")
    short = text(entry_text.traceback_lines(found))
    whole = text(entry_text.traceback_lines(found, whole=True))
    assert whole == [f"  {line}" for line in found.rstrip().split("\n")]
    frames = sum("/lib/python3" in line for line in whole)
    assert frames > 1
    assert f"    + {frames} library frames (Enter shows)" in short
    assert any("test_entry_text.py" in line for line in short)
    assert short[-1] == "  KeyError: 'missing'"
    assert not any("/lib/python3" in line for line in short)


def test_life_of_an_entry(tmp_path):
    """The timeline is what the records say, in order; the attempts come newest first, with their holders."""
    clock = FakeClock(now=NOW)
    with FileStorage(tmp_path / "storage", clock=clock) as storage:
        mail = Queue("mail", storage)
        entry_id = mail.enqueue({"a": 1}, headers={"trace": "5f1c\x1b"})
        for number in range(2):
            clock.advance(timedelta(seconds=71))
            entry = mail.dequeue()
            clock.advance(timedelta(seconds=30))
            mail.mark_failed(entry, ValueError(f"bad {number}\x1b]52;c;aGk=\x07"), dead=bool(number))
    with Inspector(tmp_path / "storage", clock=clock) as inspector:
        view, life = inspector.get(entry_id), inspector.life(entry_id)
        path = inspector.path
    lines = text(entry_text.timeline(life, when))
    assert [line.split()[1 if number == 0 else 2] for number, line in enumerate(lines)] == [
        "enqueued",
        "leased",
        "failed",
        "leased",
        "DEAD",
    ]
    assert "+71.0s" in lines[1]
    assert "+30.0s" in lines[2]
    shown = text(entry_text.attempts(view, when))
    heads = [line for line in shown if line[:1].isdigit()]
    assert [line.split()[0] for line in heads] == ["2", "1"]
    everything = "\n".join([*lines, *shown, *text(entry_text.on_disk(view, life, path, when))])
    everything += "\n".join(text(entry_text.headers(view))) + entry_text.in_full(view, life, path, when)
    assert "\x1b" not in everything
    assert "\x07" not in everything
    assert "trace: 5f1c\\x1b" in everything
    assert f"sed -n 1p {path}/mail/segments/00000000000000000001.jsonl | jq ." in everything


@pytest.mark.parametrize("times", Times)
def test_around_midnight(tmp_path, times):
    """When midnight has passed, a group takes no more room than before, and times still stand in a column."""
    clock = FakeClock(now=NOW.replace(hour=23, minute=59, second=50))
    with FileStorage(tmp_path / "storage", clock=clock) as storage:
        mail = Queue("mail", storage)
        entry_id = mail.enqueue("x")
        clock.advance(timedelta(seconds=20))
        mail.mark_failed(mail.dequeue(), ValueError("no"), dead=True)
    with Inspector(tmp_path / "storage", clock=clock) as inspector:
        view, life = inspector.get(entry_id), inspector.life(entry_id)

    def told(now):
        return lambda moment: wording.moment(moment, now, times)

    group = Group(dead_index.ErrorKind("", "ValueError"), 1, view.created_at, view.updated_at, 0, (1,))
    for later in (timedelta(0), timedelta(seconds=30), timedelta(days=1), timedelta(days=400)):
        when = told(view.created_at + later)
        for line in group_lines(group, 1, when, ascii_only=True):
            assert sum(len(cell if isinstance(cell, str) else cell[0]) for cell in line) <= PANE
        lines = text(entry_text.timeline(life, when))
        assert len({line.index(what) for line, what in zip(lines, ("enq", "leas", "DEAD"), strict=True)}) == 1
        places = [line.index("mail/") for line in text(entry_text.on_disk(view, life, "/x", when))[:3]]
        assert len(set(places)) == 1


def test_what_was_given_back():
    """An attempt without a traceback has its error's message, all lines of it."""
    error = AttemptError("Released", "one\ntwo", host="app1")
    lines = text(entry_text._attempt(_attempt(3, error, Cause.RELEASED), when, whole=False))
    assert lines == ["3  10:42:47  30.0s  released  pid 4711@app1", "  Released: one", "  two"]


def test_long_lines_go_on_below():
    """Every character of a line is on the screen, on as many rows as it needs, wide ones not cut in two."""
    lines = TextLines()
    assert lines._pieces("abcdefgh", 3) == ["abc", "def", "gh"]
    assert lines._pieces("漢字漢", 3) == ["漢", "字", "漢"]
    assert TextLines(wraps=False)._pieces("abcdefgh", 3) == ["abc"]
