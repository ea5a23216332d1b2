"""Regular expressions for texts that come from strangers.

For some patterns there are texts for which trying one way to match after the other takes for ever. Cutting
texts, or passing over one that takes too long, would let `-~x` select what was merely not looked at. So a
search ends after PATIENCE, and with it what was asked: nothing has been decided then. Python's own ``re``
cannot be ended; ``regex`` can. But it writes out what is to be there so many times, before it has searched
anything, and nothing ends that: so how often all of it is to be there is limited.
"""

from __future__ import annotations

import re
from typing import Any

from duraq.errors import InvalidOption

LONGEST = 200  # characters of a pattern
MOST_TIMES = 10_000  # that something is asked for; of repetitions in one another that is the product
PATIENCE = 2.0  # seconds for one text; a search that ends takes microseconds

# Behind a backslash, or in a set, it is none; that only makes the limit a little lower.
_TIMES = re.compile(r"\{\s*(\d+)")


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
        times = 1
        for found in _TIMES.finditer(source):
            times *= max(1, int(found[1]))
            if times > MOST_TIMES:
                raise InvalidPattern(f"it asks for something more than {MOST_TIMES:,} times", found.start())
        self.source = source
        self._compiled = _compile(source, ignore_case=ignore_case)

    def __repr__(self) -> str:
        return f"<Pattern {self.source!r}>"

    def search(self, text: str) -> bool:
        """Whether it matches anywhere in the text. Raises InvalidOption if it takes too long to tell."""
        try:
            return self._compiled.search(text, timeout=PATIENCE) is not None
        except TimeoutError:
            raise InvalidOption(
                f"the regex {self.source!r} takes more than {PATIENCE} s on {len(text)} characters; "
                "one without nested repetitions is quicker"
            ) from None


def _compile(source: str, *, ignore_case: bool) -> Any:
    import regex  # noqa: PLC0415 - 20 ms that only those pay who use one

    try:
        return regex.compile(source, regex.IGNORECASE if ignore_case else 0)
    except regex.error as error:
        raise InvalidPattern(error.msg, min(error.pos or 0, len(source))) from None
    except (RecursionError, OverflowError, MemoryError, ValueError) as error:
        why = f"too deeply nested, or too large ({type(error).__name__})"
        raise InvalidPattern(why, 0) from None
