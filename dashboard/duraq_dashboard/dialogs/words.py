"""What the actions are called in questions, while they go on, and when they are over. Knows no Textual."""

from __future__ import annotations

from dataclasses import dataclass

from duraq.actions import Target
from duraq.bulk import TOP
from duraq.most_first import most_first
from duraq_dashboard import wording
from duraq_dashboard.doing import Progress
from duraq_dashboard.orders import Order


@dataclass(frozen=True, slots=True)
class Words:
    """One action in three forms."""

    do: str
    doing: str
    done: str


WORDS = {
    "retry": Words("Retry", "Retrying", "put back"),
    "edit": Words("Retry edited", "Retrying edited", "put back"),
    "move": Words("Move", "Moving", "moved"),
    "remove": Words("Remove", "Removing", "removed"),
    "purge": Words("Purge", "Purging", "purged for good"),
    "undo": Words("Bring back", "Bringing back", "brought back"),
    "pause": Words("Pause", "Pausing", "paused"),
    "resume": Words("Resume", "Resuming", "resumed"),
    "release": Words("Release", "Releasing", "released"),
    "compact": Words("Compact", "Compacting", "compacted"),
}


def _letters(number: int) -> str:
    """Exactly so many."""
    return "1 dead letter" if number == 1 else f"{number:,} dead letters"


def title(order: Order) -> str:
    """The question."""
    do = WORDS[order.action.name].do
    if order.action.target is Target.DEAD_LETTERS:
        return f"{do} {_letters(order.count)}?"
    if order.action.target is Target.QUEUE:
        return f"{do} queue {order.queue}?"
    if order.action.target is Target.LEASE:
        return f"{do} {wording.plural(order.count, 'lease')}?"
    if order.entry is not None:
        return f"{do} {order.entry.id}?"
    return f"{do} {_letters(order.count)}?"


def button(order: Order) -> str:
    """What the button says: the act and the exact number."""
    do = WORDS[order.action.name].do
    if order.action.target in {Target.QUEUE, Target.ENTRY}:
        return do
    return f"{do} {order.count:,}"


def exactly(order: Order) -> str:
    """The number, and what of it is settled."""
    return (
        f"{_letters(order.count)}, settled at {order.at.astimezone():%H:%M:%S};"
        " what dies later is not touched"
    )


def where_they_are(order: Order) -> str:
    """In which queues they are, and what they died of."""
    queues = ", ".join(f"{name} {number:,}" for name, number in order.meant.queues.items())
    errors = order.meant.errors
    causes = ", ".join(f"{kind} {number:,}" for kind, number in most_first(errors)[:TOP])
    more = f" and {len(errors) - TOP} more" if len(errors) > TOP else ""
    return queues + (f"; died of {causes}{more}" if causes else "")


def going(order: Order, progress: Progress) -> str:
    """How far it is, for the upper edge."""
    doing = WORDS[order.action.name].doing
    if progress.count <= 1:
        return doing
    return f"{doing} {progress.done:,} of {progress.count:,}"


def numbers(order: Order, progress: Progress) -> str:
    """How far it is, in full."""
    done = WORDS[order.action.name].done
    text = f"{done} {progress.done:,}    passed over {progress.passed_over:,}"
    if progress.ended:
        text += f"    failed again {progress.failed:,} of {progress.ended:,}"
    return text


def result(order: Order, progress: Progress) -> str:
    """How it ended."""
    done = WORDS[order.action.name].done
    if order.action.target is Target.QUEUE:
        text = f"queue {order.queue}: {done}" if progress.done else f"queue {order.queue}: nothing was done"
    else:
        text = f"{progress.done:,} {done}"
    if progress.passed_over:
        text += f", {progress.passed_over:,} passed over ({progress.trouble})"
    if progress.left > 0 and order.action.target is not Target.QUEUE:
        text += f", {progress.left:,} not attempted"
    for more in (progress.stopped, progress.error, progress.note):
        if more:
            text += f"; {more}"
    return text
