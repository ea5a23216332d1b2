"""What needs attention, what was checked, and what the dashboard itself costs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message

from duraq.actions import Action, Target
from duraq.inspector import Inspector
from duraq.mending import repair
from duraq.safe_text import safe_lines, safe_text
from duraq_dashboard import health_view, wording
from duraq_dashboard.alerts import Alert
from duraq_dashboard.copying import Copyable
from duraq_dashboard.cost import Cost
from duraq_dashboard.dialogs.reading import ReadingDialog
from duraq_dashboard.health_view import Check
from duraq_dashboard.orders import Selection
from duraq_dashboard.rows import Listed
from duraq_dashboard.screens.base import MainScreen, act
from duraq_dashboard.snapshot import Snapshot
from duraq_dashboard.verifying import Verified, Verifying
from duraq_dashboard.widgets.lines import Heading, Lines, Piece
from duraq_dashboard.widgets.row_list import RowList

_COSTED = timedelta(seconds=10)
_WELL = "\nNothing needs anybody."


class HealthScreen(MainScreen):
    """Alerts by the rules of ``duraq check``, what was checked, and a full reading on request."""

    MODE: ClassVar[str] = "health"
    TITLE = "Health"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "acknowledge", "seen, for 1h", id="health.acknowledge"),
        Binding("r", "verify", "read everything", id="health.verify"),
        act("compact"),
    ]

    class Read(Message):
        """So much has been read of everything."""

        def __init__(self, verifying: Verifying, found: Verified) -> None:
            super().__init__()
            self.verifying, self.found = verifying, found

    def __init__(self) -> None:
        super().__init__()
        self._verifying: Verifying | None = None
        self._verified: Verified | None = None
        self._alerts: dict[object, Alert] = {}
        self._checks: dict[object, Check] = {}
        self._costed_at: datetime | None = None
        self._cost: Cost | None = None  # as it was then

    def compose_content(self) -> ComposeResult:
        yield Heading(of="alerts-list", id="alerts-heading")
        yield RowList(*health_view.ALERT_COLUMNS, id="alerts-list")
        yield Heading(of="checks", id="checks-heading")
        yield RowList(*health_view.CHECK_COLUMNS, id="checks")
        yield Lines(id="health-detail")
        yield Heading("This dashboard", id="self-heading")
        yield Lines(id="self")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#alerts-list", RowList).focus()

    def on_unmount(self) -> None:
        if self._verifying is not None:
            self._verifying.stop()

    # -- what is shown ---------------------------------------------------------------------------------

    def draw(self, snapshot: Snapshot) -> None:
        now, times = self.dashboard.moment, self.dashboard.times
        alerts = self.dashboard.alerts.all(now)
        self._alerts = {alert.key: alert for alert in alerts}
        seen = sum(alert.seen_until is not None for alert in alerts)
        self.query_one("#alerts-heading", Heading).show(
            f"Alerts {len(alerts) - seen}" + (f", {seen} seen" if seen else ""), "the rules of duraq check"
        )
        rows = Listed(health_view.alert_rows(alerts, now, times))
        self.query_one("#alerts-list", RowList).show(rows, empty=self.unless_reading(_WELL))
        self._show_checks(snapshot)
        self._show_cost()

    def _show_checks(self, snapshot: Snapshot) -> None:
        checks = health_view.checks(snapshot, self._verified)
        self._checks = {check.key: check for check in checks}
        self.query_one("#checks", RowList).show(Listed(health_view.check_rows(checks)), empty="\nlooking ...")
        self.query_one("#checks-heading", Heading).show("Checks", self._about_verifying())
        self._show_detail()

    def _about_verifying(self) -> str:
        if self._verified is None:
            return "r reads everything"
        text = health_view.verified_text(self._verified)
        if self._verified.ended_at is None:
            return f"{text}   Esc stops"
        at = wording.moment(self._verified.ended_at, self.dashboard.moment, self.dashboard.times)
        return f"read at {at}: {text}"

    def _show_cost(self) -> None:
        now = self.dashboard.moment
        if self._costed_at is not None and now - self._costed_at < _COSTED:
            return
        app, cost = self.dashboard, Cost.now()
        before, self._cost = self._cost or app.began_cost, cost
        self._costed_at = now
        text = health_view.this_dashboard(
            before, cost, read_only=app.read_only, began_at=app.began_at, times=app.times
        )
        self.query_one("#self", Lines).show(f" {text}")

    def _alert(self) -> Alert | None:
        return self._alerts.get(self.query_one("#alerts-list", RowList).cursor_key)

    def _check(self) -> Check | None:
        return self._checks.get(self.query_one("#checks", RowList).cursor_key)

    @on(RowList.Moved, "#checks")
    @on(RowList.Moved, "#alerts-list")
    def _show_detail(self) -> None:
        lines = self.query_one("#health-detail", Lines)
        if self.query_one("#checks", RowList).has_focus:
            check = self._check()
            said, fix = ("", "") if check is None else (check.what, check.fix)
        else:
            alert = self._alert()
            said, fix = ("" if alert is None else health_view.of_queue(alert.queue, alert.why)), ""
        shown: list[Sequence[Piece]] = [[f" {safe_text(said, 600)}"]]
        if fix:
            shown.append([(" try  ", "note"), fix])
        lines.show(*shown)

    def on_descendant_focus(self) -> None:
        self._show_detail()

    # -- reading everything ----------------------------------------------------------------------------

    def action_verify(self) -> None:
        """Read every record and check it."""
        snapshot = self.dashboard.snapshot
        if snapshot is None or (self._verifying is not None and self._is_reading):
            return

        def tell(found: Verified) -> None:
            self.post_message(self.Read(verifying, found))

        names = list(snapshot.queues)
        verifying = self._verifying = Verifying(self.dashboard.source.path, names, tell)
        self._verified = Verified(len(names))
        verifying.start()
        self._redraw()

    @property
    def _is_reading(self) -> bool:
        return self._verified is not None and self._verified.ended_at is None

    def on_health_screen_read(self, message: Read) -> None:
        if message.verifying is self._verifying:
            self._verified = message.found
            self._redraw()

    # -- what keys do ----------------------------------------------------------------------------------

    def action_back(self) -> None:
        """Stop reading everything."""
        if self._verifying is not None and self._is_reading:
            self._verifying.stop()

    def action_acknowledge(self) -> None:
        """Somebody has seen this alert; for an hour it stands behind the others. Again: it does not."""
        alert = self._alert()
        if alert is not None:
            alerts = self.query_one("#alerts-list", RowList)
            number = alerts.cursor_number
            self.dashboard.alerts.acknowledge(alert.key, self.dashboard.moment)
            self._redraw()
            # The next one takes its place.
            alerts.action_go(number)

    def chosen_for(self, action: Action) -> Selection | None:
        """The queue under the cursor; if there is none, the one of which most can be freed."""
        if action.target is not Target.QUEUE:
            return super().chosen_for(action)
        check, alert = self._check(), self._alert()
        if self.query_one("#checks", RowList).has_focus:
            queue = "" if check is None else check.queue
        else:
            queue = "" if alert is None else alert.queue
        if not queue and action.name == "compact":
            queue = next((each.queue for each in self._checks.values() if each.name == "compaction"), "")
        return Selection(queue=queue) if queue else None

    @on(RowList.Chosen, "#alerts-list")
    def _open_alert(self) -> None:
        alert = self._alert()
        if alert is None:
            return
        if alert.queue:
            self.dashboard.open_queue(alert.queue)
        else:
            checks = self.query_one("#checks", RowList)
            checks.go_to((alert.word.lower(), ""))
            checks.focus()

    @on(RowList.Chosen, "#checks")
    def _open_check(self) -> None:
        """All of what was found; of a damaged queue also what a repair would do."""
        check = self._check()
        if check is None:
            return
        what = safe_lines(check.what).split("\n")
        if not check.is_damage:
            self.app.push_screen(ReadingDialog(check.name, what, check.fix))
            return
        dialog = ReadingDialog(f"{check.name}: what a repair would do", [*what, "", "reading ..."], check.fix)
        self.app.push_screen(dialog)
        path, names = self.dashboard.source.path, [check.queue] if check.queue else None

        def question(_inspector: Inspector, _stop: threading.Event) -> list[str]:
            return repair(path, names, dry_run=True).steps

        def answer(found: list[str] | Exception) -> None:
            steps = [str(found)] if isinstance(found, Exception) else [f"would do: {step}" for step in found]
            dialog.call_later(dialog.show, [*what, "", *(steps or ["nothing is to be done"])])

        self.dashboard.source.ask(question, answer)

    # -- what it offers --------------------------------------------------------------------------------

    def copies(self) -> Sequence[Copyable]:
        check, alert = self._check(), self._alert()
        if self.query_one("#checks", RowList).has_focus:
            if check is None:
                return ()
            fix = [Copyable("c", "command", check.fix)] if check.fix else []
            return [*fix, Copyable("w", "what", check.what)]
        if alert is None:
            return ()
        queue = [Copyable("n", "queue", alert.queue)] if alert.queue else []
        return [*queue, Copyable("w", "why", alert.why)]

    def pager_text(self) -> str | None:
        lines = [f"{alert.word}  {alert.queue}  {alert.why}" for alert in self._alerts.values()]
        for check in self._checks.values():
            lines.append(f"{check.role or 'ok'}  {check.name}  {check.what}")
            lines += [f"    try  {check.fix}"] if check.fix else []
        return safe_lines("\n".join(lines))
