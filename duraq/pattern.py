r"""Regular expressions that take time in proportion to the text, whatever the pattern and whatever the text.

Python's own try one way to match after the other, and for some patterns there are more ways than anybody can
wait for; the texts that make it so can be sent by strangers. Here all ways are followed at once, from place
to place of the pattern (Thompson's construction; the sets of places that were met are remembered, and where
each character leads from them). So no text needs to be cut before it is searched: whoever removes for good
what does *not* match must have seen all of it.

There are sequences, ``|``, groups, ``* + ? {m,n}``, and ``^ $`` for the ends of the text. What one character
is (``.``, ``[a-z]``, ``\d``, an ``é`` in either case) is asked of Python's ``re``. What would need memory of
what was matched, or a second look at it (``\1``, ``\b``, ``(?=...)``), is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache, partial

LONGEST = 1000  # characters of a pattern
DEEPEST = 50  # groups in groups
PLACES = 500  # of a pattern; what is repeated counts as often
REMEMBERED = 20_000  # steps from a set to the next

_TOKEN = re.compile(
    r"""
      (?P<repeat> [*+?] | \{ (?P<least>[0-9]+) \} | \{ (?P<low>[0-9]*) , (?P<high>[0-9]*) \} )
    | (?P<open>   \( (?:\?:)? (?!\?) )
    | (?P<close>  \) )
    | (?P<or>     \| )
    | (?P<bound>  [\^$] )
    | (?P<atom>
          \\ (?: [dDwWsSnrtfv] | x[0-9a-fA-F]{2} | u[0-9a-fA-F]{4} | [^A-Za-z0-9] )
        | \[ \^? \]? (?: \\. | [^\]\[\\] )* \]
        | [^\\(\[]
      )
    """,
    re.VERBOSE | re.DOTALL,
)
# In a class these will mean something else in a Python to come.
_OF_SETS = re.compile(r"--|&&|~~|\|\|")
_MATCH = 0
_BEGIN, _END = "^", "$"

# Given the place behind it, a piece of a pattern adds its own and returns the first of them.
_Piece = Callable[[int], int]


class InvalidPattern(ValueError):
    """Something in a pattern is not understood; ``at`` says where."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


class Pattern:
    """A regular expression that is looked for anywhere in a text. Raises InvalidPattern."""

    def __init__(self, source: str, *, ignore_case: bool = False) -> None:
        if len(source) > LONGEST:
            raise InvalidPattern(f"a pattern has at most {LONGEST} characters", LONGEST)
        self.source = source
        self._places = _Places()
        flags = re.IGNORECASE if ignore_case else re.NOFLAG
        self._first = _Parser(source, self._places, flags).pattern()(_MATCH)
        # A match may begin behind any character.
        self._anywhere = self._places.reach([self._first])
        self._forget()

    def __repr__(self) -> str:
        return f"<Pattern {self.source!r}>"

    def search(self, text: str) -> bool:
        """Whether it matches anywhere in the text."""
        here = self._beginning
        for character in text:
            if here.is_match:
                return True
            here = here.leads_to.get(character) or self._step(here, character)
        return here.is_match or _MATCH in self._places.reach(here.places, begin=not text, end=True)

    def _step(self, here: _Set, character: str) -> _Set:
        if self._steps >= REMEMBERED:
            # A text that leads to ever new sets must not fill the memory.
            self._forget()
        self._steps += 1
        places = self._places.after(here.places, character) | self._anywhere
        there = here.leads_to[character] = self._sets.setdefault(places, _Set(places))
        return there

    def _forget(self) -> None:
        self._steps = 0
        self._sets: dict[frozenset[int], _Set] = {}
        self._beginning = _Set(self._places.reach([self._first], begin=True))


class _Set:
    """Places that were reached together, and to where it goes on from them."""

    __slots__ = ("is_match", "leads_to", "places")

    def __init__(self, places: frozenset[int]) -> None:
        self.places = places
        self.is_match = _MATCH in places
        self.leads_to: dict[str, _Set] = {}


class _Places:
    """The places of a pattern: each waits for a character, for an end of the text, or for nothing."""

    def __init__(self) -> None:
        self._waits_for: list[Callable[[str], bool] | str | None] = [None]
        self._next: list[list[int]] = [[]]

    def add(self, following: Iterable[int], waits_for: Callable[[str], bool] | str | None = None) -> int:
        """One more place; returns its number."""
        if len(self._next) > PLACES:
            raise InvalidPattern(f"with all its repeats the pattern has more than {PLACES} places", 0)
        self._waits_for.append(waits_for)
        self._next.append(list(following))
        return len(self._next) - 1

    def lead(self, place: int, to: int) -> None:
        """From that place one gets to this one as well."""
        self._next[place].append(to)

    def after(self, places: frozenset[int], character: str) -> frozenset[int]:
        """Where that character leads."""
        reached: list[int] = []
        for place in places:
            accepts = self._waits_for[place]
            if callable(accepts) and accepts(character):
                reached += self._next[place]
        return self.reach(reached)

    def reach(self, places: Iterable[int], *, begin: bool = False, end: bool = False) -> frozenset[int]:
        """These places and all that one gets to from them without a character."""
        passed = {None, _BEGIN if begin else None, _END if end else None}
        reached: set[int] = set()
        ahead = list(places)
        while ahead:
            place = ahead.pop()
            if place not in reached:
                reached.add(place)
                ahead += self._next[place] if self._waits_for[place] in passed else ()
        return frozenset(reached)


class _Parser:
    """Reads a pattern, and returns what builds its places, from the last one to the first."""

    def __init__(self, source: str, places: _Places, flags: re.RegexFlag) -> None:
        self._source = source
        self._places = places
        self._flags = flags
        self._at = self._depth = 0

    def pattern(self) -> _Piece:
        whole = self._choice()
        if self._at < len(self._source):
            raise InvalidPattern("this ) closes nothing", self._at)
        return whole

    def _peek(self) -> re.Match[str] | None:
        token = _TOKEN.match(self._source, self._at)
        if token is None and self._at < len(self._source):
            character = self._source[self._at]
            reason = {
                "(": "of all groups that begin with (?, only (?:...) is understood",
                "[": "this class does not end, or holds a [ without a \\ before it",
            }.get(character, "this escape is not understood")
            raise InvalidPattern(reason, self._at)
        return token

    def _take(self, *kinds: str) -> re.Match[str] | None:
        """The next token, if it is one of those."""
        token = self._peek()
        if token is None or token.lastgroup not in kinds:
            return None
        self._at = token.end()
        return token

    def _choice(self) -> _Piece:
        choices = [self._sequence()]
        while self._take("or"):
            choices.append(self._sequence())
        if len(choices) == 1:
            return choices[0]
        return lambda following: self._places.add([choice(following) for choice in choices])

    def _sequence(self) -> _Piece:
        pieces: list[_Piece] = []
        while piece := self._piece():
            pieces.append(self._repeated(piece))

        def build(following: int) -> int:
            following = self._places.add([following])
            for piece in reversed(pieces):
                following = piece(following)
            return following

        return build

    def _piece(self) -> _Piece | None:
        at = self._at
        if token := self._take("bound"):
            bound = token[0]
            return lambda following: self._places.add([following], bound)
        if token := self._take("atom"):
            accepts = _character(token[0], self._flags, at)
            return lambda following: self._places.add([following], accepts)
        if self._take("repeat"):
            raise InvalidPattern("there is nothing to repeat before this", at)
        return self._group(at) if self._take("open") else None

    def _group(self, at: int) -> _Piece:
        self._depth += 1
        if self._depth > DEEPEST:
            raise InvalidPattern(f"groups may lie {DEEPEST} deep in each other", at)
        inside = self._choice()
        if not self._take("close"):
            raise InvalidPattern("this group is not closed", at)
        self._depth -= 1
        return inside

    def _repeated(self, piece: _Piece) -> _Piece:
        at = self._at
        token = self._take("repeat")
        if token is None:
            return piece
        # Whether it takes as little as it can makes no difference to whether it matches.
        if self._source.startswith("?", self._at):
            self._at += 1
        if self._take("repeat"):
            raise InvalidPattern("a repeat cannot be repeated; put it in a group", at)
        low, high = _times(token)
        if high is not None and high < low:
            raise InvalidPattern(f"{low} times at least and {high} at most is never", at)
        return partial(self._build_repeat, piece, low, high)

    def _build_repeat(self, piece: _Piece, low: int, high: int | None, following: int) -> int:
        behind = self._places.add([following])
        if high is None:
            self._places.lead(behind, piece(behind))
        first = behind
        for _ in range(0 if high is None else high - low):
            first = self._places.add([piece(first), behind])
        for _ in range(low):
            first = piece(first)
        return first


def _times(token: re.Match[str]) -> tuple[int, int | None]:
    """How often at least and at most."""
    if token[0] in {"*", "+", "?"}:
        return int(token[0] == "+"), 1 if token[0] == "?" else None
    if token["least"]:
        return int(token["least"]), int(token["least"])
    return int(token["low"] or 0), int(token["high"]) if token["high"] else None


def _character(atom: str, flags: re.RegexFlag, at: int) -> Callable[[str], bool]:
    """Whether a character is what an atom of a pattern stands for."""
    if atom[0] == "[" and _OF_SETS.search(atom):
        raise InvalidPattern("-- && ~~ || in a class are not understood; write each once", at)
    # A brace that repeats nothing stands for itself, and so does a ] that closes nothing.
    source = atom if len(atom) > 1 or atom == "." else re.escape(atom)
    try:
        return _asked_of_re(source, flags)
    except re.error as error:
        raise InvalidPattern(f"this class is not understood: {error.msg}", at) from None


@lru_cache(maxsize=256)
def _asked_of_re(source: str, flags: re.RegexFlag) -> Callable[[str], bool]:
    fullmatch = re.compile(source, flags).fullmatch
    return lru_cache(maxsize=1024)(lambda character: fullmatch(character) is not None)
