"""Filters: what they mean, what they refuse, and what always holds of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duraq import EntryStatus, InvalidFilter, InvalidOption, MemoryStorage, NoRetry, Queue, Where
from duraq.fields import FIELDS, quote
from duraq.model import Attempt, AttemptError, Cause
from duraq.safe_text import safe_lines
from duraq.views import EntryView

DOCUMENT = Path(__file__).parents[2] / "docs" / "WHERE.md"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PAYLOAD = b'{"user":{"id":42,"name":"Ann"},"items":[{"sku":"A-1"}],"vip":null,"zip":"8000"}'
TERM = re.compile(r'(?:[^\s"]|"[^"]*")+')
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
any_text = st.text(st.characters(exclude_categories=[]))


@dataclass(frozen=True)
class Event(EntryView):
    """An entry with what happened to it."""

    event: str = "dead"


def error(kind, message):
    return AttemptError(kind, message, signature="9f3c02ab", host="app1")


def attempt(error, *, cause=Cause.FAILED, worker="4711-9f3c", number=5):
    return Attempt(number, cause, error, worker, NOW - 6 * MINUTE, NOW - 5 * MINUTE)


def view(kind=Event, **changes):
    fields: dict[str, Any] = {
        "queue": "billing",
        "id": "0190a1b2-order",
        "status": EntryStatus.DEAD,
        "priority": 0,
        "payload": PAYLOAD,
        "created_at": NOW - 90 * MINUTE,
        "updated_at": NOW - 5 * MINUTE,
        "ready_at": None,
        "expires_at": None,
        "attempts": 5,
        "token": 17,
        "worker": "",
        "leased_at": None,
        "deadline_at": None,
        "key": "order-12",
        "headers": {"trace-id": "5f1c9a1e", "a.b": "Dotted"},
        "redriven": 2,
        "history": (attempt(error("HTTPError", "503 from psp.example: timeout")),),
    }
    return kind(**fields | changes)


DEAD = view()
READY = view(status=EntryStatus.READY, ready_at=NOW - 2 * MINUTE, history=(), attempts=0, priority=-3)
LEASED = view(
    status=EntryStatus.LEASED,
    worker="815-77aa",
    leased_at=NOW - 20 * MINUTE,
    # A worker extends its lease again and again.
    updated_at=NOW - MINUTE,
)


def matches(text, entry=DEAD):
    return Where.parse(text, NOW).matches(entry)


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        (
            "queue:billing queue:BILLING queue=billing queue!=mail queue:mail,billing queue:~^bill",
            "queue:bill queue=BILLING queue!=billing,mail queue=~^BILL",
        ),
        (
            "state:dead state:DEAD state=dead state!=ready state:ready,dead state:~ea",
            "state:ready state!=dead",
        ),
        ("id:ORDER id=0190a1b2-order id!=x id:~r$", "id=order id:orders"),
        ("key:order key=order-12 key!=order-1", "key=order-1 key!=order-12"),
        ("type:http type=HTTPError type!=Error type:~^HTTP", "type=httperror type:timeout type=~^http"),
        (
            'err:httperror err:TIMEOUT err="503 from psp.example: timeout" err!=timeout err:~"5[0-9]+ from"',
            "err=timeout err!=HTTPError err=~TIMEOUT",
        ),
        ("sig:9F3C sig=9f3c02ab sig!=9f3c", "sig=9f3c"),
        ("host:APP host=app1", "host=app"),
        ("event:dead event=dead", "event:lease"),
        ("pid=4711 pid:4711 pid!=1 pid>4710", "pid=471 pid<4711"),
        ("priority=0 priority<1 priority>-5 priority!=1,2", "priority>0 priority!=0,1"),
        (
            "attempts:5 attempts=5 attempts!=4 attempts>4 attempts>=5 attempts<6 attempts<=5 attempts=1,5",
            "attempts>5 attempts<5 attempts=4 attempts!=5 attempts>=6 attempts<=4",
        ),
        ("redriven=2 redriven>1", "redriven:0"),
        (
            f"size={len(PAYLOAD)} size>10B size<1KB size<0.1MB size<1kib size!=1",
            "size>1KiB size>=1GB",
        ),
        ("age>1h age>=1h30m age<2h age<=90m", "age>90m age<1h"),
        (
            "since:-2h since:-5m since:2026-11-24T11:55:00Z since:2026-11-24T10:00+02:00",
            "since:-4m since:2026-11-24T11:56:00Z",
        ),
        (
            "until:-5m until:-1m until:2026-11-24T11:55:00Z",
            "until:-6m until:2026-11-24T11:54:59Z",
        ),
        (
            "payload.user.id=42 payload.user.name:ANN payload.items.0.sku=A-1 payload.zip=8000",
            "payload.user=42 payload.items.1.sku=A-1 payload.items.-1.sku=A-1 payload.user.name=ann",
        ),
        (
            "header.trace-id=5f1c9a1e header.a.b:dotted header.trace-id:~^5f",
            "header.nosuch:x header.trace-id=5f",
        ),
        ('"TIMEOUT" "httperror" "sku" "0190A1" ~sku.*A-[0-9] "nosuch","sku"', '"nosuch" ~nosuch'),
    ],
    ids=lambda terms: re.match(r"[a-z]*", terms)[0] or "anywhere",
)
def test_every_field(yes, no):
    """Every operator of every field means what it says, and a minus before it the contrary."""
    for term in TERM.findall(yes):
        assert matches(term), term
        assert not matches(f"-{term}"), term
    for term in TERM.findall(no):
        assert not matches(term), term
        assert matches(f"-{term}"), term


def test_no_field_is_forgotten():
    """Every field there is stands in the table of the document, with its operators."""
    table = DOCUMENT.read_text().partition("## Fields")[2].partition("## Examples")[0]
    for name in FIELDS:
        assert re.search(rf"^\|[^|]*`{name}(\.NAME|)`", table, re.MULTILINE), name


@pytest.mark.parametrize(
    ("text", "entry", "found"),
    [
        ("wait>1m", READY, True),
        ("wait<=2m", READY, True),
        ("wait>0s", DEAD, False),
        ("run>=20m", LEASED, True),
        ("run>20m", LEASED, False),
        ("run>0s", DEAD, False),
        ("pid=815", LEASED, True),
        ("pid>0", READY, False),
        ("priority:-3", READY, True),
        ("-priority:-3", READY, False),
        ("err:http", READY, False),
        ("err!=x", READY, False),
        ("-err:x", READY, True),
    ],
)
def test_what_depends_on_the_state(text, entry, found):
    """Only a ready entry waits and only a leased one runs, however often its lease was extended."""
    assert matches(text, entry) is found


def test_the_last_error():
    """The newest error counts, but not an attempt that was only given back."""
    history = (
        attempt(error("OldError", "old")),
        attempt(error("NewError", "new")),
        attempt(error("Released", "given back"), cause=Cause.RELEASED),
    )
    entry = replace(DEAD, history=history)
    assert matches("type=NewError err:new -err:old -err:given", entry)


@pytest.mark.parametrize(
    ("payload", "text", "found"),
    [
        ("1", "payload=1", True),
        ("1.0", "payload=1", True),
        ("0.1", "payload=0.10", True),
        ("-5", "payload=-5", True),
        ("1e3", "payload=1000", True),
        ("18446744073709551615", "payload=18446744073709551615", True),
        ("18446744073709551615", "payload=18446744073709551614", False),
        ("18446744073709551615", f"payload<1{'0' * 300}", True),
        ("5", f"payload=1{'0' * 5000}", False),
        ("true", "payload=true", True),
        ("true", "payload=1", False),
        ("1", "payload=true", False),
        ("true", "payload:TRUE", True),
        ("true", "payload=TRUE", False),
        ("true", 'payload="true"', False),
        ("false", "payload!=true", True),
        ("null", "payload=null", True),
        ("null", "payload>0", False),
        ('"null"', "payload=null", True),
        ('"b"', "payload>a", True),
        ('"b"', "payload:~^B$", True),
        ("7", "payload:~7", False),
        ('""', 'payload=""', True),
        ("{}", "payload!=1", True),
        ('{"a.b":{"":1}}', 'payload."a.b"."">0', True),
        ('{"0":1}', "payload.0=1", True),
        ("[[1,2]]", "payload.0.1=2", True),
        ("[1]", "payload.\u0660=1", False),
        ('"\\u0000"', 'payload="\0"', True),
        ("[" * 1000 + "1" + "]" * 1000, "payload" + ".0" * 1000 + "=1", True),
        ("[" * 5000 + "]" * 5000, "payload.0!=1", False),
        ("no json", "payload!=1", False),
        ("no json", '"NO JSON"', True),
    ],
)
def test_payloads(payload, text, found):
    """Numbers are compared as numbers, strings as strings, three names by name, and all else never."""
    assert matches(text, replace(DEAD, payload=payload.encode())) is found


@pytest.mark.parametrize("name", ["key", "sig", "host", "event", "header.x"])
def test_what_a_view_lacks(name):
    """An entry that has no such thing does not match, whatever is asked of it."""
    plain = view(EntryView, key=None, headers={}, history=(attempt(AttemptError("HTTPError", "503")),))
    assert not matches(f"{name}=x", plain)
    assert not matches(f"{name}!=x", plain)
    assert matches(f"-{name}=x", plain)


def test_every_hander_out():
    """An entry is matched alike as its user, its storage and an inspector have it."""
    storage = MemoryStorage()
    queue = Queue("billing", storage, retry_policy=NoRetry())
    queue.enqueue({"user": {"id": 42}}, priority=3, key="order-12", headers={"trace": "5f"})
    queue.mark_failed(queue.dequeue(), ValueError("no"))
    (entry,) = queue.entries()
    (stored,) = storage.entries("billing")
    by_hand = replace(entry, data={"user": {"id": 42}}, decode_error="changed")
    same = "payload.user.id=42 err:no state:dead priority=3 age<1h key=order-12 header.trace=5f redriven=0"
    for text, found in [(same, True), ("wait>0s", False)]:
        filtered = Where.parse(text)
        assert filtered.matches(entry) is found
        assert filtered.matches(by_hand) is found
        assert filtered.matches_stored("billing", stored) is found


# -- before an entry is read -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "queues", "states"),
    [
        ("age>1h", "mail mail-old jobs", "scheduled ready leased completed dead expired"),
        ("queue:mail,jobs", "mail jobs", "scheduled ready leased completed dead expired"),
        ("-queue:~^mail state:dead,ready -state:ready", "jobs", "dead"),
        ("queue:mail queue:jobs state!=dead state:dead", "", ""),
    ],
)
def test_what_need_not_be_read(text, queues, states):
    """Queues and states in which nothing can match are known from the filter alone."""
    filtered = Where.parse(text)
    assert filtered.queues(["mail", "mail-old", "jobs"]) == queues.split()
    assert filtered.states() == {EntryStatus(state) for state in states.split()}


def test_payloads_are_not_read_in_vain():
    """A filter that is not about payloads matches without looking at one."""
    Where.parse("queue:a err:x").matches(replace(DEAD, payload=None))


def test_the_payload_comes_last():
    """A payload is not read if another term has decided."""
    assert not matches("payload.x=1 queue:other", replace(DEAD, payload=None))


# -- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "empty"),
        (" \n", 2, "empty"),
        ("quue:mail", 0, "did you mean queue"),
        ("age>1h  atempts>5", 8, "did you mean attempts"),
        ("timeout", 0, 'quote it: "timeout"'),
        ("-", 1, "expected a field"),
        ("--queue:a", 1, "did you mean queue"),
        ("queue", 5, "one of : = !="),
        ("queue>a", 5, "one of : = !="),
        ("age:1h", 3, "one of > >= < <="),
        ("since>1h", 5, "one of :"),
        ("queue:", 6, "expected a value"),
        ("queue:a,", 8, "expected a value"),
        ("queue:a, b", 8, "expected a value"),
        ("queue.x:a", 5, "nothing inside"),
        ("header:a", 6, "header's name"),
        ("payload.:a", 8, "a key or an index"),
        ("state:raedy", 6, "scheduled, ready, leased"),
        ("attempts>=two", 10, "a whole number"),
        ("attempts>=1.5", 10, "a whole number"),
        ("pid:~1", 4, "a whole number"),
        (f"attempts>{'9' * 5000}", 9, "a whole number"),
        ("size>1TB", 5, "64KB"),
        ("age>5", 4, "1h30m"),
        ("age>-5s", 4, "1h30m"),
        ("age>1hxx2m", 4, "1h30m"),
        ("age>99999999999y", 4, "1h30m"),
        ("since:soon", 6, "-2h"),
        ("since:+2h", 6, "-2h"),
        ("since:-soon", 6, "-2h"),
        ('"abc', 0, "not closed"),
        ('"abc\\"', 0, "not closed"),
        ('id:a"b"', 4, "a space or a comma"),
        ('"a"b', 3, "a space or a comma"),
        ('err:~"a(b"', 9, "in this regex, missing )"),
        ("~a**", 3, "in this regex, multiple repeat"),
        ("~", 1, "expected a value"),
        ("id:a " * 101, 500, "at most 100 terms"),
        ("x" * 20_000, 16_384, "at most 16384 characters"),
        ("\0\x1b[31m\udcff:x", 0, "no field \\x00\\x1b[31m\\udcff"),
    ],
)
def test_refusals(text, position, reason):
    """What is not understood says what was expected, and shows the place with a caret, safe to print."""
    with pytest.raises(InvalidFilter, match=re.escape(reason)) as refused:
        Where.parse(text)
    assert refused.value.position == position
    shown, caret = refused.value.excerpt.split("\n")
    assert caret.strip() == "^"
    assert len(caret) <= len(shown) + 1 <= 100
    assert str(refused.value) == safe_lines(refused.value)


def test_no_text_at_all():
    """What is no text is refused as any other filter that is not understood, and a naive now as an option."""
    with pytest.raises(InvalidFilter, match="NoneType"):
        Where.parse(None)
    with pytest.raises(InvalidOption, match="naive"):
        Where.parse("age>1h", NOW.replace(tzinfo=None))


# -- what always holds -------------------------------------------------------------------------------------

PIECES = [
    "-",
    *FIELDS,
    *' :=!><,.~"\\()*{[',
    ">=",
    "-2h",
    "1KB",
    "dead",
    "null",
    "\0",
    "\udc80",
]
noise = st.one_of(any_text, st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


@unhurried
@given(noise)
def test_any_text_is_a_filter_or_refused(text):
    """Whatever the text, it is a filter that matches or not, or an InvalidFilter that names a place in it."""
    filtered = refused = None
    try:
        filtered = Where.parse(text, NOW)
    except InvalidFilter as error:
        refused = error
    if refused is not None:
        assert 0 <= refused.position <= len(text)
        assert str(refused) == safe_lines(refused)
        return
    again = Where.parse(str(filtered), NOW)
    assert str(again) == str(filtered)
    for entry in (DEAD, READY, LEASED):
        assert again.matches(entry) is filtered.matches(entry)


# Fields with a reading of their own, so plain that it can hardly be wrong.
NAIVE = {
    "queue": lambda entry: entry.queue,
    "id": lambda entry: entry.id,
    "priority": lambda entry: entry.priority,
    "attempts": lambda entry: entry.attempts,
    "payload.n": lambda entry: orjson.loads(entry.payload).get("n"),
}
small = st.integers(-2, 3)
entries = st.builds(
    view,
    queue=st.sampled_from(["a", "b", "ab"]),
    id=st.sampled_from(["a", "b", "Ab"]),
    priority=small,
    attempts=small,
    payload=st.one_of(st.just({}), small.map(lambda n: {"n": n})).map(orjson.dumps),
)
conditions = st.one_of(
    st.tuples(
        st.sampled_from(["queue", "id"]),
        st.sampled_from([":", "=", "!="]),
        st.lists(st.sampled_from(["a", "b", "AB", "ab", "c"]), min_size=1, max_size=3),
    ),
    st.tuples(
        st.sampled_from(["priority", "attempts", "payload.n"]),
        st.sampled_from([":", "=", "!=", ">", ">=", "<", "<="]),
        st.lists(small.map(str), min_size=1, max_size=3),
    ),
)


def naive(condition, entry):
    name, op, wanted = condition
    value = NAIVE[name](entry)
    if value is None:
        return False
    if not isinstance(value, str):
        wanted = list(map(int, wanted))
    elif op == ":":
        wanted, value = [each.lower() for each in wanted], value.lower()
    if op == "!=":
        return value not in wanted
    if op == ":" and name == "id":
        return any(each in value for each in wanted)
    if op in {":", "="}:
        return value in wanted
    one = {">": value.__gt__, ">=": value.__ge__, "<": value.__lt__, "<=": value.__le__}[op]
    return any(one(each) for each in wanted)


def written(condition):
    name, op, wanted = condition
    return f"{name}{op}{','.join(wanted)}"


@unhurried
@given(st.lists(st.tuples(conditions, st.booleans()), min_size=1, max_size=4), entries)
def test_terms_are_all_to_hold(terms, entry):
    """A filter matches what each of its terms matches, read plainly, and a minus is the contrary."""
    expected = all(naive(condition, entry) is not negated for condition, negated in terms)
    text = " ".join(f"{'-' if negated else ''}{written(condition)}" for condition, negated in terms)
    assert matches(text, entry) is expected
    (name, op, wanted), _ = terms[0]
    if op != "!=":
        each = [matches(written((name, op, [one])), entry) for one in wanted]
        assert matches(written(terms[0][0]), entry) is any(each)


@unhurried
@given(any_text, entries)
def test_quoted_text_is_found(text, entry):
    """Whatever the text, quoted it is looked for as it is, and comes back from the filter as it was."""
    entry = replace(entry, history=(attempt(error("E", f"before {text} behind")),))
    filtered = Where.parse(f"err:{quote(text)}", NOW)
    assert filtered.matches(entry)
    assert str(Where.parse(str(filtered), NOW)) == str(filtered)


# -- the document ------------------------------------------------------------------------------------------


def test_the_document():
    """Every example of the document is what the document says it is, of the entry that stands there."""
    text = DOCUMENT.read_text()
    shown = orjson.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
    assert shown == orjson.loads(PAYLOAD)
    good, bad = (part.split("\n") for part in re.findall(r"```filter\n(.*?)\n```", text, re.DOTALL))
    entry = view(EntryView)
    assert len(good) > 10
    assert [line for line in good if not matches(line, entry)] == []
    assert [line for line in bad if matches(line, entry)] == []


def test_a_filter_shows_itself():
    """A filter is seen as it was written, whatever was between its terms."""
    text = 'queue:mail,~"a b" -"x\\"y" payload."a b".0>=1'
    assert str(Where.parse(f"  {text}\n")) == text
    assert repr(Where.parse("age>1h")) == "<Where 'age>1h'>"
