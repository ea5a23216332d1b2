"""stats: one line for each queue, those that need attention first; or for whatever entries have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from duraq.attention import Attention, judge, label
from duraq.bookmarks import Bookmarks
from duraq.cli.completing import QUEUE
from duraq.cli.descriptors import allow_many
from duraq.cli.failing import Code, CommandError
from duraq.cli.frames import again_and_again, can_be_drawn
from duraq.cli.options import DURATION, Settings, common, settings
from duraq.cli.output import Row, show_rows, table
from duraq.cli.rows import entry_row
from duraq.inspector import Inspector
from duraq.metrics import QueueMetrics
from duraq.model import EntryStatus

QUEUE_COLUMNS = ("status", "queue", "ready", "scheduled", "leased", "dead", "oldest_ready", "workers", "why")
NUMBERS = ("in_per_s", "out_per_s", "wait_p95", "run_p95")
QUEUE_MORE = ("paused", *NUMBERS)
LATELY = timedelta(minutes=1)  # rates are over that long
STATES = [
    each.value for each in (EntryStatus.READY, EntryStatus.SCHEDULED, EntryStatus.LEASED, EntryStatus.DEAD)
]
GROUPS = {"state": "status", "sig": "sig", "key": "key"}
_OFTEN = timedelta(seconds=2)


@contextmanager
def inspecting(said: Settings) -> Iterator[Inspector]:
    """An inspector of the storage that the settings name; how far it has read is kept for the next one."""
    kind, where = said.place()
    if kind != "file":
        with Inspector.at(where) as inspector:
            yield inspector
        return
    allow_many()
    bookmarks = Bookmarks(where)
    with Inspector(where, bookmarks=bookmarks) as inspector:
        yield inspector
        bookmarks.save()


@click.command()
@click.argument("queues", type=QUEUE, nargs=-1)
@click.option(
    "--watch",
    type=DURATION,
    is_flag=False,
    flag_value=_OFTEN,
    metavar="[TIME]",
    help="Look again, every 2s or as often as that; q ends it.",
)
@click.option("--by", type=click.Choice(list(GROUPS)), help="Count entries by that instead of by queue.")
@common
def stats(queues: tuple[str, ...], watch: timedelta | None, by: str | None) -> int:
    """One line for each queue, those that need attention first.

    --by state, sig (the signature of the newest error) or key counts entries with the same one, in QUEUES or
    in all.
    """
    said = settings()
    if watch is not None and by is not None:
        raise CommandError(Code.USAGE, "--by reads every entry; it does not go with --watch")
    with inspecting(said) as inspector:
        if by is not None:
            groups = _grouped(inspector, queues or inspector.queues(), by)
            columns = (by, "entries", *STATES, "queues", *(("error",) if by == "sig" else ()))
            show_rows(said, f"duraq.stats.{by}/1", columns, groups, name=by, whole="error")
            return Code.DONE
        if watch is not None and can_be_drawn(said):
            return again_and_again(said, lambda: _looked_again(said, inspector, queues), watch)
        rows = queue_rows(said, inspector, queues)
        if not rows and said.style == "table":
            said.say('No queues here yet. Make one:  duraq put emails \'{"to": "ann@example.org"}\'')
            return Code.DONE
        show_rows(
            said,
            "duraq.stats/1",
            QUEUE_COLUMNS,
            for_people(rows) if said.style == "table" else rows,
            more=QUEUE_MORE,
            name="queue",
            whole="why",
        )
    words_met = {row["status"] for row in rows}
    if Attention.CORRUPT in words_met:
        return Code.DAMAGED
    return Code.NOT_PERMITTED if Attention.DENIED in words_met else Code.DONE


def queue_rows(said: Settings, inspector: Inspector, queues: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each of these queues, or of all; the worst first, then whose entries have waited longest."""
    now = datetime.now(UTC)
    names = queues or [*inspector.queues(), *inspector.troubled()]
    rows = [queue_row(said, inspector, name, now) for name in names]
    words = list(Attention)
    rows.sort(key=lambda row: (words.index(row["status"]), row["oldest_ready"] or now, row["queue"]))
    return rows


def queue_row(said: Settings, inspector: Inspector, name: str, now: datetime) -> dict[str, Any]:
    """A queue in one row."""
    view, metrics = inspector.look(name)
    verdict = judge(view, now, said.config.thresholds, metrics=metrics)
    workers = {lease.worker for lease in view.leases if lease.alive}
    pause = view.pause
    # Of one that cannot be read, only what lies before the damage would be counted.
    counts = None if view.problem else view.counts
    return {
        "queue": view.name,
        "status": verdict.word.value,
        "role": verdict.word.role,
        "why": verdict.why or None,
        **{state: None if counts is None else getattr(counts, state) for state in STATES},
        "oldest_ready": None if view.problem else view.oldest_ready,
        "workers": None if view.problem else len(workers) + view.waiting,
        "paused": None if pause is None else {"at": pause.at, "who": pause.who, "reason": pause.reason},
        **_numbers(metrics),
    }


def for_people(rows: Sequence[Row]) -> list[Row]:
    """The rows as a table has them: with what a list of queues shows in place of the word."""
    return [{**row, "status": label(row["status"], paused=row["paused"] is not None)} for row in rows]


def _numbers(metrics: QueueMetrics | None) -> dict[str, float | None]:
    """How fast entries come and go, and how long that takes; nothing of a queue that cannot be read."""
    if metrics is None:
        return dict.fromkeys(NUMBERS)

    def rate(*counters: str) -> float:
        return round(sum(metrics.rate(each, LATELY) for each in counters), 1)

    found = (rate("enqueued", "requeued"), rate("completed"), metrics.wait.p95, metrics.run.p95)
    return dict(zip(NUMBERS, found, strict=True))


def _looked_again(said: Settings, inspector: Inspector, queues: Sequence[str]) -> list[str]:
    inspector.refresh()
    return table(said, list(QUEUE_COLUMNS), for_people(queue_rows(said, inspector, queues)), "why")


def _grouped(inspector: Inspector, queues: Iterable[str], by: str) -> list[Row]:
    """How many entries have the same, the most frequent first; those that have none of it are left out."""
    found: dict[str, Counter[str]] = {}
    where: dict[str, set[str]] = {}
    errors: dict[str, str] = {}
    for name in queues:
        for view in inspector.each_entry(name):
            row = entry_row(view)
            value = row[GROUPS[by]]
            if value is None:
                continue
            found.setdefault(value, Counter())[row["status"]] += 1
            where.setdefault(value, set()).add(name)
            if row["error"] is not None:
                errors[value] = row["error"]
    rows = [
        {
            by: value,
            "entries": sum(tally.values()),
            **{state: tally[state] for state in STATES},
            "queues": sorted(where[value]),
            "error": errors.get(value),
        }
        for value, tally in found.items()
    ]
    return sorted(rows, key=lambda row: (-row["entries"], row[by]))
