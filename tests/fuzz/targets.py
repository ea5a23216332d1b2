"""What is fuzzed, by its name: functions of bytes, each of which says what must be true whatever they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fuzz import in_words, on_disk

CORPUS = Path(__file__).parents[2] / "fixtures" / "fuzz"

TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        on_disk.line,
        on_disk.frames,
        on_disk.journal,
        on_disk.segment,
        on_disk.checkpoint,
        on_disk.index,
        on_disk.note,
        on_disk.failures,
        on_disk.worker,
        in_words.where,
        in_words.arguments,
        in_words.payload,
        in_words.shown,
    )
}


def corpus(target: str) -> list[bytes]:
    """The inputs that are kept for a target, in the order of their names."""
    return [file.read_bytes() for file in sorted((CORPUS / target).iterdir())]
