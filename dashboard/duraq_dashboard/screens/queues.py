"""The queues, those that need attention first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal

from duraq.actions import Action
from duraq.errors import InvalidFilter
from duraq_dashboard import wording
from duraq_dashboard.choosing import chosen_of
from duraq_dashboard.copying import Copyable
from duraq_dashboard.history import ENTERED, LEFT
from duraq_dashboard.orders import Selection
from duraq_dashboard.overview import Overview
from duraq_dashboard.rows import Cell, Cells, Column, Key
from duraq_dashboard.screens.base import QUEUE_ACTS, MainScreen
from duraq_dashboard.snapshot import QueueNow, Snapshot
from duraq_dashboard.view_model import (
    AN_HOUR,
    SORTS,
    QueueFilter,
    QueueRow,
    advice,
    facts,
    flow,
    is_young,
    why,
)
from duraq_dashboard.widgets.filter_bar import FilterBar
from duraq_dashboard.widgets.lines import Heading, Lines, Piece
from duraq_dashboard.widgets.row_list import RowList

# A queue's name has ten characters at least.
_WIDEST, _WIDE, _MEDIUM = 116, 108, 77
QUEUE_COLUMNS = (
    Column("STATUS", 13),
    Column("QUEUE"),
    Column("READY", 7, right=True),
    Column("SCHED", 6, right=True, from_width=_WIDE),
    Column("LEASED", 6, right=True, from_width=_MEDIUM),
    Column("DLQ", 6, right=True),
    Column("OLDEST", 7, right=True),
    Column("IN/s", 6, right=True, from_width=_WIDE),
    Column("OUT/s", 6, right=True),
    Column("OUT 15m", 15, from_width=_MEDIUM),
    Column("p50", 6, right=True, from_width=_WIDEST),
    Column("p95", 6, right=True, from_width=_WIDE),
    Column("ERR%", 5, right=True, from_width=_WIDEST),
    Column("WRK", 4, right=True, from_width=_WIDE),
)
_EMPTY = """
No queues here yet.

This storage can be read, but holds no queue.
Add an entry, and its queue appears here at once:

  $ {command}
