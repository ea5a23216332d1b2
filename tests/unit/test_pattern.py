"""Regular expressions over texts that come from strangers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duraq import InvalidOption, pattern
from duraq.pattern import InvalidPattern, Pattern

any_text = st.text(st.characters(exclude_categories=[]))


@given(any_text, any_text)
def test_any_text_is_a_pattern_or_refused(source, text):
    """Whatever the pattern, it is understood or is an InvalidPattern that names a place in it."""
    at = 0
    try:
        Pattern(source, ignore_case=True).search(text)
    except InvalidPattern as error:
        at = error.at
    assert 0 <= at <= len(source)


@pytest.mark.parametrize(
    ("source", "text", "found"),
    [
        ("timeout|refused", "Connection refused", True),
        ("^refused", "Connection refused", False),
        (r"\bno such\b", "there is no such host", True),
        ("a.c", "a\nc", False),
        ("é", "É", False),
        ("", "", True),
    ],
)
def test_found(source, text, found):
    """A pattern is looked for anywhere in the text, and means what it means to Python."""
    assert Pattern(source).search(text) is found


def test_case():
    """Upper and lower case are the same if that is wanted."""
    assert Pattern("é|TIMEOUT", ignore_case=True).search("Timeout")
    assert not Pattern("TIMEOUT").search("Timeout")


@pytest.mark.parametrize("source", ["(", "[a", "a**b)", "*", "a" * (pattern.LONGEST + 1), "(" * 200, "\\"])
def test_refused(source):
    """What is no pattern, or too long or too deep, is refused."""
    with pytest.raises(InvalidPattern):
        Pattern(source)


@pytest.mark.parametrize(
    "source",
    ["x[0-9]{2147483647}", "((a{100}){100}){2}", r"\\{ 99999999 }", "(?x)a{ 99999999 }", "a{10001,}"],
)
def test_repetitions_that_would_take_all_memory(source):
    """What is to be there too many times is refused before any of it is written out."""
    with pytest.raises(pattern.InvalidPattern, match="more than 10,000 times"):
        pattern.Pattern(source)
    assert pattern.Pattern("(a{100}){100}b{0,99999999}").search("a" * 10_000 + "b")


def test_a_search_that_would_not_end(monkeypatch):
    """A text on which the pattern takes for ever ends the search with an error, not with an answer."""
    monkeypatch.setattr(pattern, "PATIENCE", 0.05)
    with pytest.raises(InvalidOption, match="takes more than"):
        Pattern("(a|aa)+$").search("a" * 10_000 + "b")
