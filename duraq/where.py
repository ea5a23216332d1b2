"""Filters: which entries are meant, in one line of text. docs/WHERE.md has the grammar and what it means.

    queue:mail,billing err:HTTPError -err:~"timeout" attempts>=5 age>1h payload.user.id=42

The same line does for the library, for ``--where`` and for screens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import orjson

from duraq.clock import from_datetime
from duraq.errors import InvalidFilter, InvalidOption
from duraq.fields import (
    ALIASES,
    ANYWHERE,
    FIELDS,
    AnyEntry,
    Field,
    Literal,
    NotUnderstood,
    Path,
    Subject,
    Test,
    quote,
)
from duraq.model import EntryStatus, QueueEntry
from duraq.pattern import InvalidPattern
from duraq.safe_text import safe_text
from duraq.views import EntryView

LONGEST = 16_384  # characters of a filter
MOST_TERMS = 100
EXCERPT = 60  # characters that an error shows of a filter

_SPACE = re.compile(r"\s*")
_WORD = re.compile(r'[^\s".:=!<>~,]+')
_OPERATOR = re.compile(r"!=|>=|<=|[:=<>]")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_BARE = re.compile(r'[^\s",]+')
_BARE_REGEX = re.compile(r"\S+")
_ESCAPED = re.compile(r'\\(["\\])')


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One condition of a filter."""

    field: Field
    path: Path
    operator: str
    literals: tuple[Literal, ...]
    tests: tuple[Test, ...]
    is_negated: bool

    def __str__(self) -> str:
        minus = "-" if self.is_negated else ""
        steps = [step if _WORD.fullmatch(step) else quote(step) for step in self.path]
        name = ".".join([self.field.name, *steps])
        return f"{minus}{name}{self.operator if name else ''}{','.join(map(str, self.literals))}"

    def holds(self, values: Sequence[Any]) -> bool:
        """Whether it is true of what an entry has there. Of what it has not, only a negated one is."""
        found = any(test(value) for value in values for test in self.tests)
        if self.operator == "!=":
            found = bool(values) and not found
        return found is not self.is_negated


class Where:
    """A filter: all of its terms must hold. Safe to share between threads.

    ``age`` and the like are as of ``now``, the time it was made for; ``str()`` of it is the filter again.
    """

    def __init__(self, terms: Iterable[Term], now: int) -> None:
        self.terms = tuple(terms)
        self._now = now
        # What needs a look into the payload is asked last.
        self._in_turn = sorted(self.terms, key=lambda term: term.field.reads_payload)

    @classmethod
    def parse(cls, text: str, now: datetime | None = None) -> Self:
        """The filter that the text describes. Raises InvalidFilter, and nothing else, whatever the text."""
        if now is None:
            now = datetime.now(UTC)
        elif now.tzinfo is None:
            raise InvalidOption(f"now must say its time zone: {now!r} is naive")
        moment = from_datetime(now)
        return cls(_Parser(text, moment).terms(), moment)

    def __str__(self) -> str:
        return " ".join(map(str, self.terms))

    def __repr__(self) -> str:
        return f"<Where {str(self)!r}>"

    def matches(self, entry: EntryView | QueueEntry[Any]) -> bool:
        """Whether the entry is meant."""
        if isinstance(entry, EntryView):
            return self.matches_stored(entry.queue, entry)
        return self.matches_stored(entry.queue, _as_stored(entry))

    def matches_stored(self, queue: str, entry: AnyEntry) -> bool:
        """Whether an entry of that queue is meant, as a storage hands it out (a StoredEntry)."""
        subject = Subject(queue, entry, self._now)
        return all(term.holds(term.field.read(subject, term.path)) for term in self._in_turn)

    def queues(self, names: Iterable[str]) -> list[str]:
        """Those of the queues of which an entry can be meant; the others need not be read."""
        return [name for name in names if self._admits("queue", name)]

    def states(self) -> frozenset[EntryStatus]:
        """The states in which an entry can be meant."""
        return frozenset(status for status in EntryStatus if self._admits("state", status.value))

    def _admits(self, name: str, value: str) -> bool:
        return all(term.holds([value]) for term in self.terms if term.field.name == name)


def _as_stored(entry: QueueEntry[Any]) -> AnyEntry:
    stored: AnyEntry | None = getattr(entry, "_stored", None)
    if stored is not None:
        return stored
    # Not handed out by a storage, or its payload was one that no longer decodes and is plain JSON here.
    return EntryView(
        queue=entry.queue,
        id=entry.id,
        status=entry.status,
        priority=entry.priority,
        payload=orjson.dumps(entry.data),
        created_at=entry.created_at,
        updated_at=entry.updated_at,
        ready_at=entry.scheduled_for,
        expires_at=entry.expires_at,
        attempts=entry.attempts,
        token=entry.token,
        worker=entry.worker or "",
        leased_at=None,
        deadline_at=entry.lease_deadline,
        history=entry.errors,
        key=entry.key,
        headers=entry.headers,
        redriven=entry.redriven,
    )


