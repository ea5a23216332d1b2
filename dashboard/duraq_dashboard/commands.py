"""What the palette offers: everything that can be done, by name. Knows no Textual."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """Something that can be done: what it is called, the key that does the same, and how it is done."""

    title: str
    key: str
    run: Callable[[], object]


def matching(commands: Iterable[Command], text: str) -> Sequence[Command]:
    """Those in which all the words occur; those that begin so come first, then those whose words do."""
    words = text.casefold().split()
    ranked = []
    for number, command in enumerate(commands):
        title = command.title.casefold()
        if all(word in title for word in words):
            begins = sum(any(part.startswith(word) for part in title.split()) for word in words)
            ranked.append((not title.startswith(" ".join(words)), -begins, number, command))
    return [command for *_, command in sorted(ranked, key=lambda each: each[:3])]
