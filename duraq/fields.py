"""What a filter can ask of an entry: the fields there are, how each is read, and what its values may be."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any, Protocol

import orjson

from duraq.clock import from_datetime, from_timedelta
from duraq.model import Attempt, AttemptError, EntryStatus, last_failure, pid_of
from duraq.pattern import Pattern

Path = tuple[str, ...]
Test = Callable[[Any], bool]

ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_EQUALITIES = (":", "=", "!=")
_COMPARE = {":": operator.eq, "=": operator.eq, **ORDERS}
_SPECIAL = re.compile(r'(["\\])')
_INDEX = re.compile(r"[0-9]{1,9}")


class NotUnderstood(ValueError):
    """A value is not one of its field; says what would be."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A value as somebody wrote it, its quotes and escapes taken off."""

    text: str
    is_quoted: bool = False
    is_regex: bool = False
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        if self.is_regex:
            return f"~{quote(self.text)}"
        return quote(self.text) if self.is_quoted else self.text


def quote(text: str) -> str:
    """The text as a filter has it between quotes."""
    return '"' + _SPECIAL.sub(r"\\\1", text) + '"'


# -- entries -----------------------------------------------------------------------------------------------


class AnyEntry(Protocol):
    """What entries have in common, whoever hands them out; times are microseconds or datetimes."""

    @property
    def id(self) -> str: ...
    @property
    def status(self) -> EntryStatus | None: ...
    @property
    def priority(self) -> int: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def created_at(self) -> datetime | int: ...
    @property
    def updated_at(self) -> datetime | int: ...
    @property
    def ready_at(self) -> datetime | int | None: ...
    @property
    def attempts(self) -> int: ...
    @property
    def worker(self) -> str | None: ...
    @property
    def history(self) -> tuple[Attempt, ...]: ...
    @property
    def key(self) -> str | None: ...
    @property
    def headers(self) -> Mapping[str, str] | None: ...
    @property
    def redriven(self) -> int: ...


class Subject:
    """An entry while a filter looks at it. Its payload is read when the first term asks for it."""

    def __init__(self, queue: str, entry: AnyEntry, now: int) -> None:
        self.queue = queue
        self.entry = entry
        self.now = now

    @cached_property
    def last(self) -> Attempt | None:
        """The newest attempt that was not just given back."""
        return last_failure(self.entry.history)

    @property
    def error(self) -> AttemptError | None:
        return None if self.last is None else self.last.error

    @cached_property
    def document(self) -> list[Any]:
        """The payload's JSON value; none if it is no JSON, or nested too deeply to be looked at."""
        try:
            return [orjson.loads(self.entry.payload)]
        except ValueError:
            return []

    @cached_property
    def payload_text(self) -> str:
        return self.entry.payload.decode("utf-8", "backslashreplace")


def _known(*values: Any) -> Sequence[Any]:
    return [value for value in values if value is not None]


def _of_error(name: str, subject: Subject, _path: Path) -> Sequence[Any]:
    # What is empty was not noted.
    return [] if subject.error is None else _known(getattr(subject.error, name) or None)


def _of_entry(name: str, subject: Subject, _path: Path) -> Sequence[Any]:
    # Not whoever hands out entries knows all there is to know of them: when it was leased, for one.
    return _known(getattr(subject.entry, name, None))


def _errors(subject: Subject, _path: Path) -> Sequence[str]:
    return [] if subject.error is None else [subject.error.type, subject.error.message]


def _texts(subject: Subject, path: Path) -> Sequence[str]:
    return [subject.entry.id, *_errors(subject, path), subject.payload_text]


def _header(subject: Subject, path: Path) -> Sequence[Any]:
    return _known((subject.entry.headers or {}).get(".".join(path)))


def _pid(subject: Subject, _path: Path) -> Sequence[int]:
    if subject.entry.worker:
        return _known(pid_of(subject.entry.worker))
    return _known(subject.last.pid) if subject.last else []


