"""Regular expressions that end in time."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duraq import pattern
from duraq.pattern import InvalidPattern, Pattern

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
any_text = st.text(st.characters(exclude_categories=[]))
atoms = st.sampled_from(
    ["a", "b", "c", ".", "\\d", "\\W", "[ab]", "[^a-c]", "[]x]", "\\n", "\\x61", "\\.", "é", "^", "$"]
)
repeats = st.sampled_from(["", "", "*", "+", "?", "*?", "{2}", "{1,2}", "{,2}", "{2,}"])
patterns = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(inner, repeats).map(lambda pair: f"({pair[0]}){pair[1]}"),
    ),
    max_leaves=8,
)


@unhurried
@given(patterns, st.text("abcéÉ1.]x\n", max_size=8), st.booleans())
def test_it_finds_what_python_finds(source, text, ignore_case):
    """What is understood means what it means to Python's own expressions; $ is the very end."""
    flags = re.IGNORECASE if ignore_case else 0
    theirs = re.compile(source.replace("$", "(?!.|\n)"), flags).search(text) is not None
    assert Pattern(source, ignore_case=ignore_case).search(text) is theirs


@unhurried
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
        ('{"a": 1}', 'x{"a": 1}', True),
        ("a{x", "a{x", True),
        ("timeout|refused", "Connection refused", True),
        ("^timeout$", "timeout\n", False),
        ("", "", True),
        ("a||b", "x", True),
        ("\\u00e9", "é", True),
        ("a.b", "a\nb", False),
    ],
)
def test_examples(source, text, found):
    """Braces that repeat nothing are text, an empty alternative is everywhere, and . stops at line ends."""
    assert Pattern(source).search(text) is found


@pytest.mark.parametrize(
    ("source", "at"),
    [
        ("a\\b", 1),
        ("(a)\\1", 3),
        ("x(?=a)", 1),
        ("(?i)a", 0),
        ("a)", 1),
        ("b(a", 1),
        ("a**", 1),
        ("*a", 0),
        ("a{3,2}", 1),
        ("x[a", 1),
        ("[[a]", 0),
        ("[a--b]", 0),
        ("[z-a]", 0),
        ("a\\", 1),
        ("a" * (pattern.LONGEST + 1), pattern.LONGEST),
        ("(" * 200, pattern.DEEPEST),
    ],
)
def test_refusals(source, at):
    """What is not understood is refused, and where it stands is told."""
    with pytest.raises(InvalidPattern) as refused:
        Pattern(source)
    assert refused.value.at == at


@pytest.mark.parametrize(
    "source", ["a{9999999999}", "(((){500}){500}){500}", "((a{0}){500}){500}", "(a{40}){40}"]
)
def test_too_many_places(source):
    """A pattern that grows beyond measure by its repeats is refused before it has grown."""
    with pytest.raises(InvalidPattern, match="places"):
        Pattern(source)


@pytest.mark.parametrize("source", ["(a+)+b", "(a|a)*b", "(a*)*b", "a*a*a*a*a*b", "a?" * 60 + "a" * 60 + "b"])
def test_no_pattern_explodes(source):
    """What takes Python's own expressions longer than the universe has existed is answered at once."""
    begin = time.perf_counter()
    assert not Pattern(source).search("a" * 50_000)
    assert time.perf_counter() - begin < 5


def test_memory_is_bounded(monkeypatch):
    """A text that leads to ever new sets of places does not fill the memory, and is searched all the same."""
    monkeypatch.setattr(pattern, "REMEMBERED", 50)
    made = random.Random(1)
    text = "".join(made.choice("ac") for _ in range(2000))
    searched = Pattern("a.{30}b")
    assert not searched.search(text)
    assert len(searched._sets) <= 50
    assert searched.search(text + "a" + "c" * 30 + "b")
