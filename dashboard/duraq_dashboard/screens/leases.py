"""Who holds what, until when, and whether they live."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from duraq.actions import Action, Target
from duraq.views import LeaseView, WorkerView
from duraq_dashboard import lease_view, wording
from duraq_dashboard.copying import Copyable
from duraq_dashboard.dialogs.reading import ReadingDialog
from duraq_dashboard.lease_view import SORTS
from duraq_dashboard.orders import Selection
from duraq_dashboard.rows import Listed
from duraq_dashboard.screens.base import MainScreen, act
from duraq_dashboard.snapshot import Snapshot
from duraq_dashboard.widgets.filter_bar import FilterBar
from duraq_dashboard.widgets.lines import Heading, Lines
from duraq_dashboard.widgets.row_list import RowList

_PATIENCE = 5.0  # seconds for systemctl
_NO_LEASES = "\nNothing is being worked."
_NONE_ADMITTED = "\nNo lease matches this. Esc clears the filter."
_NO_WORKERS = "\nNobody who has this storage open has leased anything."


class LeasesScreen(MainScreen):
    """Leases above, and below them the workers: what an overloaded queue and an abandoned one differ in."""

    MODE: ClassVar[str] = "leases"
    TITLE = "Leases"
    BINDINGS: ClassVar[list[BindingType]] = [
        act("release"),
        Binding("s", "sort", "sort", id="sort"),
        Binding("slash", "filter", "filter", id="filter"),
        Binding("u", "unit", "unit's status", id="leases.unit"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._sort = SORTS[0]
        self._words: list[str] = []
        self._leases: dict[object, LeaseView] = {}
        self._workers: dict[object, WorkerView] = {}

    def compose_content(self) -> ComposeResult:
        yield Lines(id="leases-totals")
        yield Heading(of="leases", id="leases-heading")
        yield FilterBar()
        yield RowList(*lease_view.LEASE_COLUMNS, id="leases")
        yield Lines(id="lease")
        yield Heading(of="workers", id="workers-heading")
        yield RowList(*lease_view.WORKER_COLUMNS, id="workers")

    def on_mount(self) -> None:
        super().on_mount()
        self.recall(self.dashboard.kept_of(self.MODE))
        self.query_one("#leases", RowList).focus()

    # -- what is shown ---------------------------------------------------------------------------------

    def draw(self, snapshot: Snapshot) -> None:
        now = self.dashboard.moment
        found = lease_view.leases(snapshot, self._sort, self._words)
        self._leases = {lease_view.key(lease): lease for lease in found}
        self._workers = {worker.id: worker for worker in snapshot.workers}
        self.query_one("#leases-totals", Lines).show(
            f" {lease_view.totals(snapshot, self.app.size.width - 2)}"
        )
        self.query_one("#leases-heading", Heading).show("Leases", f"sort: {self._sort}   {len(found)}")
        empty = self.unless_reading(_NONE_ADMITTED if self._words else _NO_LEASES)
        self.query_one("#leases", RowList).show(Listed(lease_view.lease_rows(found, now)), empty=empty)
        living = sum(worker.alive is not False for worker in snapshot.workers)
        dead = len(snapshot.workers) - living
        self.query_one("#workers-heading", Heading).show("Workers", f"{living} living, {dead} dead")
        rows = lease_view.worker_rows(snapshot.workers, now)
        self.query_one("#workers", RowList).show(Listed(rows), empty=self.unless_reading(_NO_WORKERS))
        # Deadlines and ages are in seconds within a minute.
        self.shows_seconds = any(
            abs((moment - now).total_seconds()) < wording.MINUTE
            for lease in found
            for moment in (lease.leased_at, lease.deadline_at)
        )
        self._show_lease()

    def _under_cursor(self) -> LeaseView | None:
        return self._leases.get(self.query_one("#leases", RowList).cursor_key)

    @on(RowList.Moved, "#leases")
    def _show_lease(self) -> None:
        lease, line = self._under_cursor(), self.query_one("#lease", Lines)
        if lease is None:
            line.show()
            return
        now, times = self.dashboard.moment, self.dashboard.times
        holder = lease.worker or "no process"
        until = wording.moment(lease.deadline_at, now, times)
        since = wording.moment(lease.leased_at, now, times)
        line.show(
            f" {lease.queue}/{lease.id}/{lease.token}",
            [(f" held by {holder} since {since}, until {until}", "note")],
            f" {lease_view.note(lease)}",
        )

    # -- what keys do ----------------------------------------------------------------------------------

    @on(RowList.Chosen, "#leases")
    def _open(self) -> None:
        lease = self._under_cursor()
        if lease is not None:
            self.dashboard.open_entry(lease.id, lease.queue)

    @on(RowList.Chosen, "#workers")
    def _read_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            lines = lease_view.worker_lines(worker, self.dashboard.moment)
            self.app.push_screen(ReadingDialog(f"Worker {worker.id}", lines, lease_view.command(worker)))

    def chosen_for(self, action: Action) -> Selection | None:
        """The lease under the cursor, or all of the worker that is under it."""
        if action.target is not Target.LEASE:
            return super().chosen_for(action)
        if self.query_one("#workers", RowList).has_focus:
            worker = self._worker()
            held = [lease for lease in self._leases.values() if worker and lease.worker == worker.id]
        else:
            held = [lease for lease in [self._under_cursor()] if lease is not None]
        return Selection(leases=tuple(held)) if held else None

    def action_sort(self) -> None:
        """Sort by the next thing."""
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self._redraw()

    def action_filter(self) -> None:
        """Filter by words: of a queue, an id, a worker, or what is the matter."""
        self.query_one(FilterBar).open()

    def on_filter_bar_changed(self, message: FilterBar.Changed) -> None:
        self._words = message.text.split()
        self._redraw()

    def on_filter_bar_left(self) -> None:
        # At once, and not a moment later as by focus(): the next key is on its way.
        self.set_focus(self.query_one("#leases", RowList))

    def action_back(self) -> None:
        """No filter any more."""
        self.query_one(FilterBar).clear()

    def _worker(self) -> WorkerView | None:
        """The one under the cursor, or the one that holds the lease that is."""
        if self.query_one("#workers", RowList).has_focus:
            return self._workers.get(self.query_one("#workers", RowList).cursor_key)
        lease = self._under_cursor()
        return None if lease is None else self._workers.get(lease.worker)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "unit" and self.dashboard.options.served:
            return False
        return super().check_action(action, parameters)

    def action_unit(self) -> None:
        """What systemd says of the worker's unit, in a pager."""
        worker = self._worker()
        if worker is None or worker.unit is None:
            self.dashboard.say("no systemd unit is known of this one")
        else:
            # It may take its time, and must not hold up the screen.
            self.run_worker(partial(self._ask_systemd, worker.unit), thread=True, exclusive=True)

    def _ask_systemd(self, unit: str) -> None:
        try:
            asked = subprocess.run(  # noqa: S603 - a unit's name, behind what ends the options
                ["systemctl", "status", "--no-pager", "--full", "--", unit],  # noqa: S607 - the system's own
                capture_output=True,
                timeout=_PATIENCE,
                check=False,
            )
            text = (asked.stdout or asked.stderr).decode("utf-8", "backslashreplace")
        except (OSError, subprocess.TimeoutExpired) as error:
            text = f"systemctl cannot be asked: {error}"
        self.app.call_from_thread(self.dashboard.show_text, text)

    # -- what it offers --------------------------------------------------------------------------------

    def copies(self) -> Sequence[Copyable]:
        lease, worker = self._under_cursor(), self._worker()
        offered = []
        if lease is not None:
            path = self.dashboard.source.path
            token = f"{lease.queue}/{lease.id}/{lease.token}"
            offered += [
                Copyable("i", "id", lease.id),
                Copyable("t", "token", token),
                Copyable("c", "command", f"duraq -C {path} show {lease.id}"),
            ]
        if worker is not None:
            offered += [
                Copyable("p", "pid", str(worker.pid)),
                Copyable("l", "command line", lease_view.command(worker)),
            ]
            offered += [Copyable("u", "unit", worker.unit)] if worker.unit else []
        return offered

    def remember(self) -> Mapping[str, str]:
        return {"sort": self._sort}

    def recall(self, kept: Mapping[str, str]) -> None:
        if kept.get("sort") in SORTS:
            self._sort = kept["sort"]