def _payload(subject: Subject, path: Path) -> Sequence[Any]:
    found = subject.document
    for step in path:
        (value,) = found or [None]
        if isinstance(value, dict) and step in value:
            found = [value[step]]
        elif isinstance(value, list) and _INDEX.fullmatch(step) and int(step) < len(value):
            found = [value[int(step)]]
        else:
            return []
    return found


def _microseconds(moment: datetime | int) -> int:
    return moment if isinstance(moment, int) else from_datetime(moment)


def _since(name: str, subject: Subject, _path: Path) -> Sequence[int]:
    return [subject.now - _microseconds(moment) for moment in _of_entry(name, subject, ())]


def _waiting(subject: Subject, _path: Path) -> Sequence[int]:
    if subject.entry.status is not EntryStatus.READY:
        return []
    # What was scheduled or failed is updated before its time comes.
    changes = _known(subject.entry.updated_at, subject.entry.ready_at)
    return [subject.now - max(map(_microseconds, changes))]


def _running(subject: Subject, path: Path) -> Sequence[int]:
    return _since("leased_at", subject, path) if subject.entry.status is EntryStatus.LEASED else []


def _updated(subject: Subject, _path: Path) -> Sequence[int]:
    return [_microseconds(subject.entry.updated_at)]


# -- values ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field's values are, and what can be asked of them. ``test`` makes a literal a question.

    ``!=`` is not asked of it: that is ``=``, answered by no.
    """

    operators: tuple[str, ...]
    test: Callable[[str, Literal, int], Test]


def _text_test(op: str, literal: Literal, _now: int) -> Test:
    if literal.is_regex:
        return Pattern(literal.text, ignore_case=op == ":").search
    if op == "=":
        return partial(operator.eq, literal.text)
    folded = literal.text.casefold()
    return lambda value: folded in value.casefold()


def _name_test(op: str, literal: Literal, now: int) -> Test:
    # A part of a name is another name, and what is removed from a queue must not go from its neighbour.
    if literal.is_regex or op == "=":
        return _text_test(op, literal, now)
    folded = literal.text.casefold()
    return lambda value: folded == value.casefold()


def _state_test(op: str, literal: Literal, now: int) -> Test:
    states = [status.value for status in EntryStatus]
    if not literal.is_regex and literal.text.lower() not in states:
        raise NotUnderstood(f"one of {', '.join(states)}")
    return _name_test(op, literal, now)


def _number_test(read: Callable[[Literal, int], float], op: str, literal: Literal, now: int) -> Test:
    number, compare = read(literal, now), _COMPARE[op]
    return lambda value: compare(value, number)


def _moment_test(order: str, _op: str, literal: Literal, now: int) -> Test:
    return _number_test(_moment, order, literal, now)


def _json_test(op: str, literal: Literal, now: int) -> Test:
    """Of strings as of text, of numbers as of numbers; what is quoted is a string and nothing else."""
    compare = _COMPARE[op]
    of_text = (
        _text_test(op, literal, now) if op in _EQUALITIES else lambda value: compare(value, literal.text)
    )
    if literal.is_quoted or literal.is_regex:
        return lambda value: isinstance(value, str) and of_text(value)
    name = literal.text.casefold() if op == ":" else literal.text
    number = _json_number(literal.text)

    def test(value: Any) -> bool:
        if isinstance(value, str):
            return of_text(value)
        if value is None or isinstance(value, bool):
            return op in _EQUALITIES and name == _JSON_NAMES[value]
        return isinstance(value, int | float) and number is not None and compare(value, number)

    return test


_JSON_NAMES = {None: "null", True: "true", False: "false"}
# No longer than what int() reads in an instant.
_WHOLE = re.compile(r"[+-]?[0-9]{1,400}")
_FRACTION = re.compile(r"[+-]?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?")
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([KMG]i?B|B|)", re.IGNORECASE)
_UNITS: dict[str, int] = {
    unit: base**power
    for base, infix in ((1000, ""), (1024, "i"))
    for power, unit in enumerate(["", *(f"{letter}{infix}b" for letter in "kmg")])
} | {"b": 1}
_DURATION = re.compile(r"([0-9]{1,18}(\.[0-9]{1,18})?[a-zµμ]{1,2})+|0")


def _json_number(text: str) -> float | None:
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _FRACTION.fullmatch(text) else None


def _whole(literal: Literal, _now: int) -> int:
    if literal.is_regex or not _WHOLE.fullmatch(literal.text):
        raise NotUnderstood("a whole number")
    return int(literal.text)


def _size(literal: Literal, _now: int) -> float:
    found = None if literal.is_regex else _SIZE.fullmatch(literal.text)
    if found is None:
        raise NotUnderstood("a size such as 200, 64KB or 1.5MiB")
    return float(found[1]) * _UNITS[found[2].lower()]


def _duration(literal: Literal, _now: int) -> int:
    if not literal.is_regex and _DURATION.fullmatch(literal.text):
        import durationpy  # noqa: PLC0415 - only who gives a duration pays for it

        try:
            length: timedelta = durationpy.from_str(literal.text)
            return from_timedelta(length)
        except (ValueError, OverflowError):
            pass
    raise NotUnderstood("a duration such as 45s, 1h30m or 7d")


def _moment(literal: Literal, now: int) -> int:
    try:
        if not literal.is_regex:
            if literal.text.startswith("-"):
                return now - _duration(Literal(literal.text[1:]), now)
            # Without an offset it is local time, as people mean it.
            return from_datetime(datetime.fromisoformat(literal.text).astimezone())
    except (ValueError, OverflowError, OSError):
        pass
    raise NotUnderstood("a time such as 2026-11-24T10:00:00Z, or -2h for two hours ago")


TEXT = Kind(_EQUALITIES, _text_test)
NAME = Kind(_EQUALITIES, _name_test)
STATE = Kind(_EQUALITIES, _state_test)
NUMBER = Kind((*_EQUALITIES, *ORDERS), partial(_number_test, _whole))
SIZE = Kind((*_EQUALITIES, *ORDERS), partial(_number_test, _size))
DURATION = Kind(tuple(ORDERS), partial(_number_test, _duration))
SINCE = Kind((":",), partial(_moment_test, ">="))
UNTIL = Kind((":",), partial(_moment_test, "<="))
JSON = Kind((*_EQUALITIES, *ORDERS), _json_test)


# -- fields ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """Something that can be asked for: its name, its kind, and the values of it that an entry has."""

    name: str
    kind: Kind
    read: Callable[[Subject, Path], Sequence[Any]]
    takes_path: bool = False
    reads_payload: bool = False


# What a term without a field looks at.
ANYWHERE = Field("", TEXT, _texts, reads_payload=True)
FIELDS = {
    each.name: each
    for each in (
        Field("queue", NAME, lambda subject, _: [subject.queue]),
        Field("state", STATE, lambda subject, _: _known(subject.entry.status)),
        Field("id", TEXT, partial(_of_entry, "id")),
        Field("key", TEXT, partial(_of_entry, "key")),
        Field("type", TEXT, partial(_of_error, "type")),
        Field("err", TEXT, _errors),
        Field("sig", TEXT, partial(_of_error, "signature")),
        Field("host", TEXT, partial(_of_error, "host")),
        Field("pid", NUMBER, _pid),
        Field("priority", NUMBER, partial(_of_entry, "priority")),
        Field("attempts", NUMBER, partial(_of_entry, "attempts")),
        Field("redriven", NUMBER, partial(_of_entry, "redriven")),
        Field("size", SIZE, lambda subject, _: [len(subject.entry.payload)], reads_payload=True),
        Field("age", DURATION, partial(_since, "created_at")),
        Field("wait", DURATION, _waiting),
        Field("run", DURATION, _running),
        Field("since", SINCE, _updated),
        Field("until", UNTIL, _updated),
        Field("payload", JSON, _payload, takes_path=True, reads_payload=True),
        Field("header", TEXT, _header, takes_path=True),
        Field("event", TEXT, partial(_of_entry, "event")),
    )
}
# As JSON and the columns of tables have it.
ALIASES = {"status": "state", "signature": "sig"}
