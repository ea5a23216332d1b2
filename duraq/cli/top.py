"""top: the queues, live, in a few lines of the terminal that stay when it ends."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import click

from duraq.cli.completing import QUEUE
from duraq.cli.frames import again_and_again, can_be_drawn, has_keys
from duraq.cli.options import DURATION, Settings, common, settings
from duraq.cli.output import Row, fit, show_rows, table
from duraq.cli.overview import QUEUE_COLUMNS, QUEUE_MORE, for_people, inspecting, queue_rows
from duraq.inspector import Inspector
from duraq.safe_text import safe_text
from duraq.times import span

COLUMNS = ("status", "queue", "ready", "leased", "dead", "oldest_ready", "in_per_s", "out_per_s", "why")
_AROUND = 3  # lines that are no queue: the sums, the titles, and the one that the cursor is in


@click.command()
@click.argument("queues", type=QUEUE, nargs=-1)
@click.option(
    "--interval", type=DURATION, default=timedelta(seconds=1), metavar="TIME", help="How often to look (1s)."
)
@click.option("--rows", "most", type=click.IntRange(1), metavar="N", help="At most so many queues.")
@click.option("--once", is_flag=True, help="One frame, then end; so it is in a pipe.")
@common
def top(queues: tuple[str, ...], interval: timedelta, most: int | None, once: bool) -> int:
    """QUEUES, or all, drawn again in place as they change; those that need attention first. q ends it.

    IN/S and OUT/S: entries that came, or came back, and that were completed in the last minute, a second.
    """
    said = settings()
    with inspecting(said) as inspector:
        if once or not can_be_drawn(said):
            rows: Sequence[Row] = queue_rows(said, inspector, queues)[:most]
            rows = for_people(rows) if said.style == "table" else rows
            show_rows(said, "duraq.top/1", COLUMNS, rows, more=(*QUEUE_COLUMNS, *QUEUE_MORE), name="queue")
            return 0
        return again_and_again(said, _Screen(said, inspector, queues, most).lines, interval)


class _Screen:
    """What is to be seen now."""

    def __init__(self, said: Settings, inspector: Inspector, queues: Sequence[str], most: int | None) -> None:
        self._said = said
        self._inspector = inspector
        self._queues = queues
        self._most = most
        self._before: tuple[str, list[str]] = ("", [])
        self._time = ""

    def lines(self) -> list[str]:
        """A line of sums, and a table. As long as nothing else differs, its time does not either."""
        self._inspector.refresh()
        columns, lines = shutil.get_terminal_size()
        rows = queue_rows(self._said, self._inspector, self._queues)
        shown = rows[: min(self._most or len(rows), max(1, lines - _AROUND))]
        found = _sums(rows), table(self._said, list(COLUMNS), for_people(shown))
        if found != self._before:
            self._before, self._time = found, f"{datetime.now().astimezone():%H:%M:%S}"
        sums, path = f"{self._time}  {found[0]}", safe_text(self._inspector.path)
        # Where it is one knows, if there is no room for both.
        room = len(path) + len(sums) + 2 <= columns
        first = f"{path}  {sums}" if room else sums
        ends = "  q ends" if has_keys() and len(first) + len("  q ends") <= columns else ""
        return [fit(first + ends, columns), *found[1]]


def _sums(rows: Sequence[dict[str, Any]]) -> str:
    """All queues together."""
    counts = [
        f"{name} {sum(row[name] or 0 for row in rows):,}" for name in ("ready", "leased", "scheduled", "dead")
    ]
    rates = [
        f"{word} {sum(row[name] or 0 for row in rows):,.1f}/s"
        for word, name in (("in", "in_per_s"), ("out", "out_per_s"))
    ]
    waits = [row["wait_p95"] for row in rows if row["wait_p95"] is not None]
    longest = [f"wait p95 {span(timedelta(seconds=max(waits)))}"] if waits else []
    return "  ".join([*counts, *rates, *longest])