"""
_NONE_ADMITTED = "\nNo queue matches this. Esc clears the filter."
MINUTES = 60  # of the bars in the panel


class QueueRows:
    """Queues as rows; what one says is found out when it is seen."""

    def __init__(
        self, queues: Sequence[QueueNow], overview: Overview, now: datetime, *, ascii_only: bool
    ) -> None:
        self._queues = queues
        self._overview = overview
        self._now = now
        self._ascii_only = ascii_only
        self._numbers = {queue.name: number for number, queue in enumerate(queues)}

    def __len__(self) -> int:
        return len(self._queues)

    def key(self, number: int) -> Key:
        return self._queues[number].name

    def find(self, key: Key) -> int | None:
        return self._numbers.get(str(key))

    def still(self, keys: set[Key]) -> set[Key]:
        return keys & self._numbers.keys()

    def cells(self, number: int) -> Cells:
        return _cells(self._overview.row(self._queues[number], self._now, ascii_only=self._ascii_only))


def _cells(row: QueueRow) -> Sequence[Cell]:
    if row.note:
        return (row.status, row.role), row.name, (row.note, "note")
    return (
        (row.status, row.role),
        row.name,
        row.ready,
        row.scheduled,
        row.leased,
        (row.dead, "dead") if row.dead not in {"0", wording.NOTHING} else row.dead,
        row.oldest,
        row.entered,
        row.left,
        (row.bars, "flow"),
        row.p50,
        row.p95,
        row.failed,
        row.workers,
    )


class QueuesScreen(MainScreen):
    """Home."""

    MODE: ClassVar[str] = "queues"
    TITLE = "Queues"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter", id="filter"),
        Binding("s", "sort", "sort", id="sort"),
        Binding("a", "note_gone", "forget it", id="note-gone"),
        Binding("exclamation_mark", "faults", "faults only", id="faults"),
        *QUEUE_ACTS,
    ]

    def __init__(self) -> None:
        super().__init__()
        self._sort = "attention"
        self._faults_only = False
        self._filter: QueueFilter | None = None
        self._in_panel: object = None  # all that what the panel says follows from
        self._in_totals: object = None
        self._is_gone = False  # the queue under the cursor
        self._text = ""  # of the filter, as it was typed

    def compose_content(self) -> ComposeResult:
        yield Lines(id="totals")
        yield Lines(id="alerts")
        yield Heading("Queues", id="heading")
        yield FilterBar()
        yield RowList(*QUEUE_COLUMNS, id="queues")
        yield Heading(id="panel-heading")
        with Horizontal(id="panel"):
            yield Lines(id="bars")
            yield Lines(id="why")

    def on_mount(self) -> None:
        self.recall(self.dashboard.kept_of(self.MODE))
        self.query_one(RowList).focus()

    @property
    def _overview(self) -> Overview:
        return self.dashboard.overview

    # -- what is shown ---------------------------------------------------------------------------------

    def draw(self, snapshot: Snapshot) -> None:
        now = self.dashboard.moment
        self._overview.look(snapshot, now)
        shown = self._chosen(snapshot)
        self._show_totals()
        rows = QueueRows(shown, self._overview, now, ascii_only=self.dashboard.ascii_only)
        self.query_one(RowList).show(rows, empty=self._nothing(snapshot))
        narrowed = ", faults only" if self._faults_only else ""
        so_far = "" if snapshot.whole else " so far"
        self.query_one("#heading", Heading).show(
            "Queues", f"sort: {self._sort}{narrowed}   {len(shown)} of {len(snapshot.queues)}{so_far}"
        )
        self.shows_seconds = any(is_young(queue, now) for queue in shown)
        self._show_panel()
        self._look_whether_gone()

    def _look_whether_gone(self) -> None:
        """Offer to forget the queue under the cursor as soon as it is gone."""
        queue = self._under_cursor()
        is_gone = queue is not None and queue.gone
        if is_gone is not self._is_gone:
            self._is_gone = is_gone
            self.refresh_bindings()

    def _chosen(self, snapshot: Snapshot) -> list[QueueNow]:
        queues = list(snapshot.queues.values())
        if self._filter is not None:
            queues = [queue for queue in queues if self._filter.admits(queue)]
        if self._faults_only:
            queues = [queue for queue in queues if queue.role in {"crit", "warn"}]
        return self._overview.in_order(queues, self._sort)

    def _nothing(self, snapshot: Snapshot) -> str:
        if snapshot.queues:
            return self.unless_reading(_NONE_ADMITTED)
        command = f"""duraq -C {snapshot.path} put mail '{{"to": "ann@example.org"}}'"""
        return self.unless_reading(_EMPTY.format(command=command))

    def _show_totals(self) -> None:
        width = self.app.size.width
        alerts = self.dashboard.alerts.all(self.dashboard.moment)
        loud = [alert for alert in alerts if alert.seen_until is None]
        none = self.unless_reading("no alerts").strip()
        shown = (self.dashboard.moment.replace(microsecond=0), len(alerts), len(loud), none, width)
        if shown == self._in_totals:
            return
        self._in_totals = shown
        line = next(line for line in self._overview.lines() if len(line) <= width - 2 or line == "")
        self.query_one("#totals", Lines).show(line)
        text = f"! {wording.plural(len(loud), 'alert')}" if loud else none
        # As on the Health screen.
        text += f", {len(alerts) - len(loud)} seen" if len(loud) < len(alerts) else ""
        if loud:
            told = " | ".join(f"{alert.queue or 'storage'} {alert.word}" for alert in loud[:20])
            text += ": " + wording.fit(told, width - len(text) - len(":   (5 opens)"))
        self.query_one("#alerts", Lines).show([(text, "warn" if loud else "note")])

    # -- the panel -------------------------------------------------------------------------------------

    def on_row_list_moved(self) -> None:
        self._show_panel()
        self.look_at_pause()
        self.refresh_bindings()

    def _under_cursor(self) -> QueueNow | None:
        snapshot, key = self.dashboard.snapshot, self.query_one(RowList).cursor_key
        return None if snapshot is None or key is None else snapshot.queues.get(str(key))

    def _show_panel(self) -> None:
        queue = self._under_cursor()
        bars, reasons = self.query_one("#bars", Lines), self.query_one("#why", Lines)
        if queue is None:
            self._in_panel = None
            self.query_one("#panel-heading", Heading).show("")
            bars.show()
            reasons.show()
            return
        self.query_one("#panel-heading", Heading).show(queue.name, "Enter opens")
        now = self.dashboard.moment
        # Of a queue in which much happens nobody reads more than a panel a second.
        second = now.replace(microsecond=0)
        shown = (queue.name, queue.word, second, self.dashboard.times, self.app.size)
        if shown == self._in_panel:
            return
        self._in_panel = shown
        bars.show(*self._bars(queue, now))
        path = self.dashboard.source.path
        tries: list[Sequence[Piece]] = [[("try  ", "note"), each] for each in advice(queue, path)]
        found = [(line, queue.role if number == 0 else "") for number, line in enumerate(why(queue))]
        reasons.show(*([each] for each in found), *tries, *facts(queue, now))

    def _bars(self, queue: QueueNow, now: datetime) -> list[Sequence[Piece]]:
        if queue.metrics is None:
            return []
        lines: list[Sequence[Piece]] = []
        for name, what in (("OUT/s", LEFT), ("IN/s ", ENTERED)):
            shown = flow(queue.metrics, what, AN_HOUR, MINUTES, now, ascii_only=self.dashboard.ascii_only)
            lines += [[f"{name} 60m, 0..{shown.peak}, now {shown.now}"], [(shown.bars, "flow")]]
        # Without the seconds, which would change all the time.
        begin, end = (
            wording.moment(at, now, self.dashboard.times).removesuffix(f":{at:%S}")
            for at in (now - AN_HOUR, now)
        )
        took = self._overview.durations.took(queue.metrics)
        since = (
            "ever"
            if took.since is None
            else f"since {wording.brief(wording.moment(took.since, now, self.dashboard.times))}"
        )
        lasted = [
            f"{name} p50 {wording.seconds(took.p50(lengths))} p95 {wording.seconds(took.p95(lengths))}"
            for name, lengths in (("wait", took.wait), ("run", took.run))
        ]
        return [
            *lines,
            [(f"{begin:<30}{end:>30}", "note")],
            f"{'   '.join(lasted)}   {since}",
        ]

    # -- what keys do ----------------------------------------------------------------------------------

    def on_row_list_chosen(self, message: RowList.Chosen) -> None:
        self.dashboard.open_queue(str(message.key))

    def action_filter(self) -> None:
        """Filter by a part of the name, or by queue and state."""
        self.query_one(FilterBar).open()

    def on_filter_bar_changed(self, message: FilterBar.Changed) -> None:
        try:
            self._filter = QueueFilter(message.text, self.dashboard.moment) if message.text.strip() else None
        except InvalidFilter as error:
            message.bar.complain(error.reason)
            return
        message.bar.complain("")
        self._text = message.text.strip()
        self._redraw()

    def on_filter_bar_left(self) -> None:
        # At once, and not a moment later as by focus(): the next key is on its way.
        self.set_focus(self.query_one(RowList))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What is gone can be forgotten, nothing else."""
        if action == "note_gone":
            queue = self._under_cursor()
            return queue is not None and queue.gone
        return super().check_action(action, parameters)

    def action_note_gone(self) -> None:
        """A queue that has vanished need not be listed any longer."""
        queue = self._under_cursor()
        if queue is not None:
            self.dashboard.source.acknowledge(queue.name)

    def action_sort(self) -> None:
        """Sort by the next thing."""
        every = list(SORTS)
        self._sort = every[(every.index(self._sort) + 1) % len(every)]
        self._redraw()

    def action_faults(self) -> None:
        """Only those with which something is the matter, or all again."""
        self._faults_only = not self._faults_only
        self._redraw()

    def action_back(self) -> None:
        """No filter any more."""
        self.query_one(FilterBar).clear()

    def chosen_for(self, action: Action) -> Selection | None:
        queue = self._under_cursor()
        return super().chosen_for(action) if queue is None else chosen_of(queue, action)

    # -- what it offers --------------------------------------------------------------------------------

    def copies(self) -> Sequence[Copyable]:
        queue = self._under_cursor()
        if queue is None:
            return ()
        path = self.dashboard.source.path
        tries = advice(queue, path)
        offered = [Copyable("n", "name", queue.name), Copyable("p", "path", f"{path}/{queue.name}")]
        offered += [Copyable("c", "command", tries[0])] if tries else []
        return [*offered, Copyable("w", "why", "\n".join(why(queue)))]

    def pager_text(self) -> str | None:
        queue = self._under_cursor()
        if queue is None:
            return None
        return "\n".join([queue.name, *why(queue), *facts(queue, self.dashboard.moment)])

    def remember(self) -> Mapping[str, str]:
        return {"filter": self._text, "sort": self._sort, "faults": "yes" if self._faults_only else ""}

    def recall(self, kept: Mapping[str, str]) -> None:
        if kept.get("sort") in SORTS:
            self._sort = kept["sort"]
        self._faults_only = bool(kept.get("faults"))
        self.query_one(FilterBar).put(kept.get("filter", ""))
