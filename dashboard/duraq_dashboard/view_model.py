"""What of a snapshot is shown, and in which words: plain values in, plain text out. Knows no Textual."""

from __future__ import annotations

from collections.abc import Iterable

from duraq_dashboard.snapshot import QueueNow

_LOUDNESS = ("crit", "warn", "note", "plain")


def by_attention(queues: Iterable[QueueNow]) -> list[QueueNow]:
    """The queues that need somebody first."""
    return sorted(queues, key=lambda now: (_LOUDNESS.index(now.role), now.word, now.name))