class _Parser:
    """Reads a filter from left to right; whatever is not understood is an InvalidFilter."""

    def __init__(self, text: str, now: int) -> None:
        if not isinstance(text, str):
            raise InvalidFilter(f"a filter is text, not {type(text).__name__}")
        self._text = text
        self._now = now
        self._at = 0

    def terms(self) -> list[Term]:
        if len(self._text) > LONGEST:
            raise self._error(f"a filter has at most {LONGEST} characters, not {len(self._text)}", LONGEST)
        terms: list[Term] = []
        self._take(_SPACE)
        while self._at < len(self._text):
            if len(terms) == MOST_TERMS:
                raise self._error(f"a filter has at most {MOST_TERMS} terms")
            terms.append(self._term())
            self._take(_SPACE)
        if not terms:
            # Whoever forgot what was meant must not have meant everything.
            raise self._error('the filter is empty; expected a term such as age>1h or "text"')
        return terms

    def _term(self) -> Term:
        is_negated = self._skip("-")
        field, path, op = ANYWHERE, Path(), ":"
        if self._ahead() not in {'"', "~"}:
            field, path = self._field()
            op = self._operator(field)
        literals = [self._literal()]
        while self._skip(","):
            literals.append(self._literal())
        if self._ahead() and not self._ahead().isspace():
            raise self._error("expected a space or a comma; what holds a quote is quoted, with \\ before it")
        tests = tuple(self._test(field, op, literal) for literal in literals)
        return Term(field, path, op, tuple(literals), tests, is_negated)

    def _field(self) -> tuple[Field, Path]:
        at = self._at
        word = self._take(_WORD)
        if word is None:
            raise self._error('expected a field such as queue or err, or "text" or ~regex')
        name = word[0]
        field = FIELDS.get(ALIASES.get(name, name))
        if field is None:
            raise self._error(self._unknown(name), at)
        path = []
        while self._skip("."):
            if not field.takes_path:
                raise self._error(f"{name} has nothing inside; expected an operator", self._at - 1)
            path.append(self._step())
        if name == "header" and not path:
            raise self._error("expected the header's name, as in header.trace-id")
        return field, tuple(path)

    def _step(self) -> str:
        if self._ahead() == '"':
            return self._quoted()
        step = self._take(_WORD)
        if step is None:
            raise self._error('expected a key or an index; quote one that is not plain, as in payload."a b"')
        return step[0]

    def _unknown(self, name: str) -> str:
        from difflib import get_close_matches  # noqa: PLC0415 - only after a slip of the pen

        shown = safe_text(name, EXCERPT)
        if _OPERATOR.match(self._text, self._at) is None and self._ahead() != ".":
            return f'expected a term such as age>1h; to look for a text, quote it: "{shown}"'
        near = get_close_matches(name[:EXCERPT], FIELDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FIELDS)}"
        return f"there is no field {shown}; {hint}"

    def _operator(self, field: Field) -> str:
        at = self._at
        op = self._take(_OPERATOR)
        if op is None or op[0] not in field.kind.operators:
            raise self._error(f"expected one of {' '.join(field.kind.operators)} after {field.name}", at)
        return op[0]

    def _literal(self) -> Literal:
        at = self._at
        if self._skip("~"):
            if self._ahead() == '"':
                return Literal(self._quoted(), is_regex=True, at=at)
            # A comma is nothing special in it: there are | and quotes.
            bare = self._take(_BARE_REGEX)
        elif self._ahead() == '"':
            return Literal(self._quoted(), is_quoted=True, at=at)
        else:
            bare = self._take(_BARE)
        if bare is None:
            raise self._error('expected a value; an empty one is ""')
        return Literal(bare[0], is_regex=self._text[at] == "~", at=at)

    def _quoted(self) -> str:
        at = self._at
        quoted = self._take(_QUOTED)
        if quoted is None:
            raise self._error("this quote is not closed", at)
        return _ESCAPED.sub(r"\1", quoted[1])

    def _test(self, field: Field, op: str, literal: Literal) -> Test:
        try:
            return field.kind.test("=" if op == "!=" else op, literal, self._now)
        except NotUnderstood as error:
            raise self._error(f"expected {error} after {field.name}{op}", literal.at) from None
        except InvalidPattern as error:
            begin = literal.at + (2 if self._text.startswith('~"', literal.at) else 1)
            raise self._error(f"in this regex, {error}", begin + error.at) from None

    # -- the text --------------------------------------------------------------------------------------

    def _ahead(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self, character: str) -> bool:
        if self._ahead() != character:
            return False
        self._at += 1
        return True

    def _take(self, what: re.Pattern[str]) -> re.Match[str] | None:
        found = what.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _error(self, reason: str, at: int | None = None) -> InvalidFilter:
        at = min(self._at if at is None else at, len(self._text))
        begin = max(0, at - EXCERPT // 2)
        before = ("..." if begin else "") + safe_text(self._text[begin:at])
        behind = safe_text(self._text[at : at + EXCERPT // 2], EXCERPT)
        if at + EXCERPT // 2 < len(self._text):
            behind += "..."
        return InvalidFilter(reason, at, f"  {before}{behind}\n  {' ' * len(before)}^")
