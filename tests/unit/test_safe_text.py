"""Text made safe to show."""

from __future__ import annotations

import json
import unicodedata

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duraq.safe_text import ascii_json, safe_lines, safe_text

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Surrogates too: file names and arguments bring them along.
any_text = st.text(st.characters(exclude_categories=[]))
# They count as formats, but are signs that people write and see.
VISIBLE_FORMATS = {
    0x600,
    0x601,
    0x602,
    0x603,
    0x604,
    0x605,
    0x6DD,
    0x70F,
    0x890,
    0x891,
    0x8E2,
    0x110BD,
    0x110CD,
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ümläut, 日本語 and 🦆", "plain, ümläut, 日本語 and 🦆"),
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\tb\r\nc\x00\x7f", "a\\tb\\r\\nc\\x00\\x7f"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("\u2066\u2069\u200b\u200d\ufeff\u2028\u2029", "\\u2066\\u2069\\u200b\\u200d\\ufeff\\u2028\\u2029"),
        ("\udcff\ud800", "\\udcff\\ud800"),
        ("\ufdd0\uffff\U0001fffe", "\\ufdd0\\uffff\\U0001fffe"),
        ("\U000e0041", "\\U000e0041"),
        ("[/red] [b +", "[/red] [b +"),
    ],
)
def test_examples(text, shown):
    """What a terminal might obey, and what hides, is shown as an escape; all else as it is."""
    assert safe_text(text) == shown


def test_every_character():
    """Every control, format, separator, surrogate and non-character of Unicode is escaped; no letter."""
    for code in range(0x110000):
        character = chr(code)
        category = unicodedata.category(character)
        shown = safe_text(character)
        is_non_character = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
        if category in {"Cc", "Cf", "Cs", "Zl", "Zp"} or is_non_character:
            assert shown.isascii() is (code not in VISIBLE_FORMATS), hex(code)
        elif category[0] in "LNPSZ" and shown != character:
            # The only letters among them are fillers, which show nothing.
            assert "FILLER" in unicodedata.name(character), hex(code)


@unhurried
@given(any_text, st.integers(0, 40))
def test_length(text, limit):
    """A text is never longer than the limit, and what is cut says so by its end."""
    shown = safe_text(text, limit)
    assert len(shown) <= limit
    whole = safe_text(text)
    assert shown == whole if len(whole) <= limit else shown.endswith("..."[:limit])


@unhurried
@given(any_text)
def test_nothing_gets_through(text):
    """No text leaves a byte behind that a terminal obeys, and all of it can be written as UTF-8."""
    for shown in (safe_text(text), safe_lines(text).replace("\n", "")):
        assert not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in shown)
        shown.encode("utf-8")


def test_cut_never_splits_an_escape():
    """An escape that does not fit is left out whole."""
    assert safe_text("ab\x1b\x1b\x1b", 12) == "ab\\x1b..."
    assert safe_text("\u202e" * 3, 8) == "..."


def test_huge_text():
    """Of a huge text no more is looked at than is shown."""
    assert safe_text("x" * 100_000_000, 10) == "xxxxxxx..."


def test_broken_str():
    """An object that cannot be turned into text is named instead."""

    class Broken:
        def __str__(self):
            raise ValueError("\x1b")

    assert safe_text(Broken()) == "<str() failed: ValueError>"


def test_lines():
    """A text of several lines keeps its line ends, loses its tabs, and nothing else gets through."""
    assert safe_lines("one\r\n\ttwo\x1b[2J\nthree\u2028") == "one\n    two\\x1b[2J\nthree\\u2028"
    assert safe_lines("a\n" * 100, 20).endswith("...")
    assert len(safe_lines("a\n" * 100, 20)) == 20


@unhurried
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json(value):
    """JSON comes out as printable ASCII, and means the same."""
    text = ascii_json(value)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == value


def test_json_of_surrogates():
    """Text that is not Unicode is shown escaped, beside a payload that stays as it is."""
    text = ascii_json({"path": ["\udcff"], "payload": orjson.Fragment(b'{"a":1}')})
    assert json.loads(text) == {"path": ["\\udcff"], "payload": {"a": 1}}


def test_json_of_stored_bytes():
    """Stored JSON is passed on digit by digit, with what is not ASCII escaped."""
    stored = '{"n":1.10,"e":1E5,"t":"\u202e\x7f\U0001f986"}'.encode()
    assert ascii_json(orjson.Fragment(stored)) == '{"n":1.10,"e":1E5,"t":"\\u202e\\u007f\\ud83e\\udd86"}'
